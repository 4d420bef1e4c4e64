"""Methods as cells: who moves, who follows, and what each loss is."""

import pytest
import torch
import torch.nn.functional as F

import sigreg.lab.experiments.information_maximization_methods as experiment

CPU = torch.device("cpu")


def pair(second, predictor=False):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return experiment.Pair(predictor, second)


def batch(count=16):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, count, 1, 28, 28, generator=generator)
    return *images, torch.arange(count) % 10, torch.zeros(count, dtype=torch.long)


def moved(network):
    """Which of the two encoders got a gradient."""
    return tuple(
        any(p.grad is not None and p.grad.abs().max() > 0 for p in part.parameters())
        for part in (network.codes, network.second)
    )


def step(cell, network):
    unit = {**experiment.CELLS[cell], "seed": 0}
    network.zero_grad()
    experiment.objective(unit, CPU)(network, batch())["loss"].backward()
    return moved(network)


def test_a_slow_copy_gets_no_gradient_and_follows():
    network = pair("slow copy", predictor=True)
    assert step("BYOL", network) == (True, False) and step("MoCo", network) == (True, False)
    fast, slow = (next(part.parameters()) for part in (network.codes, network.second))
    assert torch.equal(fast, slow)
    before = slow.clone()
    with torch.no_grad():
        fast += 1
    network.after_step(0)
    torch.testing.assert_close(slow, before + (1 - experiment.MOMENTUM))


def test_two_encoders_climb_by_turns():
    network = pair("by turns")
    assert step("bound, by turns", network) == (True, False)
    network.after_step(0)
    assert step("bound, by turns", network) == (False, True)
    network.after_step(0)
    assert step("joint term, by turns", network) == (True, False)


def test_the_bound_and_its_joint_term_are_those_of_the_chapter():
    generator = torch.Generator().manual_seed(1)
    z, t = torch.randn(2, 2, 8, 5, generator=generator)
    scores = F.normalize(z[0], dim=1) @ F.normalize(t[1], dim=1).T / experiment.TEMPERATURE
    others = scores[~torch.eye(8, dtype=torch.bool)]
    terms = experiment.bounds(z, t)[0]
    torch.testing.assert_close(terms.joint, scores.diagonal().mean())
    torch.testing.assert_close(terms.bound, scores.diagonal().mean() - others.exp().mean().log())


def test_all_cells_start_alike_and_units_cover_them():
    starts = [pair(second).codes.state_dict() for second in ("none", "slow copy", "by turns")]
    for other in starts[1:]:
        assert all(torch.equal(a, b) for a, b in zip(starts[0].values(), other.values(), strict=True))
    units = experiment.units("full", range(2))
    assert len(units) == 1 + 2 * (1 + len(experiment.CELLS))
    assert {u["cell"] for u in units} == {"pixels", "untrained", *experiment.CELLS}


@pytest.mark.parametrize("cell", ["pixels", "MoCo", "labels"])
def test_a_small_unit_runs(cell):
    unit = {"cell": cell, **experiment.CELLS.get(cell, {}), "seed": 0, "whole": False, "batch_size": 64, "lr": 1e-3}
    unit |= {"steps": 0 if cell == "pixels" else 3, "probe_images": 200}
    found = experiment.run_unit(unit, CPU)
    assert 0.2 < found["accuracy"] < 1 and found["ridge"] in experiment.RIDGES
    assert cell == "pixels" or len(found["rank"]) == 3
