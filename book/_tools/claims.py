"""The claims page: `book/claims.yml` says what is claimed, where the book answers and by which rule.

python book/_tools/claims.py          write book/claims.md
python book/_tools/claims.py check    is every claim in order, and claims.md up to date?

No verdict is typed. The word of a claim is computed by `sigreg.lab.verdicts.judge` from the stored records and from the
numbers that the executed chapter kept beside its verdict box.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import NamedTuple

import yaml

from sigreg.lab.notebook import table
from sigreg.lab.verdicts import STATES, WORDS, Judged, hash_of, judge, small_print

ROOT = Path(__file__).resolve().parents[2]
IDS = [f"P{k}" for k in range(1, 13)] + [f"V{k}" for k in range(1, 5)] + [f"S{k}" for k in range(1, 6)]
ANSWERS = {"derivation": "Derived", "check": "Checked", "experiment": "Run"}
MOST_WORDS = 60  # of a verdict's text
MARGIN = 0.5  # points: a difference of accuracies that would matter

KINDS = "Definition|Proposition|Theorem|Lemma|Corollary|Remark|Example|Algorithm|Exercise"
STATEMENT = re.compile(rf"(?:{KINDS}) \d+\.\d+")
OPENING = re.compile(rf"^> \*\*({STATEMENT.pattern})\b", re.MULTILINE)
FIGURE = re.compile(r"^\s+name:\s*(fig-[\w-]+)\s*$", re.MULTILINE)
HEADING = re.compile(r"^#{2,3} +(.+?)\s*$", re.MULTILINE)
SAID = re.compile(rf"\*\*({'|'.join(IDS)}) is ({'|'.join(sorted(WORDS, key=len, reverse=True))})\.\*\*")
# A verdict in a chapter's source: its box, a claim "is confirmed", a row of a table that ends in the word.
TYPED = re.compile(
    rf"\*\*Verdict\b|\b(?:{'|'.join(IDS)})\b[^.|\n]{{0,60}}?\b(?:is|are|was)\b[^.|\n]{{0,30}}?\b(?:confirmed|undecided)\b"
    rf"|^\| *(?:{'|'.join(IDS)}) *\|.*\b(?:confirmed|undecided)\b",
    re.MULTILINE,
)

PREFACE = """# Claims

*What is claimed, where this book derives, checks and runs it, and what came out.*

The claims are the papers'; the wording is ours, and so are all derivations and experiments. Of Domb's paper
only the abstracts were available to us: its own theorems, proofs, architectures and figures are unknown to
us, and where several routes fit a claim we give them all. A claim that does not hold at our scale is reported
as it stands, with the region where it does hold if there is one.
"""

RULES = """## How a verdict is made

No verdict on this page, or in a chapter, is typed. Each claim has a rule in `book/claims.yml`: what is compared, which
number is read from a stored record or computed by the chapter, and a bar for it. A test *holds* or *fails* if the whole
interval lies on one side of its bar; else it is open. Where accuracies are compared half a point is the difference
that matters, and the interval contains the scatter of the seeds and of the test images. A claim with several intervals
widens them until all hold together with 95% (Bonferroni). The tests of the *core* decide whether there is anything to
confirm; the others, in italics, mark limits.

A rule should be written before the run that it judges. Each record keeps the hashes of the rules at the time of its
run, and every card says which came first: {}
"""

KNOWN = """### Would the rules notice?

Three questions with answers that need no experiment go through the pipeline of Chapter 6 and through the same rules,
which were written before the run.
"""


class Chapters:
    """What can be referred to in `notebooks/NN_stem.md`: statements, named figures, sections."""

    def __init__(self, folder: Path):
        self.stems: dict[int, str] = {}
        self.statements: set[str] = set()
        self.figures: set[str] = set()
        self.sections: dict[str, str] = {}
        self.boxes: dict[str, list[Box]] = {}
        self.typed: list[str] = []
        for path in sorted(folder.glob("[0-9][0-9]*_*.md")):
            text = path.read_text(encoding="utf-8")
            self.stems.setdefault(int(path.stem[:2]), path.stem)
            self.statements |= {match[1] for match in OPENING.finditer(text)}
            self.figures |= set(FIGURE.findall(text))
            prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
            self.sections |= {f"{path.stem}#{slug(title)}": title for title in HEADING.findall(prose)}
            self.typed += [f"{path.name} types a verdict: {match[0]!r}" for match in TYPED.finditer(text)]
            for box in boxes(path.with_suffix(".ipynb")):
                self.boxes.setdefault(box.claim, []).append(box)

    def has(self, reference: str) -> bool:
        return reference in self.statements or reference in self.figures or reference in self.sections

    def link(self, reference: str) -> str:
        if reference in self.sections:
            stem, anchor = reference.split("#")
            return f"[{self.sections[reference]}](../notebooks/{stem}.ipynb#{anchor})"
        return f"{{numref}}`{reference}`" if reference.startswith("fig-") else reference


class Box(NamedTuple):
    """A verdict that an executed chapter shows: the claim, the word, the numbers it was given, the rule it used."""

    chapter: int
    claim: str
    word: str
    numbers: dict
    rule: str


def boxes(path: Path) -> list[Box]:
    """The verdict boxes among the outputs of an executed chapter."""
    found = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if path.exists() else []:
        for output in cell.get("outputs", []):
            kept = output.get("metadata", {}).get("sigreg_verdict")
            if kept:
                said = SAID.search("".join(output["data"].get("text/markdown", "")))
                word = said[2] if said and said[1] == kept["claim"] else ""
                found.append(Box(int(path.stem[:2]), kept["claim"], word, kept["numbers"], kept["rule"]))
    return found


def slug(title: str) -> str:
    """The anchor of a heading, as MyST and GitHub make it."""
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")


def judged(claim: dict, chapters: Chapters, records=None) -> Judged:
    """The word of a claim from its chapter's numbers and the records; "open" where it has no rule."""
    if not claim.get("rule"):
        return Judged("open", [], str(claim.get("reason")), "every run")
    shown = chapters.boxes.get(claim["id"], [])
    return judge(claim, shown[0].numbers if shown else None, records)


