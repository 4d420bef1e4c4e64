"""Views, loss and judges of Chapter 6: invariances, identities, scikit-learn, and one process against two."""

import math

import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from sigreg.evaluation import effective_rank, features, knn_accuracy, linear_probe
from sigreg.gaussian_regularization import slice_free_sigreg
from sigreg.lab.batches import ViewBatches
from sigreg.lab.fit import fit
from sigreg.lab.models import ConvEncoder, ViewNetwork
from sigreg.lab.objectives import lejepa_objective
from sigreg.lab.views import BACKGROUND, random_views
from sigreg.self_supervised import view_prediction_loss, view_prediction_rate

STILL = {"scale": (1, 1), "ratio": 1, "flip": 0, "degrees": 0, "intensity": 0}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(n=16, size=28, seed=0):
    """Smooth random ink on black, normalised: (n, 1, size, size)."""
    coarse = torch.rand(n, 1, 7, 7, generator=seeded(seed))
    return BACKGROUND + 2 * F.interpolate(coarse, size=(size, size), mode="bilinear")


# ---------------------------------------------------------------- views


def test_a_flip_is_a_flip_and_half_of_them_happen():
    images = pictures(400)
    every = random_views(images, seeded(), **{**STILL, "flip": 1})
    torch.testing.assert_close(every, images.flip(3), atol=1e-4, rtol=0)
    views = random_views(images, seeded(), **{**STILL, "flip": 0.5})
    flipped = (views - images).abs().amax((1, 2, 3)) > 1e-3
    assert abs(flipped.float().mean() - 0.5) < 0.1
    torch.testing.assert_close(views[flipped], images[flipped].flip(3), atol=1e-4, rtol=0)


def test_intensity_scales_the_ink_and_leaves_the_background():
    images = pictures()
    images[:, :, :5] = BACKGROUND
    views = random_views(images, seeded(), **{**STILL, "intensity": 0.4})
    torch.testing.assert_close(views[:, :, :5], images[:, :, :5])
    gain = (views - BACKGROUND)[:, 0, 6:] / (images - BACKGROUND)[:, 0, 6:]
    per_image = gain.flatten(1)
    torch.testing.assert_close(per_image, per_image[:, :1].expand_as(per_image), atol=1e-3, rtol=1e-3)
    assert 0.6 <= per_image.min() and per_image.max() <= 1.4 and per_image[:, 0].std() > 0.1


def test_a_rotation_turns_a_radial_picture_into_itself_and_moves_others():
    axis = torch.linspace(-1, 1, 28)
    radial = torch.exp(-4 * (axis[:, None] ** 2 + axis**2)).expand(8, 1, 28, 28)
    radial = BACKGROUND + radial - radial.min()
    turned = random_views(radial, seeded(), **{**STILL, "degrees": 180})
    inside = (axis[:, None] ** 2 + axis**2) < 0.8
    assert ((turned - radial).abs() * inside).max() < 0.03
    one = torch.full((64, 1, 29, 29), BACKGROUND)
    one[:, :, 14, 20:24] += 5.0
    ink = random_views(one, seeded(), **{**STILL, "degrees": 30}) - BACKGROUND
    rows, columns = torch.arange(29.0)[:, None] - 14, torch.arange(29.0) - 14
    total = ink.sum((1, 2, 3))
    angle = torch.atan2((ink[:, 0] * rows).sum((1, 2)) / total, (ink[:, 0] * columns).sum((1, 2)) / total)
    assert angle.abs().max() <= math.radians(30) + 0.02 and angle.std() > math.radians(10)


def test_a_crop_stays_inside_and_keeps_the_share_of_area_it_names():
    """On a picture whose value is its x or y coordinate, a view shows which window was cut."""
    axis = (torch.arange(28) + 0.5) / 14 - 1
    for picture in (axis.expand(28, 28), axis[:, None].expand(28, 28)):
        images = (BACKGROUND + 2 + picture).expand(200, 1, 28, 28)
        views = random_views(images, seeded(), **{**STILL, "scale": (0.25, 0.25), "size": 14}) - BACKGROUND - 2
        assert views.min() >= -1 - 1e-3 and views.max() <= 1 + 1e-3
        span = (views.amax((1, 2, 3)) - views.amin((1, 2, 3))) * 14 / 13  # of 14 pixels' centres
        torch.testing.assert_close(span, torch.full((200,), 1.0), atol=0.02, rtol=0)  # half the side of [-1, 1]
        assert views.mean((1, 2, 3)).std() > 0.2  # uniform on [-1/2, 1/2]: 0.29
    images = (BACKGROUND + 2 + axis.expand(28, 28)).expand(400, 1, 28, 28)
    wide = random_views(images, seeded(), **{**STILL, "scale": (0.25, 0.25), "ratio": 2, "size": 14})
    span = (wide.amax((1, 2, 3)) - wide.amin((1, 2, 3))) * 14 / 13
    assert span.min() > 0.69 and span.max() < 1.43 and span.std() > 0.1  # sqrt(1/2) .. sqrt(2), times 1


def test_views_depend_on_their_generator_alone():
    images = pictures()
    assert torch.equal(random_views(images, seeded(3)), random_views(images, seeded(3)))
    assert not torch.equal(random_views(images, seeded(3)), random_views(images, seeded(4)))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"scale": (0.0, 1)}, "scale"),
        ({"scale": (0.5, 0.4)}, "scale"),
        ({"ratio": 0.5}, "ratio"),
        ({"flip": 1.5}, "flip"),
        ({"intensity": 1.0}, "intensity"),
    ],
)
def test_views_refuse(setting, message):
    with pytest.raises(ValueError, match=message):
        random_views(pictures(), seeded(), **setting)
    with pytest.raises(TypeError, match="images"):
        random_views(pictures().long(), seeded())


