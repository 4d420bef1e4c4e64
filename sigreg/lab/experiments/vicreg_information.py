r"""VICReg, its entropy variants, Barlow Twins and SIGReg on FashionMNIST: one network, one budget, one judge.

One network for all (:class:`sigreg.lab.models.ViewNetwork` around a small :class:`sigreg.lab.models.ConvEncoder`); for
one seed the same initial weights and the same views in the same order, so that differences between methods are paired.
Each method has one weight to choose.

Parts: ``tune`` tries the same number of weights for each, on one seed and a part of the data, and reads the accuracy on
images kept from training; :data:`CHOSEN` are the best of them (:func:`sigreg.lab.reading.tuned` reads them off a
record, and a test compares). ``final`` trains with these on all training images and asks the test images: accuracy of
a linear probe on the features, what the codes know of the other view
(:func:`sigreg.vicreg_information.information_steps`), and the bound of Chapter 7 with its terms. ``runner-up`` does the
same with the weights of :data:`RUNNER_UP`. ``baseline`` judges pixels and an untrained network in the same way.

Derived in: Chapter 7, sections 7.5 and 7.6.
"""

import math

import torch
import torch.nn.functional as F

from sigreg.evaluation import effective_rank, features, linear_probe
from sigreg.gaussian_regularization import SIGReg, slice_free_sigreg
from sigreg.joint_embedding import (
    barlow_twins_loss,
    invariance_term,
    vicreg_logdet_loss,
    vicreg_loss,
    vicreg_pairdist_loss,
)
from sigreg.lab.batches import ViewBatches
from sigreg.lab.data import fashion_mnist_tensors
from sigreg.lab.fit import fit
from sigreg.lab.models import ConvEncoder, ViewNetwork
from sigreg.lab.reading import tuned
from sigreg.lab.records import table
from sigreg.lab.views import random_views
from sigreg.vicreg_information import information_steps, probe_terms, ridge_probe

VERSION = 1
SEEDS = {"default": 1, "full": 5}
CHECK = {"part": "tune", "method": "sigreg"}

METHODS = ("vicreg", "logdet", "pairdist", "barlow_twins", "sigreg", "slice_free")
NAMES = {
    "vicreg": "VICReg",
    "logdet": "VICReg + LogDet",
    "pairdist": "VICReg + PairDist",
    "barlow_twins": "Barlow Twins",
    "sigreg": "SIGReg, sketched",
    "slice_free": "SIGReg, slice-free",
    "random": "untrained network",
    "pixels": "pixels",
}
# The one weight of each: of the invariance, against a regularizer of weight one (VICReg: 25 v + c); for Barlow Twins of
# the redundancy term. Four of them, a factor of four apart.
GRID = {
    "vicreg": (1.5625, 6.25, 25.0, 100.0),
    "logdet": (0.5, 2.0, 8.0, 32.0),
    "pairdist": (0.03125, 0.125, 0.5, 2.0),
    "barlow_twins": (0.00125, 0.005, 0.02, 0.08),
    "sigreg": (0.625, 2.5, 10.0, 40.0),
    "slice_free": (0.625, 2.5, 10.0, 40.0),
}
CHOSEN = {
    "vicreg": 25.0,
    "logdet": 8.0,
    "pairdist": 0.125,
    "barlow_twins": 0.005,
    "sigreg": 10.0,
    "slice_free": 10.0,
}
RUNNER_UP = {"sigreg": 2.5}  # tuning told it from the chosen weight by a single image of 10 000: both ran
VIEWS = 3  # of each test image
ASKED = 4000  # test images, at most, whose two views are compared for the information between them
LABELS = (50, 150, 500, 1500, 5000)  # labelled images of the bound's probe
DRAWS = 20  # of them


