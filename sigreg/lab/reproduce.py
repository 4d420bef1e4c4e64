r"""Run the book's experiments and keep their numbers: ``python -m sigreg.lab.reproduce list | run | verify | status``.

How to add an experiment: put one module into ``sigreg/lab/experiments/`` with

a docstring
    Its first line says what is measured; ``list`` shows it.
``VERSION = 1``
    Goes up when the numbers change: another formula, another judge, another order of random draws. It is part of
    every unit, so that numbers of two versions never meet in one record. Words, names and places do not count.
``SEEDS = {"default": 1, "full": 5}``
    How many seeds each preset uses unless ``--seeds`` says otherwise.
``units(preset, seeds)``
    A list of JSON-able dictionaries, one for each piece of work (say, a cell of the grid and a seed).
    ``preset`` is ``"default"`` (small enough to run live in a chapter) or ``"full"``; ``seeds`` is a range.
    A unit is what a killed run loses at most, and what ``--shard`` deals out: let it take seconds to a few
    minutes. It must name *all* that its numbers depend on (sizes, budget, seed), for ``run_unit`` is told
    nothing else.
``run_unit(unit, device)``
    Does the work and returns a dictionary of finite numbers, strings and lists of them (None where there is
    no number). All randomness comes from generators seeded from ``unit``. A unit that also leaves files returns a
    pair: that dictionary, and ``{"name": function of an open binary file}``. They are written beside the record,
    which keeps their SHA-256.
``summary(record)``
    What the numbers say, in plain language; printed when the run is complete.
``CHECK = {"method": "sigreg"}`` (may be left out)
    Settings of the units that a quick check repeats: those that run what the study is about.
``tolerance(unit)`` (may be left out)
    The largest relative difference that verification puts down to rounding, 0.001 where nothing is said. Processors
    round differently, and training amplifies that: such units say by how much, as measured, and why.
``LOOSE = {"ridge": 0.9}`` (may be left out)
    Endings of keys with bounds of their own: a setting chosen from a grid moves by a whole step, and what a search
    leaves over is noise.

That is all: the file is found by its name, and this module does the rest. ``run path/to/mine.py`` runs an
experiment that lies elsewhere. Under ``torchrun`` every process calls ``run_unit`` inside the process group,
and process 0 alone writes.

How nothing is lost or mixed: each unit is appended to ``NAME.partial`` (``NAME.2of3.partial`` for the second
of three shards) the moment it is done, under a header with the preset, the kind of device and the experiment's
``VERSION``. A new run goes on where these files end. When all units are there, they become ``NAME.json`` and the
partial files go. Anything of another version, with another preset or on another kind of device is refused, with a
message that says what to do. Shards that ran on several machines are joined by copying their partial files into one
folder and running once more there.

Does today's code still make what is stored? No look at the code can say; ``verify`` can. ``verify NAME --units 3`` runs
a few units of a stored record again and compares the numbers, and writes nothing unless ``--note`` asks for a note in
the record. ``verify all --units 1 --cheapest`` is the quick check, a unit of every record: ``make records``.
"""

import argparse
import contextlib
import importlib
import importlib.util
import json
import math
import os
import pkgutil
import sys
import time
from pathlib import Path
from types import ModuleType

import torch
import torch.distributed as dist

import sigreg.lab.experiments
from sigreg.lab import records
from sigreg.lab.data import DataMissing
from sigreg.lab.device import default_device
from sigreg.lab.files import changed_files, sha256_of, write_whole
from sigreg.lab.pretrained import encoder_sha256
from sigreg.lab.progress import tqdm
from sigreg.lab.rules import rule_hash

PRESETS = ("default", "full")
TOLERANCE = 1e-3  # what verification puts down to rounding where an experiment says nothing


class Refused(RuntimeError):
    """What lies in the output folder was made otherwise than the run that was asked for."""


# ---------------------------------------------------------------- experiments


