r"""SIGReg: how far a batch of codes is from an isotropic Gaussian, seen along many directions.

Three forms of one quantity stand here, plainest first: the formula as it reads (``plain_*``), the same value
and gradient made fast and lean (:func:`sliced_sigreg`, :class:`SIGReg`), and the limit of infinitely many
directions in closed form (:func:`slice_free_sigreg`). A healthy value is near 1, not 0: see
:func:`sigreg_null_mean`.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from sigreg._kummer import kummer
from sigreg._validate import require_floating

__all__ = [
    "SIGReg",
    "epps_pulley",
    "epps_pulley_closed_form",
    "radial_null_mean",
    "radial_sigreg",
    "random_directions",
    "sigreg_collapse_value",
    "sigreg_null_mean",
    "slice_free_sigreg",
    "sliced_sigreg",
]

# ---------------------------------------------------------------------------------------------------------
# The formula as it reads
# ---------------------------------------------------------------------------------------------------------


def plain_epps_pulley(x, *, knots=17, t_max=3.0):
    r"""The Epps-Pulley statistic of each column, written as the formula reads: the oracle of the fast form.

    Its cost is a tensor of N x M x knots entries; :func:`epps_pulley` has the same value and gradient without it.

    Args:
        x: floating (N, M), one sample a column.
        knots: number of grid points on [0, t_max], at least 2.
        t_max: end of the grid, positive.

    Returns:
        (M,) statistics, in the dtype of ``x``.

    Reference:
        Epps and Pulley (1983); Balestriero and LeCun, arXiv 2511.08544.

    Derived in:
        Chapter 4, Definition 4.1.

    >>> plain_epps_pulley(torch.zeros(4, 1, dtype=torch.float64)) / 4  # total collapse
    tensor([0.4020], dtype=torch.float64)
    """
    t = torch.linspace(0, t_max, knots, dtype=x.dtype, device=x.device)  # (T,)
    gaussian = torch.exp(-t.square() / 2)  # the characteristic function of N(0, 1), and the weight
    trapezoid = torch.full_like(t, 2 * t_max / (knots - 1))  # twice the step: the integrand is even
    trapezoid[0] /= 2
    trapezoid[-1] /= 2
    angle = x.unsqueeze(-1) * t  # (N, M, T)
    distance = (angle.cos().mean(0) - gaussian).square() + angle.sin().mean(0).square()  # (M, T)
    return len(x) * distance @ (trapezoid * gaussian)


def plain_sliced_sigreg(z, directions, *, knots=17, t_max=3.0):
    r"""SIGReg along given directions, written as the formula reads: the oracle of :func:`sliced_sigreg`.

    Args:
        z: floating codes (N, D) or (V, N, D).
        directions: floating unit rows (M, D).
        knots, t_max: the grid, as in :func:`plain_epps_pulley`.

    Returns:
        A scalar: the mean over directions and views.

    Derived in:
        Chapter 4, Definition 4.2 and Corollary 4.10.

    >>> z = torch.eye(2, dtype=torch.float64)
    >>> plain_sliced_sigreg(z, z)  # two axes as directions
    tensor(0.6154, dtype=torch.float64)
    """
    return _plain_per_view(z if z.ndim == 3 else z.unsqueeze(0), directions, knots, t_max).mean()


def _plain_per_view(z, directions, knots, t_max):
    x = (z @ directions.T).movedim(0, 1)  # (N, V, M)
    statistic = plain_epps_pulley(x.flatten(1), knots=knots, t_max=t_max)  # (V * M,)
    return statistic.unflatten(0, x.shape[1:]).mean(1)


def epps_pulley_closed_form(x):
    r"""The Epps-Pulley statistic of each column with the integral over the whole line done by hand.

    .. math:: T = N \sqrt{2\pi} \Big[ \tfrac{1}{N^2} \sum_{ij} e^{-(x_i - x_j)^2/2}
                  - \tfrac{\sqrt 2}{N} \sum_i e^{-x_i^2/4} + \tfrac{1}{\sqrt 3} \Big]

    What :func:`epps_pulley` tends to as the grid grows longer and finer. Its cost is N x N x M.

    Args:
        x: floating (N, M), one sample a column.

    Returns:
        (M,) statistics, in the dtype of ``x``.

    Raises:
        TypeError, ValueError: ``x`` is not a non-empty floating matrix.

    Reference:
        Epps and Pulley (1983); Baringhaus and Henze (1988), dimension one.

    Derived in:
        Chapter 4, Proposition 4.3.

    >>> epps_pulley_closed_form(torch.zeros(4, 1, dtype=torch.float64)) / 4
    tensor([0.4089], dtype=torch.float64)
    """
    require_floating("x", x, 2, "(N, M)")
    pairs = torch.exp(-(x.unsqueeze(0) - x.unsqueeze(1)).square() / 2).mean((0, 1))
    alone = torch.exp(-x.square() / 4).mean(0)
    return len(x) * math.sqrt(2 * math.pi) * (pairs - math.sqrt(2) * alone + 1 / math.sqrt(3))


def sigreg_null_mean(knots=17, t_max=3.0):
    r"""What SIGReg reads on average when the codes are standard Gaussian, for every N: the value to aim at.

    .. math:: \mathbb{E}\, T = 2 \int_0^{t_{\max}} (1 - e^{-t^2})\, e^{-t^2/2}\, dt

    by the trapezoid rule of the same grid; with ``t_max=math.inf`` the integral itself,
    :math:`\sqrt{2\pi} - \sqrt{2\pi/3} = 1.0594`.

    Raises:
        TypeError, ValueError: the grid is not allowed.

    Derived in:
        Chapter 4, Proposition 4.8.

    >>> round(sigreg_null_mean(), 4), round(sigreg_null_mean(t_max=math.inf), 4)
    (1.0525, 1.0594)
    """
    if t_max == math.inf:
        return math.sqrt(2 * math.pi) - math.sqrt(2 * math.pi / 3)
    grid = _grid(*_require_grid(knots, t_max))
    gaussian, weight = grid.target[: knots - 1], grid.weight[: knots - 1]
    return float(weight @ (1 - gaussian.square()))


def sigreg_collapse_value(knots=17, t_max=3.0):
    r"""What SIGReg reads *per sample*, T / N, when every code is the same point at the origin.

    .. math:: T / N = 2 \int_0^{t_{\max}} (1 - e^{-t^2/2})^2\, e^{-t^2/2}\, dt

    by the trapezoid rule of the same grid; with ``t_max=math.inf`` the integral itself,
    :math:`\sqrt{2\pi}\,(1 - \sqrt 2 + 1/\sqrt 3) = 0.4089`. Multiply by N for the value that a collapsed run shows.

    Raises:
        TypeError, ValueError: the grid is not allowed.

    Derived in:
        Chapter 4, Proposition 4.6.

    >>> round(sigreg_collapse_value(), 4), round(sigreg_collapse_value(t_max=math.inf), 4)
    (0.402, 0.4089)
    """
    if t_max == math.inf:
        return math.sqrt(2 * math.pi) * (1 - math.sqrt(2) + 1 / math.sqrt(3))
    grid = _grid(*_require_grid(knots, t_max))
    gaussian, weight = grid.target[: knots - 1], grid.weight[: knots - 1]
    return float(weight @ (1 - gaussian).square())


# ---------------------------------------------------------------------------------------------------------
# The same value and gradient, fast and lean
# ---------------------------------------------------------------------------------------------------------


def random_directions(num_slices, dim, *, generator=None, device=None, dtype=None):
    r"""Directions drawn uniformly from the unit sphere: normalised Gaussian vectors.

    They are drawn in float32 whatever ``dtype`` is, so one seed gives the same directions in every precision.

    Args:
        num_slices: number of directions M, at least 1.
        dim: dimension D, at least 1.
        generator: a ``torch.Generator``. Its own device draws: a CPU generator gives the same directions on every
            device, a CUDA generator draws faster there. By default the generator of ``device``.
        device: where the result goes. By default the generator's device, or the CPU.
        dtype: floating dtype of the result, by default ``torch.get_default_dtype()``.

    Returns:
        (M, D) unit rows.

    Raises:
        ValueError: ``num_slices`` or ``dim`` is less than 1.

    Derived in:
        Chapter 4, Definition 4.2 and Corollary 4.10.

    >>> a = random_directions(3, 5, generator=torch.Generator().manual_seed(0))
    >>> a.shape, a.norm(dim=1)
    (torch.Size([3, 5]), tensor([1., 1., 1.]))
    """
    _require_count("num_slices", num_slices, 1)
    _require_count("dim", dim, 1)
    drawn_on = device if generator is None else generator.device
    directions = torch.randn(num_slices, dim, generator=generator, device=drawn_on, dtype=torch.float32)
    directions = directions.to(device=drawn_on if device is None else device, dtype=dtype or torch.get_default_dtype())
    return directions.div_(torch.linalg.vector_norm(directions, dim=1, keepdim=True))


def epps_pulley(x, *, knots=17, t_max=3.0):
    r"""The Epps-Pulley distance of each column from N(0, 1).

    .. math:: T = N \int \Big| \tfrac{1}{N} \sum_n e^{i t x_n} - e^{-t^2/2} \Big|^2 e^{-t^2/2}\, dt

    by the trapezoid rule on ``linspace(0, t_max, knots)``, doubled because the integrand is even. For standard
    Gaussian samples its mean is :func:`sigreg_null_mean`, whatever N.

    Args:
        x: floating (N, M), one sample a column. NaN and infinity make the statistic of their column NaN.
        knots: number of grid points on [0, t_max], at least 2.
        t_max: end of the grid, positive.

    Returns:
        (M,) statistics, in the dtype of ``x`` (float32 for half precision).

    Raises:
        TypeError, ValueError: ``x`` is not a non-empty floating matrix, or the grid is not allowed.

    Reference:
        Epps and Pulley (1983); Balestriero and LeCun, arXiv 2511.08544.

    Derived in:
        Chapter 4, Definition 4.1.

    >>> epps_pulley(torch.tensor([[-1.0, 5.0], [0.0, 5.0], [1.0, 5.0]]))
    tensor([ 0.0329, 11.8199])
    """
    require_floating("x", x, 2, "(N, M)")
    knots, t_max = _require_grid(knots, t_max)
    samples = x.to(_compute_dtype(x)).T.unsqueeze(-1)  # (M, N, 1): every column is a view of dimension one
    return _statistic_per_view(samples, samples.new_ones(1, 1), knots, t_max, None)


def sliced_sigreg(z, directions, *, knots=17, t_max=3.0, sync=True, group=None):
    r"""SIGReg: the mean Epps-Pulley distance from N(0, 1) of the codes projected on given directions.

    .. math:: \mathrm{SIGReg}(z) = \tfrac{1}{M} \sum_m T\big(\{a_m \cdot z_n\}_n\big)

    with T as in :func:`epps_pulley`. Value and gradient equal :func:`plain_sliced_sigreg` to rounding, but nothing
    of size N x M x knots is ever made, and the gradient with respect to ``z`` is made together with the value, so
    that ``backward`` only scales it. The gradient with respect to ``directions`` and second derivatives come from
    the plain formula, at its cost. Under autocast the two matrix products run in the autocast dtype; the
    trigonometry stays in float32.

    Args:
        z: floating codes (N, D) or (V, N, D); V views are scored apart and averaged. NaN and infinity make the
            value and the gradient of their view NaN.
        directions: floating (M, D) of unit rows, as :func:`random_directions` gives (not checked).
        knots: number of grid points on [0, t_max], at least 2.
        t_max: end of the grid, positive.
        sync: under ``torch.distributed``, score the batch of all processes together (they must all call, with the
            same directions and the same V; N may differ). Every process returns the same value, and the gradient of
            the *sum* of these values over the processes, which DistributedDataParallel's averaging turns into the
            gradient that one process would have had.
        group: the process group to share with, by default all processes.

    Returns:
        A scalar in the dtype of ``z`` (float32 for half precision).

    Raises:
        TypeError, ValueError: an argument has the wrong type, shape or range.
        NotImplementedError: a second derivative, or one in ``directions``, is asked for across processes.

    Reference:
        Balestriero and LeCun, arXiv 2511.08544.

    Derived in:
        Chapter 4, Definition 4.2; the product form of the sums, Algorithm 4.18.

    >>> generator = torch.Generator().manual_seed(0)
    >>> directions = random_directions(64, 8, generator=generator)
    >>> z = torch.randn(512, 8, generator=generator)
    >>> sliced_sigreg(z, directions), sliced_sigreg(2 * z, directions)
    (tensor(0.96...), tensor(122.0...))
    """
    require_floating("z", z, (2, 3), "(N, D) or (V, N, D)")
    require_floating("directions", directions, 2, "(M, D)")
    if directions.shape[1] != z.shape[-1]:
        raise ValueError(
            f"directions must have shape (M, D) with D = {z.shape[-1]} as in z, got {tuple(directions.shape)}"
        )
    knots, t_max = _require_grid(knots, t_max)
    views = z if z.ndim == 3 else z.unsqueeze(0)
    return _statistic_per_view(views, directions, knots, t_max, _group_to_share(sync, group)).mean()


class SIGReg(nn.Module):
    r"""SIGReg with fresh random directions at every call: :func:`sliced_sigreg` of :func:`random_directions`.

    The module holds settings and no state: no buffers, no step counter, the same in ``train()`` and ``eval()``.
    Only the generator decides which directions are drawn. Under ``torch.distributed`` all processes use those of
    the first one.

    Args:
        num_slices: number of directions M drawn at each call.
        knots: number of grid points on [0, t_max], at least 2.
        t_max: end of the grid, positive.
        sync, group: how processes share, as in :func:`sliced_sigreg`.

    Raises:
        TypeError, ValueError: an argument has the wrong type or range.

    Reference:
        Balestriero and LeCun, arXiv 2511.08544.

    Derived in:
        Chapter 4, Definition 4.2 and Corollary 4.10.

    >>> generator = torch.Generator().manual_seed(0)
    >>> z = torch.randn(512, 8, generator=generator, requires_grad=True)
    >>> loss = SIGReg(num_slices=64)(z, generator)
    >>> loss.backward()
    >>> loss, z.grad.shape
    (tensor(1..., grad_fn=...), torch.Size([512, 8]))
    """

    def __init__(self, num_slices=256, knots=17, t_max=3.0, *, sync=True, group=None):
        super().__init__()
        self.num_slices = _require_count("num_slices", num_slices, 1)
        self.knots, self.t_max = _require_grid(knots, t_max)
        self.sync, self.group = sync, group

    def forward(self, z, generator=None):
        """SIGReg of codes ``z`` (N, D) or (V, N, D), a scalar; ``generator`` draws the directions."""
        require_floating("z", z, (2, 3), "(N, D) or (V, N, D)")
        directions = random_directions(
            self.num_slices, z.shape[-1], generator=generator, device=z.device, dtype=_compute_dtype(z)
        )
        group = _group_to_share(self.sync, self.group)
        if group is not None:
            dist.broadcast(directions, src=dist.get_global_rank(group, 0), group=group)
        return sliced_sigreg(
            z, directions, knots=self.knots, t_max=self.t_max, sync=self.sync, group=self.group
        )

    def extra_repr(self):
        return f"num_slices={self.num_slices}, knots={self.knots}, t_max={self.t_max}"


# ---------------------------------------------------------------------------------------------------------
# Infinitely many directions
# ---------------------------------------------------------------------------------------------------------


def slice_free_sigreg(z, *, sync=True, group=None):
    r"""SIGReg averaged over the whole sphere of directions and integrated over the whole line, in closed form.

    .. math:: N \sqrt{2\pi} \Big[ \tfrac{1}{N^2} \sum_{ij} k\big(\tfrac12 |z_i - z_j|^2\big)
              - \tfrac{\sqrt 2}{N} \sum_i k\big(\tfrac14 |z_i|^2\big) + \tfrac{1}{\sqrt 3} \Big],
              \qquad k(u) = {}_1F_1(\tfrac12;\, \tfrac D2;\, -u)

    What :func:`sliced_sigreg` tends to with ever more directions and an ever longer, finer grid: a kernel distance
    (MMD) to N(0, I), with no noise from slices and unchanged by rotations. It costs N^2 D operations, but only
    blocks of the N x N pairs are ever held. For large D the kernel tends to :math:`(1 + |z - z'|^2 / D)^{-1/2}`.
    The three terms nearly cancel, so in float32 the value has a relative error of about 3e-8 N; the gradient has not.

    Args:
        z: floating codes (N, D) or (V, N, D); V views are scored apart and averaged. NaN and infinity make the
            value and the gradient of their view NaN.
        sync, group: how processes share, as in :func:`sliced_sigreg`; here each process gathers all codes and
            takes the pairs of its own.

    Returns:
        A scalar in the dtype of ``z`` (float32 for half precision).

    Raises:
        TypeError, ValueError: ``z`` has the wrong type or shape.
        NotImplementedError: a second derivative is asked for across processes.

    Reference:
        Balestriero and LeCun, arXiv 2511.08544, for the sliced form; Tolstikhin et al., arXiv 1711.01558, for the
        kernel of the limit.

    Derived in:
        Chapter 4, Proposition 4.11.

    >>> slice_free_sigreg(torch.zeros(10, 3)) / 10  # total collapse
    tensor(0.4089)
    """
    require_floating("z", z, (2, 3), "(N, D) or (V, N, D)")
    views = z if z.ndim == 3 else z.unsqueeze(0)
    group = _group_to_share(sync, group)
    if torch.compiler.is_compiling() and group is None and _compiled_slice_free is not None:
        return _compiled_slice_free(views, _wants_slope(z))[0].mean()
    fast = functools.partial(_slice_free_and_slope, group=group)
    plain = _plain_slice_free_per_view if group is None else None
    return _per_view(views, None, fast, plain).mean()



def _plain_slice_free_per_view(z, directions=None):
    """(V,) values as the formula reads, differentiable to any order: the oracle of the blocked form."""
    z = z.to(_compute_dtype(z))
    n, d = z.shape[1:]
    pairs = kummer(0.5, d / 2, (z.unsqueeze(1) - z.unsqueeze(2)).square().sum(-1) / 2)  # (V, N, N)
    alone = kummer(0.5, d / 2, z.square().sum(-1) / 4)  # (V, N)
    distance = pairs.mean((1, 2)) - math.sqrt(2) * alone.mean(1) + 1 / math.sqrt(3)
    return n * math.sqrt(2 * math.pi) * distance


def _slice_free_and_slope(z, directions, with_slope, *, group):
    """(V,) values and their gradients (V, N, D), a block of rows of the N x N pairs at a time."""
    with _full_precision(z):
        z = z.to(_compute_dtype(z))
        v, n, d = z.shape
        everyone = z if group is None else _gather_samples(z, group)
        total = everyone.shape[1]
        # Distances do not see a shift; without the mean, |a|^2 + |b|^2 - 2 a.b cancels less.
        center = everyone.mean(1, keepdim=True)
        others, own = everyone - center, z - center
        alone_argument = z.square().sum(-1) / 4  # (V, N)
        # The three terms nearly cancel: N^2 kernels of single precision are summed in double where there is one.
        wide = z.dtype if z.device.type == "mps" else torch.float64
        alone = kummer(0.5, d / 2, alone_argument).sum(1, dtype=wide)
        pairs = torch.zeros_like(alone)
        slope = torch.empty_like(z) if with_slope else z.new_empty(v, 0, d)
        block = max(1, _block_entries(z) // total)
        for view in range(v):
            b = others[view]
            b_square = b.square().sum(1)
            for start in range(0, n, block):
                a = own[view, start : start + block]
                argument = torch.addmm(b_square, a, b.T, alpha=-2).add_(a.square().sum(1, keepdim=True))
                argument = argument.clamp_(min=0).div_(2)  # (block, total)
                pairs[view] += kummer(0.5, d / 2, argument).sum(dtype=wide)
                if with_slope:
                    force = kummer(1.5, d / 2 + 1, argument)  # -D times the derivative of the kernel
                    torch.sub(force @ b, a * force.sum(1, keepdim=True), out=slope[view, start : start + block])
        if with_slope:
            force = kummer(1.5, d / 2 + 1, alone_argument).unsqueeze(-1)
            slope = (2 / total * slope + math.sqrt(0.5) * force * z) * (math.sqrt(2 * math.pi) / d)
        if group is not None:
            dist.all_reduce(pairs, group=group)
            dist.all_reduce(alone, group=group)
            slope *= dist.get_world_size(group)  # see sliced_sigreg on what processes return
        distance = pairs / total**2 - math.sqrt(2) * alone / total + 1 / math.sqrt(3)
        return (total * math.sqrt(2 * math.pi) * distance).to(z.dtype), slope


# ---------------------------------------------------------------------------------------------------------
# How the sliced form is made fast
# ---------------------------------------------------------------------------------------------------------
#
# One row is one direction and one view: N angles, the projections times the step of the grid. All that the
# statistic needs are the sums over n of cos(k angle_n) and sin(k angle_n), k = 1 ... knots - 1. Write
# k = 5 q + r with r in -2 ... 2. By the addition theorems these sums are fixed combinations of
#
#     sum_n giant_i(n) baby_j(n),
#     baby_j:  1, c, s, cs, ss               with c and s the cosine and sine of the angle (r = 0, 1, 2),
#     giant_i: 1, c, s, cs, ss, css, sss     with those of 5 times the angle (q = 0, 1, 2, 3),
#
# one product of a (7, N) and an (N, 5) matrix for each row, for 2 x 16 sums at 17 knots. (More knots add six giants
# for 5 times 4, 5 times 5 and so on.) Two sines and two cosines serve all knots. The slope of the statistic in the
# angle is a sum over k of cosines and sines with known coefficients, hence a bilinear form in giants and babies: a
# second small product. A block of rows is visited once, while it is in the cache, and slopes overwrite angles.


class _Grid(NamedTuple):
    """The knots and what they fix, in float64 (K = knots - 1; the knot at 0 adds nothing)."""

    multiples: torch.Tensor  # (Q, 1, 1): 5 times 1, 4, 5, ..., whose doubles and triples are giants too
    target: torch.Tensor  # (2 K,): mean cos and mean sin under N(0, 1)
    weight: torch.Tensor  # (2 K,): trapezoid weight times the Gaussian weight
    combine: torch.Tensor  # (giants * 5, 2 K): sums of products -> sums of cos and sin
    derive: torch.Tensor  # (2 K, 5 * giants): residuals -> coefficients C of the slope


@functools.lru_cache(maxsize=32)
def _grid(knots, t_max):
    k = torch.arange(1, knots, dtype=torch.float64)
    t = k * (t_max / (knots - 1))
    gaussian = torch.exp(-t.square() / 2)
    weight = 2 * t_max / (knots - 1) * gaussian
    weight[-1] /= 2
    # cos and sin of 0, 1, 2, 3 times an angle in terms of 1, c, s, cs, ss, css, sss
    cos = torch.tensor(
        [[1, 0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0], [1, 0, 0, 0, -2, 0, 0], [0, 1, 0, 0, 0, -4, 0]],
        dtype=torch.float64,
    )
    sin = torch.tensor(
        [[0, 0, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0, 0], [0, 0, 0, 2, 0, 0, 0], [0, 0, 3, 0, 0, 0, -4]],
        dtype=torch.float64,
    )
    steps = {0: (0, 0)}  # giant step q -> the place of the multiple it comes from, and how many times that
    multiples = []
    for q in range(1, (knots + 1) // 5 + 1):
        if q not in steps:
            steps.update({times * q: (len(multiples), times) for times in (1, 2, 3)})
            multiples.append(5 * q)
    combine = torch.zeros(2, knots - 1, 1 + 6 * len(multiples), 5, dtype=torch.float64)
    for i in range(1, knots):
        q, r = (i + 2) // 5, (i + 2) % 5 - 2
        place, times = steps[q]
        cos_far, sin_far = (_among(table[times], place, len(multiples)) for table in (cos, sin))
        cos_near, sin_near = cos[abs(r), :5], math.copysign(1, r) * sin[abs(r), :5]
        combine[0, i - 1] = torch.outer(cos_far, cos_near) - torch.outer(sin_far, sin_near)
        combine[1, i - 1] = torch.outer(sin_far, cos_near) + torch.outer(cos_far, sin_near)
    # d/d angle of weight * residual^2, knot by knot: 2 weight k (residual_sin cos - residual_cos sin)
    rate = (2 * weight * k).view(-1, 1, 1)
    derive = torch.stack([-rate * combine[1], rate * combine[0]])
    return _Grid(
        multiples=torch.tensor(multiples, dtype=torch.float64).view(-1, 1, 1),
        target=torch.cat([gaussian, torch.zeros_like(gaussian)]),
        weight=torch.cat([weight, weight]),
        combine=combine.flatten(2).flatten(0, 1).T.contiguous(),
        derive=derive.mT.flatten(2).flatten(0, 1).contiguous(),
    )


def _among(row, place, multiples):
    """A row of the table above for one of several multiples; the giants stand as 1, all c, all s, all cs, ..."""
    spread = row.new_zeros(1 + 6 * multiples)
    spread[0] = row[0]
    if multiples:
        spread[1 + place :: multiples] = row[1:]
    return spread


def _statistic_per_view(z, directions, knots, t_max, group):
    """(V,) values of SIGReg for codes ``z`` (V, N, D)."""
    if torch.compiler.is_compiling() and group is None and _compiled_sliced is not None:
        return _compiled_sliced(z, _wants_slope(z), directions, knots, t_max)[0]
    fast = functools.partial(_sliced_and_slope, knots=knots, t_max=t_max, group=group)
    plain = functools.partial(_plain_sliced, knots=knots, t_max=t_max) if group is None else None
    return _per_view(z, directions, fast, plain)


def _plain_sliced(z, directions, knots, t_max):
    dtype = _compute_dtype(z)
    return _plain_per_view(z.to(dtype), directions.to(dtype), knots, t_max)


def _sliced_and_slope(z, directions, with_slope, *, knots, t_max, group):
    """(V,) values and their gradients (V, N, D), as many directions at a time as fit the budget."""
    v, n, d = z.shape
    m = len(directions)
    dtype = _compute_dtype(z)
    samples = z.reshape(v * n, d)
    scaled = directions.to(dtype) * (t_max / (knots - 1))  # projections on these are angles
    count = samples.new_full((), n, dtype=dtype)
    if group is not None:
        dist.all_reduce(count, group=group)
    statistic = count.new_empty(m, v)
    slope = count.new_zeros(v * n if with_slope else 0, d)
    many = max(1, _PROJECTION_ENTRIES // (64 * v * n)) * 64  # whole blocks, also when processes share
    for start in range(0, m, many):
        some = scaled[start : start + many].to(z.dtype)
        angle = (some @ samples.T).to(dtype)  # (some, V N)
        statistic[start : start + many] = _visit(
            angle.view(-1, n), _grid(knots, t_max), count, with_slope, group
        ).view(-1, v)
        if with_slope:
            slope += angle.to(z.dtype).T @ some
    world = 1 if group is None else dist.get_world_size(group)  # see sliced_sigreg on what processes return
    return statistic.mean(0), slope.mul_(world / m).view(v, -1, d)


def _visit(angle, grid, count, with_slope, group):
    """The statistic of each row of ``angle`` (R, N); ``with_slope`` overwrites the angles by its slope in them."""
    with _full_precision(angle):
        rows, n = angle.shape
        multiples, target, weight, combine, derive = (tensor.to(angle) for tensor in grid)
        combine = combine / count
        q = len(multiples)
        # Processes must take blocks of the same shape, whatever their own N.
        block = min(rows, max(1, _block_entries(angle) // n) if group is None else 64)
        # One feature after the other, so that each is written in one stretch; products see them transposed.
        near, far = angle.new_ones(5, block, n), angle.new_ones(1 + 6 * q, block, n)
        steps, terms = angle.new_empty(q, block, n), angle.new_empty(block, 5, n)
        residual = angle.new_empty(rows, len(target))
        for start in range(0, rows, block):
            a = angle[start : start + block]
            baby, giant, step = (buffer[:, : len(a)] for buffer in (near, far, steps))
            torch.cos(a, out=baby[1])
            torch.sin(a, out=baby[2])
            torch.mul(baby[1:3], baby[2], out=baby[3:5])
            torch.mul(a, multiples, out=step)
            power = giant[1:].unflatten(0, (6, q))
            torch.cos(step, out=power[0])
            torch.sin(step, out=power[1])
            torch.mul(power[0:2], power[1], out=power[2:4])
            torch.mul(power[2:4], power[1], out=power[4:6])
            baby, giant = baby.transpose(0, 1), giant.transpose(0, 1)  # (block, 5, N), (block, 1 + 6 Q, N)
            products = torch.bmm(giant, baby.mT).flatten(1)
            if group is not None:
                dist.all_reduce(products, group=group)
            error = torch.addmm(-target, products, combine, out=residual[start : start + block])
            if with_slope:
                term = torch.bmm((error @ derive).view(-1, 5, 1 + 6 * q), giant, out=terms[: len(a)])
                term[:, 1:].mul_(baby[:, 1:])  # the first baby step is 1
                torch.sum(term, 1, out=a)
        return count * (residual.square() @ weight)


# ---------------------------------------------------------------------------------------------------------
# Derivatives
# ---------------------------------------------------------------------------------------------------------


def _per_view(z, directions, fast, plain):
    apply = _PerView.apply
    if torch.compiler.is_compiling():  # across processes, or torch < 2.4: not to be traced, the graph breaks here
        apply = torch.compiler.disable(apply)
    return apply(z, directions, fast, plain, _wants_slope(z))[0]


def _wants_slope(z):
    return torch.is_grad_enabled() and z.requires_grad


class _PerView(torch.autograd.Function):
    """(V,) statistics of ``z`` (V, N, D), whose gradients ``fast`` makes in the same visit.

    ``fast(z, directions, with_slope)`` returns values and slopes; ``plain(z, directions)`` is the differentiable
    formula, used for all other derivatives.
    """

    @staticmethod
    def forward(z, directions, fast, plain, with_slope):
        return fast(z, directions, with_slope)

    @staticmethod
    def setup_context(ctx, inputs, output):
        z, directions, ctx.fast, ctx.plain, ctx.with_slope = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(z, directions, output[1])

    @staticmethod
    def vmap(info, in_dims, z, directions, *settings):
        if in_dims[1] is not None:  # each its own directions: one after the other
            z = z.movedim(in_dims[0], 0) if in_dims[0] is not None else [z] * info.batch_size
            each = [
                _PerView.apply(*pair, *settings) for pair in zip(z, directions.movedim(in_dims[1], 0), strict=True)
            ]
            return tuple(torch.stack(parts) for parts in zip(*each, strict=True)), (0, 0)
        z = z.movedim(in_dims[0], 0)  # a batch of views is more views
        statistic, slope = _PerView.apply(z.flatten(0, 1), directions, *settings)
        return (statistic.unflatten(0, z.shape[:2]), slope.unflatten(0, z.shape[:2])), (0, 0)

    @staticmethod
    def backward(ctx, grad, _):
        z, directions, slope = ctx.saved_tensors
        grad_z = grad_directions = None
        if ctx.needs_input_grad[0]:
            if not ctx.with_slope:  # the gradient was asked for after all, from within torch.func
                slope = _PerView.apply(z.detach(), directions, ctx.fast, ctx.plain, True)[1]
            grad_z = _ScaleSlope.apply(grad, slope, ctx.plain, z, directions)
        if ctx.needs_input_grad[1]:
            if ctx.plain is None:
                raise NotImplementedError("the gradient with respect to directions is not shared across processes")
            grad_directions = torch.func.vjp(lambda a: ctx.plain(z, a), directions)[1](grad)[0]
        return grad_z, grad_directions, None, None, None


class _ScaleSlope(torch.autograd.Function):
    """The first derivative, slope times upstream gradient, which the plain formula differentiates further."""

    generate_vmap_rule = True

    @staticmethod
    def forward(grad, slope, plain, z, directions):
        return (grad.view(-1, 1, 1) * slope).to(z.dtype)

    @staticmethod
    def setup_context(ctx, inputs, output):
        grad, _, ctx.plain, z, directions = inputs
        ctx.save_for_backward(grad, z, directions)

    @staticmethod
    def backward(ctx, upstream):
        if ctx.plain is None:
            raise NotImplementedError("second derivatives of SIGReg are not shared across processes: use sync=False")
        grad, z, directions = ctx.saved_tensors

        def first_derivative(grad, z, directions):
            return torch.func.vjp(lambda z: ctx.plain(z, directions), z)[1](grad)[0]

        if directions is None:
            pull = torch.func.vjp(lambda grad, z: first_derivative(grad, z, None), grad, z)[1]
            return pull(upstream)[0], None, None, pull(upstream)[1], None
        in_grad, in_z, in_directions = torch.func.vjp(first_derivative, grad, z, directions)[1](upstream)
        return in_grad, None, None, in_z, in_directions


# Under torch.compile the same visits go as opaque operations, which leave the graph whole. They know one derivative.

if hasattr(torch.library, "custom_op"):  # torch >= 2.4; before, torch.compile breaks its graph here

    @torch.library.custom_op("sigreg::sliced_and_slope", mutates_args=())
    def _compiled_sliced(
        z: torch.Tensor, with_slope: bool, directions: torch.Tensor, knots: int, t_max: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return _sliced_and_slope(z, directions, with_slope, knots=knots, t_max=t_max, group=None)

    @torch.library.custom_op("sigreg::slice_free_and_slope", mutates_args=())
    def _compiled_slice_free(z: torch.Tensor, with_slope: bool) -> tuple[torch.Tensor, torch.Tensor]:
        return _slice_free_and_slope(z, None, with_slope, group=None)

    def _shapes(z, with_slope, *_):
        v, n, d = z.shape
        statistic = z.new_empty(v, dtype=_compute_dtype(z))
        return statistic, statistic.new_empty(v, n if with_slope else 0, d)

    def _keep_slope(ctx, inputs, output):
        ctx.dtype, ctx.inputs = inputs[0].dtype, len(inputs)
        ctx.save_for_backward(output[1])

    def _scale_slope(ctx, grad, _):
        if any(ctx.needs_input_grad[1:]):
            raise NotImplementedError("the gradient with respect to directions is not compiled: call it eagerly")
        (slope,) = ctx.saved_tensors
        return (grad.view(-1, 1, 1) * slope).to(ctx.dtype), *[None] * (ctx.inputs - 1)

    for _operation in (_compiled_sliced, _compiled_slice_free):
        _operation.register_fake(_shapes)
        _operation.register_autograd(_scale_slope, setup_context=_keep_slope)
else:
    _compiled_sliced = _compiled_slice_free = None


# ---------------------------------------------------------------------------------------------------------
# Precision, block sizes, processes, checks
# ---------------------------------------------------------------------------------------------------------

_PROJECTION_ENTRIES = 2**22  # angles held at a time: 16 MB in float32


def _block_entries(like):
    """Entries of one buffer of a block: what a core's cache holds a thread, or a kernel worth its launch."""
    return 2**15 * torch.get_num_threads() if like.device.type == "cpu" else 2**21


