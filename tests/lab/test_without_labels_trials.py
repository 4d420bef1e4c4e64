"""The study of equal trials: as many for each method, and the best of them is what runs."""

import torch

from sigreg.lab.experiments import without_labels as study
from sigreg.lab.experiments import without_labels_trials as trials
from sigreg.lab.gpu import TINY
from sigreg.lab.records import save_record

CPU = torch.device("cpu")


def test_every_method_has_equal_trials_on_other_images_than_the_test_set():
    units = trials.units("full", range(1))
    counts = {method: sum(u["method"] == method for u in units) for method in study.GRID}
    assert set(counts.values()) == {6}
    assert len({u["passes"] for u in units}) == len({u["seed"] for u in units}) == 1


def test_a_trial_trains_as_the_run_does_and_reads_the_images_that_follow(monkeypatch):
    """Held-out labels that are all wrong by one make the trial read nothing; the trained and the test images do not."""
    unit = trials.units("default", range(1))[0]
    assert {k for k, v in unit.items() if v != study.SMALL.get(k)} == {"method", "setting", "lr", "seed"}
    unit |= TINY
    n = unit["images"]
    monkeypatch.setattr(trials, "HELD_OUT", 500)
    found, images = trials.run_unit(unit, CPU), trials.images_of
    pixels, labels = images(unit["whole"], CPU)[:2]
    monkeypatch.setattr(trials, "images_of", lambda *a: (pixels[: n + 500], labels[: n + 500], None, None))
    assert trials.run_unit(unit, CPU) == found and 0.3 < found["held_out"] < 1
    wrong = torch.cat([labels[:n], (labels[n:] + 1) % 10])
    monkeypatch.setattr(trials, "images_of", lambda *a: (pixels, wrong, None, None))
    assert trials.run_unit(unit, CPU)["held_out"] < 0.3


def test_the_pair_with_the_best_mean_over_draws_is_what_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("SIGREG_RECORDS", str(tmp_path))

    def held_out(u):
        lucky = (u["lr"], u["setting"], u["seed"]) == (1e-3, 1.0, 1000)
        return 0.95 if lucky else 0.9 if (u["lr"], u["setting"]) == (3e-3, 5.0) else 0.8

    entries = [
        {"unit": u, "result": {"held_out": held_out(u)}, "seconds": 1} for u in trials.units("default", range(2))
    ]
    provenance = {"preset": "default", "seeds": 2, "runs": []}
    save_record({"name": "without_labels_trials", "description": "", "provenance": provenance, "units": entries})
    best = study.tuned("default")
    assert best["vicreg"] == {"lr": 3e-3, "setting": 5.0, "trials": 12}
    assert study.tuned("full")["vicreg"]["trials"] == 0  # trials of another size say nothing
    (unit,) = [u for u in study.units("default", range(1)) if u["method"] == "vicreg"]
    assert unit["setting"] == 5.0
