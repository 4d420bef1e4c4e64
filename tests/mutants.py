"""Plant faults in the package, one at a time, and see whether the tests that should notice do: `make mutants`.

A fault changes one node of a formula: a sign, a factor, a comparison, a reduction, a condition, a flag; or it leaves
out a check. A module's sites are taken in the order of a digest, so that the choice does not move with other lines;
some faults that once went unnoticed are written by hand. Each lives in a forked process, which sees the changed module
in place of the file: nothing on disk changes. The function's doctest runs, then the tests that name it or a caller of
it, until one fails. In the end those that failed run once more in the same way without a fault, and must pass.

    python tests/mutants.py                     all of them, about an hour on an idle core
    python tests/mutants.py joint fit           only modules whose path holds one of these words
    python tests/mutants.py --within 200        stop after so many seconds; the same command goes on from there
    python tests/mutants.py --list              what would be planted

Verdicts are kept in _build/mutants.jsonl: what was noticed is not planted again while its module stays as it is.
Exit status 1 if a survivor has no reason below, or more than one in twenty survives.
"""

import argparse
import ast
import contextlib
import copy
import hashlib
import importlib.util
import json
import os
import re
import resource
import signal
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # or `sigreg` would be the folder of that name beside this file
KEPT = ROOT / "_build" / "mutants.jsonl"
SHARE, SECONDS, MOST = 1 / 20, 120, 20  # survivors allowed; processor time and tests for one fault

TARGETS = {  # module: faults
    "_validate": 2, "_kummer": 2, "_distributed": 2, "_per_view": 1, "_slice_free": 2, "_sliced": 3,
    "_bottleneck_solver": 3, "rate_distortion": 4, "transform_chain": 6, "conditional_bottleneck": 9,
    "gaussian_regularization": 6, "joint_embedding": 9, "evaluation": 5, "self_supervised": 3, "semi_supervised": 5,
    "vicreg_information": 7, "information_maximization": 5, "lab/views": 3, "lab/batches": 3, "lab/objectives": 4,
    "lab/models": 3, "lab/dynamics": 4, "lab/stack": 2, "lab/fit": 2, "lab/files": 1, "lab/records": 3,
    "lab/reading": 3, "lab/verdicts": 5, "lab/reproduce": 4, "lab/data": 2, "lab/notebook": 1, "lab/pretrained": 1,
    "lab/experiments/conditional_bottleneck": 2, "lab/experiments/vicreg_information": 2,
    "lab/experiments/gaussian_regularization_power": 2,
}  # fmt: skip
BY_HAND = [  # module, function, text in it, what stands there instead
    ("lab/objectives", "lejepa_objective", "step_generator(seed, step)", "step_generator(0, step)"),
    ("lab/objectives", "semi_supervised_objective", "step_generator(seed, step)", "step_generator(0, step)"),
    ("vicreg_information", "infonce_information", "value(a[half:], b[half:], best)", "value(a[:half], b[:half], best)"),
    ("vicreg_information", "infonce_information", "centre = z_a.mean(0)", "centre = 0 * z_a.mean(0)"),
    ("vicreg_information", "probe_terms", "z = z - centre", "z = z - 0 * centre"),
    ("lab/reproduce", "_gather", 'record["provenance"]["runs"] + runs', "runs"),
    ("lab/reproduce", "_gather", 'runs += [line["run"] for line in lines[1:] if "run" in line]', "pass"),
    ("lab/files", "changed_files", "found != digest", "found is None"),
    ("lab/experiments/vicreg_information", "evaluate_codes", "measured_error(z,", "measured_error(0 * z,"),
]
REASONS = {  # survivor, as printed: why no test can tell it from the right program
    "sigreg/_kummer.py _log_kummer_at: 14 * math.sqrt(u) -> 15 * math.sqrt(u)": "the series has ended before",
    "sigreg/_bottleneck_solver.py reweigh: w[keep] / w[keep].sum() -> w[keep] * w[keep].sum()": "the best weights sum to one",  # noqa: E501
    "sigreg/rate_distortion.py squared_information_bottleneck: pace * 1.1 -> pace * 2.1": "too bold a pace is cut back",
    "sigreg/transform_chain.py orthant_to_simplex: e.detach -> e.clone": "a constant that cancels has no gradient",
}

SWAPS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Lt: ast.GtE, ast.LtE: ast.Gt,
    ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
CALLS = {"mean": "sum", "min": "max", "sqrt": "square", "log": "exp", "cos": "sin", "argmax": "argmin"}
CALLS |= {new: old for old, new in CALLS.items()} | {"detach": "clone", "logsumexp": "amax"}


