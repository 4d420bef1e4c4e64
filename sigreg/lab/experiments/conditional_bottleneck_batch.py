r"""Repaired minibatch CEB, variational CEB and CEB with moments, with four times the batch and a quarter of the steps.

The learned class Gaussians of variational CEB must follow the encoder, step by step; the moments of the batch need
not, and grow more exact with the batch. So this is where the estimate without learned densities should gain. The
third loss tells what the moments do by themselves: one Gaussian a class with the moments of the batch, no mixture.
Everything but batch size and learning rate is as in :mod:`sigreg.lab.experiments.conditional_bottleneck`.

Derived in: Chapter 3, section 3.7.
"""

from sigreg.lab.experiments import conditional_bottleneck as study

VERSION = study.VERSION
tolerance = study.tolerance
SEEDS = {"default": 2, "full": 5}

METHODS = ("variational_ceb", "pairwise", "moments")


def units(preset, seeds):
    """For each seed and each of the three losses one stack of networks, one for each beta."""
    common, lr = budget(preset), study.tuned(1024, METHODS, preset)
    return [
        {"part": "sweep", "method": method, "seed": seed, "betas": list(study.BETAS), **common, "lr": lr[method]}
        for seed in seeds
        for method in METHODS
    ]


def budget(preset):
    """As with small batches, four times the batch; larger steps for it."""
    return {**study.budget(preset), "batch_size": 1024, "lr": study.LRS[1024][1]}


def run_unit(unit, device):
    """As in the study with small batches."""
    return study.run_unit(unit, device)


def summary(record):
    """The headline in plain words."""
    return study.summary(record)
