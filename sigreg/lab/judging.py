r"""Which of two methods is better, when seeds and test images both scatter: gaps, their intervals, words for several.

A *gap* is the mean difference of two accuracies over seeds, in points, with its variance. Networks of one seed start
alike and read the same test images, so two things scatter: the seeds, and the images that happen to be in the test
set. Averaging over seeds does nothing about the second.

Where a record keeps which images were guessed right (:func:`pack`), both are measured. Where it keeps accuracies only,
the scatter of the images has an upper bound: that of two independent readings.
"""

import base64
import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from sigreg.lab.intervals import Interval

MARGIN = 0.5  # points: a difference of accuracies that would matter


@dataclass(frozen=True)
class Gap:
    """A mean difference of accuracies in points, its variance, and the freedom of Student's law for it."""

    mean: float
    variance: float
    freedom: float
    seeds: int


@dataclass(frozen=True)
class Comparison:
    """One gap among several: its 95% interval by itself, and the word that holds for all of them together."""

    gap: Gap
    interval: Interval
    word: str


def pack(right) -> str:
    """Which test images were guessed right, as text: eight images a byte, bytes in base64.

    >>> pack(np.array([True, False, True]))
    'oA=='
    """
    return base64.b64encode(np.packbits(np.asarray(right, dtype=bool)).tobytes()).decode()


def unpack(text: str, images: int) -> np.ndarray:
    """What :func:`pack` was given, for so many images.

    >>> unpack("oA==", 3).tolist()
    [True, False, True]
    """
    bits = np.unpackbits(np.frombuffer(base64.b64decode(text), dtype=np.uint8))
    if not 0 <= len(bits) - images < 8:
        raise ValueError(f"the text holds {len(bits) // 8} bytes, which is not the number for {images} images")
    return bits[:images].astype(bool)


def share_apart(a: str, b: str) -> float:
    """The share of guesses in which two texts of :func:`pack` differ; infinite where they are not of one number.

    >>> share_apart(pack([True, False] * 4), pack([True, True] * 4))
    0.5
    """
    if len(a) != len(b):
        return math.inf
    one, other = (unpack(text, 8 * len(base64.b64decode(text))) for text in (a, b))
    return float((one != other).mean())


def gap_of_guesses(a, b) -> Gap:
    r"""The gap from the guesses themselves: a and b say for each seed which images were right, (S, N) booleans.

    .. math:: \bar d = \frac{1}{SN}\sum_{si} (a_{si} - b_{si}), \qquad
        \operatorname{Var} \bar d \approx \frac{v_S}{S} + \Bigl(\frac{v_N}{N} - \frac{v_{SN}}{SN}\Bigr)_+

    with the sample variances of the seeds' means, of the images' means, and of what is left of the table without both;
    the last is contained in each of the others and would be counted twice. The freedom is Satterthwaite's, the images'
    part counted as known.

    >>> a = np.random.default_rng(0).random((5, 1000)) < 0.8
    >>> gap_of_guesses(a, a).mean, gap_of_guesses(a, ~a).mean > 50
    (0.0, True)
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.shape != b.shape or a.ndim != 2 or min(a.shape) < 2:
        raise ValueError(f"a and b must be (seeds, images) of one shape, two or more each, got {a.shape} and {b.shape}")
    d = 100 * (a - b)
    seeds, images = d.shape
    by_seed, by_image = d.mean(1), d.mean(0)
    rest = d - by_seed[:, None] - by_image + d.mean()
    left = (rest**2).sum() / ((seeds - 1) * (images - 1))
    of_seeds, of_images = by_seed.var(ddof=1) / seeds, by_image.var(ddof=1) / images
    return _gap(d.mean(), of_seeds, max(of_images - left / (seeds * images), 0.0), seeds)


def gap_of_accuracies(a, b, images) -> Gap:
    r"""The gap from accuracies alone, shares paired by seed; so many test images gave each.

    .. math:: \operatorname{Var} \bar d \le \frac{v_S}{S} + \frac{\bar a(1 - \bar a) + \bar b(1 - \bar b)}{N}

    >>> gap = gap_of_accuracies([0.90, 0.91], [0.90, 0.91], 10_000)
    >>> round(math.sqrt(gap.variance), 2)
    0.41
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise ValueError(f"a and b must be paired by seed, two or more, got {a.shape} and {b.shape}")
    d = 100 * (a - b)
    noise = 1e4 * sum(p * (1 - p) for p in (a.mean(), b.mean())) / images
    return _gap(d.mean(), d.var(ddof=1) / len(d), noise, len(d))