def test_batches_visit_every_image_once_an_epoch_and_repeat():
    images = pictures(20)
    batches = ViewBatches(images, batch_size=5, epochs=2, views=2, small_views=1, seed=1)
    found = list(batches)
    assert len(found) == len(batches) == 8
    for epoch in (found[:4], found[4:]):
        assert sorted(torch.cat([batch[-2] for batch in epoch]).tolist()) == list(range(20))
    assert [int(batch[-1][0]) for batch in found] == list(range(8))
    assert found[0][0].shape == (5, 1, 28, 28) and found[0][2].shape == (5, 1, 14, 14)
    for one, two in zip(found, batches, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    labels = torch.arange(20) % 3
    for *_, label, _ in ViewBatches(images, labels, batch_size=7, epochs=1):
        assert set(label.tolist()) <= {0, 1, 2}
    with pytest.raises(ValueError, match="batch_size"):
        ViewBatches(images, batch_size=21, epochs=1)
    with pytest.raises(ValueError, match="view"):
        ViewBatches(images, batch_size=2, epochs=1, views=0)


# ---------------------------------------------------------------- network and loss


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


def test_rate_is_the_divergence_of_the_two_gaussians():
    z = torch.randn(2, 7, 3, generator=seeded(), dtype=torch.float64)
    one, two = (torch.distributions.Normal(mean, 0.3) for mean in z)
    divergence = torch.distributions.kl_divergence(one, two).sum(1).mean()
    torch.testing.assert_close(view_prediction_rate(z, 0.3), divergence)


def test_rate_of_many_views_is_the_mean_over_pairs():
    z = torch.randn(5, 7, 3, generator=seeded(), dtype=torch.float64)
    pairs = [view_prediction_rate(z[[i, j]], 0.7) for i in range(5) for j in range(i)]
    torch.testing.assert_close(view_prediction_rate(z, 0.7), torch.stack(pairs).mean())


def test_rate_is_an_upper_bound_on_the_conditional_rate():
    """Gaussian toy: X' and X share S, W = a X + sigma noise; both rates are known."""
    n, a, sigma, within = 200_000, 0.8, 0.3, 0.5
    s = torch.randn(n, 1, generator=seeded(), dtype=torch.float64)
    x, other = (s + within * torch.randn(n, 1, generator=seeded(k), dtype=torch.float64) for k in (1, 2))
    shown = view_prediction_rate(a * torch.stack([x, other]), sigma).item()
    assert shown == pytest.approx(a**2 * within**2 / sigma**2, rel=0.02)
    given = within**2 + within**2 / (1 + within**2)  # Var(X | X')
    assert shown > 0.5 * math.log1p(a**2 * given / sigma**2)


def test_only_lambda_times_the_noise_variance_matters():
    z = torch.randn(2, 64, 4, generator=seeded(), requires_grad=True)
    gradients = []
    for weight, sigma in ((0.9, 1.0), (3.6, 0.5), (90.0, 0.1)):
        loss = view_prediction_loss(z, seeded(1), weight=weight, sigma=sigma)["loss"]
        gradients.append(torch.autograd.grad(loss * sigma**2, z)[0])
    torch.testing.assert_close(gradients[0], gradients[1])
    torch.testing.assert_close(gradients[0], gradients[2], atol=1e-5, rtol=1e-4)


def test_parts_of_the_loss():
    z = 0.5 * torch.randn(2, 100, 6, generator=seeded(), dtype=torch.float64)
    found = view_prediction_loss(z, seeded(), weight=2.0, sigma=0.5, num_slices=None)
    torch.testing.assert_close(found["loss"], found["rate"] + 2 * found["sigreg"])
    torch.testing.assert_close(found["sigreg"], slice_free_sigreg(z))
    noisy = view_prediction_loss(z, seeded(), weight=2.0, sigma=math.sqrt(0.75), num_slices=None, noise=True)
    assert noisy["sigreg"] < 2 < 5 < found["sigreg"]  # 0.25 + 0.75 = 1: the noise fills up the law
    with pytest.raises(ValueError, match="weight"):
        view_prediction_loss(z, weight=-1.0)
    with pytest.raises(ValueError, match="sigma"):
        view_prediction_rate(z, 0.0)
    with pytest.raises(ValueError, match="two views"):
        view_prediction_rate(z[:1])


def small_run(checkpoint=None, stop_after=None, noise=False):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ViewNetwork(ConvEncoder((4, 8), (4, 2)), hidden=(16,), latent_dim=4)
    batches = ViewBatches(pictures(64), batch_size=16, epochs=3, seed=0)
    objective = lejepa_objective(weight=3.0, sigma=0.5, num_slices=16, noise=noise, seed=5)
    history = fit(network, objective, batches, lr=0.01, checkpoint=checkpoint, stop_after=stop_after)
    return network, history


def test_a_run_that_was_stopped_ends_where_one_that_was_not_does(tmp_path):
    network, history = small_run(noise=True)
    small_run(tmp_path / "run.pt", stop_after=5, noise=True)
    resumed, again = small_run(tmp_path / "run.pt", noise=True)
    assert again == history
    for one, two in zip(network.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, two)


# ---------------------------------------------------------------- judges


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
    encoder = ConvEncoder((4,), (4,)).train()
    images = pictures(10)
    found = features(encoder, images, batch_size=3)
    assert encoder.training and not found.requires_grad
    torch.testing.assert_close(found, encoder.eval()(images))
