"""The experiments of Chapter 6: judges, units, and one process against two."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toys import seeded

import sigreg.lab.experiments.self_supervised as experiment
import sigreg.lab.experiments.self_supervised_sweeps as sweeps
from sigreg.lab.files import write_whole
from sigreg.lab.models import ConvEncoder

TINY = {"channels": [4, 4, 4, 4], "strides": [2, 2, 2, 2], "hidden": [8], "latent_dim": 4, "epochs": 1}
CPU = torch.device("cpu")


def test_unshared_part_of_known_codes():
    common = 0.8 * torch.randn(1, 50_000, 2, generator=seeded())
    views = common + 0.6 * torch.randn(2, 50_000, 2, generator=seeded(1))
    assert experiment.unpredictable_share(views) == pytest.approx(0.36, abs=0.01)
    assert experiment.unpredictable_share(torch.zeros(2, 5, 2)) == 0.0
    assert experiment.mean_sigreg(torch.randn(2, 5000, 8, generator=seeded())) == pytest.approx(1.06, abs=0.05)


def test_curve_keeps_the_mean_and_the_last_step():
    history = [{"loss": float(k)} for k in range(250)]
    curve = experiment.curve_of(history)
    assert len(curve["step"]) == experiment.CURVE and curve["step"][-1] == 250
    widths = [b - a for a, b in zip([0, *curve["step"]], curve["step"], strict=False)]
    assert sum(w * v for w, v in zip(widths, curve["loss"], strict=True)) == pytest.approx(sum(range(250)), rel=1e-4)
    assert experiment.curve_of(history[:3])["loss"] == [0, 1, 2]


@pytest.mark.parametrize("module", [experiment, sweeps])
def test_units_are_distinct_and_name_their_budget(module):
    for preset in ("default", "full"):
        units = module.units(preset, range(3))
        assert len({json.dumps(u, sort_keys=True) for u in units}) == len(units)
        assert all({"epochs", "batch_size", "lr", "seed", "views"} <= set(u) for u in units)


def test_every_method_runs_and_repeats(tmp_path):
    for unit in experiment.units("default", range(1)):
        if unit["method"] == "pixels":
            continue
        unit = {**unit, **TINY, **({"keep": "kept.pt"} if unit["method"] == "sigreg" else {})}
        first, files = experiment.run_unit(unit, CPU)
        assert list(files) == (["kept.pt"] if unit["method"] == "sigreg" else [])
        if unit["method"] == "sigreg":
            second, files = experiment.run_unit(unit, CPU)
            write_whole(tmp_path / "kept.pt", files["kept.pt"])
            assert {**first, "training_seconds": 0} == {**second, "training_seconds": 0}
        assert first["features"] == 16 and 0 < first["accuracy"] < 1
    kept = torch.load(tmp_path / "kept.pt", weights_only=True)
    encoder = ConvEncoder(TINY["channels"], TINY["strides"])
    encoder.load_state_dict(kept)
    assert encoder.network[1].running_mean.abs().max() > 0  # it was trained


TOY = """An encoder of a few weights, for a test of two processes.

import sigreg.lab.experiments.self_supervised as full

VERSION = 1
SEEDS = {"default": 1, "full": 1}


def units(preset, seeds):
    small = {"channels": [4, 4], "strides": [4, 2], "hidden": [8], "latent_dim": 4, "epochs": 1, "noise": True}
    return [{**full.SMALL, **small, "method": "sigreg", "seed": 0}]


def run_unit(unit, device):
    images, labels = full.fashion_mnist_tensors(True, whole=False)
    history = full.train(full.build(unit, device), unit, images[:2048], labels[:2048])
    return {"curve": full.curve_of(history)}


def summary(record):
    return "done"
"""


def test_two_processes_have_the_loss_curve_of_one(tmp_path):
    toy = tmp_path / "toy.py"
    head, rest = TOY.split("\n", 1)
    toy.write_text(f'"""{head}"""\n{rest}')
    run = ["-m", "sigreg.lab.reproduce", "run", str(toy), "--device", "cpu"]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    curves = []
    for place, command in (("one", run), ("two", [*launch, *run])):
        subprocess.run(
            [sys.executable, *command, "--out", str(tmp_path / place)],
            check=True,
            capture_output=True,
            cwd=Path(experiment.__file__).parents[3],
        )
        record = json.loads((tmp_path / place / "toy.json").read_text())
        curves.append(record["units"][0]["result"]["curve"])
    assert curves[0]["step"] == curves[1]["step"]
    for term in ("loss", "rate", "sigreg"):
        assert curves[1][term] == pytest.approx(curves[0][term], rel=2e-3)
