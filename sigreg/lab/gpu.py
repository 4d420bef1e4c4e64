r"""What a bare machine with a GPU does for the book: ``make gpu``, or ``python -m sigreg.lab.gpu --parts bench``.

It needs a checkout, torch with CUDA, numpy, scipy, pandas and yaml, and no network. The whole FashionMNIST is read from
the folder that ``SIGREG_DATA`` names (four idx files, gzipped or not). Parts, in the order given:

``tests``     tests marked ``cuda``                                    needs pytest
``bench``     the self-supervised step, captured and eager; a profile  -> loop.json
``chapters``  the chapters' cells as scripts, with times and memory    -> gpu_chapters.json; needs the extra [book]
``records``   studies too large for a CPU                              -> their records

Each part prints what it did, and leaves its files in the output folder at once, also when a later one is cut off.
``--device cpu --size tiny`` runs every part in little.
"""

import argparse
import importlib
import json
import os
import re
import resource
import subprocess
import sys
import time
import traceback
from pathlib import Path

import torch

from sigreg.lab import records, reproduce
from sigreg.lab.experiments import without_labels
from sigreg.lab.files import write_whole

PARTS = ("tests", "bench", "chapters", "records")
STUDIES = {"without_labels_trials": 1.0, "partial_collapse": 0.3, "without_labels": 1.0}  # of the time that is left
SMOKE = {"passes": 1}
TINY = {
    "whole": False,
    "images": 300,
    "passes": 1,
    "channels": [4, 4, 8],
    "strides": [2, 2, 2],
    "hidden": [16],
    "latent_dim": 8,
    "batch_size": 64,
    "num_slices": 16,
    "autocast": None,
    "neighbours": 300,
}
TINY_LAW = {"rest": 20, "widths": [4], "lambdas": [0.3, 3.0]}
NOTEBOOKS = records.PACKAGE.parent / "notebooks"


# ---------------------------------------------------------------- the loop


def bench(out, device, size, end):
    """Times of the step of every method, captured and eager, their losses beside each other, and a profile."""
    unit = {**without_labels.LARGE, "seed": 0, "lr": 1e-3, "passes": 1, **(TINY if size == "tiny" else {})}
    pixels, labels = (t[: unit["images"]] for t in without_labels.images_of(unit["whole"], device)[:2])
    found = {"device": records.run_facts([records.PACKAGE], device)["device"], "unit": unit, "methods": {}}
    few = (4 if size == "tiny" else 20) * unit["batch_size"]
    methods = ("sigreg", "byol") if size == "smoke" else without_labels.GRID
    for method in methods:
        one = {**unit, "method": method, "setting": without_labels.GRID[method][1][1]}
        entry = step_times(one, pixels[:few], labels[:few])
        found["methods"][method] = entry
        print(f"  {method}: {entry}", flush=True)
        keep(out, "loop.json", found)
    one = {**unit, "method": "sigreg", "setting": 0.3}
    if device.type == "cuda":
        found["profile"] = profiled({**one, "passes": 2}, pixels, labels)
        keep(out, "loop.json", found)
        print("  busy share of the GPU:", found["profile"]["busy"], flush=True)
    if size == "full":
        seconds, _ = timed({**one, "passes": 40}, pixels, labels)
        found["forty_passes_seconds"] = round(seconds, 2)
        keep(out, "loop.json", found)
        print("  forty passes:", found["forty_passes_seconds"], "s", flush=True)


def step_times(unit, pixels, labels):
    """Milliseconds a step, captured and eager: what three more passes take; and how far the losses differ."""
    found, losses = {}, {}
    timed(unit, pixels, labels)  # what is compiled, chosen or allocated once
    for name, capture in (("captured", True), ("eager", False)):
        one, losses[name] = timed(unit, pixels, labels, capture=capture)
        four, _ = timed({**unit, "passes": 4}, pixels, labels, capture=capture)
        found[f"{name}_ms"] = round(1000 * (four - one) / (3 * len(losses[name])), 3)
    apart = (losses["captured"] - losses["eager"]).abs() / losses["eager"].abs().clamp_min(1e-6)
    return {**found, "largest_difference": float(f"{apart.max().item():.2g}")}


