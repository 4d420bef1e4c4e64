"""The losses of joint embedding: against lightly, against formulas written out, derivatives, limits and bad input."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from sigreg import joint_embedding as je

PAIR_LOSSES = {
    "vicreg": je.vicreg_loss,
    "logdet": je.vicreg_logdet_loss,
    "pairdist": je.vicreg_pairdist_loss,
    "pairdist lower": lambda a, b: je.vicreg_pairdist_loss(a, b, bound="lower", sigma=0.7),
    "barlow": je.barlow_twins_loss,
    "nt_xent": je.nt_xent_loss,
    "cosine": je.negative_cosine,
}


@pytest.fixture
def lightly():
    """lightly's losses; the environment of the oldest and the newest torch has none."""
    return pytest.importorskip("lightly.loss")


def pair(batch=12, dim=5, seed=0, dtype=torch.float64, alike=0.5):
    """Two correlated codes with a mean, unequal scales and some gradient to check."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.logspace(-1, 0.5, dim, dtype=dtype)
    shared, a, b = (torch.randn(batch, dim, generator=generator, dtype=dtype) for _ in range(3))
    return tuple((0.3 + scale * (alike * shared + (1 - alike) * own)).requires_grad_() for own in (a, b))


def same_with_gradients(ours, theirs, inputs, tolerance=1e-6):
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    for mine, other in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(theirs, inputs), strict=True):
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance)


# ---------------------------------------------------------------- independent library


@pytest.mark.parametrize("shape", [(2, 3), (12, 5), (6, 20), (256, 32)])
def test_vicreg_is_lightlys(shape, lightly):
    z = pair(*shape)
    for weights in ((25.0, 25.0, 1.0), (3.0, 0.7, 2.0)):
        ours = je.vicreg_loss(*z, invariance=weights[0], variance=weights[1], covariance=weights[2])
        same_with_gradients(ours, lightly.VICRegLoss(*weights)(*z), z)


@pytest.mark.parametrize("shape", [(4, 3), (12, 5), (6, 20), (256, 32)])
def test_barlow_twins_is_lightlys(shape, lightly):
    z = pair(*shape)
    for weight in (5e-3, 0.4):
        theirs = lightly.BarlowTwinsLoss(weight)(*z)
        same_with_gradients(je.barlow_twins_loss(*z, redundancy=weight), theirs, z)


@pytest.mark.parametrize("temperature", [0.07, 0.5, 2.0])
def test_nt_xent_is_lightlys(temperature, lightly):
    z = pair(16, 6)
    same_with_gradients(je.nt_xent_loss(*z, temperature=temperature), lightly.NTXentLoss(temperature)(*z), z)


def test_negative_cosine_and_simsiam_are_lightlys(lightly):
    z = pair()
    same_with_gradients(je.negative_cosine(*z), lightly.NegativeCosineSimilarity()(*z), z)
    p, theirs = pair(seed=1), lightly.NegativeCosineSimilarity()
    expected = 0.5 * (theirs(p[0], z[1].detach()) + theirs(p[1], z[0].detach()))
    same_with_gradients(je.simsiam_loss(*p, *z), expected, p)


def test_moco_is_lightlys_memory_bank(lightly):
    query, key = pair(8, 6)
    theirs = lightly.NTXentLoss(0.2, memory_bank_size=(32, 6))
    queue = theirs.memory_bank.bank.double()
    theirs.memory_bank.bank = queue.clone()
    fixed = key.detach()
    same_with_gradients(je.moco_loss(query, key, queue, temperature=0.2), theirs(query, fixed), (query,))


# ---------------------------------------------------------------- formulas written out


def test_barlow_floor_and_convention():
    z_a, z_b = (z.detach() for z in pair())
    a, b = ((z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt() for z in (z_a, z_b))
    correlation = torch.einsum("id,ie->de", a, b) / len(a)
    torch.testing.assert_close(je.cross_correlation(z_a, z_b), correlation)
    assert correlation.abs().max() <= 1


def test_logdet_entropy_is_a_determinant():
    z = pair()[0].detach()
    covariance = torch.cov(z.T) + 1e-3 * torch.eye(5, dtype=z.dtype)
    gaussian = torch.distributions.MultivariateNormal(z.mean(0), covariance)
    torch.testing.assert_close(je.logdet_entropy(z, floor=1e-3), gaussian.entropy())


@pytest.mark.parametrize("batch,dim", [(3, 8), (8, 8), (9, 8), (2, 1)])
def test_logdet_entropy_with_few_samples(batch, dim):
    z = pair(batch, dim)[0].detach()
    covariance = torch.cov(z.T).reshape(dim, dim) + 1e-4 * torch.eye(dim, dtype=z.dtype)
    expected = 0.5 * torch.logdet(covariance) + 0.5 * dim * math.log(2 * math.pi * math.e)
    torch.testing.assert_close(je.logdet_entropy(z), expected)


def test_pairwise_entropy_written_out():
    z, sigma = pair(6, 3)[0].detach(), 0.8
    for bound, factor in (("upper", 2), ("lower", 8)):
        expected = 0.0
        for i in range(6):
            near = sum(math.exp(-float((z[i] - z[j]).square().sum()) / (factor * sigma**2)) for j in range(6)) / 6
            expected -= math.log(near) / 6
        expected += 1.5 * math.log(2 * math.pi * math.e * sigma**2)
        assert je.pairwise_entropy(z, sigma=sigma, bound=bound).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name, of", [("logdet", je.logdet_entropy), ("pairdist", je.pairwise_entropy)])
def test_an_entropy_enters_as_the_mean_of_two_views_per_coordinate(name, of):
    z_a, z_b = pair()
    expected = 25 * je.invariance_term(z_a, z_b) - (of(z_a) + of(z_b)) / (2 * z_a.shape[1])
    torch.testing.assert_close(PAIR_LOSSES[name](z_a, z_b), expected)


def test_pairwise_bounds_enclose_the_mixture():
    """In one dimension the mixture's entropy is an integral."""
    z = torch.tensor([[-2.0], [-1.7], [0.1], [1.3], [4.0]], dtype=torch.float64)
    grid = torch.linspace(-12, 14, 20001, dtype=torch.float64)
    density = torch.exp(-((grid - z) ** 2) / (2 * 0.6**2)).mean(0) / (0.6 * math.sqrt(2 * math.pi))
    truth = torch.trapezoid(-torch.xlogy(density, density), grid).item()
    lower, upper = (je.pairwise_entropy(z, sigma=0.6, bound=bound).item() for bound in ("lower", "upper"))
    assert lower < truth < upper


