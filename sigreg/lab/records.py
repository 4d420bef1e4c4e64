"""Stored results: one small JSON file for each experiment, with all that is needed to judge or repeat it.

A record is a plain dictionary::

    {"name": "power",
     "description": "first line of the experiment's docstring",
     "provenance": {"preset": "full", "seeds": 4, "code": "9f2c…", "sources": [...], "wall_seconds": 611.2,
                    "runs": [{"commit": …, "dirty": …, "versions": {…}, "device": …, "date": …}]},
     "units": [{"unit": {"D": 8, "N": 256, "seed": 0}, "result": {…}, "seconds": 1.3}, …]}

``python -m sigreg.lab.reproduce`` writes records; chapters read them with :func:`load_record` and say with
:func:`describe` which run they show. They lie in ``book/_records`` and travel inside the installed package.
"""

import ast
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import torch

from sigreg.lab._code import code_only

PACKAGE = Path(__file__).resolve().parents[1]


# ---------------------------------------------------------------- where records live


def record_folders() -> list[Path]:
    """Where records are searched: ``$SIGREG_RECORDS``, the checkout, ``./records``, the installed package."""
    chosen = os.environ.get("SIGREG_RECORDS")
    checkout = PACKAGE.parent / "book" / "_records"
    return [*([Path(chosen)] if chosen else []), checkout, Path("records"), PACKAGE / "_records"]


def output_folder() -> Path:
    """Where a run writes: ``$SIGREG_RECORDS``, else the checkout's ``book/_records``, else ``./records``."""
    if os.environ.get("SIGREG_RECORDS"):
        return Path(os.environ["SIGREG_RECORDS"])
    checkout = PACKAGE.parent / "book" / "_records"
    return checkout if checkout.is_dir() else Path("records")


def load_record(name: str, folder=None) -> dict:
    """Read the record of one experiment.

    Args:
        name: the experiment, as ``python -m sigreg.lab.reproduce list`` shows it.
        folder: where to look; by default the folders of :func:`record_folders`, in that order.

    Raises:
        FileNotFoundError: no folder holds it; the message says how to make it.
        ValueError: the file is not a record (cut short, or something else).

    >>> load_record("nothing_of_that_name")
    Traceback (most recent call last):
    ...
    FileNotFoundError: no record 'nothing_of_that_name.json' in ...
    """
    folders = record_folders() if folder is None else [Path(folder)]
    for place in folders:
        path = place / f"{name}.json"
        if path.is_file():
            return _checked(path)
    searched = ", ".join(str(place) for place in folders)
    raise FileNotFoundError(
        f"no record '{name}.json' in {searched}: make it with `python -m sigreg.lab.reproduce run {name} --preset full`"
    )


def load_benchmark(name: str) -> dict:
    """Read the stored timings ``benchmarks/results/NAME.json``, from the checkout or the installed package.

    Raises:
        FileNotFoundError: neither holds it; the message says how to make it.
    """
    folders = [PACKAGE.parent / "benchmarks" / "results", PACKAGE / "_benchmarks"]
    for place in folders:
        if (place / f"{name}.json").is_file():
            return json.loads((place / f"{name}.json").read_text(encoding="utf-8"))
    searched = ", ".join(str(place) for place in folders)
    raise FileNotFoundError(f"no timings '{name}.json' in {searched}: `make bench` measures them on this machine")


def _checked(path):
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): restore it, or run it again") from None
    missing = {"name", "description", "provenance", "units"} - set(record if isinstance(record, dict) else ())
    if missing:
        raise ValueError(f"{path} is not a record: it lacks {', '.join(sorted(missing))}")
    return record


def save_record(record: dict, folder=None) -> Path:
    """Write a record as ``NAME.json``, whole or not at all, one unit a line so that differences read well.

    Args:
        record: as described at the top of this module; every number must be finite.
        folder: where to write; by default :func:`output_folder`.

    Raises:
        ValueError: a number is NaN or infinite (JSON has no word for it; use None).
    """
    head = {key: value for key, value in record.items() if key != "units"}
    lines = ",\n  ".join(to_json(unit) for unit in record["units"])
    text = to_json(head, indent=1)[:-2] + ',\n "units": [\n  ' + lines + "\n ]\n}\n"
    path = Path(output_folder() if folder is None else folder) / f"{record['name']}.json"
    write_whole(path, text)
    return path


def to_json(value, indent=None) -> str:
    """JSON text of ``value``; a NaN or an infinity is an error that shows the value it sits in."""
    try:
        return json.dumps(value, allow_nan=False, indent=indent)
    except ValueError:
        shown = json.dumps(value)
        raise ValueError(
            f"a result holds NaN or infinity; return None where there is no number. It came in {shown[:400]}"
        ) from None


