"""Keep the two halves of each chapter one thing: the text people edit, and the executed notebook beside it.

`notebooks/NN_stem.md` (MyST) is the source. `notebooks/NN_stem.ipynb` is made from it by this tool: the same cells, with
outputs. Colab opens it, nbval compares it, the book shows it.

    python book/_tools/pairs.py check             is every chapter in order? (a second; executes nothing)
    python book/_tools/pairs.py run               bring the notebooks up to date, executing those whose outputs are stale
    python book/_tools/pairs.py run FILE ...      only these (.md, .ipynb or stem)

Outputs are stale when a code cell has changed, or a module of `sigreg` that the chapter uses (found through the imports,
comments and docstrings left out), a data file of the package, or an experiment or a record that it names. What they came
from is kept in the notebook's metadata. After a change of text, captions or alt texts alone nothing is executed.
"""

import argparse
import ast
import hashlib
import io
import json
import os
import re
import resource
import statistics
import sys
import tempfile
import time
import tokenize
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import jupytext
import nbformat
import stamp

ROOT = Path(__file__).resolve().parents[2]
RUN = "run `python book/_tools/pairs.py run {}`"
KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
SECTIONS = ("## What this does not show", "## Exercises", "## References")
MEDIAN_LINES, MOST_LINES = 10, 25
WORDS = range(60, 171)  # of prose between two code cells
SLOW_CELL, SLOW_CHAPTER, CELL_TIMEOUT = 5, 120, 900  # seconds

# What MyST understands and Colab and GitHub show raw.
RAW_MYST = {
    "a directive": re.compile(r"(?m)^\s*(?:`{3,}|~{3,}|:{3,})\s*\{[^}]*\}.*$"),
    "a role": re.compile(r"\{[A-Za-z][\w:.+-]*\}`[^`]*`"),
    "a label": re.compile(r"(?m)^\([\w:.-]+\)=\s*$"),
    "a MyST comment": re.compile(r"(?m)^%.*$"),
    "attributes": re.compile(r"(?<=[\])`])\{[#.\w][^}]*\}"),
}


# --- what outputs come from ---------------------------------------------------------------------------------------------


def digest(content):
    """Twelve hexadecimal digits that stand for `content`, a string or bytes."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:12]


@cache
def code_only(source):
    """Return Python `source` without comments, docstrings and blank lines: what can change an output."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    text = "\n".join(lines)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node):
            text = text.replace(ast.get_source_segment(source, node.body[0]), "", 1)
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())


def names_used(tree, package="sigreg"):
    """Yield the dotted names below `sigreg` that a syntax tree imports or looks up; `package` is where it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                renamed = alias.name == "sigreg" and alias.asname
                yield "sigreg.*" if renamed else alias.name
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute):
            yield ast.unparse(node)


def modules_of(name, root):
    """Return the files of the package that the dotted `name` stands for; every one of them if that cannot be told."""
    package, *parts = name.split(".")
    if package != "sigreg" or not parts:
        return []  # `import sigreg` alone: what is then looked up in it tells more
    found, folder = [], root / "sigreg"
    for part in parts:
        if (folder / f"{part}.py").exists():
            return [*found, folder / f"{part}.py"]
        if not (folder / part / "__init__.py").exists():
            break
        folder = folder / part
        found.append(folder / "__init__.py")
    if found:
        return found
    tree = ast.parse((root / "sigreg/__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:  # a name that the package hands on from one of its modules, or sets itself
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if parts[0] == (alias.asname or alias.name):
                    base = ".".join(filter(None, ["sigreg" if node.level else "", node.module]))
                    return modules_of(f"{base}.{alias.name}", root)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and parts[0] in ast.unparse(node).split("=")[0]:
            return []
    return [] if parts[0].startswith("__") else sorted((root / "sigreg").rglob("*.py"))


def python_of(cells):
    """The code cells as one Python text, IPython's `%` and `!` lines blanked."""
    return "\n".join(re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", c.source) for c in cells if c.cell_type == "code")


def outputs_from(cells, root=ROOT):
    """Return what the outputs of these cells depend on, as `{what: digest of it}`."""
    setup, *others = [c for c in cells if c.cell_type == "code"] or [None]  # the setup cell has a check of its own
    parts = {"the code cells": digest(json.dumps([[c.source, c.metadata.get("tags", [])] for c in others]))}
    tree = ast.parse(python_of(cells))
    words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    experiments = [f"sigreg.experiments.{p.stem}" for p in (root / "sigreg/experiments").glob("*.py") if p.stem in words]
    waiting, seen = [m for name in [*names_used(tree), *experiments] for m in modules_of(name, root)], set()
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            source, package = module.read_text(encoding="utf-8"), ".".join(module.parent.relative_to(root).parts)
            parts[module.relative_to(root).as_posix()] = digest(code_only(source))
            waiting += [m for name in names_used(ast.parse(source), package) for m in modules_of(name, root)]
    data = [p for p in sorted((root / "sigreg").rglob("*")) if p.is_file() and p.suffix not in {".py", ".pyc", ".md"}]
    if seen and data:
        parts["sigreg's data files"] = digest("".join(f"{p.name} {digest(p.read_bytes())}" for p in data))
    for record in sorted((root / "book/_records").rglob("*.*")):
        if record.is_file() and {record.stem, record.name} & words:
            parts[record.relative_to(root).as_posix()] = digest(record.read_bytes())
    return dict(sorted(parts.items()))


# --- the two halves -----------------------------------------------------------------------------------------------------


def read_text_half(path):
    """Return the notebook that a chapter's .md describes, without outputs."""
    return jupytext.reads(path.read_text(encoding="utf-8"), "md:myst")


def written(cells, came_from):
    """Return the .ipynb as text: these cells, ids that follow from their content, and no metadata that could vary."""
    seen = Counter()
    for cell in cells:
        name = digest(f"{cell.cell_type}\n{cell.source}")[:8]
        seen[name] += 1
        cell["id"] = name if seen[name] == 1 else f"{name}-{seen[name]}"
    metadata = {"kernelspec": KERNELSPEC, "outputs_from": came_from}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=metadata, nbformat_minor=5)
    nbformat.validate(notebook)
    return nbformat.writes(notebook, version=nbformat.NO_CONVERT) + "\n"


