r"""FashionMNIST, served by torchvision's own class: a subset that comes with the package, or all of it.

The package carries a stratified subset (six hundred training and a hundred test images of each of ten classes), so
that every chapter runs without a network. ``whole=True`` or ``SIGREG_FULL=1`` asks for all 60 000 + 10 000 images. They
are looked for in

1. ``root``, or else the folder that the environment variable ``SIGREG_DATA`` names; where neither is given,
2. ``data/`` in the working folder or in the one above it (a notebook runs in its own folder),
3. ``/usr/share/datasets/fashion-mnist``, where Debian's package ``dataset-fashion-mnist`` puts them,
4. the cache, ``~/.cache/sigreg`` (or ``$XDG_CACHE_HOME/sigreg``),

and otherwise downloaded by torchvision into the folder of 1, or into the cache. A folder may hold the four idx files
gzipped or not, flat or in torchvision's ``FashionMNIST/raw/``. Whatever is read has first been compared with the md5
of the unzipped files. Nothing is unzipped or downloaded in place, so a killed process leaves no half file behind.

From the command line:

* ``python -m sigreg.lab.data`` finds or downloads the whole set, checks it, and says where it lies;
* ``python -m sigreg.lab.data subset`` draws the embedded subset anew from the whole set (for maintainers).
"""

import contextlib
import gzip
import hashlib
import os
import struct
import sys
import tempfile
import time
import zlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from sigreg.lab.files import write_whole
from sigreg.lab.preset import is_full
from sigreg.lab.progress import tqdm

if TYPE_CHECKING:
    from torchvision.datasets import FashionMNIST

CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
MEAN = 0.2860  # of the 60 000 training images, pixels scaled to [0, 1]
STD = 0.3530

EMBEDDED = Path(__file__).parent / "_fashion_mnist"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
SUBSET_PER_CLASS = {"train": 600, "t10k": 100}
SUBSET_SEED = 20260427
_COMMAND = "python -m sigreg.lab.data"


class DataMissing(FileNotFoundError):
    """The whole FashionMNIST lies nowhere and could not be downloaded."""


class _File(NamedTuple):
    size: int  # bytes, unzipped
    md5: str  # of the unzipped file


_WHOLE = {
    "train-images-idx3-ubyte": _File(47040016, "f4a8712d7a061bf5bd6d2ca38dc4d50a"),
    "train-labels-idx1-ubyte": _File(60008, "9018921c3c673c538a1fc5bad174d6f9"),
    "t10k-images-idx3-ubyte": _File(7840016, "8181f5470baa50b63fa0f6fddb340f0a"),
    "t10k-labels-idx1-ubyte": _File(10008, "15d484375f8d13e6eb1aabb0c3f46965"),
}
_SUBSET = {
    "train-images-idx3-ubyte": _File(4704016, "cb45362692c0c96b6ac65b05ba116665"),
    "train-labels-idx1-ubyte": _File(6008, "df2258ad1951dc29f7a7c0d5900285dc"),
    "t10k-images-idx3-ubyte": _File(784016, "3178577e18329b38948faa8b173ab1c2"),
    "t10k-labels-idx1-ubyte": _File(1008, "db6a9595d3288d1491b9a338addacef8"),
}


def fashion_mnist(train: bool, *, whole: bool | None = None, root: str | os.PathLike | None = None) -> "FashionMNIST":
    r"""FashionMNIST as torchvision's own data set, normalised: the embedded subset, or all of it.

    Each item is a pair ``(image, label)`` with

    .. math:: \text{image} = (\text{pixel} / 255 - \mathrm{MEAN}) / \mathrm{STD}.

    Args:
        train: the training images (6000 in the subset, 60 000 in all) or the test images (1000, 10 000).
        whole: ``True`` for all images, ``False`` for the subset; ``None`` for the subset unless ``SIGREG_FULL=1``.
        root: where the whole set lies, or is downloaded to; for the subset, where it is unzipped (else a cache).

    Returns:
        A ``torchvision.datasets.FashionMNIST``; images ``(1, 28, 28)`` float32, labels ``int``. The raw pixels are
        its ``.data``, ``(N, 28, 28)`` uint8.

    Raises:
        TypeError: ``train`` or ``whole`` is not a bool.
        FileNotFoundError: a file is missing; :class:`DataMissing` if the whole set is nowhere and cannot be downloaded.
        ValueError: a file is corrupt or truncated (its md5 differs), or ``root`` is not a folder.
        ImportError: torchvision is missing.

    Reference: Xiao, Rasul and Vollgraf (2017), "Fashion-MNIST", arXiv 1708.07747.

    Derived in: Chapter 1, which uses it first.

    >>> data = fashion_mnist(train=False, whole=False)
    >>> image, label = data[0]
    >>> image.shape, CLASS_NAMES[label]
    (torch.Size([1, 28, 28]), 'Trouser')
    """
    datasets, transforms = _torchvision()
    folder = _folder(train, whole, root)
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,))])
    return datasets.FashionMNIST(str(folder), train=train, transform=transform)


