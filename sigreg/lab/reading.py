"""What the stored results say: the readers that experiments and chapters share, on the table of a record.

``sigreg.lab.records.table`` gives the table; one grouping is a line of pandas and needs no reader.
"""

import math

import numpy as np
import pandas as pd
import torch
from scipy import stats

from sigreg.gaussian_regularization import random_directions
from sigreg.lab.records import table


def paired(found, method, baseline, quantity="accuracy"):
    """Differences of a quantity between two methods, paired by seed: a list in the order of the seeds both have.

    Args:
        found: table of a record.
        method, baseline: which rows, each a dictionary ``{column: value}``.
        quantity: a column.

    Raises:
        ValueError: no row matches, or one seed has several.

    >>> found = pd.DataFrame({"method": ["a", "a", "b", "b"], "seed": [0, 1, 0, 1], "accuracy": [0.5, 0.75, 0.25, 0.5]})
    >>> paired(found, {"method": "a"}, {"method": "b"})
    [0.25, 0.25]
    """
    a, b = (by_seed(found, quantity, **where) for where in (method, baseline))
    return (a - b).dropna().tolist()


def by_seed(found, quantity="accuracy", **where):
    """A quantity in the rows that have all these settings, as a series over seeds.

    Args:
        found: table of a record.
        quantity: a column.
        **where: a value for each column to choose by.

    Raises:
        ValueError: no row matches, or one seed has several.

    >>> by_seed(pd.DataFrame({"name": ["a", "b"], "seed": [1, 1], "accuracy": [0.5, 0.7]}), name="b").to_dict()
    {1: 0.7}
    """
    chosen = found
    for column, value in where.items():
        chosen = chosen[chosen[column] == value]
    if chosen.empty:
        raise ValueError(f"no run matches {where}")
    series = chosen.set_index("seed")[quantity].sort_index()
    if not series.index.is_unique:
        raise ValueError(f"several runs of one seed match {where}: say more")
    return series


# ---------------------------------------------------------------- Chapter 3: methods at equal rate


def common_rates(found, methods, points=5):
    """Conditional rates that every method reaches in every seed, evenly spaced in their logarithm.

    Args:
        found: table with the columns method, seed and conditional_rate.
        methods: their names.
        points: how many rates.

    Raises:
        ValueError: the methods have no rate in common.
    """
    reached = found[found.method.isin(methods)].groupby(["method", "seed"]).conditional_rate
    low, high = reached.min().max(), reached.max().min()
    if low >= high:
        raise ValueError(f"methods {methods} have no conditional rate in common: widen the grid of beta")
    return torch.exp(torch.linspace(math.log(low), math.log(high), points, dtype=torch.float64)).tolist()


def advantage(found, method, baseline, quantity, rates):
    """For each conditional rate the list of paired differences ``method - baseline``, one for each seed.

    A method's value at a rate is linear between its networks, in the logarithm of the rate.

    >>> line = [("a", 1.0, 0.5), ("a", 4.0, 0.7), ("b", 1.0, 0.5), ("b", 4.0, 0.5)]
    >>> found = pd.DataFrame([{"method": m, "seed": 0, "conditional_rate": r, "accuracy": a} for m, r, a in line])
    >>> [[round(d, 4) for d in row] for row in advantage(found, "a", "b", "accuracy", [2.0])]
    [[0.1]]
    """
    seeds = sorted(found.seed.unique())

    def curve(name, seed):
        mine = found[(found.method == name) & (found.seed == seed)].sort_values("conditional_rate")
        return np.interp(np.log(rates), np.log(mine.conditional_rate.to_numpy(float)), mine[quantity].to_numpy(float))

    return np.transpose([curve(method, seed) - curve(baseline, seed) for seed in seeds]).tolist()


# ---------------------------------------------------------------- Chapter 4: rates of rejection


def rejection_rates(record):
    """How often each test rejects, all seeds together: a table over (N, D, law, test) of the rate and its error.

    The error is the binomial one; the noise of the critical values comes on top (0.7 points at a rate of 5% with
    4 x 240 null samples).
    """
    counts = pd.DataFrame(
        [
            {**entry["unit"], "law": law, "test": test, "rejected": count}
            for entry in record["units"]
            for law, tests in entry["result"]["rejections"].items()
            for test, count in tests.items()
        ]
    )
    found = counts.groupby(["N", "D", "law", "test"], sort=False)[["rejected", "replicates"]].sum()
    p = (found.rejected + 1) / (found.replicates + 2)  # Laplace's rule, so that 0 and all still have an error
    error = np.sqrt(p * (1 - p) / found.replicates)
    return pd.DataFrame({"rate": found.rejected / found.replicates, "error": error})