def _gap(mean, of_seeds, of_images, seeds):
    variance = of_seeds + of_images
    freedom = (seeds - 1) * (variance / of_seeds) ** 2 if of_seeds > 1e-12 * variance else math.inf
    return Gap(float(mean), float(variance), float(min(freedom, 1e6)), seeds)


def interval_of(gap: Gap, level=0.95) -> Interval:
    """Student's interval of a gap.

    >>> found = interval_of(Gap(1.0, 0.25, 4.0, 5))
    >>> print(f"{found.low:.2f} to {found.high:.2f}")
    -0.39 to 2.39
    """
    half = stats.t.ppf((1 + level) / 2, gap.freedom) * math.sqrt(gap.variance)
    return Interval(gap.mean, gap.mean - half, gap.mean + half)


def holm(p) -> list[float]:
    r"""Holm's adjusted p-values: all hypotheses whose value is below 5% may be rejected together at 5%.

    .. math:: \tilde p_{(k)} = \max_{j \le k} \min\bigl(1, (m - j + 1)\, p_{(j)}\bigr)

    Args:
        p: m p-values, in any order.

    Reference:
        Holm (1979), "A simple sequentially rejective multiple test procedure".

    >>> [round(v, 3) for v in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p, dtype=float)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(np.minimum(1.0, (len(p) - np.arange(len(p))) * p[order]))
    adjusted = np.empty_like(stepped)
    adjusted[order] = stepped
    return adjusted.tolist()


def compare(gaps: dict, margin=MARGIN) -> dict:
    """Words for several gaps that hold together with 95%.

    Two hypotheses are tried for each gap: that it is zero, and that it is at least ``margin`` in size (two one-sided
    tests). Holm's rule corrects all of them for their number. The words: *better*, *worse*; *equal*, where only a gap
    of ``margin`` is ruled out; *better, by less than half a point* where both are; else *open*.

    Args:
        gaps: :class:`Gap` by name.
        margin: in points, a difference that would matter.

    Returns:
        :class:`Comparison` by name.

    >>> clear, none = Gap(2.0, 0.01, 9.0, 10), Gap(0.02, 0.01, 9.0, 10)
    >>> {name: found.word for name, found in compare({"clear": clear, "none": none, "wide": Gap(1, 4, 9, 10)}).items()}
    {'clear': 'better', 'none': 'equal', 'wide': 'open'}
    """
    different, close = [], []
    for gap in gaps.values():
        scale = math.sqrt(gap.variance) or 1e-300  # no scatter at all: every difference is certain
        law = stats.t(gap.freedom)
        different.append(2 * law.sf(abs(gap.mean) / scale))
        close.append(law.sf((margin - abs(gap.mean)) / scale))
    adjusted = holm(different + close)
    found = {}
    for k, (name, gap) in enumerate(gaps.items()):
        apart, near = adjusted[k] < 0.05, adjusted[len(gaps) + k] < 0.05
        word = ("better" if gap.mean > 0 else "worse") if apart else "equal" if near else "open"
        word += f", by less than {'half a point' if margin == 0.5 else f'{margin:g} points'}" * (apart and near)
        found[name] = Comparison(gap, interval_of(gap), word)
    return found
