"""Equal trials of the losses of Chapter 3: other draws, held-out images, and the best learning rate by its mean."""

import math

import torch

from sigreg.lab.experiments import conditional_bottleneck as study
from sigreg.lab.experiments import conditional_bottleneck_batch as large
from sigreg.lab.experiments import conditional_bottleneck_trials as trials
from sigreg.lab.records import save_record

CPU = torch.device("cpu")


def test_trials_are_equal_use_other_draws_and_read_no_test_image(monkeypatch):
    units = trials.units("default", range(2))
    for part, size in ((study, 256), (large, 1024)):
        assert {sum(u["batch_size"] == size and u["method"] == m for u in units) for m in part.METHODS} == {8}
    assert not {u["seed"] for u in units} & set(range(study.SEEDS["full"]))
    unit = {**units[0], "hidden": [4], "epochs": 1, "betas": [0.1, 1.0]}
    read, images = [], trials.fashion_mnist_tensors
    monkeypatch.setattr(
        trials, "fashion_mnist_tensors", lambda train, **how: read.append(train) or images(train, **how)
    )
    trained = []
    monkeypatch.setattr(study, "train_sweep", lambda u, x, y, f=study.train_sweep: trained.append(len(x)) or f(u, x, y))
    found = trials.run_unit(unit, CPU)
    assert read == [True] and trained == [5000]
    assert [n["beta"] for n in found["networks"]] == [0.1, 1.0]
    assert all(len(n["bins"]["count"]) and sum(n["bins"]["count"]) == 1000 for n in found["networks"])


def test_a_trial_that_diverges_loses_and_the_others_count():
    unit = {**trials.units("default", range(1))[0], "hidden": [4], "epochs": 1, "lr": 1e30}
    assert trials.run_unit(unit, CPU)["networks"] == []


def entries_of(better):
    """Made-up trials: accuracy rises with the rate, and ``better(unit)`` is added to it at every rate."""
    entries = []
    for u in trials.units("default", range(2)):
        rates = [u["lr"] / 2e-3 * r for r in (0.25, 1.0, 4.0)]  # a larger step ends at larger rates
        accuracy = [0.75 + 0.05 * math.log2(rate) + better(u) for rate in rates]
        networks = [{"conditional_rate": r, "accuracy_one": a} for r, a in zip(rates, accuracy, strict=True)]
        entries.append({"unit": u, "result": {"networks": networks}, "seconds": 1})
    return entries


def test_the_best_mean_over_draws_at_equal_rate_is_what_runs(tmp_path, monkeypatch):
    """More accuracy through more rate does not count, nor does one lucky draw."""
    monkeypatch.setenv("SIGREG_RECORDS", str(tmp_path))

    def keep(better):
        provenance = {"preset": "default", "seeds": 2, "runs": []}
        record = {"name": "conditional_bottleneck_trials", "description": "", "provenance": provenance}
        save_record({**record, "units": entries_of(better)})

    luck = {(4e-3, 1000): 0.03, (4e-3, 1001): -0.03, (2e-3, 1000): 0.01, (2e-3, 1001): 0.01}
    keep(lambda u: luck.get((u["lr"], u["seed"]), 0.0) if u["batch_size"] == 256 else 0.1 * (u["lr"] == 8e-3))
    assert study.tuned(256, study.METHODS, "default") == dict.fromkeys(study.METHODS, 2e-3)
    assert study.tuned(1024, large.METHODS, "default") == dict.fromkeys(large.METHODS, 8e-3)
    keep(lambda u: 0.01 * (u["lr"] == 1e-3))
    (unit,) = [u for u in study.units("default", range(1)) if u["method"] == "vib" and u["part"] == "sweep"]
    assert unit["lr"] == 1e-3
    assert study.units("full", range(1))[1]["lr"] == 2e-3  # of another size they say nothing: the second
