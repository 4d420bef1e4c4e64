"""The claims of ``book/claims.yml`` with their rules: read and found again. Needs no more than torch and yaml."""

import hashlib
import json

from sigreg.lab.records import PACKAGE


def load_claims(path=None) -> dict:
    """The claims with their rules, from the checkout's ``book/claims.yml`` or the installed package.

    >>> len(load_claims()["claims"])
    21
    """
    import yaml

    places = [path] if path else [PACKAGE.parent / "book" / "claims.yml", PACKAGE / "_claims" / "claims.yml"]
    for place in places:
        try:
            with open(place, encoding="utf-8") as file:
                return yaml.safe_load(file)
        except FileNotFoundError:
            continue
    raise FileNotFoundError(f"no claims.yml in {', '.join(map(str, places))}: install the package again")


def find_claim(name: str, claims=None) -> dict:
    """One claim, or one question with a known answer, by its id.

    >>> find_claim("P99")
    Traceback (most recent call last):
    ...
    ValueError: no claim 'P99': choose from P1, ...
    """
    data = claims or load_claims()
    listed = {claim["id"]: claim for claim in data["claims"] + data.get("answers", [])}
    if name not in listed:
        raise ValueError(f"no claim {name!r}: choose from {', '.join(listed)}")
    return listed[name]


def tests_of(claim: dict) -> list[dict]:
    """The tests of a claim's rule, those of the core first; ``kind`` says which they are."""
    rule = claim.get("rule") or {}
    return [{**test, "kind": kind} for kind in ("core", "beyond") for test in rule.get(kind) or []]


def records_of(claim: dict) -> list[str]:
    """The records that a claim's rule reads, itself or ``via`` the numbers of its chapter."""
    tests = tests_of(claim)
    return list(dict.fromkeys(name for test in tests for name in test.get("records") or test.get("via") or []))


def hash_of(claim: dict) -> str:
    """What identifies a rule: any change of a test, a bar, the looks or the claim itself moves it."""
    text = json.dumps([claim["claim"], claim["rule"]], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def rule_hash(experiment: str, claims=None) -> dict:
    """The hashes of all rules that read this experiment's record, by claim: a run writes them into its record.

    >>> sorted(rule_hash("conditional_bottleneck_batch"))
    ['P11']
    """
    data = claims or load_claims()
    listed = data["claims"] + data.get("answers", [])
    return {claim["id"]: hash_of(claim) for claim in listed if experiment in records_of(claim)}
