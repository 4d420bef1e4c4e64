"""lightly's own tests of the losses that both packages have, run against ours.

    python tests/sigreg/lightly_suite.py PATH    a checkout of lightly 1.6 (its releases on PyPI hold no tests)

The classes of ``lightly.loss`` are replaced by thin ones that call this package. It needs lightly, pytest and
pytest-mock. A failure that is not in ``OTHERWISE`` is one of ours. Outcome with lightly 1.6: see CONTRIBUTING.md.
"""

import pathlib
import sys

import pytest
import torch
from torch import nn

import sigreg

FILES = (
    "barlow_twins_loss", "lejepa_loss", "lejepa_sigreg_loss", "negative_cosine_similarity", "ntx_ent_loss",
    "sym_neg_cos_sim_loss", "vicreg_loss",
)  # fmt: skip

OTHERWISE = {  # tests of how lightly does it, and where we choose otherwise
    "test__gather_distributed": "counts calls of a mocked torch.distributed",
    "test__gather_distributed_dist_not_available": "a switch that we do not have: processes share unless sync=False",
    "test_forward_gather_distributed_world_size_gt_one": "counts calls of mocked collectives",
    "test_forward_gather_distributed_matches_non_distributed": "mocks two processes; test_distributed.py starts them",
    "test_gather_distributed_gradient_matches_non_distributed": "mocks two processes; test_distributed.py starts them",
    "test_forward_pass__error_batch_size_1": "expects AssertionError; ours is a ValueError",
    "test_forward_pass__error_different_shapes": "expects AssertionError; ours is a ValueError",
    "test_forward__compare": "compares with ==; ours agrees to rounding",
    "test_forward_pass_neg_temp": "a negative temperature, which we refuse",
}


class NTXentLoss(nn.Module):
    def __init__(self, temperature=0.5, memory_bank_size=0, gather_distributed=False):
        super().__init__()
        if memory_bank_size:
            pytest.skip("a memory bank within the loss: moco_loss takes a queue instead")
        self.temperature, self.sync = temperature, gather_distributed

    def forward(self, a, b):
        return sigreg.nt_xent_loss(a, b, temperature=self.temperature, sync=self.sync)


class VICRegLoss(nn.Module):
    def __init__(self, lambda_param=25.0, mu_param=25.0, nu_param=1.0, gather_distributed=False, eps=1e-4):
        super().__init__()
        self.settings = {"invariance": lambda_param, "variance": mu_param, "covariance": nu_param}

    def forward(self, a, b):  # lightly has the batch first
        return sigreg.vicreg_loss(a.movedim(0, -2), b.movedim(0, -2), **self.settings)


class BarlowTwinsLoss(nn.Module):
    def __init__(self, lambda_param=5e-3, gather_distributed=False):
        super().__init__()
        self.redundancy = lambda_param

    def forward(self, a, b):
        return sigreg.barlow_twins_loss(a, b, redundancy=self.redundancy)


class NegativeCosineSimilarity(nn.Module):
    def forward(self, a, b):
        return sigreg.negative_cosine(a, b).item()  # pytest 9 does not compare a scalar tensor with `approx`


class SymNegCosineSimilarityLoss(nn.Module):
    def forward(self, first, second):
        (z_a, p_a), (z_b, p_b) = first, second
        return sigreg.simsiam_loss(p_a, p_b, z_a, z_b)

    def _neg_cosine_simililarity(self, a, b):  # the name is lightly's
        return sigreg.negative_cosine(a, b.detach())


class SIGReg(sigreg.SIGReg):
    def __init__(self, *, knots=17, t_max=3.0, num_vectors=1024, gather_distributed=False):
        super().__init__(num_vectors, knots, t_max, sync=gather_distributed)


class LeJEPALoss(nn.Module):
    def __init__(
        self, lambda_param=0.05, gather_distributed=False, sigreg_knots=17, sigreg_t_max=3.0, sigreg_num_vectors=1024
    ):
        super().__init__()
        grid = {"knots": sigreg_knots, "t_max": sigreg_t_max, "num_slices": sigreg_num_vectors}
        self.settings = {"weight": lambda_param, "sync": gather_distributed, **grid}
        sigreg.lejepa_loss(torch.zeros(2, 4, 2), **self.settings)  # refuses wrong ones

    def forward(self, *, local_proj, global_proj):
        return sigreg.lejepa_loss(global_proj, local_proj, **self.settings)["loss"]


def lejepa_invariance_loss(*, all_proj, global_proj):
    return (all_proj - global_proj.mean(0)).square().mean()


class Replaced:
    """A plugin of pytest: puts our losses in lightly's place and keeps what became of each test."""

    def __init__(self):
        self.outcomes = {"passed": [], "failed": [], "skipped": []}
        import lightly.loss
        from lightly.loss import barlow_twins_loss, lejepa_loss

        for place in (lightly.loss, barlow_twins_loss, lejepa_loss):
            for ours in (
                NTXentLoss, VICRegLoss, BarlowTwinsLoss, NegativeCosineSimilarity, SymNegCosineSimilarityLoss, SIGReg,
                LeJEPALoss, lejepa_invariance_loss,
            ):  # fmt: skip
                if place is lightly.loss or hasattr(place, ours.__name__):
                    setattr(place, ours.__name__, ours)

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome == "skipped":
            self.outcomes[report.outcome].append(report.nodeid)


def main(checkout):
    folder = pathlib.Path(checkout) / "tests" / "loss"
    files = [str(path) for name in FILES if (path := folder / f"test_{name}.py").exists()]
    replaced = Replaced()
    pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", str(checkout), "--tb=line", *files], plugins=[replaced])
    failed = [(node, node.rsplit("::", 1)[1].split("[")[0]) for node in replaced.outcomes["failed"]]
    for node, name in failed:
        print(f"{node.rsplit('/', 1)[1]}: {OTHERWISE.get(name, 'A FAULT OF OURS')}")
    print({outcome: len(nodes) for outcome, nodes in replaced.outcomes.items()}, "in", len(files), "files")
    return any(name not in OTHERWISE for _, name in failed) or not files


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
