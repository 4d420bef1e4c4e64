r"""Self-supervised encoders of FashionMNIST by SIGReg and VICReg, beside random, supervised and no encoder at all.

One backbone for all. The pretrained ones see the same images, in the same order and in the same views for one seed;
every one is judged by the same probe on its backbone's features. What the ``full`` preset sets (encoder, learning rate,
weight, views) was chosen in trials of three passes on the first 50 000 training images, judged on
the other 10 000; no test image was looked at. The first seed's SIGReg encoder of that preset is kept beside the record
as ``self_supervised.pt``. ``sigreg.lab.experiments.self_supervised_sweeps`` has what is
swept on the embedded subset.

Derived in: Chapter 6, section 6.7.
"""

import time
from functools import partial

import torch
import torch.nn.functional as F

from sigreg.evaluation import effective_rank, features, knn_accuracy, linear_probe
from sigreg.gaussian_regularization import slice_free_sigreg
from sigreg.joint_embedding import vicreg_loss
from sigreg.lab.batches import ViewBatches
from sigreg.lab.data import fashion_mnist_tensors
from sigreg.lab.fit import fit
from sigreg.lab.models import ConvEncoder, ViewNetwork
from sigreg.lab.objectives import lejepa_objective
from sigreg.lab.pretrained import FILE, PRETRAINED, write_encoder
from sigreg.lab.records import table
from sigreg.lab.views import random_views
from sigreg.self_supervised import view_prediction_rate

VERSION = 1
SEEDS = {"default": 1, "full": 5}

METHODS = ("pixels", "random", "supervised", "vicreg", "sigreg")
CURVE = 100  # points of a training curve that are kept
COMMON_VIEWS = {"scale": (0.3, 1.0), "ratio": 4 / 3, "flip": 0.5, "degrees": 10.0, "intensity": 0.3}
SMALL = {
    "whole": False,
    "channels": [16, 32, 64],
    "strides": [2, 2, 2],
    "hidden": [256],
    "latent_dim": 32,
    "pool": None,
    "epochs": 6,
    "batch_size": 256,
    "lr": 3e-3,
    "weight_decay": 1e-4,
    "weight": 3.0,
    "sigma": 1.0,
    "noise": False,
    "num_slices": 256,
    "views": {"scale": [0.3, 1.0]},
    "ridge": 1e-2,
    "neighbours": 6000,
}


def units(preset, seeds):
    """For each seed one unit a method; the pixels have no seed."""
    budget = dict(SMALL)
    if preset == "full":
        budget.update(
            whole=True,
            channels=list(PRETRAINED["channels"]),
            strides=list(PRETRAINED["strides"]),
            hidden=[512],
            latent_dim=64,
            pool=2,
            epochs=5,
            lr=1e-3,
            weight=1.0,
            views={"scale": [0.3, 0.8], "size": 20},
            neighbours=10_000,
        )
    found = []
    for seed in seeds:
        for method in METHODS:
            if method == "pixels" and seed > 0:
                continue
            unit = {"method": method, "seed": seed, **budget}
            if method == "supervised":  # hard crops cost a classifier accuracy: it gets mild ones
                unit["views"] = {"scale": [0.6, 1.0], "size": budget["views"].get("size", 28)}
            if preset == "full" and method == "sigreg" and seed == 0:
                unit["keep"] = FILE
            found.append(unit)
    return found


def tolerance(unit):
    """Relative rounding that training leaves; the pixels are not trained."""
    return 1e-3 if unit["method"] == "pixels" else 0.03


def run_unit(unit, device):
    """Train one encoder, or none, and judge it; ``keep`` names the file that the encoder is kept in."""
    data = [t.to(device) for part in (True, False) for t in fashion_mnist_tensors(part, whole=unit["whole"])]
    if unit["method"] == "pixels":
        return evaluate_features(data[0].flatten(1), data[1], data[2].flatten(1), data[3], unit)
    network = build(unit, device)
    start = time.perf_counter()
    history = [] if unit["method"] == "random" else train(network, unit, data[0], data[1])
    seconds = time.perf_counter() - start
    found = {
        **evaluate(network, data, unit),
        **size_of(network, unit, len(data[0])),
        "training_seconds": round(seconds, 1),
        "curve": curve_of(history),
    }
    return found, ({unit["keep"]: partial(write_encoder, network.encoder)} if unit.get("keep") else {})


