"""Judges of codes: scikit-learn's probe and neighbours, known spectra, evaluation mode."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from sigreg.evaluation import accuracy, effective_rank, features, knn_accuracy, linear_probe


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def clouds(n=300, f=6, classes=3, seed=0, spread=1.5):
    generator = seeded(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    centres = spread * torch.randn(classes, f, generator=seeded(99), dtype=torch.float64)
    stretch = torch.logspace(-1, 1, f, dtype=torch.float64)
    return (centres[labels] + torch.randn(n, f, generator=generator, dtype=torch.float64)) * stretch + 3, labels


def test_probe_is_scikit_learns():
    (x, y), (test_x, test_y) = clouds(), clouds(200, seed=1)
    found = linear_probe(x, y, test_x, test_y, ridge=0.01, max_iter=1000)
    mean, std = x.mean(0), x.std(0, correction=0)
    theirs = LogisticRegression(C=1 / (0.01 * len(x)), tol=1e-10, max_iter=10_000).fit((x - mean) / std, y)
    torch.testing.assert_close(found.weight.T, torch.as_tensor(theirs.coef_), atol=1e-5, rtol=1e-4)
    assert found.accuracy == theirs.score((test_x - mean) / std, test_y)
    assert found.train_accuracy == theirs.score((x - mean) / std, y)


def test_probe_ends_at_a_stationary_point():
    (x, y), (test_x, test_y) = clouds(), clouds(200, seed=1)
    found = linear_probe(x, y, test_x, test_y, ridge=0.01, max_iter=1000)
    weight, bias = found.weight.requires_grad_(), found.bias.requires_grad_()
    scores = (x - x.mean(0)) / x.std(0, correction=0) @ weight + bias
    value = F.cross_entropy(scores, y) + 0.005 * weight.square().sum()
    for gradient in torch.autograd.grad(value, (weight, bias)):
        assert gradient.abs().max() < 1e-5
    assert found.gradient < 1e-5


def test_probe_does_not_see_scale_or_shift_and_survives_a_constant_feature():
    (x, y), (test_x, test_y) = clouds(), clouds(200, seed=1)
    plain = linear_probe(x, y, test_x, test_y)
    moved = linear_probe(5 - 100 * x, y, 5 - 100 * test_x, test_y)
    assert moved.accuracy == plain.accuracy
    constant = torch.cat([x, torch.full((len(x), 1), 7.0)], 1), torch.cat([test_x, torch.full((200, 1), 7.0)], 1)
    assert linear_probe(constant[0], y, constant[1], test_y).accuracy == plain.accuracy
    with pytest.raises(ValueError, match="NaN"):
        linear_probe(x * math.nan, y, test_x, test_y)
    with pytest.raises(ValueError, match="equal F"):
        linear_probe(x, y, test_x[:, 1:], test_y)


def test_probe_chooses_its_ridge_on_held_out_images():
    """Two classes that differ by a hundredth of the size of the features: a large ridge cannot read them."""
    generator = seeded()
    y, test_y = torch.arange(400) % 2, torch.arange(400) % 2
    loud, quiet = torch.randn(2, 2, 400, generator=generator, dtype=torch.float64)
    x, test_x = (torch.stack([a, a + 0.01 * (2 * y - 1 + 0.3 * b)], 1) for a, b in zip(loud, quiet, strict=True))
    fixed = {r: linear_probe(x, y, test_x, test_y, ridge=r).accuracy for r in (1e-6, 1e-2)}
    chosen = linear_probe(x, y, test_x, test_y, ridge=(1e-2, 1e-6))
    assert fixed[1e-2] < 0.7 < 0.95 < fixed[1e-6] and chosen.accuracy == fixed[1e-6] and chosen.ridge == 1e-6
    assert chosen.right.double().mean() == chosen.accuracy and chosen.right.shape == (400,)
    with torch.no_grad():
        assert linear_probe(x, y, test_x, test_y, ridge=1e-6).accuracy == chosen.accuracy
    noise, test_noise = torch.randn(2, 60, 50, generator=generator, dtype=torch.float64)
    assert linear_probe(noise, torch.ones(60, dtype=torch.long), test_noise, y[:60], ridge=[1e-4, 1.0]).ridge == 1.0
    with pytest.raises(ValueError, match="empty sequence"):
        linear_probe(x, y, test_x, test_y, ridge=())
    with pytest.raises(ValueError, match="5 training images"):
        linear_probe(x[:4], y[:4], test_x, test_y, ridge=(1.0, 2.0))


def test_neighbours_are_scikit_learns():
    (x, y), (test_x, test_y) = clouds(), clouds(200, seed=1)
    theirs = KNeighborsClassifier(7, metric="cosine", algorithm="brute").fit(x, y)
    assert knn_accuracy(x, y, test_x, test_y, k=7) == pytest.approx(theirs.score(test_x, test_y))
    assert knn_accuracy(x, y, test_x, test_y, k=7, batch_size=13) == knn_accuracy(x, y, test_x, test_y, k=7)
    with pytest.raises(ValueError, match="k must"):
        knn_accuracy(x, y, test_x, test_y, k=301)


def test_effective_rank_of_known_spectra():
    q = torch.linalg.qr(torch.randn(50, 5, generator=seeded(), dtype=torch.float64)).Q
    q = torch.linalg.qr(q - q.mean(0)).Q  # orthonormal columns of mean zero
    assert effective_rank(q) == pytest.approx(5)
    assert effective_rank(q * torch.tensor([1.0, 1, 1, 0, 0])) == pytest.approx(3, rel=1e-4)
    assert effective_rank(q[:, :1] @ torch.ones(1, 5, dtype=torch.float64)) == pytest.approx(1, rel=1e-4)
    p = torch.tensor([4.0, 2, 1, 1, 1], dtype=torch.float64) / 9
    expected = torch.exp(-(p * p.log()).sum()).item()
    assert effective_rank(7 + q * p) == pytest.approx(expected)
    assert effective_rank(torch.full((9, 3), 2.7)) == 0.0 and effective_rank(torch.zeros(9, 3)) == 0.0


def test_features_are_those_of_evaluation_mode():
    encoder = nn.Sequential(nn.Conv2d(1, 4, 5, 4), nn.BatchNorm2d(4), nn.Flatten()).train()
    images = torch.randn(10, 1, 28, 28, generator=seeded())
    found = features(encoder, images, batch_size=3)
    assert encoder.training and not found.requires_grad
    torch.testing.assert_close(found, encoder.eval()(images))


def test_accuracy_counts():
    class Code(nn.Module):
        def forward(self, images):
            return SimpleNamespace(logits=images.flatten(1)[:, :3])

    images = torch.randn(25, 1, 28, 28, generator=seeded())
    guess = images[:, 0, 0, :3].argmax(1)
    assert accuracy(Code(), images, guess, batch_size=7) == 1
    assert accuracy(Code(), images, (guess + 1) % 3) == 0
    guess[:10] = (guess[:10] + 1) % 3
    assert accuracy(Code(), images, guess) == 0.6


def test_a_probe_reads_small_features_as_it_reads_large_ones():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(200, 3, generator=g, dtype=torch.float64) * torch.tensor([1.0, 0.1, 0.01])
    y = (x[:, 1] > 0).long()
    large, small = (linear_probe(s * x, y, s * x, y, ridge=1e-3) for s in (1.0, 1e-5))
    torch.testing.assert_close(small.weight, large.weight, rtol=1e-4, atol=1e-4)
    assert large.accuracy > 0.97


def test_features_that_carry_a_graph_are_probed_without_it():
    x = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    y = torch.arange(30) % 3
    grown = (2 * x.clone().requires_grad_()).div(2)
    assert linear_probe(grown, y, grown, y).accuracy == linear_probe(x, y, x, y).accuracy
