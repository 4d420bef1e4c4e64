"""The information bottleneck against identities, closed forms, brute force and independent arithmetic."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize_scalar

from sigreg.rate_distortion import (
    annealing_tree,
    critical_beta,
    information_bottleneck,
    learnability_beta,
    mutual_information,
    rate_and_relevance,
    squared_information_bottleneck,
)

CERTIFIED = 5e-7  # nats: the default tolerance


def random_joint(n_x, n_y, seed, sparsity=1):
    generator = torch.Generator().manual_seed(seed)
    rows = (-torch.rand(n_x, n_y, generator=generator, dtype=torch.float64).log()) ** sparsity
    weights = 0.2 + torch.rand(n_x, 1, generator=generator, dtype=torch.float64)
    joint = rows / rows.sum(1, keepdim=True) * weights
    return joint / joint.sum()


def binary_symmetric(a):
    return torch.tensor([[1 - a, a], [a, 1 - a]], dtype=torch.float64) / 2


def logspace(low, high, n):
    return torch.logspace(math.log10(low), math.log10(high), n, dtype=torch.float64)


def divergence(p, q):
    return torch.special.xlogy(p, p / q).sum(-1)


@pytest.fixture(scope="module")
def solved():
    joint = random_joint(36, 5, 3, sparsity=2)
    return joint, information_bottleneck(joint, logspace(1, 60, 40))


def step(joint, encoder, beta):
    """One step of Blahut and Arimoto, written from the three self-consistent equations."""
    px = joint.sum(1)
    p = joint / px[:, None]
    marginal = px @ encoder
    q = (encoder * px[:, None]).T @ p / marginal[:, None]
    distortion = divergence(p[:, None, :], q[None])
    unnormalised = marginal * torch.exp(-beta * distortion)
    return unnormalised / unnormalised.sum(1, keepdim=True)


def test_a_curve_with_few_words_says_where_it_has_settled():
    joint = torch.tensor([[0.4, 0.1], [0.1, 0.4]], dtype=torch.float64)
    betas = torch.tensor([2.0, 5.0], dtype=torch.float64)
    assert information_bottleneck(joint, betas, n_codewords=2).converged.all()
    assert squared_information_bottleneck(joint, torch.tensor([0.3, 1.0], dtype=torch.float64)).converged.all()
    short = squared_information_bottleneck(joint, torch.tensor([0.3, 1.0], dtype=torch.float64), steps=3)
    assert not short.converged.any()


# Informations


def test_mutual_information_of_a_binary_symmetric_channel():
    a = 0.11
    expected = math.log(2) + a * math.log(a) + (1 - a) * math.log(1 - a)
    assert mutual_information(binary_symmetric(a)).item() == pytest.approx(expected, abs=1e-14)


def test_expected_distortion_is_the_information_lost():
    joint = random_joint(7, 4, 0)
    encoder = random_joint(7, 3, 1)
    encoder = encoder / encoder.sum(1, keepdim=True)
    px = joint.sum(1)
    q = encoder.T @ joint / (px @ encoder)[:, None]
    p = joint / px[:, None]
    expected = (px[:, None] * encoder * divergence(p[:, None, :], q[None])).sum()
    _, relevance = rate_and_relevance(joint, encoder)
    assert expected.item() == pytest.approx((mutual_information(joint) - relevance).item(), abs=1e-12)


def test_rate_and_relevance_are_mutual_informations_of_their_joints():
    joint = random_joint(7, 4, 0)
    encoder = torch.stack([random_joint(7, 3, s) for s in (1, 2)])
    encoder = encoder / encoder.sum(2, keepdim=True)
    rate, relevance = rate_and_relevance(joint, encoder)
    for i in range(2):
        assert rate[i].item() == pytest.approx(
            mutual_information(joint.sum(1)[:, None] * encoder[i]).item(), abs=1e-14
        )
        assert relevance[i].item() == pytest.approx(mutual_information(encoder[i].T @ joint).item(), abs=1e-14)


# The solver


def test_codes_are_certified(solved):
    _, curve = solved
    assert curve.converged.all()
    assert (curve.gap >= 0).all() and curve.gap.max() < 1e-4
    assert (curve.gap <= CERTIFIED).double().mean() >= 0.9  # the others ended because nothing moved any more


def test_curve_reports_the_informations_of_its_encoder(solved):
    joint, curve = solved
    rate, relevance = rate_and_relevance(joint, curve.encoder)
    torch.testing.assert_close(curve.rate, rate, atol=1e-12, rtol=0)
    torch.testing.assert_close(curve.relevance, relevance, atol=1e-12, rtol=0)


def test_encoder_decoder_and_marginal_fit_together(solved):
    joint, curve = solved
    px = joint.sum(1)
    torch.testing.assert_close(curve.encoder.sum(2), torch.ones_like(curve.encoder[:, :, 0]))
    torch.testing.assert_close(px @ curve.encoder, curve.marginal)
    used = curve.marginal > 1e-12
    centroids = curve.encoder.transpose(1, 2) @ joint / curve.marginal.clamp_min(1e-300)[:, :, None]
    torch.testing.assert_close(curve.decoder[used], centroids[used], atol=1e-12, rtol=0)
    assert (curve.marginal.diff(dim=1) <= 0).all()


def test_codes_are_fixed_points_of_the_self_consistent_equations(solved):
    joint, curve = solved
    for b in range(len(curve.betas)):
        encoder = curve.encoder[b][:, curve.marginal[b] > 1e-9]
        encoder = encoder / encoder.sum(1, keepdim=True)
        image = step(joint, encoder, curve.betas[b])
        before, after = (r - curve.betas[b] * i for r, i in (rate_and_relevance(joint, e) for e in (encoder, image)))
        assert 0 <= (before - after).item() + 1e-12 <= 1e-8
        # near a bifurcation the code is soft and moves more than the Lagrangian tells
        assert (joint.sum(1) @ (encoder - image).abs()).sum() < 1e-3


def test_codewords_lie_in_the_convex_hull_of_the_predictive_manifold(solved):
    joint, curve = solved
    p = (joint / joint.sum(1, keepdim=True)).numpy()
    b = 30
    for q in curve.decoder[b][curve.marginal[b] > 1e-6].numpy():
        # least l1 distance between q and a mixture of rows
        n_x, n_y = p.shape
        cost = np.concatenate([np.zeros(n_x), np.ones(2 * n_y)])
        equal = np.block([[p.T, np.eye(n_y), -np.eye(n_y)], [np.ones((1, n_x)), np.zeros((1, 2 * n_y))]])
        answer = linprog(cost, A_eq=equal, b_eq=np.concatenate([q, [1]]), bounds=(0, None))
        assert answer.fun < 1e-9


def test_curve_is_concave_with_slope_one_over_beta():
    joint = random_joint(12, 4, 5)
    start = learnability_beta(joint).item()
    curve = information_bottleneck(joint, logspace(1.3 * start, 12 * start, 60), tolerance=1e-10)
    assert (curve.rate.diff() >= -1e-9).all() and (curve.relevance.diff() >= -1e-9).all()
    moved = curve.rate.diff() > 1e-4
    slope = curve.relevance.diff()[moved] / curve.rate.diff()[moved]
    assert (slope <= 1 / curve.betas[:-1][moved] + 1e-6).all()  # between the slopes of both ends
    assert (slope >= 1 / curve.betas[1:][moved] - 1e-6).all()
    assert moved.sum() > 30


def test_lagrangian_beats_many_random_restarts():
    joint, beta = random_joint(9, 4, 11, sparsity=2), 4.0
    curve = information_bottleneck(joint, torch.tensor([beta], dtype=torch.float64))
    generator = torch.Generator().manual_seed(0)
    best = math.inf
    for _ in range(30):
        encoder = torch.rand(9, 9, generator=generator, dtype=torch.float64) ** 4
        encoder = encoder / encoder.sum(1, keepdim=True)
        for _ in range(300):
            encoder = step(joint, encoder, beta)
        rate, relevance = rate_and_relevance(joint, encoder)
        best = min(best, (rate - beta * relevance).item())
    assert curve.lagrangian.item() <= best + 1e-9
    assert curve.lagrangian.item() >= best - 1e-6 or curve.lagrangian.item() < best


def test_blahut_arimoto_from_anywhere_is_monotone_and_no_lower_than_the_certificate_allows(solved):
    joint, curve = solved
    generator = torch.Generator().manual_seed(4)
    for b in (10, 20, 35):
        encoder = torch.rand(36, 36, generator=generator, dtype=torch.float64)
        encoder = encoder / encoder.sum(1, keepdim=True)
        last = math.inf
        for _ in range(60):
            rate, relevance = rate_and_relevance(joint, encoder)
            value = (rate - curve.betas[b] * relevance).item()
            assert value <= last + 1e-12
            assert value >= (curve.lagrangian[b] - curve.gap[b]).item() - 1e-12
            encoder, last = step(joint, encoder, curve.betas[b]), value


def test_binary_channel_agrees_with_a_search_over_symmetric_codes():
    a = 0.1
    joint, betas = binary_symmetric(a), torch.tensor([1.5, 1.6, 2.0, 4.0], dtype=torch.float64)

    def capacity(e):  # log 2 - H(e)
        return math.log(2) + sum(v * math.log(v) if v > 0 else 0 for v in (e, 1 - e))

    curve = information_bottleneck(joint, betas)
    for beta, value in zip(betas.tolist(), curve.lagrangian.tolist(), strict=True):
        found = minimize_scalar(
            lambda e, beta=beta: capacity(e) - beta * capacity(a * (1 - e) + (1 - a) * e),
            bounds=(0, 0.5), method="bounded", options={"xatol": 1e-10},
        )
        assert value == pytest.approx(found.fun, abs=1e-8)


def test_deterministic_labels_jump_at_beta_one():
    joint = torch.zeros(9, 3, dtype=torch.float64)
    joint[torch.arange(9), torch.arange(9) % 3] = 1 / 9
    curve = information_bottleneck(joint, torch.tensor([0.5, 0.99, 1.01, 3.0], dtype=torch.float64))
    expected = torch.tensor([0, 0, math.log(3), math.log(3)], dtype=torch.float64)
    torch.testing.assert_close(curve.rate, expected, atol=2e-5, rtol=0)  # at 1.01 a little softness is left
    torch.testing.assert_close(curve.relevance, expected, atol=2e-5, rtol=0)


def test_zero_rows_and_columns_change_nothing():
    joint = random_joint(8, 4, 2)
    wide = torch.zeros(10, 6, dtype=torch.float64)
    rows, columns = [0, 1, 3, 4, 5, 6, 7, 9], [0, 2, 3, 5]
    wide[torch.tensor(rows)[:, None], torch.tensor(columns)] = joint
    betas = logspace(2, 30, 6)
    a, b = information_bottleneck(joint, betas), information_bottleneck(wide, betas)
    torch.testing.assert_close(a.lagrangian, b.lagrangian, atol=1e-12, rtol=0)
    torch.testing.assert_close(b.encoder[:, 2], b.marginal)
    assert (b.decoder[:, :, [1, 4]] == 0).all()
    for f in (mutual_information, critical_beta, learnability_beta):
        assert f(wide).item() == pytest.approx(f(joint).item(), rel=1e-12)


def test_equal_rows_share_a_code_and_could_as_well_be_one_input():
    joint = random_joint(6, 4, 8)
    split = torch.cat([joint * 0.25, joint * 0.75])
    betas = logspace(2, 30, 6)
    a, b = information_bottleneck(joint, betas), information_bottleneck(split, betas)
    torch.testing.assert_close(a.lagrangian, b.lagrangian, atol=2 * CERTIFIED, rtol=0)
    torch.testing.assert_close(b.encoder[:, :6], b.encoder[:, 6:], atol=1e-6, rtol=0)


def test_permuting_inputs_and_targets_permutes_the_code():
    joint = random_joint(10, 4, 9)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randperm(10, generator=generator), torch.randperm(4, generator=generator)
    betas = logspace(4, 40, 5)
    a, b = information_bottleneck(joint, betas), information_bottleneck(joint[x][:, y], betas)
    torch.testing.assert_close(a.lagrangian, b.lagrangian, atol=2 * CERTIFIED, rtol=0)
    torch.testing.assert_close(a.rate, b.rate, atol=1e-3, rtol=0)


def test_garbling_the_input_cannot_raise_the_curve():
    joint = random_joint(8, 4, 12)
    garble = random_joint(8, 6, 13)
    garbled = (garble / garble.sum(1, keepdim=True)).T @ joint  # a noisy function of X, then Y
    betas = logspace(1, 50, 10)
    better, worse = information_bottleneck(joint, betas), information_bottleneck(garbled, betas)
    assert (better.lagrangian <= worse.lagrangian + CERTIFIED).all()
    assert learnability_beta(joint) <= learnability_beta(garbled) + 1e-9


def test_order_of_betas_and_repeated_betas_do_not_matter():
    joint = random_joint(8, 4, 1)
    betas = torch.tensor([9.0, 3.0, 30.0, 9.0], dtype=torch.float64)
    curve = information_bottleneck(joint, betas)
    assert curve.betas.tolist() == betas.tolist()
    assert curve.rate[0].item() == pytest.approx(curve.rate[3].item(), abs=1e-3)
    assert curve.rate[1] <= curve.rate[0] <= curve.rate[2]


def test_same_generator_same_code():
    joint, betas = random_joint(8, 4, 1), logspace(3, 30, 5)
    curves = [information_bottleneck(joint, betas, generator=torch.Generator().manual_seed(7)) for _ in range(2)]
    assert torch.equal(curves[0].encoder, curves[1].encoder)


def test_float32_gives_float32_of_the_float64_answer():
    joint, betas = random_joint(8, 4, 1), logspace(3, 30, 5)
    single = information_bottleneck(joint.float(), betas.float())
    assert {t.dtype for t in (single.rate, single.encoder, single.decoder, single.gap)} == {torch.float32}
    torch.testing.assert_close(
        single.rate.double(), information_bottleneck(joint, betas).rate, atol=1e-4, rtol=0
    )
    assert critical_beta(joint.float()).dtype == learnability_beta(joint.float()).dtype == torch.float32


@pytest.mark.cuda
def test_cuda_agrees_with_the_cpu():
    joint, betas = random_joint(36, 5, 3), logspace(3, 60, 10)
    there = information_bottleneck(joint.cuda(), betas.cuda())
    assert there.encoder.is_cuda and there.converged.is_cuda
    here = information_bottleneck(joint, betas)
    torch.testing.assert_close(there.lagrangian.cpu(), here.lagrangian, atol=2 * CERTIFIED, rtol=0)
    assert learnability_beta(joint.cuda()).item() == pytest.approx(learnability_beta(joint).item(), rel=1e-9)


def test_a_limit_on_codewords_is_kept_and_costs_something():
    joint, betas = random_joint(12, 4, 6, sparsity=2), logspace(2, 60, 12)
    free = information_bottleneck(joint, betas)
    three = information_bottleneck(joint, betas, 3)
    one = information_bottleneck(joint, betas, 1)
    assert three.encoder.shape == (12, 12, 3) and three.decoder.shape == (12, 3, 4)
    assert (three.lagrangian >= free.lagrangian - CERTIFIED).all()
    assert (three.lagrangian - free.lagrangian)[-1] > 0.1
    assert (three.lagrangian - free.lagrangian <= three.gap + 1e-9).all()
    torch.testing.assert_close(one.rate, torch.zeros_like(betas), atol=1e-12, rtol=0)
    all_of_them = information_bottleneck(joint, betas, 12)
    assert all_of_them.encoder.shape[2] == 12
    torch.testing.assert_close(all_of_them.lagrangian, free.lagrangian, atol=2 * CERTIFIED, rtol=0)


def test_two_codewords_match_brute_force_over_hard_partitions_at_large_beta():
    joint, beta = random_joint(8, 4, 21, sparsity=2), 1e4
    best = -1.0
    for code in range(1, 2**7):
        split = torch.tensor([[(code >> x) & 1, 1 - ((code >> x) & 1)] for x in range(8)], dtype=torch.float64)
        best = max(best, rate_and_relevance(joint, split)[1].item())
    curve = information_bottleneck(joint, torch.tensor([100.0, 1000.0, beta], dtype=torch.float64), 2)
    assert curve.relevance[2].item() == pytest.approx(best, abs=1e-3)


# The two thresholds


@pytest.mark.parametrize("a", [0.01, 0.1, 0.25, 0.4])
def test_symmetric_channel_has_one_threshold(a):
    expected = 1 / (1 - 2 * a) ** 2
    assert critical_beta(binary_symmetric(a)).item() == pytest.approx(expected, rel=1e-12)
    assert learnability_beta(binary_symmetric(a)).item() == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("e", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("p", [0.2, 0.5])
def test_erasure_channel_has_one_threshold(e, p):
    joint = torch.tensor([[p * (1 - e), 0, p * e], [0, (1 - p) * (1 - e), (1 - p) * e]], dtype=torch.float64)
    assert critical_beta(joint).item() == pytest.approx(1 / (1 - e), rel=1e-12)
    assert learnability_beta(joint).item() == pytest.approx(1 / (1 - e), rel=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_binary_input_agrees_with_brute_force(seed):
    joint = random_joint(2, 3, seed, sparsity=1 + seed % 3)
    joint = joint * torch.tensor([[0.1], [0.9]], dtype=torch.float64)
    joint = joint / joint.sum()
    px = joint.sum(1)
    p = joint / px[:, None]
    r = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    r = torch.stack([r, 1 - r], 1)[(r - px[0]).abs() > 1e-3]
    ratio = divergence(r @ p, px @ p) / divergence(r, px)
    brute = min(1 / ratio.max().item(), critical_beta(joint).item())
    assert learnability_beta(joint).item() == pytest.approx(brute, rel=1e-6)


def test_thresholds_are_where_theory_has_them_on_random_problems():
    gaps = []
    for seed in range(12):
        joint = random_joint(36, 5, seed)
        local, global_ = critical_beta(joint), learnability_beta(joint)
        assert 1 <= global_ <= local
        gaps.append((local / global_).item())
        curve = information_bottleneck(joint, torch.stack([global_ * 0.999, global_ * 1.01]))
        assert curve.lagrangian[0].abs() < 1e-9 and curve.gap[0] <= CERTIFIED
        assert curve.lagrangian[1] < 0
    assert max(gaps) > 1.05  # the two do differ


def test_random_laws_never_contract_less_than_the_constant_says():
    joint = random_joint(10, 4, 30, sparsity=3)
    px = joint.sum(1)
    generator = torch.Generator().manual_seed(1)
    r = (-torch.rand(50_000, 10, generator=generator, dtype=torch.float64).log()) ** 4
    r = r / r.sum(1, keepdim=True)
    p = joint / px[:, None]
    ratio = divergence(r @ p, px @ p) / divergence(r, px)
    assert ratio.max() <= 1 / learnability_beta(joint) + 1e-12


def test_maximal_correlation_from_the_singular_values():
    joint = random_joint(9, 6, 3)
    normalised = joint / (joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)).sqrt()
    second = torch.linalg.svdvals(normalised)[1]
    assert critical_beta(joint).item() == pytest.approx(1 / second.item() ** 2, rel=1e-12)


def test_independent_variables_are_never_worth_a_code():
    joint = torch.full((3, 4), 1 / 12, dtype=torch.float64)
    assert critical_beta(joint) == learnability_beta(joint) == math.inf
    assert information_bottleneck(joint, torch.tensor([1e3], dtype=torch.float64)).rate.item() == 0


def test_a_function_of_the_input_is_learnable_from_one_on():
    assert critical_beta(torch.eye(3, dtype=torch.float64) / 3).item() == pytest.approx(1)
    assert learnability_beta(torch.eye(3, dtype=torch.float64) / 3).item() == pytest.approx(1)


# The squared Lagrangian and the tree


def test_squared_lagrangian_stops_anywhere_on_a_straight_curve():
    joint = torch.zeros(12, 3, dtype=torch.float64)
    joint[torch.arange(12), torch.arange(12) % 3] = 1 / 12
    multipliers = torch.tensor([0.2, 0.8, 1.6, 4.0], dtype=torch.float64)
    curve = squared_information_bottleneck(joint, multipliers)
    expected = (multipliers / 2).clamp_max(math.log(3))
    torch.testing.assert_close(curve.rate, expected, atol=2e-3, rtol=0)
    torch.testing.assert_close(curve.relevance, curve.rate, atol=2e-3, rtol=0)
    assert torch.isnan(curve.gap).all()


def test_squared_lagrangian_lies_on_the_plain_curve_at_its_slope():
    joint = random_joint(10, 3, 4, sparsity=3)
    squared = squared_information_bottleneck(joint, torch.tensor([0.6, 1.2, 2.5], dtype=torch.float64))
    plain = information_bottleneck(joint, squared.betas)
    value = squared.rate - squared.betas * squared.relevance
    torch.testing.assert_close(value, plain.lagrangian, atol=1e-4, rtol=0)


def test_tree_joins_each_leaf_once_and_is_ultrametric():
    joint = random_joint(9, 4, 17, sparsity=3)
    curve = information_bottleneck(joint, logspace(1, 200, 60))
    leaves, codeword, joined = annealing_tree(joint, curve)
    assert (codeword[-1] == leaves).all()
    n = len(leaves)
    assert n >= 4 and torch.equal(joined, joined.T)
    assert len(set(codeword[0].tolist())) == 1  # one codeword at the smallest beta
    for k in range(n):
        assert (joined >= torch.minimum(joined[:, k, None], joined[k])).all()


# Bad input

GOOD = random_joint(4, 3, 0)
BETAS = torch.tensor([2.0], dtype=torch.float64)


@pytest.mark.parametrize(
    ("joint", "error", "match"),
    [
        (GOOD.numpy(), TypeError, "joint must be a torch.Tensor"),
        ((GOOD * 100).long(), TypeError, "floating"),
        (GOOD[0], ValueError, "shape"),
        (GOOD[None], ValueError, "shape"),
        (GOOD[:0], ValueError, "empty"),
        (GOOD * 2, ValueError, "sum to 1"),
        (GOOD - 0.1, ValueError, "negative"),
        (GOOD * math.nan, ValueError, "NaN"),
        (GOOD / 0, ValueError, "infinite"),
    ],
)
def test_bad_joint(joint, error, match):
    for f in (mutual_information, critical_beta, learnability_beta, lambda j: information_bottleneck(j, BETAS),
              lambda j: squared_information_bottleneck(j, BETAS)):
        with pytest.raises(error, match=match):
            f(joint)


@pytest.mark.parametrize(
    ("betas", "error", "match"),
    [
        ([2.0], TypeError, "betas must be a torch.Tensor"),
        (torch.tensor([2]), TypeError, "floating"),
        (torch.tensor(2.0), ValueError, "shape"),
        (torch.tensor([]), ValueError, "empty"),
        (torch.tensor([1.0, 0.0]), ValueError, "positive"),
        (torch.tensor([-1.0]), ValueError, "positive"),
        (torch.tensor([math.nan]), ValueError, "NaN"),
        (torch.tensor([math.inf]), ValueError, "infinite"),
    ],
)
def test_bad_betas(betas, error, match):
    with pytest.raises(error, match=match):
        information_bottleneck(GOOD, betas)


@pytest.mark.parametrize("n", [0, -1, 5])
def test_bad_number_of_codewords(n):
    for f in (information_bottleneck, squared_information_bottleneck):
        with pytest.raises(ValueError, match="n_codewords must be from 1 to the number of inputs, 4"):
            f(GOOD, BETAS, n)


def test_other_bad_input():
    with pytest.raises(ValueError, match="inputs"):
        rate_and_relevance(GOOD, torch.full((5, 2), 0.5, dtype=torch.float64))
    with pytest.raises(ValueError, match="sum to 1"):
        rate_and_relevance(GOOD, torch.ones(4, 2, dtype=torch.float64))
    with pytest.raises(TypeError, match=r"encoder must be a torch\.Tensor"):
        rate_and_relevance(GOOD, None)
    with pytest.raises(ValueError, match="n_starts must be at least 1"):
        learnability_beta(GOOD, n_starts=0)
    curve = information_bottleneck(GOOD, torch.tensor([2.0, 3.0], dtype=torch.float64))
    with pytest.raises(ValueError, match="pass the joint of the curve"):
        annealing_tree(random_joint(5, 3, 0), curve)
    with pytest.raises(ValueError, match="two betas"):
        annealing_tree(GOOD, information_bottleneck(GOOD, BETAS))
