"""Training together must be training alone, done at once."""

import copy
import math

import pytest
import torch

from sigreg.lab.batches import Minibatches
from sigreg.lab.models import BottleneckClassifier
from sigreg.lab.objectives import RATES, bottleneck_objective
from sigreg.lab.stack import NetworkStack, train_stack


def networks(count, seed=0):
    torch.manual_seed(seed)
    return [BottleneckClassifier(in_features=6, hidden=(5,), latent_dim=2, num_classes=3) for _ in range(count)]


def data(n=48, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 6, generator=generator), torch.arange(n) % 3


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


def test_the_dictionary_of_weights():
    """One beta aims at one objective: VIB weighs its rate by beta / (1 + beta)."""
    (net,) = networks(1)
    params = dict(net.named_parameters())
    batch = next(iter(Minibatches(*data(), batch_size=24, epochs=1, noise_dim=2, seed=1)))
    for method in RATES:
        zero, half, one = (bottleneck_objective(method)(net, params, batch, b).item() for b in (0.0, 1.0, 3.0))
        rate = RATES[method](net(batch[0], batch[2]), batch[1], params).item()
        weights = (0.5, 0.75) if method == "vib" else (1.0, 3.0)
        assert half - zero == pytest.approx(weights[0] * rate, rel=1e-4)
        assert one - zero == pytest.approx(weights[1] * rate, rel=1e-4)


def test_minibatches_cover_every_epoch_and_repeat():
    x, y = torch.arange(10.0)[:, None], torch.arange(10)
    batches = Minibatches(x, y, batch_size=5, epochs=3, noise_dim=2, seed=4)
    first, second = list(batches), list(batches)
    assert len(first) == len(batches) == 6
    for epoch in range(3):
        seen = torch.cat([labels for _, labels, _ in first[2 * epoch : 2 * epoch + 2]])
        assert sorted(seen.tolist()) == list(range(10))
    for one, two in zip(first, second, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
        assert torch.equal(one[0][:, 0].long(), one[1])
    other = next(iter(Minibatches(x, y, batch_size=5, epochs=3, noise_dim=2, seed=5)))
    assert not torch.equal(other[2], first[0][2])


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
    with pytest.raises(ValueError, match=r"batch_size must lie in 1\.\.48"):
        Minibatches(*data(), batch_size=49, epochs=1, noise_dim=2, seed=1)
    with pytest.raises(ValueError, match="method must be one of vib, "):
        bottleneck_objective("elbo")
