"""Figures in two inks: dark on light as the chapters drew them, and light on dark for the dark theme.

Matplotlib writes a figure as SVG on a white ground. Beside each such file this writes a copy for the dark theme, and a
page shows the one or the other. One rule gives each ink its partner: the same hue, and a contrast with the dark
ground that follows from the one it had with white (`CONTRASTS`). White becomes the ground itself, a faint grid stays
faint, what could be read can be read, and black does not glare.

Pictures inside a figure stay as they are, and so does what is drawn on them. Figures that are not SVG stay prints on
white.
"""

from __future__ import annotations

import base64
import functools
import io
import itertools
import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
from PIL import Image

GROUND = "#15181d"  # --pst-color-background of the dark theme
CONTRASTS = ((1, 1), (1.3, 1.35), (3, 4.8), (7.5, 8.5), (21, 13))  # with white, and with the dark ground
VIVID = 12  # a strong colour is seen however light it was: yellow would else be as faint as on white
SMALLEST = 9  # CSS px that the letters of a figure have on every screen; a narrow one scrolls it sideways
SVG, XLINK = "http://www.w3.org/2000/svg", "{http://www.w3.org/1999/xlink}href"
FONT_SCALE = 100  # matplotlib draws letters at this size, and scales them to their own
PX = 4 / 3  # CSS px in a point

INK = re.compile(r"((?:fill|stroke): )(#[0-9a-fA-F]{6})\b")
STRANGE = re.compile(r"\b(?:fill|stroke): (?!none\b|#[0-9a-fA-F]{6}\b)[^;]*")
PLACE = re.compile(r"translate\(([-\d.e]+)[ ,]+([-\d.e]+)\)")
SCALE = re.compile(r"scale\(([\d.e-]+)[ ,]+-[\d.e-]+\)")
NUMBER = re.compile(r"-?\d+\.?\d*(?:e-?\d+)?")
IMAGE = re.compile(r'<img ([^>]*?)src="([^"]*_images/[^"]*\.svg)"([^>]*?)\s*/?>')
# Two of the book's colours go a little beside the rule, or some readers could not tell them from its grey or green.
PARTNERS = {"#ffffff": GROUND, "#a8276f": "#ef72c2", "#80461a": "#e7a665"}


# Colours ----------------------------------------------------------------------------------------------------------


def linear(color: str) -> list[float]:
    values = [int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    return [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]


def luminance(rgb) -> float:
    return 0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2]


def contrast(one: str, other: str) -> float:
    """As WCAG 2 defines it, from 1 to 21."""
    low, high = sorted(luminance(linear(color)) for color in (one, other))
    return (high + 0.05) / (low + 0.05)


def oklab(rgb) -> tuple[float, float, float]:
    """Lightness, and two coordinates whose angle is the hue (Ottosson 2020), of linear sRGB."""
    r, g, b = rgb
    l, m, s = (
        math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b),
        math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b),
        math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b),
    )
    return (
        0.2104542553 * l + 0.7936177850 * m - 0.0040720468 * s,
        1.9779984951 * l - 2.4285922050 * m + 0.4505937099 * s,
        0.0259040371 * l + 0.7827717662 * m - 0.8086757660 * s,
    )


