r"""The look of the figures, and the few helpers that several chapters draw with."""

import math
import re
from collections import namedtuple
from collections.abc import Sequence
from pathlib import Path

from sigreg.lab import require_extra

require_extra()

import matplotlib as mpl
import matplotlib.style
import numpy as np
import torch
from matplotlib.collections import Collection, QuadMesh
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon
from matplotlib.transforms import offset_copy

from sigreg.lab.intervals import interval

STYLE_FILE = Path(__file__).parent / "sigreg.mplstyle"
_STYLE = mpl.rc_params_from_file(STYLE_FILE, use_default_template=False)

Colors = namedtuple("Colors", "blue orange green purple sky brown grey")
COLORS = Colors(*_STYLE["axes.prop_cycle"].by_key()["color"])
r"""The colour cycle of the style file, in order and by name: ``COLORS[0]`` is ``COLORS.blue``."""


def use_style() -> None:
    """Draw every figure from now on in the book's style.

    >>> use_style()
    >>> mpl.rcParams["lines.linewidth"]
    2.0
    """
    mpl.style.use(STYLE_FILE)


HEAVY = 100_000
r"""Bytes above which an artist is drawn as a picture within the SVG."""


def svg(figure) -> str | None:
    """The figure as SVG, for the notebook: drawn again it has the same bytes, and it needs no font where it is shown.

    An artist that would weigh more than ``HEAVY`` bytes becomes a picture within it; letters and axes stay outlines.

    Args:
        figure: matplotlib figure.

    Returns:
        The text of the SVG; ``None`` for a figure on which nothing was drawn.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> svg(figure)[:4]
    '<svg'
    >>> plt.close(figure)
    """
    from IPython.core.pylabtools import print_figure  # here, for studies are run without IPython

    for artist in figure.findobj(lambda part: _weight(part) > HEAVY):
        artist.set_rasterized(True)
    text = print_figure(figure, "svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return text and _packed(text)


def _packed(text: str) -> str:
    """The SVG on one line, from its first tag on, without remarks, outlines to a hundredth of a point."""
    text = re.sub(r"<!--.*?-->", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'(?<=base64,)[^"]+', lambda data: "".join(data[0].split()), text)
    text = re.sub(r'(?<= )(?:d|x|y)="[^"]+"', lambda place: re.sub(r"(\.\d\d)\d+", r"\1", place[0]), text)
    return re.sub(r"> <", "><", " ".join(text.split()))


def _weight(artist) -> int:
    """About how many bytes an artist takes as outlines: 25 a point, and 130 where an earlier outline is used again."""
    if isinstance(artist, Line2D):
        return 0 if artist.get_marker() in ("None", "none", " ", "", None) else 130 * len(artist.get_xdata())
    if isinstance(artist, QuadMesh):
        return 25 * 5 * math.prod(artist.get_coordinates().shape[:2])
    if isinstance(artist, Collection):
        points = [len(path.vertices) for path in artist.get_paths()]
        count = max(len(artist.get_offsets()), len(points))
        own = len(points) > 1 or len(artist.get_transforms()) > 1
        return 25 * sum(points) * -(-count // max(len(points), 1)) if own else 130 * count
    return 0


def information_plane(ax, *, entropy_y: float, entropy_x: float | None = None, cap: str = "$I(X;Y)$"):
    r"""Prepare ``ax`` as an information plane: rate across, relevance up, the feasible region shaded.

    A code W made from X alone cannot say more about Y than it keeps of X, nor more than X itself says:

    .. math:: I(W;Y) \le \min\{I(X;W),\ I(X;Y)\}, \qquad I(X;W) \le H(X).

    The shading goes on where the limits are widened later.

    Args:
        ax: matplotlib axes.
        entropy_y: what :math:`I(W;Y)` cannot exceed, in nats: :math:`I(X;Y)`, or H(Y) where X determines Y.
        entropy_x: H(X) in nats, the largest rate; ``None`` leaves the region open to the right.
        cap: how the upper bound is labelled.

    Returns:
        ``ax``.

    Raises:
        ValueError: an entropy is not a finite positive number, or ``entropy_y`` exceeds ``entropy_x``.

    Reference: Tishby, Pereira and Bialek (1999), arXiv physics/0004057.

    Derived in: Chapter 1.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> information_plane(ax, entropy_y=0.6).get_xlabel()
    'rate $I(X;W)$ [nats]'
    >>> plt.close(figure)
    """
    top = _positive("entropy_y", entropy_y)
    right = None if entropy_x is None else _positive("entropy_x", entropy_x)
    if right is not None and right < top:
        raise ValueError(f"entropy_y must be at most entropy_x, as I(X;Y) <= H(X); got {top:.4g} > {right:.4g}")
    far = 1e3 * top if right is None else right
    # add_artist, unlike add_patch and plot, leaves the data limits alone
    ax.add_artist(Polygon([(0, 0), (top, top), (far, top), (far, 0)], facecolor="#EFF4F9", zorder=0))
    border = [(0, 0), (top, top), (far, top)] + ([] if right is None else [(far, 0)])
    ax.add_artist(Line2D(*zip(*border, strict=True), color="#8899AA", linewidth=1, zorder=1))
    note = dict(color="#5B6B7B", fontsize="small", va="bottom")
    ax.text(top, top, cap, transform=offset_copy(ax.transData, ax.figure, 3, 2, "points"), **note)
    if right is not None:
        inside = offset_copy(ax.transData, ax.figure, -4, 4, "points")
        ax.text(right, 0, "$H(X)$", ha="right", transform=inside, **note)
    diagonal = dict(ha="center", rotation=45, rotation_mode="anchor", transform_rotates_text=True)
    above = offset_copy(ax.transData, ax.figure, -1.5, 1.5, "points")
    ax.text(top / 2, top / 2, "$I(W;Y)=I(X;W)$", transform=above, **diagonal, **note)
    ax.set_xlim(0, 2.4 * top if right is None else 1.04 * right)
    ax.set_ylim(0, 1.13 * top)
    ax.set_xlabel("rate $I(X;W)$ [nats]")
    ax.set_ylabel("relevance $I(W;Y)$ [nats]")
    return ax


_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(3) / 2]])


