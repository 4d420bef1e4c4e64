r"""VIB, variational CEB and minibatch CEB on FashionMNIST: what they keep, what it buys, at equal budget.

One network for all (:class:`sigreg.lab.models.BottleneckClassifier`), one grid of beta, and for one seed the same
initial weights, minibatches and encoder noise, so that differences between methods are paired by seed. The learning
rate of each method is the best of four equal trials, :mod:`sigreg.lab.experiments.conditional_bottleneck_trials`.
Every network is judged by :func:`sigreg.conditional_bottleneck.held_out_information` on the test images.

Parts: ``sweep``, trained on the true labels; ``random_labels``, trained on shuffled ones. The method ``none`` is the
sweep at beta = 0.

Derived in: Chapter 3, sections 3.7 to 3.9.
"""

import numpy as np
import torch
import torch.nn.functional as F

from sigreg.conditional_bottleneck import held_out_information, pointwise_rate
from sigreg.lab.batches import Minibatches
from sigreg.lab.data import fashion_mnist_tensors
from sigreg.lab.models import BottleneckClassifier
from sigreg.lab.objectives import bottleneck_objective
from sigreg.lab.reading import advantage, common_rates
from sigreg.lab.records import table, trials_of
from sigreg.lab.stack import train_stack

VERSION = 1
SEEDS = {"default": 1, "full": 5}
CHECK = {"part": "random_labels", "method": "pairwise"}

METHODS = ("vib", "variational_ceb", "minibatch", "pairwise")
BETAS = (0.01, 0.03, 0.1, 0.3, 0.6, 1.0)
LRS = {256: (1e-3, 2e-3, 4e-3, 8e-3), 1024: (2e-3, 4e-3, 8e-3, 16e-3)}  # what is tried, by batch size
DRAWS = 8  # codes drawn for each test image; predictions are averaged over them
BINS = 15  # of the reliability diagram
OUTSIDERS = 2000  # test images, at most, for the test of unfamiliar inputs


def units(preset, seeds):
    """For each seed one unit a method, each a stack of networks, one for each beta."""
    full, common = preset == "full", budget(preset)
    lr = tuned(common["batch_size"], METHODS, preset)
    shuffled = {**common, "whole": False, "images": 1000 if full else 500, "epochs": 100, "batch_size": 250}
    found = []
    for seed in seeds:
        found.append({"part": "sweep", "method": "none", "seed": seed, "betas": [0.0], **common})
        for method in METHODS:
            unit = {"part": "sweep", "method": method, "seed": seed, "betas": list(BETAS), **common}
            found.append({**unit, "lr": lr[method]})
        for method in METHODS if full else ("pairwise",):
            betas = [0.0, 0.03, 0.3]
            found.append({"part": "random_labels", "method": method, "seed": seed, "betas": betas, **shuffled})
    return found


def budget(preset):
    """What all methods share; the learning rate is that of what has no trials."""
    full = preset == "full"
    return {
        "whole": full,
        "hidden": [128, 64],  # 784-512-256 costs five times as much on a CPU
        "epochs": 4 if full else 10,
        "batch_size": 256,
        "lr": LRS[256][1],
    }


def tuned(batch_size, methods, preset, entries=None):
    """The learning rate of each method that does best in the trials of this preset; the second if there are none.

    Args:
        batch_size: which trials.
        methods: their names.
        preset: which trials.
        entries: units of a record of trials; by default those of ``conditional_bottleneck_trials``.
    """
    entries = trials_of("conditional_bottleneck_trials", preset) if entries is None else entries
    if not entries:
        return {method: LRS[batch_size][1] for method in methods}
    tried = table({"units": entries})
    gains = {method: trial_gains(tried, batch_size, method) for method in methods}
    return {method: max(gain, key=gain.get) for method, gain in gains.items()}


