r"""Few labels from a good start: the encoder of Chapter 6, learned without labels, then probed, spread or trained on.

The start is :func:`sigreg.lab.pretrained.pretrained_encoder`: SIGReg and two views on all training images, no
label. For one draw of the labels all methods share the labelled images, and those that train share the fresh head
and the order of the images, so that differences are paired by draw. Validation and test images are those of
:mod:`sigreg.lab.experiments.semi_supervised`.

Parts: ``frozen``, a probe and label propagation on features that stay; ``joint``, all weights trained on. A method
whose name begins with ``neighbours`` learns from propagated labels, the others from the given ones; ``fresh`` has the
same network without the start.

Derived in: Chapter 5, section 5.9.
"""

import functools

import torch
import torch.nn.functional as F

from sigreg.evaluation import features
from sigreg.lab.batches import balanced_draw
from sigreg.lab.experiments import semi_supervised as common
from sigreg.lab.models import CodeClassifier, ConvEncoder
from sigreg.lab.pretrained import PRETRAINED, encoder_sha256, pretrained_encoder
from sigreg.lab.reading import few_label_runs

VERSION = 1
SEEDS = {"default": 2, "full": 5}
CHECK = {"name": "sigreg", "labels": 100}

BUDGETS = (100, 500, 1000, 5000)
# steps, labelled and unlabelled images a step, learning rate; chosen on validation images of one draw
FEW = {"steps": 200, "labelled_batch": 32, "unlabelled_batch": 32, "lr": 1e-3}  # with 100 labels
SPREAD = {"steps": 200, "labelled_batch": 64, "unlabelled_batch": 32, "lr": 1e-3}  # with propagated labels
MANY = {"steps": 1000, "labelled_batch": 64, "unlabelled_batch": 32, "lr": 3e-3}  # with 1000 labels
BETWEEN = {**MANY, "steps": 400}  # with 500 and 5000 labels
LIVE = {"steps": 12, "labelled_batch": 16, "unlabelled_batch": 16, "lr": 1e-3}
NAT, RATE, VIEWS, CLASS_SCALE = 0.1, 0.01, 0.005, 0.5
CONSISTENCY = {"consistency": 1.0, "threshold": 0.8}
DIRECTIONS, NEIGHBOURS, SHARPNESS = 128, 10, 4  # leading directions kept, edges of an image, power of the cosine
KNOWN_AGAIN = 100  # how often a given label is repeated among the propagated ones: a sixth of a batch

METHODS = {
    "labels": {},
    "fresh": {},
    "rate": {"rate": RATE},
    "sigreg": {"nats": NAT},
    "mixture": {"nats": NAT, "class_scale": CLASS_SCALE},
    "views": {"views": VIEWS},
    "views+sigreg": {"views": VIEWS, "nats": NAT},
    "consistency": CONSISTENCY,
    "consistency+sigreg": {**CONSISTENCY, "nats": NAT},
    "rate+views+sigreg+consistency": {"rate": RATE, "views": VIEWS, "nats": NAT, **CONSISTENCY},
    "neighbours": {},
    "neighbours+sigreg": {"nats": NAT},
    "neighbours+mixture": {"nats": NAT, "class_scale": CLASS_SCALE},
    "neighbours+consistency": CONSISTENCY,
    "neighbours+views+sigreg+consistency": {"views": VIEWS, "nats": NAT, **CONSISTENCY},
}
# with more labels SIGReg scores the labelled codes only, which keeps it as cheap as no SIGReg
MORE = {"labels": {}, "sigreg": {"nats": NAT, "scored": "labelled"}, "consistency": CONSISTENCY}


def units(preset, seeds):
    """For each draw of the labels the frozen features, all methods at 100 labels, and a few with more.

    ``encoder`` is the SHA-256 of the start: with another one these are other units.
    """
    full = preset == "full"
    found = []
    for seed in seeds:
        budgets = list(BUDGETS if full else BUDGETS[:1])
        found.append({"part": "frozen", "labels": budgets, "seed": seed, "whole": full, "whitening": [0.0, 1.0]})
        for name in METHODS if full else ("labels", "neighbours", "rate+views+sigreg+consistency"):
            size = SPREAD if name.startswith("neighbours") else FEW
            size = {"whole": full, **(size if full else LIVE)}
            if name == "fresh":
                size["lr"] = 3e-3  # as in section 5.5: fresh weights have further to go
            found.append(joint(name, METHODS[name], 100, seed, size))
        if full:
            found += [joint(name, MORE[name], 1000, seed, {"whole": True, **MANY}) for name in MORE]
            found += [joint("labels", {}, labels, seed, {"whole": True, **BETWEEN}) for labels in (500, 5000)]
    return [{**unit, "encoder": encoder_sha256()} for unit in found]


