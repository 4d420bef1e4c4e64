"""Student's interval: scipy's t-test, its coverage, and what it refuses."""

import numpy as np
import pytest
import torch
from scipy import stats

from sigreg.lab.intervals import interval


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_the_interval_is_that_of_the_t_test(rng):
    values = rng.normal(3, 2, (6, 4))
    for level in (0.5, 0.95, 0.99):
        found = interval(values, level)
        expected = stats.ttest_1samp(values, 0).confidence_interval(level)
        np.testing.assert_allclose(found.mean, values.mean(0))
        np.testing.assert_allclose(found.low, expected.low)
        np.testing.assert_allclose(found.high, expected.high)
    np.testing.assert_allclose(interval(torch.tensor(values)).low, interval(values).low)
    np.testing.assert_allclose(interval(5 - 2 * values).low, 5 - 2 * interval(values).high)


def test_the_interval_covers_as_often_as_it_says(rng):
    found = interval(rng.normal(size=(4, 20_000)))
    covered = ((found.low < 0) & (0 < found.high)).mean()
    assert abs(covered - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 20_000)


@pytest.mark.parametrize(
    "values, level, match",
    [
        ([1.0], 0.95, "two or more"), (3.0, 0.95, "two or more"), ([], 0.95, "two or more"),
        ([1.0, float("nan")], 0.95, "NaN"), ([1.0, 2.0], 1.0, "level"), ([1.0, 2.0], 95, "level"),
    ],
)
def test_an_interval_of_nothing_is_refused(values, level, match):
    with pytest.raises(ValueError, match=match):
        interval(values, level)
