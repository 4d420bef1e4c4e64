"""Verdicts: the word follows the numbers, the interval holds what it says, and a changed rule shows."""

import copy
import math

import numpy as np
import pytest

from sigreg.lab import records, reproduce, verdicts
from sigreg.lab.intervals import Interval
from sigreg.lab.judging import pack
from sigreg.lab.rules import hash_of, load_claims, rule_hash
from sigreg.lab.verdicts import judge, state_of, verdict

CLAIMS = load_claims()["claims"]


def toy(core=("a",), beyond=("b",)):
    """A claim whose tests all ask a chapter's number to lie below 1."""
    tests = {kind: [{"id": name, "what": name, "below": 1} for name in names] for kind, names in
             (("core", core), ("beyond", beyond))}  # fmt: skip
    rule = {"contrast": "c", **tests}
    return {"id": "P1", "chapter": 1, "claim": "A claim.", "reason": "It read {a.shown}.", "rule": rule}


def stored(tmp_path, name, change=lambda record: None):
    """A copy of one of the book's records, changed, in a folder of its own."""
    record = copy.deepcopy(records.load_record(name))
    change(record)
    records.save_record(record, tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("ask", "bar", "low", "high", "word"),
    [
        ("better", 0.5, 0.1, 2.0, "yes"),
        ("better", 0.5, 0.1, 0.3, "yes"),  # small, and above zero
        ("better", 0.5, -0.1, 0.9, "open"),
        ("better", 0.5, -0.1, 0.4, "no"),
        ("no_worse", 0.5, -0.4, 0.1, "yes"),
        ("no_worse", 0.5, -0.9, 0.4, "open"),
        ("no_worse", 0.5, -2.0, -0.6, "no"),
        ("above", 3, 3.1, 4.0, "yes"),
        ("above", 3, 2.9, 4.0, "open"),
        ("above", 3, 1.0, 2.9, "no"),
        ("below", 3, 2.0, 2.9, "yes"),
        ("below", 3, 2.0, 3.1, "open"),
        ("below", 3, 3.1, 4.0, "no"),
        ("below", 3, math.nan, math.nan, "no"),
    ],
)
def test_a_test_holds_fails_or_is_open(ask, bar, low, high, word):
    assert verdicts._word(Interval((low + high) / 2, low, high), ask, bar) == word


@pytest.mark.parametrize(
    ("numbers", "word"),
    [
        ({"a": 0, "b": 0}, "confirmed"),
        ({"a": 0, "b": 2}, "confirmed in a region"),
        ({"a": 0}, "confirmed in a region"),
        ({"a": 2, "b": 0}, "not confirmed"),
        ({"b": 0}, "undecided"),
    ],
)
def test_the_word_follows_from_the_tests(numbers, word):
    assert judge(toy(), numbers).word == word


def test_the_text_shows_what_was_measured_and_other_numbers_are_refused():
    assert judge(toy(), {"a": 0.25, "b": 0}).text == "It read 0.25."
    with pytest.raises(ValueError, match=r"numbers for c, its rule reads from the chapter: a, b"):
        judge(toy(), {"c": 0})
    with pytest.raises(ValueError, match="has no core test"):
        judge(toy(core=()), {})
    twice = toy()
    twice["rule"]["core"][0]["above"] = 0
    with pytest.raises(ValueError, match="must have one of better, no_worse, above, below"):
        judge(twice, {"a": 0})


def one_pass():
    """The rule of V3 with its two tests of one pass only."""
    claim = copy.deepcopy(verdicts.find_claim("V3"))
    once, pairs = claim["rule"]["beyond"][1:]
    claim["rule"] |= {"looks": 2, "core": [once], "beyond": [pairs]}
    claim["reason"] = "One pass."
    return claim


@pytest.mark.parametrize(
    ("shift", "word"), [(0.0, "undecided"), (0.05, "confirmed in a region"), (-0.05, "not confirmed")]
)
def test_other_numbers_in_a_record_turn_the_word(tmp_path, shift, word):
    def change(record):
        for entry in record["units"]:
            if (entry["unit"]["part"], entry["unit"]["method"]) == ("final", "logdet"):
                entry["result"]["accuracy"] += shift

    assert judge(one_pass(), records=stored(tmp_path, "vicreg_information", change)).word == word


def test_intervals_hold_the_test_images_and_widen_with_the_looks():
    a, b = [0.91, 0.90, 0.92], [0.90, 0.89, 0.91]  # the same gain in every seed
    few, many = (verdicts.points(a, b, images, 0.95) for images in (1000, 10**12))
    assert many.high - many.low < 1e-3 < 2.5 < few.high - few.low and few.mean == pytest.approx(1)
    assert few.seeds.high - few.seeds.low < 1e-9
    claim = one_pass()
    narrow = judge(claim).answers[0]
    claim["rule"]["looks"] = 20
    wide = judge(claim).answers[0]

    def ends(shown):
        return [float(part.strip("()+")) for part in shown.replace(" to ", " ").split()[1:]]

    assert ends(wide.shown)[0] < ends(narrow.shown)[0] and ends(wide.shown)[1] > ends(narrow.shown)[1]
    claim["rule"]["looks"] = 1
    with pytest.raises(ValueError, match="allows for 1 looks, its tests take 2"):
        judge(claim)


