"""The terms of the loss for few labels: closed forms, limits and invariances."""

import math

import pytest
import torch
import torch.nn.functional as F

from sigreg.gaussian_regularization import random_directions, sliced_sigreg
from sigreg.semi_supervised import class_sigreg, consistency_loss, sigreg_weight, standard_code_rate, variance_between


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# ---------------------------------------------------------------- the law of the codes


def test_rate_of_a_standard_code_is_that_of_the_gaussian_channel():
    sigma, dim = 0.3, 7
    mean = math.sqrt(1 - sigma**2) * torch.linalg.qr(normal(dim, dim))[0]  # W = A X + sigma noise has the law N(0, I)
    covariance = mean @ mean.T + sigma**2 * torch.eye(dim, dtype=torch.float64)
    torch.testing.assert_close(covariance, torch.eye(dim, dtype=torch.float64))
    rate = 0.5 * torch.logdet(covariance) - dim * math.log(sigma)
    assert standard_code_rate(dim, sigma) == pytest.approx(rate.item(), abs=1e-12)
    assert standard_code_rate(dim, 1.0) == 0


@pytest.mark.parametrize("dim", [1, 3, 16])
def test_weight_counts_small_errors_in_nats(dim):
    """Gaussian codes of scale s, or of mean m, in place of N(0, I): SIGReg by quadrature against the divergence."""
    t = torch.linspace(-9, 9, 4001, dtype=torch.float64)

    def integrate(gap):
        return torch.trapezoid(gap.abs().square() * torch.exp(-(t**2) / 2), t).item()

    def weighted(gap):
        return sigreg_weight(dim, 1) * integrate(gap)  # N = 1: the statistic over N

    target, e = torch.exp(-(t**2) / 2), 1e-3
    scale = weighted(torch.exp(-((t * (1 + e)) ** 2) / 2) - target)
    divergence = 0.5 * dim * ((1 + e) ** 2 - 1 - 2 * math.log1p(e))
    assert scale == pytest.approx(divergence, rel=5e-3)
    # the mean (e, 0, ..., 0) is seen by a direction a as a_1 e, and E a_1^2 = 1 / D
    shift = weighted((torch.exp(1j * t * e) - 1) * target) / dim
    assert shift == pytest.approx(2 * 0.5 * e**2, rel=5e-3)


def test_weight_falls_with_the_batch_and_grows_with_the_dimension():
    assert sigreg_weight(8, 100) == pytest.approx(2 * sigreg_weight(8, 200)) == pytest.approx(2 * sigreg_weight(4, 100))
    assert sigreg_weight(8, 100, nats=0.0) == 0


def test_class_sigreg_is_sigreg_of_the_residuals():
    w, labels = normal(60, 4), torch.arange(60) % 3
    directions = random_directions(16, 4, generator=torch.Generator().manual_seed(1), dtype=w.dtype)
    one_hot = F.one_hot(labels, 3).double()
    residual = torch.cat([w[labels == y] - w[labels == y].mean(0) for y in range(3)])
    expected = sliced_sigreg(residual / 0.7, directions)
    torch.testing.assert_close(class_sigreg(w, one_hot, 0.7, directions), expected)
    moved = w + 100 * normal(3, 4, seed=2)[labels]  # where the classes lie does not matter
    torch.testing.assert_close(class_sigreg(moved, one_hot, 0.7, directions), expected)


def test_class_sigreg_with_one_class_is_sigreg_without_the_mean():
    w, directions = normal(50, 3), torch.eye(3, dtype=torch.float64)
    value = class_sigreg(w, torch.ones(50, 1, dtype=torch.float64), 1.0, directions)
    torch.testing.assert_close(value, sliced_sigreg(w - w.mean(0), directions))


def test_mixture_pays_what_one_gaussian_forbids():
    labels = torch.arange(400) % 2
    w = 0.3 * normal(400, 2) + 8.0 * labels[:, None]
    directions = torch.eye(2, dtype=torch.float64)
    assert class_sigreg(w, F.one_hot(labels, 2).double(), 0.3, directions) < 3
    assert sliced_sigreg((w - w.mean(0)) / w.std(0), directions) > 20