def trial_gains(tried, batch_size, method):
    """What each learning rate of a method gains over its least in the trials, a dictionary.

    The gain is in the accuracy of one code on the held-out images, at the conditional rates that all learning rates
    of the method reach in every draw, averaged over rates and draws.
    """
    mine = tried[(tried.batch_size == batch_size) & (tried.method == method)]
    mine = mine.assign(method=mine.lr)  # the curves that are compared are those of one method
    lrs = sorted(set(mine.lr))
    rates = common_rates(mine, lrs)
    return {lr: float(np.mean(advantage(mine, lr, lrs[0], "accuracy_one", rates))) for lr in lrs}


def tolerance(unit):
    """Relative rounding that training leaves in the numbers.

    A hundred epochs on random labels end 7% apart (calibration error) with AVX2 and with AVX-512.
    """
    return 0.1


def run_unit(unit, device):
    """Train the stack and judge every network; ``networks`` holds one dictionary for each beta."""
    images, labels = (t.to(device) for t in fashion_mnist_tensors(True, whole=unit["whole"]))
    if unit["part"] == "random_labels":
        generator = torch.Generator().manual_seed(1000 + unit["seed"])
        images = images[: unit["images"]]
        labels = labels[: unit["images"]][torch.randperm(unit["images"], generator=generator).to(device)]
    trained = train_sweep(unit, images, labels)
    if unit["part"] == "random_labels":
        judged = [evaluate(trained.network(g), images, labels, unit["seed"]) for g in range(trained.size)]
    else:
        test = [t.to(device) for t in fashion_mnist_tensors(False, whole=unit["whole"])]
        judged = [
            {
                **evaluate(trained.network(g), *test, unit["seed"]),
                **ood_auroc(trained.network(g), test[0], unit["seed"]),
            }
            for g in range(trained.size)
        ]
    return {"networks": [{"beta": beta, **found} for beta, found in zip(unit["betas"], judged, strict=True)]}


