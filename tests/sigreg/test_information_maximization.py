"""Chapter 8: bounds against independent formulas, theorems against the two laboratories, the record's arithmetic."""

import math

import pytest
import torch
from scipy import integrate, stats

import sigreg.lab.experiments.information_maximization as experiment
from sigreg import information_maximization as im
from sigreg.lab import dynamics
from sigreg.lab.reading import collapsed
from sigreg.lab.records import table
from sigreg.rate_distortion import mutual_information

F64 = torch.float64


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=F64)


def random_joint(generator, m=5, n=4):
    table = torch.rand(m, n, generator=generator, dtype=F64)
    return table / table.sum()


# ---------------------------------------------------------------- bounds on tables


def test_donsker_varadhan_is_a_bound_reached_by_the_density_ratio(generator):
    joint = random_joint(generator)
    truth = mutual_information(joint)
    ratio = joint / (joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True))
    torch.testing.assert_close(im.donsker_varadhan(ratio.log() + 3.0, joint).bound, truth)  # a constant is free
    for _ in range(50):
        assert im.donsker_varadhan(2 * normal(generator, 5, 4), joint).bound <= truth


def test_the_gap_is_the_divergence_to_the_tilted_law(generator):
    joint, scores = random_joint(generator), normal(generator, 5, 4)
    product = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    tilted = product * scores.exp() / (product * scores.exp()).sum()
    gap = (joint * (joint / tilted).log()).sum()
    torch.testing.assert_close(mutual_information(joint) - im.donsker_varadhan(scores, joint).bound, gap)


def test_donsker_varadhan_is_concave_in_the_scores(generator):
    joint = random_joint(generator)
    for _ in range(20):
        a, b = 3 * normal(generator, 2, 5, 4)
        middle = im.donsker_varadhan((a + b) / 2, joint).bound
        assert middle >= (im.donsker_varadhan(a, joint).bound + im.donsker_varadhan(b, joint).bound) / 2


def test_a_minibatch_leaves_its_diagonal_out_of_the_product(generator):
    scores = normal(generator, 6, 6)
    found = im.donsker_varadhan(scores)
    others = scores[~torch.eye(6, dtype=torch.bool)]
    torch.testing.assert_close(found.marginal, others.exp().mean().log())
    torch.testing.assert_close(found.joint, scores.diagonal().mean())


def test_a_batch_paired_with_itself_holds_log_batch_nats(generator):
    eye = torch.eye(7, dtype=F64)
    uniform = torch.full((7, 7), 1 / 49, dtype=F64)
    at_best = im.donsker_varadhan(60 * eye, eye / 7, uniform).bound
    assert at_best == pytest.approx(math.log(7), abs=1e-9)
    assert im.donsker_varadhan(60 * eye).bound > 59  # the diagonal left out: no cap


def test_info_nce_is_donsker_varadhan_with_a_normalised_critic(generator):
    """The critic log(e^T / mean e^T) gives InfoNCE as its joint term; over the channel its marginal term is zero."""
    scores = normal(generator, 8, 8)
    normalised = scores - scores.logsumexp(1, keepdim=True) + math.log(8)
    torch.testing.assert_close(im.info_nce_bound(scores), normalised.diagonal().mean())
    assert im.info_nce_bound(scores) <= math.log(8)
    # E_Q e^T over all columns, which are exchangeable under Q, is 1 in each row
    torch.testing.assert_close(normalised.exp().mean(1), torch.ones(8, dtype=F64))


def test_info_nce_stays_below_the_information_and_the_cap(generator):
    rho, dim, batch = 0.8, 2, 32
    truth = dim * im.gaussian_bounds(rho)["information"]
    values = []
    for _ in range(400):
        z = normal(generator, batch, dim)
        other = rho * z + math.sqrt(1 - rho**2) * normal(generator, batch, dim)
        values.append(im.info_nce_bound(im.gaussian_critic(z, other, rho)))
    mean, error = torch.stack(values).mean(), torch.stack(values).std() / 20
    assert mean < truth + 3 * error
    assert mean > truth - 0.15  # 32 partners are enough for one nat


