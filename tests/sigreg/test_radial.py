"""The radial statistic: its null mean, its bound, what it sees and what it cannot."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from sigreg import radial_null_mean, radial_sigreg, random_directions, sigreg_null_mean, sliced_sigreg


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cube(n, dim, seed=0):
    return math.sqrt(3) * (2 * torch.rand(n, dim, generator=torch.Generator().manual_seed(seed)).double() - 1)


@pytest.mark.parametrize("dim", [1, 2, 7, 64, 4096])
def test_its_value_is_that_of_the_chi_law(dim):
    """The target against scipy's chi law, knot by knot, and the statistic summed as the formula reads."""
    z = normal(11, dim)
    radius, shift, value = z.norm(dim=1).numpy(), math.sqrt(dim - 0.5), 0.0
    low, high = max(0.0, math.sqrt(dim) - 12), math.sqrt(dim) + 12
    node, share = np.polynomial.legendre.leggauss(400)
    for k, t in enumerate(np.linspace(0, 3, 17)):
        r = (low + high) / 2 + (high - low) / 2 * node
        target = (np.exp(1j * math.sqrt(2) * t * (r - shift)) * stats.chi.pdf(r, dim)) @ share * (high - low) / 2
        gap = np.exp(1j * math.sqrt(2) * t * (radius - shift)).mean() - target
        value += 11 * abs(gap) ** 2 * math.exp(-(t**2) / 2) * (3 / 16) * 2 * (0.5 if k in (0, 16) else 1)
    assert radial_sigreg(z).item() == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize(("n", "dim"), [(2, 1), (2, 16), (32, 64), (200, 3)])
def test_its_mean_on_gaussian_codes_holds_for_every_n(n, dim):
    values = torch.stack([radial_sigreg(normal(n, dim, seed=seed)) for seed in range(500)])
    assert abs(values.mean() - radial_null_mean(dim)) < 4 * values.std() / 500**0.5


def test_in_high_dimension_the_null_mean_is_that_of_a_slice():
    assert radial_null_mean(10_000) == pytest.approx(sigreg_null_mean(), rel=1e-3)
    assert radial_null_mean(2) != pytest.approx(sigreg_null_mean(), rel=1e-3)


@pytest.mark.parametrize("scale", [1e-6, 0.1, 1.0, 30.0, 1e4])
def test_the_pull_on_a_code_is_bounded(scale):
    z = (scale * normal(20, 5)).requires_grad_()
    (gradient,) = torch.autograd.grad(radial_sigreg(z), z)
    assert gradient.isfinite().all() and gradient.norm(dim=1).max() < 8 * math.sqrt(2)
    assert torch.autograd.gradcheck(radial_sigreg, (normal(6, 4).requires_grad_(),))


def test_collapse_has_a_finite_gradient():
    z = torch.zeros(8, 3, requires_grad=True)
    radial_sigreg(z).backward()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize(("n", "dim"), [(64, 64), (256, 64), (256, 256)])
def test_it_sees_the_cube_that_slices_miss(n, dim):
    level = torch.stack([radial_sigreg(normal(n, dim, seed=seed)) for seed in range(400)]).quantile(0.95)
    seen = torch.stack([radial_sigreg(cube(n, dim, seed)) for seed in range(100)]) > level
    sketch = random_directions(256, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sliced = torch.stack([sliced_sigreg(cube(n, dim, seed), sketch) for seed in range(100)])
    null = torch.stack([sliced_sigreg(normal(n, dim, seed=seed), sketch) for seed in range(400)]).quantile(0.95)
    assert seen.double().mean() > 0.95 and (sliced > null).double().mean() < 0.35


def test_it_is_blind_to_directions():
    z = normal(300, 8)
    on_a_ray = torch.zeros_like(z)
    on_a_ray[:, 0] = z.norm(dim=1)
    torch.testing.assert_close(radial_sigreg(on_a_ray), radial_sigreg(z))


def test_views_are_scored_apart_and_half_precision_is_raised():
    z = normal(2, 50, 6)
    torch.testing.assert_close(radial_sigreg(z), (radial_sigreg(z[0]) + radial_sigreg(z[1])) / 2)
    assert radial_sigreg(z.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: radial_sigreg(torch.zeros(3)), ValueError, "z must have shape"),
        (lambda: radial_sigreg(torch.zeros(3, 2, dtype=torch.int64)), TypeError, "floating dtype"),
        (lambda: radial_sigreg(torch.zeros(0, 2)), ValueError, "empty"),
        (lambda: radial_sigreg(torch.zeros(3, 2), t_max=-1), ValueError, "t_max must be positive"),
        (lambda: radial_null_mean(0), ValueError, "dim must be at least 1"),
    ],
)
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
