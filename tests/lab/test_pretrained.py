"""The encoder that comes with the book: the one that its record tells of, or none."""

import json
import shutil

import pytest
import torch
from toys import seeded

from sigreg.lab import records, reproduce
from sigreg.lab.experiments import semi_supervised_pretrained as started
from sigreg.lab.models import ConvEncoder
from sigreg.lab.pretrained import FILE, PRETRAINED, encoder_sha256, pretrained_encoder, save_encoder

STORED = records.PACKAGE.parent / "book/_records"


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """The encoder, its record and that of the study that starts from it, where the package looks first."""
    for name in (FILE, "self_supervised.json", "semi_supervised_pretrained.json"):
        shutil.copy(STORED / name, tmp_path)
    monkeypatch.setenv("SIGREG_RECORDS", str(tmp_path))
    return tmp_path


def change_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_changed_byte_is_refused_by_all_who_use_it(copied, capsys):
    assert not pretrained_encoder().training
    assert reproduce.main(["status"]) == 0
    change_a_byte(copied / FILE)
    with pytest.raises(ValueError, match=r"is not the encoder that the record beside it tells of.*restore both"):
        pretrained_encoder()
    capsys.readouterr()
    assert reproduce.main(["status"]) == 1
    assert f"error: {FILE}, which the run of self_supervised made, is not the file it made" in capsys.readouterr().out


def test_an_encoder_without_its_record_is_refused(copied):
    (copied / "self_supervised.json").unlink()
    with pytest.raises(ValueError, match="the record has none"):
        pretrained_encoder()


def test_units_carry_the_encoder_and_run_with_no_other(copied, capsys):
    units = started.units("default", range(1))
    assert {unit["encoder"] for unit in units} == {encoder_sha256()} and len(encoder_sha256()) == 64
    with pytest.raises(ValueError, match="encoder must be the sha256 in the record"):
        started.run_unit({**units[0], "encoder": "0" * 64}, "cpu")
    record = json.loads((copied / "self_supervised.json").read_text())
    for entry in record["units"]:
        if "files" in entry:
            entry["files"][FILE] = "0" * 64  # another run made another encoder
    records.save_record(record, copied)
    assert reproduce.main(["status"]) == 1
    assert "semi_supervised_pretrained used another self_supervised.pt" in capsys.readouterr().out


def test_a_kept_encoder_comes_back(tmp_path):
    encoder = ConvEncoder(**PRETRAINED)
    save_encoder(encoder, tmp_path / "encoder.pt")
    again = pretrained_encoder(tmp_path / "encoder.pt")
    images = torch.randn(3, 1, 28, 28, generator=seeded())
    assert not again.training and torch.equal(again(images), encoder.eval()(images))
    with pytest.raises(FileNotFoundError, match="reproduce run self_supervised"):
        pretrained_encoder(tmp_path / "other.pt")
