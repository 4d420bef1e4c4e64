"""The chain as identities: round trips, laws, gradients, the ledger against quadrature and simulation."""

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from scipy import integrate, special, stats

from sigreg.transform_chain import (
    entropy_ledger,
    flat_dirichlet,
    gaussian_to_orthant,
    knn_entropy,
    label_simplex_information,
    orthant_to_gaussian,
    orthant_to_simplex,
    simplex_to_orthant,
)

FLOATS = [torch.float32, torch.float64]
ROUTES = ["complex", "quantile"]


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def every_scale(dtype):
    """Exponential coordinates over the whole range of the dtype, dense in the middle."""
    decades = 37 if dtype == torch.float32 else 307
    wide = torch.logspace(-decades, decades, 4001, dtype=torch.float64)
    return torch.cat([wide, torch.linspace(0.01, 120, 4001, dtype=torch.float64)]).to(dtype)


# Round trips and tails


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 4, 10)])
def test_lift_and_return(dtype, shape):
    p = flat_dirichlet(math.prod(shape[:-1]), shape[-1], rng(), dtype).reshape(shape)
    e = simplex_to_orthant(p, rng(1))
    assert e.shape == p.shape and e.dtype == dtype
    torch.testing.assert_close(orthant_to_simplex(e), p)
    torch.testing.assert_close(simplex_to_orthant(orthant_to_simplex(e), total=e.sum(-1)), e)


