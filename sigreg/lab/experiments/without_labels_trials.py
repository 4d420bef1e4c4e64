r"""Six trials of every method of ``without_labels``, judged on training images that no trial trains on.

Three values of a method's own weight, each with two learning rates. The last sixth of the training images is held out:
a trial trains without it, and so does its probe. Equal trials for all, labels included. The test images are not read.

Derived in: Chapter 6, section 6.8.
"""

from sigreg.lab.experiments.without_labels import (
    GRID,
    LARGE,
    LRS,
    NAMES,
    SMALL,
    build,
    curve_of,
    features_of,
    images_of,
    train,
)
from sigreg.lab.probes import chosen_probe

VERSION = 1
SEEDS = {"default": 2, "full": 1}
CHECK = {"method": "sigreg"}
LOOSE = {"ridge": 0.91}  # two steps of the grid


def units(preset, seeds):
    """Every method's first trial, then every method's second: a run that is cut off leaves equal numbers."""
    size = {**LARGE, "passes": 3} if preset == "full" else {**SMALL, "passes": 3}
    return [
        {**size, "method": method, "setting": GRID[method][1][k], "lr": lr, "seed": 1000 + seed}
        for seed in seeds
        for k in (1, 0, 2)
        for lr in LRS
        for method in GRID
    ]


def tolerance(unit):
    """Relative rounding that training leaves: 0.4% with AVX2 against AVX-512, 2.7% with no vector instructions."""
    return 0.05


def run_unit(unit, device, loss=None):
    """Train without the last sixth, by the method's own loss or another, and read it."""
    pixels, labels = (part[: unit["images"]] for part in images_of(unit["whole"], device)[:2])
    pair, kept = build(unit, device), len(pixels) - len(pixels) // 6
    try:
        history = train(pair, unit, pixels[:kept], labels[:kept], loss)
    except ValueError as error:  # a trial may diverge: it loses
        return {"held_out": 0.0, "failed": str(error)}
    probe = chosen_probe(features_of(pair.online, pixels), labels, None, None)
    path = [round(a, 5) for a in probe.held_out]
    return {"held_out": max(path), "ridge": probe.ridge, "path": path, "curve": curve_of(history, 10)}


def summary(record):
    """The best trial of each method."""
    lines = []
    for method, (name, _) in GRID.items():
        tried = [e for e in record["units"] if e["unit"]["method"] == method]
        if not tried:
            continue
        best = max(tried, key=lambda e: e["result"]["held_out"])
        unit, held_out = best["unit"], 100 * best["result"]["held_out"]
        lines.append(f"{NAMES[method]}: {name} {unit['setting']:g}, lr {unit['lr']:g}, {held_out:.2f}% held out")
    return "\n".join(lines)