def build(unit, device):
    """The network of a unit, from its seed: on the CPU first, so that every device starts from the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(unit["seed"])
        encoder = ConvEncoder(unit["channels"], unit["strides"])
        outputs = 10 if unit["method"] == "supervised" else unit["latent_dim"]
        network = ViewNetwork(encoder, unit["hidden"], outputs, pool=unit["pool"])
    network.encoder.to(memory_format=torch.channels_last)  # a third faster on a CPU
    return network.to(device)


def batches_of(unit, images, labels):
    """The views of a unit, with the labels as passengers."""
    return ViewBatches(
        images, labels, batch_size=unit["batch_size"], epochs=unit["epochs"], seed=unit["seed"], **unit["views"]
    )


def objective_of(unit):
    """The loss of a unit as :func:`sigreg.lab.fit.fit` wants it."""
    if unit["method"] == "sigreg":
        settings = {key: unit[key] for key in ("weight", "sigma", "num_slices", "noise", "seed")}
        return lejepa_objective(**settings)

    def vicreg(network, batch):
        *views, _, _ = batch
        return vicreg_loss(*network(*views))

    def supervised(network, batch):
        *views, labels, _ = batch
        return torch.stack([F.cross_entropy(scores, labels) for scores in network(*views)]).mean()

    return {"vicreg": vicreg, "supervised": supervised}[unit["method"]]


def train(network, unit, images, labels, checkpoint=None, after_step=None):
    """Fit the network of a unit; the history, one dictionary a step."""
    return fit(
        network,
        objective_of(unit),
        batches_of(unit, images, labels),
        lr=unit["lr"],
        weight_decay=unit["weight_decay"],
        checkpoint=checkpoint,
        after_step=after_step,
    )


# ---------------------------------------------------------------- judging


def evaluate_features(train_x, train_y, test_x, test_y, unit):
    """Linear probe, neighbours and effective rank of features."""
    probe = linear_probe(train_x, train_y, test_x, test_y, ridge=unit["ridge"], max_iter=100)
    near = slice(0, unit["neighbours"])
    return {
        "accuracy": round(probe.accuracy, 5),
        "train_accuracy": round(probe.train_accuracy, 5),
        "knn": round(knn_accuracy(train_x[near], train_y[near], test_x, test_y), 5),
        "feature_rank": round(effective_rank(test_x), 3),
        "features": train_x.shape[1],
    }


def evaluate(network, data, unit):
    """The features of a network, and for codes also their law and how well one view tells the other."""
    train_x, train_y, test_x, test_y = data
    found = evaluate_features(
        features(network.encoder, train_x), train_y, features(network.encoder, test_x), test_y, unit
    )
    return found if unit["method"] == "supervised" else {**found, **evaluate_codes(network, test_x)}


@torch.no_grad()
def evaluate_codes(network, images, seed=10_000):
    r"""Effective rank, slice-free SIGReg and the rate (sigma = 1) of the codes of images the network has not seen.

    ``code_rank`` and ``code_sigreg`` are of the images as they are, ``rate`` and ``view_sigreg`` of two views that
    are the same for every network; SIGReg is the mean over batches of 250.
    """
    generator = torch.Generator().manual_seed(seed)
    network.eval()
    parts = images.split(500)
    codes = torch.cat([network(part)[0] for part in parts])
    views = torch.cat(
        [network(*(random_views(part, generator, **COMMON_VIEWS) for _ in range(2))) for part in parts], 1
    )
    network.train()
    return {
        "code_rank": round(effective_rank(codes), 3),
        "code_variance": float(f"{codes.var(0, correction=0).mean().item():.4g}"),
        "code_sigreg": round(mean_sigreg(codes[None]), 4),
        "rate": float(f"{view_prediction_rate(views).item():.5g}"),
        "view_sigreg": round(mean_sigreg(views), 4),
        "unpredictable": round(unpredictable_share(views), 4),
    }


def mean_sigreg(views, batch=250):
    """Slice-free SIGReg of (V, N, D) codes in batches."""
    values = [slice_free_sigreg(part, sync=False) for part in views.split(batch, 1) if part.shape[1] == batch]
    return torch.stack(values).mean().item()


def unpredictable_share(views):
    r"""Variance of the codes within an image over all their variance, summed over coordinates.

    >>> unpredictable_share(torch.tensor([[[0.0], [1.0]], [[0.0], [1.0]]]))  # two views that agree
    0.0
    """
    total = views.flatten(0, 1).var(0, correction=0).sum().item()
    return view_prediction_rate(views).item() / total if total > 1e-30 else 0.0


def size_of(network, unit, images):
    """The budget: parameters, steps and images seen."""
    steps = 0 if unit["method"] == "random" else unit["epochs"] * (images // unit["batch_size"])
    return {
        "parameters": sum(p.numel() for p in network.encoder.parameters()),
        "all_parameters": sum(p.numel() for p in network.parameters()),
        "steps": steps,
        "views_seen": 2 * steps * unit["batch_size"],
    }


def curve_of(history):
    """The history averaged over at most ``CURVE`` stretches: lists of ``step`` (the last of each) and of every term."""
    if not history:
        return {}
    edges = sorted({round(len(history) * (k + 1) / CURVE) for k in range(CURVE)} - {0})
    found = {"step": edges}
    for key in history[0]:
        means = [sum(h[key] for h in history[a:b]) / (b - a) for a, b in zip([0, *edges], edges, strict=False)]
        found[key] = [float(f"{m:.5g}") for m in means]
    return found


def summary(record):
    """The headline in plain words."""
    means = 100 * table(record).groupby("method").accuracy.mean()
    parts = ", ".join(f"{m} {means[m]:.2f}%" for m in METHODS)
    gains = f"SIGReg minus random {means['sigreg'] - means['random']:+.2f} points"
    return f"linear probe: {parts}\n{gains}, minus supervised {means['sigreg'] - means['supervised']:+.2f} points"
