"""The sliced form on a GPU: one Triton program a row (one direction and one view), value and slope in one visit.

A program reads its N angles, walks through the knots with cos(k angle) and sin(k angle) by the addition theorem (two
products a knot, whose rounding grows with k and not with its square as in the shorter Chebyshev recurrence), and
sums them over the samples. The statistic and the coefficients of its slope follow from the sums; a second walk
overwrites the angles by their slopes. Where processes share, their sums are added between two launches.

Nothing here waits for the host, nothing is allocated that depends on values, and no constant is copied to the device,
so a visit can be captured in a CUDA graph.
"""

import torch
import torch.distributed as dist
import triton
import triton.language as tl


def visit(angle, knots, step, count, with_slope, group):
    """The statistic of each row of ``angle`` (R, N); ``with_slope`` overwrites the angles by its slope in them."""
    rows, n = angle.shape
    statistic = angle.new_empty(rows)
    block = min(max(triton.next_power_of_2(n), 32), 512 if rows >= 2048 else 2048)
    settings = {
        "STEP": step,
        "KNOTS": knots - 1,
        "LANES": triton.next_power_of_2(knots - 1),
        "BLOCK": block,
        "num_warps": max(1, block // 512),
    }
    with torch.cuda.device(angle.device if angle.is_cuda else -1):  # a launch goes to the current device
        if group is None:
            _visit[(rows,)](angle, statistic, n, SLOPE=with_slope, **settings)
            return statistic
        sums = angle.new_empty(rows, 2, knots - 1)
        _sum[(rows,)](angle, sums, n, **settings)
        dist.all_reduce(sums, group=group)
        _finish[(rows,)](angle, sums, count, statistic, n, SLOPE=with_slope, **settings)
    return statistic


@triton.jit
def _visit(
    angle, statistic, n,
    SLOPE: tl.constexpr, STEP: tl.constexpr, KNOTS: tl.constexpr, LANES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    angle += row * n
    cos_sums, sin_sums = _row_sums(angle, n, KNOTS, LANES, BLOCK)
    value, on_cos, on_sin = _row_statistic(cos_sums, sin_sums, n, STEP, KNOTS, LANES)
    tl.store(statistic + row, value)
    if SLOPE:
        _row_slopes(angle, n, on_cos, on_sin, KNOTS, LANES, BLOCK)


@triton.jit
def _sum(angle, sums, n, STEP: tl.constexpr, KNOTS: tl.constexpr, LANES: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    cos_sums, sin_sums = _row_sums(angle + row * n, n, KNOTS, LANES, BLOCK)
    lane = tl.arange(0, LANES)
    sums += row * 2 * KNOTS
    tl.store(sums + lane, cos_sums, mask=lane < KNOTS)
    tl.store(sums + KNOTS + lane, sin_sums, mask=lane < KNOTS)


@triton.jit
def _finish(
    angle, sums, count, statistic, n,
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
        _row_slopes(angle + row * n, n, on_cos, on_sin, KNOTS, LANES, BLOCK)


@triton.jit
def _row_sums(angle, n, KNOTS: tl.constexpr, LANES: tl.constexpr, BLOCK: tl.constexpr):
    """Sums over the row of cos(k angle) and of sin(k angle): lane k - 1 of two vectors."""
    lane = tl.arange(0, LANES)
    cos_sums = tl.zeros([LANES], angle.dtype.element_ty)
    sin_sums = tl.zeros([LANES], angle.dtype.element_ty)
    for start in range(0, n, BLOCK):
        place = start + tl.arange(0, BLOCK)
        there = place < n
        a = tl.load(angle + place, mask=there, other=0.0)
        # Absent places carry zeros through every turn.
        cos_once, sin_once = tl.cos(a), tl.sin(a)
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
    t = k * STEP
    gaussian = tl.exp(-0.5 * t * t)
    weight = tl.where(lane < KNOTS, 2 * STEP * gaussian, 0.0)
    weight = tl.where(lane == KNOTS - 1, 0.5 * weight, weight)
    cos_error = cos_sums / count - gaussian
    sin_error = sin_sums / count
    value = count * tl.sum(weight * (cos_error * cos_error + sin_error * sin_error), 0)
    return value, 2 * weight * k * sin_error, -2 * weight * k * cos_error


@triton.jit
def _row_slopes(angle, n, on_cos, on_sin, KNOTS: tl.constexpr, LANES: tl.constexpr, BLOCK: tl.constexpr):
    lane = tl.arange(0, LANES)
    for start in range(0, n, BLOCK):
        place = start + tl.arange(0, BLOCK)
        there = place < n
        a = tl.load(angle + place, mask=there, other=0.0)
        cos_once, sin_once = tl.cos(a), tl.sin(a)
        cos, sin = cos_once, sin_once
        slope = tl.zeros_like(a)
        for k in range(KNOTS):
            slope += tl.sum(tl.where(lane == k, on_cos, 0.0), 0) * cos
            slope += tl.sum(tl.where(lane == k, on_sin, 0.0), 0) * sin
            cos, sin = cos * cos_once - sin * sin_once, sin * cos_once + cos * sin_once
        tl.store(angle + place, slope, mask=there)
