"""A user's type checker reads the package: right calls pass a strict check, wrong ones are caught."""

import importlib
import os
import pathlib
import re
import subprocess
import sys

import pytest

import sigreg

ROOT = pathlib.Path(__file__).parents[2]

RIGHT = """
from __future__ import annotations
from sigreg import *
import torch
from torch import Tensor
import sigreg

z: Tensor = torch.randn(2, 16, 4)
y: Tensor = torch.arange(16)
regularity: Tensor = sigreg.SIGReg(num_slices=16, sync=False)(z, torch.Generator())
directions: Tensor = sigreg.random_directions(16, 4, device="cpu", dtype=torch.float32)
values: Tensor = sigreg.epps_pulley(z[0] @ directions.T, knots=9, t_max=5.0) + sigreg.sliced_sigreg(z, directions)
healthy: float = sigreg.sigreg_null_mean(t_max=float("inf"))
whole: Tensor = sigreg.backward_in_parts(torch.nn.Linear(4, 4), [z[:, :8], z[:, 8:]], sigreg.SIGReg(16))
curve: sigreg.InformationCurve = sigreg.information_bottleneck(torch.eye(2) / 2, torch.ones(3), n_codewords=2)
rate_of: Tensor = curve.lagrangian + sigreg.mutual_information(torch.eye(2) / 2)
loss: Tensor = sigreg.vicreg_loss(z[0], z[1], invariance=10.0, sync=False)
entropy: Tensor = sigreg.pairwise_entropy(z[0], bound="lower")
terms: dict[str, Tensor] = sigreg.lejepa_loss(z, None, torch.Generator(), weight=0.05)
rate: Tensor = sigreg.minibatch_rate(z[0], z[0], z[1], y)
lower, upper = sigreg.pairwise_rate_bounds(z[0], z[1])
total: Tensor = sigreg.bottleneck_loss(z[0], y, rate, 0.5) + lower + upper
learned: Tensor = sigreg.nt_xent_loss(z[0], z[1], temperature=torch.tensor(0.1))
nats: float = sigreg.held_out_information(z[0], z[0], z[1], y).rate
accuracy: float = sigreg.knn_accuracy(z[0], y, z[1], y)
bound: Tensor = sigreg.donsker_varadhan(z[0]).bound
invariant: Tensor = byol_loss(z[0], z[0], z[1], z[1])  # imported by the star
entropies: float = sigreg.entropy_ledger(4).lift
"""

WRONG = """
from __future__ import annotations
import torch
import sigreg
from sigreg import vicreg_information as information
from sigreg.lab import objectives

z = torch.randn(2, 16, 4)
sigreg.vicreg_loss(z[0])
sigreg.vicreg_loss(z[0], z[1], invariance="much")
sigreg.pairwise_entropy(z[0], bound="middle")
sigreg.lejepa_loss(z, weight=None)
sigreg.minibatch_rate(z[0], z[0], z[1], labels=[0, 1])
sigreg.nt_xent_loss(z[0], z[1], temperature="warm")
sigreg.view_prediction_loss(z, weight=1.0, num_slices="many")
sigreg.knn_accuracy(z[0], z[0], z[1], z[1], k="five")
sigreg.byol_loss(z[0], z[0], z[1], z[1], group="world")
sigreg.entropy_ledger("four")
sigreg.SIGReg(num_slices="many")
sigreg.SIGReg(16)(z, generator=3)
sigreg.SIGReg(16)(z).bounds
sigreg.slice_free_sigreg(z, sync="no")
sigreg.sigreg_null_mean("17")
sigreg.backward_in_parts(z, [z[:, :8], z[:, 8:]], sigreg.SIGReg(16))
sigreg.information_bottleneck(torch.eye(2) / 2, 1.0)
sigreg.vicreg_los(z[0], z[1])
objectives.semi_supervised_objective(scored="none")
information.sliced_moments(z[0], 16)
sigreg.effective_rank(z[0]).item()
sigreg.donsker_varadhan(z[0]).bounds
"""


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    pytest.importorskip("mypy")
    folder = tmp_path_factory.mktemp("types")
    (folder / "right.py").write_text(RIGHT)
    (folder / "wrong.py").write_text(WRONG)
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "right.py", "wrong.py"]
    environment = {**os.environ, "MYPYPATH": str(ROOT)}  # an installation in place is not found without it
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True).stdout


def test_the_wheel_says_that_it_is_typed():
    assert (pathlib.Path(sigreg.__file__).parent / "py.typed").exists()
    assert 'sigreg = ["py.typed"]' in (ROOT / "pyproject.toml").read_text()


def test_the_package_lists_what_its_modules_offer_one_name_once():
    offered = [
        name
        for file in sorted(pathlib.Path(sigreg.__file__).parent.glob("[a-z]*.py"))
        if f"from sigreg.{file.stem} import *" in pathlib.Path(sigreg.__file__).read_text()
        for name in importlib.import_module(f"sigreg.{file.stem}").__all__
    ]
    assert len(offered) > 50
    assert sorted(sigreg.__all__) == sorted(offered) == sorted(set(offered))
    assert all(getattr(sigreg, name) for name in sigreg.__all__)


def test_right_calls_pass_and_wrong_ones_are_caught(check):
    assert "Success" not in check and "right.py" not in check, check
    caught = {int(line) for line in re.findall(r"wrong\.py:(\d+): error", check)}
    call = re.compile(r"(sigreg|objectives|information)\.")
    calls = {number for number, line in enumerate(WRONG.splitlines(), 1) if call.match(line)}
    assert caught == calls, check
