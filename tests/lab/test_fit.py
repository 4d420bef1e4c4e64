"""Training must not depend on how often it was interrupted, nor on how many processes share a batch."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sigreg.lab.fit import WARM_UP, fit
from sigreg.lab.models import ConvEncoder, mlp


def batches(count=12, size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(size, 1, 12, 12, generator=generator), torch.randint(4, (size,), generator=generator))
        for _ in range(count)
    ]


def classifier(seed=0):
    torch.manual_seed(seed)
    encoder = ConvEncoder(channels=(3, 4), strides=(2, 2), size=12)
    return nn.Sequential(encoder, mlp((encoder.features, 8, 4)))


def cross_entropy(network, batch):
    scores = network(batch[0])
    return {"loss": F.cross_entropy(scores, batch[1]), "size": scores.detach().square().mean()}


def state_of(network):
    return torch.cat([value.double().flatten() for value in network.state_dict().values()])


def test_fit_is_adamw_with_warm_up_and_cosine():
    """Against a plain loop: torch's cosine, times the ramp of the docstring."""
    mine, its = classifier(), classifier()
    stream = batches(40)
    fit(mine, cross_entropy, stream, lr=1e-2, weight_decay=0.1)
    decayed = [p for p in its.parameters() if p.ndim > 1]
    plain = [p for p in its.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}])
    clock = torch.optim.SGD([torch.zeros(1)], lr=1e-2)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(clock, len(stream))
    for step, batch in enumerate(stream):
        for group in optimizer.param_groups:
            group["lr"] = cosine.get_last_lr()[0] * min(1.0, (step + 1) / (WARM_UP * len(stream)))
        optimizer.zero_grad()
        cross_entropy(its, batch)["loss"].backward()
        optimizer.step()
        clock.step()
        cosine.step()
    torch.testing.assert_close(state_of(mine), state_of(its), rtol=1e-4, atol=1e-6)


def test_a_run_that_is_stopped_goes_on_as_if_it_had_not_been(tmp_path):
    whole, parted = classifier(), classifier()
    stream = batches()
    expected = fit(whole, cross_entropy, stream, lr=1e-2)
    path = tmp_path / "run.pt"
    first = fit(parted, cross_entropy, stream, lr=1e-2, checkpoint=path, save_every=2, stop_after=5)
    assert len(first) == 5
    fresh = classifier(seed=9)  # a new process would start from other weights
    history = fit(fresh, cross_entropy, stream, lr=1e-2, checkpoint=path)
    assert history == expected and torch.equal(state_of(fresh), state_of(whole))
    assert fit(fresh, cross_entropy, stream, lr=1e-2, checkpoint=path) == expected  # nothing left to do
    assert set(torch.load(path, weights_only=True)) == {"network", "optimizer", "total", "history"}


def test_a_kill_between_saves_loses_only_the_steps_since(tmp_path):
    path = tmp_path / "run.pt"
    network = classifier()

    def killed(step):
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(network, cross_entropy, batches(), lr=1e-2, checkpoint=path, save_every=2, after_step=killed)
    assert len(torch.load(path, weights_only=True)["history"]) == 4
    assert not list(tmp_path.glob(".*partial"))
    resumed, whole = classifier(seed=1), classifier()
    assert fit(resumed, cross_entropy, batches(), lr=1e-2, checkpoint=path) == fit(
        whole, cross_entropy, batches(), lr=1e-2
    )


@pytest.mark.parametrize("damage", ["cut", "steps", "network", "text"])
def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path, damage):
    path = tmp_path / "run.pt"
    fit(classifier(), cross_entropy, batches(2), checkpoint=path)
    network, stream = classifier(), batches(2)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "text":
        path.write_text("hello")
    elif damage == "steps":
        stream = batches(3)
    else:
        network = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"checkpoint .* does not fit this run"):
        fit(network, cross_entropy, stream, checkpoint=path)


def test_a_diverging_run_says_so():
    with pytest.raises(ValueError, match="NaN or infinite at step 1: lower lr"):
        fit(nn.Linear(1, 1), lambda net, batch: net(batch[0]).sum() / 0, [(torch.ones(2, 1),)])


TWO = '''
import json, sys
import torch, torch.distributed as dist
sys.path.insert(0, sys.argv[1])
from test_fit import batches, classifier, cross_entropy, self_supervised, state_of
from sigreg.lab.fit import fit
torch.set_num_threads(1)
if len(sys.argv) > 3:
    dist.init_process_group("gloo")
found = {}
for name, loss in {"supervised": cross_entropy, "self_supervised": self_supervised}.items():
    network = classifier()
    history = fit(network.double(), loss, [(x.double(), y) for x, y in batches(6)], lr=1e-2)
    found[name] = {"history": history, "state": state_of(network).tolist()}
if not dist.is_initialized() or dist.get_rank() == 0:
    with open(sys.argv[2], "w") as file:
        json.dump(found, file)
if dist.is_initialized():
    dist.destroy_process_group()
'''


def self_supervised(network, batch):
    """View prediction and SIGReg, whose statistic is of the whole batch: the harder case for several processes."""
    from sigreg import slice_free_sigreg

    x = batch[0]
    z = network(torch.cat([x, x.flip(-1)]))
    one, two = z.chunk(2)
    return {"loss": (one - two).square().mean() + 0.1 * slice_free_sigreg(z)}


def test_two_processes_take_the_steps_of_one(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(TWO)
    here = str(Path(__file__).parent)
    alone, together = tmp_path / "alone.json", tmp_path / "together.json"
    subprocess.run([sys.executable, script, here, alone], check=True)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*torchrun, script, here, together, "grouped"], check=True, capture_output=True)
    one, two = json.loads(alone.read_text()), json.loads(together.read_text())
    for name in one:
        for mine, its in zip(one[name]["history"], two[name]["history"], strict=True):
            assert mine["loss"] == pytest.approx(its["loss"], rel=1e-9)
        state = torch.tensor(one[name]["state"]), torch.tensor(two[name]["state"])
        torch.testing.assert_close(*state, rtol=1e-7, atol=1e-8)
    start = state_of(copy.deepcopy(classifier()).double())
    assert (start - torch.tensor(one["supervised"]["state"])).abs().max() > 1e-2  # it did learn