def from_oklab(lightness: float, a: float, b: float) -> list[float]:
    l, m, s = (
        (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3,
        (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3,
        (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3,
    )
    return [
        4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
        -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
        -0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s,
    ]


def with_luminance(a: float, b: float, wanted: float) -> list[float]:
    """Linear sRGB of this hue and luminance, as strong as `a` and `b` say or as the screen can show."""
    for strength in (1 - k / 40 for k in range(41)):
        low, high = 0.0, 1.0
        for _ in range(30):
            middle = (low + high) / 2
            rgb = from_oklab(middle, strength * a, strength * b)
            low, high = (middle, high) if luminance(rgb) < wanted else (low, middle)
        if all(-1e-3 <= v <= 1 + 1e-3 for v in rgb):
            break
    return [min(max(v, 0.0), 1.0) for v in rgb]


def contrast_on_dark(on_white: float) -> float:
    """Between the knots of `CONTRASTS`, evenly on the scale of ratios."""
    for (low, first), (high, last) in itertools.pairwise(CONTRASTS):
        if on_white <= high:
            share = math.log(on_white / low) / math.log(high / low)
            return first * (last / first) ** share
    return CONTRASTS[-1][1]


@functools.cache
def dark(color: str) -> str:
    """The partner of an ink on the dark ground."""
    if color in PARTNERS:
        return PARTNERS[color]
    ground = linear(GROUND)
    _, a, b = oklab(linear(color))
    wanted = max(contrast_on_dark(contrast(color, "#ffffff")), 1 + VIVID * math.hypot(a, b))
    _, tint_a, tint_b = oklab(ground)
    faint = max(0.0, 1 - (wanted - 1) / 2)  # near the ground an ink takes on its tint
    rgb = with_luminance(a + faint * tint_a, b + faint * tint_b, wanted * (luminance(ground) + 0.05) - 0.05)
    values = [12.92 * v if v <= 0.0031308 else 1.055 * v ** (1 / 2.4) - 0.055 for v in rgb]
    return "#" + "".join(f"{round(255 * v):02x}" for v in values)


# Figures ----------------------------------------------------------------------------------------------------------


def points(element: ET.Element) -> list[tuple[float, float]]:
    """Where a part of a figure stands: the places of its letters and marks, else the corners of its outlines."""
    found = []
    for part in element.iter():
        if (at := PLACE.match(part.get("transform", ""))) and SCALE.search(part.get("transform", "")):
            found.append((float(at[1]), float(at[2])))
        elif part.tag == f"{{{SVG}}}use" and part.get("x"):
            found.append((float(part.get("x")), float(part.get("y"))))
    if not found:
        for path in element.findall(f"./{{{SVG}}}path") + element.findall(f"./{{{SVG}}}g/{{{SVG}}}path"):
            numbers = [float(number) for number in NUMBER.findall(path.get("d", ""))]
            found += zip(numbers[::2], numbers[1::2], strict=False)
    return found


def pixels_of(image: ET.Element) -> np.ndarray:
    """Red, green, blue and opacity of a picture, a row for each pixel row."""
    data = base64.b64decode(image.get(XLINK).partition(",")[2])
    return np.array(Image.open(io.BytesIO(data)).convert("RGBA"))


def are_photographs(pixels: np.ndarray) -> bool:
    """Photographs side by side have clear pixels between them, as layers of marks have, but many greys."""
    shown = pixels[pixels[..., 3] > 0, :3]
    return np.ptp(shown, axis=1).max(initial=0) <= 3 and len(np.unique(shown[:, 0])) > 64


def recolor(pixels: np.ndarray) -> str:
    """The address of a layer of marks in light ink; colours that one does not tell apart are taken together."""
    known, place = np.unique(pixels[..., :3].reshape(-1, 3) & 0xF8, axis=0, return_inverse=True)
    known = known | known >> 5  # white stays white
    partners = [[*bytes.fromhex(dark(f"#{bytes(color).hex()}")[1:])] for color in known]
    pixels[..., :3] = np.array(partners, dtype=np.uint8)[place.ravel()].reshape(pixels[..., :3].shape)
    stream = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(stream, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def rectangle(image: ET.Element) -> tuple[float, float, float, float]:
    """Where a picture lies: left, top, right, bottom, a point within its edges."""
    x, y, width, height = (float(image.get(key, 0)) for key in ("x", "y", "width", "height"))
    numbers = [float(number) for number in NUMBER.findall(image.get("transform", ""))]
    if image.get("transform", "").startswith("matrix"):
        width, height, x, y = numbers[0] * width, numbers[3] * height, numbers[4], numbers[5]
    elif numbers:  # scale(1 -1) translate(0 -height): matplotlib's pictures stand on their heads
        y = -(y + numbers[3]) - height
    top, bottom = sorted((y, y + height))
    return x + 1, top + 1, x + width - 1, bottom - 1


def darken(text: str) -> str:
    """The text of a figure's SVG in light ink on the dark ground."""
    ET.register_namespace("", SVG)
    ET.register_namespace("xlink", XLINK[1:].split("}")[0])
    root = ET.fromstring(text)
    grounds = []
    for image in root.iter(f"{{{SVG}}}image"):
        pixels = pixels_of(image)
        if pixels[..., 3].min() > 0:
            grounds.append(rectangle(image))
        elif not are_photographs(pixels):
            image.set(XLINK, recolor(pixels))

    def on_a_picture(element):
        places = np.array(points(element))
        edge = 2 if element.get("id").startswith("line2d") else 0  # a line may end at the edge, but not follow it
        return len(places) and any(
            ((places >= (left - edge, top - edge)) & (places <= (right + edge, bottom + edge))).all()
            and left <= places[:, 0].mean() <= right
            and top <= places[:, 1].mean() <= bottom
            for left, top, right, bottom in grounds
        )

    def visit(element):
        if grounds and element.get("id", "").rpartition("_")[0] and on_a_picture(element):
            element.set("fill", "#000000")  # what names no ink is black
            return
        if style := element.get("style"):
            if strange := STRANGE.search(style):
                raise ValueError(f"{strange[0]!r}: no partner is known for an ink that is not written as #rrggbb")
            element.set("style", INK.sub(lambda found: found[1] + dark(found[2].lower()), style))
        for child in element:
            visit(child)

    root.set("fill", dark("#000000"))
    visit(root)
    return ET.tostring(root, encoding="unicode")


def letters(text: str) -> float:
    """The size of the smallest letters of a figure, in points; 0 if it has none. Indices do not count."""
    return min((FONT_SCALE * float(scale) for scale in SCALE.findall(text)), default=0.0)


# Pages ------------------------------------------------------------------------------------------------------------


def is_figure(text: str) -> bool:
    """Is it a figure that matplotlib drew?"""
    return text.startswith("<svg") and '<g id="figure_1">' in text


def both(match: re.Match, page: Path) -> str:
    """The two pictures in place of one. The page fetches the one that its theme shows."""
    before, address, after = match.groups()
    file = (page.parent / address).resolve()
    text = file.read_text(encoding="utf-8")
    if not is_figure(text):
        return match[0]
    other = file.with_name(f"{file.stem}-dark.svg")
    if not other.exists():
        other.write_text(darken(text), encoding="utf-8")
    width, height = (float(size) * PX for size in re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', text).groups())
    size = letters(text)
    least = f"--least: {math.ceil(min(1.5, SMALLEST / (PX * size)) * width)}px" if size else ""
    shape = f'width="{width:.0f}" height="{height:.0f}" loading="lazy"'
    twins = (
        f'<img class="only-{theme}" {before}src="{address[: -len(file.name)]}{twin.name}" {shape}{after} />'
        for theme, twin in (("light", file), ("dark", other))
    )
    return f'<span class="inked" style="{least}" data-letters="{size:.2f}">{"".join(twins)}</span>'


def finish(app, exception) -> None:
    if exception is not None or app.builder.format != "html":
        return
    root = Path(app.outdir)
    for page in sorted(root.rglob("*.html")):
        if "_static" in page.relative_to(root).parts[:1]:
            continue
        text = page.read_text(encoding="utf-8")
        inked = IMAGE.sub(lambda match, page=page: both(match, page), text)
        if inked != text:
            page.write_text(inked, encoding="utf-8")


def setup(app):
    app.connect("build-finished", finish, priority=800)  # before `lighter`
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
