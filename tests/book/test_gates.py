"""The gates: a copy of the book is broken on purpose, and each breakage must be caught by the check that should.

The copy has the book's own package, tools, settings and claims, and one small chapter that is executed there. What the
tests of a single tool break on a small tree of their own is not broken here again.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book/_tools"))
import claims  # noqa: E402
import nbformat  # noqa: E402
import pairs  # noqa: E402
import stamp  # noqa: E402
from sources import record_problems  # noqa: E402
from test_pairs import opened  # noqa: E402

STEM = "90_gate"
COPIED = ("_config.yml", "pyproject.toml", "CHANGELOG.md", "CITATION.cff", "README.md", "book", "sigreg", "notebooks")
UNWANTED = shutil.ignore_patterns("__pycache__", "*.partial", ".*")

CHAPTER = """\
# 90. Gate

HEAD LINE

> **Definition 90.1 (Mean).** The mean $m$ of all pixels.

```{code-cell}
:tags: [nbval-ignore-output]

SETUP CELL
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


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """The copy, with a small executed chapter that reads the record `gate` and not the record `idle`."""
    root = tmp_path_factory.mktemp("gates") / "book"
    root.mkdir()
    for name in COPIED:
        source = ROOT / name
        shutil.copytree(source, root / name, ignore=UNWANTED) if source.is_dir() else shutil.copy(source, root)
    write_contents(root, [f"{stem}.ipynb" for stem in [*pairs.stems(root), STEM]])
    (root / "book/home.md").write_text("# Home\n\nSee Definition 90.1.\n", encoding="utf-8")
    provenance = {"preset": "full", "seeds": 1, "runs": []}
    for name in ("gate", "idle"):
        record = {"name": name, "description": "One number.", "provenance": provenance}
        record["units"] = [{"unit": {"seed": 0}, "result": {"rate": 0.25}}]
        (root / f"book/_records/{name}.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    (root / f"notebooks/{STEM}.md").write_text(opened(CHAPTER, STEM, root), encoding="utf-8")
    done, report = pairs.bring_up_to_date(STEM, root)
    assert done, report
    return root


def write_contents(root, names):
    """Make these files of notebooks/ the chapters of the copy."""
    lines = [f"- file: notebooks/{name}\n" for name in names]
    (root / "_toc.yml").write_text("format: jb-book\nroot: book/home\nchapters:\n" + "".join(lines), encoding="utf-8")


# --- What files alone show ------------------------------------------------------------------------------------------


CHECKS = {
    "pairs": lambda root: pairs.check_pair(STEM, root)[0],
    "contents": lambda root: [*pairs.left_out(root)],
    "records": lambda root: [*record_problems(root)],
    "stamp": lambda root: [f"{path.name} is not what _config.yml says" for path, *_ in stamp.stale_files(root)],
    "claims": claims.check,
}

GATES = [  # what, file, what is replaced in it, by what, the checks that must see it, what one of them says
    ("a digit of a computed sentence", f"notebooks/{STEM}.ipynb", r"\*\*0\.286", "**0.287", "pairs",
     "the outputs are not those that were written here"),
    ("a stored result", "book/_records/gate.json", r"0\.25", "0.26", "pairs", "there changed book/_records/gate.json"),
    ("a chapter that the contents leave out", "_toc.yml", rf"- file: notebooks/{STEM}.ipynb\n", "", "contents",
     "the book leaves 90_gate out"),
    ("a record with NaN", "book/_records/idle.json", r"0\.25", "NaN", "records", "it holds NaN"),
    ("a record cut short", "book/_records/idle.json", r'"result"[\s\S]*', "", "records", "the record cannot be used"),
    ("an address of another repository", "README.md", r"github\.com/[\w-]+/", "github.com/somebody/", "stamp",
     "is not what _config.yml"),
    ("a claim left out", "book/claims.yml", r"id: P5\b", "id: P4", "claims", "P5: not among the claims"),
    ("a claims page edited by hand", "book/claims.md", "our", "their", "claims", "book/claims.md is out of date"),
    # What must not be caught, lest people learn not to listen.
    ("an error's words in the package", "sigreg/lab/data.py", r"is corrupt", "is damaged", "", ""),
    ("a record that no chapter reads", "book/_records/idle.json", r"0\.25", "0.26", "", ""),
]  # fmt: skip


def found_by(root):
    return {name: problems for name, check in CHECKS.items() if (problems := list(check(root)))}


def test_the_sound_copy_passes(book):
    assert found_by(book) == {}


@pytest.mark.parametrize("what, file, old, new, checks, says", GATES, ids=[gate[0] for gate in GATES])
def test_a_broken_file_is_caught(book, what, file, old, new, checks, says):
    path = book / file
    sound = path.read_text(encoding="utf-8")
    broken, count = re.subn(old, new, sound, count=1)
    assert count and broken != sound, "there is nothing to break"
    path.write_text(broken, encoding="utf-8")
    try:
        found = found_by(book)
    finally:
        path.write_text(sound, encoding="utf-8")
    assert set(found) == set(checks.split()), found
    assert not checks or any(says in line for lines in found.values() for line in lines), found


# --- What the build and its pages show ------------------------------------------------------------------------------

PAGES = {  # page: its text, what the build says of it
    "91_dangling": ("By Proposition 91.7.", "Proposition 91.7 is mentioned and does not exist"),
    "92_twice": ("> **Lemma 92.1 (Again).** Another.", "Lemma 92.1 is out of order"),
    "93_dead": ("[there](94_gone.md)", "94_gone"),
    "95_unkept": (f"{{glue:text}}`../notebooks/{STEM}.ipynb::gone:s`", "gone"),
    "96_unnamed": ("{numref}`fig-nowhere`", "fig-nowhere"),
    "97_uncited": ("{cite}`nobody1900`", "nobody1900"),
    "98_open": ("<details>\n<summary>Proof</summary>\n\nSo.", "<details>"),
}
WARNED = "99_warned"  # a notebook whose output has a warning on stderr
END = "</article>"


def build(root):
    """Build the book in `root` as the Makefile does; return the exit status and the lines of its warnings."""
    command = [Path(sys.executable).with_name("jupyter-book"), "build", ".", "--all", "-W", "--keep-going", "-n", "-q"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    lines = re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr).splitlines()
    return done.returncode, [line for line in lines if re.search(r"\b(WARNING|ERROR|CRITICAL)\b", line)]


def test_the_sound_build_passes_and_its_broken_page_does_not(book, tmp_path):
    shutil.copytree(book, tmp_path / "book")
    write_contents(tmp_path / "book", [f"{STEM}.ipynb"])
    assert build(tmp_path / "book") == (0, [])
    spec = importlib.util.spec_from_file_location("book_site", ROOT / "book/_tools/site.py")
    site = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(site)
    html = tmp_path / "book/_build/html"
    assert site.check(html) == []
    path = html / f"notebooks/{STEM}.html"
    sound = path.read_text(encoding="utf-8")
    for old, new, says in [
        ('alt="A short line that rises."', "", "picture without a description"),
        (END, '<a href="#definition-90-7">x</a>' + END, "an anchor that does not"),
        (END, '<p id="definition-90-1">x</p>' + END, "is used 2 times"),
    ]:
        assert old in sound
        path.write_text(sound.replace(old, new, 1), encoding="utf-8")
        (problem,) = site.check(html)
        assert says in problem


def test_broken_pages_fail_the_build(book, tmp_path):
    root = shutil.copytree(book, tmp_path / "book")
    for stem, (text, _) in PAGES.items():
        number = stem[:2]
        head = f"# {number}. Page\n\n> **Definition {number}.1 (Here).** A thing.\n\n"
        (root / f"notebooks/{stem}.md").write_text(f"{head}{text}\n", encoding="utf-8")
    cell = nbformat.v4.new_code_cell("1", execution_count=1)
    cell.outputs = [nbformat.v4.new_output("stream", name="stderr", text="UserWarning: careful\n")]
    notebook = pairs.written([nbformat.v4.new_markdown_cell("# 99. Warned"), cell], {})
    (root / f"notebooks/{WARNED}.ipynb").write_text(notebook, encoding="utf-8")
    write_contents(root, [f"{STEM}.ipynb", *(f"{stem}.md" for stem in PAGES), f"{WARNED}.ipynb"])
    status, lines = build(root)
    assert status != 0 and len(lines) == len(PAGES) + 1, lines
    for stem, says in [*((stem, says) for stem, (_, says) in PAGES.items()), (WARNED, "stderr was found in the cell")]:
        (line,) = [line for line in lines if stem in line]
        assert says in line


# --- What running again shows ---------------------------------------------------------------------------------------


def rerun(root, notebooks):
    """Write `{name: notebook}`, run them as the Makefile does; return `{name: cells whose outputs differ}`."""
    folder = root / "again"
    folder.mkdir()
    for name, notebook in notebooks.items():
        nbformat.write(notebook, folder / f"{name}.ipynb")
    shutil.copy(root / "notebooks/conftest.py", folder)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-c", os.devnull]
    command += ["--rootdir", folder, "--nbval", "--nbval-current-env", "--junit-xml", folder / "report.xml", folder]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "SIGREG"))}
    environment = kept | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "SIGREG_DEVICE": "cpu"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert (folder / "report.xml").exists(), done.stdout + done.stderr
    found = {name: [] for name in notebooks}
    for case in ET.parse(folder / "report.xml").iter("testcase"):
        if any(part.tag in ("failure", "error") for part in case):
            found[next(name for name in found if name in case.get("classname"))].append(case.get("name"))
    return found


def test_another_outcome_is_caught_by_running_again(book, tmp_path):
    root = shutil.copytree(book, tmp_path / "book")
    sound = pairs.read_notebook((root / f"notebooks/{STEM}.ipynb").read_text(encoding="utf-8"))
    sound.cells = [cell for cell in sound.cells if cell.cell_type == "code"][:2]
    wrong, drawn = (nbformat.reads(nbformat.writes(sound), as_version=4) for _ in range(2))
    for output in wrong.cells[-1].outputs:
        output.data = {kind: re.sub(r"0\.286", "0.296", text) for kind, text in output.data.items()}
    drawn.cells[-1].source = 'import random\n\nprint(f"{random.random():.3f}")'
    drawn.cells[-1].outputs = [nbformat.v4.new_output("stream", text="1.123\n")]
    found = rerun(root, {"sound": sound, "wrong": wrong, "random": drawn})
    assert found == {"sound": [], "wrong": ["Cell 1"], "random": ["Cell 1"]}
