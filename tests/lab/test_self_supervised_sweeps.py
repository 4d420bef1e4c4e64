"""The sweeps of Chapter 6 run, and random settings repeat."""

from test_self_supervised_experiment import CPU, TINY

import sigreg.lab.experiments.self_supervised_sweeps as sweeps


def test_sweeps_run():
    for unit in sweeps.units("default", range(1)):
        if unit["part"] == "slices" and unit["num_slices"] in (16, None):
            found = sweeps.run_unit({**unit, **TINY}, CPU)
            exact = unit["num_slices"] is None
            assert (found["gradient_error"] < 1e-3) == exact and (found["value_spread"] < 1e-4) == exact
            assert found["last_loss"]["loss"] > 0
    assert sweeps.random_setting(1) == sweeps.random_setting(1) != sweeps.random_setting(2)
