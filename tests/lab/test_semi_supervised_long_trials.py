"""Equal trials on other draws, the best setting by its mean, no test image read early."""

import torch

from sigreg.lab.experiments import semi_supervised_long as study
from sigreg.lab.experiments import semi_supervised_long_trials as trials
from sigreg.lab.records import save_record

CPU = torch.device("cpu")
TINY = {"whole": False, "channels": [4, 8], "strides": [4, 2], "dim": 4, "steps": 3, "labelled_batch": 8}
TINY["unlabelled_batch"] = 8


def test_trials_are_equal_use_other_draws_and_read_no_test_image(monkeypatch):
    units = trials.units("default", range(2))
    assert {sum(u["method"] == method for u in units) for method in study.GRID} == {6}
    assert not {u["seed"] for u in units} & set(range(study.SEEDS["full"]))
    unit = {**units[0], **TINY}
    found, images = trials.run_unit(unit, CPU), trials.images_of
    monkeypatch.setattr(trials, "images_of", lambda *a: (*images(*a)[:2], None))
    assert trials.run_unit(unit, CPU) == found and 0 < found["held_out"] < 1


def test_the_best_setting_by_its_mean_runs_with_the_best_threshold(tmp_path, monkeypatch):
    monkeypatch.setenv("SIGREG_RECORDS", str(tmp_path))
    favourite = {"consistency": 0.95, "consistency+sigreg": 0.01}
    entries = []
    for u in trials.units("default", range(2)):
        wins = u["setting"] == favourite.get(u["method"])
        held_out = 0.9 if wins else 0.95 * (u["seed"] == 1000)  # the others win with a single draw
        entries.append({"unit": u, "result": {"held_out": held_out}, "seconds": 1})
    provenance = {"preset": "default", "seeds": 2, "runs": []}
    save_record({"name": study.TRIALS, "description": "", "provenance": provenance, "units": entries})
    assert study.tuned("default")["consistency+sigreg"] == {"setting": 0.01, "threshold": 0.95}
    assert study.tuned("full")["consistency"] == {"setting": 0.8, "threshold": 0.8}  # of another size they say nothing
