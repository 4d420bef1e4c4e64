r"""Learning without labels: view prediction as the conditional rate, SIGReg for the law of the codes.

Two views of one image should get one code, and the codes of all images should look like a standard Gaussian sample.
The first wish is the conditional rate of a Gaussian encoder, with the second view in the place of the target; the
second is SIGReg. Codes are (V, B, D): **views first, then the samples of the batch**. Half precision is computed
and returned in float32, under autocast too. NaN and infinity make a loss NaN.

**Several processes.** Under ``torch.distributed`` a loss is that of the batch of all processes together. Every process
must call it, with the same number of views; their B may differ, and may be 0. Slices and noise are those that one
process would have drawn. Each process returns the same value, and the gradient of the *sum* of these values, which
DistributedDataParallel's averaging turns into the gradient that one process would have had. ``sync=False`` scores
each process by itself, ``group`` shares within a process group.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sigreg._distributed import from_first, gather_rows, randn_shared, shared_group
from sigreg._precision import at_least_float32, without_autocast
from sigreg._validate import (
    require_between,
    require_count,
    require_flag,
    require_floating,
    require_generator,
    require_positive,
    require_same_device,
    require_sharing,
    require_weight,
)
from sigreg.gaussian_regularization import random_directions, slice_free_sigreg, sliced_sigreg

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["lejepa_loss", "view_prediction_loss", "view_prediction_rate"]


@without_autocast
def view_prediction_rate(
    z: Tensor, sigma: float = 1.0, *, sync: bool = True, group: ProcessGroup | None = None
) -> Tensor:
    r"""Upper bound, in nats, on the conditional rate of a code given another view of the same image.

    .. math:: \hat R = \frac{1}{\sigma^2} \, \frac1B \sum_b \frac{1}{V - 1} \sum_v |z_{vb} - \bar z_b|^2
        \;=\; \frac1B \sum_b \operatorname*{mean}_{v \ne v'} \frac{|z_{vb} - z_{v'b}|^2}{2 \sigma^2}

    The code is :math:`W = z + \sigma \varepsilon`, the backward encoder :math:`b(w | x') = N(z(x'), \sigma^2 I)`.

    Args:
        z: (V, B, D) codes of V >= 2 views.
        sigma: standard deviation of the code's noise.
        sync, group: how processes share, see the head of the module.

    Returns:
        Scalar tensor, nats.

    Raises:
        TypeError: ``z`` is not a floating tensor.
        ValueError: fewer than two views, or ``sigma`` is not positive.

    Reference:
        Fischer (2020), arXiv 2002.05379, for the conditional rate; Balestriero and LeCun (2025), arXiv 2511.08544, for
        this term as the prediction loss of LeJEPA.

    Derived in:
        Chapter 6, Proposition 6.2.

    Example:
        >>> z = torch.tensor([[[0.0, 0.0]], [[3.0, 4.0]]])  # two views of one image, a distance of 5
        >>> view_prediction_rate(z, sigma=0.5).item()  # 25 / (2 * 0.25)
        50.0
    """
    require_sharing(sync, group)
    shared = shared_group(sync, group)
    z = at_least_float32(require_floating("z", z, 3, "(V, B, D)", empty=shared is not None))
    if len(z) < 2:
        raise ValueError(f"z must hold at least two views, got shape {tuple(z.shape)}")
    sigma = require_positive("sigma", sigma)
    apart = (z - z.mean(0)).square().sum((0, 2))  # (B,)
    return gather_rows(apart, shared)[0].mean() / ((len(z) - 1) * sigma**2)


@without_autocast
def view_prediction_loss(
    z: Tensor,
    generator: torch.Generator | None = None,
    *,
    weight: float,
    sigma: float = 1.0,
    num_slices: int | None = 256,
    noise: bool = False,
    sync: bool = True,
    group: ProcessGroup | None = None,
) -> dict[str, Tensor]:
    r"""View prediction plus SIGReg: the Gaussian conditional rate, and the law that the codes shall have.

    .. math:: \mathcal L = \hat R_\sigma(z) + \lambda \, \mathrm{SIGReg}(w), \qquad
        w = z \;\text{ or, with noise, }\; w = z + \sigma \varepsilon

    Without ``noise`` only :math:`\lambda \sigma^2` matters, up to the scale of the loss. :func:`lejepa_loss` is the
    same loss in the units of LeJEPA.

    Args:
        z: (V, B, D) codes of V >= 2 views.
        generator: torch.Generator for slices and noise; by default the global one.
        weight: :math:`\lambda \ge 0`.
        sigma: standard deviation of the code's noise.
        num_slices: M random directions, or None for the slice-free form.
        noise: score the noisy codes, whose law the bottleneck speaks of, and not their means.
        sync, group: how processes share, see the head of the module.

    Returns:
        Dictionary of scalar tensors: ``"loss"``, ``"rate"`` (nats) and ``"sigreg"``.

    Raises:
        TypeError, ValueError: as in :func:`view_prediction_rate`; or ``weight`` is negative.

    Reference:
        Balestriero and LeCun (2025), arXiv 2511.08544; read as a bottleneck by Domb (2026), arXiv 2604.27743.

    Derived in:
        Chapter 6, Proposition 6.3.

    Example:
        >>> z = torch.randn(2, 256, 8, generator=torch.Generator().manual_seed(0))  # views that share nothing
        >>> found = view_prediction_loss(z, torch.Generator().manual_seed(1), weight=10.0)
        >>> round(found["rate"].item()), round(found["sigreg"].item())  # D nats, and the null mean
        (8, 1)
    """
    weight = require_weight("weight", weight)
    require_generator("generator", generator)
    require_flag("noise", noise)
    if num_slices is not None:
        num_slices = require_count("num_slices", num_slices)
    rate = view_prediction_rate(z, sigma, sync=sync, group=group)
    z, shared = at_least_float32(z), shared_group(sync, group)
    if noise:
        v, b, d = z.shape
        everyone, start = gather_rows(z.new_zeros(b), shared)
        size = (v, len(everyone), d)
        drawn = randn_shared(*size, group=shared, generator=generator, device=z.device, dtype=z.dtype)
        z = z + sigma * drawn[:, start : start + b]  # what one process would have drawn for these rows
    if num_slices is None:
        value = slice_free_sigreg(z, sync=sync, group=group)
    else:
        value = sliced_sigreg(z, _directions(num_slices, z, generator, shared), sync=sync, group=group)
    return {"loss": rate + weight * value, "rate": rate, "sigreg": value}


@without_autocast
def lejepa_loss(
    global_views: Tensor,
    local_views: Tensor | None = None,
    generator: torch.Generator | None = None,
    *,
    weight: float = 0.05,
    num_slices: int = 1024,
    knots: int = 17,
    t_max: float = 3.0,
    pooled: bool = False,
    scale: float = 0.0,
    sync: bool = True,
    group: ProcessGroup | None = None,
) -> dict[str, Tensor]:
    r"""LeJEPA's loss with global and local views.

    .. math:: (1 - \lambda)\, \frac{1}{V B D} \sum_{v, b} |z_{vb} - c_b|^2 + \lambda\, \mathrm{SIGReg}(z), \qquad
        c_b = \frac{1}{G} \sum_{v \le G} z_{vb}

    over all V views, of which the first G are global. Every view predicts the mean of the global ones. With ``scale``
    a term for a start near collapse is added, whose slope does not fade as the codes shrink:

    .. math:: s \,\frac{1}{VD} \sum_{v, d} \bigl[ \bar z_{vd}^2 + (1 - \operatorname{std} z_{vd})^2 \bigr]

    Args:
        global_views: (G, B, D) codes.
        local_views: (V - G, B, D) codes of smaller views of the same samples, or None.
        generator: torch.Generator for the slices; by default the global one.
        weight: :math:`\lambda` in [0, 1].
        num_slices: M random directions.
        knots, t_max: the grid of SIGReg.
        pooled: score all views as one sample of V B codes, and not each view apart. Views that agree then double,
            triple, ... the value.
        scale: s, weight of the scale term; its standard deviation divides by B.
        sync, group: how processes share, see the head of the module.

    Returns:
        Dictionary of scalar tensors: ``"loss"``, ``"invariance"`` (a mean square per coordinate), ``"sigreg"`` and,
        where it counts, ``"scale"``.

    Raises:
        TypeError, ValueError: codes are not floating (V, B, D) of one batch and width, there are fewer than two views
            in all, or a setting is out of range.

    Reference:
        Balestriero and LeCun (2025), arXiv 2511.08544. The mean over coordinates is that of the public
        implementations. The scale term is that of Wu, Balestriero and Levine (2026), arXiv 2606.02572.

    Derived in:
        Chapter 6, Proposition 6.3.

    Example:
        >>> z = torch.randn(2, 256, 8, generator=torch.Generator().manual_seed(0))  # views that share nothing
        >>> found = lejepa_loss(z, generator=torch.Generator().manual_seed(1))
        >>> round(found["invariance"].item(), 1), round(found["sigreg"].item())
        (0.5, 1)
    """
    require_sharing(sync, group)
    shared = shared_group(sync, group)
    weight = require_between("weight", weight, 0, 1, closed="[]")
    require_generator("generator", generator)
    require_flag("pooled", pooled)
    scale = require_weight("scale", scale)
    num_slices = require_count("num_slices", num_slices)
    z = at_least_float32(require_floating("global_views", global_views, 3, "(V, B, D)", empty=shared is not None))
    centre = z.mean(0)
    if local_views is not None:
        require_floating("local_views", local_views, 3, "(V, B, D)", empty=shared is not None)
        require_same_device(global_views=z, local_views=local_views)
        if local_views.shape[1:] != z.shape[1:]:
            shapes = f"{tuple(z.shape)} and {tuple(local_views.shape)}"
            raise ValueError(f"global_views and local_views must have one B and one D, got {shapes}")
        z = torch.cat([z, at_least_float32(local_views)])
    if len(z) < 2:
        raise ValueError(f"global_views must hold at least two views where there are no local ones, got {len(z)}")
    apart = (z - centre).square().mean((0, 2))  # (B,)
    invariance = gather_rows(apart, shared)[0].mean()
    directions = _directions(num_slices, z, generator, shared)
    scored = z.flatten(0, 1) if pooled else z
    value = sliced_sigreg(scored, directions, knots=knots, t_max=t_max, sync=sync, group=group)
    found = {"loss": (1 - weight) * invariance + weight * value, "invariance": invariance, "sigreg": value}
    if scale:
        everyone = gather_rows(z.movedim(1, 0), shared)[0]  # (B of all, V, D)
        off = everyone.mean(0).square() + (1 - everyone.std(0, correction=0)).square()
        found["scale"] = off.mean()
        found["loss"] = found["loss"] + scale * found["scale"]
    return found


def _directions(
    num_slices: int, z: Tensor, generator: torch.Generator | None, shared: ProcessGroup | None
) -> Tensor:
    """Directions, the same on every process."""
    drawn = random_directions(num_slices, z.shape[-1], generator=generator, device=z.device, dtype=z.dtype)
    return from_first(drawn, shared)