def experiment_names() -> list[str]:
    """The experiments of the book, sorted.

    >>> "gaussian_regularization_power" in experiment_names()
    True
    """
    return sorted(module.name for module in pkgutil.iter_modules(sigreg.lab.experiments.__path__))


def load_experiment(name: str) -> ModuleType:
    """The module of an experiment, by its name or by the path of a Python file.

    >>> load_experiment("no_such_experiment")
    Traceback (most recent call last):
    ...
    ValueError: no experiment 'no_such_experiment': choose from ...
    """
    if name.endswith(".py"):
        path = Path(name).resolve()
        if not path.is_file():
            raise ValueError(f"no file {name}: give the path of an experiment's module, or one of its names")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    elif name in experiment_names():
        module = importlib.import_module(f"sigreg.lab.experiments.{name}")
    else:
        raise ValueError(f"no experiment {name!r}: choose from {', '.join(experiment_names())}, or give a .py file")
    lacking = [part for part in ("VERSION", "SEEDS", "units", "run_unit", "summary") if not hasattr(module, part)]
    if lacking or not module.__doc__:
        raise ValueError(
            f"experiment {name!r} lacks {', '.join(lacking) or 'a docstring'}: see help(sigreg.lab.reproduce)"
        )
    return module


def plan(experiment: ModuleType, preset: str, seeds: int | None = None) -> tuple[list[dict], int]:
    """The units of a run, in order, each with the experiment's version; and the number of seeds."""
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {PRESETS}, got {preset!r}")
    count = experiment.SEEDS[preset] if seeds is None else seeds
    if not isinstance(count, int) or count < 1:
        raise ValueError(f"seeds must be an integer of at least 1, got {seeds!r}")
    units = [{**unit, "version": experiment.VERSION} for unit in experiment.units(preset, range(count))]
    units = json.loads(records.to_json(units))
    if not units or len({_key(unit) for unit in units}) < len(units):
        fault = "the same unit twice" if units else "no unit"
        raise ValueError(f"{experiment.__name__}: units() gave {fault}")
    return units, count


def live(name: str, preset: str = "default", seeds: int | None = None, device=None, units=None) -> dict:
    """Run an experiment here and now, and return its record without writing a file: what chapters do.

    Args:
        name: an experiment's name or the path of its file.
        preset: ``"default"`` or ``"full"``.
        seeds: how many seeds; by default the preset's own number.
        device: by default :func:`sigreg.lab.device.default_device`.
        units: run these, as the experiment's ``run_unit`` wants them, in place of the preset's.
    """
    job = _Job(name, preset, seeds, device)
    if units is not None:
        job.units = [dict(unit) for unit in units]
    return job.record([job.work(unit) for unit in job.units], [job.facts()])


class _Job:
    """An experiment with its settings: what is to be done, and the header that says how."""

    def __init__(self, name, preset, seeds, device):
        self.experiment = load_experiment(name)
        self.name = self.experiment.__name__.split(".")[-1]
        self.units, self.seeds = plan(self.experiment, preset, seeds)
        self.device = torch.device(device or default_device())
        version = self.experiment.VERSION
        self.header = {"name": self.name, "preset": preset, "version": version, "device": self.device.type}

    def work(self, unit, out=None):
        """Run a unit; what it leaves as files goes to the folder ``out``, or nowhere."""
        start = time.perf_counter()
        standing = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)  # the caller's choice must not change an experiment's numbers
        try:
            found = self.experiment.run_unit(dict(unit), self.device)
        finally:
            torch.set_default_dtype(standing)
        result, files = found if isinstance(found, tuple) else (found, {})
        entry = {"unit": unit, "result": result, "seconds": round(time.perf_counter() - start, 3)}
        if files and out is not None:
            entry["files"] = {name: sha256_of(write_whole(out / name, content)) for name, content in files.items()}
        return entry

    def facts(self):
        facts = records.run_facts([records.PACKAGE, self.experiment.__file__], self.device)
        return {**facts, "rules": rule_hash(self.name)}

    def record(self, done, runs):
        distinct = {records.to_json({**run, "date": None}): run for run in runs}
        provenance = {
            **{key: value for key, value in self.header.items() if key != "name"},
            "seeds": self.seeds,
            "wall_seconds": round(sum(unit["seconds"] for unit in done), 1),
            "runs": list(distinct.values()),
        }
        description = self.experiment.__doc__.strip().splitlines()[0]
        return {"name": self.name, "description": description, "provenance": provenance, "units": done}


