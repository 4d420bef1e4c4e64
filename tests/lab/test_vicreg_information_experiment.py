"""The comparison of Chapter 7: one budget for all, weights by one rule, judges that say what is known in advance."""

import math
from itertools import pairwise

import pytest
import torch

import sigreg.lab.experiments.vicreg_information as experiment
from sigreg.lab import reading
from sigreg.lab.records import load_record, table
from sigreg.vicreg_information import probe_terms


def test_units_give_every_method_the_same():
    for preset in ("default", "full"):
        units = experiment.units(preset, range(2))
        assert len({str(sorted(u.items())) for u in units}) == len(units)
        for part in ("tune", "final"):
            mine = [u for u in units if u["part"] == part]
            budgets = {str(sorted((k, v) for k, v in u.items() if k not in ("method", "weight", "seed"))) for u in mine}
            assert len(budgets) == 1 and {u["method"] for u in mine} == set(experiment.METHODS)
    for method, grid in experiment.GRID.items():
        assert len(grid) == 4 and experiment.CHOSEN[method] in grid
        assert [b / a for a, b in pairwise(grid)] == pytest.approx([4.0] * 3)


def test_stored_weights_are_those_that_tuning_prefers():
    record = load_record("vicreg_information")
    found = table(record)
    assert reading.tuned(found) == experiment.CHOSEN
    assert "prefers: none" in experiment.summary(record)
    assert (found[found.part == "final"].groupby("method").size() == 5).all()
    second = found[found.part == "runner-up"].groupby("method").weight.agg(["min", "max", "size"])
    assert second.to_dict("index") == {"sigreg": {"min": 2.5, "max": 2.5, "size": 5}}


def test_the_runner_up_changes_the_weight_and_nothing_else():
    units = experiment.units("full", range(2))
    for method, weight in experiment.RUNNER_UP.items():
        final, second = ([u for u in units if (u["part"], u["method"]) == (p, method)] for p in ("final", "runner-up"))
        assert [{**u, "weight": weight, "part": "runner-up"} for u in final] == second and len(second) == 2
        assert weight in experiment.GRID[method] and weight != experiment.CHOSEN[method]


@pytest.mark.parametrize("method", experiment.METHODS)
def test_objectives_prefer_agreeing_spread_codes(method):
    """Two views alike and spread out; alike and collapsed; spread out and unrelated."""
    generator = torch.Generator().manual_seed(0)
    z, other = torch.randn(2, 64, 1, 1, 6, generator=generator)

    def value(a, b):
        loss = experiment.objective(method, experiment.CHOSEN[method])
        batch = (a, b, torch.arange(64), torch.zeros(64, dtype=torch.long))
        return loss(lambda *views: torch.stack([view.flatten(1) for view in views]), batch)

    assert value(z, z) < value(1e-3 * z, 1e-3 * z) or method == "barlow_twins"  # which does not see the scale
    assert value(z, z) < value(z, other)
    assert value(z, z) < value(z[..., :1].expand_as(z), z[..., :1].expand_as(z))  # one direction only


def test_a_unit_trains_repeats_itself_and_reports_what_the_chapter_needs():
    unit = {
        "method": "logdet",
        "weight": 2.0,
        "seed": 3,
        "part": "final",
        "images": 128,
        "epochs": 1,
        "whole": False,
        "batch_size": 64,
        "lr": 1e-3,
        "probe": 200,
        "hidden": 16,
        "latent_dim": 4,
    }
    found = experiment.run_unit(unit, torch.device("cpu"))
    assert found == experiment.run_unit(unit, torch.device("cpu"))
    assert 0.3 < found["accuracy"] < 0.95 and 0 < found["rank"] <= 4
    assert found["steps"]["contrastive"] <= math.log(500)
    assert found["steps"]["cap"] == pytest.approx(math.log(1000), abs=1e-5)
    white = found["white"]["terms"]
    assert white["radius"] <= 1 + 2 * 4 + 1e-6 and white["invariance"] > 0
    assert [row["n"] for row in found["white"]["measured"]] == [50, 150, 500]
    risks = [row["risk"] for row in found["white"]["measured"]]
    assert risks[0] > risks[-1] > white["averaged_risk"] > 0


def test_tuning_asks_images_that_no_training_saw(monkeypatch):
    seen = {}
    monkeypatch.setattr(experiment, "fit", lambda network, loss, batches, lr: seen.update(train=batches.images))
    monkeypatch.setattr(experiment, "_accuracy", lambda a, b, c, d: seen.update(asked=len(c)) or 0.5)
    unit = next(u for u in experiment.units("default", range(1)) if u["part"] == "tune")
    assert experiment.run_unit({**unit, "hidden": 8, "latent_dim": 2}, torch.device("cpu")) == {"accuracy": 0.5}
    images, _ = experiment.fashion_mnist_tensors(True, whole=False)
    assert seen["asked"] == 1000
    torch.testing.assert_close(seen["train"], images[:2000])


def test_codes_of_many_images_are_those_of_the_network():
    network = experiment.untrained_network({"seed": 0, "hidden": 8, "latent_dim": 3}).eval()
    images = torch.randn(1203, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(experiment.codes_of(network, images), network(images)[0])


def test_whitening_and_cut():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(4000, 3, generator=generator, dtype=torch.float64) @ torch.tensor(
        [[3.0, 1.0, 0.0], [0.0, 0.5, 0.0], [1.0, 0.0, 0.1]], dtype=torch.float64
    )
    white = experiment.whitening(z)(z)
    short = white.norm(dim=1) < math.sqrt(6) - 1e-9
    assert white.norm(dim=1).max() <= math.sqrt(6) + 1e-9 and 0.8 < short.double().mean() < 1
    torch.testing.assert_close(torch.cov(white.T), torch.eye(3, dtype=z.dtype), atol=0.15, rtol=0)
    plain = experiment.one_scale(z)(z)  # most of its variance lies in one direction, so that the cut takes more
    assert plain.norm(dim=1).max() <= math.sqrt(6) + 1e-9 and 0.6 < plain.var(0).mean() < 1


def test_the_measured_error_of_codes_that_are_the_label():
    labels = torch.arange(400) % 4
    codes = 1.4 * torch.eye(4, dtype=torch.float64)[labels].expand(2, 400, 4)
    codes = codes + 1e-3 * torch.randn(2, 400, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    terms = probe_terms(codes, labels)
    curve = experiment.measured_error(codes, labels, terms, torch.Generator().manual_seed(1))
    assert [row["n"] for row in curve] == [50, 150] and curve[-1]["wrong"] == 0
    assert curve[0]["risk"] > curve[-1]["risk"] and curve[0]["risk_error"] > 0


def test_codes_are_judged_as_they_are(monkeypatch):
    """Images that show their class in one of four corners, views that leave it there: the probe must find it."""
    monkeypatch.setattr(experiment, "random_views", lambda images, generator: images)
    labels = torch.arange(400) % 4
    images = 0.1 * torch.randn(400, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    for k, image in enumerate(images):
        row, column = 14 * (labels[k] // 2), 14 * (labels[k] % 2)
        image[0, row : row + 14, column : column + 14] += 2
    network = experiment.untrained_network({"seed": 0, "hidden": 16, "latent_dim": 6}).eval()
    found = experiment.evaluate_codes(network, images, images, labels, seed=0)
    assert max(found[name]["measured"][-1]["wrong"] for name in ("white", "plain")) < 0.1
