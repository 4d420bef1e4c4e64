"""The comparison without labels: every method trains, a copy follows, and what is kept is judged."""

import torch

from sigreg.lab.experiments import without_labels as study
from sigreg.lab.gpu import TINY
from sigreg.lab.judging import unpack
from sigreg.lab.probes import RIDGES


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
    assert len(unpack(found["digits_right"], 899)) == 899 and 0.85 < found["digits_accuracy"] < 0.99
    assert 0.5 < found["accuracy"] < 0.9 and found["features"] == 784 and found["right"] != found["white_right"]


def test_digits_stand_upright_in_the_frame():
    seen = []
    found = study.transferred(lambda x: seen.append(x) or x.flatten(1).float(), torch.device("cpu"))
    (x,) = seen
    assert x.shape == (1797, 28, 28) and x.dtype == torch.uint8 and x.max() == 255
    assert x[:, :4].max() == x[:, -4:].max() == x[:, :, :4].max() == x[:, :, -4:].max() == 0
    zero = x[0, 4:24, 4:24].float()  # the first is a nought: dark in the middle, light around
    assert zero[8:12, 8:12].mean() < 60 < zero[8:12].max()
    assert found["digits_ridge"] in RIDGES
