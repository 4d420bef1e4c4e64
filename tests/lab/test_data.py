"""FashionMNIST: the embedded subset, the search for the whole set, and every way in which a file can be wrong."""

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torchvision.datasets import FashionMNIST

from sigreg.lab import data

ROOT = Path(data.__file__).parents[2]
NAMES = list(data._SUBSET)
needs_whole = pytest.mark.skipif(not data.DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A machine on which nothing is cached, downloaded or installed, and which has no network."""

    def no_network(self):
        raise URLError("no network in this test")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SIGREG_DATA", raising=False)
    monkeypatch.delenv("SIGREG_FULL", raising=False)
    monkeypatch.setattr(data, "DEBIAN", tmp_path / "debian")
    monkeypatch.setattr(FashionMNIST, "download", no_network)
    (tmp_path / "here" / "notebooks").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "notebooks")
    return tmp_path


@pytest.fixture
def small(empty, monkeypatch):
    """The same, where the subset's files play the part of the whole set: what is tested does not depend on sizes."""
    monkeypatch.setattr(data, "_WHOLE", data._SUBSET)
    return empty


def put(folder, *, raw=False, unzipped=False):
    """Lay the four files into ``folder`` in one of the layouts that are allowed."""
    folder = folder / "FashionMNIST" / "raw" if raw else folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        content = (data.EMBEDDED / f"{name}.gz").read_bytes()
        if unzipped:
            (folder / name).write_bytes(gzip.decompress(content))
        else:
            (folder / f"{name}.gz").write_bytes(content)
    return folder


# The embedded subset -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("train, count", [(True, 600), (False, 100)])
def test_the_subset_is_stratified_and_served_by_torchvision_itself(empty, train, count):
    served = data.fashion_mnist(train)
    assert type(served) is FashionMNIST
    assert served.targets.bincount().tolist() == [count] * 10
    assert served.data.shape == (10 * count, 28, 28) and served.data.dtype == torch.uint8
    assert tuple(served.classes) == data.CLASS_NAMES


def test_tensors_equal_the_items_bit_for_bit(empty):
    served = data.fashion_mnist(train=False)
    images, labels = data.fashion_mnist_tensors(train=False)
    assert images.shape == (1000, 1, 28, 28) and images.dtype == torch.float32 and labels.dtype == torch.int64
    for index in range(0, 1000, 37):
        image, label = served[index]
        assert torch.equal(images[index], image) and labels[index] == label


def test_normalisation_is_the_stated_one(empty):
    served = data.fashion_mnist(train=True)
    images, _ = data.fashion_mnist_tensors(train=True)
    pixels = images.double() * data.STD + data.MEAN
    torch.testing.assert_close(pixels[:, 0] * 255, served.data.double(), atol=1e-4, rtol=0)
    assert abs(images.mean()) < 0.02 and abs(images.std() - 1) < 0.02  # a sample of those that gave MEAN and STD


def test_train_and_test_images_of_the_subset_do_not_overlap(empty):
    train, test = (data.fashion_mnist(split).data.flatten(1).numpy() for split in (True, False))
    assert not {row.tobytes() for row in train} & {row.tobytes() for row in test}


@pytest.mark.parametrize("name", NAMES)
def test_embedded_files_are_what_the_module_says(name):
    zipped = (data.EMBEDDED / f"{name}.gz").read_bytes()
    content = gzip.decompress(zipped)
    assert (len(content), hashlib.md5(content).hexdigest()) == data._SUBSET[name]
    assert zipped[4:8] == bytes(4), "the gzip header holds a date, so the file cannot be made again"


def test_the_licence_comes_with_the_images():
    text = (data.EMBEDDED / "LICENSE").read_text(encoding="utf-8")
    assert "Copyright © 2017 Zalando SE" in text and "MIT License" in text


def test_nothing_is_written_into_the_package(empty):
    before = sorted((path.name, path.stat().st_mtime_ns) for path in data.EMBEDDED.iterdir())
    folder_before = data.EMBEDDED.stat().st_mtime_ns
    data.fashion_mnist(train=False)
    assert sorted((path.name, path.stat().st_mtime_ns) for path in data.EMBEDDED.iterdir()) == before
    assert data.EMBEDDED.stat().st_mtime_ns == folder_before


def test_root_holds_the_unzipped_subset_beside_a_whole_set(small):
    put(small / "root", raw=True, unzipped=True)
    before = {path: path.stat().st_mtime_ns for path in (small / "root").rglob("*-ubyte")}
    data.fashion_mnist(train=False, whole=False, root=small / "root")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list((small / "root").rglob("*-ubyte"))) == 8
    assert not (small / "cache").exists() or not list((small / "cache").rglob("*-ubyte"))


# The cache -----------------------------------------------------------------------------------------------------------


