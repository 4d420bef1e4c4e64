"""Records: whole or not at all, found where they should be, and honest about what made them."""

import json
import subprocess
import sys

import pytest

from sigreg.lab import files, records


def _record(name="toy", units=2):
    run = {
        "commit": "0123456789abcdef",
        "dirty": True,
        "versions": {"torch": "2"},
        "device": "1 CPU thread",
        "date": "2026-05-01T10:00:00+00:00",
    }
    provenance = {
        "preset": "full",
        "version": 1,
        "seeds": 2,
        "device": "cpu",
        "wall_seconds": 1.5,
        "runs": [run],
    }
    entries = [
        {"unit": {"seed": seed, "version": 1}, "result": {"rate": seed / 3}, "seconds": 0.75} for seed in range(units)
    ]
    return {"name": name, "description": "A toy.", "provenance": provenance, "units": entries}


def test_a_record_survives_the_round_trip_one_unit_a_line(tmp_path):
    record = _record()
    path = records.save_record(record, tmp_path)
    assert path == tmp_path / "toy.json"
    assert records.load_record("toy", tmp_path) == record
    assert sum('"unit":' in line for line in path.read_text().splitlines()) == len(record["units"])
    assert [file.name for file in tmp_path.iterdir()] == ["toy.json"]  # no temporary file stays behind


def test_a_failed_write_leaves_the_old_record(tmp_path, monkeypatch):
    records.save_record(_record(), tmp_path)
    monkeypatch.setattr(files.os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        records.save_record(_record(units=5), tmp_path)
    assert records.load_record("toy", tmp_path) == _record()
    assert [file.name for file in tmp_path.iterdir()] == ["toy.json"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(tmp_path, bad):
    record = _record()
    record["units"][0]["result"]["rate"] = bad
    with pytest.raises(ValueError, match="NaN or infinity"):
        records.save_record(record, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_missing_record_says_how_to_make_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"reproduce run toy --preset full"):
        records.load_record("toy", tmp_path)


def test_a_damaged_record_is_named(tmp_path):
    path = records.save_record(_record(), tmp_path)
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match="not valid JSON"):
        records.load_record("toy", tmp_path)
    path.write_text('{"name": "toy"}')
    with pytest.raises(ValueError, match="lacks description, provenance, units"):
        records.load_record("toy", tmp_path)


def test_search_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records.save_record(_record(), tmp_path / "records")
    assert records.load_record("toy") == _record()
    records.save_record(_record(units=3), tmp_path / "chosen")
    monkeypatch.setenv("SIGREG_RECORDS", str(tmp_path / "chosen"))
    assert len(records.load_record("toy")["units"]) == 3
    assert records.output_folder() == tmp_path / "chosen"


def test_timings_are_found_in_the_checkout_and_in_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "PACKAGE", tmp_path / "sigreg")
    with pytest.raises(FileNotFoundError, match="make bench"):
        records.load_benchmark("fast")
    for folder in ("sigreg/_benchmarks", "benchmarks/results"):  # the checkout comes first
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "fast.json").write_text(json.dumps({"from": folder}))
        assert records.load_benchmark("fast") == {"from": folder}


def test_a_table_has_a_row_a_unit_or_one_for_each_of_its_parts():
    assert records.table(_record()).to_dict("records")[1] == {"seed": 1, "version": 1, "seconds": 0.75, "rate": 1 / 3}
    several = {"networks": [{"beta": 0.1, "bins": [1, 2]}, {"beta": 1.0, "bins": [3]}], "steps": 7}
    unit = {"unit": {"seed": 4, "beta": [0.1, 1.0], "terms": {"nats": 0.5}}, "result": several, "seconds": 2.0}
    found = records.table({"units": [unit]})
    assert found.beta.tolist() == [0.1, 1.0] and found.bins.tolist() == [[1, 2], [3]]  # the number wins
    assert found["terms.nats"].tolist() == [0.5] * 2 and found.steps.tolist() == [7] * 2


def test_describe_names_the_run():
    text = records.describe(_record())
    for part in (
        "toy",
        "preset full",
        "2 seeds",
        "1 CPU thread",
        "0123456789 with local changes",
        "2026-05-01",
    ):
        assert part in text


def test_commit_and_dirty(tmp_path, monkeypatch):
    """Against a repository made here: clean, then with an edit to a source, then with an edit elsewhere."""
    package = tmp_path / "sigreg"
    package.mkdir()
    source, other = package / "a.py", package / "b.py"
    source.write_text("x = 1\n")
    other.write_text("y = 1\n")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *arguments], check=True, capture_output=True)
    monkeypatch.setattr(records, "PACKAGE", package)
    monkeypatch.delenv("SIGREG_COMMIT", raising=False)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    other.write_text("y = 2\n")
    facts = records.run_facts([source], "cpu")
    assert (facts["commit"], facts["dirty"]) == (head, False)
    source.write_text("x = 2\n")
    assert records.run_facts([source], "cpu")["dirty"] is True
    monkeypatch.setenv("SIGREG_COMMIT", "abc-dirty")
    facts = records.run_facts([source], "cpu")
    assert (facts["commit"], facts["dirty"]) == ("abc", True)
    assert facts["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))


def _stored():
    folder = records.PACKAGE.parent / "book" / "_records"
    return sorted(path.stem for path in folder.glob("*.json"))


@pytest.mark.parametrize("name", _stored())
def test_stored_records_are_complete(name):
    """What the book shows: each unit once, finite numbers; for each run commit, versions, device and date."""
    folder = records.PACKAGE.parent / "book" / "_records"
    record = records.load_record(name, folder)
    assert list(files.changed_files(record, folder)) == []
    assert record["name"] == name and record["description"]
    assert record["units"] and all({"unit", "result", "seconds"} == set(unit) - {"files"} for unit in record["units"])
    assert len({json.dumps(unit["unit"], sort_keys=True) for unit in record["units"]}) == len(record["units"])
    records.to_json(record)  # no NaN
    for run in record["provenance"]["runs"]:
        assert run["commit"] and run["device"] and run["date"] and run["versions"]["torch"]
        assert run["dirty"] is False
    assert records.describe(record).startswith(f"{name}: preset ")


def test_an_installed_wheel_tells_its_commit(tmp_path, monkeypatch):
    """What pip notes of a repository that it installed from; it is clean, for pip made it from a commit."""

    class Distribution:
        def read_text(self, name):
            return '{"vcs_info": {"commit_id": "abc"}}'

    monkeypatch.setattr(records, "PACKAGE", tmp_path / "sigreg")
    monkeypatch.delenv("SIGREG_COMMIT", raising=False)
    monkeypatch.setattr(records.importlib.metadata, "distribution", lambda name: Distribution())
    assert records._commit([]) == ("abc", False)
