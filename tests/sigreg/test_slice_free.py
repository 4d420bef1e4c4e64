"""SIGReg over infinitely many slices: its limit, its formula, its slope in single precision."""

import math

import pytest
import torch
from codes import directions_for, gaussian, value_and_grad

from sigreg import _slice_free
from sigreg.gaussian_regularization import epps_pulley, epps_pulley_closed_form, slice_free_sigreg


@pytest.mark.parametrize("d", [2, 16])
def test_slices_tend_to_the_slice_free_form_at_rate_one_half(d):
    z = 1.2 * gaussian(40, d)
    limit = slice_free_sigreg(z)
    per_slice = epps_pulley(z @ directions_for(40_000, d).T, knots=49, t_max=8.0)
    spread = per_slice.std()
    assert abs(per_slice.mean() - limit) < 4 * spread / math.sqrt(40_000)
    for m in (10, 100, 1000):  # root mean square error over groups of m slices
        error = (per_slice.view(-1, m).mean(1) - limit).square().mean().sqrt()
        assert error.item() == pytest.approx((spread / math.sqrt(m)).item(), rel=0.5 if m == 1000 else 0.2)


def test_slice_free_in_one_dimension_is_the_closed_form():
    x = 1.4 * gaussian(30, 1) + 5
    torch.testing.assert_close(slice_free_sigreg(x), epps_pulley_closed_form(x)[0], rtol=1e-12, atol=0)


def test_slice_free_is_rotation_invariant_and_its_blocks_are_the_formula():
    z = gaussian(50, 6)
    rotation = torch.linalg.qr(gaussian(6, 6, seed=5))[0]
    torch.testing.assert_close(slice_free_sigreg(z @ rotation), slice_free_sigreg(z))
    value, (slope,) = value_and_grad(slice_free_sigreg, z)
    plain, (plain_slope,) = value_and_grad(lambda z: _slice_free.plain_slice_free(z[None])[0], z)
    torch.testing.assert_close(value, plain, rtol=1e-11, atol=0)
    torch.testing.assert_close(slope, plain_slope, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("scale", [0.1, 1, 100, 1000])
def test_slice_free_gradient_in_single_precision_at_every_scale(scale):
    z = (scale * gaussian(256, 64)).float()
    _, (slope,) = value_and_grad(slice_free_sigreg, z)
    _, (exact,) = value_and_grad(slice_free_sigreg, z.double())
    assert (slope - exact).norm() < 1e-5 * exact.norm()


@pytest.mark.parametrize("centres", [[1000.0], [-1000.0, 1000.0], [0.0, 300.0, 5000.0]])
def test_slice_free_in_single_precision_on_tight_distant_clusters(centres):
    z = (0.1 * gaussian(120, 16) + torch.tensor(centres).repeat(120 // len(centres)).unsqueeze(1)).float()
    value, (slope,) = value_and_grad(slice_free_sigreg, z)
    exact, (exact_slope,) = value_and_grad(lambda z: _slice_free.plain_slice_free(z[None])[0], z.double())
    assert abs(value - exact) < 1e-6 * exact
    assert (slope - exact_slope).norm() < 1e-5 * exact_slope.norm()
