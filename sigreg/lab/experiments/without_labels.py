r"""Seven ways to learn without labels, each tuned by equal trials, beside labels, an untrained network and pixels.

One network for all: 3x3 convolutions and a projector, trained on pairs of views on the device that holds the images
(:mod:`sigreg.lab.loop`). Every method has one weight of its own and a learning rate;
:mod:`sigreg.lab.experiments.without_labels_trials` tries six pairs of each on held-out training images, and the seeds
here run with the pair of the best mean in the record that lies beside (the middle of the grid where there is none).
One reader for every representation: logistic regression on the last maps averaged to 4 x 4, the ridge chosen on
held-out training images, on standardised and on whitened features; neighbours, effective rank, and the law of the
codes beside. The test images are asked once. Handwritten digits, which no network has seen, are read from the same
features by a probe of their own.

Derived in: Chapter 6, section 6.8.
"""

import copy
import functools
import time

import torch
import torch.nn.functional as F

from sigreg.evaluation import effective_rank, knn_accuracy
from sigreg.gaussian_regularization import radial_sigreg
from sigreg.joint_embedding import barlow_twins_loss, byol_loss, nt_xent_loss, vicreg_loss
from sigreg.lab.data import fashion_mnist_bytes, normalised
from sigreg.lab.experiments.self_supervised import evaluate_codes
from sigreg.lab.judging import pack
from sigreg.lab.loop import ViewStream, fit_on_device
from sigreg.lab.models import ConvEncoder, ViewNetwork, follow, mlp, refresh_norms
from sigreg.lab.probes import chosen_probe
from sigreg.lab.records import best_trials, trials_of
from sigreg.self_supervised import view_prediction_loss

VERSION = 1
SEEDS = {"default": 5, "full": 5}
CHECK = {"method": "sigreg"}
LOOSE = {"ridge": 0.91, "gradient": 0.91}  # two steps of the grid; the noise at the end of a search

GRID = {  # the one weight of each method: what it is, and the three values that are tried
    "sigreg": ("weight", (0.1, 0.3, 1.0)),
    "slice_free": ("weight", (0.1, 0.3, 1.0)),
    "radial": ("weight", (0.1, 0.3, 1.0)),
    "vicreg": ("covariance", (0.2, 1.0, 5.0)),
    "barlow_twins": ("redundancy", (0.005, 0.02, 0.08)),
    "simclr": ("temperature", (0.1, 0.2, 0.5)),
    "byol": ("momentum", (0.9, 0.97, 0.99)),
    "supervised": ("smallest crop", (0.3, 0.5, 0.8)),
}
LRS = (1e-3, 3e-3)
NAMES = {
    "sigreg": "SIGReg",
    "slice_free": "SIGReg, slice-free",
    "radial": "SIGReg + radial term",
    "vicreg": "VICReg",
    "barlow_twins": "Barlow Twins",
    "simclr": "SimCLR",
    "byol": "BYOL",
    "supervised": "all labels",
    "untrained": "untrained network",
    "pixels": "pixels",
}
LARGE = {
    "whole": True,
    "images": None,
    "channels": [64, 128, 128, 256, 256],
    "strides": [1, 2, 1, 2, 1],
    "hidden": [512],
    "latent_dim": 64,
    "pool": 2,
    "size": 24,
    "smallest": 0.3,
    "batch_size": 512,
    "passes": 10,
    "weight_decay": 1e-4,
    "num_slices": 1024,
    "autocast": "bfloat16",
    "neighbours": 10_000,
}
SMALL = {  # for two CPU cores: few images to train on, all 10 000 to be asked
    **LARGE,
    "images": 6000,
    "channels": [16, 32, 64],
    "strides": [2, 2, 2],
    "hidden": [256],
    "latent_dim": 32,
    "batch_size": 256,
    "passes": 10,
    "num_slices": 256,
    "autocast": None,
    "neighbours": 6000,
}


def units(preset, seeds):
    """Pixels, then seed by seed one unit a method: a run that is cut off ends with whole seeds."""
    size, best = LARGE if preset == "full" else SMALL, tuned(preset)
    best["untrained"] = {}
    return [
        {**size, "method": "pixels", "seed": 0},
        *({**size, "method": method, "seed": seed, **best[method]} for seed in seeds for method in best),
    ]


