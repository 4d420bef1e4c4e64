"""The radial power study: its added law, rates that add up, and the level of the test."""

import torch

from sigreg.lab.experiments import gaussian_regularization_power as power
from sigreg.lab.experiments import gaussian_regularization_radial as radial
from sigreg.lab.reading import rejection_rates


def test_the_added_law_has_a_cubes_directions_and_gaussian_lengths(generator):
    z = radial.draw("cube's directions", 4000, 3, generator)
    lengths = z.square().sum(1)
    assert abs(lengths.mean() - 3) < 4 * lengths.std() / 4000**0.5  # a chi-square with three degrees of freedom
    assert abs(lengths.var() - 6) < 1
    corner = (z / z.norm(dim=1, keepdim=True)).abs().amin(1)  # a cube has more directions towards its corners
    round_ = torch.randn(4000, 3, generator=generator)
    assert corner.mean() > (round_ / round_.norm(dim=1, keepdim=True)).abs().amin(1).mean() + 0.02


def test_it_has_the_sizes_of_the_study_of_slices():
    ours, theirs = (module.units("full", range(2)) for module in (radial, power))
    assert ours == [{k: v for k, v in unit.items() if k != "M"} for unit in theirs]


def test_rates_tell_the_null_from_a_cube_and_not_from_its_directions():
    unit = {"N": 256, "D": 32, "null_replicates": 200, "replicates": 40, "seed": 0}
    rates = rejection_rates({"units": [{"unit": unit, "result": radial.run_unit(unit, "cpu")}]}).rate[256, 32]
    assert rates["cube", "radial"] > 0.9
    assert max(rates["cube's directions", "radial"], rates["normal", "radial"]) < 0.3
