"""The collapse cube of Chapter 8: its judges, its gradients and its units."""

import math

import pytest
import torch

import sigreg.lab.experiments.information_maximization as experiment


def test_state_knows_the_ends(generator):
    z = torch.randn(4096, 32, generator=generator)
    other = torch.randn(4096, 32, generator=generator)
    round_codes = experiment.state(torch.stack([z, z])[:, :512])
    assert round_codes["spread"] == pytest.approx(1, abs=0.01)
    assert 29 < experiment.state(torch.stack([z, other]))["rank"] <= 32
    assert round_codes["information"] == pytest.approx(math.log(512), abs=1e-2)  # one image, one code: the cap
    assert experiment.state(torch.stack([z, other])[:, :512])["information"] < 0.01
    point = experiment.state(torch.ones(2, 64, 32))
    assert point["spread"] < 1e-6 and point["rate"] < 1e-6 and abs(point["information"]) < 1e-6
    line = torch.where(torch.arange(64) % 2 == 0, 1.0, -1.0)[:, None] * torch.ones(32)
    assert experiment.state(torch.stack([line, line]))["rank"] == pytest.approx(1, abs=1e-3)


def test_gradients_flow_where_the_cell_says(generator):
    """The regulariser alone moves the codes' norm; a stop-gradient without predictor halves every gradient."""
    images = torch.randn(2, 16, 1, 28, 28, generator=generator)
    batch = (*images, torch.arange(16), torch.zeros(16, dtype=torch.long))
    slopes = {}
    for stop in (False, True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            network = experiment.CubeNetwork(predictor=False)
        unit = {"stop_gradient": stop, "regularizer": False, "seed": 0}
        experiment.objective(unit)(network, batch)["loss"].backward()
        slopes[stop] = torch.cat([p.grad.flatten() for p in network.parameters()])
    torch.testing.assert_close(2 * slopes[True], slopes[False], atol=1e-7, rtol=1e-4)
    assert slopes[False].abs().max() > 1e-4


def test_units_cover_the_cube_from_one_start():
    found = experiment.units("full", range(2))
    assert len(found) == 18 and len({u["cell"] for u in found}) == 9
    starts = []
    for predictor in (False, True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            starts.append(experiment.CubeNetwork(predictor).codes.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(starts[0].values(), starts[1].values(), strict=True))


def test_a_small_unit_runs_twice_alike():
    unit = {
        "cell": "stop-gradient + predictor",
        "stop_gradient": True,
        "predictor": True,
        "regularizer": True,
        "seed": 0,
        "whole": False,
        "steps": 3,
        "batch_size": 64,
        "lr": 1e-3,
        "probe_images": 200,
    }
    result = experiment.run_unit(unit, torch.device("cpu"))
    assert result == experiment.run_unit(unit, torch.device("cpu"))
    assert len(result["rank"]) == 3 and 0.2 < result["probe_accuracy"] < 1
