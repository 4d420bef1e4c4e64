"""SIGReg in the limit of infinitely many directions: the engine of ``slice_free_sigreg``."""

import functools
import math

import torch

from sigreg._distributed import gather_rows, processes, sum_shared
from sigreg._kummer import kummer
from sigreg._per_view import block_entries, compute_dtype, full_precision, has_no_data, per_view, register, wants_slope


def slice_free(z, group):
    """(V,) values for codes ``z`` (V, N, D)."""
    if torch.compiler.is_compiling() and group is None:
        return compiled_slice_free(z, wants_slope(z))[0]
    fast = functools.partial(_slice_free_and_slope, group=group)
    return per_view(z, None, fast, plain_slice_free if group is None else None)


def plain_slice_free(z, directions=None):
    """(V,) values as the formula reads, differentiable to any order: the oracle of the blocked form."""
    z = z.to(compute_dtype(z))
    n, d = z.shape[1:]
    pairs = kummer(0.5, d / 2, (z.unsqueeze(1) - z.unsqueeze(2)).square().sum(-1) / 2)  # (V, N, N)
    alone = kummer(0.5, d / 2, z.square().sum(-1) / 4)  # (V, N)
    distance = pairs.mean((1, 2)) - math.sqrt(2) * alone.mean(1) + 1 / math.sqrt(3)
    return n * math.sqrt(2 * math.pi) * distance


def _slice_free_and_slope(z, directions, with_slope, *, group):
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
    block = max(1, block_entries(z) // max(total, 1))
    with full_precision(z):
        for view in range(v):
            codes, length = everyone[view], square[view]
            for start in range(first, first + n, block):
                mine = slice(start, min(start + block, first + n))
                after = slice(start if group is None else 0, None)
                argument = torch.addmm(length[after], codes[mine], codes[after].T, alpha=-2)
                argument = argument.add_(length[mine, None]).clamp_(min=0).div_(2).to(z.dtype)
                argument[:, start - after.start :].diagonal().zero_()  # a code is at no distance from itself
                kernel = kummer(0.5, d / 2, argument)
                pairs[view] += kernel.sum(dtype=wide)
                if group is None:
                    pairs[view] += kernel[:, len(kernel) :].sum(dtype=wide)
                if with_slope:
                    force = kummer(1.5, d / 2 + 1, argument).to(wide)  # -D times the derivative of the kernel
                    force[:, start - after.start :].diagonal().zero_()
                    pull[view, mine] += force @ codes[after] - force.sum(1, keepdim=True) * codes[mine]
                    if group is None:
                        back, later = force[:, len(force) :].T, slice(mine.stop, None)
                        pull[view, later] += back @ codes[mine] - back.sum(1, keepdim=True) * codes[later]
        alone_argument = square[:, own].to(z.dtype) / 4
        alone = kummer(0.5, d / 2, alone_argument).sum(1, dtype=wide)
        if with_slope:
            force = kummer(1.5, d / 2 + 1, alone_argument).unsqueeze(-1)
            slope = (2 / total * pull[:, own] + math.sqrt(0.5) * force * z) * (math.sqrt(2 * math.pi) / d)
            slope = slope.mul_(processes(group)).to(z.dtype)
        pairs, alone = sum_shared(pairs, group), sum_shared(alone, group)
        distance = pairs / total**2 - math.sqrt(2) * alone / total + 1 / math.sqrt(3)
    return (total * math.sqrt(2 * math.pi) * distance).to(z.dtype), slope


@torch.library.custom_op("sigreg::slice_free_and_slope", mutates_args=())
def compiled_slice_free(z: torch.Tensor, with_slope: bool) -> tuple[torch.Tensor, torch.Tensor]:
    return _slice_free_and_slope(z, None, with_slope, group=None)


register(compiled_slice_free)
