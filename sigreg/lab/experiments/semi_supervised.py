r"""Few labels on FashionMNIST: what each term of the loss gives, and where SIGReg hurts or helps, at equal budget.

One small encoder for all. For one draw of the labels all methods share the initial weights, the labelled images and
the order of the others, so that differences are paired by draw. Every run is judged twice: on held-out images of the
training set (``validation``), by which weights are chosen, and on the test images (``accuracy``), which nothing sees.

Parts: ``joint``, one network trained once on all terms; ``stages``, a network trained first without labels and then
with them, at several label budgets; ``pixels``, logistic regression on the images themselves.

Derived in: Chapter 5, sections 5.5 to 5.8.
"""

import functools
import math

import torch
from torch import nn

from sigreg.evaluation import accuracy, effective_rank, features, linear_probe
from sigreg.gaussian_regularization import random_directions, sliced_sigreg
from sigreg.lab.batches import FewLabelBatches, balanced_draw
from sigreg.lab.data import fashion_mnist_tensors
from sigreg.lab.fit import fit
from sigreg.lab.models import CodeClassifier, ConvEncoder, network_dim, refresh_norms
from sigreg.lab.objectives import semi_supervised_objective
from sigreg.lab.reading import few_label_runs
from sigreg.semi_supervised import sigreg_weight, variance_between

VERSION = 1
SEEDS = {"default": 2, "full": 5}
CHECK = {"name": "views+sigreg"}

# images a step; of the unlabelled ones two views
SHORT = {"steps": 200, "labelled_batch": 32, "unlabelled_batch": 32}  # with 100 labels
LONG = {"steps": 300, "labelled_batch": 64, "unlabelled_batch": 48}  # with more
LIVE = {"steps": 60, "labelled_batch": 32, "unlabelled_batch": 32}
NATS = (0.01, 0.1, 1.0)  # weights of SIGReg, in nats of KL(p(w) || N(0, I))
NAT, RATE, CLASS_SCALE = 0.1, 0.01, 0.5
VIEWS = {100: 0.02, 500: 0.01, 1000: 0.005, 5000: 0.005}  # by labels; chosen on validation images of one draw
HELD_OUT = {True: 10_000, False: 1000}  # training images kept for validation: of all, of the embedded subset
JUDGED = 2000  # of them, judged
REFRESHED = 2000  # whole training images from which batch norm takes its moments

# the ablation: every term alone and together; ``nats`` is SIGReg's weight
METHODS = {
    "labels": {},
    "rate": {"rate": RATE},
    "sigreg": {"nats": NAT},
    "views": {"views": VIEWS[100]},
    "views+sigreg": {"views": VIEWS[100], "nats": NAT},
    "mixture": {"nats": NAT, "class_scale": CLASS_SCALE},
    "views+mixture": {"views": VIEWS[100], "nats": NAT, "class_scale": CLASS_SCALE},
    "consistency": {"consistency": 1.0, "threshold": 0.8},
    "views+sigreg+consistency": {"views": VIEWS[100], "nats": NAT, "consistency": 1.0, "threshold": 0.8},
}
# SIGReg alone at 100 labels, one change at a time
CAUSES = {
    "labelled only": {"nats": NAT, "scored": "labelled"},
    "unlabelled only": {"nats": NAT, "scored": "unlabelled"},
    "D = 64": {"nats": NAT, "dim": 64},
    "48 free": {"nats": NAT, "dim": 64, "read": 16},
}
BUDGETS = (100, 500, 1000, 5000)
MAIN = ("labels", "views+sigreg", "consistency")


