"""Chapter 7's pieces: maps against finite differences, bounds against integrals, a bound against simulation."""

import math

import pytest
import torch
from torch import nn

from sigreg import vicreg_information as vi
from sigreg.gaussian_regularization import random_directions
from sigreg.joint_embedding import covariance_term, logdet_entropy, pairwise_entropy, variance_term
from sigreg.lab.models import ConvEncoder, mlp

LOG_2PI_E = math.log(2 * math.pi * math.e)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, generator):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.fixture(scope="module")
def network():
    """A convolutional network with batch-norm moments of its own, in evaluation mode and double precision."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(ConvEncoder((4, 6), (2, 2), size=8), mlp((24, 10, 3)))
        network(2 * torch.randn(64, 1, 8, 8) + 0.3)
    return network.eval().double()


# ---------------------------------------------------------------- local maps


def test_local_maps_are_the_network_nearby(network):
    x = normal(5, 1, 8, 8, generator=seeded())
    value, slope = vi.local_affine_maps(network, x, batch_size=2)
    torch.testing.assert_close(value, network(x).detach())
    step = 1e-7 * normal(5, 1, 8, 8, generator=seeded(1))
    moved = network(x + step).detach() - value
    torch.testing.assert_close(moved, torch.einsum("ndp,np->nd", slope, step.flatten(1)), rtol=1e-5, atol=1e-13)


def test_leaving_probability_bounds_and_meets_what_is_sampled(network):
    x = normal(3, 1, 8, 8, generator=seeded(2))
    sigmas = [1e-3, 3e-3, 1e-2]
    bound = vi.leaving_probability(network, x, sigmas)
    for n in range(3):
        home = vi.unit_inputs(network, x[n : n + 1]) > 0
        for k, sigma in enumerate(sigmas):
            away = vi.unit_inputs(network, x[n] + sigma * normal(4000, 1, 8, 8, generator=seeded(3))) > 0
            left = (away != home).any(1).double().mean().item()
            assert left <= bound[n, k] + 4 * math.sqrt(0.25 / 4000)
            if bound[n, k] < 0.1:  # where crossings are rare they hardly coincide, and the sum is nearly exact
                assert left >= 0.6 * bound[n, k] - 4 * math.sqrt(bound[n, k].item() / 4000)


def test_leaving_probability_of_one_layer_by_hand():
    layer = nn.Linear(2, 3).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 4.0], [0.0, 1.0], [1.0, 0.0]]))
        layer.bias.copy_(torch.tensor([0.0, 0.0, 5.0]))
    bound = vi.leaving_probability(nn.Sequential(layer, nn.ReLU()).eval(), torch.tensor([[1.0, 2.0]]).double(), [1.0])
    expected = sum(0.5 * math.erfc(d / math.sqrt(2)) for d in (11 / 5, 2.0, 6.0))
    assert bound.item() == pytest.approx(expected, rel=1e-12)


def test_frozen_units_make_one_affine_map(network):
    x = normal(1, 1, 8, 8, generator=seeded(4))
    inputs = vi.unit_inputs(network, x)
    torch.testing.assert_close(vi.unit_inputs(network, x, frozen=inputs[0] > 0), inputs)
    far = 5 * normal(2, 1, 8, 8, generator=seeded(5))
    values = [vi.unit_inputs(network, v, frozen=inputs[0] > 0) for v in (far[:1], far[1:], far[:1] + far[1:], 0 * x)]
    torch.testing.assert_close(values[0] + values[1], values[2] + values[3])


def test_training_mode_is_refused(network):
    x = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    network.train()
    for function in (vi.local_affine_maps, lambda n, x: vi.leaving_probability(n, x, [1.0])):
        with pytest.raises(ValueError, match="evaluation mode"):
            function(network, x)
    network.eval()
    with pytest.raises(ValueError, match="sigma must be positive"):
        vi.leaving_probability(network, x, [0.0])
    with pytest.raises(ValueError, match=r"no torch\.nn\.ReLU"):
        vi.leaving_probability(nn.Flatten().eval(), x, [1.0])


# ---------------------------------------------------------------- mixtures


def mixture(n=6, dim=3, spread=2.0):
    generator = seeded(6)
    mean = spread * normal(n, dim, generator=generator)
    root = normal(n, dim, dim, generator=generator)
    return mean, root @ root.mT + 0.2 * torch.eye(dim, dtype=torch.float64)


def test_mixture_bounds_enclose_an_integral():
    mean = torch.tensor([[-1.0], [0.0], [0.7], [4.0]], dtype=torch.float64)
    variance = torch.tensor([0.3, 1.0, 0.1, 2.0], dtype=torch.float64)
    grid = torch.linspace(-15, 20, 40001, dtype=torch.float64)
    height = (2 * math.pi * variance[:, None]).rsqrt()
    density = (height * torch.exp(-((grid - mean) ** 2) / (2 * variance[:, None]))).mean(0)
    truth = torch.trapezoid(-torch.xlogy(density, density), grid).item()
    bounds = vi.mixture_entropy_bounds(mean, variance.view(-1, 1, 1))
    assert bounds.component <= bounds.lower <= truth <= bounds.upper <= bounds.ceiling
    assert truth <= bounds.gaussian
    estimate = vi.mixture_entropy(mean, variance.view(-1, 1, 1), 4000, seeded())
    assert abs(estimate.nats - truth) < 4 * estimate.standard_error and estimate.standard_error < 0.02


@pytest.mark.parametrize("spread", [0.0, 0.5, 2.0, 50.0])
def test_mixture_bounds_enclose_the_estimate(spread):
    bounds = vi.mixture_entropy_bounds(*mixture(spread=spread))
    estimate = vi.mixture_entropy(*mixture(spread=spread), 2000, seeded())
    slack = 4 * estimate.standard_error + 1e-9
    assert bounds.lower - slack <= estimate.nats <= min(bounds.upper, bounds.gaussian) + slack
    if spread == 50.0:
        assert bounds.lower == pytest.approx(bounds.ceiling) == bounds.upper


def test_mixture_bounds_are_the_divergences_of_torch():
    mean, covariance = mixture()
    laws = [torch.distributions.MultivariateNormal(m, c) for m, c in zip(mean, covariance, strict=True)]
    kl = torch.stack([torch.stack([torch.distributions.kl_divergence(p, q) for q in laws]) for p in laws])
    component = torch.stack([p.entropy() for p in laws]).mean()
    expected = component - (torch.logsumexp(-kl, 1) - math.log(len(laws))).mean()
    assert vi.mixture_entropy_bounds(mean, covariance).upper == pytest.approx(expected.item(), abs=1e-9)


def test_mixture_with_one_covariance_is_the_pairwise_entropy():
    mean, sigma = mixture()[0], 0.7
    covariance = sigma**2 * torch.eye(3, dtype=torch.float64).expand(6, 3, 3)
    bounds = vi.mixture_entropy_bounds(mean, covariance)
    assert bounds.upper == pytest.approx(pairwise_entropy(mean, sigma=sigma).item(), abs=1e-9)
    assert bounds.lower == pytest.approx(pairwise_entropy(mean, sigma=sigma, bound="lower").item(), abs=1e-9)


def test_bad_mixtures_are_named():
    mean, covariance = mixture()
    with pytest.raises(ValueError, match="covariance must have shape"):
        vi.mixture_entropy_bounds(mean, covariance[:3])
    with pytest.raises(ValueError, match="1 matrices that are not positive definite"):
        covariance[2] = 0
        vi.mixture_entropy(mean, covariance, 2, seeded())
    with pytest.raises(ValueError, match="draws must be at least 2"):
        vi.mixture_entropy(*mixture(), 1, seeded())


# ---------------------------------------------------------------- entropy of codes


def test_logdet_error_is_what_simulation_gives():
    generator = seeded(7)
    root = normal(4, 4, generator=generator)
    truth = 2 * LOG_2PI_E + torch.linalg.slogdet(root).logabsdet
    samples = normal(4000, 12, 4, generator=generator) @ root.T
    values = torch.stack([logdet_entropy(z, floor=1e-14) for z in samples])
    bias, deviation = vi.logdet_error(12, 4)
    assert abs((values - truth).mean() - bias) < 4 * deviation / math.sqrt(4000)
    assert values.std().item() == pytest.approx(deviation, rel=0.05)
    with pytest.raises(ValueError, match="n must be more than dim"):
        vi.logdet_error(4, 4)


def test_variance_covariance_entropy_expands_the_determinant():
    """The gap to the log-determinant is of second order in the scales and of third order in the correlations."""
    z = normal(50, 4, generator=seeded(8))
    z = (z - z.mean(0)) @ torch.linalg.cholesky(torch.linalg.inv(torch.cov(z.T)))  # exactly white
    noise = normal(4, 4, generator=seeded(9))
    correlation, shrink = (noise + noise.T) / 2, torch.linspace(0.2, 1, 4, dtype=torch.float64)
    correlation.fill_diagonal_(0)

    def gap(map):
        codes = z @ torch.linalg.cholesky(map).T
        return abs(vi.variance_covariance_entropy(codes) - logdet_entropy(codes, floor=1e-4)).item()

    floor = 1e-4 * torch.eye(4, dtype=torch.float64)  # which both add to the covariance
    bends = [gap(torch.eye(4, dtype=torch.float64) + e * correlation - floor) for e in (0.004, 0.002)]
    assert bends[0] / bends[1] == pytest.approx(8, rel=0.1)
    scales = [gap(torch.diag((1 - e * shrink).square()) - floor) for e in (0.02, 0.01)]
    assert scales[0] / scales[1] == pytest.approx(4, rel=0.1)


# ---------------------------------------------------------------- information between views


def test_gaussian_codes_are_known_exactly():
    generator = seeded(10)
    n, dim, noise = 4000, 3, 0.5
    shared, a, b = (normal(n, dim, generator=generator) for _ in range(3))
    steps = vi.information_steps(shared + noise * a, shared + noise * b)
    truth = -0.5 * dim * math.log(1 - 1 / (1 + noise**2) ** 2)
    assert steps.gaussian == pytest.approx(truth, abs=0.1)
    # error per coordinate 2 noise^2, variance 1 + noise^2; white codes, so that all three agree
    assert steps.logdet == pytest.approx(0.5 * dim * math.log((1 + noise**2) / (2 * noise**2)), abs=0.1)
    assert steps.diagonal == pytest.approx(steps.logdet, abs=0.01)
    assert steps.vicreg == pytest.approx(steps.logdet, abs=0.01)
    assert 0.7 * truth < steps.contrastive <= truth + 0.1
    assert steps.cap == pytest.approx(math.log(4000))


def test_steps_do_not_care_for_the_scale_and_order_themselves():
    generator = seeded(11)
    mix = normal(4, 4, generator=generator)
    shared = normal(500, 4, generator=generator) @ mix
    z_a, z_b = (shared + 0.3 * normal(500, 4, generator=generator) for _ in range(2))
    steps, scaled = vi.information_steps(z_a, z_b), vi.information_steps(100 * z_a + 3, 100 * z_b + 3)
    for name, value in vars(steps).items():
        assert vars(scaled)[name] == pytest.approx(value, abs=1e-3)
    assert steps.logdet <= steps.diagonal  # Hadamard


def test_infonce_is_below_the_truth_and_below_its_ceiling():
    """Codes of 8 far islands: log 8 nats are there; of needles, everything up to log(N / 2)."""
    generator = seeded(12)
    centre = 50 * normal(8, 2, generator=generator)
    index = torch.randint(8, (1000,), generator=generator)
    z_a, z_b = (centre[index] + 0.1 * normal(1000, 2, generator=generator) for _ in range(2))
    assert vi.infonce_information(z_a, z_b) == pytest.approx(math.log(8), abs=0.03)
    steps = vi.information_steps(z_a, z_b)
    assert steps.logdet > 2 * math.log(8)  # the surrogate is no lower bound
    assert vi.infonce_information(z_a, z_b, block=77) == pytest.approx(vi.infonce_information(z_a, z_b), abs=1e-9)


def test_infonce_is_scored_on_the_half_that_did_not_choose_its_temperature():
    """Half the images have views that agree, the other half views that know nothing: the later half alone counts."""
    agree, other = normal(400, 3, generator=seeded(1)), normal(400, 3, generator=seeded(2))
    mixed = torch.cat([agree[:200] + 1e-3 * other[:200], other[200:]])
    assert vi.infonce_information(agree, mixed) < 0.1
    assert vi.infonce_information(agree.flip(0), mixed.flip(0)) > 0.3


def test_infonce_keeps_its_digits_far_from_zero():
    z = normal(200, 3, generator=seeded(3))
    pair = z, z + 0.3 * normal(200, 3, generator=seeded(4))
    here = vi.infonce_information(*pair)
    there = vi.infonce_information(*((code + 3000).float() for code in pair))
    assert there == pytest.approx(here, abs=1e-2)


def test_bad_pairs_are_named():
    with pytest.raises(ValueError, match="N >= 4 D"):
        vi.information_steps(torch.zeros(8, 3), torch.zeros(8, 3))
    spoiled = torch.zeros(8, 2)
    spoiled[0, 0] = math.nan
    with pytest.raises(ValueError, match="z_b holds 1 NaN"):
        vi.information_steps(torch.zeros(8, 2), spoiled)


# ---------------------------------------------------------------- a linear probe


def world(n, views=3, dim=4, classes=3, seed=13):
    """Codes whose law is known: class means, spread of images around them, spread of views around these."""
    generator = seeded(seed)
    centre = normal(classes, dim, generator=seeded(99))
    labels = torch.arange(n) % classes
    image = centre[labels] + 0.8 * normal(n, dim, generator=generator)
    return image + 0.5 * normal(views, n, dim, generator=generator), labels


def test_probe_terms_of_a_known_world():
    codes, labels = world(60_000)
    terms = vi.probe_terms(codes, labels)
    assert terms.invariance == pytest.approx(4 * 0.25, rel=0.02)
    assert terms.class_spread == pytest.approx(4 * 0.64, rel=0.02)
    assert terms.label_variance == pytest.approx(1 / 3)
    assert terms.risk == pytest.approx(terms.averaged_risk + terms.jitter)
    assert 0 < terms.jitter <= terms.jitter_bound
    # the averaged risk is that of the same probe on mean codes of infinitely many views: check with many
    many, _ = world(3_000, views=200)
    z = many - many.mean((0, 1))
    target = nn.functional.one_hot(labels[:3_000]).double()
    fresh = vi.probe_terms(many, labels[:3_000])
    covariance = torch.einsum("vnd,vne->de", z, z) / z[..., 0].numel()
    probe = torch.linalg.solve(covariance, torch.einsum("vnd,nc->dc", z, target - target.mean(0)) / z[..., 0].numel()).T
    direct = (target - target.mean(0) - z.mean(0) @ probe.T).square().sum(1).mean().item()
    assert fresh.averaged_risk == pytest.approx(direct, abs=2e-3)


def test_risk_of_white_codes_is_the_spread_within_classes():
    """Proposition 7.12, exactly, on a finite population that is its own law."""
    codes, labels = world(600)
    z = codes - codes.mean((0, 1))
    flat = z.flatten(0, 1)
    values, vectors = torch.linalg.eigh(flat.T @ flat / len(flat))
    z = z @ vectors / values.sqrt()
    class_mean = torch.stack([z[:, labels == c].mean((0, 1)) for c in range(3)])
    within = (z - class_mean[labels]).square().sum(-1).mean().item()
    terms = vi.probe_terms(z, labels)
    assert terms.risk == pytest.approx((within - (4 - 3 + 1)) / 3, abs=1e-9)


@pytest.mark.parametrize("n", [20, 200])
def test_the_bound_holds_in_simulation(n):
    codes, labels = world(6_000, views=2)
    codes = codes * (4.0 / codes.norm(dim=-1, keepdim=True)).clamp_max(1)
    terms = vi.probe_terms(codes, labels)
    assert terms.radius <= 17 + 1e-9
    generator, risks = seeded(14), []
    target = nn.functional.one_hot(labels).double()
    for _ in range(200):
        chosen = torch.randint(6_000, (n,), generator=generator)  # with replacement: independent draws of this law
        weight = vi.ridge_probe(codes[0, chosen], labels[chosen], terms.radius, 3)
        guess = nn.functional.pad(codes[1], (1, 0), value=1.0) @ weight.T
        risks.append((guess - target).square().sum(1).mean().item())
    risk = sum(risks) / len(risks)
    bound, with_jitter = vi.probe_bound(terms, n)
    assert terms.risk < risk < with_jitter < bound
    if n == 200:
        assert with_jitter < 3 * risk


def test_leave_one_out_identity_of_the_proof():
    generator = seeded(15)
    z, labels = normal(12, 3, generator=generator), torch.arange(12) % 2
    phi = nn.functional.pad(z, (1, 0), value=1.0)
    target = nn.functional.one_hot(labels).double()
    gram = phi.T @ phi + 2.5 * torch.eye(4, dtype=torch.float64)
    whole = torch.linalg.solve(gram, phi.T @ target).T
    leverage = (phi * torch.linalg.solve(gram, phi.T).T).sum(1)
    for i in range(12):
        rest = [j for j in range(12) if j != i]
        part = torch.linalg.solve(gram - torch.outer(phi[i], phi[i]), phi[rest].T @ target[rest]).T
        torch.testing.assert_close(target[i] - part @ phi[i], (target[i] - whole @ phi[i]) / (1 - leverage[i]))
        assert 1 / (1 - leverage[i]) <= 1 + phi[i].square().sum() / 2.5


def test_ridge_probe_minimises_its_objective():
    z, labels = world(30, views=1)
    weight = vi.ridge_probe(z[0], labels, radius=9.0, classes=3).requires_grad_()
    phi = nn.functional.pad(z[0], (1, 0), value=1.0)
    error = (nn.functional.one_hot(labels).double() - phi @ weight.T).square().sum()
    (error + math.sqrt(9.0 * 30) * weight.square().sum()).backward()
    assert weight.grad.abs().max() < 1e-10


def test_bad_probes_are_named():
    codes, labels = world(30)
    with pytest.raises(ValueError, match="at least two views"):
        vi.probe_terms(codes[:1], labels)
    with pytest.raises(ValueError, match=r"labels must have shape \(30,\)"):
        vi.probe_terms(codes, labels[:5])
    with pytest.raises(ValueError, match="n must be at least 1"):
        vi.probe_bound(vi.probe_terms(codes, labels), 0)
    with pytest.raises(ValueError, match="radius must be positive"):
        vi.ridge_probe(codes[0], labels, 0.0, 3)


# ---------------------------------------------------------------- moments along slices


def test_many_slices_tend_to_the_closed_form():
    z = 0.2 + normal(80, 6, generator=seeded(16)) @ normal(6, 6, generator=seeded(17)) / 3
    exact = vi.slice_free_moments(z)
    for slices in (100, 10_000):
        draws = torch.stack([
            vi.sliced_moments(z, random_directions(slices, 6, generator=seeded(s), dtype=z.dtype)) for s in range(30)
        ])
        assert abs(draws.mean() - exact) < 4 * draws.std() / math.sqrt(30)
        assert draws.std() < 2.5 * exact / math.sqrt(slices)


def test_moments_contain_vicregs_covariance_term():
    """Where means are zero and variances one, all that is left is the covariance term."""
    z = normal(60, 5, generator=seeded(18))
    z = (z - z.mean(0)) / z.std(0)
    torch.testing.assert_close(vi.slice_free_moments(z), 2 * covariance_term(z) / 7)
    assert variance_term(z) < 1e-12
    with pytest.raises(ValueError, match=r"directions must have shape \(M, 5\)"):
        vi.sliced_moments(z, torch.eye(4, dtype=z.dtype))


def test_deviation_or_variance_agree_to_leading_order():
    white = normal(200, 4, generator=seeded(19))
    white = (white - white.mean(0)) @ torch.linalg.cholesky(torch.linalg.inv(torch.cov(white.T)))
    directions = random_directions(500, 4, generator=seeded(20), dtype=white.dtype)
    z = white * torch.tensor([1.01, 0.99, 1.0, 1.02], dtype=white.dtype)
    ratio = vi.sliced_moments(z, directions) / vi.sliced_moments(z, directions, square=False)
    assert ratio.item() == pytest.approx(4, rel=0.05)


def test_the_gaussian_of_a_mixture_has_its_covariance():
    mean = torch.tensor([[0.0], [2.0]], dtype=torch.float64)
    covariance = torch.tensor([[[1.0]], [[3.0]]], dtype=torch.float64)
    found = vi.mixture_entropy_bounds(mean, covariance).gaussian
    assert found == pytest.approx(0.5 * math.log(2 * math.pi * math.e * (2 + 1)))  # mean of variances, and of the means
