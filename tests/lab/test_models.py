"""The networks of the chapters: ranges, shapes, views treated alike, and norms that are moments."""

import pytest
import torch
from torch import nn
from toys import normal, pictures, small_network

from sigreg.lab.models import (
    LOG_STD_LIMIT,
    BottleneckClassifier,
    ConvEncoder,
    GaussianEncoder,
    SharedBatchNorm,
    ViewNetwork,
    mlp,
    refresh_norms,
)


def test_standard_deviations_stay_in_range_and_start_free():
    encoder = GaussianEncoder(in_features=4, hidden=(), latent_dim=2)
    with torch.no_grad():
        encoder.network[0].weight.copy_(torch.eye(4))
        encoder.network[0].bias.zero_()
    raw = torch.tensor([[0.0, 0.0, 1e6, -1e6], [1.0, 2.0, 1e-3, 0.0]])
    mean, log_std = encoder(raw)
    torch.testing.assert_close(mean, raw[:, :2])
    torch.testing.assert_close(log_std[0], torch.tensor([LOG_STD_LIMIT, -LOG_STD_LIMIT]))
    torch.testing.assert_close(log_std[1], raw[1, 2:])  # the identity near zero


def test_a_code_is_its_mean_plus_scaled_noise():
    torch.manual_seed(0)
    network = BottleneckClassifier(in_features=12, hidden=(7, 5), latent_dim=3, num_classes=4)
    x, noise = torch.randn(6, 3, 2, 2), torch.randn(6, 3)
    code = network(x, noise)
    torch.testing.assert_close(code.w - code.mean, code.log_std.exp() * noise)
    torch.testing.assert_close(code.logits, network.decoder(code.w))
    torch.testing.assert_close(network(x, torch.zeros(6, 3)).w, code.mean)
    assert [m.out_features for m in network.encoder.network if hasattr(m, "out_features")] == [7, 5, 6]


def test_network_treats_every_view_alike():
    network = ViewNetwork(ConvEncoder((4, 8), (2, 2)), hidden=(16,), latent_dim=3).eval()
    one, two = pictures(6), pictures(6, seed=1)
    z = network(one, two)
    assert z.shape == (2, 6, 3)
    torch.testing.assert_close(z, torch.stack([network(one)[0], network(two)[0]]))
    torch.testing.assert_close(z[0], network.projector(network.encoder(one)))


def test_small_views_need_pooling():
    views = pictures(6), pictures(6, size=14), pictures(6, seed=2)
    pooled = ViewNetwork(ConvEncoder((4, 8), (2, 2)), hidden=(16,), latent_dim=3, pool=1).eval()
    z = pooled(*views)
    torch.testing.assert_close(z[1], pooled(views[1])[0])
    maps = pooled.encoder(views[0]).view(6, 8, 7, 7)
    torch.testing.assert_close(z[0], pooled.projector(maps.mean((2, 3))))
    with pytest.raises(ValueError, match="pool"):
        ViewNetwork(ConvEncoder((4, 8), (2, 2)))(*views)


def test_decoder_does_not_see_free_dimensions():
    network, images = small_network(dim=6, read=2), normal(4, 1, 28, 28, dtype=torch.float32)
    network.eval()
    noise = torch.zeros(4, 6)
    noise[:, 2:] = 5.0
    torch.testing.assert_close(network(images, noise).logits, network(images).logits)
    assert not torch.allclose(network(images, noise).w, network(images).mean)


def test_refreshed_norms_are_the_moments_of_the_images():
    images = normal(12, 1, 28, 28, dtype=torch.float32)
    network = small_network()
    before = [p.clone() for p in network.parameters()]
    refresh_norms(network, images, batch_size=12)
    layer = next(m for m in network.modules() if isinstance(m, SharedBatchNorm))
    maps = network.encoder.network[0](images)
    torch.testing.assert_close(layer.running_mean, maps.mean((0, 2, 3)))
    torch.testing.assert_close(layer.running_var, maps.var((0, 2, 3)))
    assert layer.momentum == 0.1 and network.training
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_shared_batch_norm_alone_is_torchs():
    generator = torch.Generator().manual_seed(0)
    mine, its = SharedBatchNorm(5), nn.BatchNorm2d(5)
    for _ in range(3):
        x = 2 + 3 * torch.randn(8, 5, 3, 3, generator=generator)
        torch.testing.assert_close(mine(x), its(x))
    torch.testing.assert_close(mine.running_var, its.running_var)
    torch.testing.assert_close(mine.eval()(x), its.eval()(x))


def test_bad_models_are_named():
    with pytest.raises(ValueError, match="read"):
        small_network(dim=3, read=4)
    with pytest.raises(ValueError, match="widths must name at least input and output"):
        mlp((3,))
    with pytest.raises(TypeError, match="images"):
        refresh_norms(small_network(), torch.zeros(2, 1, 28, 28, dtype=torch.long))


def test_a_layer_before_a_norm_has_no_bias_that_the_norm_would_take_out():
    biased = [
        m
        for m in ViewNetwork(ConvEncoder(), hidden=(16,), latent_dim=4).modules()
        if getattr(m, "bias", None) is not None
    ]
    assert {type(m).__name__ for m in biased} == {"SharedBatchNorm", "Linear"}
    assert sum(isinstance(m, nn.Linear) for m in biased) == 1  # the last layer, which has none behind it
