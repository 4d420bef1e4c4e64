"""The tool that keeps chapters and their executed notebooks together: every rule is broken once, and seen."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "book/_tools/pairs.py"
sys.path.insert(0, str(TOOL.parent))
import pairs  # noqa: E402
import rules  # noqa: E402
import sources  # noqa: E402
import stamp  # noqa: E402

CONFIG = """\
title: A Book
repository:
  url: https://github.com/first/sigreg
  branch: main
html:
  baseurl: https://first.github.io/sigreg/
"""

PACKAGE = {
    "__init__.py": "from sigreg.rates import rate\n",
    "rates.py": "def rate(x):  # half of it\n    return x / 2\n",
    "lab/__init__.py": "",
    "lab/notebook.py": "def start():\n    print('started')\n",
    "lab/experiments/__init__.py": "",
    "lab/experiments/power.py": "from sigreg import rates\n\nVERSION = 1\n",
}
RECORD = {
    "name": "power",
    "description": "A number.",
    "provenance": {"preset": "full", "version": 1, "seeds": 1, "runs": []},
    "units": [{"unit": {"seed": 0, "version": 1}, "result": {"rate": 0.25}, "seconds": 1.0, "files": {}}],
}

PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="

CHAPTER = """\
# 1. Tiny

HEAD LINE

```{code-cell}
:tags: [nbval-ignore-output]

SETUP CELL
```

Half of $x_{a}$.

```{code-cell}
from IPython.display import Image, Markdown, display

print("one")
print("two")
display(Markdown("between"))
print("three")
record = "power"
sigreg.rates.rate(3)
```

```{code-cell}
---
mystnb:
  image:
    alt: A dot.
  figure:
    caption: See a dot.
    name: fig-dot
---
import base64

display(Image(data=base64.b64decode("PICTURE")))
```

## What this does not show

Much.

## Exercises

None.

## References

None.
""".replace("PICTURE", PICTURE)


def write_record(root, record):
    path = root / "book/_records" / f"{record['name']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))


def tool(root, *arguments):
    """Call the tool as a user does."""
    command = [sys.executable, TOOL, "--root", root, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def opened(text, stem, root):
    """The text of a chapter with the line of links and the setup cell that every chapter has."""
    address = stamp.present_address(root)
    text = text.replace("HEAD LINE", rules.head_line(address, stem))
    return text.replace("SETUP CELL", rules.setup_cell(address))


def make_book(root):
    for name, text in PACKAGE.items():
        path = root / "sigreg" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "notebooks").mkdir()
    write_record(root, RECORD)
    (root / "_config.yml").write_text(CONFIG)
    (root / "pyproject.toml").write_text(
        '[project]\nversion = "1"\n[project.urls]\nBook = "https://first.github.io/sigreg/"\n'
        'Source = "https://github.com/first/sigreg"\n'
        'Changelog = "https://github.com/first/sigreg/blob/main/CHANGELOG.md"\n'
    )
    (root / "notebooks/01_tiny.md").write_text(opened(CHAPTER, "01_tiny", root))


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """A book of one chapter, executed once for all tests."""
    root = tmp_path_factory.mktemp("book") / "root"
    make_book(root)
    done = tool(root, "run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("01_tiny: executed in ") and "left to do" not in done.stdout
    return root


@pytest.fixture
def book(executed, tmp_path):
    """A copy of that book to break."""
    return Path(shutil.copytree(executed, tmp_path / "root"))


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def edit_notebook(book, change):
    """Apply `change` to the notebook's dictionary and save it, as another program might."""
    path = book / "notebooks/01_tiny.ipynb"
    notebook = json.loads(path.read_text())
    change(notebook)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


def problems(book):
    return pairs.check(book)[0]


def only_problem(book):
    (problem,) = problems(book)
    return problem


# --- A book in order ------------------------------------------------------------------------------------------------


def test_what_was_executed_passes_and_is_clean(executed):
    assert problems(executed) == []
    notebook = json.loads((executed / "notebooks/01_tiny.ipynb").read_text())
    assert set(notebook["metadata"]) == {"kernelspec", "outputs", "outputs_from"}
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == [1, 2, 3]
    assert set().union(*(cell["metadata"] for cell in code)) == {"tags", "mystnb"}
    outputs = [output.get("text") or output["data"].get("text/markdown") or output["data"]["text/plain"]
               for output in code[1]["outputs"]]  # fmt: skip
    assert outputs == [["one\n", "two\n"], ["between"], ["three\n"], ["1.5"]]
    assert [p.name for p in (executed / "notebooks").iterdir() if p.name.startswith(".")] == []