def train_sweep(unit, images, labels):
    """One network for each beta of the unit, from one initialisation: a :class:`sigreg.lab.stack.NetworkStack`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(unit["seed"])
        network = BottleneckClassifier(hidden=unit["hidden"]).to(images.device)
    batches = Minibatches(
        images,
        labels,
        batch_size=unit["batch_size"],
        epochs=unit["epochs"],
        noise_dim=network.class_mean.shape[1],
        seed=unit["seed"],
    )
    method = "minibatch" if unit["method"] == "none" else unit["method"]  # at beta = 0 all are the same
    betas = torch.tensor(unit["betas"], device=images.device)
    # the class Gaussians of variational CEB start at zero and have far to go: without a larger step they lag behind
    # the encoder, and the method would be judged by its optimiser
    return train_stack(
        [network] * len(betas),
        bottleneck_objective(method),
        batches,
        betas,
        lr=unit["lr"],
        lr_scale={"class_": 10.0},
    )


@torch.no_grad()
def evaluate(network, images, labels, seed):
    """Accuracy, relevance, rates and calibration of one network on the given images, the same way for every method.

    ``accuracy_one`` is that of one code an image, which is what the rate pays for; ``accuracy`` averages the
    predictions of several codes, and so sees more than one code carries.
    """
    mean, log_std, draws, probabilities, cross_entropy = _predict(network, images, labels, seed)
    rates = held_out_information(draws[0], mean, log_std, labels)
    confidence, bins = reliability(probabilities, labels)
    frequency = torch.bincount(labels).double() / len(labels)
    entropy = -(frequency[frequency > 0] * frequency[frequency > 0].log()).sum().item()
    accuracy = (probabilities.argmax(1) == labels).double().mean().item()
    accuracy_one = (network.decoder(draws).argmax(-1) == labels).double().mean().item()
    return {
        "accuracy": round(accuracy, 5),
        "accuracy_one": round(accuracy_one, 5),
        "relevance": round(entropy - cross_entropy, 5),
        **{name: round(value, 5) for name, value in vars(rates).items()},
        "nll": round(F.nll_loss(probabilities.log(), labels).item(), 5),
        "ece": round(confidence, 5),
        "bins": bins,
    }


def _predict(network, images, labels, seed):
    generator = torch.Generator().manual_seed(seed)
    mean, log_std = network.encoder(images)
    noise = torch.randn(DRAWS, *mean.shape, generator=generator).to(mean.device)
    draws = mean + log_std.exp() * noise
    log_q = network.decoder(draws).double().log_softmax(-1)
    cross_entropy = F.nll_loss(log_q.flatten(0, 1), labels.repeat(DRAWS)).item()
    return mean, log_std, draws, log_q.exp().mean(0), cross_entropy


@torch.no_grad()
def ood_auroc(network, images, seed):
    """Area under the ROC curve with which the rate, and the largest class probability, notice foreign images.

    Half of the test images say what is usual; of the other half each is shown as it is and upside down, beside as many
    images of uniform noise with the same range.
    """
    from sklearn.metrics import roc_auc_score  # here alone: a machine that has torch only runs the other experiments

    generator = torch.Generator().manual_seed(seed)
    images = images.flatten(1)
    order = torch.randperm(len(images), generator=generator)[: 2 * OUTSIDERS].to(images.device)
    usual, inside = images[order].chunk(2)
    reference = network.encoder(usual)
    low, high = images.min(), images.max()
    noise = low + (high - low) * torch.rand(inside.shape, generator=generator).to(images.device)
    outside = {"flip": inside.view(-1, 28, 28).flip(1).flatten(1), "noise": noise}

    def scores(x):
        mean, log_std = network.encoder(x)
        w = mean + log_std.exp() * torch.randn(DRAWS, *mean.shape, generator=generator).to(mean.device)
        rate = torch.stack([pointwise_rate(draw, mean, log_std, *reference) for draw in w]).mean(0)
        return rate, -network.decoder(w).softmax(-1).mean(0).max(1).values

    known = scores(inside)
    found = {}
    for name, x in outside.items():
        foreign = scores(x)
        for score, k in (("rate", 0), ("confidence", 1)):
            truth = [0] * len(known[k]) + [1] * len(foreign[k])
            found[f"auroc_{name}_{score}"] = round(roc_auc_score(truth, torch.cat([known[k], foreign[k]]).cpu()), 5)
    return found


def reliability(probabilities, labels, bins=BINS):
    r"""Expected calibration error, and the bins of the reliability diagram.

    .. math:: \mathrm{ECE} = \sum_b \frac{n_b}{N} |\mathrm{accuracy}_b - \mathrm{confidence}_b|

    Args:
        probabilities: (N, C).
        labels: (N,).
        bins: equal intervals of [0, 1] that the confidences are sorted into.

    Returns:
        The error, and three lists: ``count``, mean ``confidence`` and ``accuracy`` of each bin (0 where it is empty).

    >>> reliability(torch.tensor([[0.8, 0.2], [0.8, 0.2]]), torch.tensor([0, 1]), bins=2)[0]
    0.3...
    """
    confidence, guess = probabilities.double().max(1)
    right = (guess == labels).double()
    place = (confidence * bins).long().clamp_max(bins - 1)
    count, sure, correct = (
        torch.zeros(bins, dtype=torch.float64, device=place.device).index_add_(0, place, value)
        for value in (torch.ones_like(right), confidence, right)
    )
    error = ((correct - sure).abs().sum() / len(labels)).item()
    share = count.clamp_min(1)
    return error, {
        "count": count.long().tolist(),
        "confidence": [round(v, 5) for v in (sure / share).tolist()],
        "accuracy": [round(v, 5) for v in (correct / share).tolist()],
    }


def summary(record):
    """The headline in plain words."""
    found = table(record).query("part == 'sweep'")
    rates = common_rates(found, METHODS[1:2] + METHODS[-1:])
    lines = []
    shown = (("accuracy", 100, "points"), ("accuracy_one", 100, "points"), ("relevance", 1, "nats"))
    for quantity, scale, unit in shown:
        gains = [scale * sum(d) / len(d) for d in advantage(found, "pairwise", "variational_ceb", quantity, rates)]
        listed = ", ".join(f"{g:+.3f} at {r:.2f}" for g, r in zip(gains, rates, strict=True))
        lines.append(f"repaired minibatch CEB minus variational CEB, {quantity} ({unit}) at equal I(X;W|Y): {listed}")
    return "\n".join(lines)
