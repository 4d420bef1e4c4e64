"""Training together must be training alone, done at once."""

import copy
import math

import pytest
import torch
from toys import data, networks

from sigreg.lab.batches import Minibatches
from sigreg.lab.objectives import RATES, bottleneck_objective
from sigreg.lab.stack import NetworkStack, train_stack


def test_together_is_each_network():
    nets = networks(3)
    together = NetworkStack(nets)
    x, noise = data()[0], torch.zeros(48, 2)
    stacked = together(x, noise)
    for g, net in enumerate(nets):
        for mine, its, copied in zip(stacked, net(x, noise), together.network(g)(x, noise), strict=True):
            torch.testing.assert_close(mine[g], its)
            torch.testing.assert_close(copied, its)


@pytest.mark.parametrize("method", RATES)
def test_training_together_is_training_alone(method):
    nets = networks(3)
    before = copy.deepcopy([net.state_dict() for net in nets])
    betas = torch.tensor([0.0, 0.3, 2.0])
    batches = Minibatches(*data(), batch_size=24, epochs=4, noise_dim=2, seed=1)
    trained = train_stack(nets, bottleneck_objective(method), batches, betas, lr=1e-2)
    for g, net in enumerate(nets):
        alone = train_stack([net], bottleneck_objective(method), batches, betas[g : g + 1], lr=1e-2)
        for name, value in alone.params.items():
            torch.testing.assert_close(trained.params[name][g], value[0], rtol=1e-3, atol=1e-5)
        assert all(torch.equal(net.state_dict()[name], before[g][name]) for name in before[g])  # copied, not changed


def test_training_is_adam_with_a_cosine():
    """Against a plain loop with torch's own optimiser and scheduler."""
    (net,) = networks(1)
    batches = Minibatches(*data(), batch_size=16, epochs=2, noise_dim=2, seed=1)
    loss = bottleneck_objective("defensive")
    trained = train_stack([net], loss, batches, torch.tensor([0.1]), lr=1e-2)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(batches))
    for batch in batches:
        value = loss(net, dict(net.named_parameters()), batch, 0.1)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        cosine.step()
    for name, value in net.named_parameters():
        torch.testing.assert_close(trained.params[name][0], value.detach(), rtol=1e-3, atol=1e-5)


def test_scaled_learning_rates():
    nets = networks(1)
    batches = Minibatches(*data(), batch_size=48, epochs=1, noise_dim=2, seed=1)

    def step(lr_scale):
        loss = bottleneck_objective("variational_ceb")
        trained = train_stack(nets, loss, batches, torch.tensor([1.0]), lr=1e-3, lr_scale=lr_scale)
        before = dict(nets[0].named_parameters())
        return {name: (value[0] - before[name]).abs().max().item() for name, value in trained.params.items()}

    plain, scaled, frozen = step(None), step({"class_": 10.0}), step({"class_": 0.0})
    assert scaled["class_mean"] == pytest.approx(10 * plain["class_mean"], rel=1e-4)
    assert scaled["decoder.weight"] == plain["decoder.weight"] and frozen["class_mean"] == 0


def test_bad_input():
    nets = networks(2)
    batches = Minibatches(*data(), batch_size=24, epochs=1, noise_dim=2, seed=1)
    loss = bottleneck_objective("vib")
    with pytest.raises(ValueError, match="networks is empty"):
        NetworkStack([])
    with pytest.raises(ValueError, match="same names and shapes"):
        NetworkStack([torch.nn.Linear(2, 2), torch.nn.Linear(2, 3)])
    with pytest.raises(ValueError, match="one row per network, 2, got 3"):
        train_stack(nets, loss, batches, torch.zeros(3))
    with pytest.raises(ValueError, match="NaN or infinite"):
        train_stack(nets, loss, batches, torch.tensor([1.0, math.nan]))
