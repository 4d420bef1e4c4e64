"""Plant faults in chapters, one at a time, and see whether the check that should notice turns red.

`book/faults.yml` lists the faults: for a check (an `assert`, by a piece of its line) a fault in plain words, and the
text to replace, in a function of the package or in a cell of the chapter (the last one at or before the check that
holds it). A chapter's cells run once; where a fault begins the process forks, and the child runs with the fault from
there to the check. The fault counts as noticed only if that check fails, and not if anything else goes wrong before.

    python book/_tools/faults.py run               all chapters (minutes each: they are executed), writes book/faults.md
    python book/_tools/faults.py run 02 05         only chapters whose name begins so; the others keep their rows
    python book/_tools/faults.py check             does every check have its fault, and every fault its row? (a second)

Cells that no checked cell needs are left out, so figures cost nothing. Exit status 1 if a fault is not noticed.
"""

import argparse
import ast
import importlib
import inspect
import os
import re
import sys
from pathlib import Path

import jupytext
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHECK = re.compile(r"^\s*(?:assert |torch\.testing\.assert_close\()")
HEAD = """# Faults that the checks notice

A check that cannot fail proves nothing. For the checks of the chapters, this page lists a fault that was planted, in
the package or in the chapter's own code, and what happened to the check. *red*: exactly this check failed.
The page is made by `python book/_tools/faults.py run`; the faults stand in `book/faults.yml`.
"""


def cells_of(root, stem):
    """Return the sources of a chapter's code cells."""
    text = (root / f"notebooks/{stem}.md").read_text(encoding="utf-8")
    code = [cell.source for cell in jupytext.reads(text, "md:myst").cells if cell.cell_type == "code"]
    return [re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.M) for source in code]


def checks_of(cells):
    """Yield (cell, line, text) of every assert and every assert_close."""
    for k, source in enumerate(cells):
        for number, line in enumerate(source.splitlines(), 1):
            if CHECK.match(line):
                yield k, number, line.split("  #")[0].strip()


def place(cells, fault):
    """Return (first cell, cell of the check, its line); ValueError if the fault does not fit the chapter."""
    hits = [(k, number) for k, number, text in checks_of(cells) if fault["check"] in text]
    if len(hits) != 1:
        raise ValueError(f"{len(hits)} checks hold {fault['check']!r}: give a piece of exactly one")
    (k, number), begin = hits[0], hits[0][0]
    anchor = fault.get("since") or ("" if "in" in fault else fault["old"])
    if anchor:
        begin = max((c for c in range(k + 1) if anchor in cells[c]), default=None)
        if begin is None:
            raise ValueError(f"no cell up to that of {fault['check']!r} holds {anchor!r}")
    return begin, k, number


def touched(source):
    """Return the names that a cell reads and those that it binds or changes."""
    reads, binds = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            (reads if isinstance(node.ctx, ast.Load) else binds).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            binds.add(node.name)
        elif isinstance(node, ast.alias):
            binds.add((node.asname or node.name).split(".")[0])
        target = node.target if isinstance(node, ast.AugAssign) else None
        if isinstance(node, ast.Assign):
            target = node.targets[0]
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            target = node.value.func  # x.append(...) changes x
        while isinstance(target, ast.Attribute | ast.Subscript):
            target = target.value
        if isinstance(target, ast.Name):
            binds.add(target.id)
    return reads, binds


def needed(cells, wanted):
    """Return which cells the wanted ones rest on, themselves among them."""
    keep, names = set(), set()
    for k in range(max(wanted), -1, -1):
        reads, binds = touched(cells[k])
        if k in wanted or binds & names:
            keep.add(k)
            names |= reads
    return keep


def execute(k, source, space):
    exec(compile(source, f"<cell {k}>", "exec"), space)


def break_function(dotted, old, new, space):
    """Put a changed copy in the place of a function of the package, wherever it has been imported."""
    module, name = dotted.rsplit(".", 1)
    module = importlib.import_module(module)
    was = getattr(module, name)
    exec(compile(replaced(inspect.getsource(was), old, new, dotted), inspect.getfile(was), "exec"), vars(module))
    for names in [space, *(vars(m) for key, m in list(sys.modules.items()) if key.startswith("sigreg") and m)]:
        for key in [key for key, value in names.items() if value is was]:
            names[key] = getattr(module, name)


def replaced(text, old, new, where):
    if old not in text:
        raise ValueError(f"{where} does not hold {old!r}")
    return text.replace(old, new)


