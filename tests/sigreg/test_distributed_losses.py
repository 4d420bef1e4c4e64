"""Two and three processes against one, for every loss with batch statistics: value, gradient, ten steps of training."""

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from sigreg import conditional_bottleneck as cb
from sigreg import joint_embedding as je
from sigreg import self_supervised, semi_supervised
from sigreg.gaussian_regularization import radial_sigreg, random_directions
from sigreg.lab.objectives import semi_supervised_objective

ROWS, D, CLASSES = 12, 3, 3
SPLITS = {2: (5, 7), 3: (8, 0, 4)}  # uneven, and one process without a batch
DIRECTIONS = random_directions(16, D, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
QUEUE = torch.randn(6, D, generator=torch.Generator().manual_seed(8), dtype=torch.float64)


def views(z):
    return z.unbind(1)


def codes(z):
    """One code, its mean and the logarithm of its deviation, all of them learned."""
    return z[:, 0].sin(), z[:, 1].sin(), 0.3 * (z[:, 1] * z[:, 0]).tanh()


def few_labels(z, y, x, **settings):
    """The objective of Chapter 5, with the codes themselves in the place of an encoder."""
    labelled = x[:, 0] > 0
    image = torch.cat([z[:, 0][labelled], z[:, 0][~labelled], z[:, 1][~labelled]])

    class Network(torch.nn.Module):
        code = (SimpleNamespace(out_features=D),)

        def forward(self, images, noise):
            w = images + noise
            return SimpleNamespace(w=w, mean=images, logits=w * torch.arange(1, CLASSES + 1))

    parts = image.split([int(labelled.sum()), int((~labelled).sum()), int((~labelled).sum())])
    loss = semi_supervised_objective(rate=0.3, sigreg=0.2, views=0.1, consistency=0.4, threshold=0.4, **settings)
    return loss(Network(), (parts[0], y[labelled], parts[1], parts[2], torch.zeros(1)))["loss"]


CASES = {
    "invariance": lambda z, y, x, **s: je.invariance_term(*views(z), **s),
    "variance": lambda z, y, x, **s: je.variance_term(z[:, 0], target=5.0, **s),
    "covariance": lambda z, y, x, **s: je.covariance_term(z[:, 0], **s),
    "vicreg": lambda z, y, x, **s: je.vicreg_loss(*views(z), **s),
    "vicreg, time": lambda z, y, x, **s: je.vicreg_loss(z.transpose(0, 1), z.transpose(0, 1).sin(), **s),
    "vicreg logdet": lambda z, y, x, **s: je.vicreg_logdet_loss(*views(z), **s),
    "vicreg pairdist": lambda z, y, x, **s: je.vicreg_pairdist_loss(*views(z), **s),
    "barlow": lambda z, y, x, **s: je.barlow_twins_loss(*views(z), **s),
    "nt_xent": lambda z, y, x, **s: je.nt_xent_loss(*views(z), **s),
    "moco": lambda z, y, x, **s: je.moco_loss(*views(z), je.update_queue(QUEUE, z[:, 1], **s), **s),
    "cosine": lambda z, y, x, **s: je.negative_cosine(*views(z), **s),
    "simsiam": lambda z, y, x, **s: je.simsiam_loss(*views(z), *views(z.sin()), **s),
    "byol": lambda z, y, x, **s: je.byol_loss(*views(z), *views(z.sin()), **s),
    "rate": lambda z, y, x, **s: cb.minibatch_rate(*codes(z), **s),
    "conditional rate": lambda z, y, x, **s: cb.minibatch_rate(*codes(z), y, include_self=False, **s),
    "defensive rate": lambda z, y, x, **s: cb.defensive_rate(*codes(z), y, **s),
    "pairwise rate": lambda z, y, x, **s: cb.pairwise_rate(*codes(z)[1:], y, **s),
    "pairwise bounds": lambda z, y, x, **s: sum(cb.pairwise_rate_bounds(*codes(z)[1:], **s)),
    "vib": lambda z, y, x, **s: cb.vib_rate(*codes(z)[1:], **s),
    "ceb": lambda z, y, x, **s: cb.variational_ceb_rate(*codes(z)[1:], y, QUEUE[:3], 0 * QUEUE[:3], **s),
    "bottleneck": lambda z, y, x, **s: cb.bottleneck_loss(z[:, 0], y, cb.vib_rate(*codes(z)[1:], **s), 0.3, **s),
    "relevance": lambda z, y, x, **s: cb.minibatch_relevance(*codes(z), y, **s),
    "view prediction": lambda z, y, x, **s: self_supervised.view_prediction_rate(z.transpose(0, 1), 0.5, **s),
    "view loss": lambda z, y, x, **s: self_supervised.view_prediction_loss(
        z.transpose(0, 1), weight=0.3, sigma=0.5, num_slices=8, noise=True, **s
    )["loss"],
    "lejepa": lambda z, y, x, **s: self_supervised.lejepa_loss(
        z.transpose(0, 1), z[:, :1].transpose(0, 1).sin(), weight=0.3, num_slices=8, **s
    )["loss"],
    "lejepa with scale": lambda z, y, x, **s: self_supervised.lejepa_loss(
        z.transpose(0, 1), weight=0.3, num_slices=8, scale=0.7, **s
    )["loss"],
    "lejepa pooled": lambda z, y, x, **s: self_supervised.lejepa_loss(
        z.transpose(0, 1), weight=0.3, num_slices=8, pooled=True, **s
    )["loss"],
    "radial": lambda z, y, x, **s: radial_sigreg(z.transpose(0, 1), **s),
    "class sigreg": lambda z, y, x, **s: semi_supervised.class_sigreg(
        z[:, 0], z[:, 1].softmax(1), 0.7, DIRECTIONS, **s
    ),
    "consistency": lambda z, y, x, **s: semi_supervised.consistency_loss(*views(3 * z), threshold=0.5, **s),
    "few labels": few_labels,
}


def problem():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, 4, generator=generator, dtype=torch.float64)
    weight = torch.randn(4, 2 * D, generator=generator, dtype=torch.float64) / 2
    return x, torch.arange(ROWS) % CLASSES, weight


