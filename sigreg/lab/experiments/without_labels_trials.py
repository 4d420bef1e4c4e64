r"""Six settings of every method of ``without_labels``, judged on training images that no trial trains on.

Three values of a method's own weight, each with two learning rates, two draws, as many images and passes as the run.
The held-out images are the 10 000 that follow those trained on, so that what a trial reads is as sharp as the test
set; the probe's ridge is chosen among the trained ones. Equal trials for all, labels included. The test images are not
read. With the large network one draw and three passes on the first five sixths, for want of time.

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
from sigreg.lab.records import best_trials

VERSION = 2
SEEDS = {"default": 2, "full": 1}
CHECK = {"method": "sigreg"}
LOOSE = {"ridge": 0.91}  # two steps of the grid
HELD_OUT = 10_000


def units(preset, seeds):
    """Every method's first trial, then every method's second: a run that is cut off leaves equal numbers."""
    size = {**LARGE, "images": 60_000 - HELD_OUT, "passes": 3} if preset == "full" else SMALL
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


def run_unit(unit, device):
    """Train, and read the training images that follow."""
    pixels, labels = images_of(unit["whole"], device)[:2]
    n = unit["images"]
    pixels, held_out, labels, truth = pixels[:n], pixels[n:][:HELD_OUT], labels[:n], labels[n:][:HELD_OUT]
    pair = build(unit, device)
    try:
        history = train(pair, unit, pixels, labels)
    except ValueError as error:  # a trial may diverge: it loses
        return {"held_out": 0.0, "failed": str(error)}
    probe = chosen_probe(features_of(pair.online, pixels), labels, features_of(pair.online, held_out), truth)
    return {"held_out": round(probe.accuracy, 5), "ridge": probe.ridge, "curve": curve_of(history, 10)}


def summary(record):
    """The best setting of each method."""
    return "\n".join(
        f"{NAMES[method]}: {GRID[method][0]} {setting:g}, lr {lr:g}, {100 * held_out:.2f}% held out"
        for method, ((setting, lr), held_out) in best_trials(record["units"], "setting", "lr").items()
    )
