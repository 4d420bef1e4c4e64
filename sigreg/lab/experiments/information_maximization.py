r"""Stop-gradient, predictor, regulariser: which of the eight combinations collapse on FashionMNIST.

One network, one prediction loss (SimSiam's negative cosine, which no change of scale can please), one optimiser, and
for one seed the same initial weights and the same views in every cell. The regulariser is SIGReg of the codes.

Recorded along the training, on the codes of each training batch before its own step: the effective rank of the unit
codes, their spread (1 where they fill the sphere evenly, 0 where they are one point), a Gaussian upper bound on the
rate of unit codes with a little noise, and InfoNCE, a lower bound on the information that the codes of the two views
share. At the end: a linear probe on the frozen features, beside that of the untrained network.

Derived in: Chapter 8, section "The cube on FashionMNIST".
"""

import math
from functools import cache
from itertools import product

import torch
import torch.nn.functional as F
from torch import nn

from sigreg.evaluation import effective_rank, features, linear_probe
from sigreg.gaussian_regularization import random_directions, sliced_sigreg
from sigreg.information_maximization import info_nce_bound
from sigreg.joint_embedding import negative_cosine
from sigreg.lab.batches import ViewBatches
from sigreg.lab.data import fashion_mnist_tensors
from sigreg.lab.fit import fit
from sigreg.lab.models import ConvEncoder, ViewNetwork, mlp
from sigreg.lab.reading import collapsed
from sigreg.lab.records import table

VERSION = 1
SEEDS = {"default": 1, "full": 5}
CHECK = {"cell": "regulariser"}

CELLS = list(product((False, True), repeat=3))  # stop-gradient, predictor, regulariser
LATENT_DIM = 32
NOISE = 0.5  # of the code whose rate is recorded, where unit codes are stretched to length sqrt(D)
TEMPERATURES = (0.05, 0.1, 0.2, 0.5, 1.0)  # of the critics u.u'/tau among which InfoNCE takes the best
WEIGHT = 0.1  # of SIGReg, whose value is 0.4 B at collapse and 1 at its target
TRACED = ("prediction", "sigreg", "rank", "spread", "rate", "information")
POINTS = 25  # along the training, each a mean over equally many steps


def units(preset, seeds):
    """For each seed the eight cells, and the untrained network."""
    full = preset == "full"
    budget = {
        "whole": full,
        "steps": 240 if full else 120,
        "batch_size": 128,
        "lr": 2e-3,
        "probe_images": 2000,
    }
    found = []
    for seed in seeds:
        found.append({"cell": "untrained", "seed": seed, **{**budget, "steps": 0}})
        for stop_gradient, predictor, regularizer in CELLS:
            cell = {"stop_gradient": stop_gradient, "predictor": predictor, "regularizer": regularizer}
            found.append({"cell": name_of(**cell), **cell, "seed": seed, **budget})
    return found


def name_of(stop_gradient, predictor, regularizer):
    """The name of a cell.

    >>> name_of(True, True, False)
    'stop-gradient + predictor'
    >>> name_of(False, False, False)
    'prediction alone'
    """
    parts = [
        part
        for part, used in (
            ("stop-gradient", stop_gradient),
            ("predictor", predictor),
            ("regulariser", regularizer),
        )
        if used
    ]
    return " + ".join(parts) or "prediction alone"


class CubeNetwork(nn.Module):
    """Encoder and projector, and a predictor that only some cells use: codes and predictions, (2, B, D) each."""

    def __init__(self, predictor):
        super().__init__()
        self.codes = ViewNetwork(ConvEncoder(), hidden=(256,), latent_dim=LATENT_DIM)
        guess = mlp((LATENT_DIM, 64, LATENT_DIM))  # drawn in every cell, so that the rest starts alike
        self.predictor = guess if predictor else nn.Identity()

    def forward(self, *views):
        z = self.codes(*views)
        return z, self.predictor(z.flatten(0, 1)).view_as(z)


def tolerance(unit):
    """Relative rounding that training leaves: 240 steps end 0.6% apart (AVX2 against AVX-512)."""
    return 0.02