def units(preset, seeds):
    """For each draw of the labels the pixels, the runs in stages and the joint ones."""
    full = preset == "full"
    size = {"whole": full, "lr": 3e-3, **(SHORT if full else LIVE)}
    stages = {"part": "stages", "first_steps": 300 if full else 60, "first_batch": 64, "dim": 32, **size}
    budgets = list(BUDGETS if full else BUDGETS[:1])
    found = []
    for seed in seeds:
        found.append({"part": "pixels", "labels": budgets, "seed": seed, "whole": full})
        found.append({**stages, "labels": budgets, "seed": seed, "nats": 1.0})
        for name in METHODS:
            found.append(joint(name, METHODS[name], 100, seed, size))
        if not full:
            continue
        for labels in BUDGETS[1:]:
            for name in MAIN if labels == 1000 else MAIN[:2]:
                terms = {**METHODS[name], **({"views": VIEWS[labels]} if "views" in METHODS[name] else {})}
                found.append(joint(name, terms, labels, seed, {**size, **LONG}))
        for name, terms in CAUSES.items():
            found.append(joint(name, terms, 100, seed, size))
        for nats in NATS:
            for name in ("sigreg", "views+sigreg"):
                if nats != NAT:
                    found.append(joint(name, {**METHODS[name], "nats": nats}, 100, seed, size))
        found.append({**stages, "labels": [100], "seed": seed, "nats": 0.0, "first_steps": 100})
    return found


def joint(name, terms, labels, seed, size):
    """The unit of one network trained on all terms at once."""
    return {"part": "joint", "name": name, "labels": labels, "seed": seed, "terms": terms, **size}


def tolerance(unit):
    """Relative rounding that training leaves: 200 steps end 0.8% (AVX2) to 1.3% (no vector instructions) apart."""
    return 0.03


def run_unit(unit, device):
    """Train, and judge on validation and test images."""
    data = load(unit["whole"], device)
    if unit["part"] == "pixels":
        return {"runs": [probe(nn.Flatten(), data, labels, unit["seed"]) for labels in unit["labels"]]}
    if unit["part"] == "joint":
        return train(unit, unit["terms"], unit["labels"], data)[1]
    encoder, first = pretrain(unit, data)
    found = []
    for labels in unit["labels"]:
        found.append({"name": "probe", **probe(encoder, data, labels, unit["seed"])})
        if labels == 100:
            found.append({"name": "labels", **train(unit, METHODS["labels"], labels, data, encoder)[1]})
    return {"first": first, "runs": found}


@functools.lru_cache(maxsize=1)
def load(whole, device):
    """Images and labels to train on, to choose by and to test on: three pairs."""
    images, labels = fashion_mnist_tensors(True, whole=whole)
    kept = len(images) - HELD_OUT[whole]
    parts = (images[:kept], labels[:kept]), (images[kept:][:JUDGED], labels[kept:][:JUDGED])
    return tuple((x.to(device), y.to(device)) for x, y in (*parts, fashion_mnist_tensors(False, whole=whole)))


def train(unit, terms, labels, data, encoder=None):
    """One network on one draw of the labels, from fresh weights or from those of ``encoder``; network and numbers."""
    images, truth = data[0]
    terms = dict(terms)
    dim, read = terms.pop("dim", unit.get("dim", 16)), terms.pop("read", None)
    network = fresh(unit["seed"], dim, read, images.device)
    lr = unit["lr"]
    if encoder is not None:
        network.encoder.load_state_dict(encoder.state_dict())
        lr = lr / 3
    known = balanced_draw(truth, labels, torch.Generator().manual_seed(unit["seed"]))
    return network, {"labels": labels, **learn(network, unit, terms, known, truth, lr, data)}


def learn(network, unit, terms, known, targets, lr, data):
    """Train ``network`` on the targets (N,) of the images ``known``, and on all others without; the numbers."""
    (images, _), validation, test = data
    counts = {name: unit[f"{name}_batch"] for name in ("labelled", "unlabelled")}
    lonely = not any(terms.get(name) for name in ("nats", "views", "consistency")) or terms.get("scored") == "labelled"
    scored = counts.get(terms.get("scored"), sum(counts.values()))
    weights = {name: value for name, value in terms.items() if name != "nats"}
    weights["sigreg"] = sigreg_weight(network_dim(network), scored, terms.get("nats", 0.0))
    batches = FewLabelBatches(
        images,
        targets,
        known,
        labelled_batch=counts["labelled"],
        unlabelled_batch=0 if lonely else counts["unlabelled"],
        steps=unit["steps"],
        seed=unit["seed"],
    )
    history = fit(network, semi_supervised_objective(seed=unit["seed"], **weights), batches, lr=lr, weight_decay=1e-3)
    refresh_norms(network, images[:REFRESHED])
    last = history[-min(20, len(history)) :]
    return {
        "accuracy": round(accuracy(network, *test), 5),
        "validation": round(accuracy(network, *validation), 5),
        **geometry(network, *test),
        **{f"train_{key}": round(sum(step[key] for step in last) / len(last), 5) for key in last[0]},
    }


