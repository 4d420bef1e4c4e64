"""The notation page and the glossary: every code name exists, every symbol is used where the page says so."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = {}  # number: its text, of all its pages
for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]*.md")):
    number = int(path.name[:2])
    CHAPTERS[number] = CHAPTERS.get(number, "") + path.read_text(encoding="utf-8")
CELL = re.compile(r"(?ms)^```\{code-cell\}[^\n]*\n(.*?)^```$")
MOST_TERMS = 40


def code_of(chapter):
    """The code of a chapter, without cell options and IPython magics."""
    cells = CELL.findall(chapter)
    cells = [re.sub(r"(?ms)\A(---\n.*?^---\n|(:[\w-]+:[^\n]*\n)+)", "", cell) for cell in cells]
    return "\n".join(re.sub(r"(?m)^(\s*)%.*$", r"\1pass", cell) for cell in cells)


def names_in(source):
    """Every identifier: variables, arguments, attributes, keywords, functions and imports."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        for field in ("id", "arg", "attr", "name"):
            if isinstance(value := getattr(node, field, None), str):
                found.add(value.split(".")[-1])
    return found


def rows():
    """(section, symbols, code names, chapter) of each row of the first four tables."""
    text = (ROOT / "book/notation.md").read_text(encoding="utf-8")
    for section in re.split(r"(?m)^## ", text)[1:]:
        if not section.startswith(("Variables", "Sizes", "Information", "Settings")):
            continue
        for line in re.findall(r"(?m)^\| \$.*\|$", section):
            symbol, _, code, first = [part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]]
            yield section.split("\n")[0], re.findall(r"\$(.+?)\$", symbol), re.findall(r"`(\w+)`", code), first


def squeeze(tex):
    """TeX without what does not change its meaning."""
    return re.sub(r"\\[,;!:>]|\\(?:bigl|bigr|left|right|mathopen)\b|\s|[{}]", "", tex).replace(r"\Vert", r"\|")


def mathematics(chapter):
    text = CELL.sub("", chapter)
    return squeeze(" § ".join(a or b for a, b in re.findall(r"(?s)\$\$(.+?)\$\$|\$(.+?)\$", text)))


ROWS = list(rows())
PACKAGE = set().union(*(names_in(path.read_text(encoding="utf-8")) for path in (ROOT / "sigreg").rglob("*.py")))


def test_the_tables_are_read():
    assert len(ROWS) > 30 and {section for section, *_ in ROWS} == {"Variables", "Sizes", "Information", "Settings"}


@pytest.mark.parametrize(("symbols", "names", "first"), [row[1:] for row in ROWS], ids=lambda value: str(value)[:40])
def test_a_row_holds(symbols, names, first):
    number = int(re.fullmatch(r"Chapter (\d)", first)[1])
    assert number in CHAPTERS, f"{first} does not exist"
    used = names_in(code_of(CHAPTERS[number])) | PACKAGE
    assert not [name for name in names if name not in used], "no such name in the chapter or the package"
    tex = mathematics(CHAPTERS[number])
    missing = [symbol for symbol in symbols if squeeze(symbol).replace(r"(x)", "") not in tex]
    assert not missing, f"not in the mathematics of {first}: {missing}"


def test_no_symbol_has_two_rows():
    symbols = [symbol for _, found, _, _ in ROWS for symbol in found]
    assert len(symbols) == len(set(symbols))


KEPT = re.findall(
    r"(?m)^\| \$(\S+|\\mathcal \w)\$ \| .+ \| ([\d, ]+) \|$", (ROOT / "book/notation.md").read_text(encoding="utf-8")
)
STYLED = r"\\(?:mathcal|mathbb|mathsf|mathbf|bar|hat|tilde|overline) ?\{?\\?\w\}?"  # another letter than the plain one


def letters_in(chapter):
    """The letters of a chapter's mathematics: $S$, $\\mathcal S$, $\\Delta$ (but $\\Delta t$ is one sign)."""
    formulas = re.findall(r"(?s)\$\$(.+?)\$\$|\$(.+?)\$", CELL.sub("", chapter))
    tex = " § ".join(a or b for a, b in formulas)
    tex = re.sub(r"\\(?:text|mathrm|operatorname|texttt)\{[^{}]*\}", " ", tex)
    styled = re.findall(STYLED, tex)
    plain = re.findall(r"\\[A-Za-z]+|[A-Za-z]", re.sub(STYLED, " ", tex))
    return {re.sub(r" ?\{?(\\?\w)\}?$", r" \1", letter) for letter in styled} | set(plain)


def test_the_letters_of_a_formula_are_told_apart():
    text = r"$\mathcal S(s) = T_n/N$ and $$\mathrm{Var}\, \Delta t, \mathcal{T}h$$"
    assert letters_in(text) == {r"\mathcal S", "s", "T", "n", "N", r"\Delta", "t", r"\mathcal T", "h"}


@pytest.mark.parametrize(("letter", "chapters"), KEPT, ids=lambda value: value)
def test_a_letter_kept_for_one_thing_is_used_for_nothing_else(letter, chapters):
    """A new use in another chapter must be looked at: a second meaning wants another letter."""
    used = [str(number) for number, text in CHAPTERS.items() if letter in letters_in(text)]
    assert ", ".join(used) == chapters


def test_each_such_letter_has_one_row():
    letters = [letter for letter, _ in KEPT]
    assert len(letters) > 15 and len(letters) == len(set(letters))


def test_the_glossary_is_short_sorted_and_linked():
    text = (ROOT / "book/glossary.md").read_text(encoding="utf-8")
    entries = re.findall(r"(?m)^(\S[^\n]*)\n((?:  [^\n]*\n)+)", text.split("```{glossary}\n")[1])
    terms = [term for term, _ in entries]
    assert 20 < len(terms) <= MOST_TERMS
    assert terms == sorted(terms, key=str.casefold)
    simple = {"Conditional rate", "Rate", "Relevance", "Simplex"}
    mention = re.compile(r"(Chapter|Definition|Proposition|Propositions|Theorem|Corollary) \d|\((Theorem|Definition)")
    lacking = [term for term, body in entries if term not in simple and not mention.search(" ".join(body.split()))]
    assert not lacking, f"these terms say nowhere where they are defined: {lacking}"
