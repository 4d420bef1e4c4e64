"""Training objectives: sums of their terms, weights where they belong, and draws that a run can repeat."""

import pytest
import torch
from toys import data, networks, pictures, small_batches, small_network

from sigreg.conditional_bottleneck import variational_ceb_rate
from sigreg.gaussian_regularization import slice_free_sigreg
from sigreg.joint_embedding import vicreg_loss
from sigreg.lab.batches import Minibatches, ViewBatches
from sigreg.lab.fit import fit
from sigreg.lab.models import ConvEncoder, ViewNetwork
from sigreg.lab.objectives import RATES, bottleneck_objective, lejepa_objective, semi_supervised_objective


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


def test_the_moments_of_a_batch_are_the_best_class_gaussians():
    """The same as variational CEB with the batch's own means and variances; any other Gaussians cost more."""
    generator = torch.Generator().manual_seed(0)
    mean, noise = torch.randn(2, 60, 3, generator=generator, dtype=torch.float64)
    log_std, labels = 0.3 * noise - 1, torch.arange(60) % 4
    mean = mean + labels[:, None]
    code = type("Code", (), {"mean": mean, "log_std": log_std})
    found = RATES["moments"](code, labels, {"class_mean": torch.zeros(5, 3)})  # the fifth class does not occur
    groups = [labels == k for k in range(4)]
    centre = torch.stack([mean[g].mean(0) for g in groups])
    spread = [(torch.exp(2 * log_std[g]).mean(0) + mean[g].var(0, correction=0)).log() / 2 for g in groups]
    spread = torch.stack(spread)
    torch.testing.assert_close(found, variational_ceb_rate(mean, log_std, labels, centre, spread))
    assert found < variational_ceb_rate(mean, log_std, labels, centre + 0.1, spread)
    assert found < variational_ceb_rate(mean, log_std, labels, centre, spread + 0.1)


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


def test_the_seed_and_the_step_choose_the_slices_and_the_noise():
    """The same again for the same two; each alone makes another draw, which moves SIGReg and leaves the rate alone."""
    torch.manual_seed(0)
    encoder = ViewNetwork(ConvEncoder((4, 8), (4, 2)), hidden=(16,), latent_dim=4).eval()
    two_views = next(iter(ViewBatches(pictures(64), batch_size=16, epochs=1, seed=0)))
    classifier, few = small_network().eval(), next(iter(small_batches()))
    for network, batch, objective in (
        (encoder, two_views, lambda seed: lejepa_objective(weight=1.0, num_slices=4, noise=True, seed=seed)),
        (classifier, few, lambda seed: semi_supervised_objective(sigreg=1.0, num_slices=4, seed=seed)),
    ):
        later = (*batch[:-1], batch[-1] + 1)
        drawn = [objective(seed)(network, some)["sigreg"].item() for seed, some in ((3, batch), (4, batch), (3, later))]
        assert objective(3)(network, batch)["sigreg"].item() == drawn[0]
        assert len({*drawn}) == 3 and max(drawn) < 10 * min(drawn)


def test_loss_is_the_weighted_sum_of_its_terms():
    weights = {"labelled": 0.7, "rate": 0.2, "sigreg": 0.3, "moments": 0.6, "views": 0.4, "consistency": 0.5}
    objective = semi_supervised_objective(sigma=0.5, threshold=0.0, **weights)
    found = objective(small_network(), next(iter(small_batches())))
    names = {"labelled": "cross_entropy"}
    total = sum(weight * found[names.get(name, name)] for name, weight in weights.items())
    torch.testing.assert_close(found["loss"], total)
    assert min(value.item() for value in found.values()) > 0


def test_only_terms_that_need_unlabelled_images_ask_for_them():
    batch = list(next(iter(small_batches())))
    batch[2:4] = batch[2][:0], batch[3][:0]
    for settings in ({}, {"rate": 1.0}, {"sigreg": 1.0, "scored": "labelled"}):
        assert semi_supervised_objective(**settings)(small_network(), tuple(batch))["loss"].isfinite()
    for settings in ({"sigreg": 1.0}, {"moments": 1.0}, {"views": 1.0}, {"consistency": 1.0}):
        with pytest.raises(ValueError, match="need unlabelled images in the batch"):
            semi_supervised_objective(**settings)(small_network(), tuple(batch))


def test_unlabelled_images_enter_through_their_terms_only():
    """Without such a term and without batch norm's shared moments, nothing unlabelled reaches the loss."""
    network, batch = small_network(), list(next(iter(small_batches())))
    network.eval()
    other = [*batch[:2], batch[2] + 1, batch[3] - 1, batch[4]]
    for settings, same in (
        ({}, True),
        ({"rate": 1.0}, True),
        ({"sigreg": 1.0, "scored": "labelled"}, True),
        ({"sigreg": 1.0, "scored": "unlabelled"}, False),
        ({"sigreg": 1.0}, False),
        ({"views": 1.0}, False),
        ({"sigreg": 1.0, "class_scale": 0.5}, False),
    ):
        objective = semi_supervised_objective(**settings)
        one, two = (objective(network, tuple(b))["loss"].item() for b in (batch, other))
        assert (abs(one - two) < 1e-6) == same, settings


def test_value_of_sigreg_is_that_of_the_codes():
    """Many slices, tiny noise: the slice-free value of the means of the scored codes."""
    network, batch = small_network(dim=3), next(iter(small_batches()))
    network.eval()
    objective = semi_supervised_objective(sigma=1e-4, sigreg=1.0, scored="unlabelled", num_slices=20000)
    w = network(torch.cat(batch[2:4])).mean.view(2, 8, 3)
    value = objective(network, batch)["sigreg"].item()
    assert value == pytest.approx(slice_free_sigreg(w.detach()).item(), rel=0.05)  # the usual grid stops at t = 3


def test_moments_are_those_of_vicreg():
    """VICReg's loss without its invariance, over 25, where the sets are its two views."""
    network, batch = small_network(dim=3).eval(), next(iter(small_batches()))
    objective = semi_supervised_objective(sigma=1e-6, moments=1.0, scored="unlabelled")
    a, b = network(torch.cat(batch[2:4])).mean.detach().view(2, 8, 3)
    expected = vicreg_loss(a, b, invariance=0.0) / 25
    torch.testing.assert_close(objective(network, batch)["moments"].detach(), expected, rtol=1e-3, atol=1e-5)


def test_training_is_reproducible_and_learns():
    histories = []
    for _ in range(2):
        network = small_network(seed=1)
        objective = semi_supervised_objective(sigreg=0.05, views=0.01, seed=3)
        histories.append(fit(network, objective, small_batches(steps=60), lr=1e-2))
    assert histories[0] == histories[1]
    assert histories[0][-1]["cross_entropy"] < 0.5 * histories[0][0]["cross_entropy"]


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="method must be one of vib, "):
        bottleneck_objective("elbo")
    for setting, word in (({"sigma": 0.0}, "sigma"), ({"views": -1.0}, "views"), ({"scored": "some"}, "scored")):
        with pytest.raises(ValueError, match=word):
            semi_supervised_objective(**setting)
    with pytest.raises(ValueError, match="unlabelled"):
        semi_supervised_objective(views=1.0)(small_network(), next(iter(small_batches(unlabelled=0))))
