"""The study of large batches of Chapter 3."""

import pytest

from sigreg.lab.experiments import conditional_bottleneck as experiment
from sigreg.lab.experiments import conditional_bottleneck_batch as bottleneck_batch


@pytest.mark.parametrize("preset", ["default", "full"])
def test_the_study_of_large_batches_differs_in_batch_and_step_alone(preset):
    small = {(u["method"], u["seed"]): u for u in experiment.units(preset, range(2)) if u["part"] == "sweep"}
    units = bottleneck_batch.units(preset, range(2))
    assert len(units) == 6
    for unit in units:
        other = small[unit["method"] if unit["method"] != "moments" else "pairwise", unit["seed"]]
        differ = {k for k, v in unit.items() if v != other[k]} - {"method"}
        assert "batch_size" in differ and differ <= {"batch_size", "lr"}  # each study has trials of its own
