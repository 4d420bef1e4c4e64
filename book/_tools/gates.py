"""Break the book on purpose, in a throw-away copy, and see that each breakage is caught by the check that should.

    python book/_tools/gates.py     list the breakages, and what caught each (a minute; tests/test_gates.py is the test)

The copy has the book's own package, tools, settings and claims, and one small chapter that is executed there. What
files alone show is tried one breakage at a time: with pairs.py, stamp.py, claims.py and the package's check of its
data. What needs more is tried together: one build with a page for each breakage, and one visit to nbval.
"""

import copy
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import claims
import nbformat
import pairs
import stamp
from sources import outputs_from, record_problems

ROOT = Path(__file__).resolve().parents[2]
STEM = "90_gate"
COPIED = ("_config.yml", "pyproject.toml", "CHANGELOG.md", "CITATION.cff", "README.md", "book", "sigreg")
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="

CHAPTER = """\
# 90. Gate

*Chapter 90 of [A Book](x) · [open in Colab](y)*

> **Definition 90.1 (Mean).** The mean $m$ of all pixels.

```{code-cell}
:tags: [nbval-ignore-output]

# find_spec("sigreg") stands here: the stamp completes this cell
```

By Definition 90.1 it is one number.

```{code-cell}
from sigreg.lab.data import MEAN
from sigreg.lab.notebook import glue, say

glue("mean", f"{MEAN:.3f}")
say(f"The mean is **{MEAN:.3f}**.")
```

It is drawn.

```{code-cell}
---
mystnb:
  image:
    alt: A short line that rises.
  figure:
    caption: The line rises.
    name: fig-gate
---
import matplotlib.pyplot as plt

_, ax = plt.subplots(figsize=(2, 2))
ax.plot([0, 1], [0, MEAN])
plt.show()
```

A record is read.

```{code-cell}
from sigreg.lab.records import load_record

print(load_record("gate")["units"][0]["result"])
```

## What this does not show

Much.

## Exercises

None.

## References

None.
"""


# --- The copy -------------------------------------------------------------------------------------------------------


