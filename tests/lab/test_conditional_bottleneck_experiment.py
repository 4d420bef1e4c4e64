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