def test_executing_again_gives_the_same_bytes(book):
    before = (book / "notebooks/01_tiny.ipynb").read_bytes()
    assert tool(book, "run").stdout == "01_tiny: up to date\n"
    assert tool(book, "run", "--all").stdout.startswith("01_tiny: executed in ")
    assert (book / "notebooks/01_tiny.ipynb").read_bytes() == before


def test_a_book_without_chapters_is_in_order(book):
    shutil.rmtree(book / "notebooks")
    done = tool(book, "check")
    assert (done.returncode, done.stdout) == (0, "chapters: 0, problems: 0\n")


def test_the_command_lists_problems_and_fails(book):
    edit(book / "notebooks/01_tiny.md", "## Exercises", "## Tasks")
    done = tool(book, "check")
    assert done.returncode == 1
    assert "notebooks/01_tiny.md: there is no section `## Exercises`: add it" in done.stdout
    assert "chapters: 1, problems: 2" in done.stdout


# --- The two halves -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("half, says", [("md", "there is no .md beside it"), ("ipynb", "there is no .ipynb beside it")])
def test_a_missing_half(book, half, says):
    (book / f"notebooks/01_tiny.{half}").unlink()
    assert says in only_problem(book)


def test_changed_text_is_seen_and_carried_over_without_executing(book):
    edit(book / "notebooks/01_tiny.md", "Half of", "One half of")
    edit(book / "notebooks/01_tiny.md", "See a dot.", "See one dot.")
    problem = only_problem(book)
    assert problem.startswith("notebooks/01_tiny.ipynb: cell 3 (line 19 of the .md): its text is not that of the .md: ")
    assert "pairs.py run 01_tiny" in problem
    succeeded, report = pairs.bring_up_to_date("01_tiny", book)
    assert succeeded and report.endswith("the text is carried over; no code changed")
    assert problems(book) == []
    assert "See one dot." in (book / "notebooks/01_tiny.ipynb").read_text()


def test_a_move_of_the_repository_needs_no_execution(book):
    edit(book / "_config.yml", "first", "second")
    assert {problem.split(":")[0] for problem in problems(book)} == {"notebooks/01_tiny.md"}
    stamp.main(["--root", str(book)])
    assert pairs.bring_up_to_date("01_tiny", book) == (True, "01_tiny: the text is carried over; no code changed")
    assert problems(book) == []


@pytest.mark.parametrize(
    "old, new, says",
    [
        ("alt: A dot.", "alt: Another dot.", "its metadata (mystnb) are not those of the .md"),
        ("tags: [nbval-ignore-output]", "tags: [x]", "its metadata (tags) are not those of the .md"),
        ("Half of", "```{code-cell}\n1\n```\n", "it is markdown here and code in the .md"),
        ("None.\n\n## R", "None.\n\n+++\n\n## R", "it has 6 cells, the .md has 7"),
    ],
)
def test_differences_between_the_halves(book, old, new, says):
    edit(book / "notebooks/01_tiny.md", old, new)
    assert any(says in problem for problem in problems(book))


@pytest.mark.parametrize("change", [
    lambda notebook: notebook["metadata"].update(language_info={"name": "python"}),
    lambda notebook: notebook["cells"][0].update(id="another-id"),
])  # fmt: skip
def test_metadata_of_another_program(book, change):
    edit_notebook(book, change)
    assert "another program saved it" in only_problem(book)
    pairs.bring_up_to_date("01_tiny", book)
    assert problems(book) == []


@pytest.mark.parametrize(
    "half, text",
    [
        ("ipynb", '{"cells": ['),
        ("ipynb", ""),
        ("ipynb", '{"cells": [{"cell_type": "code"}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}'),
        ("md", "```{code-cell}\n---\na: [\n---\n1\n```\n"),
    ],
)
def test_a_file_that_cannot_be_read(book, half, text):
    (book / f"notebooks/01_tiny.{half}").write_text(text)
    assert only_problem(book).startswith(f"notebooks/01_tiny.{half}: it cannot be read (")
    cells = pairs.read_text_half(book / "notebooks/01_tiny.md") if half == "ipynb" else []
    assert not pairs.still_valid(text, cells, sources.outputs_from(cells, book))