@pytest.mark.parametrize("dtype", FLOATS)
def test_complex_route_returns_at_every_scale(dtype):
    e = every_scale(dtype)
    back = gaussian_to_orthant(orthant_to_gaussian(e, "complex", rng()), "complex")
    assert ((back - e).abs() <= 8 * torch.finfo(dtype).eps * e).all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_quantile_route_returns_at_every_scale(dtype):
    # Rounding z moves log E by z^2 eps in the left tail, whatever the algorithm, and by 2 eps in the right.
    e = every_scale(dtype)
    z = orthant_to_gaussian(e, "quantile")
    back = gaussian_to_orthant(z, "quantile")
    eps = torch.finfo(dtype).eps
    assert torch.isfinite(z).all()
    assert ((back - e).abs() <= 3 * (1 + z.clamp(max=0) ** 2) * eps * e + 3 * eps * e).all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_quantile_route_against_scipy(dtype):
    e = every_scale(dtype)
    x = e.double().numpy()
    want = np.where(x < 0.5, special.ndtri(-np.expm1(-x)), -special.ndtri_exp(-x))
    z = orthant_to_gaussian(e, "quantile").double().numpy()
    # scipy's inverse of log Phi is itself off by 5e-13 beyond E = 1e4 (found with mpmath, as below)
    tolerance = max(1e-12, 8 * torch.finfo(dtype).eps)
    np.testing.assert_allclose(z, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("e", [1e-12, 0.3, 0.7, 49.0, 51.0, 1e3, 1e6])
def test_quantile_route_against_forty_digits(e):
    z = orthant_to_gaussian(torch.tensor([e], dtype=torch.float64), "quantile").item()
    with mpmath.workdps(40):
        survival = mpmath.erfc(mpmath.mpf(z) / mpmath.sqrt(2)) / 2
        density = mpmath.exp(-mpmath.mpf(z) ** 2 / 2) / mpmath.sqrt(2 * mpmath.pi)
        off = (mpmath.log(survival) + mpmath.mpf(e)) * survival / density  # one exact Newton step
    assert abs(float(off)) < 4 * np.finfo(float).eps * max(1, abs(z))


@pytest.mark.parametrize("dtype", FLOATS)
def test_quantile_map_increases_across_its_seams(dtype):
    # The seams are at log 2, where the tails change places, and at 50, where Newton's method takes over.
    for seam in (math.log(2), 50.0):
        e = torch.linspace(seam - 0.01, seam + 0.01, 2001, dtype=dtype).unique()
        z = orthant_to_gaussian(e, "quantile")
        assert (z.diff() > -4 * torch.finfo(dtype).eps * z.abs().amax()).all()
        slope = (z[-1] - z[0]) / (e[-1] - e[0])
        hazard = special.erfcx(z.double().mean().item() / math.sqrt(2)) * math.sqrt(math.pi / 2)
        assert slope.item() == pytest.approx(hazard, rel=1e-3)


@pytest.mark.parametrize("dtype", FLOATS)
def test_gaussian_first_round_trip(dtype):
    g = torch.randn(1000, 6, generator=rng(), dtype=dtype)
    torch.testing.assert_close(
        orthant_to_gaussian(gaussian_to_orthant(g, "quantile"), "quantile"), g, rtol=1e-5, atol=1e-6
    )
    pairs = g.unflatten(-1, (3, 2)).square().sum(-1) / 2
    torch.testing.assert_close(gaussian_to_orthant(g, "complex"), pairs)


def test_simplex_survives_overflow_and_underflow():
    big = torch.tensor([3e38, 3e38, 1.5e38])
    torch.testing.assert_close(orthant_to_simplex(big), torch.tensor([0.4, 0.4, 0.2]))
    small = torch.tensor([2e-38, 2e-38, 1e-38])
    torch.testing.assert_close(orthant_to_simplex(small), torch.tensor([0.4, 0.4, 0.2]))
    corner = torch.tensor([0.0, 0.0, 7.0])
    assert orthant_to_simplex(corner).tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("route", ROUTES)
def test_half_precision_keeps_its_dtype(dtype, route):
    e = torch.tensor([[0.01, 0.5, 3.0]], dtype=dtype)
    g = orthant_to_gaussian(e, route, rng())
    assert g.dtype == dtype
    torch.testing.assert_close(gaussian_to_orthant(g, route), e, rtol=0.05, atol=1e-3)


def test_generator_decides_the_draw():
    p = flat_dirichlet(50, 4, rng(3))
    assert torch.equal(p, flat_dirichlet(50, 4, rng(3)))
    assert torch.equal(simplex_to_orthant(p, rng(4)), simplex_to_orthant(p, rng(4)))
    assert not torch.equal(simplex_to_orthant(p, rng(4)), simplex_to_orthant(p, rng(5)))
    e = simplex_to_orthant(p, rng(4))
    assert torch.equal(orthant_to_gaussian(e, generator=rng(6)), orthant_to_gaussian(e, generator=rng(6)))
    assert not torch.equal(orthant_to_gaussian(e, generator=rng(6)), orthant_to_gaussian(e, generator=rng(7)))


# Laws


def test_flat_dirichlet_is_uniform():
    p = flat_dirichlet(20000, 4, rng())
    for i in range(4):
        assert stats.kstest(p[:, i].numpy(), stats.beta(1, 3).cdf).pvalue > 1e-3
    want = (torch.eye(4, dtype=p.dtype) - 1 / 4) / (4 * 5)  # covariance of the flat Dirichlet
    assert (p.T.cov() - want).abs().max() < 1.5e-3


@pytest.mark.parametrize("n_classes", [2, 3, 10])
def test_each_stage_has_its_law(n_classes):
    generator = rng(n_classes)
    p = flat_dirichlet(20000, n_classes, generator)
    e = simplex_to_orthant(p, generator)
    g = orthant_to_gaussian(e, "complex", generator)
    z = orthant_to_gaussian(e, "quantile")
    assert stats.kstest(e.sum(-1).numpy(), stats.gamma(n_classes).cdf).pvalue > 1e-3
    for sample, law in ((e, stats.expon), (g, stats.norm), (z, stats.norm)):
        pooled = stats.kstest(sample.flatten().numpy(), law.cdf)  # coordinates are independent
        assert pooled.pvalue > 1e-3
    for sample in (g, z):
        radius = sample.square().sum(-1).numpy()  # independence shows in the radius: chi-squared
        assert stats.kstest(radius, stats.chi2(sample.shape[-1]).cdf).pvalue > 1e-3
        covariance = sample.T.cov()
        assert (covariance - torch.eye(len(covariance), dtype=covariance.dtype)).abs().max() < 0.05


def test_radius_is_independent_of_direction():
    generator = rng(1)
    e = torch.empty(20000, 3, dtype=torch.float64).exponential_(generator=generator)
    s, p = e.sum(-1), orthant_to_simplex(e)
    low, high = p[s < s.median()], p[s >= s.median()]
    for i in range(3):
        assert stats.ks_2samp(low[:, i].numpy(), high[:, i].numpy()).pvalue > 1e-3


def test_wrong_radius_is_noticed():
    # The checks above can fail: with a constant radius the coordinates are not exponential.
    p = flat_dirichlet(20000, 3, rng())
    e = simplex_to_orthant(p, total=torch.full((20000,), 3.0, dtype=p.dtype))
    assert stats.kstest(e[:, 0].numpy(), stats.expon.cdf).pvalue < 1e-6


def test_phases_are_uniform_and_independent_of_radius():
    e = torch.empty(20000, 1, dtype=torch.float64).exponential_(generator=rng())
    g = orthant_to_gaussian(e, "complex", rng(1))
    phase = torch.atan2(g[:, 1], g[:, 0])
    assert stats.kstest(phase.numpy(), stats.uniform(-math.pi, 2 * math.pi).cdf).pvalue > 1e-3
    near, far = phase[e[:, 0] < 0.69], phase[e[:, 0] >= 0.69]
    assert stats.ks_2samp(near.numpy(), far.numpy()).pvalue > 1e-3


# Gradients


def test_gradcheck_of_every_map():
    e = torch.tensor([[1e-3, 0.5, 0.7], [1.0, 20.0, 60.0]], dtype=torch.float64, requires_grad=True)
    z = torch.tensor([[-6.0, -0.3, 0.2], [1.0, 5.0, 9.0]], dtype=torch.float64, requires_grad=True)
    p = flat_dirichlet(2, 3, rng()).requires_grad_()
    total = torch.tensor([1.0, 4.0], dtype=torch.float64)
    options = dict(eps=1e-7, atol=1e-6, rtol=1e-5)
    assert torch.autograd.gradcheck(orthant_to_simplex, e, **options)
    lift = lambda q: simplex_to_orthant(q / q.sum(-1, keepdim=True), total=total)  # noqa: E731
    assert torch.autograd.gradcheck(lift, p, **options)
    assert torch.autograd.gradcheck(lambda x: orthant_to_gaussian(x, "complex", rng()), e[:, 1:], **options)
    assert torch.autograd.gradcheck(lambda x: orthant_to_gaussian(x, "quantile"), e[:, 1:], **options)
    assert torch.autograd.gradgradcheck(lambda x: orthant_to_gaussian(x, "quantile"), e[:, 1:])
    assert torch.autograd.gradgradcheck(lambda x: gaussian_to_orthant(x, "quantile"), z)
    assert torch.autograd.gradcheck(lambda x: gaussian_to_orthant(x, "quantile"), z, **options)
    assert torch.autograd.gradcheck(lambda x: gaussian_to_orthant(x, "complex"), z[:, :2], **options)


@pytest.mark.parametrize("dtype", FLOATS)
def test_quantile_gradients_in_the_tails(dtype):
    e = every_scale(dtype).requires_grad_()
    z = orthant_to_gaussian(e, "quantile")
    (rise,) = torch.autograd.grad(z.sum(), e)
    x = z.detach().requires_grad_()
    (fall,) = torch.autograd.grad(gaussian_to_orthant(x, "quantile").sum(), x)
    assert not rise.isnan().any() and not fall.isnan().any()
    # the hazard by scipy: phi(z) / Phi(-z), from logarithms in the middle, z + 1 / z - 2 / z^3 far out
    at = z.detach().double().numpy()
    near = np.clip(at, None, 100)
    middle = np.exp(-0.5 * near**2 - 0.5 * math.log(2 * math.pi) - special.log_ndtr(-near))
    far = np.clip(at, 100, None)
    hazard = np.where(at > 100, far + 1 / far - 2 / far / far / far, middle)
    inside = hazard > 10 * torch.finfo(dtype).tiny
    assert inside.mean() > 0.9
    tolerance = 1e-4 if dtype == torch.float32 else 1e-9
    np.testing.assert_allclose(fall.numpy()[inside], hazard[inside], rtol=tolerance)
    np.testing.assert_allclose(rise.numpy()[inside], 1 / hazard[inside], rtol=tolerance)


# The ledger


@pytest.mark.parametrize("n_classes", [2, 3, 4, 10, 100, 1000])
@pytest.mark.parametrize("route", ROUTES)
def test_ledger_adds_up_exactly(n_classes, route):
    rows = entropy_ledger(n_classes).rows(route)
    first = rows[0]
    running = list(first.terms)
    nats = first.nats
    for row in rows[1:]:
        if row.is_stage:
            assert tuple(running) == row.terms  # fractions: no rounding
            assert nats == pytest.approx(row.nats, rel=1e-12, abs=1e-9)
        else:
            running = [a + b for a, b in zip(running, row.terms, strict=True)]
            nats += row.nats
    assert all(isinstance(t, Fraction) for row in rows for t in row.terms)
    assert rows[-1].dimension == (2 if route == "complex" else 1) * n_classes


def test_ledger_adds_up_for_every_size():
    for n_classes in range(2, 1001):
        ledger = entropy_ledger(n_classes)
        lift = [a + b for a, b in zip(ledger.radius.terms, ledger.stretch.terms, strict=True)]
        assert [a + b for a, b in zip(ledger.simplex.terms, lift, strict=True)] == list(ledger.orthant.terms)
        assert ledger.lift == pytest.approx(ledger.orthant.nats - ledger.simplex.nats, rel=1e-13)


def test_ledger_against_scipy_and_quadrature():
    for c in (2, 3, 10, 57):
        ledger = entropy_ledger(c)
        assert ledger.simplex.nats == pytest.approx(stats.dirichlet(np.ones(c)).entropy(), abs=1e-9)
        assert ledger.radius.nats == pytest.approx(stats.gamma(c).entropy(), abs=1e-9)
        mean_log, _ = integrate.quad(lambda s, c=c: math.log(s) * stats.gamma(c).pdf(s), 0, np.inf)
        assert ledger.stretch.nats == pytest.approx((c - 1) * mean_log, rel=1e-6)
        assert ledger.orthant.nats == c * stats.expon.entropy()
        assert ledger.complex_gaussian.nats == pytest.approx(2 * c * stats.norm.entropy(), rel=1e-12)
        assert ledger.quantile_gaussian.nats == pytest.approx(c * stats.norm.entropy(), rel=1e-12)
    stretch, _ = integrate.quad(lambda e: math.exp(-e) * _log_slope(e), 0, 60)
    assert entropy_ledger(7).quantile_stretch.nats == pytest.approx(7 * stretch, rel=1e-6)


def _log_slope(e):
    z = -special.ndtri_exp(-e) if e > 0.5 else special.ndtri(-math.expm1(-e))
    return math.log(math.sqrt(math.pi / 2) * special.erfcx(z / math.sqrt(2)))


def test_ledger_constants():
    three, ten = entropy_ledger(3), entropy_ledger(10)
    assert round(three.lift, 4) == 3.6931 and round(ten.lift, 4) == 22.8018
    assert round(three.radius.nats, 3) == 1.848 and round(ten.radius.nats, 4) == 2.5361
    assert round(ten.phases.nats / 10, 4) == 1.8379
    assert round(ten.quantile_stretch.nats / 10, 5) == 0.41894


@pytest.mark.parametrize("n_classes", [3, 10])
def test_ledger_against_simulation(n_classes):
    generator = rng(n_classes)
    ledger = entropy_ledger(n_classes)
    e = simplex_to_orthant(flat_dirichlet(40000, n_classes, generator), generator)
    s, z = e.sum(-1), orthant_to_gaussian(e, "quantile")
    g = orthant_to_gaussian(e, "complex", generator)
    mills = math.sqrt(math.pi / 2) * torch.special.erfcx(z / math.sqrt(2))
    samples = {
        "radius": s - (n_classes - 1) * s.log() + math.lgamma(n_classes),  # -log density of Gamma(C, 1)
        "stretch": (n_classes - 1) * s.log(),
        "orthant": s,
        "complex_gaussian": 0.5 * g.square().sum(-1) + n_classes * math.log(2 * math.pi),
        "quantile_stretch": mills.log().sum(-1),
        "quantile_gaussian": 0.5 * z.square().sum(-1) + 0.5 * n_classes * math.log(2 * math.pi),
    }
    for name, values in samples.items():
        error = values.std().item() / math.sqrt(len(values))
        assert abs(values.mean().item() - getattr(ledger, name).nats) < 4 * error, name


def test_label_simplex_information():
    assert round(label_simplex_information(10), 4) == 0.3736
    for c in (2, 3, 10, 1000):
        harmonic = math.fsum(1 / k for k in range(1, c + 1))
        assert label_simplex_information(c) == pytest.approx(math.log(c) - harmonic + 1, abs=1e-12)
    values = [label_simplex_information(c) for c in (2, 3, 10, 100, 10**6)]
    assert values == sorted(values) and values[-1] < 1 - np.euler_gamma
    assert label_simplex_information(10**9) == pytest.approx(1 - np.euler_gamma, abs=1e-9)
    p = flat_dirichlet(40000, 5, rng())
    information = math.log(5) + torch.special.xlogy(p, p).sum(-1)
    error = information.std().item() / math.sqrt(len(p))
    assert abs(information.mean().item() - label_simplex_information(5)) < 4 * error


# Nearest-neighbour entropy


@pytest.mark.parametrize("k", [1, 3, 8])
@pytest.mark.parametrize(
    "law",
    [stats.norm(2, 3), stats.expon(scale=0.1), stats.uniform(-1, 5), stats.gumbel_r()],
    ids=["normal", "exponential", "uniform", "gumbel"],
)
def test_knn_entropy_of_known_laws(law, k):
    x = torch.from_numpy(law.rvs(4000, random_state=7))[:, None]
    estimate = knn_entropy(x, k)
    assert abs(estimate.nats - law.entropy()) < 4 * estimate.standard_error + 0.01


def test_knn_entropy_of_a_correlated_gaussian():
    mix = torch.tensor([[1.0, 0, 0], [0.8, 0.5, 0], [-0.3, 0.2, 2.0]], dtype=torch.float64)
    x = torch.randn(4000, 3, generator=rng(), dtype=torch.float64) @ mix.T
    want = stats.multivariate_normal(cov=(mix @ mix.T).numpy()).entropy()
    estimate = knn_entropy(x)
    assert abs(estimate.nats - want) < 4 * estimate.standard_error + 0.02


def test_knn_entropy_against_brute_force():
    x = torch.randn(200, 2, generator=rng(), dtype=torch.float64)
    distance = np.sort(np.linalg.norm(x[:, None].numpy() - x[None].numpy(), axis=-1), axis=1)[:, 3]
    want = special.digamma(200) - special.digamma(3) + math.log(math.pi) + 2 * np.log(distance).mean()
    assert knn_entropy(x, 3).nats == pytest.approx(want, abs=1e-12)


def test_knn_entropy_moves_with_scale_and_not_with_place():
    x = torch.randn(500, 4, generator=rng(), dtype=torch.float64)
    base = knn_entropy(x)
    assert knn_entropy(5 * x + 100).nats == pytest.approx(base.nats + 4 * math.log(5), abs=1e-9)
    assert knn_entropy(x.float()).nats == pytest.approx(base.nats, abs=1e-4)


def test_knn_standard_error_is_honest():
    generator = rng()
    draws = torch.randn(150, 400, 3, generator=generator, dtype=torch.float64)
    estimates = [knn_entropy(x) for x in draws]
    spread = torch.tensor([e.nats for e in estimates]).std().item()
    claimed = torch.tensor([e.standard_error for e in estimates]).mean().item()
    assert 0.8 < spread / claimed < 1.25


# Bad input


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: simplex_to_orthant([0.5, 0.5]), TypeError, "p must be a torch.Tensor"),
        (lambda: simplex_to_orthant(torch.tensor([1, 0])), TypeError, "floating"),
        (lambda: simplex_to_orthant(torch.tensor([0.5, 0.6])), ValueError, "p must sum to 1"),
        (lambda: simplex_to_orthant(torch.tensor([1.5, -0.5])), ValueError, "negative"),
        (lambda: simplex_to_orthant(torch.tensor([math.nan, 1.0])), ValueError, "NaN"),
        (lambda: simplex_to_orthant(torch.tensor([1.0])), ValueError, "at least 2"),
        (lambda: simplex_to_orthant(torch.ones(3) / 3, total=2.0), ValueError, "total"),
        (lambda: simplex_to_orthant(torch.ones(4, 3) / 3, total=torch.ones(3)), ValueError, "total"),
        (lambda: simplex_to_orthant(torch.ones(3) / 3, total=torch.tensor(0.0)), ValueError, "positive"),
        (lambda: orthant_to_simplex(torch.tensor([-1.0, 2.0])), ValueError, "non-negative"),
        (lambda: orthant_to_simplex(torch.zeros(2, 3)), ValueError, "row of zeros"),
        (lambda: orthant_to_simplex(torch.tensor([math.inf, 1.0])), ValueError, "infinite"),
        (lambda: orthant_to_gaussian(torch.ones(3), route="polar"), ValueError, "route"),
        (lambda: orthant_to_gaussian(torch.tensor([0.0, 1.0]), "quantile"), ValueError, "clamp_min"),
        (lambda: gaussian_to_orthant(torch.ones(3), "complex"), ValueError, "even"),
        (lambda: gaussian_to_orthant(torch.tensor([math.nan]), "quantile"), ValueError, "NaN"),
        (lambda: gaussian_to_orthant(torch.ones(2), "polar"), ValueError, "route"),
        (lambda: entropy_ledger(1), ValueError, "at least 2"),
        (lambda: entropy_ledger(3.0), TypeError, "int"),
        (lambda: entropy_ledger(True), TypeError, "int"),
        (lambda: entropy_ledger(3).rows("polar"), ValueError, "route"),
        (lambda: label_simplex_information(0), ValueError, "at least 2"),
        (lambda: flat_dirichlet(0, 3), ValueError, "n must"),
        (lambda: flat_dirichlet(3, 1), ValueError, "n_classes"),
        (lambda: knn_entropy(torch.randn(100)), ValueError, r"\(N, D\)"),
        (lambda: knn_entropy(torch.randn(30, 2)), ValueError, "at least 80 rows"),
        (lambda: knn_entropy(torch.randn(100, 2), k=0), ValueError, "k must"),
        (lambda: knn_entropy(torch.ones(100, 2)), ValueError, "exact copies"),
        (lambda: knn_entropy(torch.full((100, 2), math.nan)), ValueError, "NaN"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
