"""SIGReg in the limit of infinitely many directions: the engine of ``slice_free_sigreg``."""

import functools
import math

import torch
import torch.distributed as dist

from sigreg._distributed import gather_rows, processes
from sigreg._kummer import kummer
from sigreg._per_view import block_entries, compute_dtype, full_precision, per_view, register, wants_slope


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
    """(V,) values and their gradients (V, N, D), a block of rows of the N x N pairs at a time."""
    with full_precision(z):
        z = z.to(compute_dtype(z))
        v, n, d = z.shape
        everyone = gather_rows(z.movedim(1, 0), group)[0].movedim(0, 1)
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
        block = max(1, block_entries(z) // total)
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
            slope *= processes(group)
        distance = pairs / total**2 - math.sqrt(2) * alone / total + 1 / math.sqrt(3)
        return (total * math.sqrt(2 * math.pi) * distance).to(z.dtype), slope


@torch.library.custom_op("sigreg::slice_free_and_slope", mutates_args=())
def compiled_slice_free(z: torch.Tensor, with_slope: bool) -> tuple[torch.Tensor, torch.Tensor]:
    return _slice_free_and_slope(z, None, with_slope, group=None)


register(compiled_slice_free)
