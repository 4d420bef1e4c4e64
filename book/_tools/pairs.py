"""Keep the two halves of each chapter one thing: the text that people edit, and the executed notebook beside it.

`notebooks/NN_stem.md` (MyST) is the source. `notebooks/NN_stem.ipynb` is made from it by this tool: the same cells,
with outputs. Colab opens it, nbval compares it, the book shows it.

    python book/_tools/pairs.py check             is every chapter in order? (about a second; executes nothing)
    python book/_tools/pairs.py run               bring all notebooks up to date, executing those that are stale
    python book/_tools/pairs.py run FILE ...      bring only these up to date

Outputs are stale when a code cell has changed, or the results in a stored record that the chapter names, or the VERSION
of an experiment that it names. The code of the package does not count: nbval runs the chapters and is the judge of it.
After a change of text, captions or alt texts alone, `run` carries the change over and executes nothing (`run --all`
executes). Two runs of one text on one machine give the same bytes.
"""

import argparse
import json
import os
import re
import resource
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import jupytext
import nbformat
import stamp
from rules import code_problems, notes_on_prose, output_problems, text_problems
from sources import digest, files, outputs_from, record_problems

ROOT = Path(__file__).resolve().parents[2]
KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
SLOW_CELL, SLOW_CHAPTER, CELL_TIMEOUT = 5, 120, 900  # seconds


def stems(root):
    """Return the chapters there are, by the name of either half."""
    return sorted({path.stem for ending in ("*.md", "*.ipynb") for path in (root / "notebooks").glob(ending)})


def read_text_half(path):
    """Return the cells that a chapter's .md describes; they have no outputs."""
    return jupytext.reads(path.read_text(encoding="utf-8"), "md:myst").cells


def read_notebook(text):
    """Return the notebook that the text of an .ipynb describes; ValueError if it is not one."""
    try:
        notebook = nbformat.reads(text, as_version=4)
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        raise ValueError(error.message) from None
    return notebook


def written(cells, came_from):
    """Return the text of the .ipynb: these cells, ids that follow from their content, no metadata that could vary."""
    cells, seen = [nbformat.from_dict(dict(cell)) for cell in cells], Counter()
    for cell in cells:
        name = digest(f"{cell.cell_type} {cell.source}")[:8]
        seen[name] += 1
        cell["id"] = name if seen[name] == 1 else f"{name}-{seen[name]}"
    metadata = {"kernelspec": KERNELSPEC, "outputs": outputs_digest(cells), "outputs_from": came_from}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
    nbformat.validate(notebook)
    return nbformat.writes(notebook, version=nbformat.NO_CONVERT) + "\n"


def outputs_digest(cells):
    """Return what stands for all outputs together, so that one changed by hand or another program is noticed."""
    return digest(json.dumps([cell.outputs for cell in cells if cell.cell_type == "code"], sort_keys=True))


# --- Checking -------------------------------------------------------------------------------------------------------


def check(root=ROOT):
    """Return the problems and the notes of all chapters: each by itself, then what only the whole book shows.

    That is: figure names are unique, the table of contents has every chapter, the stored records can be read.
    """
    problems, notes, names = [*record_problems(root), *left_out(root)], [], {}
    for stem in stems(root):
        found, remarks, cells = check_pair(stem, root)
        problems, notes = problems + found, notes + remarks
        for k, cell in enumerate(cells, 1):
            name = cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
            here = f"notebooks/{stem}.md: cell {k}"
            if name and names.setdefault(name, here) != here:
                problems.append(f"{here}: the figure name {name} is taken by {names[name]}: choose another")
    return problems, notes


def left_out(root):
    """Yield the chapters that the table of contents has not: the book would be built without them, and say nothing."""
    contents = root / "_toc.yml"
    text = contents.read_text(encoding="utf-8") if contents.exists() else "".join(stems(root))
    for stem in stems(root):
        if stem not in text:
            yield f"_toc.yml: the book leaves {stem} out: add `- file: notebooks/{stem}.ipynb` there"


