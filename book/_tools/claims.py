"""The claims page: `book/claims.yml` says what is claimed and where the book answers; claims.md shows it.

python book/_tools/claims.py          write book/claims.md
python book/_tools/claims.py check    is every claim in order, and claims.md up to date?
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
IDS = [f"P{k}" for k in range(1, 13)] + [f"V{k}" for k in range(1, 5)] + [f"S{k}" for k in range(1, 6)]
VERDICTS = {
    "confirmed": "The derivation, the check and the experiment agree with the claim.",
    "confirmed in a region": "They agree under conditions that the reason names.",
    "not confirmed": "At our scale at least one of them speaks against the claim.",
    "open": "We have not yet derived, checked and run it.",
}
ANSWERS = {"derivation": "Derived", "check": "Checked", "experiment": "Run"}

KINDS = "Definition|Proposition|Theorem|Lemma|Corollary|Remark|Example|Algorithm|Exercise"
STATEMENT = re.compile(rf"(?:{KINDS}) \d+\.\d+")
OPENING = re.compile(rf"^> \*\*({STATEMENT.pattern})\b", re.MULTILINE)
FIGURE = re.compile(r"^\s+name:\s*(fig-[\w-]+)\s*$", re.MULTILINE)
HEADING = re.compile(r"^#{2,3} +(.+?)\s*$", re.MULTILINE)
SAID = re.compile(rf"\*\*({'|'.join(IDS)}) is ({'|'.join(sorted(VERDICTS, key=len, reverse=True))})\b")

PREFACE = """# Claims

*What is claimed, where this book derives, checks and runs it, and what came out.*

