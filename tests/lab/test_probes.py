"""Probes on the device: the objective of the package's own probe, at every ridge at once."""

import torch

from sigreg.evaluation import linear_probe
from sigreg.lab.probes import RIDGES, chosen_probe, ridge_path


def some_features(n=400, f=12, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    x = torch.randn(n, f, generator=generator) * torch.linspace(0.05, 3, f) + 1
    x[:, :classes] += 0.1 * torch.eye(classes)[labels]
    return x, labels


def test_the_path_is_that_of_the_slow_probe():
    x, y = some_features()
    ridges = (0.3, 0.01)
    x = (x - x.mean(0)) / x.std(0, correction=0)
    weight, bias, gradient = ridge_path(x, y, ridges, steps=300)
    assert gradient.max() < 1e-5
    for k, ridge in enumerate(ridges):
        slow = linear_probe(x, y, x, y, ridge=ridge, max_iter=500)
        torch.testing.assert_close(weight[k], slow.weight, rtol=1e-2, atol=1e-3)
        torch.testing.assert_close(bias[k, 0] - bias[k].mean(), slow.bias - slow.bias.mean(), rtol=1e-2, atol=1e-3)


def test_the_ridge_is_the_best_on_what_was_held_out_and_the_test_set_has_no_say():
    x, y = some_features(seed=1)
    found = chosen_probe(x, y, x[:50], y[:50])
    assert found.held_out[RIDGES.index(found.ridge)] == max(found.held_out)
    other = chosen_probe(x, y, x[:50], (y[:50] + 1) % 3)
    assert other.ridge == found.ridge and other.held_out == found.held_out and other.accuracy < found.accuracy
    assert found.right.double().mean().item() == found.accuracy
    trial = chosen_probe(x, y, None, None)
    assert trial.held_out == found.held_out and trial.accuracy is None


def test_whitened_features_forget_their_axes():
    x, y = some_features(seed=2)
    turn = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(3)))[0]
    stretched = (x @ turn) * torch.linspace(0.2, 5, 12)
    plain, other = (chosen_probe(v[:300], y[:300], v[300:], y[300:], whiten=True) for v in (x, stretched))
    assert abs(plain.accuracy - other.accuracy) < 0.05
    assert max(abs(a - b) for a, b in zip(plain.held_out, other.held_out, strict=True)) < 0.08


def test_the_search_has_ended():
    x, y = some_features(seed=4)
    one, two = (ridge_path(x, y, (0.1, 0.001), steps=steps)[0] for steps in (60, 600))
    assert ((one - two).abs().amax((1, 2)) < 0.02 * two.abs().amax((1, 2))).all()
