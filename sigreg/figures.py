r"""The look of the figures, and the few helpers that several chapters draw with."""

import base64
import hashlib
import html
import io
import json
import math
from collections import namedtuple
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib as mpl
import matplotlib.figure
import matplotlib.lines
import matplotlib.patches
import matplotlib.style
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

STYLE_FILE = Path(__file__).parent / "sigreg.mplstyle"
_STYLE = mpl.rc_params_from_file(STYLE_FILE, use_default_template=False)

Colors = namedtuple("Colors", "blue orange green purple sky olive grey")
COLORS = Colors(*_STYLE["axes.prop_cycle"].by_key()["color"])
r"""The colour cycle of the style file, in order and by name: ``COLORS[0]`` is ``COLORS.blue``."""


def use_style() -> None:
    """Draw every figure from now on in the book's style.

    Derived in: nothing to derive; ``sigreg.notebook.start`` calls it.

    >>> use_style()
    >>> mpl.rcParams["lines.linewidth"]
    2.0
    """
    mpl.style.use(STYLE_FILE)


def information_plane(ax, *, entropy_y: float, entropy_x: float | None = None, cap: str = "$I(X;Y)$"):
    r"""Prepare ``ax`` as an information plane: :math:`I(X;W)` across, :math:`I(W;Y)` up, the feasible region shaded.

    .. math:: I(W;Y) \le \min\{I(X;W),\ \text{entropy\_y}\}, \qquad I(X;W) \le \text{entropy\_x}

    by the data-processing inequality, for a code W made from X alone. The shading goes on where the limits are widened.

    Args:
        ax: matplotlib axes.
        entropy_y: what :math:`I(W;Y)` cannot exceed, in nats: :math:`I(X;Y)`, or H(Y) where X determines Y.
        entropy_x: H(X) in nats, the largest possible rate; ``None`` leaves the rate open to the right.
        cap: how the upper bound is labelled.

    Returns:
        ``ax``.

    Raises:
        ValueError: an entropy is not a finite positive number.

    Reference: Tishby, Pereira and Bialek (1999), arXiv physics/0004057.

    Derived in: Chapter 1.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> information_plane(ax, entropy_y=0.6).get_xlabel()
    'rate $I(X;W)$ [nats]'
    >>> plt.close(figure)
    """
    entropy_y = _positive("entropy_y", entropy_y)
    far = 1e3 * entropy_y if entropy_x is None else _positive("entropy_x", entropy_x)
    width = 2.4 * entropy_y if entropy_x is None else 1.04 * far
    corner = min(entropy_y, far)
    region = mpl.patches.Polygon(
        [(0, 0), (corner, corner), (far, corner), (far, 0)], facecolor="#EEF3F8", edgecolor="none", zorder=0
    )
    ax.add_artist(region)  # unlike add_patch, leaves the data limits alone
    edge = dict(color="#8899AA", linewidth=1, zorder=1)
    for xs, ys in (([0, corner], [0, corner]), ([corner, far], [corner, corner])):
        ax.add_artist(mpl.lines.Line2D(xs, ys, **edge))
    if entropy_x is not None:
        ax.add_artist(mpl.lines.Line2D([far, far], [0, corner], **edge))
    ax.set_xlim(0, width)
    ax.set_ylim(0, 1.13 * corner)
    note = dict(color="#5B6B7B", fontsize="small")
    ax.annotate(cap, (corner, corner), xytext=(4, 3), textcoords="offset points", va="bottom", **note)
    ax.text(
        0.5 * corner, 0.5 * corner, "$I(W;Y)=I(X;W)$", ha="center", va="bottom", rotation=45,
        rotation_mode="anchor", transform_rotates_text=True, **note,
    )
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
        raise ValueError("p must hold distributions: finite, non-negative entries that sum to 1 along the last axis")
    return p @ _CORNERS