def timed(unit, pixels, labels, **how):
    """Seconds of a run and its losses."""
    pair = without_labels.build(unit, pixels.device)
    wait(pixels.device)
    start = time.perf_counter()
    losses = without_labels.train(pair, unit, pixels, labels, **how)["loss"]
    wait(pixels.device)
    return time.perf_counter() - start, losses


def wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def profiled(unit, pixels, labels):
    """Kernels of one pass of a captured run: their time, the share of the pass that some kernel runs, the longest."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        without_labels.train(without_labels.build(unit, pixels.device), unit, pixels, labels)
        torch.cuda.synchronize()
    events = [event for event in seen.events() if event.device_type.name == "CUDA"]
    spans = sorted((event.time_range.start, event.time_range.end, event.name) for event in events)
    half = (spans[0][0] + spans[-1][1]) / 2  # warm-up and capture come before
    spans = [span for span in spans if span[0] > half]
    busy, last = 0.0, spans[0][0]
    totals = {}
    for start, stop, name in spans:
        busy += max(0.0, stop - max(start, last))
        last = max(last, stop)
        totals[name] = totals.get(name, 0.0) + stop - start
    longest = sorted(totals.items(), key=lambda pair: -pair[1])[:12]
    length = last - spans[0][0]
    share = {name[:90]: round(total / sum(totals.values()), 4) for name, total in longest}
    return {"busy": round(busy / length, 3), "microseconds": round(length), "launches": len(spans), "kernels": share}


# ---------------------------------------------------------------- studies


def studies(out, device, size, end):
    """Run the studies to records; the last, which has whole seeds whenever it ends, takes what time is left."""
    os.environ["SIGREG_RECORDS"] = str(out)  # where trials are looked up
    for name, share in STUDIES.items():
        start = time.perf_counter()
        if size == "full":
            left = max(end - time.monotonic(), 0)
            record = reproduce.run(name, "full", device=device, out=out, within=share * left)
            done = "not complete" if record is None else reproduce.load_experiment(name).summary(record)
        else:
            experiment = importlib.import_module(f"sigreg.lab.experiments.{name}")
            preset = "full" if size == "smoke" else "default"
            units = experiment.units(preset, range(1))
            units = units[:2] if name == "without_labels_trials" or size == "tiny" else units
            change = SMOKE if size == "smoke" else TINY | TINY_LAW if "rest" in units[0] else TINY
            entries = []
            for unit in ({**unit, **change} for unit in units):
                begun = time.perf_counter()
                entries.append({"unit": unit, "result": experiment.run_unit(unit, device)})
                entries[-1]["seconds"] = round(time.perf_counter() - begun, 3)
                line = {k: v for k, v in entries[-1]["result"].items() if k not in ("curve", "cells")}
                print(f"  {unit['method']}, {entries[-1]['seconds']} s: {line}", flush=True)
                keep(out, f"{name}.{size}.json", entries)
            done = experiment.summary({"units": entries})
        print(f"  {name}: {time.perf_counter() - start:.0f} s\n{done}", flush=True)


# ---------------------------------------------------------------- tests and chapters


def tests(out, device, size, end):
    """The tests marked ``cuda``; a tiny run takes one small file of unit tests, whatever the device."""
    chosen = ["-m", "cuda", "tests/sigreg"] if size != "tiny" else ["tests/sigreg/test_precision.py"]
    alone = ["-n", "0"] if importlib.util.find_spec("xdist") else []
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *alone, *chosen]
    done = subprocess.run(
        command, cwd=records.PACKAGE.parent, capture_output=True, text=True, timeout=max(end - time.monotonic(), 1)
    )
    write_whole(out / "gpu_tests.txt", done.stdout + done.stderr)
    print("  " + (done.stdout.strip().splitlines() or [done.stderr[-300:]])[-1], flush=True)


def chapters(out, device, size, end):
    """The cells of every chapter as one script each: seconds, and the most memory of host and GPU."""
    found = {}
    paths = sorted(NOTEBOOKS.glob("0*.md"))
    for path in paths[:1] if size == "tiny" else paths:
        if time.monotonic() > end:
            print("  no time left for", path.stem, flush=True)
            break
        command = [sys.executable, "-m", "sigreg.lab.gpu", "--chapter", str(path), "--device", str(device)]
        done = subprocess.run(command, capture_output=True, text=True)
        last = (done.stdout.strip().splitlines() or [""])[-1]
        found[path.stem] = json.loads(last) if done.returncode == 0 else {"failed": done.stderr.strip()[-400:]}
        print(f"  {path.stem}: {found[path.stem]}", flush=True)
        keep(out, "gpu_chapters.json", {"device": records.run_facts([NOTEBOOKS], device)["device"], "chapters": found})


def cells_of(text):
    """The code of a chapter's cells, without the lines that only a notebook understands.

    >>> cells_of("```{code-cell}\\n---\\ntags: [x]\\n---\\na = 1\\nif a:\\n    %pip install b\\n```")
    ['a = 1\\nif a:\\n    pass\\n']
    """
    cells = re.findall(r"^```\{code-cell\}.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    cells = [re.sub(r"\A---\n.*?^---\n", "", cell, flags=re.MULTILINE | re.DOTALL) for cell in cells]
    return [re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", cell) for cell in cells]


def run_chapter(path, device):
    """Execute the cells of one chapter here, and print one line of JSON: seconds and megabytes."""
    os.environ["SIGREG_DEVICE"] = str(device)
    os.environ.setdefault("MPLBACKEND", "Agg")
    os.chdir(path.parent)
    start, names = time.perf_counter(), {"__name__": "__main__"}
    for number, cell in enumerate(cells_of(path.read_text(encoding="utf-8"))):
        exec(compile(cell, f"{path.name}, cell {number + 1}", "exec"), names)
    found = {"seconds": round(time.perf_counter() - start, 1)}
    found["host_megabytes"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    if device.type == "cuda":
        found["device_megabytes"] = round(torch.cuda.max_memory_allocated() / 2**20)
    print("\n" + json.dumps(found))


# ---------------------------------------------------------------- the command line


def keep(out, name, value):
    write_whole(out / name, records.to_json(value, indent=1))


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sigreg.lab.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS), help="which, in which order (default: %(default)s)")
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    parser.add_argument("--size", choices=("full", "smoke", "tiny"), default="full")
    parser.add_argument("--within", type=float, default=480, metavar="SECONDS", help="in all (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=records.output_folder())
    parser.add_argument("--chapter", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.device.type == "cuda" and not torch.cuda.is_available():
        print("no GPU is at hand: --device cpu --size tiny tries every part in little", file=sys.stderr)
        return 2
    if options.chapter:
        run_chapter(options.chapter.resolve(), options.device)
        return 0
    parts = [part for part in options.parts.split(",") if part]
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}: choose from {', '.join(PARTS)}")
    out, end, failed = options.out.resolve(), time.monotonic() + options.within, 0
    out.mkdir(parents=True, exist_ok=True)
    run = {"tests": tests, "bench": bench, "chapters": chapters, "records": studies}
    for part in parts:
        start = time.perf_counter()
        print(f"{part} on {options.device}, {options.size}:", flush=True)
        try:
            run[part](out, options.device, options.size, end)
        except Exception:  # the other parts still have something to say
            traceback.print_exc()
            failed += 1
        print(f"{part}: {time.perf_counter() - start:.0f} s, left in {out}\n", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
