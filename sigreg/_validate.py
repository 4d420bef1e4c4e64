"""Checks of arguments, shared by the public functions: what came, what is allowed, and what to do.

A check of *values* (finite, positive, a distribution, labels in range) needs the numbers. It is left out where there
are none to look at: while ``torch.compile`` or ``torch.export`` traces, under ``vmap``, and on the meta device.
"""

from __future__ import annotations

import math
from collections.abc import Container
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_LABELS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def require_tensor(name: str, value: Any, shape: str) -> Tensor:
    """Return ``value`` if it is a dense tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor of shape {shape}, got {type(value).__name__}")
    if not torch.compiler.is_compiling() and value.is_nested:
        raise TypeError(f"{name} must be one dense tensor of shape {shape}, got a nested one: call it for each part")
    if value.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got layout {value.layout}: call .to_dense() first")
    if value.is_quantized:
        raise TypeError(f"{name} must not be quantized, got {value.dtype}: call .dequantize() first")
    return value


def require_floating(name: str, value: Any, ndim: int | Container[int], shape: str, *, empty: bool = False) -> Tensor:
    """Return ``value`` if it is a floating tensor with ``ndim`` dimensions (an int or several), and not empty."""
    value = require_tensor(name, value, shape)
    if value.dtype not in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        raise TypeError(f"{name} must have a floating dtype, got {value.dtype}: convert it with .float() or .double()")
    if value.ndim not in ((ndim,) if isinstance(ndim, int) else ndim):
        raise ValueError(f"{name} must have shape {shape}, got {tuple(value.shape)}")
    if value.numel() == 0 and not empty:
        raise ValueError(f"{name} is empty: its shape is {tuple(value.shape)}, expected {shape} and at least one entry")
    return value


def values_at_hand(*tensors: Tensor) -> bool:
    """Whether the numbers of these tensors can be looked at now."""
    if torch.compiler.is_compiling():
        return False
    # no public name tells a tensor that vmap has wrapped; this one is there from torch 2.1 on
    return not any(t.is_meta or torch._C._functorch.is_batchedtensor(t) for t in tensors)


def require_finite(name: str, value: Tensor) -> Tensor:
    """Return ``value`` if no entry is NaN or infinite."""
    if values_at_hand(value) and not torch.isfinite(value).all():
        bad = int((~torch.isfinite(value)).sum())
        raise ValueError(f"{name} holds {bad} NaN or infinite entries of {value.numel()}: clean the input first")
    return value


def require_distribution(name: str, value: Tensor, dim: int | tuple[int, ...] = -1) -> Tensor:
    """Return ``value`` if it is finite, non-negative and sums to one along ``dim`` (an int or a tuple)."""
    require_finite(name, value)
    if not values_at_hand(value):
        return value
    if (value < 0).any():
        raise ValueError(f"{name} has a negative probability ({value.min().item():.3g})")
    total = value.to(torch.promote_types(value.dtype, torch.float32)).sum(dim)
    tolerance = {torch.float64: 1e-8, torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 1e-2}[value.dtype]
    worst = (total - 1).abs().max().item()
    if worst > tolerance:
        raise ValueError(f"{name} must sum to 1, but is off by {worst:.3g}: divide it by its sum")
    return value


def require_labels(
    name: str, value: Any, batch: int, num_classes: int | None = None, *, empty: bool = False
) -> Tensor:
    """Return integer ``value`` of shape (batch,) with entries in [0, num_classes), as int64."""
    value = require_tensor(name, value, f"({batch},)")
    if value.dtype not in _LABELS:
        raise TypeError(
            f"{name} must hold integer class indices, got dtype {value.dtype}: convert it with .long() if they are"
        )
    if value.shape != (batch,):
        raise ValueError(f"{name} must have shape ({batch},), got {tuple(value.shape)}")
    if batch == 0 and not empty:
        raise ValueError(f"{name} is empty: at least one label is needed")
    value = value.long()  # uint8 would be taken for a mask
    if values_at_hand(value) and batch:
        low, high = int(value.min()), int(value.max())
        if low < 0 or (num_classes is not None and high >= num_classes):
            limit = "0 or more" if num_classes is None else f"in 0..{num_classes - 1}"
            raise ValueError(f"{name} must be {limit}, got values from {low} to {high}")
    return value


def require_same_device(**tensors: Tensor) -> None:
    """Raise if the named tensors live on several devices."""
    if len({t.device for t in tensors.values()}) > 1:
        where = ", ".join(f"{name} on {t.device}" for name, t in tensors.items())
        raise ValueError(f"{', '.join(tensors)} must be on one device, got {where}: move them with .to(device)")


def require_count(name: str, value: Any, least: float = 1) -> int:
    """Return ``value`` as an int if it is a whole number of at least ``least``."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)


def _require_number(name: str, value: Any) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    return float(value)


@overload
def require_positive(name: str, value: Any) -> float: ...
@overload
def require_positive(name: str, value: Any, tensor: Literal[True]) -> float | Tensor: ...
def require_positive(name: str, value: Any, tensor: bool = False) -> float | Tensor:
    """Return ``value`` if it is a positive finite number; with ``tensor``, or a scalar tensor, which may be learned."""
    if tensor and isinstance(value, Tensor):
        if value.ndim or not value.is_floating_point():
            kind = f"{value.dtype} of shape {tuple(value.shape)}"
            raise ValueError(f"{name} must be a number or a floating tensor without dimensions, got {kind}")
        if values_at_hand(value) and not 0 < value.item() < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value.item()}")
        return value
    number = _require_number(name, value)
    if not 0 < number < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value}")
    return number


def require_weight(name: str, value: Any) -> float:
    """Return ``value`` if it is a finite number of at least 0."""
    number = _require_number(name, value)
    if not 0 <= number < math.inf:
        raise ValueError(f"{name} must be 0 or more and finite, got {value}")
    return number


def require_between(name: str, value: Any, low: float, high: float, *, closed: str = "") -> float:
    """Return ``value`` if it lies between the limits; ``closed`` names the ends it may take."""
    number = _require_number(name, value)
    inside = low < number < high or ("[" in closed and number == low) or ("]" in closed and number == high)
    if not inside:
        left, right = "[" if "[" in closed else "(", "]" if "]" in closed else ")"
        raise ValueError(f"{name} must lie in {left}{low:g}, {high:g}{right}, got {value}")
    return number


def require_choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """Return ``value`` if it is one of ``choices``."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def require_flag(name: str, value: Any) -> bool:
    """Return ``value`` if it is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {type(value).__name__}")
    return value


def require_generator(name: str, value: Any) -> torch.Generator | None:
    """Return ``value`` if it is None or a generator."""
    if value is not None and not isinstance(value, torch.Generator):
        raise TypeError(f"{name} must be a torch.Generator or None, got {type(value).__name__}")
    return value


def require_sharing(sync: Any, group: ProcessGroup | None) -> None:
    """Raise if ``sync`` is no flag or ``group`` no process group."""
    require_flag("sync", sync)
    if group is None or (torch.distributed.is_available() and isinstance(group, torch.distributed.ProcessGroup)):
        return
    raise TypeError(f"group must be a torch.distributed.ProcessGroup or None, got {type(group).__name__}")
