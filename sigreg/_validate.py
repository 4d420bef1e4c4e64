"""Checks of arguments, shared by the public functions: what came, what is allowed, and what to do."""

import torch


def require_floating(name, value, ndim, shape, empty=False):
    """Return ``value`` if it is a non-empty floating tensor with ``ndim`` dimensions (an int or several)."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} must be a torch.Tensor of shape {shape}, got {type(value).__name__}")
    if not value.is_floating_point():
        raise TypeError(f"{name} must have a floating dtype, got {value.dtype}: convert it with .float() or .double()")
    if value.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got layout {value.layout}: convert it with .to_dense()")
    allowed = (ndim,) if isinstance(ndim, int) else ndim
    if value.ndim not in allowed:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(value.shape)}")
    if value.numel() == 0 and not empty:
        raise ValueError(f"{name} is empty: its shape is {tuple(value.shape)}, expected {shape} and at least one entry")
    return value


def require_finite(name, value):
    """Return ``value`` if no entry is NaN or infinite."""
    if not torch.isfinite(value).all():
        bad = int((~torch.isfinite(value)).sum())
        raise ValueError(f"{name} holds {bad} NaN or infinite entries of {value.numel()}: clean the input first")
    return value


def require_distribution(name, value, dim=-1):
    """Return ``value`` if it is finite, non-negative and sums to one along ``dim`` (an int or a tuple)."""
    require_finite(name, value)
    if (value < 0).any():
        raise ValueError(f"{name} has a negative probability ({value.min().item():.3g})")
    total = value.sum(dim)
    tolerance = 1e-4 if value.dtype in (torch.float32, torch.float16, torch.bfloat16) else 1e-8
    worst = (total - 1).abs().max().item()
    if worst > tolerance:
        raise ValueError(f"{name} must sum to 1, but is off by {worst:.3g}: divide it by its sum")
    return value


def require_labels(name, value, batch, num_classes=None):
    """Return integer ``value`` of shape (batch,) with entries in [0, num_classes)."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} must be a torch.Tensor of shape ({batch},), got {type(value).__name__}")
    if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        raise TypeError(f"{name} must hold integer class indices, got dtype {value.dtype}")
    if value.shape != (batch,):
        raise ValueError(f"{name} must have shape ({batch},), got {tuple(value.shape)}")
    low, high = int(value.min()), int(value.max())
    if low < 0 or (num_classes is not None and high >= num_classes):
        limit = "0 or more" if num_classes is None else f"in 0..{num_classes - 1}"
        raise ValueError(f"{name} must be {limit}, got values from {low} to {high}")
    return value