def test_second_order_bound_and_its_remainder(generator):
    joint, scores = random_joint(generator), normal(generator, 5, 4)
    product = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    chi_square = ((joint - product).square() / product).sum()
    torch.testing.assert_close(im.second_order_bound(joint / product - 1, joint).bound, chi_square / 2)
    for scale in (0.3, 0.1, 0.03):
        small = scale * scores
        width = (small - (product * small).sum()).abs().max()
        gap = im.second_order_bound(small, joint).bound - im.donsker_varadhan(small, joint).bound
        assert gap.abs() <= width**3 / 3


@pytest.mark.parametrize("function", [im.donsker_varadhan, im.second_order_bound, im.info_nce_bound])
def test_bad_scores_are_named(function):
    with pytest.raises(TypeError, match="scores must be a"):
        function([[0.0]])
    with pytest.raises(ValueError, match="scores must have shape"):
        function(torch.zeros(3))
    with pytest.raises(ValueError, match="NaN"):
        function(torch.full((3, 3), math.nan))
    with pytest.raises(ValueError, match=r"\(B, B\) with B >= 2"):
        function(torch.zeros(3, 2))


def test_bad_probabilities_are_named():
    with pytest.raises(ValueError, match="joint must sum to 1"):
        im.donsker_varadhan(torch.zeros(2, 2), torch.ones(2, 2))
    with pytest.raises(ValueError, match="product must have the shape of scores"):
        im.donsker_varadhan(torch.zeros(2, 2), torch.eye(2) / 2, torch.ones(3, 3) / 9)


# ---------------------------------------------------------------- Gaussian pairs


def test_gaussian_critic_is_the_log_density_ratio(generator):
    rho = 0.7
    z, other = normal(generator, 4, 2), normal(generator, 3, 2)
    pair = stats.multivariate_normal([0, 0], [[1, rho], [rho, 1]])
    for i in range(4):
        for j in range(3):
            expected = sum(
                pair.logpdf([float(z[i, d]), float(other[j, d])])
                - stats.norm.logpdf(float(z[i, d]))
                - stats.norm.logpdf(float(other[j, d]))
                for d in range(2)
            )
            assert im.gaussian_critic(z, other, rho)[i, j] == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("rho", [-0.9, 0.0, 0.2, 0.6, 0.95])
def test_gaussian_bounds_against_quadrature(rho):
    found = im.gaussian_bounds(rho)
    points, weights = integrate_nodes()
    table = torch.exp(im.gaussian_critic(points[:, None], points[:, None], rho)) * weights[:, None] * weights
    table /= table.sum()
    product = weights[:, None] * weights
    assert im.donsker_varadhan(points[:, None] * points * 0.1, table, product).bound <= found["bilinear"] + 1e-9
    if abs(rho) < 0.7:  # the grid resolves milder correlations
        assert mutual_information(table) == pytest.approx(found["information"], abs=1e-6)
        chi = im.second_order_bound(table / product - 1, table, product).bound
        assert chi == pytest.approx(found["half_chi_square"], abs=1e-6)
        slopes = torch.linspace(-0.7, 0.7, 1401, dtype=F64)
        values = slopes * rho + torch.log1p(-(slopes**2)) / 2
        assert found["bilinear"] == pytest.approx(values.max().item(), abs=1e-6)
        slope = slopes[values.argmax()]
        assert im.donsker_varadhan(points[:, None] * points * slope, table, product).bound == pytest.approx(
            found["bilinear"], abs=1e-5
        )
    assert found["bilinear"] <= found["second_order"] <= found["information"] <= found["half_chi_square"]


def integrate_nodes():
    """A fine grid with standard normal weights."""
    points = torch.linspace(-9, 9, 601, dtype=F64)
    weights = torch.exp(-points.square() / 2)
    return points, weights / weights.sum()


