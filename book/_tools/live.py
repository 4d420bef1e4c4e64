"""What the live figures of the book are checked against, and the grids that they show.

    python book/_tools/live.py          write the cases of the tests and the grids of book/_static/live
    python book/_tools/live.py check    say which of them the package would now make differently

``tests/book/live_cases.json`` holds codes, directions, and what `sigreg.sliced_sigreg`, its gradient and
`sigreg.radial_sigreg` say of them; tests/book/test_live.py holds the script of the pages, book/_static/live/sigreg.js,
against it.
"""

import json
import math
import sys
from pathlib import Path

import torch

from sigreg import (
    defensive_rate,
    information_bottleneck,
    minibatch_rate,
    mutual_information,
    pairwise_rate,
    radial_sigreg,
    random_directions,
    sigreg_null_mean,
    sliced_sigreg,
)
from sigreg.lab.figures import to_ternary
from sigreg.lab.reading import rejection_rates
from sigreg.lab.records import load_record, table

LIVE = Path(__file__).resolve().parents[1] / "_static" / "live"
CASES = Path(__file__).resolve().parents[2] / "tests" / "book" / "live_cases.json"
SHAPES = [(5, 1, 1, 17, 3.0), (12, 2, 4, 17, 3.0), (40, 8, 16, 17, 3.0), (24, 64, 8, 17, 3.0), (10, 3, 5, 33, 4.5)]


def case(n, dim, slices, knots, t_max):
    """Codes of one size, drawn wide, and what the package says of them."""
    generator = torch.Generator().manual_seed(n * dim)
    z = 1.5 * torch.randn(n, dim, generator=generator, dtype=torch.float64)
    z.requires_grad_()
    directions = random_directions(slices, dim, generator=generator, dtype=torch.float64)
    grid = {"knots": knots, "t_max": t_max}
    value = sliced_sigreg(z, directions, **grid)
    (gradient,) = torch.autograd.grad(value, z)
    return {
        "dim": dim,
        **grid,
        "z": z.flatten().tolist(),
        "directions": directions.flatten().tolist(),
        "value": value.item(),
        "gradient": gradient.flatten().tolist(),
        "radial": radial_sigreg(z, **grid).item(),
        "null": sigreg_null_mean(**grid),
    }


def cases():
    return [case(*shape) for shape in SHAPES]


# Grids: small tables that a figure's script looks up ------------------------------------------------------------


RECORD = "Drawn from the record {}, by book/_tools/live.py."
SOLVED = "Computed with {}, by book/_tools/live.py."


def short(value, digits=4):
    """Numbers of a tensor or a list, rounded: what a chart of some hundred pixels can show."""
    if isinstance(value, (list, tuple)):
        return [short(each, digits) for each in value]
    return short(value.tolist(), digits) if isinstance(value, torch.Tensor) else round(float(value), digits)


def power():
    """Rejection rates of the stored power study: law -> N -> test -> one rate for each D."""
    record = load_record("gaussian_regularization_power")
    rate, unit = rejection_rates(record).rate, record["units"][0]["unit"]
    laws = [law for law in rate.index.unique("law") if law != "normal"]
    sizes, dims = (sorted(int(v) for v in rate.index.unique(name)) for name in ("N", "D"))
    tests = list(rate.index.unique("test"))
    rates = {
        law: {str(n): {test: short([rate[n, dim, law, test] for dim in dims]) for test in tests} for n in sizes}
        for law in laws
    }
    return {"source": RECORD.format(record["name"]), "dims": dims, "sizes": sizes, "slices": unit["M"], "rates": rates}


BETAS = torch.logspace(0.1, 1.7, 33, dtype=torch.float64)


def curve(betas=BETAS):
    """The spiral of Chapter 1: its forecasts, and for each beta the words, their weights, rate and relevance."""
    turn = torch.linspace(0, 5.9, 72, dtype=torch.float64)
    angles = 2 * math.pi / 3 * torch.arange(3, dtype=torch.float64)
    spiral = torch.softmax((0.7 + 2.6 * turn / 5.9)[:, None] * torch.cos(turn[:, None] - angles), -1)
    joint = spiral / 72
    found = information_bottleneck(joint, betas)
    codes = []
    for b, beta in enumerate(betas):
        weights, words = distinct(found.marginal[b], found.decoder[b])
        code = {"beta": short(beta, 3), "rate": short(found.rate[b]), "relevance": short(found.relevance[b])}
        codes.append(
            code | {"words": short([[*place, w] for place, w in zip(to_ternary(words), weights, strict=True)])}
        )
    return {
        "source": SOLVED.format("information_bottleneck"),
        "spiral": short(to_ternary(spiral).tolist()),
        "total": short(mutual_information(joint)),
        "codes": codes,
    }


def distinct(weight, words):
    """Words that differ by more than 0.05, with their weights, in the order of their first coordinate."""
    kept = []
    for w, word in zip(weight[weight > 1e-5].tolist(), words[weight > 1e-5], strict=True):
        same = next((entry for entry in kept if (word - entry[1]).norm() < 0.05), None)
        if same:
            same[0] += w
        else:
            kept.append([w, word])
    kept.sort(key=lambda entry: entry[1].tolist())
    return [w for w, _ in kept], torch.stack([word for _, word in kept])


