"""What processes share: three gloo processes, one of them with an empty batch, against one process."""

import copy
import pickle

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from sigreg import SIGReg, _distributed

CUTS = [0, 37, 150, 150]  # uneven batches, the last one empty


def covariance_loss(z, group):
    total = _distributed.count_shared(len(z), group, z)
    centred = z - _distributed.sum_shared(z.sum(0), group) / total
    return (_distributed.sum_shared(centred.T @ centred, group) / total).square().sum()


def contrastive_loss(z, group):
    everyone, start = _distributed.gather_rows(z, group)
    scores = torch.logsumexp(z @ everyone.T, 1) - (z * everyone[start : start + len(z)]).sum(1)
    return _distributed.sum_shared(scores.sum(), group) / _distributed.count_shared(len(z), group, z)


def linear():
    net = torch.nn.Linear(6, 4).double()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.linspace(-1, 1, p.numel()).view_as(p))
    return net


def in_a_process(rank, store):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=3)
    x = torch.randn(150, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mine = slice(CUTS[rank], CUTS[rank + 1])
    group = _distributed.shared_group(True, None)
    assert _distributed.shared_group(False, None) is None

    for loss in (covariance_loss, contrastive_loss):
        net, alone = linear(), linear()
        parallel = DistributedDataParallel(net)
        for _ in range(3):  # steps of training
            value, expected = loss(parallel(x[mine]), group), loss(alone(x), None)
            torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
            for trained, objective in ((net, value), (alone, expected)):
                trained.zero_grad()
                objective.backward()
                with torch.no_grad():
                    for p in trained.parameters():
                        p -= 1e-3 * p.grad
        for p, q in zip(net.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-11)

    def seeded(seed):
        return torch.Generator().manual_seed(seed)

    noise = _distributed.randn_rows(CUTS[rank + 1] - CUTS[rank], 3, group=group, generator=seeded(rank))
    assert torch.equal(noise, _distributed.randn(150, 3, generator=seeded(0))[mine])
    shared = _distributed.randn_shared(5, 3, group=group, generator=seeded(rank))
    assert torch.equal(shared, _distributed.randn(5, 3, generator=seeded(0)))

    module = SIGReg(5, group=dist.group.WORLD)
    assert copy.deepcopy(module).group is dist.group.WORLD and "group=" in repr(module)
    stored = pickle.loads(pickle.dumps(module))
    assert stored.group == (0, 1, 2)
    with pytest.raises(ValueError, match="the ranks of the process group"):
        _distributed.shared_group(stored.sync, stored.group)
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="torch was built without torch.distributed")
def test_three_processes_are_one(tmp_path):
    torch.multiprocessing.spawn(in_a_process, (str(tmp_path / "store"),), 3)


def test_a_process_alone_gets_back_what_it_gave():
    x = torch.randn(4, 2)
    assert _distributed.shared_group(True, None) is None
    assert _distributed.sum_shared(x, None) is x and _distributed.gather_rows(x, None) == (x, 0)
    assert _distributed.count_shared(4, None, x) == 4 and _distributed.processes(None) == 1
    assert _distributed.randn_rows(4, 2, group=None).shape == (4, 2)
    twin = copy.deepcopy(SIGReg(7, sync=False))
    assert (
        repr(twin) == repr(pickle.loads(pickle.dumps(twin))) == "SIGReg(num_slices=7, knots=17, t_max=3.0, sync=False)"
    )


def test_the_ranks_of_a_pickled_group_are_not_taken_for_a_group(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        with pytest.raises(ValueError, match="ranks of the process group"):
            _distributed.shared_group(True, (0, 1))
    finally:
        dist.destroy_process_group()