def ternary_axes(ax, labels: Sequence[str]):
    """Prepare ``ax`` as the triangle of all distributions over three outcomes; points go where ``to_ternary`` says.

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
    ax.add_patch(mpl.patches.Polygon(_CORNERS, fill=False, edgecolor="#777777", linewidth=1.2, zorder=1))
    for corner, label, align in zip(_CORNERS, labels, ("right", "left", "center"), strict=True):
        down = corner[1] == 0
        ax.annotate(
            label, corner, xytext=(0, -6 if down else 6), textcoords="offset points",
            ha=align if not down else "center", va="top" if down else "bottom",
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
        ValueError: the line is empty, or ``x`` lies outside it.

    Derived in: nothing to derive.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> line, = ax.plot([0, 1], [0, 2], label="twice")
    >>> label_line(ax, line).get_text()
    'twice'
    >>> plt.close(figure)
    """
    xs, ys = (np.asarray(values, dtype=float) for values in line.get_data())
    keep = np.isfinite(xs) & np.isfinite(ys)
    xs, ys = xs[keep], ys[keep]
    if len(xs) == 0:
        raise ValueError("line has no finite points to be labelled at")
    order = np.argsort(xs, kind="stable")
    if x is None:
        x, y = xs[order[-1]], ys[order[-1]]
    elif xs.min() <= x <= xs.max():
        y = np.interp(x, xs[order], ys[order])
    else:
        raise ValueError(f"x must lie on the line, in [{xs.min():.4g}, {xs.max():.4g}], got {x}")
    style = dict(color=line.get_color(), va="center", ha="left", annotation_clip=False) | kwargs
    return ax.annotate(line.get_label() if text is None else text, (x, y), xytext=offset, textcoords="offset points", **style)


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

    Derived in: nothing to derive.

    >>> found = interval([1.0, 2.0, 3.0])
    >>> print(f"{found.mean:.3f} in [{found.low:.3f}, {found.high:.3f}]")
    2.000 in [-0.484, 4.484]
    """
    from scipy import stats

    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    values = np.asarray(values, dtype=np.float64)
    if values.ndim == 0 or len(values) < 2:
        raise ValueError(f"values must hold at least two repetitions along the first axis, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("values holds NaN or infinite entries: leave out the runs that failed, and say so")
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level}")
    n = len(values)
    mean = values.mean(0)
    half = stats.t.ppf((1 + level) / 2, n - 1) * values.std(0, ddof=1) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)


@dataclass(frozen=True)
class Player:
    """A sequence of pictures as one piece of HTML; the last expression of a cell shows it."""

    html: str = field(repr=False)
    alt: str
    frames: int

    def _repr_html_(self) -> str:
        return self.html


def player(
    frames: Iterable, *, alt: str, caption: str, fps: float = 8, labels: Sequence[str] | None = None
) -> Player:
    """Figures, one a frame, as a player with slider, play button and keyboard that loads nothing from outside.

    The frames become lossless WebP inside the HTML. Nothing moves before the reader asks for it. Arrow keys, Home and End
    turn the frames, the space bar plays and pauses. Where scripts do not run, the first frame and the caption are shown.
    Keep the axes' limits the same in all frames, or they jump.

    The same frames give the same bytes on one machine; another version of FreeType or libwebp may give others, so a
    notebook cell that ends in a player carries the tag ``nbval-ignore-output`` with this reason.

    Args:
        frames: matplotlib figures of one size, in any iterable (a generator keeps one open at a time). Each is closed.
        alt: what the moving picture shows, in words, for readers who do not see it.
        caption: one to three sentences that say what to see; plain text.
        fps: frames per second while playing, at most 2 where the reader's system asks for less motion.
        labels: a short text for each frame, shown beside the slider, such as ``"β = 3.2"``; default ``"3 / 24"``.

    Returns:
        :class:`Player`, which notebooks show as HTML.

    Raises:
        TypeError: a frame is not a matplotlib figure.
        ValueError: fewer than two frames, frames of different size, an empty alt or caption, fps not positive, or
            another number of labels than of frames.

    Derived in: nothing to derive; Chapter 1 uses it first.

    >>> import matplotlib.pyplot as plt
    >>> def draw(angle):
    ...     figure, ax = plt.subplots(figsize=(2, 2))
    ...     _ = ax.plot([0, np.cos(angle)], [0, np.sin(angle)])
    ...     _ = ax.set(xlim=(-1, 1), ylim=(-1, 1))
    ...     return figure
    >>> player([draw(0.1), draw(0.2)], alt="A clock hand turns.", caption="The hand turns to the left.")
    Player(alt='A clock hand turns.', frames=2)
    """
    for name, text in (("alt", alt), ("caption", caption)):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{name} must be a sentence that says what the frames show, got {text!r}")
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps must be a finite positive number, got {fps}")
    images, sizes = [], []
    for figure in frames:
        webp, size = _webp(figure)
        images.append("data:image/webp;base64," + base64.b64encode(webp).decode("ascii"))
        sizes.append(size)
    if len(images) < 2:
        raise ValueError(f"frames must hold at least two figures, got {len(images)}")
    if len(set(sizes)) > 1:
        raise ValueError(f"frames must all have one size, got {sorted(set(sizes))} pixels")
    labels = [f"{k} / {len(images)}" for k in range(1, len(images) + 1)] if labels is None else list(labels)
    if len(labels) != len(images):
        raise ValueError(f"labels must be one text a frame, got {len(labels)} for {len(images)} frames")
    data = json.dumps({"frames": images[1:], "labels": labels, "fps": fps}).replace("<", "\\u003c")
    key = hashlib.sha256("\n".join([data, images[0], alt, caption]).encode()).hexdigest()[:12]
    page = _PLAYER
    for name, value in {
        "KEY": key, "ALT": html.escape(alt), "CAPTION": html.escape(caption), "LABEL": html.escape(labels[0]),
        "LAST": str(len(images) - 1), "WIDTH": str(sizes[0][0]), "HEIGHT": str(sizes[0][1]),
        "CHARACTERS": str(max(map(len, labels))), "FIRST": images[0], "DATA": data,
    }.items():
        page = page.replace(f"@{name}@", value)
    return Player(page, alt, len(images))


def _webp(figure) -> tuple[bytes, tuple[int, int]]:
    """The figure, drawn on white, as lossless WebP, and its size in pixels; closes the figure."""
    import matplotlib.pyplot as plt
    from PIL import Image

    if not isinstance(figure, mpl.figure.Figure):
        raise TypeError(f"frames must hold matplotlib figures, got {type(figure).__name__}")
    try:
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        drawn = Image.fromarray(np.asarray(canvas.buffer_rgba()))
        image = Image.new("RGB", drawn.size, "white")
        image.paste(drawn, mask=drawn.getchannel("A"))
    finally:
        plt.close(figure)
    stream = io.BytesIO()
    image.save(stream, "WEBP", lossless=True, quality=100, method=4)
    return stream.getvalue(), image.size


# Scripts and styles are bound to data-player, never to an id, so that one player may be shown twice on a page.
_PLAYER = """\
<div class="sigreg-player" data-player="@KEY@" data-lm-suppress-shortcuts="true" role="group" aria-label="Figure that moves">
<style>
.sigreg-player { margin: 1em 0; color: inherit; font: inherit; }
.sigreg-player figure { margin: 0; }
.sigreg-player img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 4px; padding: 0; }
.sigreg-player .controls { display: flex; align-items: center; gap: .8em; max-width: @WIDTH@px; margin: .5em 0 0; }
.sigreg-player .controls[hidden] { display: none; }
.sigreg-player button { min-width: 4.6em; padding: .25em .7em; font: inherit; font-size: .9em; color: inherit;
  background: transparent; border: 1px solid currentColor; border-radius: 4px; cursor: pointer; }
