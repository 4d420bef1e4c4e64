"""The loss of Chapter 6: its rate against divergences and the Gaussian toy, and the sum of its parts."""

import math

import pytest
import torch

from sigreg.gaussian_regularization import slice_free_sigreg
from sigreg.self_supervised import view_prediction_loss, view_prediction_rate


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_rate_is_the_divergence_of_the_two_gaussians():
    z = torch.randn(2, 7, 3, generator=seeded(), dtype=torch.float64)
    one, two = (torch.distributions.Normal(mean, 0.3) for mean in z)
    divergence = torch.distributions.kl_divergence(one, two).sum(1).mean()
    torch.testing.assert_close(view_prediction_rate(z, 0.3), divergence)


def test_rate_of_many_views_is_the_mean_over_pairs():
    z = torch.randn(5, 7, 3, generator=seeded(), dtype=torch.float64)
    pairs = [view_prediction_rate(z[[i, j]], 0.7) for i in range(5) for j in range(i)]
    torch.testing.assert_close(view_prediction_rate(z, 0.7), torch.stack(pairs).mean())


def test_rate_is_an_upper_bound_on_the_conditional_rate():
    """Gaussian toy: X' and X share S, W = a X + sigma noise; both rates are known."""
    n, a, sigma, within = 200_000, 0.8, 0.3, 0.5
    s = torch.randn(n, 1, generator=seeded(), dtype=torch.float64)
    x, other = (s + within * torch.randn(n, 1, generator=seeded(k), dtype=torch.float64) for k in (1, 2))
    shown = view_prediction_rate(a * torch.stack([x, other]), sigma).item()
    assert shown == pytest.approx(a**2 * within**2 / sigma**2, rel=0.02)
    given = within**2 + within**2 / (1 + within**2)  # Var(X | X')
    assert shown > 0.5 * math.log1p(a**2 * given / sigma**2)


def test_only_lambda_times_the_noise_variance_matters():
    z = torch.randn(2, 64, 4, generator=seeded(), requires_grad=True)
    gradients = []
    for weight, sigma in ((0.9, 1.0), (3.6, 0.5), (90.0, 0.1)):
        loss = view_prediction_loss(z, seeded(1), weight=weight, sigma=sigma)["loss"]
        gradients.append(torch.autograd.grad(loss * sigma**2, z)[0])
    torch.testing.assert_close(gradients[0], gradients[1])
    torch.testing.assert_close(gradients[0], gradients[2], atol=1e-5, rtol=1e-4)


def test_parts_of_the_loss():
    z = 0.5 * torch.randn(2, 100, 6, generator=seeded(), dtype=torch.float64)
    found = view_prediction_loss(z, seeded(), weight=2.0, sigma=0.5, num_slices=None)
    torch.testing.assert_close(found["loss"], found["rate"] + 2 * found["sigreg"])
    torch.testing.assert_close(found["sigreg"], slice_free_sigreg(z))
    noisy = view_prediction_loss(z, seeded(), weight=2.0, sigma=math.sqrt(0.75), num_slices=None, noise=True)
    assert noisy["sigreg"] < 2 < 5 < found["sigreg"]  # 0.25 + 0.75 = 1: the noise fills up the law
    with pytest.raises(ValueError, match="weight"):
        view_prediction_loss(z, weight=-1.0)
    with pytest.raises(ValueError, match="sigma"):
        view_prediction_rate(z, 0.0)
    with pytest.raises(ValueError, match="two views"):
        view_prediction_rate(z[:1])