# --- Stale outputs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "file, old, new, changed",
    [
        ("notebooks/01_tiny.md", "rate(3)", "rate(4)", "the code"),
        ("notebooks/01_tiny.md", 'print("one")', 'print("1")', "the code"),
        ("book/_records/power.json", "0.25", "0.26", "book/_records/power.json"),
        ("book/_records/power.json", '"runs": []', '"runs": [{"commit": "ab"}]', "book/_records/power.json"),
        ("sigreg/lab/experiments/power.py", "VERSION = 1", "VERSION = 2", "VERSION in sigreg/lab/experiments/power.py"),
    ],
)
def test_stale_outputs(book, file, old, new, changed):
    edit(book / file, old, new)
    stale = [problem for problem in problems(book) if "stale" in problem]
    assert len(stale) == 1 and f"there changed {changed}: `python book/_tools/pairs.py run 01_tiny`" in stale[0]


@pytest.mark.parametrize(
    "file, old, new",
    [
        ("sigreg/rates.py", "half of it", "one half"),
        ("sigreg/rates.py", "return x / 2\n", "return x / 2\n\n\ndef unused():\n    return 0\n"),
        ("sigreg/rates.py", "x / 2", "0.5 * x"),  # whether that changes an output, nbval finds out
        ("sigreg/lab/experiments/power.py", "rates", "rate"),
        ("book/_records/power.json", '"A number."', '"One number."'),
        ("book/_records/power.json", '"runs": []', '"runs": [], "verified": {"units": 3}'),
    ],
)
def test_outputs_that_are_not_stale(book, file, old, new):
    edit(book / file, old, new)
    assert problems(book) == []


def test_a_moved_module_makes_nothing_stale(book):
    (book / "sigreg/rates.py").rename(book / "sigreg/_rates.py")
    assert problems(book) == []


def test_a_record_that_the_chapter_does_not_name_is_no_part_of_it(book):
    write_record(book, {**RECORD, "name": "idle"})
    cells = pairs.read_text_half(book / "notebooks/01_tiny.md")
    assert set(sources.outputs_from(cells, book)) == {
        "the code", "book/_records/power.json", "VERSION in sigreg/lab/experiments/power.py",
    }  # fmt: skip
    assert problems(book) == []


# --- Records --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda text: text[:-9], "power.json: the record cannot be used ("),
        (lambda text: text.replace("0.25", "NaN"), "it holds NaN, which is no number"),
        (lambda text: text.replace("description", "x"), "it lacks description"),
        (lambda text: text.replace('"power"', '"idle"'), "it is the record of idle"),
        (lambda text: text.replace('"seed": 0, "version": 1', '"seed": 0'), "its experiment is at VERSION 1 now"),
        (lambda text: text.replace('"seed": 0', '"encoder": "ab"'), "its units used a file that no stored run made"),
    ],
)
def test_unusable_records(book, change, says):
    path = book / "book/_records/power.json"
    path.write_text(change(path.read_text()))
    found = [problem for problem in problems(book) if says in problem]
    assert len(found) == 1 and "restore it, or `python -m sigreg.lab.reproduce run power" in found[0]


def test_a_changed_byte_of_a_file_that_a_run_made(book):
    kept = book / "book/_records/kept.pt"
    kept.write_bytes(b"weights")
    unit = {**RECORD["units"][0], "files": {"kept.pt": sources.files.sha256_of(kept)}}
    user = {"unit": {"seed": 0, "encoder": unit["files"]["kept.pt"]}, "result": {"rate": 0.5}}
    write_record(book, {**RECORD, "name": "maker", "units": [unit]})
    write_record(book, {**RECORD, "name": "user", "units": [user]})
    assert problems(book) == []
    kept.write_bytes(b"weighty")
    assert "kept.pt, which the run of maker made, is not the file it made (its sha256 is " in only_problem(book)
    kept.unlink()
    assert "it is not there" in only_problem(book)


def test_outputs_changed_by_hand(book):
    edit_notebook(book, lambda notebook: notebook["cells"][3]["outputs"][-1]["data"].update({"text/plain": ["2.5"]}))
    assert "the outputs are not those that were written here" in only_problem(book)
    cells = pairs.read_text_half(book / "notebooks/01_tiny.md")
    stored = (book / "notebooks/01_tiny.ipynb").read_text()
    assert not pairs.still_valid(stored, cells, sources.outputs_from(cells, book))