def run(loss, x, y, weight, world, **settings):
    """The value, the gradient in the codes, and the weights after ten steps with averaged gradients."""
    z = (x @ weight).unflatten(1, (2, D)).detach().requires_grad_()
    value = loss(z, y, x, **settings)
    value.backward()
    weight = weight.clone().requires_grad_()
    for _ in range(10):
        (slope,) = torch.autograd.grad(loss((x @ weight).unflatten(1, (2, D)), y, x, **settings), weight)
        if world > 1:
            dist.all_reduce(slope)
            slope /= world
        weight = (weight - 0.02 * slope).detach().requires_grad_()
    return value.detach(), z.grad / world, weight.detach()


def process(rank, world, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store{world}", rank=rank, world_size=world)
    x, y, weight = problem()
    mine = slice(sum(SPLITS[world][:rank]), sum(SPLITS[world][: rank + 1]))
    found = {}
    for name, loss in CASES.items():
        torch.manual_seed(rank)  # only the first process draws as one process would
        found[name] = run(loss, x[mine], y[mine], weight, world)
    if world == 2:  # alone, or in a group of one: as if the other were not there
        alone = [dist.new_group([i]) for i in range(world)][rank]
        for name, loss in CASES.items():
            if name == "few labels":
                continue
            values = []
            for settings in ({"sync": False}, {"group": alone}):
                torch.manual_seed(0)
                z = (x[mine] @ weight).unflatten(1, (2, D))
                values.append(loss(z, y[mine], x[mine], **settings))
            found[name] = (*found[name], *values)
    torch.save(found, f"{folder}/{world}-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    for world in SPLITS:
        mp.spawn(process, args=(world, str(folder)), nprocs=world)
    return {
        world: [torch.load(folder / f"{world}-{rank}.pt") for rank in range(world)] for world in SPLITS
    }


@pytest.mark.skipif(not dist.is_available(), reason="torch was built without torch.distributed")
@pytest.mark.parametrize("name", CASES)
def test_processes_are_one(found, name):
    x, y, weight = problem()
    torch.manual_seed(0)
    value, slope, trained = run(CASES[name], x, y, weight, 1)
    assert (trained - weight).abs().max() > 1e-5 and slope.abs().max() > 1e-6  # there is something to get wrong
    for world, ranks in found.items():
        own = [rank[name] for rank in ranks]
        for process in own:
            torch.testing.assert_close(process[0], value)
            torch.testing.assert_close(process[2], trained)
        torch.testing.assert_close(torch.cat([process[1] for process in own]), slope)
        assert [len(process[1]) for process in own] == list(SPLITS[world])


@pytest.mark.skipif(not dist.is_available(), reason="torch was built without torch.distributed")
@pytest.mark.parametrize("name", [name for name in CASES if name != "few labels"])  # too few on a process
def test_a_process_can_stand_alone(found, name):
    x, y, weight = problem()
    for rank, start in ((0, 0), (1, SPLITS[2][0])):
        mine = slice(start, start + SPLITS[2][rank])
        torch.manual_seed(0)
        value = CASES[name]((x[mine] @ weight).unflatten(1, (2, D)), y[mine], x[mine])
        for shared in found[2][rank][name][3:]:
            torch.testing.assert_close(shared.detach(), value)