def water():
    """Proposition 6.7: variances of sixteen directions, one row for each weight q_*, spaced evenly in its logarithm."""
    share, dim = torch.linspace(0.02, 0.98, 16, dtype=torch.float64), 16
    rows = []
    weights = torch.logspace(-1.3, 0.7, 41, dtype=torch.float64)
    for weight in weights:
        low, high = 0.0, float(dim)
        for _ in range(60):
            missing = (low + high) / 2
            kept = (1 + missing - share / weight).clamp_min(0)
            low, high = (missing, high) if (1 - kept).sum() > 2 * missing else (low, missing)
        rows.append(short(kept))
    per_weight = dim * (dim + 2) / (3 * math.sqrt(2 * math.pi) / 3**2.5)  # lambda sigma^2 N for q_* = 1
    return {
        "source": SOLVED.format("Proposition 6.7"),
        "share": short(share),
        "weights": short(weights),
        "kept": rows,
        "per_weight": short(per_weight, 2),
    }


RATE_BATCHES, RATE_DIMS, RATE_SIGMAS = [8, 16, 32, 64, 128, 256, 512], [1, 2, 4, 8, 16, 32], [0.03, 0.1, 0.3, 1.0]


def rate_estimates(batch, dim, sigma):
    """Four estimates of the rate of W = X + sigma noise, X standard normal: means over 512 codes, in batches.

    What these codes are luckier or unluckier than others is known, mean log p(w|x)/p(w) - I, and taken off what was
    sampled: the means stay, their noise goes. The own-sample estimate under its ceiling has no such noise.
    """
    generator = torch.Generator().manual_seed(1000 * batch + dim)
    mean, noise = torch.randn(2, 512, dim, generator=generator, dtype=torch.float64)
    w, log_std = mean + sigma * noise, torch.full((512, dim), math.log(sigma), dtype=torch.float64)
    labels = torch.arange(512) // batch  # the batches side by side: each is a class of its own
    luck = (w.square() / (1 + sigma**2) - noise.square()).sum(1).mean() / 2
    own = minibatch_rate(w, mean, log_std, labels)
    left_out = minibatch_rate(w, mean, log_std, labels, include_self=False) - luck
    repaired = defensive_rate(w, mean, log_std, labels) - luck
    if dim / 2 * math.log1p(sigma**-2) < math.log(batch):
        own = own - luck
    return [float(f"{v:.4g}") for v in (own, left_out, repaired, pairwise_rate(mean, log_std, labels))]


def rates():
    """Estimates of a known rate: sigma -> dimension -> estimator -> one mean for each batch size."""
    found, names = {}, ("own", "left_out", "defensive", "closed")
    for sigma in RATE_SIGMAS:
        for dim in RATE_DIMS:
            each = [rate_estimates(batch, dim, sigma) for batch in RATE_BATCHES]
            found.setdefault(str(sigma), {})[str(dim)] = {
                name: list(row) for name, row in zip(names, zip(*each, strict=True), strict=True)
            }
    return {
        "source": SOLVED.format("minibatch_rate, defensive_rate and pairwise_rate"),
        "batches": RATE_BATCHES,
        "dims": RATE_DIMS,
        "sigmas": RATE_SIGMAS,
        "rates": found,
    }


def cube():
    """The cube on FashionMNIST: for each cell the mean over seeds of four readings along the training."""
    found = table(load_record("information_maximization")).query("cell != 'untrained'")
    names = {"spread": "spread", "rank": "effective rank", "rate": "rate [nats]", "information": "InfoNCE [nats]"}
    cells = []
    for cell, rows in found.groupby("cell", sort=False):
        switches = {name: bool(rows[name].iloc[0]) for name in ("stop_gradient", "predictor", "regularizer")}
        readings = {name: short(torch.tensor(rows[name].tolist()).mean(0)) for name in names}
        probe = short(100 * rows.probe_accuracy.mean(), 1)
        cells.append({"cell": cell.replace("regulariser", "regularizer"), **switches, **readings, "probe": probe})
    return {
        "source": RECORD.format("information_maximization"),
        "steps": int(found.steps.iloc[0]),
        "seeds": int(found.seed.nunique()),
        "names": names,
        "cells": cells,
    }


# What is stored where, and the function that makes it.
STORED = {
    CASES: cases,
    LIVE / "fig-power.json": power,
    LIVE / "fig-estimates.json": rates,
    LIVE / "fig-information-curve.json": curve,
    LIVE / "fig-water.json": water,
    LIVE / "fig-cube.json": cube,
}


def difference(a, b):
    """The largest difference of the numbers in two structures of one shape; infinite where the shapes differ."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return max((difference(a[key], b[key]) for key in a), default=0.0)
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return max((difference(x, y) for x, y in zip(a, b, strict=True)), default=0.0)
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return abs(a - b)
    return 0.0 if a == b else float("inf")


def problems(stored=None, tolerance=2e-4):
    """A line for each stored file that the package would not make again."""
    found = []
    for path, make in (stored or STORED).items():
        apart = difference(json.loads(path.read_text()), make()) if path.exists() else float("inf")
        if not apart <= tolerance:
            found.append(f"{path.name} is {apart:.2g} away from the package: run `python book/_tools/live.py`")
    return found


def main(arguments):
    if arguments not in ([], ["check"]):
        print(__doc__)
        return 2
    if not arguments:
        for path, make in STORED.items():
            path.write_text(json.dumps(make(), separators=(",", ":"), ensure_ascii=False) + "\n")
    found = problems()
    print(*found or ["the live figures show what the package computes"], sep="\n")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
