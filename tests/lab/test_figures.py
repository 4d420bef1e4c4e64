"""The look of the figures and the geometry of the planes."""

import io
import itertools
import re
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from color_vision import VISION, lab
from IPython.core.pylabtools import print_figure
from matplotlib.colors import to_hex, to_rgb
from PIL import Image

from sigreg.lab import figures
from sigreg.lab.figures import COLORS, information_plane, label_line, ternary_axes, to_ternary

pytestmark = pytest.mark.usefixtures("book_style")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# The style -----------------------------------------------------------------------------------------------------------


def png(figure):
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return Image.open(stream), len(stream.getvalue())


def test_a_plain_plot_comes_out_as_the_style_says():
    figure, ax = plt.subplots()
    line, = ax.plot([0, 1], [0, 1], label="line")
    image, size = png(figure)
    assert image.size == (921, 561) and size < 150_000
    assert image.convert("RGBA").getextrema()[3] == (255, 255), "the ground is opaque"
    assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert line.get_linewidth() == 2 and to_hex(line.get_color()) == COLORS[0].lower()
    assert not ax.spines["top"].get_visible() and not ax.spines["right"].get_visible()
    assert figure.get_layout_engine().__class__.__name__ == "ConstrainedLayoutEngine"


def test_the_fonts_ship_with_matplotlib():
    family = plt.rcParams["font.sans-serif"][0]
    path = Path(matplotlib.font_manager.findfont(family, fallback_to_default=False))
    assert path.is_relative_to(matplotlib.get_data_path())


@pytest.mark.parametrize("text", ["β ≥ 1 · ±", "$I(W;Y) \\leq \\beta^{-1}$", "–−×→∞≈"])
def test_every_glyph_that_captions_use_is_there(text):
    figure, ax = plt.subplots()
    ax.set_xlabel(text)
    figure.draw_without_rendering()  # a missing glyph is a warning, and warnings are errors


def test_colors_are_the_cycle_of_the_style():
    assert list(COLORS) == plt.rcParams["axes.prop_cycle"].by_key()["color"]
    assert COLORS.blue == COLORS[0] and len(set(COLORS)) == len(COLORS) == 7


def linear(color):
    c = np.array(to_rgb(color))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("vision", VISION)
def test_any_two_colors_differ_with_any_color_vision(vision):
    seen = {name: lab(np.clip(VISION[vision] @ linear(color), 0, 1)) for name, color in COLORS._asdict().items()}
    for one, other in itertools.combinations(seen, 2):
        distance = np.linalg.norm(seen[one] - seen[other])
        assert distance > 14, f"{one} and {other} are {distance:.1f} apart"  # 2.3 is just noticeable


@pytest.mark.parametrize("name", COLORS._fields)
def test_every_color_can_be_read_on_white(name):
    luminance = linear(getattr(COLORS, name)) @ [0.2126, 0.7152, 0.0722]
    assert 1.05 / (luminance + 0.05) > 3  # WCAG 2, graphics and large text


# The information plane -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entropy_y, entropy_x", [(0.6, None), (0.6, 2.0), (1.5, 1.5), (torch.tensor(0.3), None)])
def test_the_shaded_region_is_the_feasible_one(entropy_y, entropy_x, rng):
    _, ax = plt.subplots()
    information_plane(ax, entropy_y=entropy_y, entropy_x=entropy_x)
    region = next(artist for artist in ax.get_children() if isinstance(artist, matplotlib.patches.Polygon))
    for rate, relevance in rng.uniform(0, 2.5, (500, 2)):
        allowed = relevance <= min(rate, float(entropy_y)) and (entropy_x is None or rate <= entropy_x)
        assert region.get_path().contains_point((rate, relevance)) == allowed


def test_the_plane_is_labelled_in_nats_and_leaves_the_data_limits_alone():
    _, ax = plt.subplots()
    assert information_plane(ax, entropy_y=0.6, entropy_x=1.2, cap="$H(Y)$") is ax
    assert "[nats]" in ax.get_xlabel() and "[nats]" in ax.get_ylabel()
    assert not np.isfinite(ax.dataLim.get_points()).any()
    assert {text.get_text() for text in ax.texts} == {"$H(Y)$", "$H(X)$", "$I(W;Y)=I(X;W)$"}
    assert ax.get_xlim()[1] > 1.2 and ax.get_ylim()[1] > 0.6


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["entropy_y", "entropy_x"])
def test_a_wrong_entropy_is_named(name, value):
    _, ax = plt.subplots()
    with pytest.raises(ValueError, match=f"{name} must be a finite positive number of nats"):
        information_plane(ax, **({"entropy_y": 1.0, "entropy_x": 2.0} | {name: value}))
    with pytest.raises(ValueError, match="entropy_y must be at most entropy_x"):
        information_plane(ax, entropy_y=2.0, entropy_x=1.0)


# The simplex ---------------------------------------------------------------------------------------------------------


def test_the_ternary_map_is_affine_with_an_equilateral_image(rng):
    corners = to_ternary(np.eye(3))
    sides = [np.linalg.norm(corners[i] - corners[j]) for i, j in ((0, 1), (1, 2), (2, 0))]
    np.testing.assert_allclose(sides, 1, atol=1e-15)
    p, q, weight = rng.dirichlet([1, 1, 1], 50), rng.dirichlet([1, 1, 1], 50), rng.uniform(size=(50, 1))
    mixed = to_ternary(weight * p + (1 - weight) * q)
    np.testing.assert_allclose(mixed, weight * to_ternary(p) + (1 - weight) * to_ternary(q), atol=1e-14)


