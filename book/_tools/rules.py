"""The rules that every chapter keeps. Each function yields `(number of the cell or None, what is wrong, what to do)`.

Cells are counted from 1, as they stand in the notebook, those of text too.
"""

import re
import statistics

SETUP_CELL = """\
# Does nothing where sigreg is installed; in Colab it adds this one package and touches nothing else.
import importlib.util

if importlib.util.find_spec("sigreg") is None:
    %pip install --quiet --no-deps "git+{url}@{branch}"

import sigreg.lab.notebook

sigreg.lab.notebook.start()"""
PARTS = {"": "", "b": ", second part,", "c": ", third part,"}  # 04b_name is the second page of Chapter 4
HEAD_LINE = (
    "*Chapter {number}{part} of [{title}]({book})"
    " · [open in Colab]({colab}/blob/{branch}/notebooks/{stem}.ipynb)*"
)
SECTIONS = ("## What this does not show", "## Exercises", "## References")
MEDIAN_LINES, MOST_LINES = 10, 25  # of a code cell
FEWEST_WORDS, MOST_WORDS = 60, 170  # of prose between two code cells

# What MyST understands, and Colab and GitHub show raw. Looked for outside code and mathematics.
RAW_MYST = {
    "directive": r"(?m)^[ >]*(`{3,}|~{3,}|:{3,})\s*\{.*$",
    "role": r"\{[A-Za-z][\w:.+-]*\}``",
    "label": r"(?m)^\([\w:.-]+\)=\s*$",
    "comment": r"(?m)^%.*$",
    "attribute list": r"(?<=[\])`])\{[#.\w][^}]*\}",
}

# What differs from machine to machine or from run to run.
OF_ONE_MACHINE = r"<[^<>]* at 0x[0-9a-f]{6,}>|\S*(ipykernel_\d|site-packages|/home/|/Users/|/tmp/)\S*"


def setup_cell(address):
    """The first code cell of every chapter."""
    return SETUP_CELL.format(**address._asdict())


def head_line(address, stem):
    """The line under the title of the chapter `notebooks/<stem>.md`."""
    colab = address.url.replace("github.com", "colab.research.google.com/github")
    number, part = re.match(r"0*(\d+)([bc]?)", stem).groups()
    return HEAD_LINE.format(number=number, part=PARTS[part], colab=colab, stem=stem, **address._asdict())


def text_problems(stem, cells, address):
    """Check the title, the line of links under it, the closing sections, and that no raw MyST shows."""
    number, part = re.match(r"0*(\d*)([bc]?)", stem).groups()  # 04b_name is the second page of Chapter 4
    text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    if not re.match(r"\d\d[bc]?_[a-z]", stem):
        yield None, "the file name has no chapter number", "call it NN_name.md, for example 05_name.md"
    elif not re.match(rf"# {number}{part}\. \S", text):
        yield 1, "the chapter does not open with its number and title", f"begin with `# {number}{part}. Title`"
    elif (line := head_line(address, stem)) not in text.splitlines():
        what = "the line under the title, with the links to the book and to Colab, is missing or leads elsewhere"
        yield 1, what, f"put `{line}` there"
    for heading in SECTIONS:
        if not re.search(rf"(?m)^{heading}\s*$", text):
            yield None, f"there is no section `{heading}`", "add it: every chapter ends with these sections"
    for k, cell in enumerate(cells, 1):
        if cell.cell_type == "markdown":
            prose = re.sub(r"(?ms)^(`{3,}|~{3,})(?!\s*\{).*?^\1", "", cell.source)  # blocks of code
            prose = re.sub(r"(`+)[^`\n]+\1", "``", prose)  # code within a line
            prose = re.sub(r"(?s)\$\$.*?\$\$|\$[^$]+\$", "", prose)  # mathematics
            for what, pattern in RAW_MYST.items():
                if match := re.search(pattern, prose):
                    what = f"the MyST {what} `{match[0].strip()[:50]}` shows raw in Colab and on GitHub"
                    yield k, what, "say it in plain Markdown"


