"""Few labels, long training: what each method adds, the weight of SIGReg, too few draws."""

import pytest
import torch

from sigreg.lab import verdicts
from sigreg.lab.experiments import semi_supervised_long as study
from sigreg.lab.judging import pack, unpack
from sigreg.semi_supervised import sigreg_weight

CPU = torch.device("cpu")
TINY = {"whole": False, "channels": [4, 8], "strides": [4, 2], "dim": 4, "steps": 3, "labelled_batch": 8}
TINY["unlabelled_batch"] = 8


def tiny(method, **change):
    settings = {"setting": study.GRID[method][1][1], "threshold": 0.0, "labels": 100, "seed": 0}
    return {**study.SMALL, **TINY, "method": method, **settings, **change}


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