def test_a_run_writes_the_hashes_of_its_rules_and_a_changed_rule_shows(tmp_path):
    claim = copy.deepcopy(verdicts.find_claim("V2"))
    assert set(rule_hash("vicreg_information")) == {"V2", "V3", "V4"} and rule_hash("no_such") == {}
    toy_experiment = tmp_path / "vicreg_information.py"
    toy_experiment.write_text(
        '"""A toy."""\nVERSION = 1\nSEEDS = {"default": 1, "full": 1}\ndef units(preset, seeds): return [{"seed": 0}]\n'
        'def run_unit(unit, device): return {"a": 1.0}\ndef summary(record): return ""\n'
    )
    (run,) = reproduce.live(str(toy_experiment), device="cpu")["provenance"]["runs"]
    assert run["rules"] == rule_hash("vicreg_information")

    def written_before(record):
        for made in record["provenance"]["runs"]:
            made["rules"] = run["rules"]

    def written_after(record):
        for made in record["provenance"]["runs"]:
            made.pop("rules", None)

    old, new = tmp_path / "old", tmp_path / "new"
    assert state_of(claim, stored(old, "vicreg_information", written_after)) == "after"
    assert state_of(claim, stored(new, "vicreg_information", written_before)) == "before"
    claim["rule"]["beyond"][0]["above"] = 0.25
    assert hash_of(claim) != run["rules"]["V2"] and state_of(claim, new) == "changed"
    assert state_of(claim, tmp_path) == "missing" and state_of(toy(), new) == "every run"
    claim["rule"]["core"].append({"id": "c", "what": "c", "below": 1, "records": ["vicreg_information_family"]})

    def now(record):
        for made in record["provenance"]["runs"]:
            made["rules"] = {"V2": hash_of(claim)}

    stored(new, "vicreg_information_family", now)
    assert state_of(claim, new, ("core",)) == "before" and state_of(claim, new) == "changed"
    judged = verdicts.Judged("undecided", [], "", "changed", "before")
    assert verdicts.small_print(claim, judged).endswith(
        "Core: rule written before the run. Elsewhere: rule changed after the run."
    )


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim["id"])
def test_every_rule_of_the_book_can_be_applied(claim):
    judged = judge(claim)
    assert judged.word in verdicts.WORDS and judged.word != "open"
    assert all(answer.shown != "not measured" for answer in judged.answers if answer.looks)
    assert claim["rule"].get("looks", 0) < 1 or any(answer.looks for answer in judged.answers) or claim["id"] == "S5"


def test_every_measure_belongs_to_a_test_of_a_rule():
    judged = [*CLAIMS, *load_claims()["answers"]]
    wanted = {(c["id"], test["id"]) for c in judged for test in verdicts.tests_of(c) if test.get("records")}
    assert wanted == set(verdicts.MEASURES)


def test_rivals_are_compared_by_which_images_were_guessed_right():
    """SIGReg right on 9000 of the 10 000 images, VICReg on 8800 of them, with one more in every further seed."""
    right = {"sigreg": 9000, "vicreg": 8800, "byol": 9100}
    units = [
        {"unit": {"method": m, "seed": seed}, "result": {"right": pack(np.arange(10_000) < n + seed)}, "seconds": 1.0}
        for m, n in right.items()
        for seed in range(3)
    ]
    found = verdicts._equal_trials("vicreg", "byol")(lambda name: {"units": units}, 0.95)
    assert [v.mean for v in found] == [pytest.approx(2.0), pytest.approx(-1.0)]
    for v, share in zip(found, (0.02, 0.01), strict=True):  # seeds agree: only the images scatter
        half = 100 * 1.96 * math.sqrt(share * (1 - share) / 10_000)
        assert v.high - v.mean == pytest.approx(half, rel=0.01)


def test_verdict_shows_a_box_and_asks_for_all_its_numbers(capsys):
    verdict("P1", identity=1e-16)
    box = capsys.readouterr().out
    assert box.startswith("> **Verdict.** **P1 is confirmed.** An identity")
    assert "| 0 to rounding | below 1e-09 nats | yes |" in box
    assert all(line.startswith(">") for line in box.splitlines())
    verdict("P1", identity=1.0)
    assert "**P1 is not confirmed.**" in capsys.readouterr().out
    with pytest.raises(ValueError, match="P2: its rule also reads gap: give them as keyword arguments"):
        verdict("P2", outside=0)


def test_relevance_is_held_against_the_least_of_rate_and_label_entropy():
    found = [(0.1, 3.0, 2.0), (0.1, 3.0, 2.1), (1.0, 1.5, 1.2), (1.0, 1.6, 1.3)]  # weight, rate, relevance
    units = [
        {"unit": {"part": "sweep", "method": "pairwise", "beta": b, "seed": k}, "result": {"rate": r, "relevance": i}}
        for k, (b, r, i) in enumerate(found)
    ]
    small, large = verdicts._short_of_bound(lambda name: {"units": units}, 0.95)
    assert small.mean == pytest.approx(math.log(10) - 2.05) and large.mean == pytest.approx(0.3)