def tuned(preset):
    """Learning rate and weight of each method: the best mean over the draws of the trials' record of this preset."""
    best = {method: {"lr": LRS[0], "setting": values[1], "trials": 0} for method, (_, values) in GRID.items()}
    entries = trials_of("without_labels_trials", preset)
    for method, ((setting, lr), _) in best_trials(entries, "setting", "lr").items():
        trials = sum(entry["unit"]["method"] == method for entry in entries)
        best[method] = {"lr": lr, "setting": setting, "trials": trials}
    return best


def tolerance(unit):
    """Relative rounding that training leaves: 2% of the guesses differ (AVX2 against AVX-512); pixels do not train."""
    return 1e-3 if unit["method"] == "pixels" else 0.05


@functools.lru_cache(maxsize=1)
def images_of(whole, device):
    """Pixels and labels of the training and the test images, on the device."""
    return [t.to(device) for train in (True, False) for t in fashion_mnist_bytes(train, whole=whole)]


def run_unit(unit, device):
    """Train one network, or none, and judge it."""
    pixels, labels, test_pixels, test_labels = images_of(unit["whole"], device)
    pixels, labels = pixels[: unit["images"]], labels[: unit["images"]]
    if unit["method"] == "pixels":
        known, asked = normalised(pixels).flatten(1), normalised(test_pixels).flatten(1)
        return {
            **judged(known, labels, asked, test_labels, unit),
            **transferred(lambda x: normalised(x).flatten(1), device),
        }
    network = build(unit, device)
    start = time.perf_counter()
    history = {} if unit["method"] == "untrained" else train(network, unit, pixels, labels)
    found = {"curve": curve_of(history), "training_seconds": round(time.perf_counter() - start, 3)}
    if unit["method"] != "supervised":
        found |= evaluate_codes(network.online, normalised(test_pixels))
    else:
        found["own_head"] = own_head(network.online, normalised(test_pixels), test_labels)
    refresh_norms(network.online.encoder, normalised(pixels[:10_000]))
    train_x, test_x = features_of(network.online, pixels), features_of(network.online, test_pixels)
    return {
        **found,
        **judged(train_x, labels, test_x, test_labels, unit),
        **transferred(lambda x: features_of(network.online, x), device),
    }


# ---------------------------------------------------------------- networks and losses


class Pair(torch.nn.Module):
    """The network that learns and, for BYOL, its predictor and the copy that follows it."""

    def __init__(self, online, momentum=None, hidden=512):
        super().__init__()
        self.online, self.momentum = online, momentum
        if momentum is not None:
            dim = online.projector[-1].out_features
            self.predictor = mlp((dim, hidden, dim))
            self.target = copy.deepcopy(online).requires_grad_(False)

    def follow(self):
        """Move the copy a little towards the network."""
        if self.momentum is not None:
            follow(self.target, self.online, self.momentum)


