"""The loop that does not wait: the views and the steps of the loop that does."""

import copy

import pytest
import torch

from sigreg.lab.data import MEAN, STD
from sigreg.lab.fit import fit
from sigreg.lab.loop import FeatureStream, ViewStream, fit_on_device
from sigreg.lab.views import BACKGROUND, random_views, resample, view_maps
from sigreg.self_supervised import view_prediction_loss

cuda = pytest.mark.cuda


def seeded(seed=0, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


def some_pixels(n=40, device="cpu"):
    return torch.randint(256, (n, 28, 28), dtype=torch.uint8, generator=seeded(), device=device)


def stream_of(pixels, batch_size=8, seed=0, **settings):
    labels = torch.arange(len(pixels), device=pixels.device)
    return ViewStream(pixels, labels, batch_size=batch_size, generator=seeded(seed, pixels.device), **settings)


def test_one_draw_of_numbers_gives_one_view():
    images = torch.randn(6, 1, 28, 28, generator=seeded(1))
    maps, gain = view_maps(torch.rand(7, 6, generator=seeded(2)), scale=(0.4, 0.9), degrees=20)
    expected = random_views(images, seeded(2), scale=(0.4, 0.9), degrees=20, size=20)
    torch.testing.assert_close(BACKGROUND + resample(images - BACKGROUND, maps, gain, 20), expected)


def test_bytes_on_the_device_give_the_views_of_normalised_images():
    stream = stream_of(some_pixels(), size=24)
    stream.draw()
    views, labels = stream.batch(torch.tensor([2]))
    images = (stream.pixels[labels].unsqueeze(1).float() / 255 - MEAN) / STD
    for k, view in enumerate(views):
        mine = slice(8 * k, 8 * k + 8)
        expected = BACKGROUND + resample(images - BACKGROUND, stream.maps[2, mine], stream.gain[2, mine], 24)
        torch.testing.assert_close(view, expected)
    assert not torch.equal(views[0], views[1])


def test_a_pass_shows_every_image_once_and_the_next_in_another_order():
    stream = stream_of(some_pixels())
    stream.draw()
    first = stream.order.clone()
    stream.draw()
    assert first.flatten().sort().values.tolist() == list(range(40))
    assert not torch.equal(first, stream.order)


class Fixed:
    """Batches that both loops can be shown."""

    def __init__(self, batches):
        self.batches, self.steps = batches, len(batches)

    def draw(self):
        pass

    def batch(self, step):
        return (self.batches[int(step)],)


def test_it_takes_the_steps_of_the_loop_that_waits():
    batches = [torch.randn(16, 5, generator=seeded(k)) for k in range(12)]
    one = torch.nn.Sequential(torch.nn.Linear(5, 7, bias=False), torch.nn.BatchNorm1d(7), torch.nn.Linear(7, 3))
    other = copy.deepcopy(one)

    def loss(network, batch, generator=None):
        value = (network(batch[0]) - 1).square().mean()
        return {"loss": value, "twice": 2 * value}

    expected = fit(one, loss, [(b,) for b in batches] * 2, lr=0.05, weight_decay=0.1)
    found = fit_on_device(other, loss, Fixed(batches), passes=2, lr=0.05, weight_decay=0.1)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    for name in ("loss", "twice"):
        torch.testing.assert_close(found[name], torch.tensor([h[name] for h in expected]))


def test_a_loss_that_is_not_finite_is_named_with_its_step():
    steps = []

    def loss(network, batch, generator):
        steps.append(1)
        return network(batch[0]).mean() * (float("nan") if len(steps) == 7 else 1.0)

    with pytest.raises(ValueError, match=r"at step 7: lower lr=0\.1"):
        fit_on_device(torch.nn.Linear(5, 1), loss, Fixed([torch.ones(4, 5)] * 5), passes=3, lr=0.1)
    assert len(steps) == 10  # found at the end of the second pass


def test_a_layer_alone_learns_from_features():
    features = torch.randn(2, 200, 3, generator=seeded())
    stream = FeatureStream(features, batch_size=32, steps=150, generator=seeded(1))
    layer, calls = torch.nn.Linear(3, 1), []

    def loss(layer, batch, generator):
        return (layer(batch[0]) - batch[0][..., :1]).square().mean()

    history = fit_on_device(layer, loss, stream, passes=1, lr=0.1, after_step=lambda: calls.append(1))
    assert history["loss"][-1] < 1e-3 and len(calls) == 150


@pytest.mark.parametrize(
    ("pixels", "batch_size", "error", "what"),
    [
        (torch.zeros(4, 28, 28), 2, TypeError, "pixels must be bytes"),
        (torch.zeros(4, 28, 28, dtype=torch.uint8), 5, ValueError, "batch_size must lie in 1..4"),
    ],
)
def test_wrong_streams_are_refused(pixels, batch_size, error, what):
    with pytest.raises(error, match=what):
        ViewStream(pixels, torch.arange(4), batch_size=batch_size, generator=seeded())


class Codes(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3, 2), torch.nn.Flatten(), torch.nn.LazyLinear(6))

    def forward(self, views):
        return torch.stack([self.layers(view) for view in views])


def run_on_gpu(capture, look=False, autocast=None):
    torch.manual_seed(0)
    network = Codes()
    network(torch.zeros(2, 4, 1, 20, 20))
    network.cuda()
    stream = stream_of(some_pixels(320, "cuda"), batch_size=64, size=20)

    def loss(network, batch, generator):
        found = view_prediction_loss(network(batch[0]), generator, weight=1.0, num_slices=32)
        if look:
            found["loss"].item()
        return found

    history = fit_on_device(
        network, loss, stream, passes=3, lr=1e-2, generator=seeded(5, "cuda"), autocast=autocast, capture=capture
    )
    return network, history["loss"].cpu()


@cuda
@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_cuda_a_captured_step_is_the_eager_one(autocast):
    (one, losses), (other, eager) = (run_on_gpu(capture, autocast=autocast) for capture in (True, False))
    tolerance = {"rtol": 2e-2, "atol": 1e-2} if autocast else {"rtol": 1e-3, "atol": 1e-4}
    torch.testing.assert_close(losses, eager, **tolerance)
    assert len(set(losses.tolist())) == 15  # every replay draws afresh
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, **{**tolerance, "atol": 2e-2})


@cuda
def test_cuda_a_step_that_looks_at_a_value_runs_eagerly(capfd):
    _, losses = run_on_gpu(capture=True, look=True)
    assert "not captured, steps run eagerly" in capfd.readouterr().err
    torch.testing.assert_close(losses, run_on_gpu(capture=False)[1], rtol=1e-3, atol=1e-4)