def write_whole(path, text):
    """Write a file all at once: whoever reads it meanwhile sees the old one or the new one, never a part."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".", suffix=".part", delete=False, encoding="utf-8") as part:
        part.write(text)
    os.chmod(part.name, 0o644)
    os.replace(part.name, path)


def with_outputs(cells, executed):
    """Return `cells` with the outputs of the `executed` ones, or None if their code differs or is not all executed."""
    code, old = ([c for c in half if c.cell_type == "code"] for half in (cells, executed))
    same = [c.source for c in code[1:]] == [c.source for c in old[1:]] and len(code) == len(old)
    if not same or [c.execution_count for c in old] != list(range(1, len(old) + 1)):
        return None
    for cell, before in zip(code, old, strict=True):
        cell.outputs, cell.execution_count = before.outputs, before.execution_count
    return cells


# --- checking -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """Something wrong in a file, at a cell if there is one (counted from 1), and what to do about it."""

    file: str
    cell: int | None
    what: str
    remedy: str

    def __str__(self):
        return f"{self.file}: {f'cell {self.cell}: ' if self.cell else ''}{self.what}: {self.remedy}"


def stems(root):
    """The chapters there are, by the name of either half."""
    return sorted({p.stem for kind in ("*.md", "*.ipynb") for p in (root / "notebooks").glob(kind)})


def check_rules(stem, cells, address):
    """Yield what in a chapter's text breaks the rules that all chapters share."""
    file = f"notebooks/{stem}.md"

    def problem(cell, what, remedy):
        return Problem(file, cell, what, remedy)

    text = "\n\n".join(c.source for c in cells if c.cell_type == "markdown")
    number = re.match(r"0*(\d+)_", stem)
    if not number:
        yield problem(None, "its name has no chapter number", "call it NN_name.md, as 05_name.md")
    elif not re.match(rf"# {number[1]}\. \S", text):
        yield problem(1, "the chapter does not open with its title", f"begin with `# {number[1]}. Title`")
    elif stamp.head_line(address, stem) not in text.splitlines():
        yield problem(
            1,
            "the line under the title, with the links to the book and to Colab, is missing or leads elsewhere",
            f"put `*Chapter {number[1]} of [...*` there and run `python book/_tools/stamp.py`, which fills it in",
        )
    for heading in SECTIONS:
        if not re.search(rf"(?m)^{heading}\s*$", text):
            yield problem(None, f"there is no section `{heading}`", "add it; every chapter ends with these sections")
    code = [(k, c) for k, c in enumerate(cells, 1) if c.cell_type == "code"]
    if code:
        k, first = code[0]
        if first.source != stamp.setup_cell(address) or first.metadata.get("tags") != ["nbval-ignore-output"]:
            yield problem(
                k,
                "the first code cell is not the setup cell that all chapters share",
                "copy it, with its tag nbval-ignore-output, from another chapter, or run `python book/_tools/stamp.py`",
            )
    sizes = {k: c.source.count("\n") + 1 for k, c in code}
    for k, size in sizes.items():
        if size > MOST_LINES:
            yield problem(k, f"the cell has {size} lines", f"split it or move code to the package: {MOST_LINES} at most")
    if sizes and statistics.median(sizes.values()) > MEDIAN_LINES:
        median = statistics.median(sizes.values())
        yield problem(None, f"the median code cell has {median:g} lines", f"shorten cells: {MEDIAN_LINES} at most")
    for k, cell in code:
        if not cell.source.strip():
            yield problem(k, "the code cell is empty", "remove it")
    for k, cell in enumerate(cells, 1):
        if cell.cell_type == "markdown":
            prose = re.sub(r"(?s)\$\$.*?\$\$|\$[^$]+\$", "", cell.source)
            for what, pattern in RAW_MYST.items():
                if match := pattern.search(prose):
                    shown = match[0].strip()[:50]
                    yield problem(k, f"{what} of MyST ({shown!r}) shows raw in Colab", "say it in plain Markdown")