def fashion_mnist_tensors(
    train: bool, *, whole: bool | None = None, root: str | os.PathLike | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""All images and labels of :func:`fashion_mnist` as two tensors, at once.

    The images are the same, bit for bit, as those that the data set gives one at a time:

    .. math:: \text{image} = (\text{pixel} / 255 - \mathrm{MEAN}) / \mathrm{STD}.

    Args:
        train: as in :func:`fashion_mnist`.
        whole: as in :func:`fashion_mnist`.
        root: as in :func:`fashion_mnist`.

    Returns:
        ``images (N, 1, 28, 28)`` float32 and ``labels (N,)`` int64, on the CPU.

    Raises:
        TypeError, FileNotFoundError, ValueError, ImportError: as in :func:`fashion_mnist`.

    Reference: Xiao, Rasul and Vollgraf (2017), "Fashion-MNIST", arXiv 1708.07747.

    Derived in: Chapter 1, which uses it first.

    >>> images, labels = fashion_mnist_tensors(train=False, whole=False)
    >>> images.shape, labels.bincount().tolist()
    (torch.Size([1000, 1, 28, 28]), [100, 100, 100, 100, 100, 100, 100, 100, 100, 100])
    """
    pixels, labels = fashion_mnist_bytes(train, whole=whole, root=root)
    return normalised(pixels), labels


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    """Images (N, 1, H, W) of bytes (N, H, W), as :func:`fashion_mnist` gives them.

    >>> normalised(torch.zeros(2, 28, 28, dtype=torch.uint8)).shape
    torch.Size([2, 1, 28, 28])
    """
    return pixels.unsqueeze(1).float().div_(255).sub_(MEAN).div_(STD)


def fashion_mnist_bytes(
    train: bool, *, whole: bool | None = None, root: str | os.PathLike | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The raw pixels (N, 28, 28) uint8 and labels (N,) int64 of :func:`fashion_mnist`, read without torchvision.

    >>> pixels, labels = fashion_mnist_bytes(train=False, whole=False)
    >>> pixels.shape, pixels.dtype
    (torch.Size([1000, 28, 28]), torch.uint8)
    """
    raw, part = _raw(_folder(train, whole, root)), "train" if train else "t10k"
    pixels = _read_idx(raw / f"{part}-images-idx3-ubyte", 16).view(-1, 28, 28)
    return pixels, _read_idx(raw / f"{part}-labels-idx1-ubyte", 8).long()


def _read_idx(path, header):
    """The bytes of a file that has been checked, after its header."""
    return torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8, offset=header)


def _folder(train, whole, root):
    """The folder, in torchvision's layout, of the images that are asked for."""
    if not isinstance(train, bool):
        raise TypeError(f"train must be True or False, got {train!r}")
    if whole is not None and not isinstance(whole, bool):
        raise TypeError(f"whole must be True, False or None, got {whole!r}")
    if whole is None:
        whole = is_full()
    return _whole_folder(root) if whole else _subset_folder(root)


def _torchvision():
    try:
        from torchvision import datasets, transforms
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision built for another torch
        raise ImportError(
            f"FashionMNIST is read by torchvision, which cannot be imported ({error}): "
            f"install the torchvision that belongs to torch {torch.__version__}, e.g. pip install torchvision"
        ) from error
    return datasets, transforms