def _compute_dtype(z):
    return torch.float64 if z.dtype == torch.float64 else torch.float32


def _full_precision(like):
    return torch.autocast(like.device.type, enabled=False)


def _group_to_share(sync, group):
    """The process group whose batches are scored together, or None when this process stands alone."""
    if not (sync and dist.is_available() and dist.is_initialized()):
        return None
    group = dist.group.WORLD if group is None else group
    return group if dist.get_world_size(group) > 1 else None


def _gather_samples(z, group):
    """The samples (V, N of all processes, D) of every process, whose N may differ."""
    own = z.movedim(1, 0).contiguous()  # (N, V, D)
    sizes = [torch.zeros(1, dtype=torch.int64, device=z.device) for _ in range(dist.get_world_size(group))]
    dist.all_gather(sizes, torch.tensor([len(own)], device=z.device), group=group)
    largest = max(int(size) for size in sizes)
    padded = own.new_zeros(largest, *own.shape[1:])
    padded[: len(own)] = own
    gathered = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(gathered, padded, group=group)
    return torch.cat([part[: int(size)] for part, size in zip(gathered, sizes, strict=True)]).movedim(0, 1)


def _require_count(name, value, least):
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return value


def _require_grid(knots, t_max):
    _require_count("knots", knots, 2)
    if isinstance(t_max, bool) or not isinstance(t_max, int | float):
        raise TypeError(f"t_max must be a number, got {type(t_max).__name__}")
    if not 0 < t_max < math.inf:
        raise ValueError(f"t_max must be positive and finite, got {t_max}")
    return knots, float(t_max)


