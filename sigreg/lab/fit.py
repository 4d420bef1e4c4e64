r"""Train one network: the loop that Chapters 5 to 8 share, on one device or, under ``torchrun``, on several.

AdamW, a short linear warm-up, a cosine down to zero. In a process group the network is wrapped in torch's
``DistributedDataParallel`` and each process takes its part of every batch; with losses that are means over the batch,
or that are computed on the whole batch as SIGReg is, the parameters take the steps of a single process. A checkpoint
is written whole or not at all, and the same call goes on from it.
"""

import math
from functools import partial
from itertools import islice
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from sigreg.lab.files import write_whole

WARM_UP = 0.05  # share of the steps in which the learning rate grows from zero


def fit(
    network,
    loss,
    batches,
    *,
    lr=1e-3,
    weight_decay=0.0,
    after_step=None,
    checkpoint=None,
    save_every=100,
    stop_after=None,
):
    r"""Train ``network`` in place by AdamW on a stream of batches; return what the loss was at every step.

    .. math:: \eta_t = \eta \min\left(\frac{t + 1}{0.05\, T}, 1\right) \frac{1 + \cos(\pi t / T)}{2},
        \qquad t = 0, \dots, T - 1

    Args:
        network: a module on the device that trains.
        loss: function of ``(network, batch)``, a scalar tensor, or a dictionary of them of which ``"loss"`` is
            minimised and the others are kept in the history. It must call ``network(...)`` exactly once, as
            data-parallel training asks.
        batches: sized iterable of T batches, the same whenever it is iterated; a batch is a tuple of tensors whose
            first dimension is B. In a group of W processes W must divide B.
        lr: largest learning rate.
        weight_decay: of AdamW, on matrices and filters, not on biases and norms.
        after_step: function of the step's number, called after each: for a moving average, say.
        checkpoint: path of a file to save to and to go on from; None keeps nothing.
        save_every: steps between two saves.
        stop_after: do at most that many steps now (the schedule stays that of all T).

    Returns:
        One dictionary of floats a step, means over the processes, with at least the key ``"loss"``.

    Raises:
        ValueError: the loss became NaN or infinite; a batch does not divide among the processes; the checkpoint
            is of another network or another number of steps.

    Reference:
        Loshchilov and Hutter (2019), arXiv 1711.05101, for AdamW; (2017), arXiv 1608.03983, for the cosine.

    Derived in:
        Chapter 4, that SIGReg keeps its value when the batch is split.

    Example:
        >>> line = torch.nn.Linear(1, 1)
        >>> x = torch.linspace(-1, 1, 8)[:, None]
        >>> history = fit(line, lambda net, batch: (net(batch[0]) - 3 * batch[0]).square().mean(), [(x,)] * 300, lr=0.1)
        >>> len(history), round(line.weight.item(), 2)
        (300, 3.0)
    """
    decayed = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in network.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=lr)
    total = len(batches)
    parts = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    history = _restore(checkpoint, network, optimizer, total)
    running = DistributedDataParallel(network, broadcast_buffers=False) if parts > 1 else network
    network.train()
    last = total if stop_after is None else min(total, len(history) + stop_after)
    for batch in islice(batches, len(history), last):
        found = loss(running, _part(batch, parts))
        found = found if isinstance(found, dict) else {"loss": found}
        optimizer.zero_grad()
        found["loss"].backward()
        for group in optimizer.param_groups:
            group["lr"] = lr * _schedule(len(history), total)
        optimizer.step()
        values = torch.stack([value.detach().double() for value in found.values()])
        if parts > 1:
            dist.all_reduce(values)
        history.append(dict(zip(found, (values / parts).tolist(), strict=True)))
        if not math.isfinite(history[-1]["loss"]):
            raise ValueError(f"the loss became NaN or infinite at step {len(history)}: lower lr={lr}")
        if after_step is not None:
            after_step(len(history))
        if checkpoint is not None and (len(history) % save_every == 0 or len(history) == last):
            _save(checkpoint, network, optimizer, total, history)
    return history


def _schedule(step, total):
    return min((step + 1) / (WARM_UP * total), 1.0) * (0.5 + 0.5 * math.cos(math.pi * step / total))


def _part(batch, parts):
    """This process's share of a batch."""
    if parts == 1:
        return batch
    if len(batch[0]) % parts:
        raise ValueError(f"batches hold {len(batch[0])} examples, which do not divide among {parts} processes")
    return tuple(tensor.chunk(parts)[dist.get_rank()] for tensor in batch)


def _save(path, network, optimizer, total, history):
    if dist.is_available() and dist.is_initialized() and dist.get_rank() > 0:
        return
    state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
    write_whole(path, partial(torch.save, {**state, "total": total, "history": history}))


def _restore(path, network, optimizer, total):
    """The history so far, with network and optimiser as they were; an empty one where there is no checkpoint."""
    if path is None or not Path(path).is_file():
        return []
    device = next(network.parameters()).device
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        if state["total"] != total:
            raise ValueError(f"it is of a run of {state['total']} steps, this one has {total}")
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
    except Exception as error:  # not a checkpoint, cut short, of another network: all have one remedy
        raise ValueError(f"checkpoint {path} does not fit this run ({error}): remove it, or name another") from None
    return state["history"]