def test_half_chi_square_by_integration():
    rho = 0.5

    def square(y, x):
        ratio = math.exp(float(im.gaussian_critic(torch.tensor([[x]]).double(), torch.tensor([[y]]).double(), rho)))
        return (ratio - 1) ** 2 * math.exp(-(x * x + y * y) / 2) / (2 * math.pi)

    value = integrate.dblquad(square, -6, 6, -6, 6, epsabs=1e-4)[0]
    assert value / 2 == pytest.approx(im.gaussian_bounds(rho)["half_chi_square"], abs=1e-3)


def test_correlations_outside_are_refused():
    for wrong in (1.0, -1.5, math.nan):
        with pytest.raises(ValueError, match=r"correlation must lie in \(-1, 1\), got"):
            im.gaussian_bounds(wrong)


# ---------------------------------------------------------------- ascent on a channel


def test_ring_channel_is_symmetric_and_positive():
    joint = dynamics.ring_channel(12, 3.0)
    torch.testing.assert_close(joint, joint.T)
    torch.testing.assert_close(joint.sum(0), torch.full((12,), 1 / 12, dtype=F64))
    assert torch.linalg.eigvalsh(joint).min() > -1e-15
    with pytest.raises(ValueError, match="size must be at least 2"):
        dynamics.ring_channel(1, 1.0)


def test_alternation_rises_and_stays_below_the_information(generator):
    joint = dynamics.ring_channel(10, 3.0)
    f, g = 0.3 * normal(generator, 2, 10, 3)
    run = dynamics.ascend(joint, f, g, mode="alternating", lr=1.0, steps=200)
    assert (run.exact.diff() > 0).all() and run.exact[-1] < mutual_information(joint)
    assert run.estimate is None


def test_a_stop_gradient_on_one_shared_table_is_half_the_step(generator):
    joint, f = dynamics.ring_channel(8, 3.0), 0.3 * normal(generator, 8, 3)
    whole = dynamics.ascend(joint, f, f, mode="shared", lr=1.0, steps=30)
    stopped = dynamics.ascend(joint, f, f, mode="shared_stopped", lr=2.0, steps=30)
    torch.testing.assert_close(whole.exact, stopped.exact)
    torch.testing.assert_close(whole.f, stopped.f)


def test_first_step_of_ascent_is_the_gradient_by_finite_differences(generator):
    joint = dynamics.ring_channel(5, 2.0)
    f, g = normal(generator, 2, 5, 2)
    lr, small = 1e-3, 1e-5
    run = dynamics.ascend(joint, f, g, mode="joint", lr=lr, steps=1)
    bump = torch.zeros_like(f)
    bump[2, 1] = small
    up, down = (im.donsker_varadhan((f + s * bump) @ g.T, joint).bound for s in (1, -1))
    assert (run.f - f)[2, 1] / lr == pytest.approx(float(up - down) / (2 * small), rel=1e-6)


def test_minibatch_ascent_is_reproducible_and_needs_a_generator(generator):
    joint, f = dynamics.ring_channel(6, 2.0), 0.3 * normal(generator, 6, 2)
    runs = [
        dynamics.ascend(joint, f, f, mode="shared", lr=0.3, steps=5, batch=16, generator=seeded(1))
        for _ in range(2)
    ]
    assert torch.equal(runs[0].estimate, runs[1].estimate) and runs[0].estimate.shape == (5,)
    with pytest.raises(ValueError, match="generator is needed"):
        dynamics.ascend(joint, f, f, mode="shared", lr=0.3, steps=5, batch=16)
    with pytest.raises(ValueError, match="mode must be one of"):
        dynamics.ascend(joint, f, f, mode="sideways", lr=0.3, steps=5)
    with pytest.raises(ValueError, match="f and g must have shapes"):
        dynamics.ascend(joint, f, f[:3], mode="joint", lr=0.3, steps=5)
    with pytest.raises(ValueError, match="lower lr"):
        dynamics.ascend(joint, f, f, mode="shared", lr=1e4, steps=50)


# ---------------------------------------------------------------- the linear laboratory


def views(generator, correlations, count):
    x = normal(generator, count, len(correlations))
    return x, correlations * x + (1 - correlations**2).sqrt() * normal(generator, count, len(correlations))


