r"""What matters in learning without labels, swept on the embedded subset: views, slices, the knob, the loss as judge.

Parts, all with the small encoder of :mod:`sigreg.lab.experiments.self_supervised` and its budget:

* ``methods``: SIGReg, VICReg, labels and nothing, over seeds;
* ``views``: each augmentation left out in turn;
* ``slices``: 16 to 1024 directions and the slice-free form, with the noise and the cost of each;
* ``knob``: lambda and the noise, with the noise in the law; ``weight``: lambda alone, down to zero;
* ``predicts``: hyper-parameters at random, the loss beside the probe.

Derived in: Chapter 6, section 6.6.
"""

import math
import time

import torch

from sigreg.gaussian_regularization import random_directions, slice_free_sigreg, sliced_sigreg
from sigreg.lab.batches import ViewBatches
from sigreg.lab.data import fashion_mnist_tensors
from sigreg.lab.experiments.self_supervised import SMALL, build, curve_of, evaluate, objective_of, size_of, train
from sigreg.lab.records import table
from sigreg.lab.views import random_views

VERSION = 1
SEEDS = {"default": 1, "full": 5}

STILL = {"scale": [1.0, 1.0], "ratio": 1.0, "flip": 0.0, "degrees": 0.0, "intensity": 0.0}
ALL = {"scale": [0.3, 1.0], "ratio": 4 / 3, "flip": 0.5, "degrees": 10.0, "intensity": 0.3}
VIEWS = {
    "all": ALL,
    "without crops": {**ALL, "scale": [1.0, 1.0], "ratio": 1.0},
    "without flips": {**ALL, "flip": 0.0},
    "without rotations": {**ALL, "degrees": 0.0},
    "without intensity": {**ALL, "intensity": 0.0},
    "crops alone": {**STILL, "scale": [0.3, 1.0], "ratio": 4 / 3},
}
SLICES = (16, 64, 256, 1024, None)
SIGMAS = (0.1, 0.3, 0.6)
PRODUCTS = (0.3, 3.0, 30.0)  # lambda sigma^2
WEIGHTS = (0.0, 0.03, 0.3, 1.0, 3.0, 10.0, 100.0)
DRAWS = 30  # of the slices, for the noise of the loss


def units(preset, seeds):
    """Every run; ``views`` and ``slices`` take at most three seeds, the grids of ``knob`` and ``weight`` two."""
    full = preset == "full"
    base = {**SMALL, "epochs": 6 if full else 1, "method": "sigreg", "views": ALL}
    found = []
    for seed in seeds:
        for method in ("random", "supervised", "vicreg", "sigreg"):
            views = {**ALL, "scale": [0.6, 1.0]} if method == "supervised" else ALL
            found.append({**base, "part": "methods", "method": method, "views": views, "seed": seed})
    for seed in seeds[:3]:
        for name, views in VIEWS.items():
            if name != "all":  # that one is SIGReg of ``methods``
                found.append({**base, "part": "views", "name": name, "views": views, "seed": seed})
        for slices in SLICES:
            found.append({**base, "part": "slices", "num_slices": slices, "seed": seed})
    for seed in seeds[:2]:
        for sigma in SIGMAS:
            for product in PRODUCTS:
                weight = product / sigma**2
                unit = {**base, "part": "knob", "sigma": sigma, "weight": weight, "product": product, "noise": True}
                found.append({**unit, "seed": seed})
        for weight in WEIGHTS:
            found.append({**base, "part": "weight", "weight": weight, "seed": seed})
    for draw in range(20 if full else 2):
        found.append({**base, "part": "predicts", **random_setting(draw), "seed": draw})
    return found


def random_setting(draw):
    """Learning rate, weight, epochs and smallest crop, drawn from wide ranges."""
    u = torch.rand(4, generator=torch.Generator().manual_seed(draw), dtype=torch.float64).tolist()
    return {
        "lr": float(f"{10 ** (-3.7 + 1.9 * u[0]):.3g}"),  # 0.0002 .. 0.016
        "weight": float(f"{10 ** (-1 + 3 * u[1]):.3g}"),  # 0.1 .. 100
        "epochs": 1 + int(8 * u[2]),
        "views": {**ALL, "scale": [round(0.15 + 0.65 * u[3], 2), 1.0]},
    }


