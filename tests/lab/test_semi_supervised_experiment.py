"""The study of few labels: its units, its runs, its first stage."""

import pytest
import torch

import sigreg.lab.experiments.semi_supervised as study


def test_units_are_distinct_and_complete():
    full = study.units("full", range(5))
    assert len({str(unit) for unit in full}) == len(full)
    short = study.SHORT["steps"]
    terms = [unit["terms"] for unit in full if unit["seed"] == 0 and unit["part"] == "joint" and unit["steps"] == short]
    for expected in (*study.METHODS.values(), *study.CAUSES.values()):
        assert expected in terms
    assert all(not unit["whole"] for unit in study.units("default", range(2)))


@pytest.mark.parametrize("name", ["views+mixture", "views+sigreg+consistency"])
def test_a_unit_is_reproducible_whatever_was_drawn_before(name):
    size = {"whole": False, "lr": 3e-3, **study.LIVE, "steps": 2}
    unit = study.joint(name, study.METHODS[name], 100, 0, size)
    one = study.run_unit(unit, torch.device("cpu"))
    torch.randn(7)  # the global generator must not matter
    assert study.run_unit(unit, torch.device("cpu")) == one
    assert 0 <= one["accuracy"] <= 1 and one["sigreg"] > 0


def test_first_stage_keeps_the_encoder_and_collapses_without_sigreg():
    """Views alone send every image to one code; the scale of the codes tells."""
    data = study.load(False, torch.device("cpu"))
    stage = {"whole": False, "first_steps": 25, "first_batch": 32, "dim": 8, "seed": 0, "lr": 3e-3}
    scale = {nats: study.pretrain({**stage, "nats": nats}, data)[1]["scale"] for nats in (0.0, 1.0)}
    assert scale[0.0] < 0.5 * scale[1.0]