# --- Outputs --------------------------------------------------------------------------------------------------------


def output(cell, **fields):
    """A change of a notebook that gives `cell` one more output."""
    return lambda notebook: notebook["cells"][cell]["outputs"].append(fields)


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda n: n["cells"][3].update(execution_count=None), "(line 22 of the .md): code cell 2 was never executed"),
        (lambda n: n["cells"][3].update(execution_count=7), "code cell 2 ran as number 7"),
        (output(3, output_type="error", ename="E", evalue="no", traceback=[]), "the output is an error, E: no"),
        (output(3, output_type="stream", name="stderr", text="careful"), "the cell wrote to stderr: 'careful'"),
        (output(3, output_type="stream", name="stdout", text="/home/me/x.py"), "path of one machine, '/home/me/x.py'"),
        (output(3, output_type="stream", name="stdout", text="<f at 0x7f00aa>"), "one machine, '<f at 0x7f00aa>'"),
        (output(4, output_type="display_data", metadata={}, data={"image/png": ""}), "2 pictures under one name"),
        (output(3, output_type="display_data", metadata={}, data={"image/png": ""}), "no caption, no name, no alt"),
    ],
)
def test_bad_outputs(book, change, says):
    edit_notebook(book, change)
    found = [problem for problem in problems(book) if says in problem]
    assert len(found) == 1 and found[0].startswith("notebooks/01_tiny.ipynb: cell ")


# --- Rules ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "old, new, says",
    [
        ("# 1. Tiny", "# 2. Tiny", "cell 1 (line 1 of the .md): the chapter does not open with its number and title"),
        ("blob/main/notebooks/01_tiny", "blob/main/notebooks/02_tiny", "the line under the title"),
        ("## What this does not show", "## What it shows not", "there is no section `## What this does not show`"),
        ("## References", "### References", "there is no section `## References`"),
        ("sigreg.lab.notebook.start()", "sigreg.lab.notebook.start() ", "the first code cell is not the setup cell"),
        ("sigreg@main", "sigreg@dev", "the first code cell is not the setup cell"),
        ("tags: [nbval-ignore-output]", "tags: [nbval-skip]", "the first code cell is not the setup cell"),
        ("sigreg.rates.rate(3)", "1\n" * 20 + "1", "cell 4 (line 22 of the .md): the cell has 28 lines"),
        ('import base64\n\ndisplay(Image(data=base64.b64decode("' + PICTURE + '")))', "", "the code cell is empty"),
        ("Half of", "```{note}\nx\n```\n", "the MyST directive ````{note}` shows raw"),
        ("Half of", ":::{admonition} T\nx\n:::\n", "the MyST directive `:::{admonition} T` shows raw"),
        ("Half of", "See {ref}`x` for", "the MyST role `{ref}``` shows raw"),
        ("Half of", "(here)=\n\nHalf of", "the MyST label `(here)=` shows raw"),
        ("Half of", "% to do\n\nHalf of", "the MyST comment `% to do` shows raw"),
        ("Half of", "![a](b){width=3}", "the MyST attribute list `{width=3}` shows raw"),
        ("display(Image", "sigreg.(Image", "its code is not Python (invalid syntax: "),
    ],
)
def test_broken_rules(book, old, new, says):
    edit(book / "notebooks/01_tiny.md", old, new)
    found = [problem for problem in problems(book) if says in problem]
    assert len(found) == 1 and found[0].startswith("notebooks/01_tiny.md: "), problems(book)


@pytest.mark.parametrize(
    "what",
    ["```python\n{ref}`x`\n% x\n```", "`{ref}` and `x`", "``{ref}``", "$x_{a}$`x`", "$$\n% x\n(a)=\n$$", "50 %"],
)
def test_what_looks_like_myst_and_is_not(book, what):
    edit(book / "notebooks/01_tiny.md", "Half of", what + "\n\nHalf of")
    assert not [problem for problem in problems(book) if "shows raw" in problem]


@pytest.mark.parametrize("lacks", ["alt: A dot.", "caption: See a dot.", "name: fig-dot"])
def test_a_figure_without_words(book, lacks):
    edit(book / "notebooks/01_tiny.md", lacks, lacks.split(":")[0] + ":")
    pairs.bring_up_to_date("01_tiny", book)
    assert f"cell 5 (line 41 of the .md): the figure has no {lacks.split(':')[0]}: " in only_problem(book)


