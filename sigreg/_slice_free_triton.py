"""The slice-free form on a GPU: what stands between its two matrix products, for a block of rows in one launch."""

import torch
import triton
import triton.language as tl

from sigreg._kummer import coefficients

if not hasattr(tl.constexpr, "__getitem__"):
    raise ImportError(
        "this Triton cannot take coefficients as constants: that of torch 2.6 or older; the plain blocks serve instead"
    )


def visit(product, mine, others, first, twice, dim, with_slope, dtype):
    """Sums of the kernel over each row of the inner products ``product`` (R, C), which its forces overwrite.

    ``mine`` (R,) and ``others`` (C,) are the squared lengths. Row r and column ``first`` + r are the same code: it is
    at no distance from itself, and pulls itself nowhere. Columns from ``twice`` on count twice. ``dtype`` is that of
    the kernel itself. Returns the sums of the forces over each row too.
    """
    rows, columns = product.shape
    sums = product.new_empty(2, rows)
    block = min(1024, max(32, triton.next_power_of_2(columns)))
    with torch.cuda.device(product.device if product.is_cuda else -1):  # a launch goes to the current device
        _visit[(rows,)](
            product, mine, others, sums, first, twice, columns, rows,
            HALF=dim / 2, SLOPE=with_slope, SINGLE=dtype == torch.float32,
            NEAR=coefficients(0.5, dim / 2, dtype), FAR=coefficients(1.5, dim / 2 + 1, dtype),
            BLOCK=block, num_warps=min(4, block // 32),  # no thread holds what another has overwritten
        )  # fmt: skip
    return sums


@triton.jit
def _visit(
    product, mine, others, sums, first, twice, columns, rows,
    HALF: tl.constexpr, SLOPE: tl.constexpr, SINGLE: tl.constexpr,
    NEAR: tl.constexpr, FAR: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    product += row * columns
    length = tl.load(mine + row)
    value = tl.zeros([BLOCK], product.dtype.element_ty)
    force_sum = tl.zeros([BLOCK], product.dtype.element_ty)
    for start in range(0, columns, BLOCK):
        place = start + tl.arange(0, BLOCK)
        there = place < columns
        u = 0.5 * (length + tl.load(others + place, mask=there, other=0.0))
        u -= tl.load(product + place, mask=there, other=0.0)
        itself = place == first + row
        u = tl.where(itself | (u < 0), 0.0, u)  # NaN stays
        if SINGLE:
            u = u.to(tl.float32)
        near = _kummer(u, HALF, NEAR, False).to(value.dtype)
        value += tl.where(there, tl.where(place >= twice, 2 * near, near), 0.0)
        if SLOPE:
            force = tl.where(itself, 0.0, _kummer(u, HALF + 1, FAR, True)).to(value.dtype)
            force_sum += tl.where(there, force, 0.0)
            tl.store(product + place, force, mask=there)
    tl.store(sums + row, tl.sum(value, 0))
    tl.store(sums + rows + row, tl.sum(force_sum, 0))


@triton.jit
def _kummer(u, B: tl.constexpr, COEFFICIENTS: tl.constexpr, FORCE: tl.constexpr):
    """As sigreg._kummer: a Chebyshev sum times a power of 1 + u / B, which is -1/2, or -3/2 for the force."""
    if len(COEFFICIENTS) == 0:
        kernel = tl.exp(-u)
    else:
        share = B / (u + B)
        x = 1 - 2 * share
        below, above = tl.zeros_like(u), tl.zeros_like(u)
        for i in tl.static_range(len(COEFFICIENTS) - 1):
            below, above = COEFFICIENTS[len(COEFFICIENTS) - 1 - i] + 2 * x * below - above, below
        kernel = (COEFFICIENTS[0] + x * below - above) * tl.sqrt(share)
        if FORCE:
            kernel *= share
    return kernel