def to_ternary(p) -> np.ndarray:
    r"""Where distributions over three outcomes lie in the plane of the simplex.

    .. math:: p \mapsto p_1 (0, 0) + p_2 (1, 0) + p_3 (1/2, \sqrt 3 / 2)

    Args:
        p: distributions, tensor or array, shape ``(..., 3)``.

    Returns:
        Array of shape ``(..., 2)``, float64.

    Raises:
        ValueError: not three columns, NaN, a negative entry, or rows that do not sum to one.

    Derived in: Chapter 1.

    >>> to_ternary([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0]]).tolist()
    [[0.0, 0.0], [1.0, 0.0], [0.5, 0.0]]
    """
    if isinstance(p, torch.Tensor):
        p = p.detach().cpu().numpy()
    p = np.asarray(p, dtype=np.float64)
    if p.ndim == 0 or p.shape[-1] != 3:
        raise ValueError(f"p must have shape (..., 3), got {p.shape}")
    if not np.isfinite(p).all() or (p < 0).any() or (abs(p.sum(-1) - 1) > 1e-4).any():
        raise ValueError("p must hold distributions: finite, non-negative, summing to 1 along the last axis")
    return p @ _CORNERS


def ternary_axes(ax, labels: Sequence[str]):
    """Prepare ``ax`` as the triangle of all distributions over three outcomes; ``to_ternary`` places the points.

    Args:
        ax: matplotlib axes.
        labels: names of the three outcomes, for the corners: left, right, top.

    Returns:
        ``ax``.

    Raises:
        ValueError: not three labels.

    Derived in: Chapter 1.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> _ = ternary_axes(ax, ["shirt", "coat", "bag"])
    >>> _ = ax.scatter(*to_ternary([0.2, 0.3, 0.5]))
    >>> plt.close(figure)
    """
    labels = list(labels)
    if len(labels) != 3:
        raise ValueError(f"labels must be three names, one a corner, got {len(labels)}")
    ax.set_aspect("equal")
    ax.axis("off")
    for k in range(3):
        for level in (0.25, 0.5, 0.75):
            ends = np.zeros((2, 3))
            ends[:, k] = level
            ends[0, (k + 1) % 3] = ends[1, (k + 2) % 3] = 1 - level
            ax.plot(*to_ternary(ends).T, color="#E2E2E2", linewidth=0.8, zorder=0)
    ax.add_patch(Polygon(_CORNERS, fill=False, edgecolor="#777777", linewidth=1.2, zorder=1))
    for corner, label, align in zip(_CORNERS, labels, ("right", "left", "center"), strict=True):
        down = corner[1] == 0
        ax.annotate(
            label,
            corner,
            xytext=(0, -6 if down else 6),
            textcoords="offset points",
            ha=align if not down else "center",
            va="top" if down else "bottom",
        )
    ax.set_xlim(-0.06, 1.06)
    ax.set_ylim(-0.1, 0.96)
    return ax


def label_line(ax, line, text: str | None = None, *, x: float | None = None, offset=(6, 0), **kwargs):
    """Write a line's name beside it, in its colour, in place of a legend.

    Args:
        ax: matplotlib axes.
        line: a ``Line2D``.
        text: the name; ``None`` takes the line's label.
        x: where along the line, in data units; ``None`` means its right end.
        offset: shift of the text, in points.
        **kwargs: passed on to ``ax.annotate``.

    Returns:
        The annotation.

    Raises:
        ValueError: the line has no finite point, or ``x`` lies outside it.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> line, = ax.plot([0, 1], [0, 2], label="twice")
    >>> label_line(ax, line).get_text()
    'twice'
    >>> plt.close(figure)
    """
    points = _points(line)
    if x is None:
        x, y = points[-1]
    elif points[0, 0] <= x <= points[-1, 0]:
        y = np.interp(x, *points.T)
    else:
        raise ValueError(f"x must lie on the line, in [{points[0, 0]:.4g}, {points[-1, 0]:.4g}], got {x}")
    style = dict(color=line.get_color(), va="center", ha="left", annotation_clip=False) | kwargs
    text = line.get_label() if text is None else text
    return ax.annotate(text, (x, y), xytext=offset, textcoords="offset points", **style)


def _points(line) -> np.ndarray:
    """The finite points of a line, from left to right, shape (n, 2)."""
    points = np.column_stack([np.asarray(values, dtype=np.float64) for values in line.get_data()])
    points = points[np.isfinite(points).all(1)]
    if len(points) == 0:
        raise ValueError(f"line {line.get_label()!r} has no finite point to be labelled at")
    return points[np.argsort(points[:, 0], kind="stable")]


def span(values):
    """The two ends of :func:`sigreg.lab.intervals.interval`, as seaborn's ``errorbar`` wants them.

    >>> low, high = span([1.0, 2.0, 3.0])
    >>> round(low, 3), round(high, 3)
    (-0.484, 4.484)
    """
    found = interval(values)
    return float(found.low), float(found.high)


def _positive(name: str, value) -> float:
    value = float(value)
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a finite positive number of nats, got {value}")
    return value