def units(preset, seeds):
    """Tuning first, one unit for each method and weight; then one for each method and seed."""
    full = preset == "full"
    network = {"hidden": 256, "latent_dim": 32}
    budget = {"whole": full, "batch_size": 256, "lr": 2e-3, "probe": 10_000 if full else 2_000, **network}
    final = {"part": "final", "images": 60_000 if full else 6_000, "epochs": 1 if full else 2, **budget}
    tune = {"part": "tune", "images": 20_000 if full else 2_000, "epochs": 1, **budget}
    found = [
        {"method": method, "weight": weight, "seed": 1000, **tune} for method in METHODS for weight in GRID[method]
    ]
    found.append({"method": "pixels", "seed": 0, **final, "part": "baseline"})
    for seed in seeds:
        found.append({"method": "random", "seed": seed, **final, "part": "baseline"})
        found += [{"method": method, "weight": CHOSEN[method], "seed": seed, **final} for method in METHODS]
    for seed in seeds if full else ():
        found += [{"method": m, "weight": w, "seed": seed, **final, "part": "runner-up"} for m, w in RUNNER_UP.items()]
    return found


def tolerance(unit):
    """Relative rounding that training leaves; pixels and the network as it starts are not trained."""
    return 0.01 if unit["method"] in METHODS else 1e-3


def run_unit(unit, device):
    """Train the network of a unit, unless it is a baseline, and judge it."""
    images, labels = (t.to(device) for t in fashion_mnist_tensors(True, whole=unit["whole"]))
    tuning = unit["part"] == "tune"
    if tuning:  # the last sixth of the training images stands for the test
        kept = len(images) - len(images) // 6
        test, images, labels = (images[kept:], labels[kept:]), images[:kept], labels[:kept]
    else:
        test = tuple(t.to(device) for t in fashion_mnist_tensors(False, whole=unit["whole"]))
    train = images[: unit["probe"]], labels[: unit["probe"]]
    if unit["method"] == "pixels":
        return {"accuracy": _accuracy(train[0].flatten(1), train[1], test[0].flatten(1), test[1])}
    network = untrained_network(unit).to(device)
    if unit["method"] in METHODS:
        batches = ViewBatches(
            images[: unit["images"]], batch_size=unit["batch_size"], epochs=unit["epochs"], seed=unit["seed"]
        )
        fit(network, objective(unit["method"], unit["weight"]), batches, lr=unit["lr"])
    network.eval()
    seen, asked = features(network.encoder, train[0]), features(network.encoder, test[0])
    found = {"accuracy": _accuracy(seen, train[1], asked, test[1])}
    if tuning:
        return found
    found["code_accuracy"] = _accuracy(
        features(network.projector, seen), train[1], features(network.projector, asked), test[1]
    )
    return {**found, **evaluate_codes(network, train[0], *test, unit["seed"])}


def untrained_network(unit):
    """The network that every method starts from: its weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(unit["seed"])
        return ViewNetwork(ConvEncoder(), hidden=(unit["hidden"],), latent_dim=unit["latent_dim"])


def objective(method, weight):
    """The loss of a method with its one weight, as :func:`sigreg.lab.fit.fit` wants it.

    >>> codes = lambda *views: torch.stack([view.flatten(1) for view in views])
    >>> batch = torch.zeros(4, 1, 1, 2), torch.zeros(4, 1, 1, 2), torch.arange(4), torch.zeros(4)
    >>> objective("vicreg", 25.0)(codes, batch)
    tensor(24.7500)
    """
    pair_losses = {
        "vicreg": lambda a, b: vicreg_loss(a, b, invariance=weight),
        "logdet": lambda a, b: vicreg_logdet_loss(a, b, invariance=weight),
        "pairdist": lambda a, b: vicreg_pairdist_loss(a, b, invariance=weight),
        "barlow_twins": lambda a, b: barlow_twins_loss(a, b, redundancy=weight),
    }
    sketch = SIGReg(num_slices=256)

    def loss(network, batch):
        *views, _, step = batch
        z = network(*views)
        if method in pair_losses:
            return pair_losses[method](*z)
        generator = torch.Generator().manual_seed(int(step[0]))
        regularizer = sketch(z, generator) if method == "sigreg" else slice_free_sigreg(z)
        return weight * invariance_term(*z) + regularizer

    return loss


def _accuracy(train_x, train_y, test_x, test_y):
    return round(linear_probe(train_x, train_y, test_x, test_y, ridge=1e-2, max_iter=80).accuracy, 5)


@torch.no_grad()
def evaluate_codes(network, train_images, images, labels, seed):
    """What the codes of several views of unseen images know, and the bound's terms beside the measured error."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.stack([codes_of(network, random_views(images, generator)) for _ in range(VIEWS)])
    reference = codes_of(network, random_views(train_images, generator)).double()
    steps = information_steps(codes[0, :ASKED], codes[1, :ASKED])
    found = {
        "rank": round(effective_rank(codes[0]), 4),
        "steps": {name: round(value, 5) for name, value in vars(steps).items()},
    }
    for name, prepare in (("white", whitening(reference)), ("plain", one_scale(reference))):
        z = prepare(codes.double())
        terms = probe_terms(z, labels)
        found[name] = {
            "terms": {key: round(value, 6) for key, value in vars(terms).items()},
            "measured": measured_error(z, labels, terms, generator),
        }
    return found


