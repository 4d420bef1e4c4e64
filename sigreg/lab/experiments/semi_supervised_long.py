r"""Few labels, trained long enough for consistency to gain: what SIGReg, VICReg's moments and CEB's rate add to it.

A small encoder, a hundred labels and the other images without: the network learns from the labels alone; then with
*consistency*, the core of FixMatch; then with one further term beside that, SIGReg of all codes, VICReg's moments of
the same codes, or the conditional rate of the labelled ones. For one draw of the labels all methods share the initial
weights, the labelled images and the order of the others, so that differences are paired by draw. Each method's setting
is the best of three equal trials, :mod:`sigreg.lab.experiments.semi_supervised_long_trials`, on held-out training
images and other draws; a method that adds a term to consistency takes consistency's threshold from there too. The
test images are asked once, at the end of a run, and the record keeps which of them were guessed right.

Derived in: Chapter 5, section 5.10.
"""

import functools

import torch

from sigreg.lab.batches import FewLabelBatches, balanced_draw
from sigreg.lab.data import fashion_mnist_tensors
from sigreg.lab.experiments.semi_supervised import HELD_OUT, REFRESHED, geometry
from sigreg.lab.fit import fit
from sigreg.lab.judging import pack
from sigreg.lab.models import CodeClassifier, ConvEncoder, refresh_norms
from sigreg.lab.objectives import semi_supervised_objective
from sigreg.lab.records import best_settings, table
from sigreg.lab.views import BACKGROUND, resample
from sigreg.semi_supervised import sigreg_weight

VERSION = 1
SEEDS = {"default": 15, "full": 15}
CHECK = {"method": "labels"}  # a third of the work of the others

NAMES = {
    "labels": "labels only",
    "consistency": "+ consistency",
    "consistency+sigreg": "+ consistency + SIGReg",
    "consistency+moments": "+ consistency + VICReg's moments",
    "consistency+rate": "+ consistency + conditional rate",
}
GRID = {  # the one setting of each method: what it is, and the three values that are tried
    "labels": ("learning rate", (1e-3, 3e-3, 1e-2)),
    "consistency": ("threshold", (0.7, 0.8, 0.95)),
    "consistency+sigreg": ("nats", (0.01, 0.03, 0.1)),
    "consistency+moments": ("moments", (0.01, 0.1, 1.0)),
    "consistency+rate": ("rate", (0.001, 0.01, 0.1)),
}
TRIALS = "semi_supervised_long_trials"
LR = 3e-3
SMALL = {  # for two CPU cores
    "whole": True,
    "channels": [16, 32, 64],
    "strides": [2, 2, 2],
    "size": 20,
    "dim": 16,
    "steps": 1500,
    "labelled_batch": 32,
    "unlabelled_batch": 64,
    "weight_decay": 1e-3,
}
LARGE = {  # for a GPU
    **SMALL,
    "channels": [64, 128, 128, 256],
    "strides": [1, 2, 2, 2],
    "size": 28,
    "steps": 3000,
    "labelled_batch": 64,
    "unlabelled_batch": 448,
}
LABELS = 100


def units(preset, seeds, labels=LABELS):
    """Draw by draw one unit a method: a run that is cut off ends with whole draws."""
    size, best = LARGE if preset == "full" else SMALL, tuned(preset)
    return [
        {**size, "method": method, "labels": labels, "seed": seed, **best[method]} for seed in seeds for method in GRID
    ]


def tuned(preset):
    """Setting and threshold of each method: the best means of the trials, the middle where there is no record."""
    best = best_settings(TRIALS, preset, {method: values for method, (_, values) in GRID.items()})
    return {method: {"setting": setting, "threshold": best["consistency"]} for method, setting in best.items()}


def tolerance(unit):
    """Relative rounding that training leaves: twice that of the short study, not yet measured on another processor."""
    return 0.06


def run_unit(unit, device):
    """Train one network and ask it about the test images."""
    images, labels = images_of(unit["whole"], unit["size"], device)[2]
    network, found = train(unit, device)
    right = guesses(network, images) == labels
    return {
        "accuracy": round(right.double().mean().item(), 5),
        "right": pack(right.cpu()),
        **geometry(network, images, labels),
        **found,
    }


@functools.lru_cache(maxsize=2)
def images_of(whole, size, device):
    """Images and labels: to train on, at their own size; to choose by and to test on, at the size of the views."""
    images, labels = fashion_mnist_tensors(True, whole=whole)
    kept = len(images) - HELD_OUT[whole]
    test, answers = fashion_mnist_tensors(False, whole=whole)
    parts = (images[:kept], labels[:kept]), (seen_whole(images[kept:], size), labels[kept:])
    return tuple((x.to(device), y.to(device)) for x, y in (*parts, (seen_whole(test, size), answers)))


def seen_whole(images, size):
    """Images (N, 1, size, size), resampled as a view is, without crop, flip, turn or change of ink."""
    maps = torch.eye(2, 3).expand(len(images), 2, 3)
    return BACKGROUND + resample(images - BACKGROUND, maps, torch.ones(len(images)), size)


def train(unit, device):
    """The network of a unit, and what its terms were at the end of its training."""
    images, truth = images_of(unit["whole"], unit["size"], device)[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(unit["seed"])
        encoder = ConvEncoder(unit["channels"], unit["strides"], size=unit["size"])
        network = CodeClassifier(encoder, latent_dim=unit["dim"])
    network.to(device, memory_format=torch.channels_last)
    batches = FewLabelBatches(
        images,
        truth,
        balanced_draw(truth, unit["labels"], torch.Generator().manual_seed(unit["seed"])),
        labelled_batch=unit["labelled_batch"],
        unlabelled_batch=0 if unit["method"] == "labels" else unit["unlabelled_batch"],
        steps=unit["steps"],
        seed=unit["seed"],
        size=unit["size"],
    )
    objective = semi_supervised_objective(seed=unit["seed"], **terms_of(unit))
    lr = unit["setting"] if unit["method"] == "labels" else LR
    history = fit(network, objective, batches, lr=lr, weight_decay=unit["weight_decay"])
    refresh_norms(network, seen_whole(images[:REFRESHED].cpu(), unit["size"]).to(device))
    last = history[-50:]
    return network, {f"train_{key}": round(sum(step[key] for step in last) / len(last), 5) for key in last[0]}


def terms_of(unit):
    """The weights of the loss. SIGReg's is for the mean size of the sets that it scores, one with the labelled codes.

    >>> terms_of({**SMALL, "method": "consistency+rate", "setting": 0.01, "threshold": 0.8})
    {'consistency': 1.0, 'threshold': 0.8, 'rate': 0.01}
    """
    method, setting = unit["method"], unit["setting"]
    if method == "labels":
        return {}
    terms = {"consistency": 1.0, "threshold": unit["threshold"]}
    if method == "consistency+sigreg":
        scored = unit["labelled_batch"] // 2 + unit["unlabelled_batch"]
        terms["sigreg"] = sigreg_weight(unit["dim"], scored, setting)
    elif method != "consistency":
        terms[GRID[method][0]] = setting
    return terms


@torch.no_grad()
def guesses(network, images):
    """The network's guesses, (N,)."""
    network.eval()
    return torch.cat([network(part).logits.argmax(1) for part in images.split(1000)])


def summary(record):
    """The headline in plain words."""
    found = table(record)
    means = 100 * found.groupby("method", sort=False).accuracy.mean()
    reached = ", ".join(f"{NAMES[method]} {value:.2f}%" for method, value in means.items())
    return f"{found.labels.iloc[0]} labels, {found.seed.nunique()} draws: {reached}"