RHO = torch.tensor([0.9, 0.6, 0.3, 0.0], dtype=F64)


def test_prediction_loss_is_the_mean_over_samples(generator):
    a, p = normal(generator, 2, 4), normal(generator, 2, 2)
    x, other = views(generator, RHO, 200_000)
    errors = ((x @ a.T @ p.T - other @ a.T).square().sum(1)) / 2
    found = dynamics.linear_prediction_loss(a, a, p, RHO)
    assert found == pytest.approx(errors.mean().item(), abs=4 * errors.std().item() / 200_000**0.5)
    with pytest.raises(ValueError, match="encoder and target"):
        dynamics.linear_prediction_loss(a, a[:, :3], p, RHO)


def test_best_predictor_is_least_squares(generator):
    a = normal(generator, 2, 4)
    p = dynamics.best_predictor(a, RHO).requires_grad_()
    (slope,) = torch.autograd.grad(dynamics.linear_prediction_loss(a, a, p, RHO), p)
    assert slope.abs().max() < 1e-12


def test_linear_information_is_that_of_the_joint_covariance(generator):
    a, noise = normal(generator, 2, 4), 0.3
    own = a @ a.T + noise**2 * torch.eye(2, dtype=F64)
    cross = (a * RHO) @ a.T
    whole = torch.cat([torch.cat([own, cross], 1), torch.cat([cross.T, own], 1)])
    expected = torch.logdet(own) - torch.logdet(whole) / 2
    torch.testing.assert_close(dynamics.linear_information(a, RHO, noise), expected)
    assert dynamics.linear_information(0 * a, RHO, noise) == 0
    with pytest.raises(ValueError, match="noise must be positive"):
        dynamics.linear_information(a, RHO, 0.0)


@pytest.mark.parametrize("stop_gradient", [True, False])
def test_what_one_small_step_does_to_the_gram_matrix(generator, stop_gradient):
    """With the best predictor: nothing under a stop-gradient, a loss of 2 lr E|Pz - z'|^2 in the trace without."""
    a, lr = normal(generator, 3, 4), 1e-5
    run = dynamics.train_linear(
        a, RHO, stop_gradient=stop_gradient, predictor="best", regularizer=False, lr=lr, steps=1
    )
    change = (run.encoder @ run.encoder.T - a @ a.T) / lr
    if stop_gradient:
        assert change.abs().max() < 1e-3
    else:
        residual = 2 * dynamics.linear_prediction_loss(a, a, dynamics.best_predictor(a, RHO), RHO)
        assert change.trace() == pytest.approx(-2 * residual.item(), rel=1e-3)


def test_stop_gradient_without_predictor_halves_the_gradient(generator):
    a = normal(generator, 2, 4)
    settings = {"predictor": None, "regularizer": False, "steps": 40}
    whole = dynamics.train_linear(a, RHO, stop_gradient=False, lr=0.05, **settings)
    half = dynamics.train_linear(a, RHO, stop_gradient=True, lr=0.1, **settings)
    torch.testing.assert_close(whole.encoder, half.encoder)


def test_a_learned_predictor_keeps_gram_less_its_own_over_speed(generator):
    a, speed = 0.7 * normal(generator, 2, 4), 3.0
    settings = {"stop_gradient": True, "predictor": "learned", "regularizer": False, "speed": speed}
    run = dynamics.train_linear(torch.linalg.qr(a.T).Q.T, RHO, lr=0.02, steps=1500, **settings)
    expected = torch.tensor([1 - (1 - r**2) / speed for r in (0.9, 0.6)], dtype=F64)
    torch.testing.assert_close(run.spectrum[-1], expected, atol=0.03, rtol=0)


