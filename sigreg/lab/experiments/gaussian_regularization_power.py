r"""How often tests of normality notice, at level 5%, that N codes in D dimensions are not standard normal.

Every test is of the *simple* null hypothesis N(0, I), the target of SIGReg: no mean or covariance is estimated
away. The critical values come from simulation under it, with the same N, D and number of slices M.

Tests: ``mean_M``, SIGReg with M fresh directions for each sample; ``max_M``, the largest of those M statistics;
``slice_free``, SIGReg with infinitely many slices; ``moments``, :math:`|m|^2 + \|S - I\|_F^2` of the sample's
mean and covariance (what VICReg's terms look at); ``energy``, the energy distance to N(0, I) (Székely and Rizzo
2005); ``henze_zirkler``, the Gaussian-kernel test with the bandwidth of Henze and Zirkler (1990).

Laws: see :func:`draw`. The law ``normal`` is the null itself, drawn again: its rate shows the true level.

Derived in: Chapter 4, "The power study".
"""

import math
from functools import cache

import torch

from sigreg.gaussian_regularization import epps_pulley, slice_free_sigreg
from sigreg.lab.reading import rejection_rates

VERSION = 1
SEEDS = {"default": 1, "full": 4}

LAWS = ("normal", "wrong scale", "anisotropy", "collapsed direction", "heavy tails", "cube", "two clusters")
LEVEL = 0.05


def units(preset, seeds):
    """One unit for each N, D and seed; a seed is an independent study with its own critical values."""
    if preset == "full":
        sizes, dims, slices, replicates = (64, 256, 1024), (2, 8, 32, 64, 128, 256), (16, 64, 256, 1024), 60
    else:
        sizes, dims, slices, replicates = (64, 256), (2, 8, 32, 128), (16, 64, 256), 50
    return [
        {
            "N": n,
            "D": d,
            "M": list(slices),
            "null_replicates": 4 * replicates,
            "replicates": replicates,
            "seed": seed,
        }
        for seed in seeds
        for n in sizes
        for d in dims
    ]


def run_unit(unit, device):
    """Critical values, and for each law how many of the replicates each test rejects."""
    n, dim, slices = unit["N"], unit["D"], unit["M"]
    generator = torch.Generator().manual_seed(seed_of(unit))

    def values(law, replicates):
        return statistics(law, replicates, n, dim, slices, generator, device)

    null = values("normal", unit["null_replicates"])
    critical = {test: torch.quantile(value, 1 - LEVEL) for test, value in null.items()}
    rejections, means = {}, {}
    for law in LAWS:
        found = values(law, unit["replicates"])
        rejections[law] = {test: int((found[test] > critical[test]).sum()) for test in found}
        means[law] = {test: short(found[test].mean()) for test in (f"mean_{slices[-1]}", "slice_free")}
    spread = {test: short(value.std()) for test, value in null.items() if not test.startswith("max")}
    return {
        "critical": {test: short(value) for test, value in critical.items()},
        "null_std": spread,
        "rejections": rejections,
        "mean_value": means,
    }


def draw(law, replicates, n, dim, generator):
    """Samples (R, N, D) of one of the laws.

    ``wrong scale``: standard deviation 1.05 in every direction. ``anisotropy``: variances evenly spaced from 0.5
    to 1.5. ``collapsed direction``: one coordinate is 0. The others have mean 0 and covariance I exactly.
    ``heavy tails``: multivariate t with 5 degrees of freedom. ``cube``: uniform on a cube. ``two clusters``:
    centres at +-0.95 on one axis, variance 1 - 0.95^2 around them.
    """
    z = torch.randn(replicates, n, dim, generator=generator)
    if law == "normal":
        return z
    if law == "wrong scale":
        return 1.05 * z
    if law == "anisotropy":
        return torch.linspace(0.5, 1.5, dim).sqrt() * z
    if law == "collapsed direction":
        z[..., 0] = 0
        return z
    if law == "heavy tails":
        chi2 = torch.randn(replicates, n, 5, generator=generator).square().sum(-1, keepdim=True)
        return z * (3 / chi2).sqrt()  # sqrt(5 / chi2) is Student's t; its variance is 5 / 3
    if law == "cube":
        return math.sqrt(3) * (2 * torch.rand(replicates, n, dim, generator=generator) - 1)
    if law == "two clusters":
        sign = 2 * torch.randint(2, (replicates, n), generator=generator) - 1
        z[..., 0] = 0.95 * sign + math.sqrt(1 - 0.95**2) * z[..., 0]
        return z
    raise ValueError(f"law must be one of {LAWS}, got {law!r}")