# ---------------------------------------------------------------------------------------------------------
# One more shadow: the radius
# ---------------------------------------------------------------------------------------------------------


def radial_sigreg(z, *, knots=17, t_max=3.0):
    r"""The Epps-Pulley statistic of the codes' lengths: what no slice shows, whether :math:`|z|` follows its law.

    .. math::
        R(z) = 2N \int_0^{t_{\max}} \bigl|\hat\varphi(t) - \varphi_D(t)\bigr|^2\, e^{-t^2/2}\, dt,
        \qquad \hat\varphi(t) = \tfrac1N \sum_n e^{i t x_n}, \quad x_n = \sqrt2\,\bigl(|z_n| - \sqrt{D - 1/2}\bigr)

    with :math:`\varphi_D` the characteristic function of x for a Gaussian code. On Gaussian codes its mean is
    :func:`radial_null_mean`; its gradient with respect to one code is never longer than :math:`8\sqrt2`. It says
    nothing of directions, so it belongs beside SIGReg and not in its place. The cost is N x (D + knots). Where
    several processes train together, each scores its own codes.

    Args:
        z: floating (N, D), or (V, N, D) for V views that are scored apart and averaged.
        knots: number of grid points on [0, t_max], at least 2.
        t_max: end of the grid, positive.

    Returns:
        a scalar, in float32 for half-precision codes and in the dtype of ``z`` otherwise.

    Raises:
        TypeError, ValueError: ``z`` is not a non-empty floating array of that shape, or the grid is not allowed.

    Derived in:
        Chapter 4, Proposition 4.20.

    >>> z = torch.randn(256, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> cube = torch.rand(256, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 12**0.5 - 3**0.5
    >>> radial_sigreg(z) < 4 < radial_sigreg(cube)
    tensor(True)
    """
    require_floating("z", z, (2, 3), "(N, D) or (V, N, D)")
    knots, t_max = _require_grid(knots, t_max)
    dim, dtype = z.shape[-1], _compute_dtype(z)
    t, weight, real, imaginary = (torch.tensor(v, dtype=dtype, device=z.device) for v in _radius_law(dim, knots, t_max))
    x = math.sqrt(2) * (z.to(dtype).norm(dim=-1) - math.sqrt(dim - 0.5))  # (..., N)
    angle = x.unsqueeze(-1) * t  # (..., N, T)
    gap = (angle.cos().mean(-2) - real).square() + (angle.sin().mean(-2) - imaginary).square()
    return z.shape[-2] * (gap @ weight).mean()


