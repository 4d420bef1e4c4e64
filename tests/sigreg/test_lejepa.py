"""LeJEPA's whole loss: lightly, the formula written out, and weights carried between implementations."""

import pytest
import torch

from sigreg import lejepa_loss, sliced_sigreg, view_prediction_loss
from sigreg.gaussian_regularization import random_directions

V, N, D = 3, 48, 6
WEIGHT = 0.07


def views(count=V, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(N, D, generator=generator, dtype=torch.float64)
    return 0.7 * shared + 0.5 * torch.randn(count, N, D, generator=generator, dtype=torch.float64)


def seeded():
    return torch.Generator().manual_seed(3)


DIRECTIONS = random_directions(16, D, generator=seeded(), dtype=torch.float64)


def slope(loss, z):
    z = z.clone().requires_grad_()
    return torch.autograd.grad(loss(z), z)[0]


@pytest.mark.parametrize(("n_global", "n_local"), [(2, 1), (2, 4), (1, 3)])
@pytest.mark.parametrize("weight", [0.05, 0.6])
def test_value_and_gradient_are_lightlys(monkeypatch, n_global, n_local, weight):
    loss = pytest.importorskip("lightly.loss")
    if not hasattr(loss, "LeJEPALoss"):
        pytest.skip("lightly before 1.6 has no LeJEPALoss")
    theirs = loss.LeJEPALoss(lambda_param=weight, sigreg_num_vectors=16).double()
    monkeypatch.setattr(theirs.sigreg, "_generate_unit_vectors", lambda *args, **kwargs: DIRECTIONS.T)
    z = [views(n_global, 1).requires_grad_(), views(n_local, 2).requires_grad_()]
    ours = lejepa_loss(*z, seeded(), weight=weight, num_slices=16)["loss"]
    other = theirs(global_proj=z[0], local_proj=z[1])
    torch.testing.assert_close(ours, other)
    for one, two in zip(torch.autograd.grad(ours, z), torch.autograd.grad(other, z), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("pooled", [False, True])
def test_the_formula_written_out(pooled):
    z = views(4)
    found = lejepa_loss(z[:2], z[2:], seeded(), weight=WEIGHT, num_slices=16, pooled=pooled)
    centre = (z[0] + z[1]) / 2
    apart = sum(((z[v] - centre) ** 2).sum() for v in range(4)) / (4 * N * D)
    scored = z.reshape(-1, D) if pooled else z
    value = sliced_sigreg(scored, DIRECTIONS)
    torch.testing.assert_close(found["invariance"], apart)
    torch.testing.assert_close(found["sigreg"], value)
    torch.testing.assert_close(found["loss"], (1 - WEIGHT) * apart + WEIGHT * value)


def agreement(z):
    return (z - z.mean(0)).square().mean()


def sigreg(z):
    return sliced_sigreg(z, DIRECTIONS)


def without_n(z):
    """The older statistic of eb_jepa: no factor N."""
    return sigreg(z) / N


CONVERSIONS = {  # a loss with the weight lam, and r: the weight of SIGReg over that of the mean square per coordinate
    "lejepa_loss": (lambda z, lam: lejepa_loss(z, None, seeded(), weight=lam, num_slices=16)["loss"],
                    lambda lam: lam / (1 - lam)),
    "view_prediction_loss": (lambda z, lam: view_prediction_loss(z, seeded(), weight=lam, sigma=0.3, num_slices=16)[
        "loss"], lambda lam: lam * 0.3**2 * (2 - 1) / (2 * D)),
    "eb_jepa, newer": (lambda z, lam: (z[0] - z[1]).square().mean() + lam * sigreg(z), lambda lam: lam / 4),
    "eb_jepa, older": (
        lambda z, lam: (z[0] - z[1]).square().mean() + 10 * without_n(z), lambda lam: 10 / (4 * N)  # 10 is its default
    ),
    "paper": (lambda z, lam: (1 - lam) * (z - z.mean(0)).square().sum(-1).mean() + lam * sigreg(z),
              lambda lam: lam / ((1 - lam) * D)),
}  # fmt: skip


@pytest.mark.parametrize("name", CONVERSIONS)
def test_a_weight_carries_over(name):
    loss, ratio = CONVERSIONS[name]
    z = views(2)
    theirs = slope(lambda z: loss(z, WEIGHT), z)
    ours = slope(lambda z: agreement(z) + ratio(WEIGHT) * sigreg(z), z)
    torch.testing.assert_close(theirs / theirs.norm(), ours / ours.norm())
    wrong = slope(lambda z: agreement(z) + 2 * ratio(WEIGHT) * sigreg(z), z)
    assert (theirs / theirs.norm() - wrong / wrong.norm()).norm() > 1e-3  # the ratio matters


def test_views_in_one_heap_that_agree_count_as_often():
    """stable-pretraining flattens the views: V that agree pull V times as hard."""
    z = views(1).expand(V, N, D)
    torch.testing.assert_close(sliced_sigreg(z.flatten(0, 1), DIRECTIONS), V * sigreg(z))
    torch.testing.assert_close(slope(lambda z: sigreg(z.flatten(0, 1)), z), V * slope(sigreg, z))


def test_one_view_alone_is_refused_and_a_weight_above_one():
    with pytest.raises(ValueError, match="at least two views"):
        lejepa_loss(views(1))
    with pytest.raises(ValueError, match=r"weight must lie in \[0, 1\], got 1.5"):
        lejepa_loss(views(2), weight=1.5)


# ---------------------------------------------------------------- out of collapse


def test_the_scale_term_is_lightlys():
    visreg = pytest.importorskip("lightly.loss.visreg_loss")
    z = views(2)
    found = lejepa_loss(z, None, seeded(), num_slices=16, scale=0.7)
    torch.testing.assert_close(found["scale"], visreg.visreg_center_loss(z) + visreg.visreg_scale_loss(z))
    without = lejepa_loss(z, None, seeded(), num_slices=16)
    torch.testing.assert_close(found["loss"], without["loss"] + 0.7 * found["scale"])
    assert "scale" not in without


def steps_out_of_collapse(scale, spread):
    """Steps of plain gradient descent on the codes' linear map until a spread of ``spread`` has become one half."""
    x = torch.randn(128, 8, generator=seeded(), dtype=torch.float64)
    generator = seeded()
    weight = (spread * torch.eye(8, D, dtype=torch.float64)).requires_grad_()
    for step in range(400):
        noise = 0.1 * torch.randn(2, 128, 8, generator=generator, dtype=torch.float64)
        z = (x + noise) @ weight
        if z.std(1).mean() > 0.5:
            return step
        loss = lejepa_loss(z, None, generator, num_slices=16, scale=scale)["loss"]
        (slope,) = torch.autograd.grad(loss, weight)
        weight = (weight - 0.1 * slope).detach().requires_grad_()
    return 400


def test_the_scale_term_leads_out_of_collapse_in_the_same_time_from_any_depth():
    """SIGReg alone needs as many steps again for each factor that the codes have shrunk by."""
    alone = [steps_out_of_collapse(0.0, spread) for spread in (1e-2, 1e-4, 1e-6)]
    helped = [steps_out_of_collapse(1.0, spread) for spread in (1e-2, 1e-4, 1e-6)]
    assert alone[0] < alone[1] < alone[2] < 400
    assert max(helped) - min(helped) <= 2 and max(helped) < alone[2] / 2, (alone, helped)


def test_exact_collapse_has_no_slope_that_is_not_a_number():
    z = torch.ones(2, 16, 3, requires_grad=True)
    lejepa_loss(z, num_slices=8, scale=1.0)["loss"].backward()
    assert z.grad.isfinite().all()