def codes_of(network, images):
    """Codes of many images, one view each, (N, D); the network itself takes several views at a time."""
    return features(network.projector, features(network.encoder, images))


def whitening(reference):
    """An affine map to zero mean and unit covariance of the reference codes, then a cut at the radius."""
    values, vectors = torch.linalg.eigh(torch.cov(reference.T))
    scale = vectors / values.clamp_min(1e-10).sqrt()
    return lambda z: cut((z - reference.mean(0)) @ scale)


def one_scale(reference):
    """Zero mean, and one factor that makes the mean variance of the reference codes 1; then the same cut."""
    scale = reference.var(0).mean().clamp_min(1e-20).sqrt()
    return lambda z: cut((z - reference.mean(0)) / scale)


def cut(z):
    """Codes longer than sqrt(2 D) are shortened to it: the bound needs a largest length."""
    length = torch.linalg.vector_norm(z, dim=-1, keepdim=True)
    return z * (math.sqrt(2 * z.shape[-1]) / length.clamp_min(1e-20)).clamp_max(1)


def measured_error(z, labels, terms, generator):
    """The ridge probe of the bound, trained on n labelled views of one half of the images and asked about the other.

    For each n: squared error and share of wrong guesses, each with its standard error over the draws of n.
    """
    half = len(labels) // 2
    order = torch.randperm(len(labels), generator=generator).to(labels.device)
    labelled, asked = order[:half], order[half:]
    test = F.pad(z[1, asked], (1, 0), value=1.0)
    target = F.one_hot(labels[asked], terms.classes).double()
    curve = []
    for n in [n for n in LABELS if n <= half]:
        values = []
        for _ in range(DRAWS if n < half else 1):
            chosen = labelled[torch.randperm(half, generator=generator)[:n].to(labels.device)]
            guess = test @ ridge_probe(z[0, chosen], labels[chosen], terms.radius, terms.classes).T
            wrong = (guess.argmax(1) != labels[asked]).double().mean()
            values.append([(guess - target).square().sum(1).mean().item(), wrong.item()])
        values = torch.tensor(values, dtype=torch.float64)
        error = values.std(0) / math.sqrt(len(values)) if len(values) > 1 else torch.zeros(2)
        curve.append(
            {
                "n": n,
                "risk": round(values[:, 0].mean().item(), 6),
                "risk_error": round(error[0].item(), 6),
                "wrong": round(values[:, 1].mean().item(), 6),
                "wrong_error": round(error[1].item(), 6),
            }
        )
    return curve


def summary(record):
    """The accuracies in plain words, and whether the weights used are those that tuning prefers."""
    found, lines = table(record), []
    judged = found[found.part.isin(["final", "baseline"])].groupby("method").accuracy.agg(["mean", "size"])
    for method in ("pixels", "random", *METHODS):
        mean, count = judged.loc[method]
        lines.append(f"{NAMES[method]:20} linear probe {100 * mean:.2f}%  ({count:.0f} runs)")
    preferred, final = tuned(found), found[found.part == "final"]
    changed = sorted(set(final.method[final.weight != final.method.map(preferred)]))
    lines.append(f"weights that differ from those that tuning prefers: {', '.join(changed) or 'none'}")
    return "\n".join(lines)