def test_byol_is_a_distance():
    p, z = pair(), pair(seed=1)
    unit = [v / v.norm(dim=1, keepdim=True) for v in (*p, *z)]
    expected = sum((unit[i] - unit[j]).square().sum(1).mean() for i, j in ((0, 3), (1, 2)))
    torch.testing.assert_close(je.byol_loss(*p, *z), expected)


def test_nt_xent_with_one_negative_pair_by_hand():
    z = torch.eye(2, dtype=torch.float64)
    # each code: its partner at cosine 1, the two codes of the other image at cosine 0
    expected = -math.log(math.exp(2) / (math.exp(2) + 2))
    assert je.nt_xent_loss(z, z).item() == pytest.approx(expected)


# ---------------------------------------------------------------- derivatives


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_gradients_by_finite_differences(name):
    assert gradcheck(PAIR_LOSSES[name], pair(7, 3), eps=1e-6, atol=1e-6)


def test_gradients_of_logdet_with_equal_singular_values_and_few_samples():
    square = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    assert gradcheck(je.logdet_entropy, square.requires_grad_())
    assert gradcheck(je.logdet_entropy, pair(3, 6)[0])


def test_who_receives_a_gradient():
    p, z = pair(), pair(seed=1)
    je.simsiam_loss(*p, *z).backward()
    assert all(v.grad is not None for v in p) and all(v.grad is None for v in z)
    je.byol_loss(*p, *z, stop_gradient=False).backward()
    assert all(v.grad is not None and v.grad.abs().sum() > 0 for v in z)
    query, key = pair(seed=2)
    queue = pair(9, seed=3)[0]
    je.moco_loss(query, key, queue).backward()
    assert query.grad is not None and key.grad is None and queue.grad is None
    assert not je.update_queue(queue, key).requires_grad


# ---------------------------------------------------------------- invariances and limits


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_order_of_images_and_of_views_does_not_matter(name):
    z_a, z_b = (z.detach() for z in pair())
    order = torch.randperm(len(z_a), generator=torch.Generator().manual_seed(5))
    loss = PAIR_LOSSES[name]
    torch.testing.assert_close(loss(z_a[order], z_b[order]), loss(z_a, z_b))
    torch.testing.assert_close(loss(z_b, z_a), loss(z_a, z_b))


def test_what_a_shift_a_rotation_and_a_scale_do():
    z_a, z_b = (z.detach() for z in pair(40, 5))
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
    for name in ("vicreg", "logdet", "pairdist", "barlow"):
        torch.testing.assert_close(PAIR_LOSSES[name](z_a + 7, z_b + 7), PAIR_LOSSES[name](z_a, z_b))
    for name in ("logdet", "pairdist", "nt_xent", "cosine"):
        turned = PAIR_LOSSES[name](z_a @ rotation, z_b @ rotation)
        torch.testing.assert_close(turned, PAIR_LOSSES[name](z_a, z_b))
    for name in ("nt_xent", "cosine"):
        torch.testing.assert_close(PAIR_LOSSES[name](9 * z_a, 9 * z_b), PAIR_LOSSES[name](z_a, z_b))
    torch.testing.assert_close(je.logdet_entropy(3 * z_a, floor=9e-4), je.logdet_entropy(z_a) + 5 * math.log(3))