The claims are the papers'; the wording is ours, and so are all derivations and experiments. Of Domb's paper
only the abstracts were available to us: its own theorems, proofs, architectures and figures are unknown to
us, and where several routes fit a claim we give them all. A claim that does not hold at our scale is reported
as it stands, with the region where it does hold if there is one.
"""


class Chapters:
    """What can be referred to in `notebooks/NN_stem.md`: statements, named figures, sections."""

    def __init__(self, folder: Path):
        self.stems: dict[int, str] = {}
        self.statements: set[str] = set()
        self.figures: set[str] = set()
        self.sections: dict[str, str] = {}
        self.verdicts: dict[tuple[int, str], set[str]] = {}
        for path in sorted(folder.glob("[0-9][0-9]_*.md")):
            text = path.read_text(encoding="utf-8")
            self.stems[int(path.stem[:2])] = path.stem
            self.statements |= {match[1] for match in OPENING.finditer(text)}
            self.figures |= set(FIGURE.findall(text))
            prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
            self.sections |= {f"{path.stem}#{slug(title)}": title for title in HEADING.findall(prose)}
            for name, verdict in said(path.with_suffix(".ipynb")):
                self.verdicts.setdefault((int(path.stem[:2]), name), set()).add(verdict)

    def has(self, reference: str) -> bool:
        return reference in self.statements or reference in self.figures or reference in self.sections

    def link(self, reference: str) -> str:
        if reference in self.sections:
            stem, anchor = reference.split("#")
            return f"[{self.sections[reference]}](../notebooks/{stem}.ipynb#{anchor})"
        return f"{{numref}}`{reference}`" if reference.startswith("fig-") else reference


def said(path: Path) -> list[tuple[str, str]]:
    """The verdicts, "**P1 is confirmed**", that an executed chapter states in its text or prints."""
    if not path.exists():
        return []
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    texts += ["".join(output.get("data", {}).get("text/markdown", "")) for output in outputs]
    return [match.groups() for text in texts for match in SAID.finditer(text)]


def slug(title: str) -> str:
    """The anchor of a heading, as MyST and GitHub make it."""
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")


def problems(data: dict, chapters: Chapters) -> list[str]:
    found = []
    ids = [claim["id"] for claim in data["claims"]]
    found += [f"{name}: not among the claims" for name in IDS if name not in ids]
    found += [f"{name}: listed twice" for name in dict.fromkeys(ids) if ids.count(name) > 1]
    found += [f"{name}: no such claim is known" for name in ids if name not in IDS]
    for claim in data["claims"]:
        name, verdict = claim["id"], claim.get("verdict")
        if verdict not in VERDICTS:
            found.append(f'{name}: verdict "{verdict}" is not one of: {", ".join(VERDICTS)}')
        found += [f"{name}: no {part}" for part in ("claim", "reason") if not str(claim.get(part) or "").strip()]
        if claim.get("chapter") not in data["chapters"]:
            found.append(f"{name}: chapter {claim.get('chapter')} has no title under `chapters`")
        stated = chapters.verdicts.get((claim.get("chapter"), name), set())
        if verdict != "open" and stated != {verdict}:
            words = " and ".join(sorted(stated)) or "no verdict of the form **P1 is confirmed**"
            found.append(f'{name}: verdict "{verdict}", but chapter {claim.get("chapter")} says: {words}')
        for part in ANSWERS:
            references = claim.get(part) or []
            if verdict != "open" and not references:
                found.append(f'{name}: verdict "{verdict}" without {part}')
            for reference in references:
                if part == "derivation" and not STATEMENT.fullmatch(reference):
                    found.append(f'{name}: derivation "{reference}" is not a statement such as "Proposition 1.2"')
                elif not chapters.has(reference):
                    found.append(f'{name}: {part} "{reference}" does not exist in the chapters')
    return found


def render(data: dict, chapters: Chapters) -> str:
    claims = data["claims"]
    parts = [PREFACE, "The claims come from three papers:\n"]
    parts += [f"- **{letter}**: {source}" for letter, source in data["sources"].items()]
    parts.append("\n## Overview\n\n:::{div} claims-overview")
    for verdict, meaning in VERDICTS.items():
        names = sorted((claim["id"] for claim in claims if claim["verdict"] == verdict), key=IDS.index)
        if verdict == "open" and not names:
            continue
        parts += [_chip(verdict), f": {meaning}\n"]
        parts += ["  " + " · ".join(f"[{name}](#claim-{name.lower()})" for name in names) + "\n"] if names else []
    parts.append(":::\n")
    for number, title in data["chapters"].items():
        here = [claim for claim in claims if claim["chapter"] == number]
        if here:
            parts.append(f"## {number}. {title}\n")
            parts += [_card(claim, chapters) for claim in here]
    return "\n".join(parts).rstrip() + "\n"


def _chip(verdict: str) -> str:
    return f"[{verdict}]{{.chip .{verdict.replace(' ', '-')}}}"


def _card(claim: dict, chapters: Chapters) -> str:
    lines = [
        f"(claim-{claim['id'].lower()})=",
        f":::{{div}} claim {claim['verdict'].replace(' ', '-')}",
        f"**{claim['id']}** {_chip(claim['verdict'])}\n",
        f"{claim['claim']}\n",
    ]
    for part, word in ANSWERS.items():
        if claim.get(part):
            lines += [word, f": {', '.join(map(chapters.link, claim[part]))}\n"]
    lines += ["Verdict", f": {claim['reason']}", ":::\n"]
    return "\n".join(lines)


def load(root: Path = ROOT) -> tuple[dict, Chapters]:
    return yaml.safe_load((root / "book/claims.yml").read_text(encoding="utf-8")), Chapters(root / "notebooks")


def check(root: Path = ROOT) -> list[str]:
    data, chapters = load(root)
    found = problems(data, chapters)
    page = root / "book/claims.md"
    if not found and (not page.exists() or page.read_text(encoding="utf-8") != render(data, chapters)):
        found.append("book/claims.md is out of date: run `python book/_tools/claims.py`")
    return found


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["check"]):
        print(__doc__)
        return 2
    if not arguments:
        data, chapters = load()
        (ROOT / "book/claims.md").write_text(render(data, chapters), encoding="utf-8")
    found = check()
    print(*found or ["the claims and claims.md are in order"], sep="\n")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
