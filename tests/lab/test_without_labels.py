"""The comparison without labels: every method trains, a copy follows, and what is kept is judged."""

import torch

from sigreg.lab.experiments import without_labels as study
from sigreg.lab.gpu import TINY


def test_every_method_trains_and_its_copy_follows():
    device = torch.device("cpu")
    pixels, labels = (t[:128] for t in study.images_of(False, device)[:2])
    for method, (_, settings) in study.GRID.items():
        unit = {**study.SMALL, **TINY, "method": method, "setting": settings[1], "lr": 1e-3, "seed": 0}
        pair = study.build(unit, device)
        before = [p.clone() for p in pair.parameters()]
        losses = study.train(pair, unit, pixels, labels)["loss"]
        assert torch.isfinite(losses).all() and len(losses) == 2
        moved = [not torch.equal(a, b) for a, b in zip(before, pair.parameters(), strict=True)]
        assert sum(moved) > len(moved) // 2, method
        assert (pair.momentum is not None) == (method == "byol")


def test_pixels_are_judged_and_their_guesses_kept():
    unit = {**study.SMALL, **TINY, "method": "pixels", "seed": 0}
    found = study.run_unit(unit, torch.device("cpu"))
    assert 0.5 < found["accuracy"] < 0.9 and found["features"] == 784 and found["right"] != found["white_right"]