def check_outputs(stem, cells):
    """Yield what is wrong with the outputs of a notebook's cells."""
    file, count = f"notebooks/{stem}.ipynb", 0
    again = f"correct the .md, then {RUN.format(stem)}"
    for k, cell in enumerate(cells, 1):
        if cell.cell_type != "code":
            continue
        count += 1
        if cell.execution_count != count:
            was = "never executed" if cell.execution_count is None else f"executed as number {cell.execution_count}"
            yield Problem(file, k, f"was {was}, but is code cell {count}", RUN.format(stem))
        pictures = 0
        for output in cell.outputs:
            if output.output_type == "error":
                yield Problem(file, k, f"the output is an error ({output.ename}: {output.evalue[:60]})", again)
            elif output.output_type == "stream":
                if output.name == "stderr":
                    line = output.text.strip().splitlines()[-1][:80] if output.text.strip() else ""
                    yield Problem(file, k, f"the cell writes to stderr ({line!r})", f"remove the cause; {again}")
                shown = output.text
            else:
                pictures += any(kind.startswith("image/") for kind in output.data)
                shown = output.data.get("text/plain", "")
            if match := re.search(r"<[^<>]* at 0x[0-9a-f]{6,}>|\S*(?:ipykernel_\d+|site-packages|/home/)\S*", shown):
                what = f"the output names an object or a path of one machine ({match[0][:60]!r})"
                yield Problem(file, k, what, f"end a plotting cell in plt.show(), print no paths; {again}")
        if pictures:
            about = cell.metadata.get("mystnb", {})
            figure, image = about.get("figure", {}), about.get("image", {})
            wanted = {"caption": figure.get("caption"), "name": figure.get("name"), "alt text": image.get("alt")}
            if missing := " and no ".join(what for what, value in wanted.items() if not str(value or "").strip()):
                yield Problem(
                    file,
                    k,
                    f"the figure has no {missing}",
                    "give mystnb: figure: caption, name and image: alt at the head of the cell in the .md",
                )
            if pictures > 1:
                yield Problem(file, k, f"the cell shows {pictures} pictures under one name", "one figure a cell")


