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


def on_frames(z, frames):
    """sqrt(2 pi) N times the squared distance on each subspace (M, D, k), from Gaussian integrals in k dimensions."""
    y, k = z @ frames, frames.shape[-1]  # (M, N, k)
    pairs = torch.exp(-(y.unsqueeze(1) - y.unsqueeze(2)).square().sum(-1) / 2).mean((1, 2))
    bowl = torch.exp(-y.square().sum(-1) / 4).mean(1)
    return len(z) * math.sqrt(2 * math.pi) * (pairs - 2 ** (1 - k / 2) * bowl + 3 ** (-k / 2))


@pytest.mark.parametrize("k", [1, 2, 5])
def test_planes_are_the_mean_over_random_subspaces(k):
    z, source = 1.2 * gaussian(40, 8), torch.Generator().manual_seed(k)
    frames = torch.linalg.qr(torch.randn(4000, 8, k, generator=source, dtype=z.dtype)).Q
    values = on_frames(z, frames)
    assert abs(values.mean() - slice_free_sigreg(z, slice_dim=k)) < 4 * values.std() / 4000**0.5


def test_the_plane_of_all_dimensions_is_the_space_itself():
    z = gaussian(40, 3)
    whole = on_frames(z, torch.eye(3, dtype=z.dtype)[None])[0]
    torch.testing.assert_close(slice_free_sigreg(z, slice_dim=3), whole, rtol=1e-12, atol=0)


@pytest.mark.parametrize("k", [2, 5, 6])
def test_blocks_and_slope_of_planes_are_the_formula(k):
    z = gaussian(300, 6)
    value, (slope,) = value_and_grad(lambda z: slice_free_sigreg(z, slice_dim=k), z)
    plain, (plain_slope,) = value_and_grad(lambda z: _slice_free.plain_slice_free(z[None], k=k)[0], z)
    torch.testing.assert_close(value, plain, rtol=1e-10, atol=0)
    torch.testing.assert_close(slope, plain_slope, rtol=1e-9, atol=1e-13)
    single, (single_slope,) = value_and_grad(lambda z: slice_free_sigreg(z, slice_dim=k), z.float())
    assert abs(single - value) < 1e-4 * value and (single_slope - slope).norm() < 1e-5 * slope.norm()


@pytest.mark.parametrize("slice_dim", [0, 7, 2.5, True])
def test_a_plane_has_one_to_all_dimensions(slice_dim):
    with pytest.raises((TypeError, ValueError), match="slice_dim must be"):
        slice_free_sigreg(gaussian(10, 6), slice_dim=slice_dim)
