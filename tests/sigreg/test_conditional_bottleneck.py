"""Rates of Chapter 3: against closed forms, quadrature, brute force and torch.distributions."""

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence
from torch.func import vmap

from sigreg.conditional_bottleneck import (
    bottleneck_loss,
    defensive_rate,
    gaussian_log_density_matrix,
    held_out_information,
    minibatch_rate,
    minibatch_relevance,
    pairwise_rate,
    pairwise_rate_bounds,
    pointwise_rate,
    variational_ceb_rate,
    vib_rate,
)


def batch(n=12, d=3, classes=None, seed=0, dtype=torch.float64, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    mean = spread * torch.randn(n, d, generator=generator, dtype=dtype)
    log_std = 0.4 * torch.randn(n, d, generator=generator, dtype=dtype) - 0.3
    w = mean + log_std.exp() * torch.randn(n, d, generator=generator, dtype=dtype)
    labels = torch.randint(classes or 3, (n,), generator=generator)
    return w, mean, log_std, labels


def density(mean, log_std):
    return Independent(Normal(mean, log_std.exp()), 1)


def by_hand(w, mean, log_std, labels, include_self):
    """The definition, one example at a time."""
    found = []
    for i in range(len(w)):
        peers = [j for j in range(len(w)) if labels[i] == labels[j] and (include_self or i != j)]
        if peers:
            logs = torch.stack([density(mean[j], log_std[j]).log_prob(w[i]) for j in peers])
            found.append(density(mean[i], log_std[i]).log_prob(w[i]) - logs.logsumexp(0) + math.log(len(peers)))
    return torch.stack(found).mean()


# ---------------------------------------------------------------- densities


def test_log_density_matrix_is_the_gaussian_density():
    w, mean, log_std, _ = batch()
    expected = torch.stack([density(mean[j], log_std[j]).log_prob(w) for j in range(len(mean))], 1)
    torch.testing.assert_close(gaussian_log_density_matrix(w, mean, log_std), expected)
    torch.testing.assert_close(gaussian_log_density_matrix(w[:5], mean, log_std), expected[:5])


def test_half_precision_is_computed_in_float32():
    w, mean, log_std, _ = (t.to(torch.bfloat16) if t.is_floating_point() else t for t in batch())
    found = gaussian_log_density_matrix(w, mean, log_std)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, gaussian_log_density_matrix(w.float(), mean.float(), log_std.float()))


# ---------------------------------------------------------------- the two minibatch estimates


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("classes", [1, 3, 7])
def test_minibatch_rate_is_its_definition(include_self, classes):
    w, mean, log_std, labels = batch(classes=classes)
    found = minibatch_rate(w, mean, log_std, labels, include_self=include_self)
    torch.testing.assert_close(found, by_hand(w, mean, log_std, labels, include_self))
    if classes == 1:  # one class is no class
        torch.testing.assert_close(found, minibatch_rate(w, mean, log_std, include_self=include_self))


@pytest.mark.parametrize("scale, n, own, left_out", [(0.1, 256, 4.24, 5.96), (0.1, 32, 3.19, 14.0)])
def test_the_truth_lies_between_the_two_estimates(scale, n, own, left_out):
    """W = X + scale noise, X standard normal in two dimensions: I = log(1 + 1 / scale^2) = 4.615 nats."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for _ in range(200):
        mean = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        log_std = torch.full_like(mean, math.log(scale))
        w = mean + scale * torch.randn(n, 2, generator=generator, dtype=torch.float64)
        found.append(
            torch.stack([minibatch_rate(w, mean, log_std), minibatch_rate(w, mean, log_std, include_self=False)])
        )
    found = torch.stack(found)
    average, error = found.mean(0), found.std(0) / math.sqrt(len(found))
    truth = math.log1p(scale**-2)
    assert average[0] + 4 * error[0] < truth < average[1] - 4 * error[1]
    assert abs(average[0] - own) < 0.02 + 4 * error[0] and abs(average[1] - left_out) < 0.02 + 4 * error[1]


def mixture_rate(mean, log_std, points=40001):
    """I(X;W), X uniform over one-dimensional Gaussians: entropy of the mixture (trapezoid rule) minus its parts'."""
    std = log_std.exp()
    low, high = (mean - 12 * std).min().item(), (mean + 12 * std).max().item()
    grid = torch.linspace(low, high, points, dtype=torch.float64)
    mixture = MixtureSameFamily(Categorical(torch.ones(len(mean), dtype=torch.float64)), Normal(mean[:, 0], std[:, 0]))
    log_p = mixture.log_prob(grid)
    entropy = -torch.trapezoid(log_p.exp() * log_p, grid)
    return entropy - Normal(mean[:, 0], std[:, 0]).entropy().mean()