def radial_null_mean(dim, knots=17, t_max=3.0):
    r"""What :func:`radial_sigreg` reads on average when the codes are standard Gaussian, for every N.

    .. math:: \mathbb{E}\, R = 2 \int_0^{t_{\max}} \bigl(1 - |\varphi_D(t)|^2\bigr)\, e^{-t^2/2}\, dt

    Args:
        dim: D, at least 1.
        knots: number of grid points on [0, t_max], at least 2.
        t_max: end of the grid, positive.

    Raises:
        TypeError, ValueError: an argument is not allowed.

    Derived in:
        Chapter 4, Proposition 4.20.

    >>> round(radial_null_mean(64), 3)
    1.051
    """
    _, weight, real, imaginary = _radius_law(_require_count("dim", dim, 1), *_require_grid(knots, t_max))
    return sum(w * (1 - a * a - b * b) for w, a, b in zip(weight, real, imaginary, strict=True))


@functools.lru_cache(maxsize=64)
def _radius_law(dim, knots, t_max):
    """Grid, trapezoid weights and the characteristic function of x: four tuples of ``knots`` numbers.

    The density of |z| is r^(D - 1) e^(-r^2 / 2) up to a constant. Nearly all of it lies within 10 of sqrt(D), where
    256 Gauss-Legendre nodes integrate it to rounding.
    """
    node, share = np.polynomial.legendre.leggauss(256)
    low, high = max(0.0, math.sqrt(dim) - 10), math.sqrt(dim) + 10
    r = (low + high) / 2 + (high - low) / 2 * node
    density = (dim - 1) * np.log(r) - r**2 / 2
    share = share * np.exp(density - density.max())
    share /= share.sum()
    t = np.linspace(0, t_max, knots)
    weight = np.full(knots, 2 * t_max / (knots - 1))  # twice the step: the integrand is even
    weight[[0, -1]] /= 2
    phi = np.exp(1j * math.sqrt(2) * np.outer(t, r - math.sqrt(dim - 0.5))) @ share
    return tuple(t), tuple(weight * np.exp(-(t**2) / 2)), tuple(phi.real), tuple(phi.imag)
