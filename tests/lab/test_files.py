"""The one writer: whole or not at all, on the disk, whatever is written."""

import os

import pytest

from sigreg.lab import files


@pytest.mark.parametrize("content", ["ä", "ä".encode(), lambda file: file.write("ä".encode())])
def test_text_bytes_and_what_a_function_writes(tmp_path, content):
    path = files.write_whole(tmp_path / "deep" / "a.txt", content)
    assert path.read_text(encoding="utf-8") == "ä"
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = files.write_whole(tmp_path / "a.txt", "old")

    def fails(file):
        file.write(b"ne")
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        files.write_whole(path, fails)
    assert path.read_text() == "old" and [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_the_bytes_are_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr(files.os, "fsync", lambda number: order.append(("fsync", os.fstat(number).st_size)))
    replace = os.replace
    monkeypatch.setattr(files.os, "replace", lambda a, b: (order.append("replace"), replace(a, b)))
    files.write_whole(tmp_path / "a.txt", "four")
    assert order == [("fsync", 4), "replace"]


def test_a_changed_byte_is_told_from_a_missing_file(tmp_path):
    path = files.write_whole(tmp_path / "kept.pt", b"weights")
    record = {"name": "toy", "units": [{"unit": {}}, {"unit": {}, "files": {"kept.pt": files.sha256_of(path)}}]}
    assert list(files.changed_files(record, tmp_path)) == []
    path.write_bytes(b"weighty")
    (line,) = files.changed_files(record, tmp_path)
    assert line.startswith("kept.pt, which the run of toy made, is not the file it made (its sha256 is ")
    path.unlink()
    assert "it is not there" in next(files.changed_files(record, tmp_path))
