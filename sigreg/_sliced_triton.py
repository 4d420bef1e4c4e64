"""The sliced form on a GPU: one Triton program a row (one direction and one view), value and slope in one visit.

A program reads its N angles, in whole turns, and walks through the knots with cos(k angle) and sin(k angle) by the
addition theorem (two products a knot, whose rounding grows with k and not with its square as in the shorter Chebyshev
recurrence). It sums them over the samples: the statistic follows, and the coefficients of its slope, a trigonometric
polynomial of the angle. A second walk overwrites the angles by their slopes, by Horner's rule in exp(i angle). Where
processes share, their sums are added between two launches.

Nothing here waits for the host, nothing is allocated that depends on values, and no constant is copied to the device,
so a visit can be captured in a CUDA graph.
"""

import torch
import torch.distributed as dist
import triton
import triton.language as tl

_ENTRIES = {4: 1024, 8: 256}  # that a warp holds at a time, by their size in bytes: more would spill


def visit(turns, directions, knots, step, count, with_slope, group):
    """The statistic of each row of ``turns`` (R, N); ``with_slope`` overwrites them by its slope in the angles.

    ``directions`` (M, D) are the vectors whose lengths are still to be divided out, or None.
    """
    rows, n = turns.shape
    statistic = turns.new_empty(rows)
    warps = min(8, triton.next_power_of_2(max(1, 1024 // rows)))  # one spares the barriers, with rows enough
    entries = _ENTRIES[turns.element_size()]
    block = min(max(triton.next_power_of_2(n), 32), entries * warps)
    settings = {
        "STEP": step,
        "KNOTS": knots - 1,
        "LANES": triton.next_power_of_2(knots - 1),
        "BLOCK": block,
        "num_warps": max(1, block // entries),
    }
    drawn = (None, 0, 1) if directions is None else (directions, directions.shape[1], rows // len(directions))
    with torch.cuda.device(turns.device if turns.is_cuda else -1):  # a launch goes to the current device
        if group is None:
            _visit[(rows,)](turns, *drawn, statistic, n, SLOPE=with_slope, **settings)
            return statistic
        sums = turns.new_empty(rows, 2, knots - 1)
        _sum[(rows,)](turns, *drawn, sums, n, **settings)
        dist.all_reduce(sums, group=group)
        _finish[(rows,)](turns, *drawn, sums, count, statistic, n, SLOPE=with_slope, **settings)
    return statistic


@triton.jit
def _visit(
    turns, directions, d, views, statistic, n,
    SLOPE: tl.constexpr, STEP: tl.constexpr, KNOTS: tl.constexpr, LANES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    turns += row * n
    scale = _one_over_length(directions, row // views, d, turns.dtype.element_ty)
    cos_sums, sin_sums = _row_sums(turns, scale, n, KNOTS, LANES, BLOCK)
    value, on_cos, on_sin = _row_statistic(cos_sums, sin_sums, n, STEP, KNOTS, LANES)
    tl.store(statistic + row, value)
    if SLOPE:
        _row_slopes(turns, scale, n, on_cos, on_sin, KNOTS, LANES, BLOCK)


@triton.jit
def _sum(
    turns, directions, d, views, sums, n,
    STEP: tl.constexpr, KNOTS: tl.constexpr, LANES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    scale = _one_over_length(directions, row // views, d, turns.dtype.element_ty)
    cos_sums, sin_sums = _row_sums(turns + row * n, scale, n, KNOTS, LANES, BLOCK)
    lane = tl.arange(0, LANES)
    sums += row * 2 * KNOTS
    tl.store(sums + lane, cos_sums, mask=lane < KNOTS)
    tl.store(sums + KNOTS + lane, sin_sums, mask=lane < KNOTS)


@triton.jit
def _finish(
    turns, directions, d, views, sums, count, statistic, n,
    SLOPE: tl.constexpr, STEP: tl.constexpr, KNOTS: tl.constexpr, LANES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, LANES)
    sums += row * 2 * KNOTS
    cos_sums = tl.load(sums + lane, mask=lane < KNOTS, other=0.0)
    sin_sums = tl.load(sums + KNOTS + lane, mask=lane < KNOTS, other=0.0)
    value, on_cos, on_sin = _row_statistic(cos_sums, sin_sums, tl.load(count), STEP, KNOTS, LANES)
    tl.store(statistic + row, value)
    if SLOPE:
        scale = _one_over_length(directions, row // views, d, turns.dtype.element_ty)
        _row_slopes(turns + row * n, scale, n, on_cos, on_sin, KNOTS, LANES, BLOCK)


@triton.jit
def _one_over_length(directions, row, d, DTYPE: tl.constexpr):
    scale = tl.full((), 1.0, DTYPE)
    if directions is not None:
        square = tl.zeros([128], DTYPE)
        for start in range(0, d, 128):
            place = start + tl.arange(0, 128)
            entry = tl.load(directions + row * d + place, mask=place < d, other=0.0)
            square += entry * entry
        scale = 1.0 / tl.sqrt(tl.sum(square, 0))
    return scale


@triton.jit
def _cos_sin(turns):
    """Cosine and sine of an angle in turns; in single precision much shorter than the library's two calls."""
    turns -= tl.floor(turns + 0.5)  # exact, so that no angle is too large
    if turns.dtype == tl.float64:
        turn = tl.full((), 6.283185307179586, tl.float64)  # a bare number is single before Triton 3.2
        cos, sin = tl.cos(turn * turns), tl.sin(turn * turns)
    else:
        shifted = 4 * turns + 12582912.0  # 1.5 * 2^23: the nearest quarter turn is in the last bits of the sum
        quarter = shifted.to(tl.int32, bitcast=True)
        x = turns - 0.25 * (shifted - 12582912.0)
        xx = x * x  # at most 1/64, on which these polynomials come within 3e-9
        near_sin = x * (6.2831855 + xx * (-41.341663 + xx * (81.592545 - 75.40184 * xx)))
        near_cos = 1.0 + xx * (-19.739208 + xx * (64.939316 + xx * (59.220287 * xx - 85.44285)))
        odd = (quarter & 1) != 0
        cos, sin = tl.where(odd, near_sin, near_cos), tl.where(odd, near_cos, near_sin)
        cos = tl.where(((quarter + 1) & 2) != 0, -cos, cos)
        sin = tl.where((quarter & 2) != 0, -sin, sin)
    return cos, sin


@triton.jit
def _row_sums(turns, scale, n, KNOTS: tl.constexpr, LANES: tl.constexpr, BLOCK: tl.constexpr):
    """Sums over the row of cos(k angle) and of sin(k angle): lane k - 1 of two vectors."""
    lane = tl.arange(0, LANES)
    cos_sums = tl.zeros([LANES], turns.dtype.element_ty)
    sin_sums = tl.zeros([LANES], turns.dtype.element_ty)
    for start in range(0, n, BLOCK):
        place = start + tl.arange(0, BLOCK)
        there = place < n
        cos_once, sin_once = _cos_sin(scale * tl.load(turns + place, mask=there, other=0.0))
        # Absent places carry zeros through every turn.
        cos = tl.where(there, cos_once, 0.0)
        sin = tl.where(there, sin_once, 0.0)
        for k in range(KNOTS):
            cos_sums += tl.where(lane == k, tl.sum(cos, 0), 0.0)
            sin_sums += tl.where(lane == k, tl.sum(sin, 0), 0.0)
            cos, sin = cos * cos_once - sin * sin_once, sin * cos_once + cos * sin_once
    return cos_sums, sin_sums


@triton.jit
def _row_statistic(cos_sums, sin_sums, count, STEP: tl.constexpr, KNOTS: tl.constexpr, LANES: tl.constexpr):
    """The statistic, and what its slope in an angle has of each cos(k angle) and sin(k angle)."""
    lane = tl.arange(0, LANES)
    k = (lane + 1).to(cos_sums.dtype)
    step = tl.full((), STEP, cos_sums.dtype)
    t = k * step
    gaussian = tl.exp(-0.5 * t * t)
    weight = tl.where(lane < KNOTS, 2 * step * gaussian, 0.0)
    weight = tl.where(lane == KNOTS - 1, 0.5 * weight, weight)
    cos_error = cos_sums / count - gaussian
    sin_error = sin_sums / count
    value = count * tl.sum(weight * (cos_error * cos_error + sin_error * sin_error), 0)
    return value, 2 * weight * k * sin_error, -2 * weight * k * cos_error


@triton.jit
def _row_slopes(turns, scale, n, on_cos, on_sin, KNOTS: tl.constexpr, LANES: tl.constexpr, BLOCK: tl.constexpr):
    """The slopes in the angles: the real part of the sum of (on_cos_k - i on_sin_k) exp(i k angle)."""
    lane = tl.arange(0, LANES)
    for start in range(0, n, BLOCK):
        place = start + tl.arange(0, BLOCK)
        there = place < n
        cos, sin = _cos_sin(scale * tl.load(turns + place, mask=there, other=0.0))
        real, imaginary = tl.zeros_like(cos), tl.zeros_like(cos)
        for back in range(KNOTS):
            here = lane == KNOTS - 1 - back
            real += tl.sum(tl.where(here, on_cos, 0.0), 0)
            imaginary -= tl.sum(tl.where(here, on_sin, 0.0), 0)
            real, imaginary = real * cos - imaginary * sin, real * sin + imaginary * cos
        tl.store(turns + place, scale * real, mask=there)