def check_pair(stem, root=ROOT):
    """Return one chapter's problems and notes, a line each, and the cells of its .md (none if it cannot be read)."""
    text_half, notebook = root / f"notebooks/{stem}.md", root / f"notebooks/{stem}.ipynb"
    run = f"`python book/_tools/pairs.py run {stem}`"
    if not text_half.exists():
        remedy = f"if it is a chapter, `jupytext --to md:myst notebooks/{stem}.ipynb`; if not, remove it"
        return [f"notebooks/{stem}.ipynb: there is no .md beside it: {remedy}"], [], []
    try:
        cells = read_text_half(text_half)
    except Exception as error:
        return [f"notebooks/{stem}.md: it cannot be read ({error}): correct the head of the file or cell"], [], []
    lines = line_numbers(text_half.read_text(encoding="utf-8"), cells)

    def report(half, found):
        for k, what, remedy in found:
            where = f"cell {k} (line {lines[k]} of the .md): " if k in lines else f"cell {k}: " if k else ""
            yield f"notebooks/{stem}{half}: {where}{what}: {remedy}"

    address = stamp.present_address(root)
    problems = [*report(".md", text_problems(stem, cells, address)), *report(".md", code_problems(cells, address))]
    notes = [f"notebooks/{stem}.md: {note}" for note in notes_on_prose(cells)]
    if not notebook.exists():
        return [*problems, *report(".md", [(None, "there is no .ipynb beside it", run)])], notes, cells
    try:
        came_from = outputs_from(cells, root)
        executed = read_notebook(notebook.read_text(encoding="utf-8"))
    except SyntaxError as error:
        shown = f"{error.msg}: {(error.text or '').strip()!r}"
        problems += report(".md", [(None, f"its code is not Python ({shown})", "correct it")])
    except ValueError as error:
        problems += report(".ipynb", [(None, f"it cannot be read ({str(error)[:80]})", run)])
    else:
        problems += report(".ipynb", differences(cells, executed, came_from, run))
        problems += report(".ipynb", output_problems(executed.cells))
        if not problems and written(executed.cells, came_from) != notebook.read_text(encoding="utf-8"):
            problems += report(".ipynb", [(None, "another program saved it, with changes to its metadata", run)])
    return problems, notes, cells


def line_numbers(text, cells):
    """Return the line of the .md at which each cell begins, by the cell's number."""
    lines, end = {}, 0
    for k, cell in enumerate(cells, 1):
        start = max(text.find(cell.source, end), end)
        lines[k], end = text.count("\n", 0, start) + 1, start + len(cell.source)
    return lines


def differences(cells, executed, came_from, run):
    """Yield where the notebook `executed` is not what the `cells` of the .md, run now, would give."""
    either = f"{run}; or, if the .ipynb is right, `jupytext --to md:myst` it"
    for k, (cell, other) in enumerate(zip(cells, executed.cells, strict=False), 1):
        keys = {key for key in {*cell.metadata, *other.metadata} if cell.metadata.get(key) != other.metadata.get(key)}
        if cell.cell_type != other.cell_type:
            yield k, f"it is {other.cell_type} here and {cell.cell_type} in the .md", either
        elif cell.source != other.source:
            yield k, f"its {'text' if cell.cell_type == 'markdown' else 'code'} is not that of the .md", either
        elif keys:
            yield k, f"its metadata ({', '.join(sorted(keys))}) are not those of the .md", either
        else:
            continue
        break  # the cells after it are no news
    if len(cells) != len(executed.cells):
        yield None, f"it has {len(executed.cells)} cells, the .md has {len(cells)}", either
    before = executed.metadata.get("outputs_from", {})
    if changed := [what for what in sorted({*before, *came_from}) if before.get(what) != came_from.get(what)]:
        yield None, f"the outputs are stale, for since they were made there changed {', '.join(changed)}", run
    elif executed.metadata.get("outputs") != outputs_digest(executed.cells):
        yield None, "the outputs are not those that were written here", run


# --- Executing ------------------------------------------------------------------------------------------------------


def run(chosen, root=ROOT, force=False, jobs=1):
    """Bring chapters up to date, each in a process of its own; say what is left to do; return whether all succeeded."""
    fine = True
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        futures = {pool.submit(bring_up_to_date, stem, root, force): stem for stem in chosen}
        for future in as_completed(futures):
            try:
                succeeded, report = future.result()
            except Exception as error:
                succeeded, report = False, f"{futures[future]}: FAILED: {type(error).__name__}: {error}"
            left = check_pair(futures[future], root)[0] if succeeded else []
            print("\n".join([report, *(f"  left to do: {problem}" for problem in left)]), flush=True)
            fine = fine and succeeded
    return fine


def bring_up_to_date(stem, root=ROOT, force=False):
    """Bring one notebook up to date; return `(whether that succeeded, report)`. A run that fails writes nothing."""
    path = root / f"notebooks/{stem}.ipynb"
    cells = read_text_half(path.with_suffix(".md"))
    came_from = outputs_from(cells, root)  # before the run, so that what is edited meanwhile counts as later
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    if not force and still_valid(before, cells, came_from):
        text, report = written(cells, came_from), [f"{stem}: the text is carried over; no code changed"]
        if text == before:
            return True, f"{stem}: up to date"
    else:
        succeeded, report = execute(stem, cells, root)
        if not succeeded:
            return False, "\n".join(report)
        text = written(cells, came_from)
    files.write_whole(path, text)
    return True, "\n".join(report)


def still_valid(before, cells, came_from):
    """If the notebook text `before` holds outputs of this very code, give them to `cells`; return whether it does."""
    try:
        executed = read_notebook(before)
    except ValueError:
        return False
    new, old = ([cell for cell in half if cell.cell_type == "code"] for half in (cells, executed.cells))
    in_order = [cell.execution_count for cell in old] == [*range(1, len(new) + 1)]
    untouched = executed.metadata.get("outputs") == outputs_digest(old)
    if not (in_order and untouched and executed.metadata.get("outputs_from") == came_from):
        return False
    for cell, other in zip(new, old, strict=True):
        cell.outputs, cell.execution_count = other.outputs, other.execution_count
    return True


