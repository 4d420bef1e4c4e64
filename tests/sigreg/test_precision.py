"""Every loss in every precision: what comes back, how far it is from float64, and slopes that stay finite."""

import math
import pathlib

import pytest
import torch
from loss_list import LOSSES

from sigreg import effective_rank, knn_accuracy, knn_entropy, linear_probe
from sigreg import joint_embedding as je
from sigreg.semi_supervised import variance_between

PAGE = pathlib.Path(__file__).parents[2] / "book" / "use_sigreg.md"
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def pair(dtype=torch.float64, scale=1.0):
    """Two correlated codes whose entries bfloat16 can hold, so that every precision is given the same numbers."""
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(32, 8, generator=generator)
    b = a + 0.5 * torch.randn(32, 8, generator=generator)
    return tuple((scale * z.bfloat16()).to(dtype).requires_grad_() for z in (a, b))


def value_and_slopes(loss, dtype, scale=1.0, autocast=False):
    z = pair(dtype, scale)
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        value = loss(*z)
    slopes = torch.autograd.grad(value, z, allow_unused=True)
    return value, [slope for slope in slopes if slope is not None]


@pytest.mark.parametrize("name", LOSSES)
def test_every_precision_is_computed_in_float32_at_least(name):
    loss = LOSSES[name]
    value, slopes = value_and_slopes(loss, torch.float64)
    assert value.dtype == torch.float64
    for dtype in DTYPES[1:]:
        found, found_slopes = value_and_slopes(loss, dtype)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), value, rtol=2e-5 if dtype == torch.float32 else 2e-2, atol=2e-2)
        for one, other in zip(found_slopes, slopes, strict=True):
            assert one.dtype == dtype and one.isfinite().all()
            # what is left of half precision is the rounding of the slope itself
            limit = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 1e-2}[dtype]
            assert (one - other).abs().max() <= limit * other.abs().max()
    under_autocast, slopes_there = value_and_slopes(loss, torch.float32, autocast=True)
    alone, slopes_alone = value_and_slopes(loss, torch.float32)
    assert under_autocast.dtype == torch.float32
    if name not in ("SIGReg", "sliced_sigreg", "class_sigreg"):  # SIGReg's products follow autocast
        torch.testing.assert_close(under_autocast, alone)
        for one, other in zip(slopes_there, slopes_alone, strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("scale", [1e-4, 1e-2, 1e2, 1e4])
@pytest.mark.parametrize("name", LOSSES)
def test_slopes_are_finite_at_every_scale(name, scale):
    for dtype in (torch.float32, torch.bfloat16):
        value, slopes = value_and_slopes(LOSSES[name], dtype, scale)
        assert value.isfinite() and all(slope.isfinite().all() for slope in slopes)


# Sines of huge angles: any phase is as good.
PHASES = ("SIGReg", "sliced_sigreg", "epps_pulley", "radial_sigreg", "class_sigreg")


@pytest.mark.parametrize("name", LOSSES)
def test_huge_codes_are_answered_right_or_not_with_a_number(name):
    """Where squares leave the range of float32, the value is that of float64, or infinite, or NaN."""
    for scale in (1e10, 1e20, 1e30):
        found, exact = (value_and_slopes(LOSSES[name], dtype, scale)[0].item() for dtype in DTYPES[1::-1])
        close = abs(found - exact) <= (0.5 if name in PHASES else 1e-3) * abs(exact)
        assert close or not math.isfinite(found), f"{scale:g}: {found}, float64 {exact}"


def far_from_one(loss, dtype, scale):
    """Value and slopes for codes of a scale that bfloat16 does not hold."""
    z = [(scale * part.detach()).requires_grad_() for part in pair(dtype)]
    torch.manual_seed(0)
    value = loss(*z)
    return value, [slope for slope in torch.autograd.grad(value, z, allow_unused=True) if slope is not None]


@pytest.mark.parametrize("name", LOSSES)
def test_codes_next_to_nothing_are_answered_right(name):
    """Where squares fall to zero the value is the limit, which float64 still sees well at 1e-12."""
    found, limit = (far_from_one(LOSSES[name], torch.float64, scale)[0].item() for scale in (1e-200, 1e-12))
    assert abs(found - limit) <= 1e-9 * max(1, abs(limit))


ANGLES = {
    "negative_cosine": je.negative_cosine,
    "nt_xent_loss": je.nt_xent_loss,
    "moco_loss": lambda a, b: je.moco_loss(a, b, b.detach().flip(0)),
    "byol_loss": lambda a, b: je.byol_loss(a, b, a, b),
}


@pytest.mark.parametrize(("dtype", "scales"), [(torch.float64, (1e-200, 1e-12, 1e200)), (torch.float32, (1e-30, 1e30))])
@pytest.mark.parametrize("name", ANGLES)
def test_angles_do_not_depend_on_length(name, dtype, scales):
    value, slopes = value_and_slopes(ANGLES[name], dtype)
    for scale in scales:
        found, found_slopes = far_from_one(ANGLES[name], dtype, scale)
        torch.testing.assert_close(found, value)
        for one, other in zip(found_slopes, slopes, strict=True):
            torch.testing.assert_close(one * scale, other)


def test_codes_of_zero_length_have_no_angle():
    zero, one = torch.zeros(3, 2, requires_grad=True), torch.ones(3, 2)
    value = je.negative_cosine(zero, one)
    value.backward()
    assert value == 0 and zero.grad.isfinite().all()


@pytest.mark.parametrize("scale", [1e-320, 1e-300, 1e-200, 1e-160, 1e160, 1e200, 1e300])
def test_numbers_of_features_know_no_scale(scale):
    x, y = torch.randn(60, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64), torch.arange(60) % 3
    x += torch.eye(3)[y]
    for measure in (
        effective_rank,
        lambda x: linear_probe(x, y, x, y).accuracy,
        lambda x: knn_accuracy(x, y, x, y, k=5),
        lambda x: variance_between(x, y),
    ):
        assert measure(scale * x) == pytest.approx(measure(x), rel=1e-2 if scale < 1e-310 else 1e-9)
    if scale > 1e-310:
        assert knn_entropy(scale * x, 1).nats == pytest.approx(knn_entropy(x, 1).nats + 3 * math.log(scale), rel=1e-9)


def test_a_radius_next_to_nothing_has_a_slope():
    tiny, small = (far_from_one(LOSSES["radial_sigreg"], torch.float64, scale)[1][0] for scale in (1e-200, 1e-12))
    assert small.norm() > 0.1
    torch.testing.assert_close(tiny, small)


def test_the_covariance_term_is_never_negative():
    """Whitened codes: all that is left is rounding, which a difference of two sums of squares takes below zero."""
    for seed in range(300):
        z = torch.randn(64, 16, generator=torch.Generator().manual_seed(seed))
        u, _, v = torch.linalg.svd(z - z.mean(0), full_matrices=False)
        assert je.covariance_term(8 * u @ v) >= 0


def test_pairwise_entropy_of_far_tight_clusters():
    """Two clusters of 16 codes, a distance of 1e4 apart, each 0.1 wide: float32 and float64 agree to a few digits."""
    z = 0.1 * torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
    z[:16] += 1e4
    exact = je.pairwise_entropy(z.double())
    torch.testing.assert_close(je.pairwise_entropy(z).double(), exact, rtol=1e-6, atol=0)
    one_cluster = je.pairwise_entropy((z[16:]).double())
    torch.testing.assert_close(exact, one_cluster + math.log(2), rtol=1e-2, atol=0)


def table():
    rows = ["| function | float32 | bfloat16 | float16 |", "|---|---|---|---|"]
    for name, loss in LOSSES.items():
        value, slopes = value_and_slopes(loss, torch.float64)
        cells = []
        for dtype in DTYPES[1:]:
            found, found_slopes = value_and_slopes(loss, dtype)
            worst = abs(found.item() - value.item()) / max(abs(value.item()), 1e-3)
            slope = max(
                ((one - other).norm() / other.norm()).item() for one, other in zip(found_slopes, slopes, strict=True)
            )
            cells.append(f"{ceiling(worst)}, {ceiling(slope)}")
        rows.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def ceiling(error):
    """The next power of ten: what another machine should find too."""
    return f"1e{max(math.ceil(math.log10(max(error, 1e-16))), -7)}"


def test_the_table_of_the_page_is_this_one():
    """Relative errors of value and slope; a machine may be better, or a power of ten worse."""
    section = PAGE.read_text(encoding="utf-8").split("### Errors by precision", 1)[1].split("\n### ", 1)[0]
    shown = dict(row.strip("| ").split(" | ", 1) for row in section.splitlines() if row.startswith("| `"))
    for row in table().splitlines()[2:]:
        name, cells = row.strip("| ").split(" | ", 1)
        assert name in shown, f"the page has no row for {name}; the table is now\n{table()}"
        for ours, theirs in zip(cells.split(" | "), shown[name].split(" | "), strict=True):
            for one, other in zip(ours.split(", "), theirs.split(", "), strict=True):
                assert float(one) <= 10 * float(other), f"{name}: {one}, the page says {other}"


if __name__ == "__main__":
    print(table())