def check_pair(stem, root=ROOT):
    """Return the problems of one chapter."""
    text_half, notebook = root / f"notebooks/{stem}.md", root / f"notebooks/{stem}.ipynb"
    if not text_half.exists():
        remedy = f"if it is a chapter, make the .md with `jupytext --to md:myst notebooks/{stem}.ipynb`; else remove it"
        return [Problem(f"notebooks/{stem}.ipynb", None, "has no .md beside it", remedy)]
    try:
        cells = read_text_half(text_half).cells
        came_from = outputs_from(cells, root)
    except SyntaxError as error:
        what = f"the code does not parse ({error.msg}: {(error.text or '').strip()!r})"
        return [Problem(f"notebooks/{stem}.md", None, what, "correct it")]
    except Exception as error:
        return [Problem(f"notebooks/{stem}.md", None, f"cannot be read ({error})", "correct the head of the file or cell")]
    problems = list(check_rules(stem, cells, stamp.present_address(root)))
    if not notebook.exists():
        return [*problems, Problem(f"notebooks/{stem}.md", None, "has no .ipynb beside it", RUN.format(stem))]
    try:
        stored = notebook.read_text(encoding="utf-8")
        executed = nbformat.reads(stored, as_version=4)
    except Exception as error:
        what = f"cannot be read ({str(error)[:80]})"
        return [*problems, Problem(f"notebooks/{stem}.ipynb", None, what, f"delete it and {RUN.format(stem)}")]
    differ = []
    for k, (cell, other) in enumerate(zip(cells, executed.cells, strict=False), 1):
        if cell.cell_type != other.cell_type:
            differ.append((k, f"is {cell.cell_type} in the .md and {other.cell_type} in the .ipynb"))
        elif cell.source != other.source:
            differ.append((k, f"the {cell.cell_type} differs between .md and .ipynb"))
        elif cell.metadata != other.metadata:
            keys = sorted(k for k in {*cell.metadata, *other.metadata} if cell.metadata.get(k) != other.metadata.get(k))
            differ.append((k, f"the metadata ({', '.join(keys)}) differs between .md and .ipynb"))
    if len(cells) != len(executed.cells):
        differ.append((None, f"has {len(executed.cells)} cells, and the .md has {len(cells)}"))
    remedy = f"{RUN.format(stem)} (or, if the .ipynb is right, `jupytext --to md:myst notebooks/{stem}.ipynb`)"
    problems += [Problem(f"notebooks/{stem}.ipynb", k, what, remedy) for k, what in differ[:3]]
    problems += check_outputs(stem, executed.cells)
    before = executed.metadata.get("outputs_from", {})
    changed = [what for what in sorted({*before, *came_from}) if before.get(what) != came_from.get(what)]
    if changed:
        what = "the outputs are stale: since they were made there changed " + ", ".join(changed)
        problems.append(Problem(f"notebooks/{stem}.ipynb", None, what, RUN.format(stem)))
    if not problems and written(with_outputs(cells, executed.cells), came_from) != stored:
        problems.append(Problem(f"notebooks/{stem}.ipynb", None, "was saved by another program", RUN.format(stem)))
    return problems


def prose_warnings(stem, root):
    """Yield one line if stretches of prose between code cells are shorter or longer than they should be."""
    words, odd, seen_code = 0, [], False
    for k, cell in enumerate(read_text_half(root / f"notebooks/{stem}.md").cells, 1):
        if cell.cell_type == "markdown":
            words += len(cell.source.split())
        else:
            if seen_code and words not in WORDS:
                odd.append(f"{words} before cell {k}")
            words, seen_code = 0, True
    if odd:
        yield f"notebooks/{stem}.md: note: words of prose outside {WORDS[0]}-{WORDS[-1]}: {', '.join(odd)}"


def check(root=ROOT):
    """Return all problems of all chapters: first each by itself, then what must be unique in the book."""
    problems, names = [], {}
    for stem in stems(root):
        found = check_pair(stem, root)
        problems += found
        if any("cannot be read" in p.what or "has no .md" in p.what for p in found):
            continue
        for k, cell in enumerate(read_text_half(root / f"notebooks/{stem}.md").cells, 1):
            name = cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
            if name and name in names:
                problems.append(Problem(f"notebooks/{stem}.md", k, f"the figure name {name} is taken by {names[name]}", "rename it"))
            elif name:
                names[name] = f"notebooks/{stem}.md, cell {k}"
    return problems


# --- executing ----------------------------------------------------------------------------------------------------------


def merged(outputs):
    """Return `outputs` with neighbouring pieces of one stream joined: how they were cut depends on the moment."""
    joined = []
    for output in outputs:
        if output.output_type == "stream":
            output["text"] = re.sub(r"\S*ipykernel_\d+/\d+\.py", "<cell>", output.text)
            if joined and joined[-1].output_type == "stream" and joined[-1].name == output.name:
                joined[-1]["text"] += output.text
                continue
        joined.append(output)
    return joined


