"""Stored results: one small JSON file for each experiment, with all that is needed to judge or repeat it.

A record is a plain dictionary::

    {"name": "power",
     "description": "first line of the experiment's docstring",
     "provenance": {"preset": "full", "version": 1, "device": "cpu", "seeds": 4, "wall_seconds": 611.2,
                    "runs": [{"commit": …, "dirty": …, "versions": {…}, "device": …, "date": …}]},
     "units": [{"unit": {"D": 8, "N": 256, "seed": 0, "version": 1}, "result": {…}, "seconds": 1.3}, …]}

A unit that also wrote files has their SHA-256, ``"files": {"name.pt": "3b1f…"}``. The commit says where a number
comes from; whether today's code still gives it is found by running it: ``python -m sigreg.lab.reproduce verify``.

``python -m sigreg.lab.reproduce run`` writes records; chapters read them with :func:`load_record` and :func:`table`,
and say with :func:`describe` which run they show. They lie in ``book/_records`` and travel in the installed package.
"""

import importlib.metadata
import json
import os
import platform
import re
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import torch

from sigreg.lab.files import write_whole

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
    return write_whole(Path(output_folder() if folder is None else folder) / f"{record['name']}.json", text)


def to_json(value, indent=None) -> str:
    """JSON text of ``value``; a NaN or an infinity is an error that shows the value it sits in."""
    try:
        return json.dumps(value, allow_nan=False, indent=indent)
    except ValueError:
        shown = json.dumps(value)
        raise ValueError(
            f"a result holds NaN or infinity; return None where there is no number. It came in {shown[:400]}"
        ) from None


# ---------------------------------------------------------------- reading a record


def table(record: dict):
    """A record as a ``pandas.DataFrame``: a row for each unit, or for each of several networks or runs of a unit.

    Columns are the settings, the numbers and the unit's ``seconds``; where a number has the name of a setting, the
    number stays. What lies deeper is named by its path, as ``terms.nats``. A unit whose result holds one list of
    dictionaries (its networks, its runs) has a row for each of these.

    Args:
        record: as :func:`load_record` gives it, or any dictionary with ``units``.

    >>> found = table({"units": [{"unit": {"D": 2, "seed": 0}, "result": {"rate": {"low": 0.5}}, "seconds": 1.0}]})
    >>> found.to_dict("records")
    [{'D': 2, 'seed': 0, 'seconds': 1.0, 'rate.low': 0.5}]
    """
    from pandas import json_normalize  # a record is also read where nobody asks for tables: pandas takes half a second

    rows = []
    for entry in record["units"]:
        common = dict(entry["result"])
        lists = {key: value for key, value in common.items() if isinstance(value, list) and value}
        several = [key for key, value in lists.items() if isinstance(value[0], dict)]
        parts = common.pop(several[0]) if len(several) == 1 else [{}]
        rows += [{**entry["unit"], "seconds": entry.get("seconds"), **common, **part} for part in parts]
    return json_normalize(rows)


def trials_of(name: str, preset: str) -> list[dict]:
    """The units of a record of trials; none where there is no record or one of another preset, which says nothing."""
    try:
        record = load_record(name)
    except FileNotFoundError:
        return []
    return record["units"] if record["provenance"]["preset"] == preset else []


def best_trials(units: list[dict], *settings: str) -> dict:
    """For each method the settings with the best mean of ``held_out``, and that mean; of equals the least.

    Without pandas: a bare machine with a GPU makes trials and runs what they choose.

    >>> units = [({"method": "a", "lr": lr, "seed": 0}, held_out) for lr, held_out in ((0.1, 0.5), (0.2, 0.7))]
    >>> best_trials([{"unit": unit, "result": {"held_out": held_out}} for unit, held_out in units], "lr")
    {'a': ((0.2,), 0.7)}
    """
    draws, best = {}, {}
    for entry in units:
        chosen = tuple(entry["unit"][name] for name in settings)
        draws.setdefault((entry["unit"]["method"], chosen), []).append(entry["result"]["held_out"])
    for (method, chosen), values in sorted(draws.items()):
        mean = sum(values) / len(values)
        if method not in best or mean > best[method][1]:
            best[method] = chosen, mean
    return best


def best_settings(name: str, preset: str, tried: dict) -> dict:
    """The best setting of each method in a record of trials; the middle of the three tried where there is none."""
    best = best_trials(trials_of(name, preset), "setting")
    return {method: best[method][0][0] if best else values[1] for method, values in tried.items()}


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


def run_facts(paths, device) -> dict:
    """What identifies this run: commit, whether what lies in ``paths`` differs from it, versions, device and date.

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
