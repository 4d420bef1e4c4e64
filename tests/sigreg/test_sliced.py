"""The visit of all slices: it is the formula on every grid, in blocks, strided, and never times the knots."""

import pytest
import torch
from codes import GRIDS, directions_for, gaussian, value_and_grad
from torch.utils._python_dispatch import TorchDispatchMode

from sigreg import _slice_free, _sliced
from sigreg.gaussian_regularization import (
    epps_pulley,
    plain_epps_pulley,
    plain_sliced_sigreg,
    slice_free_sigreg,
    sliced_sigreg,
)

SHAPES = [(3, 1, 1), (3, 3, 2), (5, 1, 4), (64, 16, 33), (200, 7, 130)]  # N, D, M


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("grid", GRIDS)
def test_value_and_gradient_are_those_of_the_formula(shape, grid):
    n, d, m = shape
    knots, t_max = grid
    z, a = 1.5 * gaussian(n, d) + 0.3, directions_for(m, d)
    value, (slope,) = value_and_grad(lambda z: sliced_sigreg(z, a, knots=knots, t_max=t_max), z)
    plain, (plain_slope,) = value_and_grad(lambda z: plain_sliced_sigreg(z, a, knots=knots, t_max=t_max), z)
    torch.testing.assert_close(value, plain, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(slope, plain_slope, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("grid", GRIDS)
def test_epps_pulley_is_the_formula_column_by_column(grid):
    knots, t_max = grid
    x, weight = 2 * gaussian(50, 9), gaussian(9, seed=3)
    value, (slope,) = value_and_grad(lambda x: weight * epps_pulley(x, knots=knots, t_max=t_max), x)
    plain, (plain_slope,) = value_and_grad(lambda x: weight * plain_epps_pulley(x, knots=knots, t_max=t_max), x)
    torch.testing.assert_close(value, plain, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(slope, plain_slope, rtol=1e-10, atol=1e-12)


def test_blocks_do_not_show(monkeypatch):
    z, a = gaussian(3, 40, 5), directions_for(200, 5)
    whole = value_and_grad(lambda z: sliced_sigreg(z, a), z)
    monkeypatch.setattr(_sliced, "block_entries", lambda like: 100)
    monkeypatch.setattr(_slice_free, "block_entries", lambda like: 100)
    monkeypatch.setattr(_sliced, "_ENTRIES", 64 * 3 * 40)
    torch.testing.assert_close(value_and_grad(lambda z: sliced_sigreg(z, a), z), whole)
    free = value_and_grad(slice_free_sigreg, z)
    monkeypatch.undo()
    torch.testing.assert_close(free, value_and_grad(slice_free_sigreg, z))


def test_a_million_samples_in_single_precision():
    z, a = gaussian(2**20, 1).float(), torch.ones(1, 1)
    value, (slope,) = value_and_grad(lambda z: sliced_sigreg(z, a), z)
    exact, (exact_slope,) = value_and_grad(lambda z: sliced_sigreg(z, a), z.double())
    assert abs(value - exact) < 1e-4 * exact
    assert (slope - exact_slope).norm() < 1e-3 * exact_slope.norm()


def test_strided_input():
    z, a = gaussian(6, 30).T, directions_for(20, 12)[:, ::2]
    torch.testing.assert_close(sliced_sigreg(z, a), plain_sliced_sigreg(z, a))


class Largest(TorchDispatchMode):
    """The largest tensor that any operation returns."""

    def __init__(self):
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for leaf in torch.utils._pytree.tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.entries = max(self.entries, leaf.untyped_storage().nbytes() // leaf.element_size())
        return out


def test_no_tensor_of_samples_by_slices_by_knots(monkeypatch):
    n, d, m = 512, 8, 1024
    z, a = gaussian(n, d).float().requires_grad_(), directions_for(m, d).float()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with Largest() as plain:
        plain_sliced_sigreg(z, a).backward()
    with Largest() as fast:
        sliced_sigreg(z, a).backward()
    assert plain.entries == n * m * 17
    assert fast.entries == n * m  # the projections; never times the knots
    with Largest() as free:
        slice_free_sigreg(gaussian(3000, 4).float().requires_grad_()).backward()
    assert free.entries <= 2**16  # of 9 million pairs