def statistics(law, replicates, n, dim, slices, generator, device):
    """Every test's statistic on ``replicates`` samples of ``law``: a dictionary of (R,) tensors."""
    pieces = []
    step = max(1, 2**22 // (n * max(slices[-1], n)))  # what stays in fast memory
    for start in range(0, replicates, step):
        count = min(step, replicates - start)
        x = draw(law, count, n, dim, generator)
        directions = torch.randn(count, slices[-1], dim, generator=generator)
        x, directions = x.to(device), directions.to(device)
        directions /= torch.linalg.vector_norm(directions, dim=-1, keepdim=True)
        pieces.append({**sliced(x, directions, slices), **moments(x), **pairwise(x)})
    return {test: torch.cat([piece[test] for piece in pieces]).cpu().double() for test in pieces[0]}


def sliced(x, directions, slices):
    """SIGReg (mean) and its largest slice, for the first M of the directions (R, M, D)."""
    projected = (directions @ x.mT).flatten(0, 1)  # (R M, N)
    values = epps_pulley(projected.T).view(len(x), -1)  # (R, M)
    found = {f"mean_{m}": values[:, :m].mean(1) for m in slices}
    return found | {f"max_{m}": values[:, :m].amax(1) for m in slices}


def moments(x):
    """Squared distance of mean and covariance from 0 and I."""
    mean = x.mean(1, keepdim=True)
    covariance = (x - mean).mT @ (x - mean) / (x.shape[1] - 1)
    excess = covariance - torch.eye(x.shape[2], device=x.device)
    return {"moments": mean.square().sum((1, 2)) + excess.square().sum((1, 2))}


def pairwise(x):
    """The tests that look at all pairs; constants and factors that leave rejections alone are left out."""
    n, dim = x.shape[1:]
    norms = x.square().sum(-1)  # (R, N)
    squares = (norms[:, :, None] + norms[:, None, :] - 2 * x @ x.mT).clamp_(min=0)  # (R, N, N)
    squares.diagonal(dim1=1, dim2=2).zero_()

    energy = 2 * expected_distance(norms, dim).mean(1) - squares.sqrt().mean(2).double().mean(1)

    # The pair term is of size exp(-beta^2 D), below float32 for large D: both terms are scaled up by exp(beta^2 D),
    # the pairs of a point with itself, a constant, left out. The clamp acts far above any critical value.
    beta2 = 0.5 * ((2 * dim + 1) * n / 4) ** (2 / (dim + 4))
    squares.diagonal(dim1=1, dim2=2).fill_(math.inf)
    pairs = torch.exp((beta2 * (dim - squares / 2)).clamp_(max=80)).mean(2).double().mean(1)
    shrink = dim * (beta2 - math.log1p(beta2) / 2)
    cross = torch.exp(shrink - beta2 * norms.double() / (2 * (1 + beta2))).mean(1)
    henze_zirkler = pairs - 2 * cross
    return {
        "slice_free": torch.stack([slice_free_sigreg(z) for z in x]),
        "energy": energy,
        "henze_zirkler": henze_zirkler,
    }


def expected_distance(norms, dim):
    """E|x - Z| for Z ~ N(0, I_D), from the squared norms of x."""
    top = 2 ** math.ceil(math.log2(float(norms.max())))
    table, step = _distance_table(dim, top)
    place = norms.double().cpu().sqrt() / step
    low = place.long().clamp(max=len(table) - 2)
    return torch.lerp(table[low], table[low + 1], place - low).to(norms.device)


@cache
def _distance_table(dim, top, points=4000):
    """E|x - Z| on a grid of |x| up to sqrt(top): |x - Z|^2 is a Poisson mixture of chi-squares."""
    grid = torch.linspace(0, math.sqrt(top), points, dtype=torch.float64)
    rate = grid.square()[:, None] / 2
    k = torch.arange(int(top / 2 + 8 * math.sqrt(top / 2) + 30), dtype=torch.float64)
    weight = torch.exp(torch.special.xlogy(k, rate) - rate - torch.lgamma(k + 1))
    chi = math.sqrt(2) * torch.exp(torch.lgamma(k + (dim + 1) / 2) - torch.lgamma(k + dim / 2))
    return weight @ chi, float(grid[1])


def seed_of(unit):
    """A seed of its own for each cell."""
    return (unit["seed"] * 1_000_003 + unit["N"]) * 1_000_003 + unit["D"]


def short(value):
    """Six significant digits: what records keep."""
    return float(f"{float(value):.6g}")


def summary(record):
    """For each law, where SIGReg and the others notice it."""
    table = rejection_rates(record).rate
    largest = table.index.unique("N").max()
    most = max(record["units"][0]["unit"]["M"])
    lines = [f"Largest D at which each test still notices the law in at least half of the samples of N = {largest}:"]
    for law in LAWS[1:]:
        words = []
        for test in (f"mean_{most}", f"max_{most}", "slice_free", "moments", "energy", "henze_zirkler"):
            seen = table.loc[largest, :, law, test]
            seen = seen[seen >= 0.5].index
            words.append(f"{test} {max(seen, default='-')}")
        lines.append(f"  {law}: {', '.join(words)}")
    return "\n".join(lines)