def problems(data: dict, chapters: Chapters, records=None) -> list[str]:
    found = [*chapters.typed]
    ids = [claim["id"] for claim in data["claims"]]
    found += [f"{name}: not among the claims" for name in IDS if name not in ids]
    found += [f"{name}: listed twice" for name in dict.fromkeys(ids) if ids.count(name) > 1]
    found += [f"{name}: no such claim is known" for name in ids if name not in IDS]
    for claim in data["claims"]:
        name = claim["id"]
        found += [f"{name}: no {part}" for part in ("claim", "reason") if not str(claim.get(part) or "").strip()]
        if "verdict" in claim:
            found.append(f"{name}: a verdict is typed in claims.yml; it is computed from the rule")
        if claim.get("chapter") not in data["chapters"]:
            found.append(f"{name}: chapter {claim.get('chapter')} has no title under `chapters`")
        for part in ANSWERS:
            references = claim.get(part) or []
            if claim.get("rule") and not references:
                found.append(f"{name}: a rule without {part}")
            for reference in references:
                if part == "derivation" and not STATEMENT.fullmatch(reference):
                    found.append(f'{name}: derivation "{reference}" is not a statement such as "Proposition 1.2"')
                elif not chapters.has(reference):
                    found.append(f'{name}: {part} "{reference}" does not exist in the chapters')
        if claim.get("rule") and claim.get("reason"):
            found += _problems_of_verdict(claim, chapters, records)
    for answer in data.get("answers", []):
        word = judge(answer, None, records).word
        if word != answer["truth"]:
            found.append(f'{answer["id"]}: the answer is known to be "{answer["truth"]}", the rule gives "{word}"')
    return found


def _problems_of_verdict(claim: dict, chapters: Chapters, records) -> list[str]:
    """Can the word be computed, and does exactly one box, in the claim's own chapter, show it?"""
    name, shown = claim["id"], chapters.boxes.get(claim["id"], [])
    try:
        now = judged(claim, chapters, records)
    except (ValueError, KeyError, AttributeError) as error:
        return [f"{name}: the rule cannot be applied: {error}"]
    found = []
    for test in claim["rule"]["core"] + claim["rule"].get("beyond", []):
        margin = test.get("better", test.get("no_worse"))
        if margin is not None and margin != MARGIN:
            found.append(f"{name}: test {test['id']} has the margin {margin}; accuracies have {MARGIN} points")
    if len(now.text.split()) > MOST_WORDS:
        found.append(f"{name}: the reason has {len(now.text.split())} words, {MOST_WORDS} are the most")
    if claim.get("before", {}).get("word") == now.word:
        found.append(f'{name}: before the verdict was "{now.word}", which it is now: leave out `before`')
    if [box.chapter for box in shown] != [claim["chapter"]]:
        places = " and ".join(str(box.chapter) for box in shown) or "none"
        wanted = f"{name}: one box in chapter {claim['chapter']} must show its verdict"
        return [*found, f"{wanted}; chapters that do: {places}"]
    if shown[0].rule != hash_of(claim):
        found.append(f"{name}: the rule changed after chapter {claim['chapter']} ran: run it again")
    elif shown[0].word != now.word:
        shows = f'chapter {claim["chapter"]} shows "{shown[0].word}"'
        found.append(f'{name}: the rule gives "{now.word}", {shows}: run it again')
    return found


