"""SIGReg along given directions, fast and lean: the engine of ``sliced_sigreg``, ``SIGReg`` and ``epps_pulley``."""

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

import functools
import math
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from sigreg._distributed import count_shared, processes
from sigreg._per_view import (
    block_entries,
    compute_dtype,
    full_precision,
    has_no_data,
    per_view,
    register,
    triton_module,
    wants_slope,
)

_ENTRIES = 2**22  # angles held at a time: 16 MB in float32
_KERNEL_ENTRIES = 2**26  # on a GPU more: each time costs launches
_SAMPLES = 2**14  # added up in one stretch: single precision loses the digits of the value in a longer one


def sliced(z, directions, knots, t_max, group, plain, drawn=False):
    """(V,) values of SIGReg for codes ``z`` (V, N, D); ``plain`` is the formula, for other derivatives.

    ``drawn``: the directions are as drawn, of any length, which is divided out on the way.
    """
    if torch.compiler.is_compiling() and group is None:
        return compiled_sliced(z, wants_slope(z), directions, drawn, knots, t_max)[0]
    fast = functools.partial(_sliced_and_slope, drawn=drawn, knots=knots, t_max=t_max, group=group)
    if group is None:
        plain = functools.partial(_in_full_precision, plain=plain, drawn=drawn, knots=knots, t_max=t_max)
    return per_view(z, directions, fast, plain if group is None else None)


def _in_full_precision(z, directions, *, plain, drawn, knots, t_max):
    dtype = compute_dtype(z)
    directions = directions.to(dtype)
    return plain(z.to(dtype), unit_rows(directions) if drawn else directions, knots, t_max)


def unit_rows(vectors):
    return vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)


class Grid(NamedTuple):
    """The knots and what they fix, in float64 (K = knots - 1; the knot at 0 adds nothing).

    Arrays of numpy: tensors made inside a fake, meta or captured context must not be kept for later calls.
    """

    multiples: np.ndarray  # (Q, 1, 1): 5 times 1, 4, 5, ..., whose doubles and triples are giants too
    target: np.ndarray  # (2 K,): mean cos and mean sin under N(0, 1)
    weight: np.ndarray  # (2 K,): trapezoid weight times the Gaussian weight
    combine: np.ndarray  # (giants * 5, 2 K): sums of products -> sums of cos and sin
    derive: np.ndarray  # (2 K, 5 * giants): residuals -> coefficients C of the slope


