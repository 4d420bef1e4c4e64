"""The two inks of a figure: each colour has a partner that can be read on the dark ground, and nothing stays white."""

import base64
import importlib.util
import io
import itertools
import re
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from color_vision import VISION, lab
from matplotlib.colors import to_hex
from PIL import Image

from sigreg.lab import figures

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("book_ink", ROOT / "book/_ext/ink.py")
ink = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ink)

pytestmark = pytest.mark.usefixtures("book_style")
CYCLE = [color.lower() for color in figures.COLORS]


def colors(text):
    return {color.lower() for _, color in ink.INK.findall(text)}


# Colours -------------------------------------------------------------------------------------------------------------


def test_the_ground_is_that_of_the_page():
    css = (ROOT / "book/_static/custom.css").read_text()
    theme = re.search(r'html\[data-theme="dark"\] \{(.*?)\}', css, re.DOTALL)[1]
    assert f"--pst-color-background: {ink.GROUND};" in theme
    assert ink.dark("#ffffff") == ink.GROUND


@pytest.mark.parametrize("color", CYCLE)
def test_every_color_of_the_cycle_can_be_read_on_the_dark_ground(color):
    assert ink.contrast(ink.dark(color), ink.GROUND) > 4.5  # WCAG 2 for small text; the lines need 3


def nearest(partners):
    """The least distance between two of the colours, with any colour vision."""
    seen = [
        [lab(np.clip(np.array(vision) @ ink.linear(color), 0, 1)) for color in partners] for vision in VISION.values()
    ]
    return min(np.linalg.norm(a - b) for each in seen for a, b in itertools.combinations(each, 2))


def test_any_two_partners_of_the_cycle_differ_with_any_color_vision(monkeypatch):
    assert nearest([ink.dark(color) for color in CYCLE]) > 14  # as in light; 2.3 is just noticeable
    ink.dark.cache_clear()
    monkeypatch.setattr(ink, "PARTNERS", {})
    assert nearest([ink.dark(color) for color in CYCLE]) < 14  # the rule alone would not do
    ink.dark.cache_clear()


def test_what_can_be_read_on_white_can_be_read_in_the_dark_and_what_is_faint_stays_faint():
    rng = np.random.default_rng(0)
    for color in ("#{:02x}{:02x}{:02x}".format(*rgb) for rgb in rng.integers(0, 256, (300, 3))):
        before, after = ink.contrast(color, "#ffffff"), ink.contrast(ink.dark(color), ink.GROUND)
        vivid = 1 + ink.VIVID * np.hypot(*ink.oklab(ink.linear(color))[1:])
        assert after == pytest.approx(max(ink.contrast_on_dark(before), vivid), rel=0.03), color
        assert after > 4.5 if before >= 3 else after < 4.9, color
    assert 12 < ink.contrast(ink.dark("#000000"), ink.GROUND) < 14
    assert ink.contrast(ink.dark("#e6e6e6"), ink.GROUND) < 1.4  # the grid
    assert ink.contrast(ink.dark("#fde725"), ink.GROUND) > 3  # yellow, with 1.3 on white


@pytest.mark.parametrize("color", ["#0a55a0", "#d55e00", "#109e66", "#6a86f5", "#eff4f9"])
def test_a_partner_keeps_its_hue(color):
    (_, a, b), (_, c, d) = ink.oklab(ink.linear(color)), ink.oklab(ink.linear(ink.dark(color)))
    assert (a * c + b * d) / np.hypot(a, b) / np.hypot(c, d) > np.cos(np.radians(8))


# Figures -------------------------------------------------------------------------------------------------------------


def drawn():
    """A figure with all kinds of parts: lines, fills, black letters and black fills, and a halo."""
    figure, ax = plt.subplots()
    for color in CYCLE:
        ax.plot([0, 1], [0, 1], color=color)
    ax.fill_between([0, 1], [0, 1], color="#D9E4F2")
    ax.bar([0], [1], color="black")
    ax.plot([0.5], [0.5], "o", color="white", markeredgecolor="#123456")
    ax.text(0.2, 0.8, "black $x^2$", color="black")
    return figure


def test_no_ink_is_left_as_it_was_and_none_is_white():
    before = figures.svg(drawn())
    after = ink.darken(before)
    assert colors(after) == {ink.dark(color) for color in colors(before)}
    lightest = max(colors(after), key=lambda color: ink.luminance(ink.linear(color)))
    assert ink.contrast(lightest, ink.GROUND) < 14
    assert re.match(r"<svg[^>]*fill=\"(#\w+)\"", after)[1] == ink.dark("#000000")  # letters that name no ink are black
    rest = re.sub(r'fill="#\w+"|(xlink:)?href="[^"]*"', "", ink.INK.sub("", after))
    assert not re.search(r"#[0-9a-fA-F]{6}\b|rgb\(|\bwhite\b|\bblack\b", rest)