def build(unit, device):
    """The network of a unit, from its seed: on the CPU first, so that every device starts from the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(unit["seed"])
        outputs = 10 if unit["method"] == "supervised" else unit["latent_dim"]
        online = ViewNetwork(ConvEncoder(unit["channels"], unit["strides"]), unit["hidden"], outputs, pool=unit["pool"])
        pair = Pair(online, unit["setting"] if unit["method"] == "byol" else None)
    pair.to(memory_format=torch.channels_last)
    return pair.to(device)


def loss_of(unit):
    """The loss of a unit as :func:`sigreg.lab.loop.fit_on_device` wants it."""
    method, setting = unit["method"], unit.get("setting")
    slices = None if method == "slice_free" else unit["num_slices"]
    of_two = {
        "vicreg": functools.partial(vicreg_loss, covariance=setting),
        "barlow_twins": functools.partial(barlow_twins_loss, redundancy=setting),
        "simclr": functools.partial(nt_xent_loss, temperature=setting),
    }

    def loss(pair, batch, generator):
        views, labels = batch
        z = pair.online(*views)  # (2, B, D)
        if method == "supervised":
            return F.cross_entropy(z.flatten(0, 1).float(), labels.repeat(len(views)))
        if method == "byol":
            with torch.no_grad():
                held = pair.target(*views)
            return byol_loss(*(pair.predictor(one) for one in z), *held)
        if method in of_two:
            return of_two[method](*z)
        found = view_prediction_loss(z, generator, weight=setting, num_slices=slices)
        if method == "radial":
            found["radial"] = radial_sigreg(z)
            found["loss"] = found["loss"] + setting * found["radial"]
        return found

    return loss


def train(pair, unit, pixels, labels, loss=None, **how):
    """Fit the network of a unit, by its own loss or another; what the loss was at every step, on the device."""
    draws = torch.Generator(pixels.device).manual_seed(unit["seed"])
    smallest = unit["setting"] if unit["method"] == "supervised" else unit["smallest"]
    stream = ViewStream(
        pixels, labels, batch_size=unit["batch_size"], generator=draws, size=unit["size"], scale=(smallest, 1.0)
    )
    return fit_on_device(
        pair,
        loss or loss_of(unit),
        stream,
        passes=unit["passes"],
        lr=unit["lr"],
        weight_decay=unit["weight_decay"],
        generator=torch.Generator(pixels.device).manual_seed(1_000_003 + unit["seed"]),
        autocast=getattr(torch, unit["autocast"]) if unit["autocast"] else None,
        after_step=pair.follow,
        **how,
    )


def curve_of(history, points=40):
    """The history at some steps: rounded lists."""
    if not history:
        return {}
    steps = len(history["loss"])
    places = torch.linspace(0, steps - 1, min(points, steps)).long()
    found = {name: [float(f"{v:.5g}") for v in values.cpu()[places].tolist()] for name, values in history.items()}
    return {"step": (places + 1).tolist(), **found}


# ---------------------------------------------------------------- judging


@torch.no_grad()
def features_of(network, pixels, side=4, batch_size=2000):
    """The last maps of the encoder for whole images, averaged to ``side`` x ``side``: (N, F)."""
    network.eval()
    found = []
    for part in pixels.split(batch_size):
        h = network.encoder(normalised(part)).unflatten(1, (network.channels, -1))  # (B, C, H W)
        size = round(h.shape[2] ** 0.5)
        found.append(F.adaptive_avg_pool2d(h.unflatten(2, (size, size)), side).flatten(1))
    network.train()
    return torch.cat(found)


@torch.no_grad()
def own_head(network, images, labels):
    """Accuracy of the supervised network's own last layer."""
    network.eval()
    right = [
        (network(x)[0].argmax(1) == y).double() for x, y in zip(images.split(1000), labels.split(1000), strict=True)
    ]
    return round(torch.cat(right).mean().item(), 5)


def judged(train_x, train_y, test_x, test_y, unit):
    """Probe on standardised and on whitened features, neighbours, effective rank."""
    plain = chosen_probe(train_x, train_y, test_x, test_y)
    white = chosen_probe(train_x, train_y, test_x, test_y, whiten=True)
    near = slice(0, unit["neighbours"])
    return {
        **_kept(plain),
        **{f"white_{key}": value for key, value in _kept(white).items()},
        "knn": round(knn_accuracy(train_x[near], train_y[near], test_x, test_y), 5),
        "feature_rank": round(effective_rank(test_x[:2000]), 3),
        "features": train_x.shape[1],
    }


def transferred(features, device):
    """What a probe reads of handwritten digits, the first half known and the second asked; nothing without sklearn.

    The images stand in the order of their writers, so that most writers of the second half are new. Images of 8 x 8 are
    drawn to 20 x 20 and framed, so that they fill a frame of 28 x 28 as the garments do.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:  # a machine that has torch only
        return {}
    digits, truth = (torch.as_tensor(part, device=device) for part in load_digits(return_X_y=True))
    drawn = F.interpolate(digits.float().view(-1, 1, 8, 8), size=20, mode="bilinear").squeeze(1)
    x = features(F.pad(drawn * (255 / 16), (4, 4, 4, 4)).round().byte())
    half = len(x) // 2
    probe = chosen_probe(x[:half], truth[:half], x[half:], truth[half:])
    return {f"digits_{key}": value for key, value in _kept(probe).items()}


def _kept(probe):
    return {
        "accuracy": round(probe.accuracy, 5),
        "ridge": probe.ridge,
        "held_out": [round(a, 5) for a in probe.held_out],
        "gradient": float(f"{probe.gradient:.2g}"),
        "right": pack(probe.right.cpu()),
    }


def summary(record):
    """The headline in plain words."""
    means = {}
    for entry in record["units"]:
        means.setdefault(entry["unit"]["method"], []).append(100 * entry["result"]["accuracy"])
    return "linear probe: " + ", ".join(f"{NAMES[m]} {sum(v) / len(v):.2f}%" for m, v in means.items())
