r"""Trials for :mod:`sigreg.lab.experiments.vicreg_information_family`: three weights of each method, three seeds.

Each trial trains at the budget of the run on the training images less their last sixth, and a probe with a chosen ridge
reads that sixth. The test images are not asked.

Derived in: Chapter 7, section 7.5.
"""

from sigreg.lab.experiments import without_labels_trials
from sigreg.lab.experiments.vicreg_information_family import GRID, LARGE, NAMES, SMALL, loss_of
from sigreg.lab.records import table

VERSION = 1
SEEDS = {"default": 3, "full": 3}
CHECK = {"method": "vicreg"}
LOOSE = without_labels_trials.LOOSE


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
    found = without_labels_trials.run_unit(unit, device, loss_of(unit))
    return {name: value for name, value in found.items() if name not in ("path", "curve")}


def summary(record):
    """Every method's weights and what they read, in per cent."""
    means = 100 * table(record).groupby(["method", "setting"], sort=False).held_out.mean()
    return "\n".join(f"{NAMES[m]}, {weight:g}: {value:.2f}%" for (m, weight), value in means.items())