def test_a_second_call_unzips_nothing(empty, monkeypatch):
    data.fashion_mnist(train=False)
    monkeypatch.setattr(data, "_unzip", lambda *_: pytest.fail("unzipped again"))
    data.fashion_mnist(train=True)


def test_what_a_killed_process_left_is_mended(empty):
    data.fashion_mnist(train=False)
    raw = next((empty / "cache").rglob("raw"))
    for name in NAMES[:2]:
        content = (raw / name).read_bytes()
        (raw / name).write_bytes(content[: len(content) // 2])
    (raw / NAMES[2]).unlink()
    old, young = raw / "old.partial", raw / "young.partial"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    images, labels = data.fashion_mnist_tensors(train=True)
    assert len(images) == len(labels) == 6000
    assert not old.exists() and young.exists()  # the young one may belong to a process that is still at work


def test_a_failure_leaves_no_partial_file(empty, monkeypatch):
    class Full:
        def write(self, block):
            raise OSError(28, "No space left on device")

    copy = data._unzip
    monkeypatch.setattr(data, "_unzip", lambda *arguments: copy(*arguments[:-1], Full()))
    with pytest.raises(OSError, match="No space left"):
        data.fashion_mnist(train=False)
    assert not [path for path in (empty / "cache").rglob("*") if path.is_file()]


@pytest.mark.parametrize("broken", ["a file", "no home"])
def test_without_a_writable_home_the_temporary_folder_serves(empty, monkeypatch, broken):
    if broken == "a file":
        (empty / "occupied").write_text("not a folder")
        monkeypatch.setenv("XDG_CACHE_HOME", str(empty / "occupied"))
    else:
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    (empty / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(empty / "tmp"))
    assert len(data.fashion_mnist(train=False)) == 1000
    assert len(list((empty / "tmp").rglob("*-ubyte"))) == 4


def test_many_that_start_together_all_get_the_data(empty, monkeypatch):
    barrier, copy = threading.Barrier(6), data._unzip

    def all_at_once(*arguments):
        if arguments[0].name.startswith(NAMES[0]):
            barrier.wait(timeout=60)  # each has seen that the file is missing before any has written it
        copy(*arguments)

    monkeypatch.setattr(data, "_unzip", all_at_once)
    with ThreadPoolExecutor(6) as pool:
        folders = list(pool.map(lambda _: data._subset_folder(), range(6)))
    assert len(set(folders)) == 1 and not list((empty / "cache").rglob("*.partial"))
    for name, file in data._SUBSET.items():
        assert data._is_good(folders[0] / "FashionMNIST" / "raw" / name, file)


def test_two_processes_that_start_together_get_the_data(empty):
    code = "from sigreg.lab.data import _subset_folder; print(_subset_folder())"  # without torchvision: faster
    workers = [subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True) for _ in range(2)]
    answers = [worker.communicate(timeout=120) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], answers
    assert answers[0][0] == answers[1][0] == f"{data._subset_folder()}\n"
    assert len(data.fashion_mnist(train=True)) == 6000


# The search for the whole set ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("unzipped", [False, True])
@pytest.mark.parametrize("place", ["root", "SIGREG_DATA", "data", "../data", "debian"])
def test_the_whole_set_is_found_in_every_place_and_layout(small, monkeypatch, place, raw, unzipped):
    folder = {"data": Path("data"), "../data": Path("../data")}.get(place, small / place)
    put(folder, raw=raw, unzipped=unzipped)
    if place == "SIGREG_DATA":
        monkeypatch.setenv("SIGREG_DATA", str(folder))
    served = data.fashion_mnist(train=True, whole=True, root=folder if place == "root" else None)
    assert len(served) == 6000
    in_place = Path(served.root).resolve() == folder.resolve()
    assert in_place == (raw and unzipped), "files are used where they lie, or unzipped into the cache"


def test_the_order_of_search_is_the_documented_one(small, monkeypatch):
    places = [small / "env", Path("data"), Path("../data"), small / "debian", small / "cache" / "sigreg" / "whole"]
    for place in places:
        put(place, raw=True, unzipped=True)
    monkeypatch.setenv("SIGREG_DATA", str(places[0]))
    for place in places:
        assert Path(data.fashion_mnist(train=False, whole=True).root).resolve() == place.resolve()
        monkeypatch.delenv("SIGREG_DATA", raising=False)
        shutil.rmtree(place)
    with pytest.raises(FileNotFoundError):
        data.fashion_mnist(train=False, whole=True)


def test_the_full_preset_asks_for_the_whole_set(small, monkeypatch):
    put(small / "debian")
    monkeypatch.setenv("SIGREG_FULL", "1")
    assert "whole" in data.fashion_mnist(train=False).root
    monkeypatch.setenv("SIGREG_FULL", "0")
    assert "subset" in data.fashion_mnist(train=False).root


def test_an_unknown_preset_is_refused(monkeypatch):
    monkeypatch.setenv("SIGREG_FULL", "yes")
    with pytest.raises(ValueError, match="SIGREG_FULL must be 0 or 1, got 'yes'"):
        data.fashion_mnist(train=True)


# What can be wrong ---------------------------------------------------------------------------------------------------


def cut(content):
    return content[: len(content) // 2]


def flip(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


WRONG = {
    "truncated": cut,
    "a flipped byte": flip,
    "not gzip": lambda content: b"<html>404 Not Found</html>",
    "empty": lambda content: b"",
    "cut idx inside a sound gzip": lambda content: gzip.compress(cut(gzip.decompress(content)), 1),
    "foreign images inside a sound gzip": lambda content: gzip.compress(flip(gzip.decompress(content)), 1),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", [NAMES[0], NAMES[3]])
def test_a_wrong_gz_is_named_with_its_remedy(small, wrong, name):
    path = put(small / "root") / f"{name}.gz"
    path.write_bytes(WRONG[wrong](path.read_bytes()))
    with pytest.raises(ValueError, match=r"corrupt|truncated") as caught:
        data.fashion_mnist(train=True, whole=True, root=small / "root")
    assert str(path) in str(caught.value) and "delete it and run python -m sigreg.lab.data" in str(caught.value)
    assert not list((small / "cache").rglob("*.partial"))


@pytest.mark.parametrize("wrong", [cut, flip])
@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_unzipped_file_is_named_with_its_remedy(small, wrong, name):
    path = put(small / "root", raw=True, unzipped=True) / name
    path.write_bytes(wrong(path.read_bytes()))
    with pytest.raises(ValueError, match=r"corrupt|truncated") as caught:
        data.fashion_mnist(train=True, whole=True, root=small / "root")
    assert str(path) in str(caught.value) and "delete it and run" in str(caught.value)


def test_a_wrong_debian_file_names_the_package(small):
    path = put(small / "debian") / f"{NAMES[1]}.gz"
    path.write_bytes(cut(path.read_bytes()))
    with pytest.raises(ValueError, match="reinstall Debian's package dataset-fashion-mnist"):
        data.fashion_mnist(train=True, whole=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named(small, name):
    (put(small / "root") / f"{name}.gz").unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name}.*is missing from .*root"):
        data.fashion_mnist(train=True, whole=True, root=small / "root")


@pytest.mark.parametrize("spoil", ["missing", "truncated"])
def test_a_broken_installation_says_reinstall(small, monkeypatch, spoil):
    embedded = put(small / "package")
    path = embedded / f"{NAMES[0]}.gz"
    if spoil == "missing":
        path.unlink()
    else:
        path.write_bytes(cut(path.read_bytes()))
    monkeypatch.setattr(data, "EMBEDDED", embedded)
    with pytest.raises((FileNotFoundError, ValueError), match=rf"{path}.*reinstall sigreg"):
        data.fashion_mnist(train=True)


@pytest.mark.parametrize("variable", ["SIGREG_DATA", "root", None])
def test_without_data_and_network_one_error_says_what_to_do(small, monkeypatch, variable):
    root = None
    if variable == "SIGREG_DATA":
        monkeypatch.setenv("SIGREG_DATA", str(small / "there"))
    elif variable == "root":
        root = small / "there"
    with pytest.raises(FileNotFoundError, match=r"downloading it to .* failed.*no network in this test") as caught:
        data.fashion_mnist(train=True, whole=True, root=root)
    message = str(caught.value)
    for place in [small / "there"] if variable else ["data", "../data", small / "debian", small / "cache"]:
        assert str(place) in message
    for remedy in ("python -m sigreg.lab.data", "SIGREG_DATA", "embedded subset"):
        assert remedy in message
    assert not list(small.rglob("*.partial"))


def test_a_folder_that_cannot_be_made_gives_the_same_error(small):
    (small / "occupied").write_text("a file")
    with pytest.raises(FileNotFoundError, match=r"downloading it to .*occupied.* failed"):
        data.fashion_mnist(train=True, whole=True, root=small / "occupied" / "below")
    with pytest.raises(ValueError, match="root must be a folder, got the file"):
        data.fashion_mnist(train=True, whole=True, root=small / "occupied")


def test_a_download_is_checked_and_moved_into_place(small, monkeypatch):
    monkeypatch.setattr(FashionMNIST, "download", lambda self: put(Path(self.root), raw=True, unzipped=True))
    served = data.fashion_mnist(train=True, whole=True, root=small / "new")
    assert len(served) == 6000 and Path(served.root) == small / "new"
    assert sorted(path.name for path in (small / "new").rglob("*") if path.is_file()) == sorted(NAMES)
    assert data._download(small / "again", []) == small / "again"


def test_a_download_lands_in_the_cache_and_is_found_there(small, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(FashionMNIST, "download", lambda self: put(Path(self.root), raw=True, unzipped=True))
        first = data.fashion_mnist(train=True, whole=True)
    second = data.fashion_mnist(train=False, whole=True)  # without a network
    assert first.root == second.root and str(small / "cache") in first.root


def test_a_download_that_was_cut_off_leaves_nothing(small, monkeypatch):
    def killed(self):
        put(Path(self.root), raw=True, unzipped=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(FashionMNIST, "download", killed)
    with pytest.raises(KeyboardInterrupt):
        data.fashion_mnist(train=True, whole=True, root=small / "new")
    assert list((small / "new").iterdir()) == []


def test_a_wrong_download_is_refused(small, monkeypatch):
    def wrong(self):
        path = put(Path(self.root), raw=True, unzipped=True) / NAMES[0]
        path.write_bytes(flip(path.read_bytes()))

    monkeypatch.setattr(FashionMNIST, "download", wrong)
    with pytest.raises(ValueError, match=r"corrupt .*the download went wrong; run python -m sigreg\.lab\.data again"):
        data.fashion_mnist(train=True, whole=True, root=small / "new")
    assert list((small / "new").rglob("*-ubyte")) == []


@pytest.mark.parametrize("arguments, match", [({"train": 1}, "train"), ({"train": True, "whole": "yes"}, "whole")])
def test_arguments_of_the_wrong_type(arguments, match):
    with pytest.raises(TypeError, match=f"{match} must be True"):
        data.fashion_mnist(**arguments)


def test_a_missing_torchvision_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError, match="install the torchvision that belongs to torch"):
        data.fashion_mnist(train=True)


# The command line ----------------------------------------------------------------------------------------------------


def test_command_line_says_where_the_data_lies(small, capsys):
    folder = put(small / "here" / "data", raw=True, unzipped=True)
    assert data.main([]) == 0
    assert str(folder) in capsys.readouterr().out


def test_command_line_reports_failure(small, capsys):
    assert data.main([]) == 1
    assert "SIGREG_DATA" in capsys.readouterr().err
    assert data.main(["whole"]) == 2
    assert "usage: python -m sigreg.lab.data [subset]" in capsys.readouterr().err


# The whole set itself ------------------------------------------------------------------------------------------------


@needs_whole
def test_the_whole_set(tmp_path, monkeypatch):
    monkeypatch.delenv("SIGREG_DATA", raising=False)
    images, labels = data.fashion_mnist_tensors(train=True, whole=True)
    assert images.shape == (60000, 1, 28, 28) and labels.bincount().tolist() == [6000] * 10
    pixels = data.fashion_mnist(train=True, whole=True).data
    values, counts = torch.arange(256) / 255, pixels.flatten().bincount(minlength=256)
    mean = (counts * values).sum() / counts.sum()
    deviation = ((counts * (values - mean) ** 2).sum() / counts.sum()).sqrt()
    assert round(mean.item(), 4) == data.MEAN and round(deviation.item(), 4) == data.STD
    assert len(data.fashion_mnist(train=False, whole=True)) == 10000


@needs_whole
def test_the_subset_can_be_drawn_again(tmp_path, monkeypatch):
    monkeypatch.delenv("SIGREG_DATA", raising=False)
    assert data.write_subset(tmp_path) == data._SUBSET
    for name in NAMES:
        assert (tmp_path / f"{name}.gz").stat().st_size < 2_700_000


# The wheel -----------------------------------------------------------------------------------------------------------


def test_an_installed_wheel_carries_the_data_and_the_style(tmp_path):
    source, site = tmp_path / "source", tmp_path / "site"
    for folder in ("sigreg", "book/_records", "benchmarks/results"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__", "*.partial"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "LICENSE-TEXT"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(tmp_path), str(source)], check=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(site)
    code = (
        "import sigreg.lab.data, sigreg.lab.figures; images, _ = sigreg.lab.data.fashion_mnist_tensors(False); "
        "sigreg.lab.figures.use_style(); print(sigreg.lab.data.__file__, len(images))"
    )
    environment = os.environ | {"PYTHONPATH": str(site), "XDG_CACHE_HOME": str(tmp_path / "cache"), "SIGREG_FULL": "0"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(site / "sigreg" / "lab" / "data.py"), "1000"]
    assert (site / "sigreg" / "lab" / "_fashion_mnist" / "LICENSE").is_file()
    carried = ("_records/gaussian_regularization_power.json", "_records/self_supervised.pt")
    for name in (*carried, "_benchmarks/gaussian_regularization.json"):
        assert (site / "sigreg" / name).is_file()
