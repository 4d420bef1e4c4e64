"""The power study: each statistic against an independent formula, each law against its moments, rates that add up."""

import math

import pytest
import torch

from sigreg.gaussian_regularization import epps_pulley_closed_form
from sigreg.lab.experiments import gaussian_regularization_power as power
from sigreg.lab.reading import rejection_rates


def test_energy_is_the_distance_to_a_large_gaussian_sample(generator):
    x = torch.randn(2, 40, 3, generator=generator)
    z = torch.randn(200_000, 3, generator=generator)
    found = power.pairwise(x)["energy"]
    for sample, value in zip(x, found, strict=True):
        cross = torch.stack([(point - z).norm(dim=1).mean() for point in sample]).mean()
        assert value == pytest.approx(float(2 * cross - torch.cdist(sample, sample).mean()), abs=4e-3)


@pytest.mark.parametrize("dim", [1, 2, 30])
def test_expected_distance_has_its_known_ends(dim):
    at_zero = math.sqrt(2) * math.exp(math.lgamma((dim + 1) / 2) - math.lgamma(dim / 2))  # mean of a chi variable
    found = power.expected_distance(torch.tensor([0.0, 1e4]), dim)
    assert found[0] == pytest.approx(at_zero, rel=1e-9)
    assert found[1] == pytest.approx(100 + (dim - 1) / 200, rel=1e-5)  # far away: |x| + (D - 1) / 2|x|


def test_henze_zirkler_is_its_formula(generator):
    n, dim = 30, 5
    x = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    beta2 = 0.5 * ((2 * dim + 1) * n / 4) ** (2 / (dim + 4))
    pairs = torch.exp(-beta2 * torch.cdist(x, x) ** 2 / 2)
    cross = (1 + beta2) ** (-dim / 2) * torch.exp(-beta2 * x.square().sum(1) / (2 * (1 + beta2)))
    expected = (pairs.sum() - n) / n**2 - 2 * cross.mean()
    found = power.pairwise(x.float()[None])["henze_zirkler"] * math.exp(-beta2 * dim)
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=0)


def test_henze_zirkler_stays_finite_in_high_dimension(generator):
    for law in power.LAWS:
        x = power.draw(law, 2, 300, 256, generator)
        assert torch.isfinite(power.pairwise(x)["henze_zirkler"]).all()


def test_sliced_and_moments(generator):
    x = torch.randn(3, 50, 4, generator=generator, dtype=torch.float64)
    directions = torch.eye(4, dtype=torch.float64).expand(3, 4, 4)
    found = power.sliced(x, directions, [2, 4])
    exact = torch.stack([epps_pulley_closed_form(sample) for sample in x])  # (3, 4)
    torch.testing.assert_close(found["mean_4"], exact.mean(1), rtol=2e-2, atol=0)  # the grid stops at 3
    torch.testing.assert_close(found["max_2"], exact[:, :2].amax(1), rtol=5e-2, atol=0)
    covariance = torch.cov(x[0].T)
    expected = x[0].mean(0).square().sum() + (covariance - torch.eye(4)).square().sum()
    torch.testing.assert_close(power.moments(x)["moments"][0], expected)


@pytest.mark.parametrize("law", power.LAWS)
def test_laws_have_the_moments_they_claim(law, generator):
    x = power.draw(law, 1, 200_000, 3, generator)[0].double()
    variances = {"wrong scale": [1.05**2] * 3, "anisotropy": [0.5, 1.0, 1.5], "collapsed direction": [0, 1, 1]}
    expected = torch.tensor(variances.get(law, [1, 1, 1]), dtype=torch.float64)
    torch.testing.assert_close(torch.cov(x.T), torch.diag(expected), atol=0.03, rtol=0)
    torch.testing.assert_close(x.mean(0), torch.zeros(3, dtype=torch.float64), atol=0.02, rtol=0)
    kurtosis = {"cube": -1.2, "two clusters": -2 * 0.95**4}
    if law in kurtosis:
        assert x[:, 0].pow(4).mean() - 3 == pytest.approx(kurtosis[law], abs=0.02)


def test_an_unknown_law_is_named(generator):
    with pytest.raises(ValueError, match="law must be one of"):
        power.draw("lump", 1, 2, 2, generator)


def test_a_unit_is_reproducible_keeps_the_level_and_sees_collapse():
    unit = {"N": 64, "D": 4, "M": [8, 32], "null_replicates": 300, "replicates": 100, "seed": 0}
    result = power.run_unit(unit, torch.device("cpu"))
    assert result == power.run_unit(unit, torch.device("cpu"))
    for test in ("mean_32", "slice_free", "moments", "energy"):
        assert result["rejections"]["normal"][test] <= 15  # 5 expected
        assert result["rejections"]["collapsed direction"][test] >= 60
    record = {"units": [{"unit": unit, "result": result, "seconds": 1.0}] * 2}
    rate, error = rejection_rates(record).loc[64, 4, "cube", "moments"]
    assert rate == result["rejections"]["cube"]["moments"] / 100
    assert error == pytest.approx(math.sqrt(rate * (1 - rate) / 200), abs=0.01)
    assert "collapsed direction: mean_32 4" in power.summary(record)