def fresh(seed, dim, read, device):
    """A network with weights from ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = CodeClassifier(ConvEncoder(), latent_dim=dim, read=read)
    return network.to(device, memory_format=torch.channels_last)  # a sixth faster on a CPU


def pretrain(unit, data):
    """The first stage, without labels: views, and SIGReg unless its weight is 0. Encoder, and what became of it."""
    (images, truth), _, test = data
    network = fresh(unit["seed"], unit["dim"], None, images.device)
    batches = FewLabelBatches(
        images,
        truth,
        torch.zeros(1, dtype=torch.long),  # one labelled image that no term looks at
        labelled_batch=1,
        unlabelled_batch=unit["first_batch"],
        steps=unit["first_steps"],
        seed=unit["seed"],
    )
    weight = sigreg_weight(unit["dim"], unit["first_batch"], unit["nats"])
    objective = semi_supervised_objective(
        labelled=0.0, views=0.1, sigma=0.3, sigreg=weight, scored="unlabelled", num_slices=128, seed=unit["seed"]
    )
    fit(network, objective, batches, lr=unit["lr"], weight_decay=1e-4)
    refresh_norms(network, images[:REFRESHED])
    return network.encoder, geometry(network, *test)


@torch.no_grad()
def geometry(network, images, labels, count=1000):
    """What the codes of some test images look like: SIGReg's value, variance between classes, rank, class balance."""
    network.eval()
    code = network(images[:count])
    directions = random_directions(256, code.mean.shape[1], generator=torch.Generator().manual_seed(0))
    share = code.logits.softmax(1).mean(0)
    spread = code.mean - code.mean.mean(0)
    return {
        "sigreg": round(sliced_sigreg(code.mean, directions.to(code.mean)).item(), 4),
        "between": round(variance_between(code.mean, labels[:count]), 5) if spread.abs().max() > 1e-6 else 0.0,
        "rank": round(effective_rank(code.mean), 3),
        "scale": round(spread.square().mean().sqrt().item(), 5),
        "balance": round(-torch.special.xlogy(share, share).sum().item() / math.log(len(share)), 5),
    }


def probe(encoder, data, labels, seed):
    """Logistic regression on frozen features of the labelled images; the ridge is chosen on validation images."""
    (images, truth), validation, test = data
    known = balanced_draw(truth, labels, torch.Generator().manual_seed(seed)).to(images.device)
    x, held_out, tested = (features(encoder, part) for part in (images[known], validation[0], test[0]))
    tried = {}
    for ridge in (1e-2, 0.3):
        tried[ridge] = linear_probe(x, truth[known], held_out, validation[1], ridge=ridge, max_iter=30).accuracy
    ridge = max(tried, key=tried.get)
    found = linear_probe(x, truth[known], tested, test[1], ridge=ridge, max_iter=30).accuracy
    return {"labels": labels, "accuracy": round(found, 5), "validation": round(tried[ridge], 5), "ridge": ridge}


def summary(record):
    """The headline in plain words."""
    found = few_label_runs(record)
    steps = found.steps.fillna(0).where(found.stage == "joint", 0).astype(int)
    groups = found.assign(steps=steps).groupby(["labels", "stage", "steps", "name", "nats"]).accuracy
    return "\n".join(
        f"{labels} labels, {stage}, {steps} steps, {name}, {nats:g} nats: {100 * v.mean():.2f}% ({len(v)} draws)"
        for (labels, stage, steps, name, nats), v in groups
    )
