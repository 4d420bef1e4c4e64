r"""How often the radial statistic notices, at level 5%, that N codes in D dimensions are not standard normal.

The sizes, laws and critical values are those of :mod:`sigreg.lab.experiments.gaussian_regularization_power`, whose
record holds the tests that look at slices. One law is added, ``cube's directions``: those of a cube, with the lengths
of Gaussian codes. The radial statistic knows nothing of directions and must not see it.

Derived in: Chapter 4, Proposition 4.20.
"""

import torch

from sigreg.gaussian_regularization import radial_sigreg
from sigreg.lab.experiments import gaussian_regularization_power as power
from sigreg.lab.reading import rejection_rates

VERSION = 1
SEEDS = power.SEEDS

LAWS = (*power.LAWS, "cube's directions")


def units(preset, seeds):
    """One unit for each N, D and seed, as in the study of slices; no slices are drawn."""
    return [{k: v for k, v in unit.items() if k != "M"} for unit in power.units(preset, seeds)]


def run_unit(unit, device):
    """The critical value, and how many of the replicates of each law lie beyond it."""
    n, dim = unit["N"], unit["D"]
    generator = torch.Generator().manual_seed(power.seed_of(unit))

    def values(law, replicates):
        return torch.stack([radial_sigreg(draw(law, n, dim, generator).to(device)).cpu() for _ in range(replicates)])

    null = values("normal", unit["null_replicates"])
    critical = torch.quantile(null, 1 - power.LEVEL)
    rejections = {law: {"radial": int((values(law, unit["replicates"]) > critical).sum())} for law in LAWS}
    return {"critical": power.short(critical), "null_std": power.short(null.std()), "rejections": rejections}


def draw(law, n, dim, generator):
    """One sample (N, D) of a law."""
    if law != "cube's directions":
        return power.draw(law, 1, n, dim, generator)[0]
    z = power.draw("cube", 1, n, dim, generator)[0]
    lengths = torch.randn(n, dim, generator=generator).norm(dim=1, keepdim=True)
    return z / z.norm(dim=1, keepdim=True) * lengths


def summary(record):
    """For each law, from which batch on and up to which dimension the radius shows it."""
    table = rejection_rates(record).rate
    largest = table.index.unique("N").max()
    lines = [f"Dimensions at which the radius shows a law in at least half of the samples of N = {largest}:"]
    for law in LAWS[1:]:
        seen = table.loc[largest, :, law, "radial"]
        lines.append(f"  {law}: {', '.join(map(str, seen[seen >= 0.5].index)) or 'none'}")
    return "\n".join(lines)
