"""The claims page: every claim once, every reference exists, nothing is called settled without its evidence."""

import copy
import importlib.util
import json
from pathlib import Path

import pytest

from sigreg.lab.verdicts import hash_of

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("book_claims", ROOT / "book" / "_tools" / "claims.py")
claims = importlib.util.module_from_spec(spec)
spec.loader.exec_module(claims)

FIRST = claims.load()[0]["claims"][0]
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


RULE = {"contrast": "two numbers", "core": [{"id": "gap", "what": "their gap", "below": 1}]}


def write_chapter(folder, word="confirmed", rule=None, numbers=None, source=CHAPTER):
    """A chapter whose executed notebook shows one verdict, on P1."""
    folder.mkdir(exist_ok=True)
    (folder / "01_first.md").write_text(source)
    kept = {"claim": "P1", "rule": rule or hash_of({**FIRST, "rule": RULE}), "numbers": numbers or {"gap": 0.5}}
    said = {"text/markdown": ["> **Verdict.** **P1 is ", f"{word}.** As it was."]}
    output = {"output_type": "display_data", "data": said, "metadata": {"sigreg_verdict": kept}}
    cells = [{"cell_type": "code", "source": "verdict(\"P1\")", "outputs": [output]}]
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
        claim.update(derivation=[], check=[], experiment=[])
        claim.pop("rule", None), claim.pop("before", None)
    real["claims"][0].update(
        rule=copy.deepcopy(RULE),
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
        ({"derivation": []}, "P1: a rule without derivation"),
        ({"check": []}, "P1: a rule without check"),
        ({"experiment": []}, "P1: a rule without experiment"),
        ({"verdict": "confirmed"}, "P1: a verdict is typed in claims.yml; it is computed from the rule"),
        ({"reason": "word " * 61}, "P1: the reason has 61 words, 60 are the most"),
        ({"reason": "It is {slope.shown}."}, "P1: the rule cannot be applied: 'slope'"),
        ({"rule": {"contrast": "c", "core": []}}, "P1: the rule cannot be applied: P1: the rule has no core test"),
        ({"before": {"word": "confirmed", "why": "x"}}, 'P1: before the verdict was "confirmed", which it is now'),
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
    data["claims"][0].update(derivation=[], check=[], experiment=[])
    data["claims"][0].pop("rule")
    assert claims.problems(data, chapters) == []
    assert "[open]{.chip .open}" in claims.render(data, chapters)
    del data["claims"][0]
    assert claims.problems(data, chapters) == ["P1: not among the claims"]


def test_a_page_that_lags_behind_is_noticed(tmp_path, data):
    data["answers"] = []  # they are judged by a record, which is not there
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


@pytest.mark.parametrize(("numbers", "word"), [({"gap": 2}, "not confirmed"), ({"gap": 0.5}, "confirmed")])
def test_the_word_on_the_page_follows_the_chapters_numbers(tmp_path, data, numbers, word):
    write_chapter(tmp_path, word, numbers=numbers)
    chapters = claims.Chapters(tmp_path)
    assert claims.problems(data, chapters) == []
    assert f"**P1** [{word}]{{.chip .{word.replace(' ', '-')}}}" in claims.render(data, chapters)


@pytest.mark.parametrize("word", ["not confirmed", "confirmed in a region", "undecided", "well"])
def test_a_box_whose_word_is_not_the_rules_is_noticed(tmp_path, data, word):
    write_chapter(tmp_path, word)
    (message,) = claims.problems(data, claims.Chapters(tmp_path))
    assert message.startswith('P1: the rule gives "confirmed", chapter 1 shows "') and message.endswith("run it again")


def test_a_rule_that_changed_after_its_chapter_ran_is_noticed(data, chapters):
    data["claims"][0]["rule"]["core"][0]["below"] = 2
    assert claims.problems(data, chapters) == ["P1: the rule changed after chapter 1 ran: run it again"]


def test_one_box_a_claim_and_in_its_own_chapter(data, chapters):
    wanted = "P1: one box in chapter 1 must show its verdict; chapters that do: "
    chapters.boxes["P1"].append(chapters.boxes["P1"][0]._replace(chapter=2))
    assert claims.problems(data, chapters) == [f"{wanted}1 and 2"]
    chapters.boxes.clear()
    assert claims.problems(data, chapters) == [f"{wanted}none"]


@pytest.mark.parametrize(
    "typed",
    [
        "> **Verdict.** **P1 is confirmed**, as an identity.",
        'say(f"> **Verdict.** **P1 is {word}**")',
        "So P11 is thereby confirmed in a region.",
        "Here V3 is not confirmed at this scale.",
        "S2 was left undecided.",
        "| S3 | Proposition 8.6 | ascent | cells | confirmed |",
    ],
)
def test_a_typed_verdict_is_caught(tmp_path, data, typed):
    write_chapter(tmp_path, source=f"{CHAPTER}\n{typed}\n")
    found = claims.problems(data, claims.Chapters(tmp_path))
    assert found and all(line.startswith("01_first.md types a verdict") for line in found)


def test_the_table_at_a_glance_has_every_claim_with_its_evidence_and_word(data, chapters):
    page = claims.render(data, chapters)
    rows = [line for line in page.splitlines() if line.startswith("| [")]
    assert [row.split("]")[0][3:] for row in rows] == claims.IDS
    wanted = "| [P1](#claim-p1) | Proposition 1.2 | [A check, by hand](../notebooks/01_first.ipynb#a-check-by-hand) "
    assert rows[0] == wanted + "| Figure {numref}`%s <fig-curve>` | [confirmed]{.chip .confirmed} |"


def test_a_changed_verdict_says_what_it_was_and_why(data, chapters):
    data["claims"][0]["before"] = {"word": "not confirmed", "why": "A worse rule."}
    assert claims.problems(data, chapters) == []
    assert "Before\n: *not confirmed*. A worse rule." in claims.render(data, chapters)


def test_margins_of_accuracies_are_half_a_point(data, chapters):
    data["claims"][0]["rule"]["core"][0] = {"id": "gap", "what": "gap", "better": 0.1}
    found = claims.problems(data, chapters)
    assert "P1: test gap has the margin 0.1; accuracies have 0.5 points" in found


def test_a_known_answer_that_does_not_come_out_is_noticed(data, chapters):
    data["answers"][0]["truth"] = "not confirmed"
    noticed = 'K1: the answer is known to be "not confirmed", the rule gives "confirmed"'
    assert noticed in claims.problems(data, chapters)
    assert "Would the rules notice?" in claims.render(data, chapters)
