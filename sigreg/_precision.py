"""Numbers are computed in float32 at least, whatever dtype the codes have and whether autocast is on or not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def at_least_float32(z: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are."""
    return z if z.dtype in (torch.float32, torch.float64) else z.float()


def in_range(z: Tensor, dim: int = -1) -> tuple[Tensor, Tensor]:
    """Codes divided by a size that keeps their squares from overflowing, and that size: 1 unless they are huge."""
    size = (z.detach().abs().amax(dim, keepdim=True) / 1e15).clamp_min(1)
    return z / size, size


def without_autocast(function: Callable[P, R]) -> Callable[P, R]:
    """The function with autocast off for the device of its tensors: no product of it runs in half precision."""

    @functools.wraps(function)
    def computed(*args: P.args, **kwargs: P.kwargs) -> R:
        device = "cpu"
        for value in (*kwargs.values(), *reversed(args)):  # a plain loop: torch 2.4 compiles no next() with a default
            device = value.device.type if isinstance(value, Tensor) else device
        device = "cpu" if device == "meta" else device
        if not torch.is_autocast_enabled(device):  # torch 2.4 exports no program that enters autocast
            return function(*args, **kwargs)
        with torch.autocast(device, enabled=False):
            return function(*args, **kwargs)

    return computed
