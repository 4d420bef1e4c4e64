r"""Training with SIGReg on slices of k dimensions: does any k leave better codes than k = 1 at equal cost?

The slice-free form costs the same for every k, so equal cost is equal steps of equal batches. Two encoders are trained
on nothing but the regularizer: ``map``, :math:`z = Ax` of Gaussian inputs with variances from 0.1 to 10, and
``network``, :math:`z = Ax + W \tanh(Vx)` of inputs uniform on a cube with sides stretched by up to a factor 2.6.
Each k has its own learning rate, the better of two in a run of its own; the runs that are reported came after.

Derived in: Chapter 4, Proposition 4.22.
"""

import math

import torch

from sigreg.gaussian_regularization import radial_sigreg, slice_free_sigreg
from sigreg.lab.experiments import gaussian_regularization_power as power
from sigreg.lab.records import table

VERSION = 1
SEEDS = {"default": 1, "full": 1}

RATES = (0.01, 0.03)
SLICES = {16: (1, 2, 4, 8), 64: (1, 2, 8)}  # D: k


def units(preset, seeds):
    """One unit for each encoder, D and k."""
    steps, repeats = (250, 3) if preset == "full" else (100, 2)
    return [
        {"part": part, "D": dim, "k": k, "N": 128, "steps": steps, "repeats": repeats, "seed": seed}
        for seed in seeds
        for part in ("map", "network")
        for dim, slices in SLICES.items()
        for k in slices
    ]


def run_unit(unit, device):
    """The chosen rate, and what codes the repeats ended with."""
    trials = [judge(unit, train(unit, rate, 1000 + unit["seed"], device), device) for rate in RATES]
    rate = RATES[min(range(len(RATES)), key=lambda i: trials[i]["energy"])]
    runs = [judge(unit, train(unit, rate, 10 * unit["seed"] + i, device), device) for i in range(unit["repeats"])]
    return {"rate": rate, **{key: [run[key] for run in runs] for key in runs[0]}}


def draw(unit, n, generator):
    """Inputs (n, D) of an encoder."""
    dim = unit["D"]
    if unit["part"] == "map":
        return torch.logspace(-0.5, 0.5, dim) * torch.randn(n, dim, generator=generator)
    return torch.linspace(0.5, 1.3, dim) * math.sqrt(3) * (2 * torch.rand(n, dim, generator=generator) - 1)


def encode(weights, x):
    """Codes of inputs; a linear map has one weight, a network three."""
    linear, *rest = weights
    return x @ linear.T + (torch.tanh(x @ rest[0].T) @ rest[1].T if rest else 0)


def train(unit, rate, seed, device):
    """The encoder's weights after gradient descent (Adam) with a rate that falls to zero."""
    dim, steps = unit["D"], unit["steps"]
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.eye(dim)]
    if unit["part"] == "network":
        weights += [torch.randn(64, dim, generator=generator) / math.sqrt(dim), torch.zeros(dim, 64)]
    weights = [weight.to(device).requires_grad_() for weight in weights]
    optimiser = torch.optim.Adam(weights, lr=rate, betas=(0.9, 0.99))
    falling = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / steps)
    for _ in range(steps):
        loss = slice_free_sigreg(encode(weights, draw(unit, unit["N"], generator).to(device)), slice_dim=unit["k"])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        falling.step()
    return [weight.detach() for weight in weights]


def judge(unit, weights, device):
    """What 2000 fresh codes show to three judges that prefer no k.

    The distance of mean and covariance from 0 and I, the energy distance and the radial statistic. The first two are
    near 0 for Gaussian codes and the third near 1, up to the noise of the sample.
    """
    generator = torch.Generator().manual_seed(999)  # the same inputs for all
    z = encode(weights, draw(unit, 2000, generator).to(device)).cpu()
    pair = 2 * math.exp(math.lgamma((unit["D"] + 1) / 2) - math.lgamma(unit["D"] / 2))  # mean distance of two Gaussians
    found = {
        "covariance": power.moments(z[None])["moments"][0].sqrt(),
        "energy": power.pairwise(z[None])["energy"][0] - pair,
        "radial": radial_sigreg(z),
    }
    return {key: power.short(value) for key, value in found.items()}


def summary(record):
    """The energy distance that each k leaves."""
    found = table(record)
    lines = []
    for (part, dim), group in found.groupby(["part", "D"], sort=False):
        each = ", ".join(f"k = {row.k}: {sum(row.energy) / len(row.energy):.4g}" for row in group.itertuples())
        lines.append(f"energy distance to a Gaussian, {part}, D = {dim}: {each}")
    return "\n".join(lines)
