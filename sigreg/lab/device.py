"""The one place that names a device."""

import os

import torch


def default_device() -> torch.device:
    """CUDA if there, else Apple's MPS, else the CPU; the environment variable ``SIGREG_DEVICE`` overrides.

    >>> default_device().type in {"cuda", "mps", "cpu"}
    True
    """
    wanted = os.environ.get("SIGREG_DEVICE")
    if wanted:
        return torch.device(wanted)
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
