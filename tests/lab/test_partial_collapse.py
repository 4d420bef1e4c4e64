"""The study of partial collapse, on features of which everything is known."""

import torch

from sigreg.lab.experiments import partial_collapse as study


def known_features(unshared, n=4000, seed=0):
    """Gaussian features (2, N, F) of variance 1 whose views differ by the given shares."""
    draw = torch.Generator().manual_seed(seed)
    common = (1 - unshared).sqrt() * torch.randn(n, len(unshared), generator=draw)
    return torch.stack([common + unshared.sqrt() * torch.randn(n, len(unshared), generator=draw) for _ in range(2)])


def test_water_meets_the_theorem():
    q = torch.linspace(0.05, 0.95, 12, dtype=torch.float64)
    v, threshold = study.water(q, 0.1, 256)
    alive = v > 1e-6
    a = study.sphere(12)
    price = -0.1 * 256 * (a * study.collapse_slope(a @ v)[:, None]).mean(0)
    torch.testing.assert_close(price[alive], q[alive], rtol=1e-3, atol=1e-3)  # item 2
    assert 2 < alive.sum() < 11 and (q[~alive] > price[~alive]).all()  # item 4
    assert q[alive].max() < threshold < q[~alive].min() + 0.1


def test_whitening_finds_the_unshared_parts_and_sorts_them():
    unshared = torch.tensor([0.9, 0.1, 0.5])
    mixed = known_features(unshared, 20_000) @ torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 3.0], [1.0, 0.0, 1.0]])
    g, found = study.whitened(mixed)
    torch.testing.assert_close(found, torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64), atol=0.02, rtol=0)
    torch.testing.assert_close(torch.cov(g.flatten(0, 1).T), torch.eye(3), atol=1e-3, rtol=0)


def test_a_layer_at_rest_fills_the_directions_that_the_features_promise():
    unit = {"batch_size": 128, "rest": 500, "num_slices": 128, "seed": 0}
    g, unshared = study.whitened(known_features(torch.linspace(0.05, 0.95, 10)))
    found = study.cell(g, unshared, 6, 0.2, unit)
    assert found["spectrum"] > 0.9 and found["item_2"] > 0.9, found
    assert abs(found["alive"] - found["alive_expected"]) <= 1, found
    wrong = study.r_squared(torch.tensor(found["variance"]), torch.tensor(found["expected"]).flip(0))
    assert wrong < 0  # the comparison can fail
