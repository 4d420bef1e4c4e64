"""SIGReg in the limit of infinitely many directions, or planes: the engine of ``slice_free_sigreg``."""

import functools
import math

import torch

from sigreg._distributed import gather_rows, processes, sum_shared
from sigreg._kummer import kummer
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

_KERNEL_ENTRIES = 2**24  # pairs at a time on a GPU: 128 MB in float64


def slice_free(z, group, k=1):
    """(V,) values for codes ``z`` (V, N, D) and slices of ``k`` dimensions."""
    if torch.compiler.is_compiling() and group is None:
        return compiled_slice_free(z, wants_slope(z))[0] if k == 1 else plain_slice_free(z, k=k)
    fast = functools.partial(_slice_free_and_slope, group=group, k=k)
    return per_view(z, None, fast, functools.partial(plain_slice_free, k=k) if group is None else None)


def plain_slice_free(z, directions=None, k=1):
    """(V,) values as the formula reads, differentiable to any order: the oracle of the blocked form."""
    z = z.to(compute_dtype(z))
    n, d = z.shape[1:]
    pairs = kummer(k / 2, d / 2, (z.unsqueeze(1) - z.unsqueeze(2)).square().sum(-1) / 2)  # (V, N, N)
    alone = kummer(k / 2, d / 2, z.square().sum(-1) / 4)  # (V, N)
    distance = pairs.mean((1, 2)) - 2 ** (1 - k / 2) * alone.mean(1) + 3 ** (-k / 2)
    return n * math.sqrt(2 * math.pi) * distance


def _slice_free_and_slope(z, directions, with_slope, *, group, k=1):
    """(V,) values and their gradients (V, N, D), a block of rows of the N x N pairs at a time.

    A process alone takes each pair once; where processes share, each pairs its own codes with all codes.
    """
    z = z.to(compute_dtype(z))
    v, n, d = z.shape
    slope = z.new_empty(v, n if with_slope else 0, d)
    if has_no_data(z):
        return z.new_empty(v), slope
    # In single precision |a|^2 + |b|^2 - 2 a.b loses close pairs far from the origin, and so does the sum of forces
    # that pull one code both ways: products and sums are in double where there is one, kernels in single.
    wide = z.dtype if z.device.type == "mps" else torch.float64
    rows, first = gather_rows(z.movedim(1, 0), group)
    everyone = rows.movedim(0, 1).to(wide)
    everyone = everyone + 0 * everyone  # an infinite code becomes NaN, which reaches the value and every slope
    total = everyone.shape[1]
    square = everyone.square().sum(-1)  # (V, N of all)
    own = slice(first, first + n)
    pairs, pull = square.new_zeros(v), torch.zeros_like(everyone if with_slope else everyone[:, :0])
    weight = torch.zeros_like(square)  # of all forces on a code
    triton = triton_module("sigreg._slice_free_triton", z.device) if k == 1 else None
    visit = triton.visit if triton else functools.partial(_visit, k=k)
    block = max(1, (_KERNEL_ENTRIES if triton else block_entries(z)) // max(total, 1))
    with full_precision(z):
        for view in range(v):
            codes, length = everyone[view], square[view]
            for start in range(first, first + n, block):
                mine = slice(start, min(start + block, first + n))
                rows = mine.stop - start
                after = slice(start if group is None else 0, None)
                diagonal, twice = (0, rows) if group is None else (start, total)
                force = codes[mine] @ codes[after].T
                kernel_sum, force_sum = visit(
                    force, length[mine], length[after], diagonal, twice, d, with_slope, z.dtype
                )
                pairs[view] += kernel_sum.sum()
                if with_slope:
                    pull[view, mine].addmm_(force, codes[after])
                    weight[view, mine] += force_sum
                    if group is None:
                        back, later = force[:, rows:], slice(mine.stop, None)
                        pull[view, later].addmm_(back.T, codes[mine])
                        weight[view, later] += back.sum(0)
        alone_argument = square[:, own].to(z.dtype) / 4
        alone = kummer(k / 2, d / 2, alone_argument).sum(1, dtype=wide)
        if with_slope:
            force = kummer(k / 2 + 1, d / 2 + 1, alone_argument).unsqueeze(-1)
            pull = pull[:, own] - weight[:, own, None] * everyone[:, own]
            slope = (2 / total * pull + 2 ** (-k / 2) * force * z) * (math.sqrt(2 * math.pi) * k / d)
            slope = slope.mul_(processes(group)).to(z.dtype)
        pairs, alone = sum_shared(pairs, group), sum_shared(alone, group)
        distance = pairs / total**2 - 2 ** (1 - k / 2) * alone / total + 3 ** (-k / 2)
    return (total * math.sqrt(2 * math.pi) * distance).to(z.dtype), slope


def _visit(product, mine, others, first, twice, dim, with_slope, dtype, k=1):
    """Sums of the kernel, and of its forces, over each row of the inner products (R, C), which the forces overwrite.

    ``mine`` (R,) and ``others`` (C,) are the squared lengths. Row r and column ``first`` + r are the same code: it is
    at no distance from itself, and pulls itself nowhere. Columns from ``twice`` on count twice.
    """
    argument = product.neg_().add_(mine.unsqueeze(1) / 2).add_(others / 2).clamp_(min=0).to(dtype)
    argument[:, first:].diagonal().zero_()
    kernel = kummer(k / 2, dim / 2, argument)
    kernel_sum = kernel.sum(1, dtype=mine.dtype).add_(kernel[:, twice:].sum(1, dtype=mine.dtype))
    if not with_slope:
        return kernel_sum, None
    product.copy_(kummer(k / 2 + 1, dim / 2 + 1, argument))  # -D / k times the derivative of the kernel
    product[:, first:].diagonal().zero_()
    return kernel_sum, product.sum(1)


@torch.library.custom_op("sigreg::slice_free_and_slope", mutates_args=())
def compiled_slice_free(z: torch.Tensor, with_slope: bool) -> tuple[torch.Tensor, torch.Tensor]:
    return _slice_free_and_slope(z, None, with_slope, group=None)


register(compiled_slice_free)