def code_problems(cells, address):
    """Check the setup cell, and that cells are short."""
    code = {k: cell for k, cell in enumerate(cells, 1) if cell.cell_type == "code"}
    for k, cell in list(code.items())[:1]:
        if cell.source != setup_cell(address) or cell.metadata.get("tags") != ["nbval-ignore-output"]:
            what = "the first code cell is not the setup cell that all chapters share, tagged nbval-ignore-output"
            yield k, what, f"write there:\n{setup_cell(address)}\n"
    sizes = {k: len(cell.source.splitlines()) for k, cell in code.items()}
    for k, size in sizes.items():
        if size == 0:
            yield k, "the code cell is empty", "remove it"
        if size > MOST_LINES:
            yield k, f"the cell has {size} lines", f"split it, or move code to the package: {MOST_LINES} at most"
    if code and (median := statistics.median(sizes.values())) > MEDIAN_LINES:
        yield None, f"the median code cell has {median:g} lines", f"shorten the cells: {MEDIAN_LINES} at most"


def output_problems(cells):
    """Check that all cells ran once and in order, wrote no error and nothing that varies, and name their figures."""
    again = "correct the .md and run this chapter again"
    code = [(k, cell) for k, cell in enumerate(cells, 1) if cell.cell_type == "code"]
    for count, (k, cell) in enumerate(code, 1):
        if cell.execution_count != count:
            ran = "was never executed" if cell.execution_count is None else f"ran as number {cell.execution_count}"
            yield k, f"code cell {count} {ran}", "run this chapter, all its cells at once"
            break  # the cells after it are no news
    for k, cell in code:
        for output in cell.outputs:
            shown = output.get("text") or output.get("data", {}).get("text/plain", "")
            if output.output_type == "error":
                yield k, f"the output is an error, {output.ename}: {output.evalue[:80]}", again
            elif output.get("name") == "stderr":
                yield k, f"the cell wrote to stderr: {shown.strip()[-120:]!r}", f"remove the cause: {again}"
            elif match := re.search(OF_ONE_MACHINE, shown):
                what = f"the output names an object or a path of one machine, {match[0][:60]!r}"
                yield k, what, f"end a cell that plots in plt.show(), and print no paths: {again}"
        shows = [[*output.get("data", {})] for output in cell.outputs]
        pictures = [kinds for kinds in shows if any(kind.startswith("image/") for kind in kinds)]
        if len(pictures) > 1:
            yield k, f"the cell shows {len(pictures)} pictures under one name", f"one figure a cell: {again}"
        if pictures:
            about = cell.metadata.get("mystnb", {})
            described = {**about.get("image", {}), **about.get("figure", {})}
            if lacks := [key for key in ("caption", "name", "alt") if not str(described.get(key) or "").strip()]:
                remedy = "at the head of the cell give `mystnb:` its `figure:` (caption, name) and `image:` (alt)"
                yield k, f"the figure has no {', no '.join(lacks)}", remedy


def notes_on_prose(cells):
    """Yield a line if stretches of prose between two code cells are shorter or longer than they should be."""
    stretches, words = [], None  # before the first code cell there may be as much as it takes
    for k, cell in enumerate(cells, 1):
        if cell.cell_type == "markdown" and words is not None:  # what is folded, and mathematics, do not count
            prose = re.sub(r"(?s)<details>.*?</details>|\$\$.*?\$\$|\$[^$]+\$", "", cell.source)
            words += len(re.findall(r"\w[\w'’-]*", prose))
        elif cell.cell_type == "code" and not {"hide-cell", "remove-cell"} & {*cell.metadata.get("tags", [])}:
            stretches += [] if words is None else [(words, k)]
            words = 0
    odd = sum(not FEWEST_WORDS <= words <= MOST_WORDS for words, _ in stretches)
    if odd:
        (fewest, after), (most, before) = min(stretches), max(stretches)
        yield (
            f"note: {odd} of {len(stretches)} stretches of prose between code cells are not {FEWEST_WORDS} to "
            f"{MOST_WORDS} words long; they go from {fewest} (before cell {after}) to {most} (before cell {before})"
        )
