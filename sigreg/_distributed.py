r"""What processes share: the one place that decides it, for every loss with batch statistics.

A loss that is handed ``sync`` and ``group`` asks :func:`shared_group` once. The answer is None (this process stands
alone: every function below then returns what it was given) or a process group, and the loss

* sums over the whole batch with :func:`sum_shared`: means, covariances and counts follow from sums;
* or holds the whole batch with :func:`gather_rows`, where every pair of samples counts;
* and draws with :func:`randn_shared` (the same on every process) or :func:`randn_rows` (each its rows), as one
  process would have drawn.

The law of all of them: every process returns the same value L, and the gradient of the *sum* of the values over
processes reaches its codes. That is (number of processes) times dL/dz, and DistributedDataParallel, which averages
gradients over processes, then takes the step that one process with the whole batch would have taken. So a loss must
not divide by the number of processes, and must not add a term of its own rows alone: that goes through
:func:`sum_shared` too. Batches may be uneven, and empty on some processes (of the right width); all processes must
call, and all must run backward.
"""

import torch
import torch.distributed as dist


def shared_group(sync, group):
    """The process group whose batches are scored together, or None when this process stands alone."""
    if not (sync and dist.is_available() and dist.is_initialized()):
        return None
    if isinstance(group, tuple):
        raise ValueError(
            f"group is {group}, the ranks of the process group that this module had when it was pickled: "
            "set .group to that process group, or to None for all processes"
        )
    group = dist.group.WORLD if group is None else group
    return group if dist.get_world_size(group) > 1 else None


def group_to_pickle(group):
    """What of a process group can be stored: its ranks, which :func:`shared_group` refuses to take for a group."""
    return None if group is None or isinstance(group, tuple) else tuple(dist.get_process_group_ranks(group))


def processes(group):
    """Number of processes that share, 1 when this one stands alone."""
    return 1 if group is None else dist.get_world_size(group)


def sum_shared(x, group):
    """The sum of ``x`` (one shape everywhere) over the processes of ``group``, differentiable; ``x`` itself alone."""
    return x if group is None else _untraced(_Sum.apply)(x, group)


def count_shared(n, group, like):
    """The sum of the numbers of rows ``n``: an int alone, else a scalar tensor like ``like`` (no host waits for it)."""
    return n if group is None else sum_shared(like.new_full((), n), group)


def gather_rows(x, group):
    """All rows of all processes, (N, ...) to (N of all, ...), differentiable, and where the own ones start.

    The numbers of rows may differ and may be 0. Their order is that of the ranks.
    """
    if group is None:
        return x, 0
    start, sizes = _rows_everywhere(len(x), group, x.device)
    return _untraced(_Gather.apply)(x, group, start, sizes), start


def from_first(x, group):
    """``x`` of the first process of ``group``, written into ``x`` on every other."""
    if group is not None:
        _untraced(dist.broadcast)(x, src=dist.get_global_rank(group, 0), group=group)
    return x


def randn_shared(*shape, group, generator=None, device=None, dtype=None):
    """Standard Gaussian numbers, the same on every process of ``group``: those of the first.

    Every process draws, so that generators that agree go on agreeing.
    """
    return from_first(randn(*shape, generator=generator, device=device, dtype=dtype), group)


def randn_rows(rows, *shape, group, generator=None, device=None, dtype=None):
    """Standard Gaussian (rows, *shape): this process's rows of what one process would draw for the whole batch."""
    if group is None:
        return randn(rows, *shape, generator=generator, device=device, dtype=dtype)
    start, sizes = _rows_everywhere(rows, group, device)
    whole = randn_shared(sum(sizes), *shape, group=group, generator=generator, device=device, dtype=dtype)
    return whole[start : start + rows]


def randn(*shape, generator=None, device=None, dtype=None):
    """Standard Gaussian numbers, drawn on the generator's own device and in float32 whatever ``dtype`` is.

    So one seed gives the same numbers on every device to which they are sent, and in every precision.
    """
    # Naming a generator, even None, stops a compiled function from taking sizes that vary.
    drawn = (
        torch.randn(*shape, device=device, dtype=torch.float32)
        if generator is None
        else torch.randn(*shape, generator=generator, device=generator.device, dtype=torch.float32)
    )
    return drawn.to(device=drawn.device if device is None else device, dtype=dtype or torch.get_default_dtype())


def _rows_everywhere(rows, group, device):
    """Where this process's rows start, and the numbers of rows of all, in order of rank."""
    sizes = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(processes(group))]
    _untraced(dist.all_gather)(sizes, torch.tensor([rows], dtype=torch.int64, device=device), group=group)
    sizes = [int(size) for size in sizes]
    return sum(sizes[: dist.get_rank(group)]), sizes


def _untraced(collective):
    """``collective``, before which torch.compile breaks its graph."""
    return torch.compiler.disable(collective) if torch.compiler.is_compiling() else collective


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, group):
        ctx.group = group
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx, grad):
        return _Sum.apply(grad, ctx.group), None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, group, start, sizes):
        ctx.group, ctx.start, ctx.rows = group, start, len(x)
        padded = x.new_zeros(max(sizes), *x.shape[1:])  # a collective takes one shape
        padded[: len(x)] = x
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded, group=group)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx, grad):
        return _Sum.apply(grad, ctx.group)[ctx.start : ctx.start + ctx.rows], None, None, None
