"""The claims page: every claim once, every reference exists, nothing is called settled without its evidence."""

import copy
import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("book_claims", ROOT / "book" / "_tools" / "claims.py")
claims = importlib.util.module_from_spec(spec)
spec.loader.exec_module(claims)

CHAPTER = """# 1. First

> **Proposition 1.2 (Name).** Text.

## A check, by hand

```{code-cell}
---
mystnb:
  figure:
    name: fig-curve
---
## Not a heading
plot()
```
"""


def write_chapter(folder):
    folder.mkdir(exist_ok=True)
    (folder / "01_first.md").write_text(CHAPTER)
    said = ["> **Verdict.** **P1 is ", "confirmed**, as an identity."]
    verdict = {"output_type": "display_data", "data": {"text/markdown": said}}
    cells = [{"cell_type": "code", "source": "say(verdict)", "outputs": [verdict]}]
    (folder / "01_first.ipynb").write_text(json.dumps({"cells": cells}))


@pytest.fixture
def chapters(tmp_path):
    write_chapter(tmp_path)
    return claims.Chapters(tmp_path)


@pytest.fixture
def data():
    """The real claims, all open, the first one settled by the little chapter above."""
    real, _ = claims.load()
    for claim in real["claims"]:
        claim.update(verdict="open", derivation=[], check=[], experiment=[])
    real["claims"][0].update(
        verdict="confirmed",
        derivation=["Proposition 1.2"],
        check=["01_first#a-check-by-hand"],
        experiment=["fig-curve"],
    )
    return real


def test_the_books_own_claims_are_in_order_and_the_page_is_up_to_date():
    assert claims.check() == []


def test_every_claim_of_the_three_papers_is_listed():
    real, _ = claims.load()
    assert sorted(claim["id"] for claim in real["claims"]) == sorted(claims.IDS)
    assert len(claims.IDS) == 12 + 4 + 5


def test_the_page_says_whose_the_claims_are_and_shows_each(data, chapters):
    page = claims.render(data, chapters)
    assert "The claims are the papers'" in page and "only the abstracts were available" in page
    assert all(f"(claim-{name.lower()})=" in page for name in claims.IDS)
    assert "[A check, by hand](../notebooks/01_first.ipynb#a-check-by-hand)" in page
    assert "{numref}`fig-curve`" in page and ": Proposition 1.2\n" in page


def test_a_sound_file_has_no_problem(data, chapters):
    assert claims.problems(data, chapters) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"derivation": ["Proposition 1.3"]}, 'P1: derivation "Proposition 1.3" does not exist in the chapters'),
        ({"derivation": ["Theorem 1.2"]}, 'P1: derivation "Theorem 1.2" does not exist in the chapters'),
        ({"derivation": ["fig-curve"]}, 'P1: derivation "fig-curve" is not a statement such as "Proposition 1.2"'),
        ({"check": ["01_first#not-a-heading"]}, 'P1: check "01_first#not-a-heading" does not exist in the chapters'),
        ({"experiment": ["fig-gone"]}, 'P1: experiment "fig-gone" does not exist in the chapters'),
        ({"derivation": []}, 'P1: verdict "confirmed" without derivation'),
        ({"check": []}, 'P1: verdict "confirmed" without check'),
        ({"experiment": []}, 'P1: verdict "confirmed" without experiment'),
        ({"verdict": "not confirmed", "check": []}, 'P1: verdict "not confirmed" without check'),
        ({"verdict": "confirmed in a region", "check": []}, 'P1: verdict "confirmed in a region" without check'),
        ({"verdict": "proved"}, 'P1: verdict "proved" is not one of'),
        ({"reason": " "}, "P1: no reason"),
        ({"claim": None}, "P1: no claim"),
        ({"chapter": 99}, "P1: chapter 99 has no title"),
        ({"id": "P13"}, "P13: no such claim is known"),
        ({"id": "P2"}, "P2: listed twice"),
    ],
)
def test_each_mistake_is_named(data, chapters, change, message):
    data["claims"][0].update(change)
    found = claims.problems(data, chapters)
    assert any(line.startswith(message) for line in found), found


def test_a_claim_may_be_open_without_evidence_but_not_missing(data, chapters):
    first = copy.deepcopy(data["claims"][0])
    data["claims"][0].update(verdict="open", derivation=[], check=[], experiment=[])
    assert claims.problems(data, chapters) == []
    data["claims"].remove(next(claim for claim in data["claims"] if claim["id"] == first["id"]))
    assert claims.problems(data, chapters) == ["P1: not among the claims"]


def test_a_page_that_lags_behind_is_noticed(tmp_path, data):
    write_chapter(tmp_path / "notebooks")
    (tmp_path / "book").mkdir()
    (tmp_path / "book/claims.yml").write_text(claims.yaml.safe_dump(data, allow_unicode=True))
    late = ["book/claims.md is out of date: run `python book/_tools/claims.py`"]
    assert claims.check(tmp_path) == late
    (tmp_path / "book/claims.md").write_text(claims.render(*claims.load(tmp_path)))
    assert claims.check(tmp_path) == []
    data["claims"][0]["reason"] = "Another reason."
    (tmp_path / "book/claims.yml").write_text(claims.yaml.safe_dump(data, allow_unicode=True))
    assert claims.check(tmp_path) == late


@pytest.mark.parametrize("verdict", ["not confirmed", "confirmed in a region"])
def test_the_page_and_the_chapter_must_say_the_same(data, chapters, verdict):
    data["claims"][0]["verdict"] = verdict
    assert claims.problems(data, chapters) == [f'P1: verdict "{verdict}", but chapter 1 says: confirmed']


def test_a_chapter_that_states_no_verdict_is_noticed(data, chapters):
    chapters.verdicts.clear()
    (message,) = claims.problems(data, chapters)
    assert message.startswith('P1: verdict "confirmed", but chapter 1 says: no verdict of the form')
