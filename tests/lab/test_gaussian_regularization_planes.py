"""Training on planes: the judges know a Gaussian, the encoders start where they should, and training helps."""

import torch

from sigreg.lab.experiments import gaussian_regularization_planes as planes

UNIT = {"part": "map", "D": 4, "k": 2, "N": 64, "steps": 60, "repeats": 1, "seed": 0}


def test_judges_know_the_map_that_makes_codes_gaussian():
    exact = [torch.diag(1 / torch.logspace(-0.5, 0.5, 4))]
    found, untrained = planes.judge(UNIT, exact, "cpu"), planes.judge(UNIT, [torch.eye(4)], "cpu")
    assert abs(found["energy"]) < 0.02 and found["covariance"] < 0.2 and found["radial"] < 4
    assert untrained["energy"] > 0.2 and untrained["covariance"] > 2 and untrained["radial"] > 20


def test_training_brings_codes_nearer_to_a_gaussian():
    for part in ("map", "network"):
        unit = {**UNIT, "part": part}
        before, after = (planes.judge(unit, planes.train({**unit, "steps": s}, 0.03, 0, "cpu"), "cpu") for s in (1, 60))
        assert after["energy"] < before["energy"] and after["covariance"] < before["covariance"]


def test_every_k_of_a_dimension_fits_into_it():
    units = planes.units("full", range(1))
    assert all(unit["k"] <= unit["D"] for unit in units) and {unit["k"] for unit in units if unit["D"] == 64} >= {1, 2}