QUIET = ("decorator_list", "annotation", "returns")


def changes(node):
    """The faults of this node: what is replaced, and by what."""

    def put(**parts):
        new = copy.copy(node)
        new.__dict__.update(parts)
        return node, ast.unparse(new)

    if isinstance(node, ast.BinOp) and type(node.op) in SWAPS:
        yield put(op=SWAPS[type(node.op)]())
        for side in ("left", "right"):
            if number(part := getattr(node, side)):
                yield put(**{side: ast.Constant(part.value + 1)})
    elif isinstance(node, ast.BoolOp):
        yield put(op=SWAPS[type(node.op)]())
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        yield put(ops=[SWAPS[type(node.ops[0])](), *node.ops[1:]])
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield put(value=not node.value)
    elif isinstance(node, ast.Attribute) and node.attr in CALLS:
        yield put(attr=CALLS[node.attr])
    elif isinstance(node, ast.If) and isinstance(node.body[0], ast.Raise):
        yield node.test, "False"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and not number(node.operand):
        yield put(op=ast.UAdd())


def number(node):
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)


def walk(node):
    """The nodes below, without messages, docstrings, decorators, annotations and defaults: they change no number."""
    yield node
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            sides = (child.left, child.right) if isinstance(child, ast.BinOp) else ()
            text = any(isinstance(side, ast.JoinedStr | ast.Constant) and not number(side) for side in sides)
            quiet = text or name in QUIET or isinstance(child, ast.Raise | ast.JoinedStr | ast.arguments)
            quiet = quiet or (isinstance(child, ast.keyword) and child.arg == "strict")
            if isinstance(child, ast.AST) and not quiet:
                yield from walk(child)


def replaced(source, node, text):
    """The source with the text of one expression changed."""
    lines = source.encode().splitlines(keepends=True)
    ends = [sum(map(len, lines[: line - 1])) + c for line, c in
            ((node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset))]  # fmt: skip
    return (source.encode()[: ends[0]] + f"({text})".encode() + source.encode()[ends[1] :]).decode()


def planted():
    """The faults to plant: `(path, function, before, after, changed source)`."""
    for module, count in TARGETS.items():
        path = ROOT / "sigreg" / f"{module}.py"
        source = path.read_text(encoding="utf-8")
        for function, old, new in (fault[1:] for fault in BY_HAND if fault[0] == module):
            place = source.index(old, source.index(f"\ndef {function}("))
            yield path, function, old, new, source[:place] + new + source[place + len(old) :]
        found = []
        for top in ast.parse(source).body:
            if isinstance(top, ast.FunctionDef | ast.ClassDef):
                pairs = ((ast.unparse(old), old, new) for node in walk(top) for old, new in changes(node))
                found += {(old, new): (top.name, old, new, node) for old, node, new in pairs}.values()
        found.sort(key=lambda fault: hashlib.sha256("|".join(fault[:3]).encode()).hexdigest())
        for function, old, new, node in found[:count]:
            yield path, function, old, new, replaced(source, node, new)


@cache
def definitions(folder, pattern):
    """`(file, name, words in it, has a doctest)` of all that stands at the top of the files of a folder."""
    found = []
    for path in sorted((ROOT / folder).rglob(pattern)):
        lines = path.read_text(encoding="utf-8").splitlines()
        for node in ast.parse("\n".join(lines)).body:
            above = [part.lineno for part in getattr(node, "decorator_list", [])]
            text = "\n".join(lines[min([node.lineno, *above]) - 1 : node.end_lineno])
            for name in [getattr(node, "name", ""), *map(ast.unparse, getattr(node, "targets", []))]:
                found.append((path.relative_to(ROOT).as_posix(), name, {*re.findall(r"\w+", text)}, ">>>" in text))
    return found


@cache
def tests_of(path, function):
    """The function's doctest and the tests that should notice a fault: those that name it or a caller, and its file."""
    every = definitions("sigreg", "*.py") + definitions("tests", "*.py")
    names, above, found = set(), {function}, []
    while names != above and len(found) < MOST:
        names = above
        found = [test for test in every if test[1].startswith("test_") and test[2] & names]
        above = names | {name for _, name, used, _ in every if name and used & names}
    stem = path.stem.lstrip("_")
    found += [test for test in every if test[1].startswith("test_") and stem in test[0] and test not in found]
    slow = {"subprocess", "spawn", "Popen"}
    found = [test for test in found if "compile" not in test[2]]  # the compiler does not survive a fork
    found.sort(key=lambda t: (bool(t[2] & slow), stem not in t[0], function not in t[2], not t[2] & names))
    file = path.relative_to(ROOT).as_posix()
    module = file.removesuffix(".py").replace("/", ".")
    has = any((file, function, True) == (*where, doctest) for *where, _, doctest in every)
    return [f"{file}::{module}.{function}"] * has + [f"{place}::{name}" for place, name, *_ in found[:MOST]]