def test_queue_is_first_in_first_out():
    queue = torch.zeros(5, 1)
    for step in range(1, 4):
        queue = je.update_queue(queue, torch.full((2, 1), float(step)))
    assert queue.flatten().tolist() == [3, 3, 2, 2, 1]
    longer = je.update_queue(queue, torch.full((9, 1), 8.0))
    assert longer.flatten().tolist() == [8] * 5


def test_simclr_is_moco_whose_queue_is_the_rest_of_the_batch():
    z_a, z_b = (z.detach() for z in pair(6, 4))
    both, other = torch.cat([z_a, z_b]), torch.cat([z_b, z_a])
    each = []
    for i in range(12):
        rest = both[[j for j in range(12) if j not in (i, (i + 6) % 12)]]
        each.append(je.moco_loss(both[[i, i]], other[[i, i]], rest, temperature=0.5))
    torch.testing.assert_close(torch.stack(each).mean(), je.nt_xent_loss(z_a, z_b))


# ---------------------------------------------------------------- numerical safety


@pytest.mark.parametrize("name", PAIR_LOSSES)
@pytest.mark.parametrize("scale", [0.0, 1e-12, 1e-4, 1e4])
@pytest.mark.parametrize("rank_one", [False, True])
def test_finite_in_single_precision_when_collapsed_or_huge(name, scale, rank_one):
    generator = torch.Generator().manual_seed(0)
    shape = (32, 1) if rank_one else (32, 64)
    z_a = (scale * torch.randn(shape, generator=generator).expand(32, 64)).requires_grad_()
    z_b = (scale * torch.randn(shape, generator=generator).expand(32, 64)).requires_grad_()
    loss = PAIR_LOSSES[name](z_a, z_b)
    gradients = torch.autograd.grad(loss, (z_a, z_b))
    assert loss.isfinite() and all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_single_and_half_precision_agree_with_double(name):
    z_a, z_b = (z.detach() for z in pair(64, 8))
    exact = PAIR_LOSSES[name](z_a, z_b)
    torch.testing.assert_close(PAIR_LOSSES[name](z_a.float(), z_b.float()).double(), exact, rtol=2e-5, atol=2e-5)
    half = PAIR_LOSSES[name](z_a.bfloat16(), z_b.bfloat16())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half.double(), exact, rtol=0.05, atol=0.05)


def test_squared_distances_keep_their_digits_far_from_zero():
    z = pair(20, 4)[0].detach()
    torch.testing.assert_close(je.squared_distances(z + 1e5), torch.cdist(z, z).square(), rtol=1e-6, atol=1e-6)


def test_nan_never_passes_silently():
    z_a, z_b = (z.detach().clone() for z in pair())
    z_a[0, 0] = math.nan
    for name, loss in PAIR_LOSSES.items():
        if name == "logdet":
            with pytest.raises(ValueError, match="z_a holds 1 NaN"):
                loss(z_a, z_b)
        else:
            assert loss(z_a, z_b).isnan()


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_bad_codes_are_named(name):
    loss = PAIR_LOSSES[name]
    good = torch.zeros(4, 3)
    with pytest.raises(TypeError, match=r"must be a torch\.Tensor"):
        loss([[0.0]], good)
    with pytest.raises(TypeError, match="floating dtype"):
        loss(good.long(), good)
    with pytest.raises(ValueError, match="must have shape"):
        loss(good[0], good)
    if loss not in (je.nt_xent_loss, je.negative_cosine):  # defined for one image
        with pytest.raises(ValueError, match="at least 2 rows"):
            loss(good[:1], good[:1])
    with pytest.raises(ValueError, match=r"must have one shape \(\.\.\., B, D\), got \(4, 3\) and \(4, 2\)"):
        loss(good, good[:, :2])
    with pytest.raises(TypeError, match="must have one dtype"):
        loss(good, good.double())


def test_bad_settings_are_named():
    z = torch.zeros(4, 3)
    with pytest.raises(ValueError, match="temperature must be positive"):
        je.nt_xent_loss(z, z, temperature=0)
    with pytest.raises(ValueError, match="sigma must be positive"):
        je.pairwise_entropy(z, sigma=-1.0)
    with pytest.raises(ValueError, match="bound must be one of 'upper', 'lower', got 'middle'"):
        je.pairwise_entropy(z, bound="middle")
    with pytest.raises(TypeError, match="floor must be a number"):
        je.logdet_entropy(z, floor="small")
    with pytest.raises(ValueError, match="queue must have shape"):
        je.moco_loss(z, z, torch.zeros(5, 2))
    with pytest.raises(ValueError, match="key must have shape"):
        je.update_queue(z, torch.zeros(2, 2))