def joint(name, terms, labels, seed, size):
    """The unit of one network whose weights are all trained."""
    return {"part": "joint", "name": name, "labels": labels, "seed": seed, "terms": dict(terms), **size}


def tolerance(unit):
    """Relative rounding that training leaves, as in the study without a pretrained encoder."""
    return 0.03


def run_unit(unit, device):
    """Train or only read, and judge on validation and test images."""
    if unit["encoder"] != (recorded := encoder_sha256()):
        raise ValueError(f"encoder must be the sha256 in the record self_supervised, {recorded}, got {unit['encoder']}")
    data = common.load(unit["whole"], device)
    if unit["part"] == "joint":
        return train(unit, data)[1]
    found = []
    for labels in unit["labels"]:
        found.append({"name": "probe", **common.probe(start(device), data, labels, unit["seed"])})
        for whitening in unit["whitening"]:
            found.append({"name": "spread", "whitening": whitening, **spread_labels(unit, labels, whitening, data)[1]})
    return {"runs": found}


@functools.lru_cache(maxsize=1)
def start(device):
    """The pretrained encoder; not to be trained: copy its weights."""
    return pretrained_encoder().to(device, memory_format=torch.channels_last)


def train(unit, data):
    """One network on one draw of the labels; network and numbers."""
    images, truth = data[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(unit["seed"])
        network = CodeClassifier(ConvEncoder(**PRETRAINED))
    if unit["name"] != "fresh":
        network.encoder.load_state_dict(start(images.device).state_dict())
    network.to(images.device, memory_format=torch.channels_last)
    known = balanced_draw(truth, unit["labels"], torch.Generator().manual_seed(unit["seed"]))
    targets = truth
    if unit["name"].startswith("neighbours"):
        beliefs, _ = spread_labels(unit, unit["labels"], 1.0, data)
        targets = beliefs.argmax(1).to(truth)
        targets[known] = truth[known]
        known = torch.cat([torch.arange(len(images)), known.repeat(KNOWN_AGAIN)])
    found = common.learn(network, unit, unit["terms"], known, targets, unit["lr"], data)
    return network, {"labels": unit["labels"], **found}


# ---------------------------------------------------------------- labels spread among neighbours


def spread_labels(unit, labels, whitening, data):
    r"""Beliefs of all training images from a few labels, (N, C), and how good they are, also on new images.

    A new image takes the weighted mean of the beliefs of its nearest training images.
    """
    (_, truth), validation, test = data
    points, held_out, tested, graph = neighbourhood(unit["whole"], whitening, truth.device)
    known = balanced_draw(truth, labels, torch.Generator().manual_seed(unit["seed"])).to(truth.device)
    classes = int(truth.max()) + 1
    reach = 0.99 if labels < 500 else 0.9  # many labels need not travel far
    given = torch.zeros(len(truth), classes, device=truth.device)
    given[known] = F.one_hot(truth[known], classes).to(given)
    beliefs = sinkhorn(propagate(graph, given, reach))
    hidden = torch.ones(len(truth), dtype=torch.bool, device=truth.device)
    hidden[known] = False
    right = (beliefs.argmax(1) == truth)[hidden].double().mean().item()
    scores = {"unlabelled": round(right, 5)}
    for name, new, (_, answers) in (("validation", held_out, validation), ("accuracy", tested, test)):
        guess = torch.cat([nearest_beliefs(points, beliefs, part) for part in new.split(1000)]).argmax(1)
        scores[name] = round((guess == answers).double().mean().item(), 5)
    return beliefs, {"labels": labels, **scores}


@functools.lru_cache(maxsize=2)
def neighbourhood(whole, whitening, device):
    """Directions (unit vectors) of training, validation and test images, and the graph of the first."""
    parts = [images for images, _ in common.load(whole, device)]
    axes = principal_axes(whole, device)
    points = [F.normalize(project(images, *axes, whitening), dim=1) for images in parts]
    return *points, similarity_graph(points[0])


@functools.lru_cache(maxsize=1)
def principal_axes(whole, device):
    """Mean and standard deviation of the frozen features, their leading axes and the variances along them."""
    count = 3000 if whole else 600
    found = features(start(device), common.load(whole, device)[0][0][:count])
    mean, std = found.mean(0), found.std(0) + 1e-6
    found = (found - mean) / std
    variances, weights = torch.linalg.eigh(found @ found.T / count)  # the other product would be larger
    variances, weights = variances[-DIRECTIONS:], weights[:, -DIRECTIONS:]
    return mean, std, found.T @ weights / (count * variances).sqrt(), variances


def project(images, mean, std, axes, variances, whitening):
    """Frozen features along their leading axes; whitening 1 gives every axis the same variance, 0 keeps them."""
    parts = [(features(start(images.device), part) - mean) / std @ axes for part in images.split(5000)]
    return torch.cat(parts) / variances ** (whitening / 2)


@torch.sparse.check_sparse_tensor_invariants(False)  # right by construction; some versions warn unless one says so
def similarity_graph(points, neighbours=NEIGHBOURS):
    r"""The symmetric graph :math:`D^{-1/2}(A + A^\top)D^{-1/2}` of the nearest neighbours by cosine, sparse (N, N)."""
    size = len(points)
    rows, columns, values = [], [], []
    for first in range(0, size, 2000):
        part = points[first : first + 2000]
        cosine = part @ points.T
        here = torch.arange(len(part), device=points.device)
        cosine[here, first + here] = -1.0  # no image is its own neighbour
        near = cosine.topk(neighbours, 1)
        rows.append((first + here).repeat_interleave(neighbours))
        columns.append(near.indices.flatten())
        values.append(near.values.flatten().clamp_min(0) ** SHARPNESS)
    places, weights = torch.stack([torch.cat(rows), torch.cat(columns)]), torch.cat(values)
    both = torch.cat([places, places.flip(0)], 1), weights.repeat(2)
    graph = torch.sparse_coo_tensor(*both, (size, size)).coalesce()
    degree = torch.sparse.sum(graph, 1).to_dense().clamp_min(1e-9).rsqrt()
    i, j = graph.indices()
    scaled = graph.values() * degree[i] * degree[j]
    return torch.sparse_coo_tensor(graph.indices(), scaled, (size, size)).coalesce()


def propagate(graph, given, reach, rounds=50):
    r"""Label propagation of Zhou et al. (2003): :math:`B \leftarrow \rho\, S B + (1 - \rho)\, Y`, from B = Y."""
    beliefs = given
    for _ in range(rounds):
        beliefs = reach * torch.sparse.mm(graph, beliefs) + (1 - reach) * given
    return beliefs


def sinkhorn(beliefs, rounds=20):
    """Rows of sum 1 and columns of equal sum: FashionMNIST has as many images of each class, and one may know it."""
    beliefs = beliefs.clamp_min(1e-12)
    for _ in range(rounds):
        beliefs = beliefs / beliefs.sum(0)
        beliefs = beliefs / beliefs.sum(1, keepdim=True)
    return beliefs


def nearest_beliefs(points, beliefs, new):
    """Beliefs of new points, (Q, C): the weighted mean over their nearest neighbours among ``points``."""
    near = (new @ points.T).topk(min(NEIGHBOURS, len(points)), 1)
    return (near.values.clamp_min(0) ** SHARPNESS)[:, :, None].mul(beliefs[near.indices]).sum(1)


def summary(record):
    """The headline in plain words."""
    found = few_label_runs(record)
    whitening = found.whitening.where(found.name == "spread", "") if "whitening" in found else ""
    groups = found.assign(whitening=whitening).groupby(["labels", "name", "whitening"], sort=False).accuracy
    return "\n".join(
        f"{labels} labels, {name} {whitening}: {100 * v.mean():.2f}% ({len(v)} draws)"
        for (labels, name, whitening), v in groups
    )
