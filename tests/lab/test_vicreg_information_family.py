"""VICReg's family at a longer budget: what trains, from where, and which weight runs."""

import torch

from sigreg.joint_embedding import vicreg_loss
from sigreg.lab.experiments import vicreg_information_family as study
from sigreg.lab.experiments import vicreg_information_family_trials as trials
from sigreg.lab.gpu import TINY
from sigreg.lab.records import save_record

CPU = torch.device("cpu")


def tiny(method):
    return {**study.SMALL, **TINY, "method": method, "setting": study.GRID[method][1], "seed": 0}


def test_methods_of_one_seed_start_alike_and_learn_by_their_own_loss():
    starts = [study.build(tiny(method), CPU).online.state_dict() for method in study.GRID]
    assert all(
        torch.equal(a, b) for other in starts[1:] for a, b in zip(starts[0].values(), other.values(), strict=True)
    )
    z = torch.randn(2, 16, 4, generator=torch.Generator().manual_seed(0))
    pair = type("Pair", (), {"online": staticmethod(lambda *views: z)})
    values = {m: study.loss_of(tiny(m))(pair, (z, None), None) for m in ("vicreg", "logdet", "pairdist")}
    assert len({round(v.item(), 4) for v in values.values()}) == 3
    assert values["vicreg"] == vicreg_loss(*z, invariance=25.0)


def test_a_unit_judges_features_and_codes():
    found = study.run_unit(tiny("logdet"), CPU)
    assert found["features"] > found["code_features"] == TINY["latent_dim"]
    assert 0.1 < found["code_white_accuracy"] <= 1 and found["steps"]["contrastive"] < 8


def test_the_weight_with_the_best_mean_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("SIGREG_RECORDS", str(tmp_path))
    entries = [
        {"unit": u, "result": {"held_out": (0.9 if u["setting"] == 8.0 else 0.99 * (u["seed"] == 1000))}, "seconds": 1}
        for u in trials.units("default", range(3))
    ]
    provenance = {"preset": "default", "seeds": 3, "runs": []}
    save_record(
        {"name": "vicreg_information_family_trials", "description": "", "provenance": provenance, "units": entries}
    )
    assert study.tuned("default")["logdet"] == 8.0  # not the one that wins with a single seed
    assert study.tuned("full")["vicreg"] == 25.0  # trials of another size say nothing