def tolerance(unit):
    """Relative rounding that one epoch leaves: 0.1%, a test image of a thousand (AVX2 against AVX-512)."""
    return 0.005


def run_unit(unit, device):
    """Train and judge one network."""
    data = [t.to(device) for part in (True, False) for t in fashion_mnist_tensors(part, whole=unit["whole"])]
    network = build(unit, device)
    start = time.perf_counter()
    history = [] if unit["method"] == "random" else train(network, unit, data[0], data[1])
    found = {"training_seconds": round(time.perf_counter() - start, 2), **size_of(network, unit, len(data[0]))}
    found |= evaluate(network, data, unit)
    if unit["method"] in ("sigreg", "vicreg"):
        found["last_loss"] = own_loss(network, unit, data[2])
    if unit["part"] == "slices":
        found |= noise_of_slices(network, unit, data[2])
        found["curve"] = curve_of(history)
    return found


@torch.no_grad()
def own_loss(network, unit, images):
    """The unit's own loss on images and views it has not seen: batches of 250."""
    views = {**unit["views"]}
    batches = ViewBatches(images, batch_size=250, epochs=4, seed=20_000, **views)
    loss = objective_of(unit)
    network.eval()
    found = [loss(network, batch) for batch in batches]
    network.train()
    terms = found[0] if isinstance(found[0], dict) else {}
    mean = {key: sum(f[key].item() for f in found) / len(found) for key in terms}
    mean = mean or {"loss": sum(f.item() for f in found) / len(found)}
    return {key: float(f"{value:.6g}") for key, value in mean.items()}


def noise_of_slices(network, unit, images):
    """Over fresh draws of the slices on one fixed batch: spread of the value, error of the gradient, seconds.

    Without slices the value and the gradient are exact; what the others miss is measured against them.
    """
    generator = torch.Generator().manual_seed(30_000)
    network.eval()
    with torch.no_grad():
        batch = images[: unit["batch_size"]]
        codes = network(random_views(batch, generator), random_views(batch, generator))
    network.train()
    z = codes.requires_grad_()
    exact = slice_free_sigreg(z, sync=False)
    (slope,) = torch.autograd.grad(exact, z)
    values, errors, seconds = [], [], []
    for _ in range(DRAWS):
        start = time.perf_counter()
        if unit["num_slices"] is None:
            value = slice_free_sigreg(z, sync=False)
        else:
            directions = random_directions(unit["num_slices"], z.shape[-1], generator=generator, device=z.device)
            value = sliced_sigreg(z, directions, sync=False)
        (gradient,) = torch.autograd.grad(value, z)
        values.append(value.item())
        errors.append(((gradient - slope).norm() / slope.norm()).item())
        seconds.append(time.perf_counter() - start)
    values = torch.tensor(values, dtype=torch.float64)
    return {
        "value": round(exact.item(), 5),
        "value_spread": float(f"{values.std().item() / exact.item():.3g}"),
        "gradient_error": float(f"{math.fsum(errors) / DRAWS:.3g}"),
        "loss_seconds": float(f"{sorted(seconds)[DRAWS // 2]:.3g}"),
    }


def summary(record):
    """Means over seeds of the probe's accuracy, part by part."""
    found, lines = table(record), []
    found["num_slices"] = found.num_slices.astype(object).where(found.num_slices.notna(), "slice-free")
    for part, key in (("methods", "method"), ("views", "name"), ("slices", "num_slices"), ("weight", "weight")):
        means = 100 * found[found.part == part].groupby(key, sort=False, dropna=False).accuracy.mean()
        lines.append(f"{part}, linear probe (%): " + ", ".join(f"{value} {mean:.1f}" for value, mean in means.items()))
    return "\n".join(lines)
