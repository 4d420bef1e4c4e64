r"""The look of the figures, and the few helpers that several chapters draw with."""

import base64
import hashlib
import html
import io
import json
import math
import re
from collections import namedtuple
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib as mpl
import matplotlib.style
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon
from matplotlib.transforms import offset_copy
from PIL import Image

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


def label_lines(ax, lines: Sequence | None = None, *, spacing: float = 1.25, **kwargs) -> list:
    """Name several lines at their right ends, the names moved apart where they would overlap.

    Call it last: it reads the limits of the axes. The names keep the order of the lines' ends, stay within the height
    of the axes, and move as little as they can (least squares under a least distance).

    Args:
        ax: matplotlib axes.
        lines: the lines; ``None`` takes all of the axes' lines that have a label.
        spacing: least distance of two names, in font sizes.
        **kwargs: passed on to ``ax.annotate``.

    Returns:
        The annotations, in the order of ``lines``.

    Raises:
        ValueError: there is no line to label, or one has no finite point.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> _ = ax.plot([0, 1], [0, 1], label="a"), ax.plot([0, 1], [0, 1.01], label="b")
    >>> [note.get_text() for note in label_lines(ax)]
    ['a', 'b']
    >>> plt.close(figure)
    """
    if lines is None:
        lines = [line for line in ax.get_lines() if not line.get_label().startswith("_")]
    if not lines:
        raise ValueError("lines is empty: give the lines labels, ax.plot(..., label=...)")
    ax.figure.draw_without_rendering()  # settles the layout, and with it the heights
    to_points = 72 / ax.figure.dpi
    heights = np.array([ax.transData.transform(_points(line)[-1])[1] * to_points for line in lines])
    order = np.argsort(heights, kind="stable")
    size = kwargs.get("fontsize", mpl.rcParams["font.size"])
    least = spacing * FontProperties(size=size).get_size_in_points()
    ranks = np.arange(len(lines)) * least
    blocks = []  # pool adjacent violators: (mean, count) of heights less ranks, made non-decreasing
    for value in heights[order] - ranks:
        blocks.append((value, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (left, m), (right, n) = blocks[-2:]
            blocks[-2:] = [((m * left + n * right) / (m + n), m + n)]
    pooled = np.repeat([mean for mean, _ in blocks], [count for _, count in blocks])
    bottom, top = ax.bbox.y0 * to_points + least / 2, ax.bbox.y1 * to_points - least / 2
    placed = np.empty(len(lines))
    placed[order] = np.clip(pooled, bottom, max(bottom, top - ranks[-1])) + ranks
    shifts = placed - heights
    return [label_line(ax, line, offset=(6, shift), **kwargs) for line, shift in zip(lines, shifts, strict=True)]


def _points(line) -> np.ndarray:
    """The finite points of a line, from left to right, shape (n, 2)."""
    points = np.column_stack([np.asarray(values, dtype=np.float64) for values in line.get_data()])
    points = points[np.isfinite(points).all(1)]
    if len(points) == 0:
        raise ValueError(f"line {line.get_label()!r} has no finite point to be labelled at")
    return points[np.argsort(points[:, 0], kind="stable")]


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
    from scipy import stats

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
    """Figures, one a frame, as a player with slider, play button and keys that loads nothing from outside.

    Nothing moves before the reader asks for it. The arrow keys, Home and End turn the frames; the space bar plays
    and pauses. Where scripts do not run, the first frame and the caption are shown. Frames are kept without loss, as
    WebP of what differs from the first: keep the axes' limits the same, or everything jumps and the file grows.

    The same frames give the same bytes on one machine, but FreeType and libwebp differ between machines. So a
    notebook cell that ends in a player is tagged ``nbval-ignore-output``, with this reason.

    Args:
        frames: two or more matplotlib figures of one size; each is closed. A generator keeps one open at a time.
        alt: what the moving picture shows, for readers who do not see it.
        caption: one to three sentences that say what to see; plain text.
        fps: frames per second while playing; never above 2 where the reader's system asks for less motion.
        labels: a short text for each frame, shown beside the slider, such as ``"β = 3.2"``; else ``"3 / 24"``.

    Returns:
        :class:`Player`, which notebooks show as HTML.

    Raises:
        TypeError: a frame is not a matplotlib figure.
        ValueError: fewer than two frames, frames of different size, an empty ``alt`` or ``caption``, ``fps`` not
            positive, or another number of labels than of frames.

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
    pixels = [_pixels(figure) for figure in frames]  # each (height, width, 3)
    if len(pixels) < 2:
        raise ValueError(f"frames must hold at least two figures, got {len(pixels)}")
    sizes = {image.shape[1::-1] for image in pixels}
    if len(sizes) > 1:
        raise ValueError(f"frames must all have one size, got {sorted(sizes)} pixels")
    if labels is None:
        labels = [f"{k} / {len(pixels)}" for k in range(1, len(pixels) + 1)]
    labels = [str(label) for label in labels]
    if len(labels) != len(pixels):
        raise ValueError(f"labels must be one text a frame, got {len(labels)} for {len(pixels)} frames")
    first = pixels[0]
    changes = [np.dstack([image, 255 * (image != first).any(-1)]).astype(np.uint8) for image in pixels[1:]]
    data = {"changes": [_webp(image) for image in changes], "labels": labels, "fps": fps}
    (width, height), = sizes
    parts = {
        "FIRST": _webp(first),
        "ALT": html.escape(alt),
        "CAPTION": html.escape(caption),
        "LABEL": html.escape(labels[0]),
        "LABEL_WIDTH": str(max(map(len, labels))),
        "LAST": str(len(pixels) - 1),
        "WIDTH": str(width),
        "HEIGHT": str(height),
        "DATA": json.dumps(data, ensure_ascii=False).replace("<", "\\u003c"),  # no label can close the script
    }
    parts["KEY"] = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
    page = re.sub(r"@([A-Z_]+)@", lambda match: parts[match[1]], _PLAYER)
    return Player(page, alt, len(pixels))


def _pixels(figure) -> np.ndarray:
    """The figure, drawn on white, as (height, width, 3) bytes; closes the figure."""
    if not isinstance(figure, Figure):
        raise TypeError(f"frames must hold matplotlib figures, got {type(figure).__name__}")
    import matplotlib.pyplot as plt

    try:
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        drawn = Image.fromarray(np.asarray(canvas.buffer_rgba()))
    finally:
        plt.close(figure)
    return np.asarray(Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn))[..., :3]


def _webp(image: np.ndarray) -> str:
    """RGB or RGBA bytes as lossless WebP, in a data address."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "WEBP", lossless=True, quality=60, method=4)  # more effort gains 2 %
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


# Styles and script are bound to a class and to data-player, never to an id: a player may be shown twice on a page.
# :where() keeps the styles weaker than those of the page around it. A canvas puts the changes on the first frame.
_PLAYER = """\
<div class="sigreg-player" data-player="@KEY@" role="group" aria-label="Moving figure"
  data-lm-suppress-shortcuts="true">
<style>
:where(.sigreg-player figure) { margin: 1em 0; }
:where(.sigreg-player figcaption) { margin-top: .7em; max-width: 46em; }
.sigreg-player .stage { display: inline-block; max-width: 100%; text-align: left; }
.sigreg-player :is(img, canvas) { display: block; max-width: 100%; height: auto; margin: 0; padding: 0 !important;
  background: #fff; border-radius: 4px; }
.sigreg-player .controls { display: flex; flex-wrap: wrap; align-items: center; gap: .3em .8em; margin-top: .6em; }
.sigreg-player [hidden] { display: none !important; }
.sigreg-player button { min-width: 5em; padding: .25em .7em; font: inherit; font-size: .9em; color: inherit;
  background: transparent; border: 1px solid currentColor; border-radius: 4px; opacity: .85; cursor: pointer; }
.sigreg-player button:hover { opacity: 1; background: rgba(128, 128, 128, .18); }
.sigreg-player input { flex: 1 1 8em; min-width: 4em; margin: 0; accent-color: #2e86c1; cursor: pointer; }
.sigreg-player :focus-visible { outline: 2px solid #56b4e9; outline-offset: 2px; }
.sigreg-player output { padding: 0; font-size: .9em; font-variant-numeric: tabular-nums; text-align: right;
  white-space: nowrap; }
html[data-theme="dark"] .sigreg-player canvas { filter: brightness(.93); }
.text_html:has(> .sigreg-player) { background: none !important; color: inherit !important; padding: 0 !important; }
</style>
<figure>
<div class="stage">
<img class="dark-light" src="@FIRST@" width="@WIDTH@" height="@HEIGHT@" alt="@ALT@">
<div class="controls" hidden>
<button type="button">Play</button>
<input type="range" min="0" max="@LAST@" value="0" step="1" aria-label="Frame" aria-valuetext="@LABEL@"
  autocomplete="off">
<output aria-live="off" style="min-width: @LABEL_WIDTH@ch">@LABEL@</output>
</div>
</div>
<noscript><p>This figure moves where scripts may run; here is its first frame.</p></noscript>
<figcaption>@CAPTION@</figcaption>
</figure>
<script>
(() => {
  const { changes, labels, fps } = @DATA@;
  const last = changes.length;
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
  const start = (root) => {
    const [first, controls, button, slider, output] =
      ["img", ".controls", "button", "input", "output"].map((part) => root.querySelector(part));
    const pictures = changes.map((src) => Object.assign(new Image(), { src }));
    const canvas = Object.assign(document.createElement("canvas"), { width: @WIDTH@, height: @HEIGHT@ });
    const pen = canvas.getContext("2d");
    let timer = null;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", first.alt);
    const draw = async (k) => {
      await Promise.all([first.decode(), k && pictures[k - 1].decode()]);
      if (+slider.value !== k) return;
      pen.drawImage(first, 0, 0);
      if (k) pen.drawImage(pictures[k - 1], 0, 0);
    };
    const pause = () => {
      clearInterval(timer);
      timer = null;
      button.textContent = "Play";
    };
    const show = (k) => {
      slider.value = k;
      output.textContent = labels[+slider.value];
      slider.setAttribute("aria-valuetext", labels[+slider.value]);
      draw(+slider.value);
      if (+slider.value === last) pause();
    };
    const play = () => {
      if (+slider.value === last) show(0);
      timer = setInterval(() => show(+slider.value + 1), 1000 / (calm.matches ? Math.min(fps, 2) : fps));
      button.textContent = "Pause";
    };
    const toggle = () => (timer === null ? play() : pause());
    const turn = (k) => {
      pause();
      show(k);
    };
    button.addEventListener("click", toggle);
    slider.addEventListener("input", () => turn(+slider.value));
    canvas.addEventListener("click", () => slider.focus());
    root.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const k = +slider.value;
      const target =
        { ArrowRight: k + 1, ArrowUp: k + 1, ArrowLeft: k - 1, ArrowDown: k - 1, Home: 0, End: last };
      event.stopPropagation();
      if (event.key in target) turn(target[event.key]);
      else if (event.key === " " && event.target !== button) toggle();
      else return;
      event.preventDefault();
    });
    draw(0).then(() => {
      first.after(canvas);
      first.hidden = true;
      controls.hidden = false;
    });
  };
  for (const root of document.querySelectorAll('[data-player="@KEY@"]:not([data-ready])')) {
    root.dataset.ready = "";
    start(root);
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