@functools.lru_cache(maxsize=32)
def grid_constants(knots, t_max):
    k = np.arange(1, knots, dtype=np.float64)
    t = k * (t_max / (knots - 1))
    gaussian = np.exp(-(t**2) / 2)
    weight = 2 * t_max / (knots - 1) * gaussian
    weight[-1] /= 2
    # cos and sin of 0, 1, 2, 3 times an angle in terms of 1, c, s, cs, ss, css, sss
    cos = np.array(
        [[1, 0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0], [1, 0, 0, 0, -2, 0, 0], [0, 1, 0, 0, 0, -4, 0]],
        dtype=np.float64,
    )
    sin = np.array(
        [[0, 0, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0, 0], [0, 0, 0, 2, 0, 0, 0], [0, 0, 3, 0, 0, 0, -4]],
        dtype=np.float64,
    )
    steps = {0: (0, 0)}  # giant step q -> the place of the multiple it comes from, and how many times that
    multiples = []
    for q in range(1, (knots + 1) // 5 + 1):
        if q not in steps:
            steps.update({times * q: (len(multiples), times) for times in (1, 2, 3)})
            multiples.append(5 * q)
    combine = np.zeros((2, knots - 1, 1 + 6 * len(multiples), 5))
    for i in range(1, knots):
        q, r = (i + 2) // 5, (i + 2) % 5 - 2
        place, times = steps[q]
        cos_far, sin_far = (_among(table[times], place, len(multiples)) for table in (cos, sin))
        cos_near, sin_near = cos[abs(r), :5], math.copysign(1, r) * sin[abs(r), :5]
        combine[0, i - 1] = np.outer(cos_far, cos_near) - np.outer(sin_far, sin_near)
        combine[1, i - 1] = np.outer(sin_far, cos_near) + np.outer(cos_far, sin_near)
    # d/d angle of weight * residual^2, knot by knot: 2 weight k (residual_sin cos - residual_cos sin)
    rate = (2 * weight * k).reshape(-1, 1, 1)
    derive = np.stack([-rate * combine[1], rate * combine[0]])
    return Grid(
        multiples=np.array(multiples, dtype=np.float64).reshape(-1, 1, 1),
        target=np.concatenate([gaussian, np.zeros_like(gaussian)]),
        weight=np.concatenate([weight, weight]),
        combine=np.ascontiguousarray(combine.reshape(2 * (knots - 1), -1).T),
        derive=np.ascontiguousarray(derive.swapaxes(2, 3).reshape(2 * (knots - 1), -1)),
    )


def _among(row, place, multiples):
    """A row of the table above for one of several multiples; the giants stand as 1, all c, all s, all cs, ..."""
    spread = np.zeros(1 + 6 * multiples)
    spread[0] = row[0]
    if multiples:
        spread[1 + place :: multiples] = row[1:]
    return spread


def _sliced_and_slope(z, directions, with_slope, *, drawn, knots, t_max, group):
    """(V,) values and their gradients (V, N, D), as many directions at a time as fit the budget."""
    v, n, d = z.shape
    m = len(directions)
    samples = z.reshape(v * n, d).to(compute_dtype(z))
    directions = directions.to(samples.dtype)
    slope = samples.new_empty(v * n if with_slope else 0, d)
    if has_no_data(z):
        return samples.new_empty(v), slope.view(v, -1, d)
    kernel = triton_module("sigreg._sliced_triton", z.device)
    if drawn and not kernel:
        directions, drawn = unit_rows(directions), False
    step = t_max / (knots - 1)
    count = count_shared(n, group, samples)
    # Where processes share, all must take the same rows at a time, whatever their own N.
    many = 1024 if group is not None else max(1, (_KERNEL_ENTRIES if kernel else _ENTRIES) // (v * n))
    values, unused = [], samples.new_empty(())
    with full_precision(z):
        for some in directions.split(many):
            angle = torch.addmm(unused, some, samples.T, beta=0, alpha=step / (2 * math.pi) if kernel else step)
            rows = angle.view(len(some) * v, n)
            value = (
                kernel.visit(rows, some if drawn else None, knots, step, count, with_slope, group)
                if kernel
                else _visit(rows, grid_constants(knots, t_max), count, with_slope, group)
            )
            if with_slope:
                scale = step * processes(group) / m
                torch.addmm(slope, angle.T, some, beta=int(bool(values)), alpha=scale, out=slope)
            values.append(value.view(-1, v))
    return (torch.cat(values) if len(values) > 1 else values[0]).mean(0), slope.view(v, -1, d)


def _visit(angle, grid, count, with_slope, group):
    """The statistic of each row of ``angle`` (R, N); ``with_slope`` overwrites the angles by its slope in them."""
    rows, n = angle.shape
    multiples, target, weight, combine, derive = (torch.from_numpy(array).to(angle) for array in grid)
    combine = combine / count
    q = len(multiples)
    block = min(rows, max(1, block_entries(angle) // n) if group is None else 64)
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
        products = _sums_of_products(giant, baby).flatten(1)
        if group is not None:
            dist.all_reduce(products, group=group)
        error = torch.addmm(-target, products, combine, out=residual[start : start + block])
        if with_slope:
            term = torch.bmm((error @ derive).view(-1, 5, 1 + 6 * q), giant, out=terms[: len(a)])
            term[:, 1:].mul_(baby[:, 1:])  # the first baby step is 1
            torch.sum(term, 1, out=a)
    return count * (residual.square() @ weight)


def _sums_of_products(giant, baby):
    """(block, giants, babies): the sums over the samples, the last axis of both."""
    parts = [torch.bmm(g, b.mT) for g, b in zip(giant.split(_SAMPLES, 2), baby.split(_SAMPLES, 2), strict=True)]
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)


@torch.library.custom_op("sigreg::sliced_and_slope", mutates_args=())
def compiled_sliced(
    z: torch.Tensor, with_slope: bool, directions: torch.Tensor, drawn: bool, knots: int, t_max: float
) -> tuple[torch.Tensor, torch.Tensor]:
    return _sliced_and_slope(z, directions, with_slope, drawn=drawn, knots=knots, t_max=t_max, group=None)


register(compiled_sliced)