def test_long_cells_on_the_whole(book):
    edit(book / "notebooks/01_tiny.md", "sigreg.rates.rate(3)", "1\n" * 8 + "1")
    edit(book / "notebooks/01_tiny.md", "import base64\n", "import base64\n" + "1\n" * 9)
    assert "notebooks/01_tiny.md: the median code cell has 12 lines: shorten the cells: 10 at most" in problems(book)


def test_figure_names_are_unique_over_the_book(book):
    second = (book / "notebooks/01_tiny.md").read_text().replace("# 1. Tiny", "# 2. Tiny")
    (book / "notebooks/02_tiny.md").write_text(second)
    taken = "notebooks/02_tiny.md: cell 5: the figure name fig-dot is taken by notebooks/01_tiny.md: cell 5: "
    assert taken in "\n".join(problems(book))


def test_the_name_of_the_file_has_the_number(book):
    for half in ("md", "ipynb"):
        (book / f"notebooks/01_tiny.{half}").rename(book / f"notebooks/tiny.{half}")
    assert "notebooks/tiny.md: the file name has no chapter number" in only_problem(book)


def test_prose_is_noted_but_does_not_fail(book):
    _, (note,) = pairs.check(book)
    assert note == (
        "notebooks/01_tiny.md: note: 2 of 2 stretches of prose between code cells are not 60 to 170 words long; "
        "they go from 0 (before cell 5) to 2 (before cell 4)"
    )
    edit(book / "notebooks/01_tiny.md", "Half of $x_{a}$", "half of $x a$ " * 40 + "<details>more</details> $$ x y $$")
    assert "1 of 2 stretches" in pairs.check(book)[1][0] and "to 80 (before cell 4)" in pairs.check(book)[1][0]


# --- Executing ------------------------------------------------------------------------------------------------------


def test_a_failing_run_writes_nothing_and_the_others_go_on(book, monkeypatch):
    monkeypatch.setenv("SIGREG_FULL", "1")
    monkeypatch.setenv("MPLBACKEND", "agg")
    setup = CHAPTER[: CHAPTER.index("Half of")]
    failing = setup + '```{code-cell}\nprint("before")\n```\n\n```{code-cell}\n1 / 0\n```\n'
    environment = (
        'import os, sys\nnames = ["OMP_NUM_THREADS", "TQDM_DISABLE", "SIGREG_FULL", "SIGREG_DEVICE", "MPLBACKEND"]\n'
        "print(os.path.basename(os.getcwd()), [os.environ.get(name) for name in names])\n"
        'print(sys.executable == EXE); print("careful", file=sys.stderr)'
    ).replace("EXE", repr(sys.executable))
    (book / "notebooks/02_bad.md").write_text(opened(failing, "02_bad", book))
    good = setup + f"```{{code-cell}}\n{environment}\n```\n"
    (book / "notebooks/03_good.md").write_text(opened(good, "03_good", book))
    done = tool(book, "run", "--jobs", "2", "notebooks/02_bad.md", "03_good")
    assert done.returncode == 1
    assert "02_bad: FAILED at cell 4 (line 24 of the .md); no notebook was written" in done.stdout
    assert "ZeroDivisionError" in done.stdout and "1 / 0" in done.stdout
    assert "03_good: executed in " in done.stdout
    assert "left to do: notebooks/03_good.ipynb: cell 3 " in done.stdout and "wrote to stderr: 'careful'" in done.stdout
    assert sorted(path.name for path in (book / "notebooks").glob("0*.ipynb")) == ["01_tiny.ipynb", "03_good.ipynb"]
    shown = json.loads((book / "notebooks/03_good.ipynb").read_text())["cells"][2]["outputs"][0]["text"]
    backend = "module://matplotlib_inline.backend_inline"
    assert shown == [f"notebooks ['1', '1', None, 'cpu', '{backend}']\n", "True\n"]


def test_a_chapter_that_is_not_there(book):
    done = tool(book, "run", "05_nothing.md")
    assert done.returncode == 2
    assert "there is no notebooks/05_nothing.md; the chapters are: 01_tiny" in done.stderr


def test_torch_is_not_needed_to_check():
    script = f"import sys; sys.path.insert(0, {str(TOOL.parent)!r}); import pairs; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_chapters_of_this_book_are_in_order():
    done = subprocess.run([sys.executable, TOOL, "check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