def render(data: dict, chapters: Chapters, records=None) -> str:
    claims = sorted(data["claims"], key=lambda claim: IDS.index(claim["id"]))
    words = {claim["id"]: judged(claim, chapters, records) for claim in claims}
    parts = [PREFACE, "The claims come from three papers:\n"]
    parts += [f"- **{letter}**: {source}" for letter, source in data["sources"].items()]
    parts.append("\n## Results at a glance\n\n:::{div} claims-overview")
    rows = [
        (
            f"[{claim['id']}](#claim-{claim['id'].lower()})",
            *(_short(claim.get(part) or [], chapters) for part in ANSWERS),
            _chip(words[claim["id"]].word),
        )
        for claim in claims
    ]
    parts += [table(("claim", *map(str.lower, ANSWERS.values()), "verdict"), rows), ""]
    said = [judged.word for judged in words.values()]
    for word, meaning in WORDS.items():
        if word != "open" or "open" in said:
            parts += [_chip(word), f": {said.count(word)} of {len(said)}. {meaning}\n"]
    parts.append(":::\n")
    states = [judged.state for judged in words.values() if judged.answers]
    said_of = {state: meaning.rstrip(".") for state, meaning in STATES.items() if state in states}
    counted = [f"*{meaning}*, {states.count(state)} cards" for state, meaning in said_of.items()]
    parts.append(RULES.format("; ".join(counted) + "."))
    if answers := data.get("answers"):
        rows = [(answer["claim"], answer["truth"], judge(answer, None, records).word) for answer in answers]
        parts += [KNOWN, table(("question", "must come out", "comes out"), rows), ""]
    for number, title in data["chapters"].items():
        here = [claim for claim in data["claims"] if claim["chapter"] == number]
        if here:
            parts.append(f"## {number}. {title}\n")
            parts += [_card(claim, words[claim["id"]], chapters) for claim in here]
    return "\n".join(parts).rstrip() + "\n"


def _chip(word: str) -> str:
    return f"[{word}]{{.chip .{word.replace(' ', '-')}}}"


def _short(references: list[str], chapters: Chapters) -> str:
    """References for a cell: "Propositions 1.2, 1.3", numbers of figures, numbers of sections."""
    kinds: dict[str, list[str]] = {}
    for reference in references:
        if STATEMENT.fullmatch(reference):
            kind, number = reference.split()
            kinds.setdefault(kind, []).append(number)
    parts = [f"{_plural(kind) if len(numbers) > 1 else kind} {', '.join(numbers)}" for kind, numbers in kinds.items()]
    figures = [f"{{numref}}`%s <{reference}>`" for reference in references if reference.startswith("fig-")]
    parts += [f"Figure{'s' if len(figures) > 1 else ''} {', '.join(figures)}"] if figures else []
    for reference in references:
        if reference in chapters.sections:
            stem, anchor = reference.split("#")
            number = chapters.sections[reference].split()[0]
            text = f"Section {number}" if "." in number else chapters.sections[reference]
            parts.append(f"[{text}](../notebooks/{stem}.ipynb#{anchor})")
    return "; ".join(parts) or "–"


def _plural(kind: str) -> str:
    return f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"


def _card(claim: dict, now: Judged, chapters: Chapters) -> str:
    lines = [
        f"(claim-{claim['id'].lower()})=",
        f":::{{div}} claim {now.word.replace(' ', '-')}",
        f"**{claim['id']}** {_chip(now.word)}\n",
        f"{claim['claim']}\n",
    ]
    for part, word in ANSWERS.items():
        if claim.get(part):
            lines += [word, f": {', '.join(map(chapters.link, claim[part]))}\n"]
    lines += ["Verdict", f": {now.text}\n"]
    if now.answers:
        contrast = claim["rule"]["contrast"]
        lines += ["Rule", f": {contrast[0].upper()}{contrast[1:]}.\n", "Read as", f": {small_print(claim, now)}\n"]
    if claim.get("before"):
        lines += ["Before", f": *{claim['before']['word']}*. {claim['before']['why']}\n"]
    if now.answers:
        rows = [(a.what if a.kind == "core" else f"*{a.what}*", a.shown, a.bar, a.word) for a in now.answers]
        lines.append(table(("test", "measured", "bar", "met?"), rows))
    return "\n".join([*lines, ":::\n"])


def load(root: Path = ROOT) -> tuple[dict, Chapters]:
    return yaml.safe_load((root / "book/claims.yml").read_text(encoding="utf-8")), Chapters(root / "notebooks")


def check(root: Path = ROOT) -> list[str]:
    data, chapters = load(root)
    records = root / "book/_records"
    found = problems(data, chapters, records)
    page = root / "book/claims.md"
    if not found and (not page.exists() or page.read_text(encoding="utf-8") != render(data, chapters, records)):
        found.append("book/claims.md is out of date: run `python book/_tools/claims.py`")
    return found


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["check"]):
        print(__doc__)
        return 2
    if not arguments:
        data, chapters = load()
        (ROOT / "book/claims.md").write_text(render(data, chapters, ROOT / "book/_records"), encoding="utf-8")
    found = check()
    print(*found or ["the claims and claims.md are in order"], sep="\n")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