# ---------------------------------------------------------------- run


def run(name, preset="default", seeds=None, device=None, shard=(1, 1), out=None, overwrite=False, within=None):
    """Do the units of an experiment that are not done yet; return the record when all are there, else None.

    Args:
        name: an experiment's name or the path of its file.
        preset: ``"default"`` or ``"full"``.
        seeds: how many seeds; by default the preset's own number. Asking for more adds to what is there.
        device: by default :func:`sigreg.lab.device.default_device`.
        shard: ``(i, n)``: of every n units do the i-th (counted from 1); other processes do the rest.
        out: folder; by default :func:`sigreg.lab.records.output_folder`.
        overwrite: replace results that were made otherwise, where they would be refused.
        within: seconds after which no further unit is begun.

    Raises:
        Refused: the folder holds results of another version, with another preset, on another kind of device;
            or another process is at work on this shard.
    """
    job = _Job(name, preset, seeds, device)
    index, shards = shard
    if not 1 <= index <= shards:
        raise ValueError(f"shard must be (i, n) with 1 <= i <= n, got {shard}")
    if dist.is_initialized() and dist.get_rank() > 0:
        for unit in _shared(None):
            job.work(unit)
        return None

    out = Path(records.output_folder() if out is None else out)
    out.mkdir(parents=True, exist_ok=True)
    mine = out / (f"{job.name}.partial" if shards == 1 else f"{job.name}.{index}of{shards}.partial")
    with _claimed(mine):
        done, _ = _gather(job, out, overwrite)
        todo = _shared([unit for unit in job.units[index - 1 :: shards] if _key(unit) not in done])
        if todo:
            print(f"{job.name}: {len(todo)} of {len(job.units)} units to do on {job.device}")
            _do(job, todo, mine, within)
        done, runs = _gather(job, out, overwrite)
        if any(_key(unit) not in done for unit in job.units):
            return None
        record = job.record([done[_key(unit)] for unit in job.units], runs)
        _settle(record, out, overwrite)
    return record


def verify(name, count=3, device=None, out=None, tolerance=None, cheapest=False, note=False):
    """Run a few units of a stored record again, and compare the numbers. Nothing is written unless ``note`` is true.

    Args:
        name: an experiment's name or the path of its file.
        count: how many units, at least 1: spread over all of them, or the ``cheapest``.
        device: by default :func:`sigreg.lab.device.default_device`.
        out: folder of the record; by default :func:`sigreg.lab.records.output_folder`.
        tolerance: largest relative difference of a number that still counts as the same; by default what the
            experiment says of the unit, or 0.001.
        cheapest: take the units that took least time when they were stored, of those that match ``CHECK``.
        note: keep in the record that they agree, with what and on what.

    Returns:
        The largest relative difference, over all numbers but durations (keys that end in ``seconds``).

    Raises:
        ValueError: ``count`` is below 1.
        Refused: a number differs by more than ``tolerance``, the results have another form, the record is of another
            version than the experiment, or a file that the record's run made has changed.
    """
    out = Path(records.output_folder() if out is None else out)
    stem = Path(name).stem
    record = records.load_record(stem, out)
    job = _Job(name, record["provenance"]["preset"], record["provenance"]["seeds"], device)
    if problems := _problems(record, job.experiment, out):
        raise Refused("; ".join(problems))
    some, loose = _chosen(record, job.experiment, count, cheapest), getattr(job.experiment, "LOOSE", {})
    allowed = getattr(job.experiment, "tolerance", lambda unit: TOLERANCE) if tolerance is None else lambda _: tolerance
    largest = 0.0
    for entry in some:
        found = _difference(entry["result"], job.work(entry["unit"])["result"], loose)
        largest = max(largest, found)
        if found > allowed(entry["unit"]):
            raise Refused(
                f"{stem}: today's numbers differ from the stored ones by up to {found:.1g}, more than "
                f"{allowed(entry['unit']):g}; if the device or the versions differ that may be rounding, else raise "
                "VERSION and run it again"
            )
    if note:
        agreed = {"units": len(some), "largest_difference": float(f"{largest:.1g}"), "run": job.facts()}
        record["provenance"]["verified"] = agreed
        records.save_record(record, out)
    return largest