def test_class_sigreg_sends_no_gradient_through_beliefs():
    w = normal(20, 3).requires_grad_()
    scores = normal(20, 2, seed=1).requires_grad_()
    generator = torch.Generator().manual_seed(0)
    class_sigreg(w, scores.softmax(1), 1.0, torch.eye(3, dtype=torch.float64), generator).backward()
    assert scores.grad is None and w.grad.abs().max() > 0


def test_consistency_is_cross_entropy_where_sure():
    weak, strong = 4 * normal(50, 5), normal(50, 5, seed=1)
    sure, label = weak.softmax(1).max(1)
    terms = -strong.log_softmax(1)[torch.arange(50), label]
    for threshold in (0.0, 0.5, 0.99):
        expected = terms[sure > threshold].sum() / 50
        torch.testing.assert_close(consistency_loss(weak, strong, threshold), expected)
    weak.requires_grad_()
    strong.requires_grad_()
    consistency_loss(weak, strong).backward()
    assert weak.grad is None and strong.grad is not None


@pytest.mark.parametrize("place", [0, 1])
def test_consistency_never_drops_nan(place):
    views = [4 * normal(50, 5), normal(50, 5, seed=1)]
    views[place][3, 2] = torch.nan
    assert consistency_loss(*views).isnan()


def test_variance_between_does_not_see_rotation_scale_or_shift():
    w, labels = normal(90, 4) + 2 * torch.eye(4, dtype=torch.float64)[torch.arange(90) % 3], torch.arange(90) % 3
    share = variance_between(w, labels)
    rotation = torch.linalg.qr(normal(4, 4, seed=1))[0]
    assert variance_between(3 * w @ rotation - 5, labels) == pytest.approx(share, abs=1e-12)
    assert variance_between(torch.eye(3)[labels], labels) == pytest.approx(1.0)
    centred = torch.cat([w[labels == y] - w[labels == y].mean(0) for y in range(3)])
    assert variance_between(centred, torch.arange(3).repeat_interleave(30)) == pytest.approx(0.0, abs=1e-12)
    within = sum((w[labels == y] - w[labels == y].mean(0)).square().sum() for y in range(3))
    total = (w - w.mean(0)).square().sum()
    assert share == pytest.approx(1 - (within / total).item(), abs=1e-12)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: standard_code_rate(0, 0.5), "dim"),
        (lambda: standard_code_rate(3, 1.5), "sigma"),
        (lambda: sigreg_weight(3, 0), "count"),
        (lambda: sigreg_weight(3, 10, -1.0), "nats"),
        (lambda: class_sigreg(torch.zeros(3, 2), torch.ones(4, 1), 1.0, torch.eye(2)), "responsibilities"),
        (lambda: class_sigreg(torch.zeros(2, 2), torch.tensor([[-1.0, 2], [1, 0]]), 1.0, torch.eye(2)), "responsib"),
        (lambda: class_sigreg(torch.zeros(2, 2), torch.tensor([[0.0, 0], [1, 0]]), 1.0, torch.eye(2)), "responsib"),
        (lambda: class_sigreg(torch.zeros(3, 2), torch.ones(3, 1), 0.0, torch.eye(2)), "scale"),
        (lambda: consistency_loss(torch.zeros(3, 2), torch.zeros(2, 2)), "shape"),
        (lambda: consistency_loss(torch.zeros(3, 2), torch.zeros(3, 2), 1.0), "threshold"),
        (lambda: variance_between(torch.ones(4, 2), torch.arange(4)), "variance"),
    ],
)
def test_bad_values_are_named(call, word):
    with pytest.raises(ValueError, match=word):
        call()


def test_wrong_types_are_named():
    with pytest.raises(TypeError, match="w must"):
        class_sigreg([[1.0]], torch.ones(1, 1), 1.0, torch.eye(1))
