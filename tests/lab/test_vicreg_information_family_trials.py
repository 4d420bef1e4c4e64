"""The trials of VICReg's family: equal for all, and never asked of the test images."""

import torch

from sigreg.lab.experiments import vicreg_information_family_trials as trials
from sigreg.lab.gpu import TINY


def test_every_method_has_equal_trials_at_the_budget_of_the_run():
    units = trials.units("default", range(3))
    counts = {method: sum(u["method"] == method for u in units) for method in trials.GRID}
    assert set(counts.values()) == {9} and {u["passes"] for u in units} == {10}


def test_a_trial_sees_no_test_image(monkeypatch):
    first = {**trials.units("default", range(1))[0], **TINY}
    found = trials.run_unit(first, torch.device("cpu"))
    images = trials.images_of
    monkeypatch.setattr(trials, "images_of", lambda *a: [*images(*a)[:2], None, None])
    assert trials.run_unit(first, torch.device("cpu")) == found and 0 < found["held_out"] < 1