def run_unit(unit, device):
    """Train one cell, trace it, and probe its features."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(unit["seed"])
        network = CubeNetwork(unit.get("predictor", False)).to(device)
    images, labels = images_of(True, unit["whole"], device)
    result = {}
    if unit["steps"]:
        epochs = math.ceil(unit["steps"] / (len(images) // unit["batch_size"]))
        batches = ViewBatches(images, batch_size=unit["batch_size"], epochs=epochs, seed=unit["seed"])
        batches = FirstBatches(batches, unit["steps"])
        history = fit(network, objective(unit), batches, lr=unit["lr"])
        result = {name: trace(history, name) for name in TRACED}
    test = images_of(False, unit["whole"], device)
    few = slice(unit["probe_images"])
    train_x, test_x = features(network.codes.encoder, images[few]), features(network.codes.encoder, test[0])
    result["probe_accuracy"] = round(linear_probe(train_x, labels[few], test_x, test[1]).accuracy, 5)
    return result


@cache
def images_of(train, whole, device):
    """Images and labels on the device, kept for the next unit: reading them takes as long as half a unit."""
    return [tensor.to(device) for tensor in fashion_mnist_tensors(train, whole=whole)]


class FirstBatches:
    """The first ``count`` of some batches, sized and re-iterable."""

    def __init__(self, batches, count):
        self.batches, self.count = batches, count

    def __len__(self):
        return self.count

    def __iter__(self):
        for _, batch in zip(range(self.count), self.batches, strict=False):
            yield batch


def objective(unit):
    """The loss of one cell, as :func:`sigreg.lab.fit.fit` wants it, with what is traced."""

    def loss(network, batch):
        *views, _, step = batch
        z, p = network(*views)
        target = z.detach() if unit["stop_gradient"] else z
        prediction = (negative_cosine(p[0], target[1]) + negative_cosine(p[1], target[0])) / 2
        generator = torch.Generator().manual_seed(1_000_003 * unit["seed"] + int(step[0]))
        directions = random_directions(256, LATENT_DIM, generator=generator, device=z.device, dtype=z.dtype)
        with torch.set_grad_enabled(unit["regularizer"]):
            value = sliced_sigreg(z, directions)
        total = prediction + WEIGHT * value if unit["regularizer"] else prediction
        return {"loss": total, "prediction": prediction, "sigreg": value, **state(z.detach())}

    return loss


@torch.no_grad()
def state(z):
    """Effective rank, spread, rate and shared information of the unit codes of two views, (2, B, D): scalars."""
    unit = F.normalize(z.double(), dim=-1, eps=1e-30)
    both = unit.flatten(0, 1)
    centred = both - both.mean(0)
    covariance = centred.T @ centred / len(both)
    values = torch.linalg.eigvalsh(covariance).clamp_min(0)
    stretched = z.shape[-1] * values / NOISE**2
    bounds = [info_nce_bound(unit[0] @ unit[1].T / temperature) for temperature in TEMPERATURES]
    return {
        "rank": torch.tensor(effective_rank(both), device=z.device),
        "spread": values.sum().sqrt(),
        "rate": torch.log1p(stretched).sum() / 2,
        "information": torch.stack(bounds).amax(),
    }


def trace(history, name):
    """Means over ``POINTS`` equal parts of the training, to five digits."""
    values = torch.tensor([entry[name] for entry in history], dtype=torch.float64)
    return [float(f"{part.mean():.5g}") for part in values.tensor_split(min(POINTS, len(values)))]


def summary(record):
    """The headline in plain words."""
    found = table(record)
    shown = found.reindex(columns=["spread", "rank", "rate", "information"]).map(lambda t: t[-1], na_action="ignore")
    ends = shown.groupby(found.cell, sort=False).mean()
    probe = 100 * found.groupby("cell", sort=False).probe_accuracy.mean()
    lines = []
    for cell, row in ends.iterrows():
        traced = [f"{name} {value:.3g}" for name, value in row.dropna().items()]
        lines.append(f"{cell}: " + ", ".join([f"probe {probe[cell]:.1f}%", *traced]))
    every, some = collapsed(found)
    lines.append(f"collapsed in every seed: {'; '.join(every) or 'none'}; in some: {'; '.join(some) or 'none'}")
    return "\n".join(lines)
