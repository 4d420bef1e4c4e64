r"""Methods themselves as cells, two encoders with a moving average, and the bound as a loss with and without a term.

The cube of :mod:`sigreg.lab.experiments.information_maximization` runs parts of methods. Here the methods run: BYOL and
MoCo with a slow copy of the encoder, SimCLR, Barlow Twins and VICReg with one. And the bound of Donsker and Varadhan is
itself the loss, with the critic :math:`T = u \cdot u' / \tau` of unit codes: climbed at once by one encoder, or by
turns by two, each with its marginal term and without.

Network, images, views and learning rate are those of the cube, and for one seed the online encoder starts from the same
weights. Runs are shorter: there collapse shows within some twenty steps, and whether codes live is the question here.
Nothing was tuned. The same readings are kept along the training; at the end one reader, a linear probe with a ridge
chosen on held-out training images, asks the frozen features, those of the untrained network, those of the network
taught with labels, and pixels.

Derived in: Chapter 8, sections 8.3, 8.7 and 8.8.
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import nn

from sigreg.evaluation import features, linear_probe
from sigreg.information_maximization import donsker_varadhan
from sigreg.joint_embedding import (
    barlow_twins_loss,
    byol_loss,
    moco_loss,
    nt_xent_loss,
    update_queue,
    vicreg_loss,
)
from sigreg.lab.batches import ViewBatches
from sigreg.lab.experiments.information_maximization import LATENT_DIM, FirstBatches, images_of, state, trace
from sigreg.lab.fit import fit
from sigreg.lab.judging import pack
from sigreg.lab.models import ConvEncoder, ViewNetwork, follow, mlp
from sigreg.lab.records import table

VERSION = 1
SEEDS = {"default": 1, "full": 3}
CHECK = {"cell": "BYOL"}

TEMPERATURE = 0.2  # of SimCLR, MoCo and the critic of the bound
MOMENTUM = 0.95  # of the slow copy: it remembers some twenty steps
QUEUE = 512  # keys of eight batches
RIDGES = (1e-3, 1e-2, 1e-1)
ASKED = 2000  # test images
TRACED = ("objective", "rank", "spread", "rate", "information")
# what each cell trains: its loss, whether it has a predictor, and what its second encoder is
CELLS = {
    "BYOL": {"loss": "byol", "predictor": True, "second": "slow copy"},
    "MoCo": {"loss": "moco", "predictor": False, "second": "slow copy"},
    "SimCLR": {"loss": "simclr", "predictor": False, "second": "none"},
    "Barlow Twins": {"loss": "barlow twins", "predictor": False, "second": "none"},
    "VICReg": {"loss": "vicreg", "predictor": False, "second": "none"},
    "bound, at once": {"loss": "bound", "predictor": False, "second": "none"},
    "joint term, at once": {"loss": "joint term", "predictor": False, "second": "none"},
    "bound, by turns": {"loss": "bound", "predictor": False, "second": "by turns"},
    "joint term, by turns": {"loss": "joint term", "predictor": False, "second": "by turns"},
    "labels": {"loss": "labels", "predictor": False, "second": "none"},
}


def units(preset, seeds):
    """For each seed all cells and the untrained network; the pixels once."""
    full = preset == "full"
    budget = {"whole": full, "steps": 80 if full else 40, "batch_size": 64, "lr": 2e-3, "probe_images": 1000}
    found = [{"cell": "pixels", "seed": 0, **budget, "steps": 0}]
    for seed in seeds:
        found.append({"cell": "untrained", "seed": seed, **budget, "steps": 0})
        found += [{"cell": name, **cell, "seed": seed, **budget} for name, cell in CELLS.items()]
    return found


class Pair(nn.Module):
    """An online encoder with a projector, a predictor that only BYOL has, and a second encoder or none.

    Returns codes, predictions and targets, (2, B, D) each: the targets are the second encoder's codes. ``turn`` says
    which of two encoders that climb by turns moves; the other one's codes are held fixed.
    """

    def __init__(self, predictor, second):
        super().__init__()
        self.codes = ViewNetwork(ConvEncoder(), hidden=(256,), latent_dim=LATENT_DIM)
        guess = mlp((LATENT_DIM, 64, LATENT_DIM))  # drawn in every cell, so that the rest starts alike
        self.predictor = guess if predictor else nn.Identity()
        self.kind, self.turn = second, 0
        if second == "slow copy":
            self.second = copy.deepcopy(self.codes).requires_grad_(False)
        elif second == "by turns":  # weights of its own
            self.second = ViewNetwork(ConvEncoder(), hidden=(256,), latent_dim=LATENT_DIM)

    def forward(self, *views):
        z = self.codes(*views)
        p = self.predictor(z.flatten(0, 1)).view_as(z)
        t = z if self.kind == "none" else self.second(*views)
        if self.kind == "by turns":
            z, t = (z, t.detach()) if self.turn == 0 else (z.detach(), t)
            p = z
        return z, p, t

    def after_step(self, _):
        """The slow copy follows; of two encoders the other one is next."""
        if self.kind == "slow copy":
            follow(self.second, self.codes, MOMENTUM)
        self.turn = 1 - self.turn


def tolerance(unit):
    """Relative rounding that training leaves: 80 steps end 5% apart in InfoNCE (AVX2 against AVX-512)."""
    return 0.1


def run_unit(unit, device):
    """Train one cell, trace it, and probe its features."""
    images, labels = images_of(True, unit["whole"], device)
    test_images, test_labels = (part[:ASKED] for part in images_of(False, unit["whole"], device))
    result, encoder = {}, nn.Flatten()
    if unit["cell"] != "pixels":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(unit["seed"])
            network = Pair(unit.get("predictor", False), unit.get("second", "none")).to(device)
        encoder = network.codes.encoder
    if unit["steps"]:
        epochs = math.ceil(unit["steps"] / (len(images) // unit["batch_size"]))
        batches = ViewBatches(images, labels, batch_size=unit["batch_size"], epochs=epochs, seed=unit["seed"])
        batches = FirstBatches(batches, unit["steps"])
        loss = objective(unit, device)
        history = fit(network, loss, batches, lr=unit["lr"], after_step=network.after_step)
        result = {name: trace(history, name) for name in TRACED}
    few = slice(unit["probe_images"])
    train_x, test_x = features(encoder, images[few]), features(encoder, test_images)
    probe = linear_probe(train_x, labels[few], test_x, test_labels, ridge=RIDGES, max_iter=40)
    found = {"accuracy": round(probe.accuracy, 5), "ridge": probe.ridge, "right": pack(probe.right.cpu())}
    return {**result, **found}


def objective(unit, device):
    """The loss of one cell, as :func:`sigreg.lab.fit.fit` wants it, with what is traced."""
    generator = torch.Generator().manual_seed(1_000_003 * unit["seed"])
    queue = F.normalize(torch.randn(QUEUE, LATENT_DIM, generator=generator), dim=1).to(device)

    def moco(z, p, t):
        nonlocal queue
        value = (moco_loss(z[0], t[1], queue, temperature=TEMPERATURE) + moco_loss(z[1], t[0], queue,
                 temperature=TEMPERATURE)) / 2  # fmt: skip
        queue = update_queue(queue, F.normalize(t[0].detach(), dim=1))
        return value

    losses = {
        "byol": lambda z, p, t: byol_loss(*p, *t),
        "moco": moco,
        "simclr": lambda z, p, t: nt_xent_loss(*z, temperature=TEMPERATURE),
        "barlow twins": lambda z, p, t: barlow_twins_loss(*z),
        "vicreg": lambda z, p, t: vicreg_loss(*z),
        "bound": lambda z, p, t: -sum(terms.bound for terms in bounds(z, t)) / 2,
        "joint term": lambda z, p, t: -sum(terms.joint for terms in bounds(z, t)) / 2,
    }

    def loss(network, batch):
        *views, labels, _ = batch
        z, p, t = network(*views)
        if unit["loss"] == "labels":  # ten of the code's coordinates are the scores
            value = sum(F.cross_entropy(view[:, :10], labels) for view in z) / 2
        else:
            value = losses[unit["loss"]](z, p, t)
        return {"loss": value, "objective": value, **state(z.detach())}

    return loss


def bounds(z, t):
    """The terms of Donsker and Varadhan's bound for unit codes, the first view against the second and the reverse."""
    u, v = F.normalize(z, dim=-1), F.normalize(t, dim=-1)
    return [donsker_varadhan(u[k] @ v[1 - k].T / TEMPERATURE) for k in (0, 1)]


def summary(record):
    """The headline in plain words."""
    found = table(record)
    ends = found[["spread", "rank", "information"]].map(lambda t: t[-1], na_action="ignore")
    ends, probe = (v.groupby(found.cell, sort=False).mean() for v in (ends, 100 * found.accuracy))
    return "\n".join(
        f"{cell}: probe {probe[cell]:.1f}%" + "".join(f", {name} {value:.3g}" for name, value in row.dropna().items())
        for cell, row in ends.iterrows()
    )
