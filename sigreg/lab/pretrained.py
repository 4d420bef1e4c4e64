"""The encoder that comes with the book: trained without labels, ready to use."""

import os
from pathlib import Path

import torch

from sigreg.lab.models import ConvEncoder
from sigreg.lab.records import record_folders

PRETRAINED = {"channels": (64, 128, 256), "strides": (2, 2, 2)}


def pretrained_encoder(path=None):
    """The encoder that comes with the book, trained on FashionMNIST without labels.

    ``python -m sigreg.lab.reproduce run self_supervised --preset full`` made it.

    Args:
        path: of a state dict of the same network; by default ``self_supervised.pt`` beside the records.

    Returns:
        :class:`sigreg.lab.models.ConvEncoder` in evaluation mode, on the CPU: (B, 1, 28, 28) to (B, 4096).

    Raises:
        FileNotFoundError: the file is nowhere.

    Derived in:
        Chapter 6, section 6.7.

    Example:
        >>> pretrained_encoder("nowhere.pt")
        Traceback (most recent call last):
        ...
        FileNotFoundError: no pretrained encoder in nowhere.pt: make it with ...
    """
    places = [Path(path)] if path is not None else [place / "self_supervised.pt" for place in record_folders()]
    for place in places:
        if place.is_file():
            encoder = ConvEncoder(**PRETRAINED)
            encoder.load_state_dict(torch.load(place, map_location="cpu", weights_only=True))
            return encoder.eval()
    raise FileNotFoundError(
        f"no pretrained encoder in {', '.join(map(str, places))}: make it with "
        "`python -m sigreg.lab.reproduce run self_supervised --preset full`"
    )


def save_encoder(encoder, path):
    """Write an encoder's state dict, whole or not at all, for :func:`pretrained_encoder` to read.

    Args:
        encoder: a module.
        path: of the file.

    Derived in:
        Nothing to derive.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({name: value.cpu().contiguous() for name, value in encoder.state_dict().items()}, temporary)
    os.replace(temporary, path)