def test_whitened_flow_raises_the_sum_of_squared_correlations(generator):
    a = torch.linalg.qr(normal(generator, 4, 2)).Q.T
    run = dynamics.train_linear(a, RHO, stop_gradient=True, predictor="best", regularizer=False, lr=0.1, steps=800)
    assert (run.information.diff() > -1e-12).all()
    torch.testing.assert_close(run.spectrum[-1], torch.ones(2, dtype=F64), atol=0.02, rtol=0)
    found = torch.linalg.eigvalsh((run.encoder * RHO) @ run.encoder.T).flip(0)
    torch.testing.assert_close(found, torch.tensor([0.9, 0.6], dtype=F64), atol=0.02, rtol=0)
    with pytest.raises(ValueError, match="predictor must be None"):
        dynamics.train_linear(a, RHO, stop_gradient=True, predictor="guess", regularizer=False)


# ---------------------------------------------------------------- the experiment


def test_state_knows_the_ends(generator):
    z = torch.randn(4096, 32, generator=generator)
    other = torch.randn(4096, 32, generator=generator)
    round_codes = experiment.state(torch.stack([z, z])[:, :512])
    assert round_codes["spread"] == pytest.approx(1, abs=0.01)
    assert 29 < experiment.state(torch.stack([z, other]))["rank"] <= 32
    assert round_codes["information"] == pytest.approx(math.log(512), abs=1e-2)  # one image, one code: the cap
    assert experiment.state(torch.stack([z, other])[:, :512])["information"] < 0.01
    point = experiment.state(torch.ones(2, 64, 32))
    assert point["spread"] < 1e-6 and point["rate"] < 1e-6 and abs(point["information"]) < 1e-6
    line = torch.where(torch.arange(64) % 2 == 0, 1.0, -1.0)[:, None] * torch.ones(32)
    assert experiment.state(torch.stack([line, line]))["rank"] == pytest.approx(1, abs=1e-3)


def test_gradients_flow_where_the_cell_says(generator):
    """The regulariser alone moves the codes' norm; a stop-gradient without predictor halves every gradient."""
    images = torch.randn(2, 16, 1, 28, 28, generator=generator)
    batch = (*images, torch.arange(16), torch.zeros(16, dtype=torch.long))
    slopes = {}
    for stop in (False, True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            network = experiment.CubeNetwork(predictor=False)
        unit = {"stop_gradient": stop, "regularizer": False, "seed": 0}
        experiment.objective(unit)(network, batch)["loss"].backward()
        slopes[stop] = torch.cat([p.grad.flatten() for p in network.parameters()])
    torch.testing.assert_close(2 * slopes[True], slopes[False], atol=1e-7, rtol=1e-4)
    assert slopes[False].abs().max() > 1e-4


def test_units_cover_the_cube_from_one_start():
    found = experiment.units("full", range(2))
    assert len(found) == 18 and len({u["cell"] for u in found}) == 9
    starts = []
    for predictor in (False, True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            starts.append(experiment.CubeNetwork(predictor).codes.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(starts[0].values(), starts[1].values(), strict=True))


def test_reading_a_record():
    def entry(cell, seed, spread):
        result = {"spread": [1.0, spread], "rank": [9.0, 4.0], "probe_accuracy": 0.8}
        return {"unit": {"cell": cell, "seed": seed}, "result": result, "seconds": 1.0}

    record = {"units": [entry("a", 0, 0.01), entry("a", 1, 0.02), entry("b", 0, 0.01), entry("b", 1, 0.9)]}
    assert collapsed(table(record)) == (["a"], ["b"])
    assert "collapsed in every seed: a; in some: b" in experiment.summary(record)
    assert experiment.trace([{"q": float(k)} for k in range(50)], "q")[0] == 0.5


def test_a_small_unit_runs_twice_alike():
    unit = {
        "cell": "stop-gradient + predictor",
        "stop_gradient": True,
        "predictor": True,
        "regularizer": True,
        "seed": 0,
        "whole": False,
        "steps": 3,
        "batch_size": 64,
        "lr": 1e-3,
        "probe_images": 200,
    }
    result = experiment.run_unit(unit, torch.device("cpu"))
    assert result == experiment.run_unit(unit, torch.device("cpu"))
    assert len(result["rank"]) == 3 and 0.2 < result["probe_accuracy"] < 1
