"""Readers of records: known answers on made-up tables."""

import math

import pandas as pd
import pytest
import torch
from scipy import stats
from toys import seeded

import sigreg.lab.experiments.information_maximization as cube
import sigreg.lab.experiments.semi_supervised as study
from sigreg.lab import reading
from sigreg.lab.records import table


def test_rank_correlation_is_scipys_and_its_interval_covers():
    x = torch.randint(0, 9, (40,), generator=seeded()).tolist()  # with ties
    y = [value + noise for value, noise in zip(x, (4 * torch.randn(40, generator=seeded(1))).tolist(), strict=True)]
    found, low, high = reading.rank_correlation(x, y)
    assert found == pytest.approx(stats.spearmanr(x, y).statistic)
    assert low < found < high and high - low > 0.1
    assert reading.rank_correlation(y, [-v for v in y])[0] == -1
    with pytest.raises(ValueError, match="equal length"):
        reading.rank_correlation([1, 2, 3], [1, 2])


def test_slices_of_a_normal_sample_follow_the_diagonal_and_others_do_not():
    normal, slices = reading.slice_quantiles(torch.randn(20_000, 3, generator=seeded()))
    assert (slices - normal[:, None]).abs().max() < 0.1
    _, collapsed = reading.slice_quantiles(torch.zeros(50, 3))
    assert collapsed.abs().max() == 0


def fake(name, labels, seed, accuracy, **terms):
    unit = {"part": "joint", "name": name, "labels": labels, "seed": seed, "steps": 9, "terms": terms}
    return {"unit": unit, "result": {"labels": labels, "accuracy": accuracy, "validation": 0.5}}


def test_gains_are_paired_by_draw():
    record = {"units": [fake("labels", 100, s, 0.6 + 0.05 * s) for s in range(4)]}
    record["units"] += [fake("sigreg", 100, s, 0.61 + 0.05 * s, nats=0.1) for s in range(3)]
    record["units"] += [fake("sigreg", 100, s, 0.1, nats=1.0) for s in range(3)]
    found = reading.few_label_runs(record)
    sigreg, labels = {"name": "sigreg", "nats": 0.1}, {"name": "labels", "labels": 100}
    assert reading.paired(found, sigreg, labels) == pytest.approx([0.01] * 3)
    assert reading.by_seed(found, name="sigreg", nats=1.0).to_dict() == {0: 0.1, 1: 0.1, 2: 0.1}
    with pytest.raises(ValueError, match="say more"):
        reading.by_seed(found, name="sigreg")
    with pytest.raises(ValueError, match="no run"):
        reading.by_seed(found, name="views")
    assert "100 labels, joint, 9 steps, sigreg, 0.1 nats: 66.00% (3 draws)" in study.summary(record)


def lines():
    """Two methods on the lines accuracy = a + b log(rate); the second is better by 0.01 at every rate."""
    return [
        {"method": m, "seed": s, "conditional_rate": r, "accuracy": 0.5 + 0.1 * math.log(r) + gain + 0.02 * s}
        for m, gain in (("old", 0.0), ("new", 0.01))
        for s in (0, 1)
        for r in (0.5 + 0.1 * s + gain, 1.0, 4.0 + 0.1 * s)
    ]


def test_comparison_at_equal_rate():
    found = pd.DataFrame(lines())
    rates = reading.common_rates(found, ("old", "new"))
    assert rates[0] == pytest.approx(0.61) and rates[-1] == pytest.approx(4.0) and len(rates) == 5
    for differences in reading.advantage(found, "new", "old", "accuracy", rates):
        assert differences == pytest.approx([0.01, 0.01])
    apart = found.assign(conditional_rate=[9.0 if method == "old" else 1.0 for method in found.method])
    with pytest.raises(ValueError, match="no conditional rate in common"):
        reading.common_rates(apart, ("old", "new"))


def test_reading_a_record():
    def entry(cell, seed, spread):
        result = {"spread": [1.0, spread], "rank": [9.0, 4.0], "probe_accuracy": 0.8}
        return {"unit": {"cell": cell, "seed": seed}, "result": result, "seconds": 1.0}

    record = {"units": [entry("a", 0, 0.01), entry("a", 1, 0.02), entry("b", 0, 0.01), entry("b", 1, 0.9)]}
    assert reading.collapsed(table(record)) == (["a"], ["b"])
    assert "collapsed in every seed: a; in some: b" in cube.summary(record)
    assert cube.trace([{"q": float(k)} for k in range(50)], "q")[0] == 0.5


def test_tuning_prefers_the_most_accurate_and_the_first_of_equals():
    def entry(method, seed, accuracy, part="final", weight=1.0):
        unit = {"method": method, "seed": seed, "part": part, "weight": weight}
        return {"unit": unit, "result": {"accuracy": accuracy}, "seconds": 1.0}

    found = table({"units": [
        entry("vicreg", 1000, 0.5, "tune", 1.0), entry("vicreg", 1000, 0.6, "tune", 2.0),
        entry("vicreg", 1000, 0.6, "tune", 3.0), entry("vicreg", 1, 0.9), entry("vicreg", 0, 0.8),
        entry("sigreg", 0, 0.7), entry("sigreg", 1, 0.75),
    ]})  # fmt: skip
    assert reading.tuned(found) == {"vicreg": 2.0}
    final = found[found.part == "final"]
    assert reading.paired(final, {"method": "vicreg"}, {"method": "sigreg"}) == pytest.approx([0.1, 0.15])


def test_rejections_of_all_seeds_count_together_with_laplaces_error():
    entries = [
        {"unit": {"N": 8, "D": 2, "replicates": 10, "seed": s}, "result": {"rejections": {"cube": {"max": k}}}}
        for s, k in ((0, 0), (1, 3))
    ]
    rate, error = reading.rejection_rates({"units": entries}).loc[8, 2, "cube", "max"]
    assert rate == 3 / 20
    assert error == pytest.approx(math.sqrt(4 / 22 * 18 / 22 / 20))
