r"""Trials for :mod:`sigreg.lab.experiments.vicreg_information_family`: three weights of each method, three seeds.

Each trial trains at the budget of the run on the training images less their last sixth, and a probe with a chosen ridge
reads that sixth. The test images are not asked.

Derived in: Chapter 7, section 7.5.
"""

from sigreg.lab.experiments.vicreg_information_family import GRID, LARGE, NAMES, SMALL, loss_of
from sigreg.lab.experiments.without_labels import build, features_of, images_of, train
from sigreg.lab.probes import chosen_probe
from sigreg.lab.records import table

VERSION = 1
SEEDS = {"default": 3, "full": 3}
CHECK = {"method": "vicreg"}
LOOSE = {"ridge": 0.91}  # two steps of the grid


def units(preset, seeds):
    """Seed by seed every weight of every method: a run that is cut off leaves equal numbers."""
    size = LARGE if preset == "full" else SMALL
    return [
        {**size, "method": method, "setting": GRID[method][k], "seed": 1000 + seed}
        for seed in seeds
        for k in range(3)
        for method in GRID
    ]


def tolerance(unit):
    """Relative rounding that training leaves: as in the trials of seven methods, which are as long."""
    return 0.05


def run_unit(unit, device):
    """Train without the last sixth, and read it."""
    pixels, labels = (part[: unit["images"]] for part in images_of(unit["whole"], device)[:2])
    pair, kept = build(unit, device), len(pixels) - len(pixels) // 6
    try:
        train(pair, unit, pixels[:kept], labels[:kept], loss_of(unit))
    except ValueError as error:  # a trial may diverge: it loses
        return {"held_out": 0.0, "failed": str(error)}
    probe = chosen_probe(features_of(pair.online, pixels), labels, None, None)
    return {"held_out": max(round(a, 5) for a in probe.held_out), "ridge": probe.ridge}


def summary(record):
    """Every method's weights and what they read, in per cent."""
    means = 100 * table(record).groupby(["method", "setting"], sort=False).held_out.mean()
    return "\n".join(f"{NAMES[m]}, {weight:g}: {value:.2f}%" for (m, weight), value in means.items())