class Book:
    """A copy of the book to break: what is changed through it is put right again by `restore`."""

    def __init__(self, root):
        self.root, self.saved = Path(root), {}
        self.text_half, self.notebook = (f"notebooks/{STEM}.{ending}" for ending in ("md", "ipynb"))

    def read(self, name):
        return (self.root / name).read_bytes().decode("utf-8")

    def write(self, name, content):
        path = self.root / name
        self.saved.setdefault(path, path.read_bytes() if path.exists() else None)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))

    def edit(self, name, old, new):
        """Replace the first match of the pattern `old`; what is not there cannot be broken, and is an error."""
        text, count = re.subn(old, lambda match: match.expand(new), self.read(name), count=1)
        if not count or text == self.read(name):
            raise LookupError(f"{name} has nothing like {old!r} to change")
        self.write(name, text)

    def remove(self, name):
        self.saved.setdefault(self.root / name, (self.root / name).read_bytes())
        (self.root / name).unlink()

    def by_hand(self, change):
        """Apply `change` to the cells of the notebook, and save it as somebody would who knows no better."""
        notebook = json.loads(self.read(self.notebook))
        change(notebook["cells"])
        self.write(self.notebook, json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n")

    def forge(self, change=lambda cells: None):
        """The same by somebody who knows the digests: the notebook says it was made from all as it stands."""
        notebook = pairs.read_notebook(self.read(self.notebook))
        change(notebook.cells)
        cells = pairs.read_text_half(self.root / self.text_half)
        self.write(self.notebook, pairs.written(notebook.cells, outputs_from(cells, self.root)))

    def in_both_halves(self, old, new):
        """Edit a code cell in the .md and, without running it, in the notebook."""
        self.edit(self.text_half, old, new)
        self.by_hand(lambda cells: [c.update(source=re.sub(old, new, "".join(c["source"]))) for c in cells])

    def carry_over(self):
        """What `make notebooks` does after a change of text or captions: nothing is executed."""
        self.saved.setdefault(self.root / self.notebook, (self.root / self.notebook).read_bytes())
        done, report = pairs.bring_up_to_date(STEM, self.root)
        if not (done and "carried over" in report):
            raise RuntimeError(report)

    def restore(self):
        for path, content in self.saved.items():
            path.unlink(missing_ok=True) if content is None else path.write_bytes(content)
        self.saved = {}


def make_book(root):
    """Lay a copy of the book into `root`, with one small chapter, executed there; return it."""
    root.mkdir(parents=True)
    unwanted = shutil.ignore_patterns("__pycache__", "*.partial", ".*")
    for name in COPIED:
        source = ROOT / name
        shutil.copytree(source, root / name, ignore=unwanted) if source.is_dir() else shutil.copy(source, root)
    shutil.copytree(ROOT / "notebooks", root / "notebooks", ignore=unwanted)  # claims refer to them
    write_contents(root, [f"{stem}.ipynb" for stem in [*pairs.stems(root), STEM]])
    (root / "book/home.md").write_text("# Home\n\nSee Definition 90.1.\n", encoding="utf-8")
    provenance = {"preset": "full", "seeds": 1, "runs": []}
    record = {"name": "gate", "description": "One number.", "provenance": provenance}
    record["units"] = [{"unit": {"seed": 0}, "result": {"rate": 0.25}}]
    for name in ("gate", "idle"):  # the chapter reads the first
        text = json.dumps({**record, "name": name}, indent=1)
        (root / f"book/_records/{name}.json").write_text(text, encoding="utf-8")
    (root / f"notebooks/{STEM}.md").write_text(CHAPTER, encoding="utf-8")
    former = stamp.present_address(root)
    text = stamp.restamp_chapter(CHAPTER, STEM, former)
    (root / f"notebooks/{STEM}.md").write_text(text, encoding="utf-8")
    done, report = pairs.bring_up_to_date(STEM, root)
    if not done:
        raise RuntimeError(report)
    return Book(root)


def write_contents(root, names):
    """Make these files of notebooks/ the chapters of the copy."""
    lines = [f"- file: notebooks/{name}\n" for name in names]
    (root / "_toc.yml").write_text("format: jb-book\nroot: book/home\nchapters:\n" + "".join(lines), encoding="utf-8")


# --- What files alone show ------------------------------------------------------------------------------------------


def data_problems(root):
    """What the package says when it reads its embedded images."""
    from sigreg.lab import data

    with tempfile.TemporaryDirectory() as scratch, patch.object(data, "EMBEDDED", root / "sigreg/lab/_fashion_mnist"):
        try:
            data.fashion_mnist_tensors(True, whole=False, root=scratch)
        except (ValueError, OSError) as error:
            return [str(error)]
    return []


CHECKS: dict[str, Callable] = {
    "pairs": lambda root: pairs.check_pair(STEM, root)[0],
    "contents": lambda root: [*pairs.left_out(root)],
    "records": lambda root: [*record_problems(root)],
    "stamp": stamp.check,
    "claims": claims.check,
    "data": data_problems,
}


def what_checks_say(root):
    """Return `{check: [problems]}` of the checks that find any."""
    said = {}
    for name, check in CHECKS.items():
        try:
            said[name] = list(check(root))
        except Exception as error:  # a check that stumbles over a broken book has noticed, in its way
            said[name] = [f"{type(error).__name__}: {error}"]
    return {name: problems for name, problems in said.items() if problems}


class Gate(NamedTuple):
    """A breakage: what is done, by which checks it must be caught, what they say, and how to do it."""

    what: str
    caught_by: str
    says: str
    do: Callable[[Book], None]


def said(cells):
    """Return the cell of the chapter whose output is a computed sentence."""
    return next(cell for cell in cells if "say(f" in "".join(cell["source"]))


def shown(cells):
    """Return the cell that draws."""
    return next(cell for cell in cells if "plt.show" in "".join(cell["source"]))


def another_number(cells):
    for output in said(cells)["outputs"]:
        for kind, text in output.get("data", {}).items():
            if kind == "text/markdown":
                output["data"][kind] = re.sub(r"0\.286", "0.287", "".join(text))


def another_picture(cells):
    for output in shown(cells)["outputs"]:
        if "image/png" in output.get("data", {}):
            output["data"]["image/png"] = DOT


def an_output(**fields):
    output = nbformat.from_dict(fields)
    return lambda cells: said(cells)["outputs"].append(copy.deepcopy(output))


def never_run(cells):
    cell = [cell for cell in cells if cell.cell_type == "code"][-1]
    cell.update(execution_count=None, outputs=[])


def no_alt(book):
    book.edit(book.text_half, r"  image:\n    alt: .*\n", "")
    book.carry_over()


def raw_role(book):
    book.edit(book.text_half, "It is drawn.", "See {numref}`fig-gate`.")
    book.carry_over()


def no_limits(book):
    book.edit(book.text_half, "## What this does not show", "## What this shows")
    book.carry_over()


def drifted_setup(book):
    book.edit(book.text_half, r"--no-deps", "--upgrade")
    book.by_hand(lambda cells: [c.update(source="".join(c["source"]).replace("--no-deps", "--upgrade")) for c in cells])
    book.forge()


def corrupted(book):
    name = "sigreg/lab/_fashion_mnist/train-images-idx3-ubyte.gz"
    content = bytearray((book.root / name).read_bytes())
    content[len(content) // 2] ^= 1
    book.write(name, bytes(content))


def no_chapter(book):
    book.edit("_toc.yml", rf"- file: notebooks/{STEM}.ipynb\n", "")


def first_claim(book, part, value):
    """Give the first claim that has an answer in `part` another one."""
    book.edit("book/claims.yml", rf"({part}: *)\[[^\]]+\]", rf"\1[{value}]")


STDERR = {"output_type": "stream", "name": "stderr", "text": "UserWarning: careful\n"}
PATH = {"output_type": "stream", "name": "stdout", "text": "saved to /home/me/figure.png\n"}
ERROR = {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": []}

GATES = [
    Gate("a digit of a computed sentence, changed by hand", "pairs", "the outputs are not those that were written here",
         lambda book: book.by_hand(another_number)),
    Gate("another picture under the same code", "pairs", "the outputs are not those that were written here",
         lambda book: book.by_hand(another_picture)),
    Gate("the text of one half changed", "pairs", "its text is not that of the .md",
         lambda book: book.edit(book.text_half, "It is drawn", "It is shown")),
    Gate("the code of one half changed", "pairs", "its code is not that of the .md",
         lambda book: book.edit(book.text_half, r"MEAN:\.3f", "MEAN:.2f")),
    Gate("a figure drawn otherwise in both halves, and not run", "pairs", "there changed the code",
         lambda book: book.in_both_halves(r"\[0, MEAN\]", "[MEAN, 0]")),
    Gate("a stored result changed by hand", "pairs", "there changed book/_records/gate.json",
         lambda book: book.edit("book/_records/gate.json", r"0\.25", "0.26")),
    Gate("a figure without alt text", "pairs", "the figure has no alt", no_alt),
    Gate("a cell that was never run", "pairs", "was never executed", lambda book: book.forge(never_run)),
    Gate("a warning on stderr", "pairs", "the cell wrote to stderr", lambda book: book.forge(an_output(**STDERR))),
    Gate("an error among the outputs", "pairs", "the output is an error", lambda book: book.forge(an_output(**ERROR))),
    Gate("a path of one machine", "pairs", "a path of one machine", lambda book: book.forge(an_output(**PATH))),
    Gate("a setup cell that upgrades what Colab has", "pairs stamp", "is not the setup cell", drifted_setup),
    Gate("raw MyST in a chapter", "pairs", "shows raw in Colab", raw_role),
    Gate("a chapter that does not say what it does not show", "pairs", "there is no section", no_limits),
    Gate("a notebook without its text", "pairs", "there is no .md beside it", lambda book: book.remove(book.text_half)),
    Gate("a chapter that the contents leave out", "contents", "the book leaves 90_gate out", no_chapter),
    Gate("a record with NaN", "records", "it holds NaN",
         lambda book: book.edit("book/_records/idle.json", r"0\.25", "NaN")),
    Gate("a record cut short", "records", "the record cannot be used",
         lambda book: book.write("book/_records/idle.json", book.read("book/_records/idle.json")[:-40])),
    Gate("a corrupted image", "data", "corrupt", corrupted),
    Gate("an address of another repository", "stamp", "is not what _config.yml",
         lambda book: book.edit("README.md", r"github\.com/[\w-]+/", "github.com/somebody/")),
    Gate("a version that the changelog has not", "stamp", "its newest entry is",
         lambda book: book.edit("pyproject.toml", r'version = "(.+)"', r'version = "\1.1"')),
    Gate("a claim derived by a statement that is not there", "claims", '"Theorem 1.99" does not exist in the chapters',
         lambda book: first_claim(book, "derivation", "Theorem 1.99")),
    Gate("a claim without the page of its check", "claims", "does not exist in the chapters",
         lambda book: first_claim(book, "check", "01_gone#nowhere")),
    Gate("a claim left out", "claims", "P5: not among the claims",
         lambda book: book.edit("book/claims.yml", r"id: P5\b", "id: P4")),
    Gate("a claims page edited by hand", "claims", "book/claims.md is out of date",
         lambda book: book.edit("book/claims.md", "our", "their")),
]  # fmt: skip

# What must not be caught, lest people learn not to listen.
HARMLESS = [
    Gate("a comment in the package", "", "",
         lambda book: book.edit("sigreg/lab/data.py", r"MEAN = 0\.2860.*", "MEAN = 0.2860  # of all pixels")),
    Gate("a caption", "", "",
         lambda book: (book.edit(book.text_half, "The line rises.", "One line rises."), book.carry_over())),
    Gate("a record that no chapter reads", "", "",
         lambda book: book.edit("book/_records/idle.json", r"0\.25", "0.26")),
]  # fmt: skip


def try_gate(book, gate, before):
    """Break the book, and return `{check: [problems]}` that were not there `before`; then put it right again."""
    try:
        gate.do(book)
        after = what_checks_say(book.root)
    finally:
        book.restore()
    new = {name: [line for line in lines if line not in before.get(name, [])] for name, lines in after.items()}
    return {name: lines for name, lines in new.items() if lines}


def is_caught(gate, found):
    """Return whether the checks that should, and no others, found something, and one of them what it should."""
    said_so = any(gate.says in line for lines in found.values() for line in lines)
    return {*found} == {*gate.caught_by.split()} and (said_so or not gate.says)


# --- What the build shows -------------------------------------------------------------------------------------------


def page(stem, text):
    number = int(stem[:2])
    return f"# {number}. Page\n\n> **Definition {number}.1 (Here).** A thing.\n\n{text}\n"


BUILD_GATES = {  # page: (what, its text, what the build says of it)
    "91_dangling": ("a mention of a statement that does not exist", "By Proposition 91.7.",
                    "Proposition 91.7 is mentioned and does not exist"),
    "92_twice": ("a statement's number used twice", "> **Lemma 92.1 (Again).** Another.", "Lemma 92.1 is out of order"),
    "93_dead": ("a link to a page that does not exist", "[there](94_gone.md)", "94_gone"),
    "95_unkept": ("a number from a chapter that keeps none", f"{{glue:text}}`../notebooks/{STEM}.ipynb::gone:s`",
                  "gone"),
    "96_unnamed": ("a mention of a figure that does not exist", "{numref}`fig-nowhere`", "fig-nowhere"),
    "97_uncited": ("a citation of a work that is not listed", "{cite}`nobody1900`", "nobody1900"),
    "98_open": ("a proof that opens and does not close", "<details>\n<summary>Proof</summary>\n\nSo.", "<details>"),
}  # fmt: skip
WARNED = "99_warned"  # a notebook whose output has a warning on stderr


def build(root):
    """Build the book in `root` as the Makefile does; return the exit status and the lines of its warnings."""
    command = [Path(sys.executable).with_name("jupyter-book"), "build", ".", "--all", "-W", "--keep-going", "-n", "-q"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    lines = re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr).splitlines()
    return done.returncode, [line for line in lines if re.search(r"\b(WARNING|ERROR|CRITICAL)\b", line)]


def add_broken_pages(book):
    """Give the copy one page for each breakage that the build must see."""
    for stem, (_, text, _) in BUILD_GATES.items():
        (book.root / f"notebooks/{stem}.md").write_text(page(stem, text), encoding="utf-8")
    notebook = pairs.read_notebook(book.read(book.notebook))
    cells = [nbformat.v4.new_markdown_cell("# 99. Warned"), said(notebook.cells)]
    an_output(**STDERR)(cells)
    text = pairs.written(cells, {})
    (book.root / f"notebooks/{WARNED}.ipynb").write_text(text, encoding="utf-8")
    write_contents(book.root, [f"{STEM}.ipynb", *(f"{stem}.md" for stem in BUILD_GATES), f"{WARNED}.ipynb"])


# --- What the pages show --------------------------------------------------------------------------------------------

END, HEAVY = "</article>", "3.4 million bytes that do not compress"
SITE_GATES = [  # (what, what is replaced in the page, by what, what site.py says)
    ("a script from another host", END, '<script src="https://cdn.example/x.js"></script>', "loads from another host"),
    ("a font from another host", END, '<p style="background: url(//fonts.example/f.woff2)"></p>', "another host"),
    ("a figure whose alt text was lost", 'alt="A short line that rises."', "", "picture without a description"),
    ("a link to a page that does not exist", END, '<a href="gone.html">x</a>', "a page that does not exist"),
    ("a link to a statement that was renumbered", END, '<a href="#definition-90-7">x</a>', "an anchor that does not"),
    ("a formula that was not rendered", END, "<p>Let $x$ be</p>", "TeX was not rendered"),
    ("a directive that was not rendered", END, "<p>:::{note}</p>", "MyST role or directive was not rendered"),
    ("an id used twice", END, '<p id="definition-90-1">x</p>', "is used 2 times"),
    ("a page of more than three megabytes", END, HEAVY, "at most 3 allowed"),
]  # fmt: skip


def our_site():
    """The module site.py beside this one, whose name the standard library has too."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("book_site", Path(__file__).with_name("site.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def try_site(html, old, new):
    """Replace `old` in the built page of the chapter by `new` (before it, if it is where the text ends)."""
    site, path = our_site(), html / f"notebooks/{STEM}.html"
    sound = path.read_text(encoding="utf-8")
    if old not in sound:
        raise LookupError(f"the page has no {old!r}")
    if new == HEAVY:
        new = f"<!--{random.Random(0).randbytes(3_400_000).hex()}-->"
    path.write_text(sound.replace(old, new + END if old == END else new, 1), encoding="utf-8")
    try:
        return site.check(html)
    finally:
        path.write_text(sound, encoding="utf-8")


# --- What the open pages show ---------------------------------------------------------------------------------------

BROWSER_GATES = [  # (what, the script, what browser.py says); site.py, which runs no script, cannot know
    ("a script that asks another host", 'fetch("https://cdn.example/x").catch(() => 0);', "asks another host"),
    ("a script that fails", "thereIsNoSuchFunction();", "script error"),
]


def try_browser(html):
    """Visit the chapter with these scripts in it; return what is said of it."""
    path = html / f"notebooks/{STEM}.html"
    sound = path.read_text(encoding="utf-8")
    scripts = "".join(f"<script>{script}</script>" for _, script, _ in BROWSER_GATES)
    path.write_text(sound.replace(END, scripts + END, 1), encoding="utf-8")
    try:
        command = [sys.executable, Path(__file__).with_name("browser.py"), html, "--only", STEM]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.stdout.splitlines() if done.returncode else []
    finally:
        path.write_text(sound, encoding="utf-8")


# --- What running again shows ---------------------------------------------------------------------------------------

UNSEEDED = 'import random\n\nprint(f"{random.random():.3f}")'
NBVAL_GATES = {  # notebook: what is done to it
    "wrong": "a wrong number in a computed sentence, with all digests made to match",
    "random": "a cell that draws without a seed",
    "constant": "a constant of the package changed, with all digests made to match",
}


def try_nbval(book, folder):
    """Run each notebook again, as the Makefile does; return `{notebook: [cells that differ]}`, and of a sound one."""
    folder.mkdir()
    sound = pairs.read_notebook(book.read(book.notebook))
    sound.cells = [cell for cell in sound.cells if cell.cell_type == "code" and "load_record" not in cell.source]
    sound.cells = [cell for cell in sound.cells if "plt.show" not in cell.source]
    wrong, drawn = copy.deepcopy(sound), copy.deepcopy(sound)
    another_number(wrong.cells)
    drawn.cells[-1].source = UNSEEDED
    drawn.cells[-1].outputs = [nbformat.v4.new_output("stream", text="0.123\n")]
    for name, notebook in (("sound", sound), ("wrong", wrong), ("random", drawn)):
        nbformat.write(notebook, folder / f"{name}.ipynb")
    found = nbval(folder, book.root)
    for path in folder.glob("*.ipynb"):
        path.unlink()
    nbformat.write(sound, folder / "constant.ipynb")
    try:
        book.edit("sigreg/lab/data.py", r"MEAN = 0\.2860", "MEAN = 0.2870")
        return found | nbval(folder, book.root)
    finally:
        book.restore()


def nbval(folder, root):
    """Return, for each notebook in `folder`, the cells whose outputs are others when they are run again."""
    paths = sorted(folder.glob("*.ipynb"))
    command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command += ["-c", os.devnull, "--rootdir", folder, "--nbval", "--nbval-current-env", "--nbval-cell-timeout", "100"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "SIGREG"))}
    environment = kept | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "SIGREG_DEVICE": "cpu"}
    command += ["--junit-xml", folder / "report.xml", *paths]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if not (folder / "report.xml").exists():
        raise RuntimeError(done.stdout + done.stderr)
    found = {path.stem: [] for path in paths}
    for case in ET.parse(folder / "report.xml").iter("testcase"):
        if any(part.tag in ("failure", "error") for part in case):
            found[next(stem for stem in found if stem in case.get("classname"))].append(case.get("name"))
    return found


# --- All together ---------------------------------------------------------------------------------------------------


def outcomes(root):
    """Try everything in a copy laid into `root`; yield `(what, by which check, what it said, is that as it should)`."""
    book = make_book(root)
    before = what_checks_say(root)
    yield "nothing is broken", "pairs stamp claims data", [*before.values()], not before
    for gate in [*GATES, *HARMLESS]:
        found = try_gate(book, gate, before)
        lines = [line for lines in found.values() for line in lines]
        yield gate.what, gate.caught_by or "(rightly nothing)", lines, is_caught(gate, found)

    write_contents(root, [f"{STEM}.ipynb"])
    status, lines = build(root)
    yield "nothing is broken", "build", lines, status == 0 and not lines
    for what, old, new, says in SITE_GATES:
        lines = try_site(root / "_build/html", old, new)
        yield what, "site", lines, len(lines) == 1 and says in lines[0]
    lines = try_browser(root / "_build/html")
    for what, _, says in BROWSER_GATES:
        yield what, "browser", lines, any(says in line for line in lines)
    add_broken_pages(book)
    status, lines = build(root)
    for stem, (what, _, says) in {**BUILD_GATES, WARNED: ("a warning on stderr", "", "stderr was found")}.items():
        of_page = [line for line in lines if stem in line]
        yield what, "build", of_page, status != 0 and len(of_page) == 1 and says in of_page[0]

    found = try_nbval(book, root / "again")
    yield "nothing is broken", "nbval", found["sound"], not found["sound"]
    for name, what in NBVAL_GATES.items():
        yield what, "nbval", found[name], bool(found[name])


def main():
    missed = 0
    with tempfile.TemporaryDirectory() as scratch:
        for what, check, lines, as_wanted in outcomes(Path(scratch) / "book"):
            print(f"{'' if as_wanted else 'NOT AS IT SHOULD: '}{what}: {check}", flush=True)
            if not as_wanted:
                print(*(f"    {line}" for line in lines), sep="\n")
            missed += not as_wanted
    print(f"breakages or sound copies that were not judged as they should: {missed}")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