def kernel_environment(root, scratch):
    """What outputs are made in: this package, one thread, no bars, the embedded data, the CPU, no personal settings."""
    dropped = ("SIGREG_FULL", "SIGREG_DATA", "MPLBACKEND", "PYTHONWARNINGS")
    fixed = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TQDM_DISABLE")}
    fixed |= {"PYTHONPATH": str(root), "SIGREG_DEVICE": "cpu", "PYTHONHASHSEED": "0", "IPYTHONDIR": scratch, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    return {name: value for name, value in os.environ.items() if name not in dropped} | fixed


def execute(stem, root=ROOT, force=False):
    """Bring one notebook up to date and return `(succeeded, report)`; a failed run writes nothing."""
    path = root / f"notebooks/{stem}.ipynb"
    cells = read_text_half(path.with_suffix(".md")).cells
    came_from = outputs_from(cells, root)  # before the run: an edit made meanwhile then counts as later
    if path.exists() and not force:
        executed = nbformat.read(path, as_version=4)
        if executed.metadata.get("outputs_from") == came_from and with_outputs(cells, executed.cells):
            text = written(cells, came_from)
            if text == path.read_text(encoding="utf-8"):
                return True, f"{stem}: up to date"
            write_whole(path, text)
            return True, f"{stem}: text brought over; no code changed, so nothing was executed"

    from jupyter_client.kernelspec import KernelSpecManager  # here, because `check` has no use for them
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    started, slow = {}, []

    def on_start(cell, cell_index):
        started[cell_index] = time.perf_counter()

    def on_end(cell, cell_index, **_):
        seconds = time.perf_counter() - started[cell_index]
        if seconds > SLOW_CELL:
            slow.append(f"  cell {cell_index + 1} took {seconds:.0f} s: {cell.source.strip().splitlines()[0]}")

    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNELSPEC})
    client = NotebookClient(
        notebook, timeout=CELL_TIMEOUT, startup_timeout=CELL_TIMEOUT, record_timing=False, store_widget_state=False,
        resources={"metadata": {"path": str(path.parent)}}, on_cell_start=on_start, on_cell_executed=on_end,
    )  # fmt: skip
    kernel = client.create_kernel_manager()
    # No registered kernels: "python3" is then the interpreter that runs this tool, whatever else is installed.
    kernel.kernel_spec_manager = KernelSpecManager(kernel_dirs=[])
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        kernel.transport, kernel.ip, kernel.connection_file = "ipc", f"{scratch}/socket", f"{scratch}/kernel.json"
        try:
            client.execute(env=kernel_environment(root, scratch))
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            k = len(started)
            slow.append(f"{stem}: FAILED at cell {k} of {len(cells)}; the notebook was not written\n{error}")
            return False, "\n".join(slow)
    seconds = time.perf_counter() - begin
    for cell in cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = merged(cell.outputs)
    write_whole(path, written(cells, came_from))
    unit = 1 if sys.platform == "darwin" else 1024
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 2**30
    report = [f"{stem}: executed in {seconds:.0f} s, at most {memory:.1f} GB of memory", *slow]
    if seconds > SLOW_CHAPTER:
        report.append(f"  WARNING: over the budget of {SLOW_CHAPTER} s a chapter: make it smaller")
    return True, "\n".join(report)


def run(chosen, root=ROOT, force=False, jobs=1):
    """Bring the chosen chapters up to date, each in a process of its own; return whether all succeeded."""
    succeeded = True
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        futures = {pool.submit(execute, stem, root, force): stem for stem in chosen}
        for future in as_completed(futures):
            try:
                fine, report = future.result()
            except Exception as error:
                fine, report = False, f"{futures[future]}: {type(error).__name__}: {error}"
            print(report, flush=True)
            succeeded &= fine
            if fine:
                print("".join(f"  still to do: {p}\n" for p in check_pair(futures[future], root)), end="", flush=True)
    return succeeded


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository (default: the one this file is in)")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("check", help="list what is out of order, one thing a line; exit status 1 if there is any")
    runner = actions.add_parser("run", help="bring notebooks up to date with their .md, executing what is stale")
    runner.add_argument("files", nargs="*", metavar="FILE", help="chapters (.md, .ipynb or stem); default: all that are stale")
    runner.add_argument("--all", action="store_true", help="execute even what is up to date")
    runner.add_argument("--jobs", type=int, default=1, metavar="N", help="execute N chapters at once (default: 1)")
    options = parser.parse_args(arguments)
    root = options.root.resolve()
    if options.action == "check":
        problems = check(root)
        for stem in stems(root):
            if not any("cannot be read" in p.what or "no .md" in p.what for p in problems if stem in p.file):
                print("".join(f"{line}\n" for line in prose_warnings(stem, root)), end="")
        print("\n".join(map(str, problems)) or f"{len(stems(root))} chapters: all in order")
        return bool(problems)
    chosen = [Path(name).stem for name in options.files] or stems(root)
    for stem in chosen:
        if not (root / f"notebooks/{stem}.md").exists():
            parser.error(f"there is no notebooks/{stem}.md; chapters are: {', '.join(stems(root)) or 'none yet'}")
    return not run(chosen, root, options.all, options.jobs)


if __name__ == "__main__":
    sys.exit(main())
