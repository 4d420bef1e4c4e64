"""Few labels, long training: equal trials, paired draws, what each method adds, no test image read early."""

import pytest
import torch

from sigreg.lab import verdicts
from sigreg.lab.experiments import semi_supervised_long as study
from sigreg.lab.experiments import semi_supervised_long_thousand as thousand
from sigreg.lab.experiments import semi_supervised_long_trials as trials
from sigreg.lab.judging import pack, unpack
from sigreg.lab.records import save_record
from sigreg.semi_supervised import sigreg_weight

CPU = torch.device("cpu")
TINY = {"whole": False, "channels": [4, 8], "strides": [4, 2], "dim": 4, "steps": 3, "labelled_batch": 8}
TINY["unlabelled_batch"] = 8


def tiny(method, **change):
    settings = {"setting": study.GRID[method][1][1], "threshold": 0.0, "labels": 100, "seed": 0}
    return {**study.SMALL, **TINY, "method": method, **settings, **change}


def test_draws_are_whole_and_paired():
    units = study.units("default", range(3))
    assert [u["seed"] for u in units] == [k // 5 for k in range(15)] and {u["labels"] for u in units} == {100}
    assert [{**u, "labels": 0} for u in units] == [{**u, "labels": 0} for u in thousand.units("default", range(3))]
    assert {u["labels"] for u in thousand.units("full", range(1))} == {1000}


def test_every_method_adds_its_own_term_and_repeats():
    found = {method: study.run_unit(tiny(method), CPU) for method in study.GRID}
    torch.randn(7)  # the global generator must not matter
    assert study.run_unit(tiny("consistency+sigreg"), CPU) == found["consistency+sigreg"]
    terms = {method: {key for key in one if key.startswith("train_")} for method, one in found.items()}
    base = {"train_loss", "train_cross_entropy"}
    assert terms["labels"] == base and terms["consistency"] == (base := base | {"train_consistency"})
    assert [terms[f"consistency+{t}"] - base for t in ("sigreg", "moments", "rate")] == [
        {"train_sigreg"}, {"train_moments"}, {"train_rate"}
    ]  # fmt: skip
    for one in found.values():
        assert unpack(one["right"], 1000).mean() == pytest.approx(one["accuracy"])


def test_sigreg_is_weighed_for_the_sets_that_it_scores():
    """Weak views with the labelled images and strong views: 96 and 64 codes, 80 in the mean."""
    unit = {**study.SMALL, "method": "consistency+sigreg", "setting": 0.03, "threshold": 0.8}
    assert study.terms_of(unit)["sigreg"] == sigreg_weight(16, 80, 0.03)


def test_a_whole_image_is_its_own_view():
    image = study.images_of(False, 28, CPU)[0][0][:3]
    torch.testing.assert_close(study.seen_whole(image, 28), image, atol=1e-5, rtol=0)


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


@pytest.mark.parametrize(("draws", "counted"), [(8, True), (7, False)])
def test_too_few_draws_are_no_measurement(draws, counted):
    right = {"consistency+sigreg": 9000, "consistency": 8900}
    units = []
    for method, n in right.items():
        for seed in range(draws):
            guessed = {"right": pack(torch.arange(10_000) < n + seed)}
            units.append({"unit": {"method": method, "seed": seed}, "result": guessed, "seconds": 1.0})
    found = verdicts.MEASURES["P9", "consistency"](lambda name: {"units": units}, 0.95)
    assert (found is not None) == counted and (not counted or found.mean == pytest.approx(1.0))
