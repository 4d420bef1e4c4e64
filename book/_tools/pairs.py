"""Keep the two halves of each chapter one thing: the text that people edit, and the executed notebook beside it.

`notebooks/NN_stem.md` (MyST) is the source. `notebooks/NN_stem.ipynb` is made from it by this tool: the same cells, with
outputs. Colab opens it, nbval compares it, the book shows it.

    python book/_tools/pairs.py check             is every chapter in order? (about a second; executes nothing)
    python book/_tools/pairs.py run               bring all notebooks up to date, executing those whose outputs are stale
    python book/_tools/pairs.py run FILE ...      bring only these up to date

Outputs are stale when a code cell has changed, or a module of `sigreg` that the chapter uses (found through the imports;
comments and docstrings do not count), or a data file of the package, or an experiment or a stored record that the chapter
names. The notebook's metadata say what its outputs came from. After a change of text, captions or alt texts alone, `run`
carries the change over and executes nothing. Two runs of one text give the same bytes.
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
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import jupytext
import nbformat
import stamp

ROOT = Path(__file__).resolve().parents[2]
KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
SECTIONS = ("## What this does not show", "## Exercises", "## References")
MEDIAN_LINES, MOST_LINES = 10, 25  # of a code cell
FEWEST_WORDS, MOST_WORDS = 60, 170  # of prose between two code cells
SLOW_CELL, SLOW_CHAPTER, CELL_TIMEOUT = 5, 120, 900  # seconds

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


# --- What outputs come from -----------------------------------------------------------------------------------------------


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
    """Yield the dotted names that a syntax tree imports or looks up; relative imports are seen from `package`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ("sigreg.*" if alias.asname and alias.name == "sigreg" else alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            above = parts[: len(parts) + 1 - node.level] if node.level else []
            yield from (".".join(filter(None, [*above, node.module, alias.name])) for alias in node.names)
        elif isinstance(node, ast.Attribute):
            yield ast.unparse(node)


def modules_of(name, root):
    """Return the files of the package that the dotted `name` stands for: all of them if that cannot be told."""
    package, *parts = name.split(".")
    if package != "sigreg" or not parts:
        return []  # another package; or `import sigreg`, and what is looked up in it has a longer name
    found, folder = [], root / "sigreg"
    for part in parts:
        if (folder / f"{part}.py").exists():
            return [*found, folder / f"{part}.py"]
        if not (folder / part / "__init__.py").exists():
            break
        folder = folder / part
        found.append(folder / "__init__.py")
    if found or parts[0].startswith("__"):
        return found
    for node in ast.parse((root / "sigreg/__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):  # a name that the package hands on from one of its modules
            for alias in node.names:
                if parts[0] == (alias.asname or alias.name):
                    return modules_of(".".join(filter(None, ["sigreg" * bool(node.level), node.module, alias.name])), root)
    return sorted((root / "sigreg").rglob("*.py"))


def outputs_from(cells, root=ROOT):
    """Return what the outputs of `cells` depend on, as `{what: digest of it}`."""
    code = [cell for cell in cells if cell.cell_type == "code"]
    parts = {"the code": digest(json.dumps([[c.source, c.metadata.get("tags", [])] for c in code[1:]]))}  # [0] is the setup
    tree = ast.parse("\n".join(re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", cell.source) for cell in code))
    words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    experiments = [f"sigreg.experiments.{p.stem}" for p in (root / "sigreg/experiments").glob("*.py") if p.stem in words]
    waiting, seen = [m for name in [*names_used(tree), *experiments] for m in modules_of(name, root)], set()
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            source, place = module.read_text(encoding="utf-8"), module.relative_to(root)
            parts[place.as_posix()] = digest(code_only(source))
            waiting += [m for name in names_used(ast.parse(source), ".".join(place.parent.parts)) for m in modules_of(name, root)]
    data = [p for p in sorted((root / "sigreg").rglob("*")) if p.is_file() and p.suffix not in {".py", ".pyc", ".md"}]
    if seen and data:
        parts["data files of sigreg"] = digest("".join(f"{p.name} {digest(p.read_bytes())} " for p in data))
    for record in sorted((root / "book/_records").rglob("*.*")):
        if record.is_file() and {record.stem, record.name} & words:
            parts[record.relative_to(root).as_posix()] = digest(record.read_bytes())
    return dict(sorted(parts.items()))


# --- The two halves -------------------------------------------------------------------------------------------------------


def read_text_half(path):
    """Return the notebook that a chapter's .md describes; it has no outputs."""
    return jupytext.reads(path.read_text(encoding="utf-8"), "md:myst")


def written(cells, came_from):
    """Return the text of the .ipynb: these cells, ids that follow from their content, no metadata that could vary."""
    seen = Counter()
    for cell in cells:
        name = digest(f"{cell.cell_type} {cell.source}")[:8]
        seen[name] += 1
        cell["id"] = name if seen[name] == 1 else f"{name}-{seen[name]}"
    metadata = {"kernelspec": KERNELSPEC, "outputs": outputs_digest(cells), "outputs_from": came_from}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
    nbformat.validate(notebook)
    return nbformat.writes(notebook, version=nbformat.NO_CONVERT) + "\n"


def outputs_digest(cells):
    """Stands for all outputs together, so that one changed by hand or by another program is noticed."""
    return digest(json.dumps([cell.outputs for cell in cells if cell.cell_type == "code"], sort_keys=True))


def with_outputs(cells, executed):
    """Return `cells` with the outputs of the notebook `executed` from the same code; None if they do not fit."""
    new, old = ([cell for cell in half if cell.cell_type == "code"] for half in (cells, executed.cells))
    counts = [cell.execution_count for cell in old]
    if len(new) != len(old) or counts != [*range(1, len(old) + 1)] or [c.source for c in new[1:]] != [c.source for c in old[1:]]:
        return None
    if outputs_digest(old) != executed.metadata.get("outputs"):
        return None
    for cell, before in zip(new, old, strict=True):
        cell.outputs, cell.execution_count = before.outputs, before.execution_count
    return cells


def write_whole(path, text):
    """Write a file so that whoever reads it meanwhile sees the former one or the new one, never a part."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


# --- Checking: each rule yields (half, number of the cell or None, what is wrong, what to do) --------------------------------


def break_rules(stem, cells, address):
    """Yield where a chapter's text breaks the rules that all chapters share."""
    text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    number = int(re.match(r"(\d*)", stem)[1] or 0)
    if not re.match(r"\d\d_[a-z]", stem):
        yield ".md", None, "the file name has no chapter number", "call it NN_name.md, for example 05_name.md"
    elif not re.match(rf"# {number}\. \S", text):
        yield ".md", 1, "the chapter does not open with its number and title", f"begin with `# {number}. Title`"
    elif stamp.head_line(address, stem) not in text.splitlines():
        what = "the line under the title, with the links to the book and to Colab, is missing or leads elsewhere"
        yield ".md", 1, what, f"put `*Chapter {number} of [...*` there and run `python book/_tools/stamp.py`, which completes it"
    for heading in SECTIONS:
        if not re.search(rf"(?m)^{heading}\s*$", text):
            yield ".md", None, f"there is no section `{heading}`", "add it: every chapter ends with these sections"
    code = {k: cell for k, cell in enumerate(cells, 1) if cell.cell_type == "code"}
    for k, cell in list(code.items())[:1]:
        if cell.source != stamp.setup_cell(address) or cell.metadata.get("tags") != ["nbval-ignore-output"]:
            remedy = "copy it, with its tag nbval-ignore-output, from another chapter, then run `python book/_tools/stamp.py`"
            yield ".md", k, "the first code cell is not the setup cell that all chapters share", remedy
    sizes = {k: cell.source.count("\n") + bool(cell.source.strip()) for k, cell in code.items()}
    for k, size in sizes.items():
        if size > MOST_LINES:
            yield ".md", k, f"the cell has {size} lines", f"split it, or move code to the package: {MOST_LINES} lines at most"
        if size == 0:
            yield ".md", k, "the code cell is empty", "remove it"
    if code and (median := statistics.median(sizes.values())) > MEDIAN_LINES:
        yield ".md", None, f"the median code cell has {median:g} lines", f"shorten the cells: {MEDIAN_LINES} at most"
    for k, cell in enumerate(cells, 1):
        if cell.cell_type == "markdown":
            prose = re.sub(r"(?ms)^(`{3,}|~{3,})(?!\s*\{).*?^\1", "", cell.source)
            prose = re.sub(r"`[^`\n]+`", "``", re.sub(r"(?s)\$\$.*?\$\$|\$[^$`]+\$", "", prose))
            for what, pattern in RAW_MYST.items():
                if match := re.search(pattern, prose):
                    shown = match[0].strip()[:50]
                    yield ".md", k, f"the MyST {what} `{shown}` shows raw in Colab and on GitHub", "say it in plain Markdown"


def bad_outputs(cells):
    """Yield what is wrong with the outputs of a notebook's cells."""
    again = "correct the .md and run this chapter again"
    code = [(k, cell) for k, cell in enumerate(cells, 1) if cell.cell_type == "code"]
    for count, (k, cell) in enumerate(code, 1):
        if cell.execution_count != count:
            was = "was never executed" if cell.execution_count is None else f"was executed as number {cell.execution_count}"
            yield ".ipynb", k, f"code cell {count} {was}", "run this chapter: all its cells at once, from the top"
            break  # the cells after it are no news
    for k, cell in code:
        for output in cell.outputs:
            shown = output.get("text") or output.get("data", {}).get("text/plain", "")
            if output.output_type == "error":
                yield ".ipynb", k, f"the output is an error, {output.ename}: {output.evalue[:80]}", again
            elif output.get("name") == "stderr":
                yield ".ipynb", k, f"the cell wrote to stderr: {shown.strip()[-120:]!r}", f"remove the cause: {again}"
            elif match := re.search(OF_ONE_MACHINE, shown):
                what = f"the output names an object or a path of this one machine, {match[0][:60]!r}"
                yield ".ipynb", k, what, f"end a cell that plots in plt.show(), and print no paths: {again}"
        pictures = sum(any(kind.startswith("image/") for kind in output.get("data", {})) for output in cell.outputs)
        if pictures > 1:
            yield ".ipynb", k, f"the cell shows {pictures} pictures under one caption and name", f"one figure a cell: {again}"
        if pictures:
            about = cell.metadata.get("mystnb", {})
            figure = {"alt": about.get("image", {}).get("alt"), **about.get("figure", {})}
            if lacks := [key for key in ("caption", "name", "alt") if not str(figure.get(key) or "").strip()]:
                remedy = "at the head of the cell in the .md give `mystnb:` with `figure:` (caption, name) and `image:` (alt)"
                yield ".ipynb", k, f"the figure has no {', no '.join(lacks)}", remedy


def differences(cells, executed, text, came_from, run):
    """Yield where the .ipynb (`executed`, its file's `text`) is not what the `cells` of the .md and their code give."""
    either = f"{run}, or if the .ipynb is right: `jupytext --to md:myst` it"
    for k, (cell, other) in enumerate(zip(cells, executed.cells, strict=False), 1):
        keys = {key for key in {*cell.metadata, *other.metadata} if cell.metadata.get(key) != other.metadata.get(key)}
        if cell.cell_type != other.cell_type:
            yield ".ipynb", k, f"is {other.cell_type} here and {cell.cell_type} in the .md", either
        elif cell.source != other.source:
            yield ".ipynb", k, f"the {'text' if cell.cell_type == 'markdown' else 'code'} is not that of the .md", either
        elif keys:
            yield ".ipynb", k, f"the cell's metadata ({', '.join(sorted(keys))}) are not those of the .md", either
        else:
            continue
        break  # the cells after it are no news
    if len(cells) != len(executed.cells):
        yield ".ipynb", None, f"it has {len(executed.cells)} cells, the .md has {len(cells)}", either
    before = executed.metadata.get("outputs_from", {})
    if changed := [what for what in sorted({*before, *came_from}) if before.get(what) != came_from.get(what)]:
        yield ".ipynb", None, f"the outputs are stale, for since they were made these changed: {', '.join(changed)}", run
    elif executed.metadata.get("outputs") != outputs_digest(executed.cells):
        yield ".ipynb", None, "the outputs are not those that this tool wrote", run
    elif written([nbformat.from_dict(dict(cell)) for cell in executed.cells], came_from) != text:
        yield ".ipynb", None, "the file was saved by another program, which changes more than it must", run


def check_pair(stem, root=ROOT):
    """Return one chapter's problems, a line each, its notes, and the cells of its .md (none if it cannot be read)."""
    source, notebook = root / f"notebooks/{stem}.md", root / f"notebooks/{stem}.ipynb"
    run, cells, found = f"`python book/_tools/pairs.py run {stem}`", [], []
    try:
        if not source.exists():
            found.append((".ipynb", None, "there is no .md beside it", f"`jupytext --to md:myst notebooks/{stem}.ipynb`"))
        else:
            cells = read_text_half(source).cells
            found += break_rules(stem, cells, stamp.present_address(root))
            came_from = outputs_from(cells, root)
            if not notebook.exists():
                found.append((".md", None, "there is no .ipynb beside it", run))
    except SyntaxError as error:
        shown = f"{error.filename}: {error.msg}: {(error.text or '').strip()}"
        found.append((".md", None, f"its code, or a module it uses, does not parse ({shown})", "correct it"))
    except Exception as error:
        found.append((".md", None, f"it cannot be read ({error})", "correct the head of the file or of the cell"))
    else:
        if source.exists() and notebook.exists():
            text = notebook.read_text(encoding="utf-8")
            try:
                executed = nbformat.reads(text, as_version=4)
            except Exception as error:
                found.append((".ipynb", None, f"it cannot be read ({str(error)[:80]})", f"delete it and {run}"))
            else:
                found += [*differences(cells, executed, text, came_from, run), *bad_outputs(executed.cells)]
    lines, start = {}, 0
    for k, cell in enumerate(cells, 1):
        text = source.read_text(encoding="utf-8")
        start = max(text.find(cell.source, start), start)
        lines[k] = f"cell {k} (line {text.count(chr(10), 0, start) + 1} of the .md): "
    problems = [f"notebooks/{stem}{half}: {lines.get(k, f'cell {k}: ') if k else ''}{what}: {do}" for half, k, what, do in found]
    return problems, [f"notebooks/{stem}.md: {note}" for note in notes_on_prose(cells)], cells


def notes_on_prose(cells):
    """Yield one line if stretches of prose between two code cells are shorter or longer than they should be."""
    words, odd, first = 0, [], True
    for k, cell in enumerate(cells, 1):
        if cell.cell_type == "markdown":
            words += len(cell.source.split())
            continue
        if not first and not FEWEST_WORDS <= words <= MOST_WORDS:
            odd.append(f"{words} words before cell {k}")
        words, first = 0, False
    if odd:
        yield f"note: prose between code cells should have {FEWEST_WORDS} to {MOST_WORDS} words, but has {', '.join(odd)}"


def check(root=ROOT):
    """Return the problems and the notes of all chapters: each by itself, then what must be unique in the book."""
    problems, notes, names = [], [], {}
    for stem in stems(root):
        found, remarks, cells = check_pair(stem, root)
        problems, notes = problems + found, notes + remarks
        for k, cell in enumerate(cells, 1):
            name, here = cell.metadata.get("mystnb", {}).get("figure", {}).get("name"), f"notebooks/{stem}.md: cell {k}"
            if name and names.setdefault(name, here) != here:
                problems.append(f"{here}: the figure name {name} is that of {names[name]} too: give it another name")
    return problems, notes


def stems(root):
    """The chapters there are, by the name of either half."""
    return sorted({path.stem for ending in ("*.md", "*.ipynb") for path in (root / "notebooks").glob(ending)})


# --- Executing ------------------------------------------------------------------------------------------------------------


def kernel_environment(root, scratch):
    """What outputs are made in: this package, one thread, no bars, the embedded data, the CPU, no personal settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SIGREG_", "MPL", "PYTHONWARNINGS"))}
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    fixed = {"PYTHONPATH": str(root), "PYTHONHASHSEED": "0", "SIGREG_DEVICE": "cpu", "TQDM_DISABLE": "1"}
    return kept | one_thread | fixed | {"IPYTHONDIR": scratch, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}


def merged(outputs):
    """Return `outputs` with neighbouring pieces of one stream joined: where they were cut depends on the moment."""
    joined = []
    for output in outputs:
        if joined and output.output_type == "stream" == joined[-1].output_type and output.name == joined[-1].name:
            joined[-1]["text"] += output.text
        else:
            joined.append(output)
    return joined


def execute(stem, root=ROOT, force=False):
    """Bring one notebook up to date and return `(whether that succeeded, a report)`. A run that fails writes nothing."""
    path = root / f"notebooks/{stem}.ipynb"
    cells = read_text_half(path.with_suffix(".md")).cells
    came_from = outputs_from(cells, root)  # before the run, so that what is edited meanwhile counts as later
    if path.exists() and not force:
        executed = nbformat.read(path, as_version=4)
        if executed.metadata.get("outputs_from") == came_from and with_outputs(cells, executed):
            text = written(cells, came_from)
            if text == path.read_text(encoding="utf-8"):
                return True, f"{stem}: up to date"
            write_whole(path, text)
            return True, f"{stem}: the text is carried over; no code changed, so nothing was executed"

    from jupyter_client.kernelspec import KernelSpecManager  # here, because `check` has no need of them
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    started, report = {}, []

    def on_start(cell, cell_index):
        started[cell_index + 1] = time.perf_counter()

    def on_end(cell, cell_index, **_):
        seconds = time.perf_counter() - started[cell_index + 1]
        if seconds > SLOW_CELL:
            report.append(f"  cell {cell_index + 1} took {seconds:.0f} s: {cell.source.strip().splitlines()[0]}")

    client = NotebookClient(
        nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNELSPEC}),
        timeout=CELL_TIMEOUT, startup_timeout=CELL_TIMEOUT, record_timing=False, store_widget_state=False,
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
            report.append(f"{stem}: FAILED at cell {max(started)} of {len(cells)}; the notebook was not written\n{error}")
            return False, "\n".join(report)
    seconds = time.perf_counter() - begin
    for cell in cells:
        if cell.cell_type == "code":
            cell.outputs = merged(cell.outputs)
    write_whole(path, written(cells, came_from))
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    report.insert(0, f"{stem}: executed in {seconds:.0f} s, with at most {memory / 2**30:.1f} GB of memory")
    if seconds > SLOW_CHAPTER:
        report.append(f"  WARNING: that is over the {SLOW_CHAPTER} s that a chapter may take: make it smaller")
    return True, "\n".join(report)


def run(chosen, root=ROOT, force=False, jobs=1):
    """Bring chapters up to date, each in a process of its own, and say what is left to do; return whether all succeeded."""
    fine = True
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        futures = {pool.submit(execute, stem, root, force): stem for stem in chosen}
        for future in as_completed(futures):
            try:
                succeeded, report = future.result()
            except Exception as error:
                succeeded, report = False, f"{futures[future]}: FAILED: {type(error).__name__}: {error}"
            left = check_pair(futures[future], root)[0] if succeeded else []
            print("\n".join([report, *(f"  left to do: {problem}" for problem in left)]), flush=True)
            fine = fine and succeeded
    return fine


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository (default: the one this file is in)")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("check", help="list what is out of order, one thing a line; exit status 1 if there is anything")
    runner = actions.add_parser("run", help="bring notebooks up to date with their .md, executing what is stale")
    runner.add_argument("files", nargs="*", metavar="FILE", help="chapters: .md, .ipynb or bare name (default: all chapters)")
    runner.add_argument("--all", action="store_true", help="execute also what is up to date")
    runner.add_argument("--jobs", type=int, default=1, metavar="N", help="execute N chapters at once (default: 1)")
    options = parser.parse_args(arguments)
    root = options.root.resolve()
    if options.action == "check":
        problems, notes = check(root)
        print("\n".join([*notes, *problems] if problems else [*notes, f"{len(stems(root))} chapters: all in order"]))
        return bool(problems)
    chosen = [re.sub(r"\.(md|ipynb)$", "", Path(name).name) for name in options.files] or stems(root)
    for stem in chosen:
        if not (root / f"notebooks/{stem}.md").exists():
            parser.error(f"there is no notebooks/{stem}.md; the chapters are: {', '.join(stems(root)) or 'none yet'}")
    return not run(dict.fromkeys(chosen), root, options.all, options.jobs)


if __name__ == "__main__":
    sys.exit(main())
