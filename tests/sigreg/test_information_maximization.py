"""Chapter 8: bounds against independent formulas, quadrature and their remainders."""

import math

import pytest
import torch
from scipy import integrate, stats

from sigreg import information_maximization as im
from sigreg.rate_distortion import mutual_information

F64 = torch.float64


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