def test_on_the_whole_alphabet_the_own_sample_estimate_is_unbiased():
    _, mean, log_std, _ = batch(n=6, d=1)
    generator = torch.Generator().manual_seed(3)
    draws = torch.stack(
        [
            minibatch_rate(mean + log_std.exp() * torch.randn(mean.shape, generator=generator).double(), mean, log_std)
            for _ in range(3000)
        ]
    )
    assert abs(draws.mean() - mixture_rate(mean, log_std)) < 4 * draws.std() / math.sqrt(len(draws))


def test_caps():
    w, mean, log_std, labels = batch(n=40, spread=1e3)
    assert minibatch_rate(w, mean, log_std).item() == pytest.approx(math.log(40))
    sizes = torch.bincount(labels)[labels].double()
    assert minibatch_rate(w, mean, log_std, labels).item() == pytest.approx(sizes.log().mean().item())
    for seed in range(20):
        assert minibatch_rate(*batch(n=9, spread=3.0, seed=seed)[:3]) <= math.log(9)


# ---------------------------------------------------------------- the repair


def gaussian_of_the_others(w, mean, log_std, labels):
    """log p(w_i | x_i) minus the log-density under the Gaussian with the moments of the others of its class."""
    found = []
    for i in range(len(w)):
        peers = [j for j in range(len(w)) if labels[i] == labels[j] and i != j]
        if peers:
            m = mean[peers].mean(0)
            second = (mean[peers] ** 2 + (2 * log_std[peers]).exp()).mean(0)
            gaussian = density(m, 0.5 * (second - m**2).log())
            found.append(density(mean[i], log_std[i]).log_prob(w[i]) - gaussian.log_prob(w[i]))
    return torch.stack(found).mean()


def test_defensive_rate_between_its_two_ends():
    w, mean, log_std, labels = batch(n=20)
    left_out = minibatch_rate(w, mean, log_std, labels, include_self=False)
    gaussian = gaussian_of_the_others(w, mean, log_std, labels)
    torch.testing.assert_close(defensive_rate(w, mean, log_std, labels, weight=1e-12), left_out)
    torch.testing.assert_close(defensive_rate(w, mean, log_std, labels, weight=1 - 1e-12), gaussian)
    for a in (0.1, 0.5, 0.9):
        found = defensive_rate(w, mean, log_std, labels, weight=a)
        assert found <= left_out - math.log(1 - a) and found <= gaussian - math.log(a)


@pytest.mark.parametrize("log_scale", [0.5, -1.0, -2.0])
def test_both_repairs_are_upper_bounds_and_close_to_the_truth(log_scale):
    generator = torch.Generator().manual_seed(5)
    found = []
    for _ in range(50):
        mean = torch.randn(256, 8, generator=generator, dtype=torch.float64)
        w = mean + math.exp(log_scale) * torch.randn(256, 8, generator=generator, dtype=torch.float64)
        log_std = torch.full_like(mean, log_scale)
        found.append(torch.stack([defensive_rate(w, mean, log_std), pairwise_rate(mean, log_std)]))
    found = torch.stack(found)
    average, error = found.mean(0), found.std(0) / math.sqrt(len(found))
    truth = 4 * math.log1p(math.exp(-2 * log_scale))
    assert (average > truth - 4 * error).all() and (average < truth + math.log(2) + 0.2).all()


