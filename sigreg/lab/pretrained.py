"""The encoder that comes with the book: trained without labels, ready to use."""

from functools import partial
from pathlib import Path

import torch

from sigreg.lab.files import sha256_of, write_whole
from sigreg.lab.models import ConvEncoder
from sigreg.lab.records import load_record, record_folders

PRETRAINED = {"channels": (64, 128, 256), "strides": (2, 2, 2)}
FILE = "self_supervised.pt"


def pretrained_encoder(path=None):
    """The encoder that comes with the book, trained on FashionMNIST without labels.

    ``python -m sigreg.lab.reproduce run self_supervised --preset full`` made it.

    Args:
        path: of a state dict of the same network; by default ``self_supervised.pt`` beside the records.

    Returns:
        :class:`sigreg.lab.models.ConvEncoder` in evaluation mode, on the CPU: (B, 1, 28, 28) to (B, 4096).

    Raises:
        FileNotFoundError: the file is nowhere.
        ValueError: the file that comes with the book is not the one that its record tells of.

    Derived in:
        Chapter 6, section 6.7.

    Example:
        >>> pretrained_encoder("nowhere.pt")
        Traceback (most recent call last):
        ...
        FileNotFoundError: no pretrained encoder in nowhere.pt: make it with ...
    """
    places = [Path(path)] if path is not None else [folder / FILE for folder in record_folders()]
    for place in places:
        if place.is_file():
            if path is None:
                _require_recorded(place)
            encoder = ConvEncoder(**PRETRAINED)
            encoder.load_state_dict(torch.load(place, map_location="cpu", weights_only=True))
            return encoder.eval()
    raise FileNotFoundError(
        f"no pretrained encoder in {', '.join(map(str, places))}: make it with "
        "`python -m sigreg.lab.reproduce run self_supervised --preset full`"
    )


def encoder_sha256(folder=None):
    """The SHA-256 of the encoder, as the record that made it has it; None where there is no such record.

    Args:
        folder: of the record; by default wherever :func:`sigreg.lab.records.load_record` finds it.
    """
    try:
        units = load_record("self_supervised", folder)["units"]
    except FileNotFoundError:
        return None
    return next((entry["files"][FILE] for entry in units if FILE in entry.get("files", {})), None)


def _require_recorded(place):
    found, recorded = sha256_of(place), encoder_sha256(place.parent)
    if found != recorded:
        raise ValueError(
            f"{place} is not the encoder that the record beside it tells of (sha256 {found[:12]}…, the record has "
            f"{recorded[:12] + '…' if recorded else 'none'}): restore both files, or make them again with "
            "`python -m sigreg.lab.reproduce run self_supervised --preset full --overwrite`"
        )


def save_encoder(encoder, path):
    """Write an encoder's state dict, whole or not at all, for :func:`pretrained_encoder` to read.

    Args:
        encoder: a module.
        path: of the file.
    """
    write_whole(path, partial(write_encoder, encoder))


def write_encoder(encoder, file):
    """Write an encoder's state dict into an open binary file."""
    torch.save({name: value.cpu().contiguous() for name, value in encoder.state_dict().items()}, file)