def write_whole(path, text):
    """Write ``text`` so that a reader, or a crash, meets the old file or the new one, never half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


# ---------------------------------------------------------------- reading a record


def rows(record: dict) -> list[dict]:
    """One flat dictionary for each unit: its settings and its numbers together, ready for a table.

    >>> rows({"units": [{"unit": {"D": 2, "seed": 0}, "result": {"rate": 0.5}, "seconds": 1.0}]})
    [{'D': 2, 'seed': 0, 'rate': 0.5}]
    """
    return [{**unit["unit"], **unit["result"]} for unit in record["units"]]


def describe(record: dict) -> str:
    """One line that says which run is shown: preset, seeds, units, device, commit and date.

    >>> run = {"commit": "0123456789abcdef", "dirty": False, "device": "cpu", "date": "2026-05-01"}
    >>> describe({"name": "power", "units": [], "provenance": {"preset": "full", "seeds": 4, "runs": [run]}})
    'power: preset full, 4 seeds, 0 units, on cpu, commit 0123456789, 2026-05-01'
    """
    provenance = record["provenance"]
    runs = provenance["runs"]
    commits = list(
        dict.fromkeys(
            (run["commit"] or "unknown")[:10] + (" with local changes" if run["dirty"] else "") for run in runs
        )
    )
    devices = list(dict.fromkeys(run["device"] for run in runs))
    seeds = provenance["seeds"]
    return (
        f"{record['name']}: preset {provenance['preset']}, {seeds} seed{'s' if seeds != 1 else ''}, "
        f"{len(record['units'])} units, on {' and '.join(devices)}, "
        f"commit {', '.join(commits)}, {runs[-1]['date'][:10]}"
    )


# ---------------------------------------------------------------- provenance


def code_of(path) -> str:
    """A Python file without comments, docstrings and blank lines: what can change a number."""
    return code_only(Path(path).read_text(encoding="utf-8"))


def sources_of(path) -> list[Path]:
    """A Python file and every file of this package that it imports, directly or through another, sorted."""
    found, waiting = set(), [Path(path).resolve()]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = [node.module] if node.module else []
                if node.level and file.is_relative_to(PACKAGE):
                    base = [*file.relative_to(PACKAGE.parent).parts[: -node.level], *base]
                names = [".".join([*base, alias.name]) for alias in node.names]
            waiting += [source for name in names for source in _package_file(name)]
    return sorted(found)


def _package_file(name):
    """The file behind ``sigreg.a.b``: module b, or module a that defines b; none for another package."""
    parts = name.split(".")
    if parts[0] != PACKAGE.name:
        return []
    for length in range(len(parts), 0, -1):
        stem = PACKAGE.joinpath(*parts[1:length])
        for file in (stem.with_suffix(".py"), stem / "__init__.py"):
            if file.is_file():
                return [file]
    return []


def source_name(path) -> str:
    """How a record names a source file: by its path in the repository; a file from elsewhere by its name."""
    path = Path(path).resolve()
    return path.relative_to(PACKAGE.parent).as_posix() if path.is_relative_to(PACKAGE) else path.name


def code_hash(paths) -> str:
    """A hash of the code in ``paths``; comments, docstrings, blank lines and folders do not move it."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{source_name(path)}\n{code_of(path)}\n\0".encode())
    return digest.hexdigest()[:16]


def run_facts(paths, device) -> dict:
    """What identifies this run: commit, whether ``paths`` differ from it, versions, device and date.

    Outside a checkout the commit is that of the pip installation. Where only a copy of the files is at hand,
    say it in the environment: ``SIGREG_COMMIT=$(git describe --always --dirty --abbrev=40)``.
    """
    commit, dirty = _commit(paths)
    try:
        package = importlib.metadata.version("sigreg")
    except importlib.metadata.PackageNotFoundError:
        package = None
    device = torch.device(device)
    threads = torch.get_num_threads()
    where = f"{threads} CPU thread{'s' if threads != 1 else ''}"
    if device.type == "cuda":
        where = f"{torch.cuda.get_device_name(device)} ({device.type})"
    elif device.type != "cpu":
        where = device.type
    return {
        "commit": commit,
        "dirty": dirty,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "sigreg": package},
        "device": where,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _commit(paths):
    told = os.environ.get("SIGREG_COMMIT")
    if told:
        return re.sub("-dirty$", "", told), told.endswith("-dirty")
    commit = _git("rev-parse", "HEAD") if (PACKAGE.parent / ".git").exists() else None
    if commit:
        return commit, bool(_git("status", "--porcelain", "--", *map(str, paths)))
    try:
        address = importlib.metadata.distribution("sigreg").read_text("direct_url.json")
        return json.loads(address)["vcs_info"]["commit_id"], False
    except (importlib.metadata.PackageNotFoundError, TypeError, KeyError):
        return None, None


def _git(*arguments):
    try:
        done = subprocess.run(["git", *arguments], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