class Planted(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds one module before all others do, and executes the changed source in its place."""

    def __init__(self, path, source):
        self.path, self.source = path, source
        self.name = ".".join(path.relative_to(ROOT).with_suffix("").parts)

    def find_spec(self, name, path=None, target=None):
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def exec_module(self, module):
        exec(compile(self.source, str(self.path), "exec"), module.__dict__)


class First:
    """Writes down the first test that fails."""

    def __init__(self, file):
        self.file = file

    def pytest_runtest_logreport(self, report):
        if report.failed and not self.file.tell():
            self.file.write(report.nodeid)

    def pytest_collectreport(self, report):
        if report.failed and not self.file.tell():
            self.file.write(report.nodeid)


def noticed_by(path, changed, tests):
    """The first test that fails where `changed` stands in place of `path`; empty if none does."""
    with tempfile.NamedTemporaryFile("w+") as file:
        if (child := os.fork()) == 0:
            os.setsid()
            for stream in (0, 1, 2):  # processes that tests start must not keep the caller's pipe open
                os.dup2(os.open(os.devnull, os.O_RDWR), stream)
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            sys.meta_path.insert(0, Planted(path, changed))
            options = ["-x", "-q", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not cuda"]
            status, stem = 0, path.stem.lstrip("_")
            near = [test for test in tests if stem in test.partition("::")[0]]
            for some in (near, [test for test in tests if test not in near]):  # to collect the rest takes seconds
                status = status or (some and pytest.main([*options, *some], plugins=[First(file)]))
            file.flush()
            os._exit(status or 0)
        _, status = os.waitpid(child, 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        if os.WIFSIGNALED(status):
            return f"signal {os.WTERMSIG(status)}"
        return Path(file.name).read_text() or ("" if os.WEXITSTATUS(status) == 0 else f"exit {os.WEXITSTATUS(status)}")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only modules whose path holds one of these")
    parser.add_argument("--within", type=float, default=float("inf"), metavar="SECONDS", help="start nothing later")
    parser.add_argument("--list", action="store_true", help="show what would be planted, and plant nothing")
    options = parser.parse_args(arguments)
    start = time.monotonic()
    chosen = [f for f in planted() if not options.words or any(w in str(f[0].relative_to(ROOT)) for w in options.words)]
    KEPT.parent.mkdir(exist_ok=True)
    kept = dict(map(json.loads, KEPT.read_text().splitlines())) if KEPT.is_file() else {}
    if not options.list:  # before the forks, so that each starts at once
        for name in ("torch", "torchvision", "scipy.stats", "sklearn.metrics", "pandas", "matplotlib.pyplot"):
            importlib.import_module(name)
    found = {}
    for path, function, before, after, changed in chosen:
        name = f"{path.relative_to(ROOT)} {function}: {before} -> {after}"
        key = f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
        if options.list:
            print(f"{name}   [{len(tests_of(path, function))} tests]")
            continue
        if not kept.get(key):
            if time.monotonic() - start > options.within:
                print(f"{len(found)} of {len(chosen)} done; the same command goes on")
                return 0
            began = time.monotonic()
            kept[key] = noticed_by(path, changed, tests_of(path, function))
            print(f"{time.monotonic() - began:4.0f} s  {name}\n        {kept[key] or 'SURVIVES'}", flush=True)
            with KEPT.open("a") as file:
                file.write(json.dumps([key, kept[key]]) + "\n")
        found[name] = kept[key]
    if options.list:
        print(f"{len(chosen)} faults")
        return 0
    survivors = [name for name, test in found.items() if not test]
    for name in survivors:
        print(f"survives: {name}\n    {REASONS.get(name, 'no reason is known: write a test')}")
    unsound = 0
    for path in dict.fromkeys(fault[0] for fault in chosen):  # the tests that noticed, now without a fault
        mine = [test for name, test in found.items() if name.startswith(f"{path.relative_to(ROOT)} ") and "::" in test]
        tests = sorted({test.partition("[")[0] for test in mine})
        if tests and (test := noticed_by(path, path.read_text(encoding="utf-8"), tests)):
            print(f"fails without a fault too: {test}")
            unsound += 1
    print(f"{len(found)} faults planted, {len(survivors)} survive")
    return int(unsound or any(name not in REASONS for name in survivors) or len(survivors) > SHARE * len(found))


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
