"""The networks of Chapter 3."""

import torch

from sigreg.lab.models import LOG_STD_LIMIT, BottleneckClassifier, GaussianEncoder


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