# ---------------------------------------------------------------- Chapter 5: few labels


def few_label_runs(record):
    """The table of a study of few labels, with weights of terms that a run has not as 0 and the column ``stage``.

    ``stage`` is ``joint``, ``pixels``, ``frozen``, ``staged`` (after SIGReg and views) or ``staged, no sigreg``.
    ``nats`` and ``views`` are the weights of these terms, and of the first stage where there is one.
    """
    found = table(record)
    weight = found.get("terms.nats", pd.Series(dtype=float)).reindex(found.index).fillna(0.0)
    views = found.get("terms.views", pd.Series(dtype=float)).reindex(found.index).fillna(0.0)
    first = found.get("nats", pd.Series(dtype=float)).reindex(found.index).fillna(0.0)
    stage = found.part.where(found.part != "stages", np.where(first > 0, "staged", "staged, no sigreg"))
    name = found.name.fillna("probe")
    return found.assign(stage=stage, name=name, nats=weight + first, views=views)


# ---------------------------------------------------------------- Chapter 6: what ranks encoders


def rank_correlation(x, y, resamples=2000, seed=0):
    r"""Spearman's rank correlation with a 95% interval: percentiles over resampled pairs.

    .. math:: \rho = \operatorname{corr}(\operatorname{rank} x, \operatorname{rank} y)

    Args:
        x, y: equally many numbers.
        resamples: bootstrap draws.
        seed: of the draws.

    Returns:
        Correlation, lower and upper end.

    Raises:
        ValueError: the lists differ in length or have fewer than three numbers.

    >>> rank_correlation([1, 2, 3, 4], [1, 8, 27, 64])
    (1.0, 1.0, 1.0)
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1 or len(x) < 3:
        raise ValueError(f"x and y must be two lists of equal length, at least 3, got {len(x)} and {len(y)}")
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(len(x), (resamples, len(x)), generator=generator).numpy()
    a, b = (stats.rankdata(v[draws], axis=1) - (len(v) + 1) / 2 for v in (x, y))
    with np.errstate(invalid="ignore"):  # a draw of one pair alone has no correlation
        drawn = (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))
    drawn = np.sort(drawn[np.isfinite(drawn)])
    low, high = (drawn[round(q * (len(drawn) - 1))] for q in (0.025, 0.975))
    found = stats.spearmanr(x, y).statistic
    return tuple(round(float(v), 12) for v in (found, low, high))


def slice_quantiles(z, num_slices=8, levels=99, seed=0):
    r"""Quantiles of random slices of codes beside those of a standard normal.

    Args:
        z: (N, D).
        num_slices: random directions.
        levels: equally spaced probabilities in (0, 1).
        seed: of the directions.

    Returns:
        Normal quantiles (levels,), and those of the slices (levels, num_slices).

    >>> normal, slices = slice_quantiles(torch.randn(5000, 4, generator=torch.Generator().manual_seed(0)))
    >>> bool((slices - normal[:, None]).abs().max() < 0.3)
    True
    """
    a = random_directions(num_slices, z.shape[1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    p = (torch.arange(levels, dtype=torch.float64) + 1) / (levels + 1)
    normal = math.sqrt(2) * torch.erfinv(2 * p - 1)
    return normal, torch.quantile(z.double().cpu() @ a.T, p, dim=0)


# ---------------------------------------------------------------- Chapter 7: the weights that tuning prefers


def tuned(found):
    """The weight that tuning prefers, for each method of a table: the most accurate, the first of equals."""
    tried = found[found.part == "tune"]
    return tried.loc[tried.groupby("method", sort=False).accuracy.idxmax()].set_index("method").weight.to_dict()


# ---------------------------------------------------------------- Chapter 8: which cells collapse


def collapsed(found, threshold=0.2):
    """The cells whose spread ends below ``threshold`` in every seed, and those where it does in some only.

    Args:
        found: table with the columns cell and spread, a list along the training (none for the untrained network).
        threshold: of the spread, 1 for codes that fill the sphere evenly.
    """
    traced = found.dropna(subset="spread")
    low = (traced.spread.str[-1] < threshold).groupby(traced.cell, sort=False).agg(["all", "any"])
    return low.index[low["all"]].tolist(), low.index[low["any"] & ~low["all"]].tolist()