.sigreg-player button:hover { background: rgba(128, 128, 128, .2); }
.sigreg-player input { flex: 1 1 auto; min-width: 4em; margin: 0; accent-color: #0072b2; cursor: pointer; }
.sigreg-player :focus-visible { outline: 2px solid #56b4e9; outline-offset: 2px; }
.sigreg-player output { padding: 0; font-size: .9em; font-variant-numeric: tabular-nums; text-align: right; white-space: nowrap; }
.sigreg-player figcaption { margin: .5em 0 0; max-width: @WIDTH@px; }
</style>
<figure>
<img class="dark-light" src="@FIRST@" width="@WIDTH@" height="@HEIGHT@" alt="@ALT@">
<div class="controls" hidden>
<button type="button" aria-label="Play">Play</button>
<input type="range" min="0" max="@LAST@" value="0" step="1" aria-label="Frame" aria-valuetext="@LABEL@" autocomplete="off">
<output aria-live="off" style="min-width: @CHARACTERS@ch">@LABEL@</output>
</div>
<noscript><p>This figure moves where scripts may run; shown is its first frame.</p></noscript>
<figcaption>@CAPTION@</figcaption>
</figure>
<script>
(() => {
  const { frames, labels, fps } = @DATA@;
  for (const root of document.querySelectorAll('[data-player="@KEY@"]:not([data-ready])')) {
    root.dataset.ready = "";
    const [image, button, slider, output] = ["img", "button", "input", "output"].map((tag) => root.querySelector(tag));
    const sources = [image.src, ...frames], last = frames.length;
    const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
    let timer = null;
    const show = (k) => {
      k = Math.min(Math.max(k, 0), last);
      slider.value = k;
      image.src = sources[k];
      output.textContent = labels[k];
      slider.setAttribute("aria-valuetext", labels[k]);
      if (k === last) pause();
    };
    const pause = () => {
      clearInterval(timer);
      timer = null;
      button.textContent = "Play";
      button.setAttribute("aria-label", "Play");
    };
    const play = () => {
      if (+slider.value === last) show(0);
      timer = setInterval(() => show(+slider.value + 1), 1000 / (calm.matches ? Math.min(fps, 2) : fps));
      button.textContent = "Pause";
      button.setAttribute("aria-label", "Pause");
    };
    const toggle = () => (timer === null ? play() : pause());
    const keys = {
      ArrowRight: () => +slider.value + 1, ArrowUp: () => +slider.value + 1,
      ArrowLeft: () => +slider.value - 1, ArrowDown: () => +slider.value - 1,
      Home: () => 0, End: () => last,
    };
    button.addEventListener("click", toggle);
    slider.addEventListener("input", () => { pause(); show(+slider.value); });
    image.addEventListener("click", () => slider.focus());
    root.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      event.stopPropagation();
      if (event.key === " " && event.target !== button) { event.preventDefault(); toggle(); }
      if (event.key in keys) { event.preventDefault(); pause(); show(keys[event.key]()); }
    });
    root.querySelector(".controls").hidden = false;
  }
})();
</script>
</div>
"""


def _positive(name: str, value) -> float:
    value = float(value)
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a finite positive number of nats, got {value}")
    return value
