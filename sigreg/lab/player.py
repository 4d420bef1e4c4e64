"""A figure that the reader plays, step by step, without a server or a library."""

import base64
import hashlib
import html
import io
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image


@dataclass(frozen=True)
class Player:
    """A sequence of pictures as one piece of HTML; the last expression of a cell shows it."""

    html: str = field(repr=False)
    alt: str
    frames: int

    def _repr_html_(self) -> str:
        return self.html


def player(frames: Iterable, *, alt: str, caption: str, fps: float = 8, labels: Sequence[str] | None = None) -> Player:
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
    ((width, height),) = sizes
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