def test_the_distance_to_a_side_is_the_probability(rng):
    p, height = rng.dirichlet([1, 1, 1], 50), np.sqrt(3) / 2
    np.testing.assert_allclose(to_ternary(p)[:, 1] / height, p[:, 2], atol=1e-14)


def test_tensors_lists_and_leading_dimensions_are_taken():
    p = torch.softmax(torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0)), -1).requires_grad_()
    assert to_ternary(p).shape == (4, 5, 2) and to_ternary(p).dtype == np.float64
    np.testing.assert_allclose(to_ternary(p), to_ternary(p.tolist()), atol=1e-12)


@pytest.mark.parametrize(
    "p, match",
    [
        ([0.5, 0.5], "shape"), (1.0, "shape"), ([[0.2, 0.2, 0.2]], "distributions"),
        ([1.2, -0.1, -0.1], "distributions"), ([float("nan"), 0.5, 0.5], "distributions"),
    ],
)
def test_what_is_no_distribution_over_three_is_refused(p, match):
    with pytest.raises(ValueError, match=f"p must h.*{match}"):
        to_ternary(p)


def test_ternary_axes_name_the_corners_and_hold_the_triangle():
    figure, ax = plt.subplots()
    assert ternary_axes(ax, ["a", "b", "c"]) is ax
    for text, corner in zip(ax.texts, np.eye(3), strict=True):
        np.testing.assert_allclose(text.xy, to_ternary(corner))
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    x, y = to_ternary(np.eye(3)).T
    assert left < x.min() and x.max() < right and bottom < y.min() and y.max() < top
    figure.draw_without_rendering()
    for text in ax.texts:
        box = text.get_window_extent()
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, "a label is cut off"
    with pytest.raises(ValueError, match="labels must be three names, one a corner, got 2"):
        ternary_axes(ax, ["a", "b"])


# Labels --------------------------------------------------------------------------------------------------------------


def test_a_line_is_labelled_at_its_right_end_or_where_asked():
    _, ax = plt.subplots()
    line, = ax.plot([2, 0, 1, np.nan], [4, 0, 1, 9], color=COLORS.green, label="square")
    note = label_line(ax, line)
    assert note.xy == (2, 4) and note.get_text() == "square" and note.get_color() == COLORS.green
    assert label_line(ax, line, "half", x=1.5, ha="right").xy == (1.5, 2.5)
    with pytest.raises(ValueError, match=r"x must lie on the line, in \[0, 2\], got 3"):
        label_line(ax, line, x=3)
    with pytest.raises(ValueError, match="no finite point"):
        label_line(ax, ax.plot([np.nan], [1])[0])


# SVG -----------------------------------------------------------------------------------------------------------------


def cloud(count, **kwargs):
    figure, ax = plt.subplots()
    ax.scatter(*np.random.default_rng(0).normal(size=(2, count)), label="cloud", **kwargs)
    ax.set_xlabel(r"rate $\beta^{-1}$")
    return figure


def test_the_same_figure_gives_the_same_bytes():
    first, again = (figures.svg(cloud(50)) for _ in range(2))
    assert first == again and first.startswith("<svg ") and first.count("\n") == 0
    assert "<text" not in first and "font" not in first, "letters are outlines"
    assert not re.search(r"\d{4}-\d\d-\d\d|matplotlib v", first.lower()), "neither the day nor the version"


def test_without_the_salt_of_the_style_the_bytes_would_differ():
    with plt.rc_context({"svg.hashsalt": None}):
        assert figures.svg(cloud(50)) != figures.svg(cloud(50))


def test_what_is_packed_looks_as_it_did():
    whole, packed = print_figure(cloud(50), "svg"), figures.svg(cloud(50))  # a second drawing of one has other margins
    outlines = [re.findall(r' d="([^"]*)"', text) for text in (whole, packed)]
    assert len(outlines[0]) == len(outlines[1]) and len(packed) < 0.85 * len(whole)
    for before, after in zip(*outlines, strict=True):
        before, after = (np.array([float(number) for number in re.findall(r"-?[\d.]+", d)]) for d in (before, after))
        np.testing.assert_allclose(before, after, atol=0.01)
    shape = re.compile(r'viewBox="[^"]*"')
    assert shape.search(whole)[0] == shape.search(packed)[0]


@pytest.mark.parametrize("count, kwargs", [(2000, {}), (400, {"s": np.linspace(1, 50, 400)})])
def test_heavy_marks_become_a_picture_and_the_letters_stay_outlines(count, kwargs, monkeypatch):
    light = figures.svg(cloud(count, **kwargs))
    assert light.count("<image") == 1 and light.count("<use") > 10
    monkeypatch.setattr(figures, "HEAVY", 1e9)
    heavy = figures.svg(cloud(count, **kwargs))
    assert "<image" not in heavy and len(heavy) > 1.5 * len(light)


def test_few_marks_and_long_lines_stay_outlines():
    figure = cloud(100)
    figure.axes[0].plot(np.linspace(0, 1, 5000), np.sin(np.linspace(0, 9, 5000)))
    assert "<image" not in figures.svg(figure)


def test_a_figure_without_anything_has_no_svg():
    assert figures.svg(plt.figure()) is None