def pairwise_by_hand(mean, log_std, labels, a):
    found = []
    for i in range(len(mean)):
        peers = [j for j in range(len(mean)) if labels[i] == labels[j] and i != j]
        if peers:
            mine, others = density(mean[i], log_std[i]), density(mean[peers], log_std[peers])
            m = mean[peers].mean(0)
            second = (mean[peers] ** 2 + (2 * log_std[peers]).exp()).mean(0)
            gaussian = density(m, 0.5 * (second - m**2).log())
            near = torch.exp(-kl_divergence(mine, others)).mean()
            found.append(-torch.log((1 - a) * near + a * torch.exp(-kl_divergence(mine, gaussian))))
    return torch.stack(found).mean()


@pytest.mark.parametrize("classes", [1, 3, 8])
def test_pairwise_rate_is_its_definition(classes):
    _, mean, log_std, labels = batch(classes=classes)
    found = pairwise_rate(mean, log_std, labels, weight=0.3)
    torch.testing.assert_close(found, pairwise_by_hand(mean, log_std, labels, 0.3))


@pytest.mark.parametrize("members", [2, 3])
def test_sharp_codes_have_the_slope_of_the_rate_from_three_members_on(members):
    """Of two members the other is one Gaussian as narrow as the own, and the slope is that of their divergence."""
    mean = 2 * torch.randn(members, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    log_s = torch.tensor(-9.0, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(pairwise_rate(mean, log_s.expand(members, 4)), log_s)
    apart = (mean[0] - mean[1]).square().sum() / torch.exp(2 * log_s)
    assert slope.item() == pytest.approx(-apart.item() if members == 2 else -4, rel=1e-4)


def test_batches_chosen_for_their_classes_are_no_bound():
    """Two examples of classes of 90% and 10%, kept where both are of one class: the rare class's rate is lost."""
    share = torch.tensor([0.81, 0.01], dtype=torch.float64) / 0.82  # of the batches that are kept
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 40_000, dtype=torch.float64, generator=generator)
    w = 0.3 * x + torch.randn(2, 40_000, dtype=torch.float64, generator=generator)

    def log_p(i, j):
        return -0.5 * (w[i] - 0.3 * x[j]).square()

    left_out = 0.5 * ((log_p(0, 0) - log_p(0, 1)) + (log_p(1, 1) - log_p(1, 0))).mean()
    one = torch.stack([w[:, 0], 0.3 * x[:, 0], torch.zeros(2, dtype=torch.float64)], 1)[..., None]  # (2, 3, 1)
    packaged = minibatch_rate(one[:, 0], one[:, 1], one[:, 2], include_self=False)
    torch.testing.assert_close(packaged, 0.5 * (log_p(0, 0) - log_p(0, 1) + log_p(1, 1) - log_p(1, 0))[0])
    truth = 0.5 * math.log(1 + 0.3**2)  # of the rare class; the other has no rate
    assert left_out > truth  # within the class it is a bound
    assert share[1] * left_out < 0.5 * 0.1 * truth  # over the batches that are kept it is none
    assert 0.1 * left_out > 0.1 * truth  # with the classes' own shares it is one


def test_pairwise_rate_bounds_the_expected_defensive_rate():
    _, mean, log_std, labels = batch(n=16)
    generator = torch.Generator().manual_seed(8)

    def sampled(weight, draws=1000):
        noise = torch.randn(draws, 16, 3, generator=generator).double()
        found = [defensive_rate(mean + log_std.exp() * e, mean, log_std, labels, weight=weight) for e in noise]
        return torch.stack(found).mean(), torch.stack(found).std() / math.sqrt(draws)

    average, error = sampled(0.5)
    assert pairwise_rate(mean, log_std, labels) > average - 4 * error
    average, error = sampled(1 - 1e-12)  # with one Gaussian only, Jensen's inequality is an equality
    assert abs(pairwise_rate(mean, log_std, labels, weight=1 - 1e-12) - average) < 4 * error


def test_the_closed_form_has_less_gradient_noise():
    """Overlapping codes, one batch, fresh encoder noise: only the sampled estimate's gradient moves."""
    _, mean, _, labels = batch(n=60, d=4)
    log_std = torch.full_like(mean, 1.0)
    generator = torch.Generator().manual_seed(2)
    gradients = []
    for _ in range(100):
        m = mean.clone().requires_grad_()
        noise = torch.randn(m.shape, generator=generator, dtype=torch.float64)
        gradients.append(torch.autograd.grad(defensive_rate(m + log_std.exp() * noise, m, log_std, labels), m)[0])
    gradients = torch.stack(gradients)
    assert gradients.std(0).norm() > gradients.mean(0).norm()  # one draw is mostly noise
    m = mean.clone().requires_grad_()
    exact = torch.autograd.grad(pairwise_rate(m, log_std, labels), m)[0]
    assert torch.cosine_similarity(exact.flatten(), gradients.mean(0).flatten(), dim=0) > 0.9


def without_sample(w, mean, log_std, labels=None):
    return pairwise_rate(mean, log_std, labels)


def slope(rate, log_scale, n=256, d=8):
    """Derivative of a rate with respect to a common log sigma; the truth has -d / (1 + sigma^2)."""
    generator = torch.Generator().manual_seed(6)
    total = 0.0
    for _ in range(10):
        mean = torch.randn(n, d, generator=generator, dtype=torch.float64)
        noise = torch.randn(n, d, generator=generator, dtype=torch.float64)
        s = torch.tensor(log_scale, dtype=torch.float64, requires_grad=True)
        value = rate(mean + s.exp() * noise, mean, s.expand(n, d))
        total += torch.autograd.grad(value, s)[0].item() / 10
    return total


def test_the_gradient_vanishes_at_the_cap_and_the_repair_brings_it_back():
    truth = -8 / (1 + math.exp(-6))
    assert abs(slope(minibatch_rate, -3.0)) < 1e-3
    assert slope(lambda *code: minibatch_rate(*code, include_self=False), -3.0) < 50 * truth  # explodes
    assert slope(defensive_rate, -3.0) == pytest.approx(truth, rel=0.01)
    assert slope(without_sample, -3.0) == pytest.approx(truth, rel=0.01)
    # where the batch can tell, all three agree with the truth
    mild = -8 / (1 + math.exp(2))
    assert slope(minibatch_rate, 1.0) == pytest.approx(mild, rel=0.1)
    assert slope(defensive_rate, 1.0) == pytest.approx(mild, rel=0.1)
    assert slope(without_sample, 1.0) == pytest.approx(mild, rel=0.5)  # the price of Jensen's inequality


# ---------------------------------------------------------------- what every estimate must satisfy

RATES = {
    "own": minibatch_rate,
    "left out": lambda *code: minibatch_rate(*code, include_self=False),
    "defensive": defensive_rate,
    "pairwise": without_sample,
}


@pytest.mark.parametrize("rate", RATES.values(), ids=RATES)
def test_invariances(rate):
    w, mean, log_std, labels = batch(n=15)
    reference = rate(w, mean, log_std, labels)
    order = torch.randperm(15, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(rate(w[order], mean[order], log_std[order], labels[order]), reference)
    torch.testing.assert_close(rate(w, mean, log_std, 40 - 3 * labels), reference)  # names of classes
    scale = torch.tensor([0.1, 3.0, 20.0], dtype=torch.float64)
    moved = (scale * w + 5, scale * mean + 5, log_std + scale.log())
    torch.testing.assert_close(rate(*moved, labels), reference)


@pytest.mark.parametrize("rate", RATES.values(), ids=RATES)
def test_gradients_by_finite_differences(rate):
    w, mean, log_std, labels = batch(n=7, d=2, classes=2)
    inputs = [t.clone().requires_grad_() for t in (w, mean, log_std)]
    assert torch.autograd.gradcheck(lambda *code: rate(*code, labels) + 0 * code[0].sum(), inputs)


@pytest.mark.parametrize("rate", RATES.values(), ids=RATES)
def test_tiny_sigma_stays_finite_with_its_gradient(rate):
    for labels in (None, torch.tensor([0, 0, 0, 1, 1, 2])):
        mean = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
        log_std = torch.full((6, 4), -20.0, requires_grad=True)
        value = rate(mean + log_std.exp(), mean, log_std, labels)
        value.backward()
        assert torch.isfinite(value) and torch.isfinite(mean.grad).all() and torch.isfinite(log_std.grad).all()


@pytest.mark.parametrize("rate", RATES.values(), ids=RATES)
def test_equal_codes_carry_nothing(rate):
    mean = torch.ones(8, 2, dtype=torch.float64)
    log_std = torch.zeros_like(mean)
    w = torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert rate(w, mean, log_std, torch.arange(8) % 2).item() == pytest.approx(0, abs=1e-12)


def test_an_example_alone_in_its_class():
    w, mean, log_std, _ = batch(n=6)
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    inputs = [t.clone().requires_grad_() for t in (w, mean, log_std)]
    for name in ("left out", "defensive", "pairwise"):
        value = RATES[name](*inputs, labels)
        torch.testing.assert_close(value, RATES[name](w[:5], mean[:5], log_std[:5], labels[:5]))
        for gradient in torch.autograd.grad(value, inputs[1:]):
            assert torch.isfinite(gradient).all() and (gradient[5] == 0).all()
        with pytest.raises(ValueError, match=r"no example of the batch shares its class.*larger batch"):
            RATES[name](w, mean, log_std, torch.arange(6))
        with pytest.raises(ValueError, match="no example"):
            RATES[name](w[:1], mean[:1], log_std[:1])
    # with its own sample it counts, at rate 0
    torch.testing.assert_close(
        minibatch_rate(w, mean, log_std, labels), 5 / 6 * minibatch_rate(w[:5], mean[:5], log_std[:5], labels[:5])
    )
    assert minibatch_rate(w, mean, log_std, torch.arange(6)).item() == 0


@pytest.mark.parametrize("rate", RATES.values(), ids=RATES)
def test_works_under_vmap_and_with_nan(rate):
    several = [batch(seed=s) for s in range(3)]
    labels = several[0][3]
    stacked = [torch.stack([b[k] for b in several]) for k in range(3)]
    expected = torch.stack([rate(*b[:3], labels) for b in several])
    torch.testing.assert_close(vmap(rate, in_dims=(0, 0, 0, None))(*stacked, labels), expected)
    stacked[0][1, 0, 0] = stacked[1][1, 0, 0] = math.nan
    assert torch.isnan(rate(*(t[1] for t in stacked), labels))


# ---------------------------------------------------------------- pairwise and variational rates


def test_pairwise_bounds_of_one_common_sigma():
    _, mean, _, _ = batch(n=10)
    log_std = torch.full_like(mean, math.log(0.7))
    square = torch.cdist(mean, mean) ** 2 / 0.49
    lower, upper = pairwise_rate_bounds(mean, log_std)
    torch.testing.assert_close(lower, -(torch.exp(-square / 8).mean(1)).log().mean())
    torch.testing.assert_close(upper, -(torch.exp(-square / 2).mean(1)).log().mean())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("spread", [0.3, 1.0, 5.0])
def test_pairwise_bounds_hold_a_mixture_by_quadrature(seed, spread):
    _, mean, log_std, _ = batch(n=5, d=1, seed=seed, spread=spread)
    lower, upper = pairwise_rate_bounds(mean, log_std)
    truth = mixture_rate(mean, log_std)
    assert lower <= truth + 1e-9 and truth <= upper + 1e-9 and upper <= math.log(5) + 1e-12


def test_pairwise_bounds_use_kl_and_bhattacharyya():
    _, mean, log_std, _ = batch(n=4, d=2)
    kl = torch.stack([kl_divergence(density(mean[i], log_std[i]), density(mean, log_std)) for i in range(4)])
    torch.testing.assert_close(pairwise_rate_bounds(mean, log_std)[1], -(torch.exp(-kl).mean(1)).log().mean())
    one_dimension = mean[:, :1], log_std[:, :1]
    grid = torch.linspace(-30, 30, 60001, dtype=torch.float64)
    root = torch.stack([0.5 * density(m, s).log_prob(grid[:, None]) for m, s in zip(*one_dimension, strict=True)])
    overlap = torch.trapezoid(torch.exp(root[:, None] + root[None]), grid)  # exp(-Bhattacharyya distance)
    torch.testing.assert_close(pairwise_rate_bounds(*one_dimension)[0], -(overlap.mean(1)).log().mean())


def test_pairwise_bounds_survive_tiny_sigma():
    mean = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    log_std = (torch.full((6, 3), -20.0) + torch.arange(6.0)[:, None]).requires_grad_()
    lower, upper = pairwise_rate_bounds(mean, log_std)
    (lower + upper).backward()
    assert lower.item() == pytest.approx(math.log(6)) and upper.item() == pytest.approx(math.log(6))
    assert torch.isfinite(mean.grad).all() and torch.isfinite(log_std.grad).all()


def test_variational_rates_are_kl_divergences():
    _, mean, log_std, labels = batch()
    prior = density(torch.zeros(3).double(), torch.zeros(3).double())
    torch.testing.assert_close(vib_rate(mean, log_std), kl_divergence(density(mean, log_std), prior).mean())
    class_mean, class_log_std = batch(n=3, seed=9)[1:3]
    expected = kl_divergence(density(mean, log_std), density(class_mean[labels], class_log_std[labels])).mean()
    torch.testing.assert_close(variational_ceb_rate(mean, log_std, labels, class_mean, class_log_std), expected)
    zero = torch.zeros(3, 3, dtype=torch.float64)
    torch.testing.assert_close(variational_ceb_rate(mean, log_std, labels, zero, zero), vib_rate(mean, log_std))


def test_variational_gap_closes_at_the_class_marginal():
    """Codes of a Gaussian class: with b(w|y) = p(w|y) the variational rate averages to I(X;W|Y) itself."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(200_000, 1, generator=generator, dtype=torch.float64)
    log_std = torch.full_like(mean, math.log(0.5))
    labels = torch.zeros(len(mean), dtype=torch.long)
    marginal = torch.zeros(1, 1).double(), torch.full((1, 1), 0.5 * math.log(1.25)).double()
    found = variational_ceb_rate(mean, log_std, labels, *marginal)
    assert found.item() == pytest.approx(0.5 * math.log(5), abs=0.01)
    wrong = variational_ceb_rate(mean, log_std, labels, marginal[0] + 1, marginal[1])
    assert wrong.item() - found.item() == pytest.approx(1 / (2 * 1.25), abs=0.01)  # KL of the two marginals


# ---------------------------------------------------------------- losses and judges


def test_relevance_is_a_kernel_classifier():
    w, mean, log_std, _ = batch(n=12)
    labels = torch.arange(12) % 3  # balanced: p(y) = 1/3
    logs = gaussian_log_density_matrix(w, mean, log_std)
    votes = torch.softmax(logs, 1) @ torch.nn.functional.one_hot(labels).double()
    expected = votes.gather(1, labels[:, None]).log().mean() + math.log(3)
    torch.testing.assert_close(minibatch_relevance(w, mean, log_std, labels), expected)
    for own in (True, False):
        whole = minibatch_rate(w, mean, log_std, include_self=own)
        conditional = minibatch_rate(w, mean, log_std, labels, include_self=own)
        found = minibatch_relevance(w, mean, log_std, labels, include_self=own)
        torch.testing.assert_close(found, whole - conditional)


def test_relevance_without_the_own_sample_leaves_lonely_examples_out_of_both_marginals():
    w, mean, log_std, _ = batch(n=7)
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 3])  # the last two are alone
    logs = gaussian_log_density_matrix(w, mean, log_std)
    ratios = []
    for i in range(5):
        others = [j for j in range(7) if j != i]
        classmates = [j for j in others if labels[j] == labels[i]]
        mean_of = [torch.logsumexp(logs[i, some], 0) - math.log(len(some)) for some in (classmates, others)]
        ratios.append(mean_of[0] - mean_of[1])
    found = minibatch_relevance(w, mean, log_std, labels, include_self=False)
    torch.testing.assert_close(found, torch.stack(ratios).mean())


def test_bottleneck_loss():
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 0])
    rate = torch.tensor(1.5)
    expected = Categorical(logits=logits).log_prob(labels).mean().neg() + 0.2 * 1.5
    torch.testing.assert_close(bottleneck_loss(logits, labels, rate, 0.2), expected)
    for bad in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="beta must be 0 or more and finite"):
            bottleneck_loss(logits, labels, rate, bad)


def test_held_out_information_is_the_same_estimate_in_slabs():
    w, mean, log_std, labels = batch(n=700, classes=4)
    found = held_out_information(w, mean, log_std, labels, weight=0.3)
    assert found.rate == pytest.approx(minibatch_rate(w, mean, log_std).item())
    assert found.conditional_rate == pytest.approx(minibatch_rate(w, mean, log_std, labels).item())
    assert found.rate_upper == pytest.approx(defensive_rate(w, mean, log_std, weight=0.3).item())
    upper = defensive_rate(w, mean, log_std, labels, weight=0.3).item()
    assert found.conditional_rate_upper == pytest.approx(upper)
    with pytest.raises(ValueError, match="every class in labels must occur at least twice"):
        held_out_information(w[:3], mean[:3], log_std[:3], torch.tensor([0, 0, 1]))


def test_pointwise_rate_against_other_inputs():
    w, mean, log_std, _ = batch(n=9)
    _, other_mean, other_log_std, _ = batch(n=300, seed=1)
    own = gaussian_log_density_matrix(w, mean, log_std).diagonal()
    marginal = gaussian_log_density_matrix(w, other_mean, other_log_std).logsumexp(1) - math.log(300)
    torch.testing.assert_close(pointwise_rate(w, mean, log_std, other_mean, other_log_std), own - marginal)
    among_themselves = pointwise_rate(w, mean, log_std, mean, log_std).mean()
    torch.testing.assert_close(among_themselves, minibatch_rate(w, mean, log_std))


# ---------------------------------------------------------------- bad input

Z = torch.zeros(4, 2)
BAD = [
    (lambda: minibatch_rate([0.0], Z, Z), TypeError, r"w must be a torch.Tensor of shape \(B, D\)"),
    (lambda: minibatch_rate(Z.long(), Z, Z), TypeError, "w must have a floating dtype"),
    (lambda: minibatch_rate(Z[0], Z, Z), ValueError, r"w must have shape \(B, D\), got \(2,\)"),
    (lambda: minibatch_rate(Z, Z, Z[:2]), ValueError, r"log_std must have the shape of mean, \(4, 2\), got \(2, 2\)"),
    (lambda: minibatch_rate(Z[:, :1], Z, Z), ValueError, "w must have D = 2 columns"),
    (lambda: minibatch_rate(Z[:3], Z, Z), ValueError, "w must hold one code per row of mean, 4, got 3"),
    (lambda: minibatch_rate(Z, Z, Z, torch.zeros(3).long()), ValueError, r"labels must have shape \(4,\)"),
    (lambda: minibatch_rate(Z, Z, Z, torch.zeros(4)), TypeError, "labels must hold integer class indices"),
    (lambda: minibatch_rate(Z[:0], Z[:0], Z[:0]), ValueError, "w is empty"),
    (lambda: defensive_rate(Z, Z, Z, weight=0.0), ValueError, r"weight must lie in \(0, 1\), got 0.0"),
    (lambda: pairwise_rate(Z, Z, weight=1.0), ValueError, r"weight must lie in \(0, 1\), got 1.0"),
    (lambda: minibatch_relevance(Z, Z, Z, None), TypeError, "labels must be a torch.Tensor"),
    (lambda: variational_ceb_rate(Z, Z, torch.tensor([0, 1, 2, 4]), Z, Z), ValueError, r"labels must be in 0\.\.3"),
    (lambda: variational_ceb_rate(Z, Z, torch.zeros(4).long(), Z[:, :1], Z[:, :1]), ValueError, "class_mean must have"),
    (lambda: pairwise_rate_bounds(Z, Z[:3]), ValueError, "log_std must have the shape of mean"),
    (lambda: pointwise_rate(Z, Z, Z, Z[:, :1], Z[:, :1]), ValueError, "w must have D = 1 columns"),
]


@pytest.mark.parametrize("call, error, message", BAD)
def test_bad_input_says_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()
