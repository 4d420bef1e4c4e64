"""The same draws with more labels: whole and paired."""

from sigreg.lab.experiments import semi_supervised_long as study
from sigreg.lab.experiments import semi_supervised_long_thousand as thousand


def test_draws_are_whole_and_paired():
    units = study.units("default", range(3))
    assert [u["seed"] for u in units] == [k // 5 for k in range(15)] and {u["labels"] for u in units} == {100}
    assert [{**u, "labels": 0} for u in units] == [{**u, "labels": 0} for u in thousand.units("default", range(3))]
    assert {u["labels"] for u in thousand.units("full", range(1))} == {1000}