def _subset_folder(root=None) -> Path:
    """A folder that torchvision can read the embedded subset from; unzipped on first use."""
    found = {name: EMBEDDED / f"{name}.gz" for name in _SUBSET}
    for path in found.values():
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing from the installed package: reinstall sigreg")
    key = hashlib.md5("".join(file.md5 for file in _SUBSET.values()).encode()).hexdigest()[:8]
    folder = (Path(root) if root is not None else _cache()) / f"subset-{key}"
    return _lay_out(found, folder, _SUBSET, "reinstall sigreg")


def _whole_folder(root=None) -> Path:
    """A folder that torchvision can read the whole set from: searched for, checked, unzipped or downloaded."""
    given = root if root is not None else os.environ.get("SIGREG_DATA") or None
    cache = _cache() / "whole"
    places = [Path("data"), Path("..", "data"), DEBIAN] if given is None else [Path(given).expanduser()]
    for place in places:
        found = _find(place)
        if not found:
            continue
        for name in _WHOLE:
            if name not in found:
                raise FileNotFoundError(
                    f"{name}[.gz] is missing from {place}, where {next(iter(found.values()))} lies: put it there, "
                    f"or delete the other FashionMNIST files and run {_COMMAND}, which downloads all four"
                )
        remedy = f"delete it and run {_COMMAND}"
        if all(path == _raw(place) / name for name, path in found.items()):
            for name, path in found.items():
                _check(path, _WHOLE[name], remedy)
            return place
        if place == DEBIAN:
            remedy = "reinstall Debian's package dataset-fashion-mnist"
        return _lay_out(found, cache, _WHOLE, remedy)
    if given is not None:
        if places[0].exists() and not places[0].is_dir():
            raise ValueError(f"{'root' if root is not None else 'SIGREG_DATA'} must be a folder, got the file {given}")
        return _download(places[0], places)
    if all(_is_good(_raw(cache) / name, file) for name, file in _WHOLE.items()):
        return cache
    return _download(cache, [*places, cache])


def _raw(folder: Path) -> Path:
    return folder / "FashionMNIST" / "raw"  # where torchvision's class looks


def _find(folder: Path) -> dict[str, Path]:
    """Those of the four files that lie in ``folder``: unzipped before gzipped, torchvision's layout before flat."""
    found = {}
    for name in _WHOLE:
        for path in (_raw(folder) / name, folder / name, _raw(folder) / f"{name}.gz", folder / f"{name}.gz"):
            if path.is_file():
                found[name] = path
                break
    return found


