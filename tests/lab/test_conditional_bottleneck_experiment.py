"""The judges and the units of the FashionMNIST comparison of Chapter 3."""

import math

import pytest
import torch

import sigreg.lab.experiments.conditional_bottleneck as experiment
from sigreg.lab.models import BottleneckClassifier
from sigreg.lab.records import table


def test_reliability_bins_and_error():
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(20_000, generator=generator).double()
    probabilities = torch.stack([p, 1 - p], 1)
    honest = (torch.rand(20_000, generator=generator) >= p).long()  # label 0 with probability p
    error, bins = experiment.reliability(probabilities, honest)
    assert error < 0.02 and sum(bins["count"]) == 20_000
    assert all(n == 0 for n in bins["count"][:7])  # of two classes the larger probability is at least 1/2
    for n, confidence, accuracy in zip(bins["count"], bins["confidence"], bins["accuracy"], strict=True):
        assert n == 0 or abs(confidence - accuracy) < 5 / (2 * math.sqrt(n))
    boast = torch.tensor([[0.99, 0.01]] * 10)
    assert experiment.reliability(boast, torch.tensor([0] * 5 + [1] * 5))[0] == pytest.approx(0.49)


def test_judge_of_a_network_that_knows():
    """Codes at the corners of a simplex, labels as the decoder says: everything is known in advance."""
    network = BottleneckClassifier(in_features=4, hidden=(), latent_dim=4, num_classes=4)
    with torch.no_grad():
        network.encoder.network[0].weight.zero_()
        network.encoder.network[0].weight[:4] = 10 * torch.eye(4)
        network.encoder.network[0].bias[:4], network.encoder.network[0].bias[4:] = 0, -1.0
        network.decoder.weight.copy_(10 * torch.eye(4))
        network.decoder.bias.zero_()
    labels = torch.arange(400) % 4
    found = experiment.evaluate(network, torch.eye(4)[labels], labels, seed=0)
    assert found["accuracy"] == found["accuracy_one"] == 1.0
    assert found["relevance"] == pytest.approx(math.log(4), abs=1e-3)
    assert found["rate"] == pytest.approx(math.log(4), abs=1e-3)
    assert found["conditional_rate"] == pytest.approx(0, abs=1e-4)
    assert found["ece"] < 1e-3


def test_units_name_what_they_depend_on_and_run():
    for preset in ("default", "full"):
        units = experiment.units(preset, range(2))
        assert len({str(sorted(u.items())) for u in units}) == len(units)
        assert {u["seed"] for u in units} == {0, 1}
    small = {"hidden": [8], "epochs": 1, "betas": [0.1, 1.0]}
    for part, method in (("sweep", "pairwise"), ("random_labels", "vib")):
        unit = next(u for u in experiment.units("default", range(1)) if u["part"] == part)
        unit = {**unit, "method": method, **small}
        first, second = (experiment.run_unit(unit, torch.device("cpu")) for _ in range(2))
        assert first == second and [n["beta"] for n in first["networks"]] == [0.1, 1.0]
    entry = {"unit": unit, "result": first}
    flat = table({"units": [entry]})
    assert flat.beta.tolist() == [0.1, 1.0] and set(flat.method) == {"vib"} and set(flat.part) == {"random_labels"}


def wide_network():
    """Means that are the first pixels, unit deviations, and a decoder that reads them off."""
    network = BottleneckClassifier(in_features=784, hidden=(), latent_dim=2, num_classes=2)
    with torch.no_grad():
        network.encoder.network[0].weight.zero_()
        network.encoder.network[0].bias.zero_()
        network.encoder.network[0].weight[:2, :2] = torch.eye(2)
        network.encoder.network[0].bias[2:] = -2.0
        network.decoder.weight.copy_(torch.eye(2))
        network.decoder.bias.zero_()
    return network


def test_codes_are_drawn_around_their_means_with_their_deviations():
    images, labels = torch.zeros(4000, 784), torch.zeros(4000, dtype=torch.long)
    with torch.no_grad():
        mean, log_std, draws, _, _ = experiment._predict(wide_network(), images, labels, seed=0)
    assert mean.abs().max() == 0
    assert draws.std().item() == pytest.approx(log_std.exp().mean().item(), rel=0.02)


def test_noise_that_stands_outside_has_the_range_of_the_images(monkeypatch):
    """In pixels of [-3, 1] uniform noise is as likely above as below -1."""
    seen, network = [], wide_network()
    images = torch.where(torch.rand(4000, 1, 28, 28, generator=torch.Generator().manual_seed(0)) < 0.5, -3.0, 1.0)
    monkeypatch.setattr(network.encoder, "forward", lambda x: seen.append(x) or (x[:, :2], x[:, :2] - x[:, :2] - 2))
    found = experiment.ood_auroc(network, images, seed=0)
    assert all(0 <= value <= 1 for value in found.values())
    noise = seen[-1]
    assert noise.min() >= -3 and noise.max() <= 1 and noise.mean().item() == pytest.approx(-1, abs=0.02)
    assert noise.std().item() == pytest.approx(4 / math.sqrt(12), rel=0.02)
