"""Numbers are computed in float32 at least, whatever dtype the codes have and whether autocast is on or not."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def at_least_float32(z: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are."""
    return z if z.dtype in (torch.float32, torch.float64) else z.float()


def in_range(z: Tensor, dim: int = -1, least: float = 1e-7) -> tuple[Tensor, Tensor]:
    """Codes divided by a size that keeps their squares in range, and that size: 1 unless they are huge or tiny.

    Afterwards the largest entry along ``dim`` lies between ``least`` and 1e15, or is 0 as it was.
    """
    largest = z.detach().abs().amax(dim, keepdim=True)
    size = torch.where(largest > 0, largest / largest.clamp(least, 1e15), 1.0)
    return z / size, size


def exponent_of(z: Tensor) -> int:
    """The power of two next above the largest entry, 0 for zeros."""
    return math.frexp(z.abs().max().item())[1]


def times_two_to(exponent: int, z: Tensor) -> Tensor:
    """``z`` times a power of two, which changes no digit; in two steps, as one factor may leave the range."""
    half = exponent // 2
    return z * 2.0**half * 2.0 ** (exponent - half)


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
