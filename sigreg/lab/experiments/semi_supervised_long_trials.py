r"""Three trials of every method of ``semi_supervised_long``, judged on training images that no run trains on.

A hundred labels, and draws that are none of those judged later: one, or two on a GPU. The last sixth of the training
images is held out and labelled, which a real problem with a hundred labels could not afford. The test images are not
read. A threshold is consistency's setting; a method that adds a term to consistency is tried at the middle one.

Derived in: Chapter 5, section 5.10.
"""

from sigreg.lab.experiments import semi_supervised_long as study
from sigreg.lab.experiments.semi_supervised_long import GRID, LABELS, LARGE, NAMES, SMALL, guesses, images_of, train
from sigreg.lab.records import table

VERSION = 1
SEEDS = {"default": 1, "full": 2}
CHECK = {"method": "labels"}  # a third of the work of the others
THRESHOLD = GRID["consistency"][1][1]

tolerance = study.tolerance


def units(preset, seeds):
    """Every method's first trial, then every method's second; draw by draw."""
    size = LARGE if preset == "full" else SMALL
    return [
        {**size, "method": method, "labels": LABELS, "seed": 1000 + seed, **at(method, GRID[method][1][k])}
        for seed in seeds
        for k in (1, 0, 2)
        for method in GRID
    ]


def at(method, setting):
    """The settings of one trial."""
    return {"setting": setting, "threshold": setting if method == "consistency" else THRESHOLD}


def run_unit(unit, device):
    """Train one network and ask it about the held-out images."""
    try:
        network, found = train(unit, device)
    except ValueError as error:  # a trial may diverge: it loses
        return {"held_out": 0.0, "failed": str(error)}
    images, labels = images_of(unit["whole"], unit["size"], device)[1]
    return {"held_out": round((guesses(network, images) == labels).double().mean().item(), 5), **found}


def summary(record):
    """Every method's settings and what they reached, in per cent."""
    means = 100 * table(record).groupby(["method", "setting"], sort=False).held_out.mean()
    return "\n".join(f"{NAMES[m]}, {GRID[m][0]} {setting:g}: {value:.2f}%" for (m, setting), value in means.items())