def _chosen(record, experiment, count, cheapest):
    """The stored units that a verification repeats."""
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    stored = record["units"]
    if not cheapest:
        return [stored[k * len(stored) // count] for k in range(min(count, len(stored)))]
    wanted = getattr(experiment, "CHECK", {}).items()
    telling = [entry for entry in stored if wanted <= entry["unit"].items()] if wanted else stored
    return sorted(telling, key=lambda entry: entry["seconds"])[:count]


def _problems(record, experiment, out):
    """Why a record cannot stand beside today's experiment, whatever its numbers: a list of lines."""
    versions = {entry["unit"].get("version") for entry in record["units"]}
    found = list(changed_files(record, out))
    if versions != {experiment.VERSION}:
        had = ", ".join(map(str, sorted(versions, key=str)))
        found.append(f"{record['name']} holds units of version {had}, the experiment is at {experiment.VERSION}")
    used = {entry["unit"].get("encoder") for entry in record["units"]} - {None}
    if used and used != {encoder_sha256(out)}:
        found.append(f"{record['name']} used another self_supervised.pt than its record in {out} tells of")
    return [f"{line}: restore it, or run it again" for line in found]


def _difference(a, b, loose=None):
    """The largest relative difference of two results of one form; infinite where their forms differ.

    Lists beside a list ``count`` are a histogram: each bin weighs as much as it holds, so that what a nearly empty
    one says of its few members is not more than their share. Texts under keys that end in ``right`` are guesses as
    :func:`sigreg.lab.judging.pack` keeps them: what differs is a share of them. A key that ends as one of ``loose``
    counts only from the bound on that stands there.

    >>> _difference({"rate": [1.0, 2.0], "seconds": 3.0}, {"rate": [1.0, 2.5], "seconds": 9.0})
    0.2
    >>> _difference({"count": [99, 1], "accuracy": [1.0, 1.0]}, {"count": [99, 1], "accuracy": [1.0, 0.0]})
    0.01
    >>> _difference({"right": "oA=="}, {"right": "4A=="})
    0.125
    >>> _difference({"a_ridge": 1.0}, {"a_ridge": 0.3}, {"ridge": 0.9})
    0.0
    """
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        if isinstance(a.get("count"), list):
            return max(_bins_apart(key, a, b) for key in a)
        return max((_under(key, a[key], b[key], loose or {}) for key in a if not key.endswith("seconds")), default=0.0)
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return max((_difference(x, y, loose) for x, y in zip(a, b, strict=True)), default=0.0)
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return abs(a - b) / max(abs(a), abs(b)) if a != b else 0.0
    return 0.0 if a == b else float("inf")


def _under(key, a, b, loose):
    """The difference under a key, as its ending says."""
    if key.endswith("right") and isinstance(a, str) and isinstance(b, str):
        from sigreg.lab.judging import share_apart  # loads scipy, which few runs need

        return share_apart(a, b)
    found = _difference(a, b, loose)
    return 0.0 if any(key.endswith(end) and found <= bound for end, bound in loose.items()) else found


def _bins_apart(key, a, b):
    """How far the bins' counts, or what they hold altogether, lie apart, relative to the sum of the larger."""
    if len({len(bins[name]) for bins in (a, b) for name in ("count", key)}) > 1:
        return float("inf")
    weights = [[1] * len(bins[key]) if key == "count" else bins["count"] for bins in (a, b)]
    one, other = ([n * v for n, v in zip(w, bins[key], strict=True)] for w, bins in zip(weights, (a, b), strict=True))
    apart = sum(abs(x - y) for x, y in zip(one, other, strict=True))
    return apart / max(sum(map(abs, one)), sum(map(abs, other))) if apart else 0.0


def _do(job, todo, path, within=None):
    """Run the units, appending each to ``path`` the moment it is done."""
    lines = _whole_lines(path)
    if not lines or json.loads(lines[0]) != job.header:  # a file that --overwrite passes over
        lines = [records.to_json(job.header)]
    lines.append(records.to_json({"run": job.facts()}))
    write_whole(path, "".join(f"{line}\n" for line in lines))
    terminal = sys.stderr.isatty()
    quiet = os.environ.get("TQDM_DISABLE", "") not in ("", "0")
    end = math.inf if within is None else time.monotonic() + within
    with open(path, "a", encoding="utf-8") as file:
        for unit in tqdm(todo, desc=job.name, unit="unit", mininterval=0.2 if terminal else 30, disable=quiet):
            if time.monotonic() > end:
                print(f"{job.name}: stopped after {within:g} s; the same command goes on from here")
                break
            file.write(records.to_json(job.work(unit, path.parent)) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _gather(job, out, overwrite=False):
    """All finished units in ``out`` by key, and the runs that made them."""
    done, runs = {}, []
    for path in _partial_files(out, job.name):  # first these: who writes the record removes them after
        lines = [json.loads(line) for line in _whole_lines(path)]
        if lines and _made_alike(path, lines[0], job.header, overwrite):
            runs += [line["run"] for line in lines[1:] if "run" in line]
            done.update((_key(line["unit"]), line) for line in lines[1:] if "unit" in line)
    path = out / f"{job.name}.json"
    if path.is_file():
        record = records.load_record(job.name, out)
        made = {
            "name": job.name,
            **{key: record["provenance"].get(key) for key in ("preset", "version", "device")},
        }
        if _made_alike(path, made, job.header, overwrite):
            runs = record["provenance"]["runs"] + runs
            done.update((_key(entry["unit"]), entry) for entry in record["units"])
    return done, runs


def _made_alike(path, made, wanted, overwrite):
    words = {"name": "of experiment {}", "preset": "with preset {}", "device": "on {}", "version": "at version {}"}
    differs = [key for key in words if made.get(key) != wanted[key]]
    if differs and not overwrite:
        was = ", ".join(words[key].format(made.get(key)) for key in differs)
        asked = ", ".join(words[key].format(wanted[key]) for key in differs)
        raise Refused(
            f"{path} was made {was}; this run is {asked}. They are never mixed: "
            "write elsewhere (--out FOLDER), replace what is there (--overwrite), or ask for the same again"
        )
    return not differs


def _settle(record, out, overwrite):
    """Write the record unless it is there already, and remove the partial files that it makes needless."""
    path = out / f"{record['name']}.json"
    kept = {_key(entry["unit"]) for entry in record["units"]}
    old = records.load_record(record["name"], out) if path.is_file() else None
    alike = old and all(old["provenance"].get(k) == record["provenance"][k] for k in ("preset", "version", "device"))
    if alike and kept <= {_key(entry["unit"]) for entry in old["units"]}:
        kept = {_key(entry["unit"]) for entry in old["units"]}
        record.update(old)
    else:
        records.save_record(record, out)
    for part in _partial_files(out, record["name"]):
        units = [json.loads(line).get("unit") for line in _whole_lines(part)]
        if overwrite or all(unit is None or _key(unit) in kept for unit in units):
            part.unlink(missing_ok=True)


def _partial_files(out, name):
    return sorted([*out.glob(f"{name}.partial"), *out.glob(f"{name}.*of*.partial")])


def _whole_lines(path):
    """The complete lines of a file: not a last one that a kill cut short, and none if the file has gone."""
    try:
        return path.read_bytes().decode("utf-8", "replace").split("\n")[:-1]
    except FileNotFoundError:
        return []


def _key(unit):
    return json.dumps(unit, sort_keys=True)


@contextlib.contextmanager
def _claimed(path):
    """Hold ``path`` for this process alone, so that one shard is not run twice at a time."""
    lock = path.with_name(f".{path.name}.lock.partial")
    with open(lock, "a") as file:
        try:
            import fcntl  # not on Windows, where two runs of one shard are not noticed

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            pass
        except OSError:
            raise Refused(f"another process is at work on {path}: wait for it, or give each its --shard") from None
        yield
    lock.unlink(missing_ok=True)


def _shared(todo):
    """The list of process 0, in every process of a group."""
    if not dist.is_initialized():
        return todo
    box = [todo]
    dist.broadcast_object_list(box, src=0)
    return box[0]


# ---------------------------------------------------------------- the command line


def main(arguments=None) -> int:
    """The command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return {"list": _list, "run": _run, "verify": _verify, "status": _status}[options.command](options)
    except KeyboardInterrupt:
        print("\nstopped; every finished unit is kept, and the same command goes on from there", file=sys.stderr)
        return 130


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m sigreg.lab.reproduce", description="Run the book's experiments and keep their numbers."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the experiments, and how large each preset is")
    status = commands.add_parser("status", help="which records are there, who made them, and whether they are whole")
    runner = commands.add_parser("run", help="run experiments; a run that was stopped goes on where it ended")
    runner.add_argument("names", nargs="+", metavar="NAME", help="names of experiments, paths of .py files, or 'all'")
    runner.add_argument("--preset", choices=PRESETS, default="default", help="the size (default: %(default)s)")
    runner.add_argument("--seeds", type=int, help="how many seeds (default: the preset's own number)")
    runner.add_argument("--device", help="cpu, cuda, mps (default: the best there is)")
    runner.add_argument("--shard", type=_shard, default=(1, 1), metavar="i/n", help="do only the i-th of n shares")
    runner.add_argument("--within", type=float, metavar="SECONDS", help="begin no further unit after so long")
    runner.add_argument("--overwrite", action="store_true", help="replace results that were made otherwise")
    checker = commands.add_parser("verify", help="run a few units of a stored record again and compare")
    checker.add_argument("names", nargs="+", metavar="NAME", help="names of experiments, paths of .py files, or 'all'")
    checker.add_argument("--units", type=int, default=3, help="how many units of each (default: %(default)s)")
    checker.add_argument("--device", help="cpu, cuda, mps (default: the best there is)")
    checker.add_argument("--tolerance", type=float, help="largest relative difference (default: the experiment's)")
    checker.add_argument("--cheapest", action="store_true", help="the units of least work, not some spread over all")
    checker.add_argument("--within", type=float, metavar="SECONDS", help="refuse to start what took longer when stored")
    checker.add_argument("--note", action="store_true", help="keep in the record that its units agree")
    for command in (runner, checker, status):
        command.add_argument("--out", type=Path, help="folder of the records (default: book/_records, or ./records)")
    return parser


def _shard(text):
    try:
        index, shards = (int(part) for part in text.split("/"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must look like 2/4, got {text!r}") from None
    if not 1 <= index <= shards:
        raise argparse.ArgumentTypeError(f"must be i/n with 1 <= i <= n, got {text!r}")
    return index, shards


def _named(names):
    return [found for name in names for found in (experiment_names() if name == "all" else [name])]


def _list(options):
    for name in experiment_names():
        experiment = load_experiment(name)
        sizes = []
        for preset in PRESETS:
            units, seeds = plan(experiment, preset)
            sizes.append(f"{preset}: {len(units)} units, {_many(seeds, 'seed')}")
        print(f"{name:24s} {experiment.__doc__.strip().splitlines()[0]}\n{'':24s} {'; '.join(sizes)}")
    return 0


def _run(options):
    names = _named(options.names)
    try:
        for name in names:
            plan(load_experiment(name), options.preset, options.seeds)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    refused = 0
    with _process_group(options.device) as device:
        for name in names:
            try:
                how = options.shard, options.out, options.overwrite, options.within
                record = run(name, options.preset, options.seeds, device, *how)
            except Refused as error:
                print(f"refused: {error}", file=sys.stderr)
                refused += 1
                continue
            if not dist.is_initialized() or dist.get_rank() == 0:
                _report(name, record, options)
    return 1 if refused else 0


def _report(name, record, options):
    if record is None:
        index, shards = options.shard
        print(f"{name}: shard {index}/{shards} is done; the record is written when the others are done too")
        return
    path = Path(options.out or records.output_folder()) / f"{record['name']}.json"
    took, size = _duration(record["provenance"]["wall_seconds"]), path.stat().st_size / 1000
    print(f"{records.describe(record)}\n  {took} of work, kept in {path} ({size:.0f} kB)")
    for line in load_experiment(name).summary(record).splitlines():
        print(f"  {line}")


def _verify(options):
    names, out = _named(options.names), Path(options.out or records.output_folder())
    if "all" in options.names:  # a study may be written before it is run
        names = [name for name in names if (out / f"{Path(name).stem}.json").is_file()]
    if options.within is not None:
        took = sum(_stored_seconds(name, options, out) for name in names)
        if took > options.within:
            print(f"error: these units took {took:.0f} s when stored, --within is {options.within:g}", file=sys.stderr)
            return 2
    wrong = 0
    for name in names:
        start = time.perf_counter()
        try:
            largest = verify(
                name, options.units, options.device, out, options.tolerance, options.cheapest, options.note
            )
            print(
                f"{name}: {_many(options.units, 'unit')} again in {time.perf_counter() - start:.0f} s, "
                f"the largest relative difference is {largest:.1g}",
                flush=True,
            )
        except DataMissing as error:  # a bare machine without a network: no fault of the record
            print(f"skipped: {name}: {error}", flush=True)
            wrong += os.environ.get("CI", "") == "true"
        except (ValueError, FileNotFoundError, Refused) as error:
            print(f"error: {name}: {error}", file=sys.stderr, flush=True)
            wrong += 1
    return 1 if wrong else 0


def _stored_seconds(name, options, out):
    """What the units of a record that ``options`` choose took when they were stored."""
    record = records.load_record(Path(name).stem, out)
    some = _chosen(record, load_experiment(name), options.units, options.cheapest)
    return sum(entry["seconds"] for entry in some)


def _status(options):
    out = Path(options.out or records.output_folder())
    faulty = 0
    for name in experiment_names():
        experiment = load_experiment(name)
        try:
            record = records.load_record(name, out)
            print(records.describe(record))
            if checked := record["provenance"].get("verified"):
                when = f"commit {(checked['run']['commit'] or 'unknown')[:10]}, {checked['run']['date'][:10]}"
                agree = f"agree to {checked['largest_difference']:.1g}"
                print(f"  {_many(checked['units'], 'unit')} again at {when}: {agree}")
            problems = _problems(record, experiment, out)
            print(*(f"  error: {problem}" for problem in problems), sep="\n", end="\n" if problems else "")
            faulty += bool(problems)
        except FileNotFoundError:
            print(f"{name}: no record in {out}")
        for path in _partial_files(out, name):
            lines = [json.loads(line) for line in _whole_lines(path)]
            if lines:
                kept, version = sum("unit" in line for line in lines), lines[0].get("version")
                how = f"preset {lines[0]['preset']}"
                how += "" if version == experiment.VERSION else f", version {version} and not {experiment.VERSION}"
                print(f"  in progress, {path.name}: {_many(kept, 'finished unit')} ({how})")
    return 1 if faulty else 0


@contextlib.contextmanager
def _process_group(device):
    """The device to use; under ``torchrun`` also the process group, one process on each GPU."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    device = torch.device(device or default_device())
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def _many(count, word):
    return f"{count} {word}{'' if count == 1 else 's'}"


def _duration(seconds):
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


if __name__ == "__main__":
    sys.exit(main())