def test_an_ink_that_would_stay_white_is_refused():
    for strange in ("rgb(255,255,255)", "white", "url(#shade)"):
        planted = figures.svg(drawn()).replace("fill: #ffffff", f"fill: {strange}", 1)
        with pytest.raises(ValueError, match="no partner is known"):
            ink.darken(planted)


def test_letters_keep_their_places_and_their_number():
    before = figures.svg(drawn())
    after = ink.darken(before)
    for part in ("<use", "<path", "translate(", "<defs"):
        assert after.count(part) == before.count(part)
    assert ink.letters(before) == ink.letters(after) == 9


def image_of(text):
    address = re.search(r'href="(data:image/png;base64,[^"]+)"', text)[1]
    return np.array(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGBA"))


def test_a_picture_stays_as_it_is_and_so_does_what_is_written_on_it():
    figure, ax = plt.subplots()
    ax.imshow(np.linspace(0, 1, 64).reshape(8, 8), cmap="gray")
    ax.grid(False)
    ax.text(1, 1, "on it", color="#FFFFFF")
    ax.text(3, 3, "black on it", color="#000000")
    ax.set_title("above it", color="#010203")
    ax.axvline(3.5, color="#040506")
    before = figures.svg(figure)
    after = ink.darken(before)
    np.testing.assert_array_equal(image_of(before), image_of(after))
    assert "#ffffff" in colors(after) and after.count('fill="#000000"') >= 2
    assert "#040506" in colors(after), "a line across the picture"
    assert "#010203" not in colors(after) and ink.dark("#010203") in colors(after)


def test_photographs_side_by_side_stay_as_they_are():
    figure, ax = plt.subplots()
    for left in (0, 2):
        ax.imshow(np.linspace(0, 1, 400).reshape(20, 20), cmap="gray", extent=(left, left + 1, 0, 1), alpha=0.9)
    ax.set(xlim=(0, 4), ylim=(0, 2))
    before = figures.svg(figure)
    assert before.count("<image") == 1 and image_of(before)[..., 3].min() == 0  # matplotlib makes them one picture
    np.testing.assert_array_equal(image_of(before), image_of(ink.darken(before)))


def test_a_layer_of_marks_gets_light_ink():
    figure, ax = plt.subplots()
    ax.scatter(*np.random.default_rng(0).normal(size=(2, 3000)), color=CYCLE[0])
    before = figures.svg(figure)
    after = ink.darken(before)
    old, new = image_of(before), image_of(after)
    np.testing.assert_array_equal(old[..., 3], new[..., 3])
    assert {to_hex(color / 255) for color in np.unique(old[old[..., 3] == 255][:, :3], axis=0)} == {CYCLE[0]}
    for color in np.unique(new[new[..., 3] == 255][:, :3], axis=0):
        assert ink.contrast(to_hex(color / 255), ink.GROUND) > 6


# Pages ---------------------------------------------------------------------------------------------------------------


def page(tmp_path, name="notebooks/a.html", tag='<img alt="A line that rises" src="../_images/one.svg" />'):
    for folder in ("notebooks", "_images", "_static"):
        (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / "_images/one.svg").write_text(figures.svg(drawn()))
    (tmp_path / name).write_text(f"<article><figure>{tag}<figcaption>Words.</figcaption></figure></article>")
    app = type("App", (), {"builder": type("B", (), {"format": "html"}), "outdir": str(tmp_path)})
    ink.finish(app, None)
    return (tmp_path / name).read_text()


def test_a_page_shows_one_of_two_pictures(tmp_path):
    text = page(tmp_path)
    light, dark = re.findall(r"<img [^>]*>", text)
    assert 'class="only-light"' in light and 'src="../_images/one.svg"' in light
    assert 'class="only-dark"' in dark and 'src="../_images/one-dark.svg"' in dark
    for image in (light, dark):
        assert 'alt="A line that rises"' in image and 'loading="lazy"' in image and 'width="6' in image
    assert ink.GROUND in (tmp_path / "_images/one-dark.svg").read_text()
    width = float(re.search(r'width="(\d+)"', light)[1])
    assert float(re.search(r"--least: (\d+)px", text)[1]) == pytest.approx(width * 9 / (9 * 4 / 3), abs=1)


def test_other_pictures_stay(tmp_path):
    for tag in ('<img alt="a b c" src="../_images/x.png" />', '<img alt="a b c" src="../_static/logo.svg" />'):
        assert tag in page(tmp_path, tag=tag)
    (tmp_path / "_images/plain.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    tag = '<img alt="a b c" src="../_images/plain.svg" />'
    assert tag in page(tmp_path, tag=tag)