def execute(stem, cells, root):
    """Execute `cells`, which receive their outputs, in a fresh kernel; return `(whether that succeeded, report)`."""
    from jupyter_client.kernelspec import KernelSpecManager  # here, because checking has no need of them
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    started, report = {}, []
    lines = line_numbers((root / f"notebooks/{stem}.md").read_text(encoding="utf-8"), cells)

    def on_start(cell, cell_index):
        started[cell_index + 1] = time.perf_counter()

    def on_end(cell, cell_index, **_):
        seconds = time.perf_counter() - started[cell_index + 1]
        if seconds > SLOW_CELL:
            report.append(f"  cell {cell_index + 1} (line {lines[cell_index + 1]} of the .md) took {seconds:.0f} s")

    client = NotebookClient(
        nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNELSPEC}),
        timeout=CELL_TIMEOUT,
        iopub_timeout=CELL_TIMEOUT,  # or a busy machine loses what a cell has shown
        startup_timeout=CELL_TIMEOUT,
        record_timing=False,
        store_widget_state=False,
        resources={"metadata": {"path": str(root / "notebooks")}},
        on_cell_start=on_start,
        on_cell_executed=on_end,
    )
    kernel = client.create_kernel_manager()
    # No registered kernels: "python3" is then the interpreter that runs this tool, whatever else is installed.
    kernel.kernel_spec_manager = KernelSpecManager(kernel_dirs=[])
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        kernel.transport, kernel.ip, kernel.connection_file = "ipc", f"{scratch}/socket", f"{scratch}/kernel.json"
        try:
            client.execute(env=kernel_environment(root, scratch))
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            where = f"cell {max(started)} (line {lines[max(started)]} of the .md)" if started else "the start"
            report.append(f"{stem}: FAILED at {where}; no notebook was written\n{error}")
            return False, report
    seconds = time.perf_counter() - begin
    for cell in cells:
        if cell.cell_type == "code":
            cell.outputs = merged(cell.outputs)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    work, memory = used.ru_utime + used.ru_stime, used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    size = f"{work:.0f} s of processor time and {memory / 2**30:.1f} GB of memory"
    report.insert(0, f"{stem}: executed in {seconds:.0f} s, with {size}")
    if min(seconds, work) > SLOW_CHAPTER:  # a busy machine is not the chapter's fault
        report.append(f"  WARNING: that is over the {SLOW_CHAPTER} s that a chapter may take: make it smaller")
    return True, report


def kernel_environment(root, scratch):
    """Return what outputs are made in: this package, one thread, no bars, embedded data, the CPU, nothing personal."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SIGREG_", "MPL", "PYTHONWARNINGS"))}
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    fixed = {"PYTHONPATH": str(root), "PYTHONHASHSEED": "0", "SIGREG_DEVICE": "cpu", "TQDM_DISABLE": "1"}
    return kept | one_thread | fixed | {"IPYTHONDIR": scratch, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}


def merged(outputs):
    """Return `outputs` with neighbouring pieces of one stream joined: where they were cut depends on the moment."""
    joined = []
    for output in outputs:
        if output.output_type == "stream" and joined and joined[-1].get("name") == output.name:
            joined[-1]["text"] += output.text
        else:
            joined.append(output)
    return joined


# --- The command line -----------------------------------------------------------------------------------------------


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository (default: the one this file is in)")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("check", help="list what is out of order, one thing a line; exit status 1 if there is anything")
    runner = actions.add_parser("run", help="bring notebooks up to date with their .md, executing what is stale")
    runner.add_argument("files", nargs="*", metavar="FILE", help=".md, .ipynb or bare name (default: all chapters)")
    runner.add_argument("--all", action="store_true", help="execute also what is up to date")
    runner.add_argument("--jobs", type=int, default=1, metavar="N", help="execute N chapters at once (default: 1)")
    options = parser.parse_args(arguments)
    root = options.root.resolve()
    if options.action == "check":
        problems, notes = check(root)
        print(*notes, *problems, f"chapters: {len(stems(root))}, problems: {len(problems)}", sep="\n")
        return bool(problems)
    chosen = [re.sub(r"\.(md|ipynb)$", "", Path(name).name) for name in options.files] or stems(root)
    for stem in chosen:
        if not (root / f"notebooks/{stem}.md").exists():
            parser.error(f"there is no notebooks/{stem}.md; the chapters are: {', '.join(stems(root)) or 'none yet'}")
    try:
        return not run(dict.fromkeys(chosen), root, options.all, options.jobs)
    except KeyboardInterrupt:
        return "interrupted: notebooks that were not finished are as they were"


if __name__ == "__main__":
    sys.exit(main())
