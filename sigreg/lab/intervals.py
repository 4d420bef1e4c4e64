"""Student's interval of a mean over seeds. Needs no more than numpy and scipy."""

import math
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Interval:
    """A mean with the two ends of its confidence interval; each of the shape of one repetition."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def interval(values, level: float = 0.95) -> Interval:
    r"""The mean over repetitions (seeds) with Student's confidence interval.

    .. math:: \bar v \pm t_{(1 + \mathrm{level})/2,\,n-1} \; s / \sqrt n

    with :math:`s` the sample standard deviation of the n repetitions.

    Args:
        values: tensor or array, shape ``(n, ...)``: one row a seed.
        level: the probability that the interval covers the mean, if the repetitions are normal.

    Returns:
        :class:`Interval` with arrays of shape ``(...)``.

    Raises:
        ValueError: fewer than two repetitions, NaN, or a level outside (0, 1).

    Reference: Student (1908), "The probable error of a mean".

    >>> found = interval([1.0, 2.0, 3.0])
    >>> print(f"{found.mean:.3f} in [{found.low:.3f}, {found.high:.3f}]")
    2.000 in [-0.484, 4.484]
    """
    from scipy import stats  # half a second, which chapters without an interval do not need

    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    values = np.asarray(values, dtype=np.float64)
    if values.ndim == 0 or len(values) < 2:
        raise ValueError(f"values must hold two or more repetitions along its first axis, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("values holds NaN or infinite entries: leave out the runs that failed, and say so")
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level}")
    n = len(values)
    mean = values.mean(0)
    half = stats.t.ppf((1 + level) / 2, n - 1) * values.std(0, ddof=1) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)