def _cache() -> Path:
    """The user's cache folder, or one in the temporary folder where the home is read-only."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sigreg"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):  # RuntimeError: no home folder
        pass
    folder = Path(tempfile.gettempdir()) / f"sigreg-{os.getuid() if hasattr(os, 'getuid') else 'cache'}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _md5(path: Path) -> str:
    digest = hashlib.md5()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _is_good(path: Path, file: _File) -> bool:
    return path.is_file() and path.stat().st_size == file.size and _md5(path) == file.md5


def _check(path: Path, file: _File, remedy: str, source: Path | None = None) -> None:
    """Raise ValueError, naming ``source``, if ``path`` is not the file it should be."""
    source = path if source is None else source
    size = path.stat().st_size
    if size != file.size:
        raise ValueError(f"{source} is truncated or foreign ({size} bytes unzipped, not {file.size}): {remedy}")
    md5 = _md5(path)
    if md5 != file.md5:
        raise ValueError(f"{source} is corrupt (md5 {md5} unzipped, not {file.md5}): {remedy}")


def _lay_out(found: dict[str, Path], folder: Path, files: dict[str, _File], remedy: str) -> Path:
    """Unzip the ``found`` files into ``folder`` the way torchvision wants them, unless they are there already.

    Each is written beside its place, checked, and moved there in one step. Processes that start together may all do
    so, and none ever sees half a file.
    """
    raw = _raw(folder)
    todo = [name for name in files if not _is_good(raw / name, files[name])]
    if not todo:
        return folder
    raw.mkdir(parents=True, exist_ok=True)
    for left in raw.glob("*.partial"):  # by a process that was killed; a living one is done within the hour
        with contextlib.suppress(FileNotFoundError):
            if left.stat().st_mtime < time.time() - 3600:
                left.unlink()
    with _progress(sum(files[name].size for name in todo), "unzipping FashionMNIST") as bar:
        for name in todo:
            write_whole(raw / name, partial(_unzip, found[name], files[name], bar, remedy))
    return folder


def _unzip(source: Path, file: _File, bar, remedy: str, target) -> None:
    """Copy ``source`` into the open file ``target``, unzipped, and raise ValueError if it is not what it should be."""
    opener = gzip.open if source.suffix == ".gz" else open
    with opener(source, "rb") as stream:
        while True:
            try:
                block = stream.read(1 << 20)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise ValueError(f"{source} is corrupt or truncated ({error}): {remedy}") from error
            if not block:
                break
            target.write(block)
            bar.update(len(block))
    target.flush()
    _check(Path(target.name), file, remedy, source=source)


def _progress(total: int, text: str):
    return tqdm(total=total, desc=text, unit="B", unit_scale=True, delay=0.5, leave=False)


def _download(folder: Path, searched: list[Path]) -> Path:
    """Let torchvision download the whole set beside ``folder``, check it, and move it there."""
    datasets, _ = _torchvision()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(suffix=".partial", dir=folder) as scratch:
            datasets.FashionMNIST(scratch, download=True)
            found = {name: _raw(Path(scratch)) / name for name in _WHOLE}
            _lay_out(found, folder, _WHOLE, f"the download went wrong; run {_COMMAND} again")
    except (OSError, RuntimeError) as error:  # no network, a mirror that is down, a full disk, a read-only folder
        raise DataMissing(
            f"the whole FashionMNIST is not in {', '.join(map(str, searched))}, and downloading it to {folder} failed "
            f"({str(error).strip()}). Connect to a network and run {_COMMAND}; or put the four idx files in a folder "
            "and set SIGREG_DATA to it; or use the embedded subset (whole=False, SIGREG_FULL unset)"
        ) from error
    return folder


def write_subset(folder: Path = EMBEDDED) -> dict:
    """Draw the embedded subset from the whole set and write it as four idx.gz files; returns their sizes and md5.

    Within each class the images are drawn without replacement with one fixed seed, and keep the order of the whole
    set. The unzipped bytes are the same wherever this runs; the gzipped ones also depend on the zlib in use.
    """
    generator = torch.Generator().manual_seed(SUBSET_SEED)
    written = {}
    for split, per_class in SUBSET_PER_CLASS.items():
        data = fashion_mnist(train=split == "train", whole=True)
        chosen = []
        for label in range(len(CLASS_NAMES)):
            members = (data.targets == label).nonzero().squeeze(1)
            chosen.append(members[torch.randperm(len(members), generator=generator)[:per_class]])
        chosen = torch.cat(chosen).sort().values
        labels = data.targets[chosen].to(torch.uint8)
        for kind, values in (("images-idx3", data.data[chosen]), ("labels-idx1", labels)):
            # idx: two zero bytes, 8 for unsigned bytes, the number of dimensions, each size as a big-endian uint32
            header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
            content = header + values.contiguous().numpy().tobytes()
            write_whole(folder / f"{split}-{kind}-ubyte.gz", gzip.compress(content, 9, mtime=0))
            written[f"{split}-{kind}-ubyte"] = _File(len(content), hashlib.md5(content).hexdigest())
    return written


def main(arguments: list[str]) -> int:
    """The command line: see the head of this module."""
    if arguments == ["subset"]:
        for name, file in write_subset().items():
            print(f'    "{name}": _File({file.size}, "{file.md5}"),')
        return 0
    if arguments:
        print(f"usage: {_COMMAND} [subset]", file=sys.stderr)
        return 2
    try:
        folder = _whole_folder()
    except (FileNotFoundError, ValueError, ImportError) as error:
        print(f"{_COMMAND}: {error}", file=sys.stderr)
        return 1
    print(f"FashionMNIST, 60 000 + 10 000 images, checked: {_raw(folder).resolve()}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
