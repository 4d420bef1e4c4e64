"""Kummer's function: scipy, closed forms, limits and derivatives."""

import itertools
import math

import pytest
import torch

from sigreg._kummer import kummer


@pytest.mark.parametrize("d", [1, 2, 3, 8, 64, 512, 4096])
def test_kummer_against_scipy(d):
    special = pytest.importorskip("scipy.special")
    u = torch.cat([torch.zeros(1, dtype=torch.float64), torch.logspace(-9, 9, 91, dtype=torch.float64)])
    for a, b in ((0.5, d / 2), (1.5, d / 2 + 1)):
        expected = torch.from_numpy(special.hyp1f1(a, b, -u.numpy()))
        torch.testing.assert_close(kummer(a, b, u), expected, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(kummer(a, b, u.float()), expected.float(), rtol=1e-5, atol=1e-6)


def test_kummer_closed_forms_limits_and_derivatives():
    u = torch.logspace(-6, 6, 61, dtype=torch.float64)
    bessel = torch.special.i0e(u / 2)  # D = 2
    torch.testing.assert_close(kummer(0.5, 1.0, u), bessel, rtol=1e-12, atol=0)
    error = math.sqrt(math.pi) / 2 * torch.erf(u.sqrt()) / u.sqrt()  # D = 3
    torch.testing.assert_close(kummer(0.5, 1.5, u), error, rtol=1e-12, atol=0)
    gaps = [(kummer(0.5, d / 2, u * d / 2) - (1 + u) ** -0.5).abs().max() for d in (16, 64, 256, 1024)]
    for coarse, fine in itertools.pairwise(gaps):  # the inverse multiquadric, at rate 1 / D
        assert fine < coarse / 3.5
    u = torch.tensor([0.0, 0.1, 1.0, 7.0, 100.0], dtype=torch.float64, requires_grad=True)
    for d in (1, 2, 5, 64):
        assert torch.autograd.gradcheck(lambda u, d=d: kummer(0.5, d / 2, u), u[1:].detach().requires_grad_())
        assert torch.autograd.gradgradcheck(lambda u, d=d: kummer(0.5, d / 2, u), u[1:].detach().requires_grad_())
        slope_at_zero = torch.autograd.grad(kummer(0.5, d / 2, u)[0], u)[0][0]
        assert slope_at_zero.item() == pytest.approx(-1 / d)
    ends = kummer(0.5, 2.0, torch.tensor([0.0, math.inf, math.nan]))
    assert ends[0] == 1 and ends[1] == 0 and ends[2].isnan()


@pytest.mark.parametrize("a, b", [(4, 8), (7.5, 8), (12, 32), (100, 128), (255, 256)])
def test_kummer_of_planes_is_a_mean_over_the_beta_law(a, b):
    """1F1(a; b; -u) is the mean of exp(-u t) for t of the law Beta(a, b - a): Gauss and Jacobi's nodes integrate it."""
    special = pytest.importorskip("scipy.special")
    u = torch.logspace(-3, 2.5, 50, dtype=torch.float64)
    node, weight = special.roots_jacobi(400, b - a - 1, a - 1)
    exact = torch.exp(-torch.outer(u, torch.tensor(node + 1) / 2)) @ torch.tensor(weight / weight.sum())
    torch.testing.assert_close(kummer(float(a), float(b), u), exact, rtol=0, atol=1e-12)