def outcome(cells, keep, fault, where, space):
    """Return what a fault does, in words; runs in a child process."""
    begin, k, number = where
    cells = list(cells)
    try:
        if "in" in fault:
            break_function(fault["in"], fault["old"], fault["new"], space)
        else:
            cells[begin] = replaced(cells[begin], fault["old"], fault["new"], "the cell")
        for c in range(begin, k + 1):
            if c in keep:
                execute(c, cells[c], space)
    except AssertionError as error:
        frames = [(f.filename, f.lineno) for f in inspect.getinnerframes(error.__traceback__)]
        for filename, line in frames:
            if filename == f"<cell {k}>":
                return "red" if line == number else f"red, but in line {line} of its cell"
        return "another check failed"
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return "**not noticed**"


def run_chapter(root, stem, faults):
    """Return the outcome of each fault of a chapter, in order."""
    import matplotlib
    import torch

    matplotlib.use("agg")
    torch.set_num_threads(1)  # a fork does not survive other threads
    cells = cells_of(root, stem)
    places = [place(cells, fault) for fault in faults]
    keep, space, outcomes = needed(cells, {k for _, k, _ in places}), {"__name__": "__main__"}, [None] * len(faults)
    for c in range(max(keep) + 1):
        for i, where in enumerate(places):
            if where[0] == c:
                outcomes[i] = forked(lambda i=i, where=where: outcome(cells, keep, faults[i], where, space))
                print(f"{stem}: {faults[i]['check']}: {outcomes[i]}", file=sys.stderr, flush=True)
        if c in keep:
            with quiet():
                execute(c, cells[c], space)  # and without a fault every check passes, or this raises
    return outcomes


class quiet:
    """What cells print is not wanted here."""

    def __enter__(self):
        self.out, sys.stdout = sys.stdout, open(os.devnull, "w")

    def __exit__(self, *_):
        sys.stdout.close()
        sys.stdout = self.out


def forked(function):
    """Return what a function returns in a child process, as text."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        with quiet():
            os.write(theirs, function().encode()[:4000])
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer or "the process died"


def row(fault, result):
    where = f"`{fault['in']}`" if "in" in fault else "the chapter's cell"
    return f"| `{fault['check'].replace('|', chr(92) + '|')}` | {fault['fault']} | {where} | {result} |"


def section(stem, faults, outcomes, missing):
    table = ["| check | planted fault | where | outcome |", "|---|---|---|---|", *map(row, faults, outcomes)]
    rest = [f"No fault is planted yet for {len(missing)} more: " + "; ".join(f"`{text}`" for text in missing) + "."]
    return "\n".join([f"## {stem}", "", *table, *(["", *rest] if missing else [])]) + "\n"


def uncovered(cells, faults):
    return [text for _, _, text in checks_of(cells) if not any(fault["check"] in text for fault in faults)]


def sections(root):
    """Return the page's sections by chapter, as they stand."""
    page = root / "book/faults.md"
    parts = re.split(r"^## ", page.read_text(encoding="utf-8") if page.exists() else "", flags=re.M)[1:]
    return {part.split("\n", 1)[0]: "## " + part.rstrip() + "\n" for part in parts}


def problems(root=ROOT):
    """Return what is wrong with the page: faults without a row, rows without a fault, outcomes that are not red."""
    listed, page, found = yaml.safe_load((root / "book/faults.yml").read_text(encoding="utf-8")), sections(root), []
    for stem, faults in listed.items():
        cells, there = cells_of(root, stem), page.get(stem, "")
        for fault in faults:
            try:
                place(cells, fault)
            except ValueError as error:
                found.append(f"book/faults.yml: {stem}: {error}")
            if row(fault, "red") not in there:
                remedy = f"`python book/_tools/faults.py run {stem}`"
                found.append(f"book/faults.md: {stem}: {fault['check']!r} has no red row: {remedy}")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "check"))
    parser.add_argument("chapters", nargs="*")
    arguments = parser.parse_args()
    if arguments.what == "check":
        found = problems()
        print("\n".join(found) or "Every planted fault has its red row.")
        return bool(found)
    listed, page, green = yaml.safe_load((ROOT / "book/faults.yml").read_text(encoding="utf-8")), sections(ROOT), 0
    for stem, faults in listed.items():
        if arguments.chapters and not any(stem.startswith(start) for start in arguments.chapters):
            continue
        outcomes = run_chapter(ROOT, stem, faults)
        green += sum(result != "red" for result in outcomes)
        page[stem] = section(stem, faults, outcomes, uncovered(cells_of(ROOT, stem), faults))
        text = HEAD + "".join("\n" + page[key] for key in sorted(page))
        (ROOT / "book/faults.md").write_text(text, encoding="utf-8")
    return bool(green)


if __name__ == "__main__":
    sys.exit(main())
