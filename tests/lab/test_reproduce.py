"""The runner: a killed run resumes and loses nothing, shards join, another version is never mixed in."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from sigreg.lab import records, reproduce
from sigreg.lab.data import DataMissing
from sigreg.lab.experiments import gaussian_regularization_power as power
from sigreg.lab.judging import pack

TOY = '''"""Sums of seeded random numbers."""

import os
import time

import torch
import torch.distributed as dist

VERSION = 1
SEEDS = {"default": 2, "full": 3}


def units(preset, seeds):
    size = 10 if preset == "full" else 5
    return [{"cell": cell, "size": size, "seed": seed} for seed in seeds for cell in range(4)]


def run_unit(unit, device):
    """Leaves a line for every call, so that tests can count the work."""
    with open(os.environ["TOY_LOG"], "a") as log:
        log.write(f"{unit['seed']}/{unit['cell']}\\n")
    time.sleep(float(os.environ.get("TOY_SLEEP", "0")))
    generator = torch.Generator().manual_seed(1000 * unit["seed"] + unit["cell"])
    value = torch.rand(unit["size"], generator=generator).sum()
    if dist.is_initialized():
        dist.all_reduce(value)
    return {"value": round(value.item(), 6)}


def summary(record):
    return f"The mean of {len(record['units'])} sums was taken."
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    return tmp_path


def _start(folder, *arguments, launcher=(), **environment):
    command = [sys.executable, *launcher, "-m", "sigreg.lab.reproduce", "run", str(folder / "toy.py")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(
        [*command, "--device", "cpu", "--out", str(folder / "out"), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _log(folder):
    path = folder / "log"
    return path.read_text().split() if path.exists() else []


def _values(record):
    return [(entry["unit"], entry["result"]) for entry in record["units"]]


def _run(folder, **options):
    return reproduce.run(str(folder / "toy.py"), device="cpu", out=folder / "out", **options)


def test_a_whole_run(toy):
    record = _run(toy)
    assert len(record["units"]) == 8 == len(_log(toy))
    assert record == records.load_record("toy", toy / "out")
    assert sorted(path.name for path in (toy / "out").iterdir()) == ["toy.json"]
    provenance = record["provenance"]
    assert (provenance["preset"], provenance["seeds"], provenance["device"]) == ("default", 2, "cpu")
    assert provenance["version"] == 1 and len(provenance["runs"]) == 1
    assert all(entry["unit"]["version"] == 1 for entry in record["units"])
    again = _run(toy)  # nothing to do, nothing done
    assert again == record and len(_log(toy)) == 8
    in_memory = reproduce.live(str(toy / "toy.py"), device="cpu")
    assert _values(in_memory) == _values(record)


def test_the_default_dtype_of_the_caller_changes_nothing(toy):
    single = _values(reproduce.live(str(toy / "toy.py"), device="cpu"))
    torch.set_default_dtype(torch.float64)
    try:
        assert _values(reproduce.live(str(toy / "toy.py"), device="cpu")) == single
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_kill_in_the_middle_loses_no_finished_unit(toy):
    process = _start(toy, TOY_SLEEP="0.3")
    part = toy / "out" / "toy.partial"
    deadline = time.time() + 300
    while not (part.exists() and part.read_text().count('"unit"') >= 3):
        assert process.poll() is None and time.time() < deadline, "the run did not get to its third unit"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finished = part.read_text().count('"unit"')
    assert 3 <= finished < 8 and not (toy / "out" / "toy.json").exists()
    with open(part, "a") as file:  # a kill in the midst of a write leaves half a line
        file.write('{"unit": {"cell": 0, "si')
    done_before = _log(toy)[:finished]
    record = _run(toy)
    assert len(record["units"]) == 8
    after = _log(toy)
    assert all(after.count(unit) == 1 for unit in done_before)  # finished units were not done again
    assert len(after) <= 8 + 1  # the unit in work when the kill came is the only one done twice
    reference = reproduce.live(str(toy / "toy.py"), device="cpu")
    assert _values(record) == _values(reference)
    assert not list((toy / "out").glob("*.partial"))


def test_two_shards_at_once_join(toy):
    processes = [_start(toy, "--shard", f"{index}/2", TOY_SLEEP="0.1") for index in (1, 2)]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes), outputs
    assert "The mean of 8 sums was taken." in "".join(outputs)
    record = records.load_record("toy", toy / "out")
    assert sorted(_log(toy)) == sorted(f"{seed}/{cell}" for seed in range(2) for cell in range(4))
    assert _values(record) == _values(reproduce.live(str(toy / "toy.py"), device="cpu"))
    assert sorted(path.name for path in (toy / "out").iterdir()) == ["toy.json"]


def test_shards_one_after_the_other(toy, capsys):
    name = [str(toy / "toy.py"), "--device", "cpu", "--out", str(toy / "out")]
    assert reproduce.main(["run", *name, "--shard", "1/3"]) == 0
    assert "shard 1/3 is done" in capsys.readouterr().out
    assert not (toy / "out" / "toy.json").exists()
    assert reproduce.main(["run", *name]) == 0  # one plain run does what is left and joins
    assert len(_log(toy)) == 8
    assert "8 units" in capsys.readouterr().out


def test_more_seeds_add_to_what_is_there(toy):
    _run(toy)
    record = _run(toy, seeds=3)
    assert len(record["units"]) == 12 == len(_log(toy))
    assert record["provenance"]["seeds"] == 3
    fewer = _run(toy, seeds=1)  # nothing is thrown away
    assert len(fewer["units"]) == 12 == len(_log(toy))


def test_more_seeds_in_a_partial_file_are_kept(toy):
    _run(toy, seeds=3, shard=(1, 2))
    _run(toy, seeds=2)
    assert len(_log(toy)) == 6 + 4
    assert len(_run(toy, seeds=3)["units"]) == 12 == len(_log(toy))


@pytest.mark.parametrize("stage", ["record", "partial"])
def test_another_version_is_refused(toy, stage):
    _run(toy, shard=(1, 1) if stage == "record" else (1, 2))
    calls = len(_log(toy))
    (toy / "toy.py").write_text(TOY.replace(".sum()", ".mean()").replace("VERSION = 1", "VERSION = 2"))
    with pytest.raises(reproduce.Refused, match=r"at version 1; this run is at version 2.*--out FOLDER.*--overwrite"):
        _run(toy)
    assert len(_log(toy)) == calls
    record = _run(toy, overwrite=True)
    assert len(_log(toy)) == calls + 8 and all(entry["unit"]["version"] == 2 for entry in record["units"])
    assert _values(record) == _values(reproduce.live(str(toy / "toy.py"), device="cpu"))
    assert sorted(path.name for path in (toy / "out").iterdir()) == ["toy.json"]


def test_words_and_functions_that_nobody_calls_are_not_another_version(toy):
    record = _run(toy)
    (toy / "toy.py").write_text(TOY.replace("sums was taken", "sums is meant") + "\n\ndef unused():\n    return 0\n")
    assert _run(toy) == record and len(_log(toy)) == 8


@pytest.mark.parametrize("stage", ["partial", "record"])
def test_runs_that_made_a_part_stay_in_the_provenance(toy, monkeypatch, stage):
    """One commit makes the first half or the first seeds, another the rest: both are named."""
    monkeypatch.setenv("SIGREG_COMMIT", "first")
    _run(toy, **({"shard": (1, 2)} if stage == "partial" else {"seeds": 1}))
    monkeypatch.setenv("SIGREG_COMMIT", "second")
    record = _run(toy)
    assert [run["commit"] for run in record["provenance"]["runs"]] == ["first", "second"]
    assert _run(toy) == record == records.load_record("toy", toy / "out")


KEEPS = TOY.replace("round(value.item(), 6)}", "round(value.item(), 6)}, files").replace(
    "    return {", '    files = {"kept.bin": lambda file: file.write(b"kept")} if unit["seed"] else {}\n    return {'
)


def test_files_of_a_run_lie_beside_the_record_which_knows_their_bytes(toy, capsys, monkeypatch):
    (toy / "toy.py").write_text(KEEPS)
    record = _run(toy)
    kept = toy / "out" / "kept.bin"
    assert kept.read_bytes() == b"kept"
    assert all(("files" in entry) == (entry["unit"]["seed"] > 0) for entry in record["units"])
    experiment = reproduce.load_experiment(str(toy / "toy.py"))
    monkeypatch.setattr(reproduce, "experiment_names", lambda: ["toy"])
    monkeypatch.setattr(reproduce, "load_experiment", lambda name: experiment)
    assert reproduce.main(["status", "--out", str(toy / "out")]) == 0
    capsys.readouterr()
    kept.write_bytes(b"Kept")
    reproduce.live("toy", device="cpu")  # which leaves no file
    assert reproduce.main(["status", "--out", str(toy / "out")]) == 1
    assert "error: kept.bin, which the run of toy made, is not the file it made" in capsys.readouterr().out
    with pytest.raises(reproduce.Refused, match=r"kept\.bin, which the run of toy made"):
        reproduce.verify("toy", 1, "cpu", toy / "out")
    assert kept.read_bytes() == b"Kept"


def test_another_preset_is_refused(toy, capsys):
    _run(toy, preset="full")
    with pytest.raises(reproduce.Refused, match="with preset full; this run is with preset default"):
        _run(toy)
    assert reproduce.main(["run", str(toy / "toy.py"), "--device", "cpu", "--out", str(toy / "out")]) == 1
    assert "refused" in capsys.readouterr().err


def test_an_overwriting_run_that_was_killed_resumes(toy):
    _run(toy, preset="full")
    header_free = toy / "out" / "toy.json"
    old = header_free.read_text()
    _run(toy, shard=(1, 2), overwrite=True)
    assert header_free.read_text() == old  # the old record stands until the new one is whole
    calls = len(_log(toy))
    record = _run(toy, overwrite=True)
    assert len(_log(toy)) == calls + 4 and record["provenance"]["preset"] == "default"


def test_one_shard_is_not_run_twice_at_a_time(toy):
    pytest.importorskip("fcntl")
    (toy / "out").mkdir()
    with reproduce._claimed(toy / "out" / "toy.partial"):
        with pytest.raises(reproduce.Refused, match="another process"):
            _run(toy)
        assert _run(toy, shard=(1, 2)) is None


def test_a_failing_unit_keeps_the_others(toy):
    (toy / "toy.py").write_text(TOY.replace("value = ", "assert unit['cell'] < 3, 'no fourth'\n    value = "))
    with pytest.raises(AssertionError, match="no fourth"):
        _run(toy)
    assert (toy / "out" / "toy.partial").read_text().count('"unit"') == 3


def test_not_a_number_is_refused_where_it_arises(toy):
    (toy / "toy.py").write_text(TOY.replace("round(value.item(), 6)", "float('nan')"))
    with pytest.raises(ValueError, match=r'NaN or infinity.*"cell": 0'):
        _run(toy)


def test_torchrun_gives_every_process_the_group_and_writes_once(toy):
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29517")
    process = _start(toy, "--seeds", "1", launcher=launcher)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    record = records.load_record("toy", toy / "out")
    single = reproduce.live(str(toy / "toy.py"), seeds=1, device="cpu")
    for both, one in zip(record["units"], single["units"], strict=True):
        assert both["result"]["value"] == pytest.approx(2 * one["result"]["value"], abs=1e-5)
    assert output.count("The mean of 4 sums") == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["run", "nothing"], "no experiment 'nothing': choose from"),
        (["run", "nothing.py"], "no file nothing.py"),
        (["run", "gaussian_regularization_power", "--seeds", "0"], "seeds must be an integer of at least 1"),
    ],
)
def test_wrong_names_and_numbers(arguments, message, capsys):
    assert reproduce.main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("shard", ["3/2", "0/2", "half", "1/2/3"])
def test_wrong_shards(shard, capsys):
    with pytest.raises(SystemExit):
        reproduce.main(["run", "gaussian_regularization_power", "--shard", shard])
    assert "must" in capsys.readouterr().err


@pytest.mark.parametrize("lack", ["VERSION", "SEEDS", "summary", "docstring"])
def test_an_incomplete_experiment_is_named(toy, lack):
    docstring = '"""Sums of seeded random numbers."""'
    text = TOY.replace(docstring, "") if lack == "docstring" else TOY.replace(lack, "other")
    (toy / "toy.py").write_text(text)
    with pytest.raises(ValueError, match=f"lacks .*{lack}"):
        reproduce.load_experiment(str(toy / "toy.py"))


def test_list_and_status(tmp_path, capsys):
    assert reproduce.main(["list"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in reproduce.experiment_names())
    assert reproduce.main(["status", "--out", str(tmp_path)]) == 0
    assert f"no record in {tmp_path}" in capsys.readouterr().out


@pytest.fixture
def known(toy, monkeypatch):
    """The toy as the one experiment there is, run and stored; the folder of its record."""

    def load(name):
        return experiment if name == "toy" else original(name)

    original, experiment = reproduce.load_experiment, reproduce.load_experiment(str(toy / "toy.py"))
    monkeypatch.setattr(reproduce, "experiment_names", lambda: ["toy"])
    monkeypatch.setattr(reproduce, "load_experiment", load)
    reproduce.run("toy", device="cpu", out=toy / "out")
    return toy / "out"


def test_status_tells_versions_and_how_far(toy, known, monkeypatch, capsys):
    reproduce.run("toy", device="cpu", out=known, seeds=3, shard=(1, 2))
    assert reproduce.main(["status", "--out", str(known)]) == 0
    assert "toy.1of2.partial: 2 finished units (preset default)" in capsys.readouterr().out
    monkeypatch.setattr(reproduce.load_experiment("toy"), "VERSION", 2)
    assert reproduce.main(["status", "--out", str(known)]) == 1
    shown = capsys.readouterr().out
    assert "error: toy holds units of version 1, the experiment is at 2" in shown
    assert "finished units (preset default, version 1 and not 2)" in shown


def test_verify_runs_a_few_units_again_and_writes_nothing_unless_asked(toy, known, capsys):
    before = (known / "toy.json").read_bytes()
    assert reproduce.main(["verify", "toy", "--units", "3", "--out", str(known)]) == 0
    assert "3 units again" in capsys.readouterr().out
    assert len(_log(toy)) == 8 + 3 and (known / "toy.json").read_bytes() == before
    assert reproduce.main(["verify", "toy", "--units", "3", "--note", "--out", str(known)]) == 0
    noted = records.load_record("toy", known)["provenance"]["verified"]
    assert noted["units"] == 3 and noted["largest_difference"] == 0 and noted["run"]["commit"]
    reproduce.main(["status", "--out", str(known)])
    assert "3 units again at commit " in capsys.readouterr().out

    record = records.load_record("toy", known)
    record["units"][0]["result"]["value"] *= 1.01
    records.save_record(record, known)
    before = (known / "toy.json").read_bytes()
    assert reproduce.main(["verify", "toy", "--note", "--out", str(known)]) == 1
    assert "more than 0.001" in capsys.readouterr().err and (known / "toy.json").read_bytes() == before
    assert reproduce.main(["verify", "toy", "--tolerance", "0.1", "--out", str(known)]) == 0
    with pytest.raises(ValueError, match="count"):
        reproduce.verify("toy", 0, out=known)


def test_an_experiment_says_which_units_rounding_moves(toy, known, monkeypatch):
    record = records.load_record("toy", known)
    for entry in record["units"]:
        entry["result"]["value"] *= 1.01
    records.save_record(record, known)
    trained = {"tolerance": lambda unit: 0.02 if unit["cell"] < 2 else 1e-3}
    monkeypatch.setattr(reproduce.load_experiment("toy"), "tolerance", trained["tolerance"], raising=False)
    assert reproduce.verify("toy", 1, "cpu", known) == pytest.approx(0.01, rel=0.05)  # of cell 0
    with pytest.raises(reproduce.Refused, match=r"up to 0\.01, more than 0\.001"):
        reproduce.verify("toy", 8, "cpu", known)
    monkeypatch.setattr(reproduce.load_experiment("toy"), "LOOSE", {"value": 0.02}, raising=False)
    assert reproduce.verify("toy", 8, "cpu", known) == 0


def test_the_quick_check_takes_the_cheapest_telling_unit_within_its_bound(toy, known, monkeypatch, capsys):
    record = records.load_record("toy", known)
    for k, entry in enumerate(record["units"]):
        entry["seconds"] = 10.0 - k
    records.save_record(record, known)
    monkeypatch.setattr(reproduce.load_experiment("toy"), "CHECK", {"cell": 2}, raising=False)
    check = ["verify", "all", "--units", "1", "--cheapest", "--out", str(known), "--within"]
    assert reproduce.main([*check, "4"]) == 0
    assert _log(toy)[8:] == ["1/2"]  # of cell 2 the later seed took less: 4 s
    assert reproduce.main([*check, "3.9"]) == 2 and len(_log(toy)) == 9
    assert "these units took 4 s when stored, --within is 3.9" in capsys.readouterr().err


def test_a_bare_machine_skips_what_needs_the_whole_data_and_ci_does_not(toy, known, monkeypatch, capsys):
    def missing(unit, device):
        raise DataMissing("the whole FashionMNIST is nowhere")

    monkeypatch.setattr(reproduce.load_experiment("toy"), "run_unit", missing)
    for ci, status in (("", 0), ("true", 1)):
        monkeypatch.setenv("CI", ci)
        assert reproduce.main(["verify", "all", "--out", str(known)]) == status
        assert "skipped: toy: the whole FashionMNIST is nowhere" in capsys.readouterr().out


def test_a_changed_formula_is_found_by_verify(monkeypatch):
    """The smallest stored unit of the power study, with the package as it stands and with faults planted in it."""
    quick = {"count": 1, "device": "cpu", "out": records.PACKAGE.parent / "book/_records", "cheapest": True}
    stored = (quick["out"] / "gaussian_regularization_power.json").read_bytes()
    assert reproduce.verify("gaussian_regularization_power", **quick) <= 1e-3
    for name, factor in (("epps_pulley", 1.01), ("slice_free_sigreg", 0.99)):
        with monkeypatch.context() as planted:
            right = getattr(power, name)
            planted.setattr(power, name, lambda z, right=right, factor=factor: factor * right(z))
            with pytest.raises(reproduce.Refused, match=r"today's numbers differ from the stored ones by up to 0\.0"):
                reproduce.verify("gaussian_regularization_power", **quick)
    assert (quick["out"] / "gaussian_regularization_power.json").read_bytes() == stored


def test_difference_of_results():
    assert reproduce._difference({"a": 1}, {"b": 1}) == float("inf")
    assert reproduce._difference([1.0], [1.0, 2.0]) == float("inf")
    assert reproduce._difference({"a": [None, "x", 0]}, {"a": [None, "x", 0]}) == 0
    assert reproduce._difference({"train_seconds": 1}, {"train_seconds": 2}) == 0
    assert reproduce._difference(0.0, 1.0) == 1.0
    guesses, other = pack([True, False] * 40), pack([True, True] * 40)
    assert reproduce._difference({"white_right": guesses}, {"white_right": other}) == 0.5
    assert reproduce._difference({"right": guesses}, {"right": pack([True])}) == float("inf")
    assert reproduce._difference({"name": guesses}, {"name": other}) == float("inf")  # another text is another result
    one, two = {"cells": [{"a_ridge": 1.0, "a": 1.0}]}, {"cells": [{"a_ridge": 0.3, "a": 0.9}]}
    assert reproduce._difference(one, two, {"ridge": 0.75}) == pytest.approx(0.1)
    assert reproduce._difference(one, two, {"ridge": 0.65}) == pytest.approx(0.7)
    bins = {"count": [3, 0, 1], "share": [0.5, 0.0, 1.0]}
    assert reproduce._difference(bins, bins) == 0
    assert reproduce._difference(bins, {**bins, "share": [0.5, 0.0, 0.0]}) == pytest.approx(1 / 2.5)
    assert reproduce._difference(bins, {**bins, "count": [2, 1, 1]}) == pytest.approx(2 / 4)
    assert reproduce._difference(bins, {**bins, "share": [0.5, 0.0]}) == float("inf")
