"""The look of the figures, the geometry of the planes, intervals, and the player: as a file and in a browser."""

import base64
import io
import itertools
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex, to_rgb
from PIL import Image
from scipy import stats

from sigreg.lab import figures
from sigreg.lab.figures import COLORS, information_plane, interval, label_line, ternary_axes, to_ternary
from sigreg.lab.player import player


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def style():
    with plt.rc_context():
        figures.use_style()
        yield
    plt.close("all")


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


def lab(rgb):
    """CIE L*a*b* of linear sRGB under D65."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ rgb
    f = np.cbrt(xyz / [0.9505, 1, 1.089])
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


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


# Labels and intervals ------------------------------------------------------------------------------------------------


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


def test_the_interval_is_that_of_the_t_test(rng):
    values = rng.normal(3, 2, (6, 4))
    for level in (0.5, 0.95, 0.99):
        found = interval(values, level)
        expected = stats.ttest_1samp(values, 0).confidence_interval(level)
        np.testing.assert_allclose(found.mean, values.mean(0))
        np.testing.assert_allclose(found.low, expected.low)
        np.testing.assert_allclose(found.high, expected.high)
    np.testing.assert_allclose(interval(torch.tensor(values)).low, interval(values).low)
    np.testing.assert_allclose(interval(5 - 2 * values).low, 5 - 2 * interval(values).high)


def test_the_interval_covers_as_often_as_it_says(rng):
    found = interval(rng.normal(size=(4, 20_000)))
    covered = ((found.low < 0) & (0 < found.high)).mean()
    assert abs(covered - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 20_000)


@pytest.mark.parametrize(
    "values, level, match",
    [
        ([1.0], 0.95, "two or more"), (3.0, 0.95, "two or more"), ([], 0.95, "two or more"),
        ([1.0, float("nan")], 0.95, "NaN"), ([1.0, 2.0], 1.0, "level"), ([1.0, 2.0], 95, "level"),
    ],
)
def test_an_interval_of_nothing_is_refused(values, level, match):
    with pytest.raises(ValueError, match=match):
        interval(values, level)


# The player, as text -------------------------------------------------------------------------------------------------


def frame(angle, size=(3, 2)):
    figure, ax = plt.subplots(figsize=size)
    ax.plot([0, np.cos(angle)], [0, np.sin(angle)])
    ax.set(xlim=(-1, 1), ylim=(-1, 1))
    return figure


ANGLES = (0.0, 0.5, 1.0, 1.5)
WORDS = {"alt": "A hand turns.", "caption": "The hand turns to the left."}


def make(angles=ANGLES, **changes):
    return player((frame(angle) for angle in angles), **(WORDS | changes))


class Reader(HTMLParser):
    """Tags with their attributes, the texts by tag, and whether all that opens closes."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts, self.open = [], {}, []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in {"img", "input"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.texts.setdefault(self.open[-1] if self.open else "", []).append(text)


def script_data(page):
    return json.loads(re.search(r"const { changes, labels, fps } = (.*);", page)[1])


def decode(address, kind="webp"):
    assert address.startswith(f"data:image/{kind};base64,")
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


def test_the_player_is_sound_html_that_asks_nothing_of_anyone():
    page = make()._repr_html_()
    reader = Reader(page)
    assert reader.open == []
    images = [attributes for tag, attributes in reader.tags if tag == "img"]
    assert len(images) == 1 and images[0]["alt"] == WORDS["alt"]
    assert reader.texts["figcaption"] == [WORDS["caption"]] and "first frame" in "".join(reader.texts["p"])
    stripped = re.sub(r"data:image/webp;base64,[A-Za-z0-9+/=]+", "", page)
    assert not re.search(r"https?:|//|url\(|@import|fetch|import\(", stripped)
    assert "autoplay" not in stripped and "prefers-reduced-motion" in stripped
    assert all("id" not in attributes for _, attributes in reader.tags), "an id would clash when shown twice"
    slider = next(attributes for tag, attributes in reader.tags if tag == "input")
    assert (slider["min"], slider["max"], slider["value"]) == ("0", "3", "0") and slider["aria-label"]


def test_frames_come_back_without_loss():
    page = make()._repr_html_()
    first = decode(re.search(r'<img[^>]*src="([^"]+)"', page)[1]).convert("RGBA")
    for angle, change in zip(ANGLES, [None, *script_data(page)["changes"]], strict=True):
        shown = first if change is None else Image.alpha_composite(first, decode(change).convert("RGBA"))
        figure = frame(angle)
        figure.canvas.draw()
        assert np.array_equal(np.asarray(shown)[..., :3], np.asarray(figure.canvas.buffer_rgba())[..., :3])


def test_a_see_through_figure_gets_a_white_ground():
    def clear(angle):
        figure = frame(angle)
        figure.set_facecolor("none")
        return figure

    page = player([clear(0.1), clear(0.2)], **WORDS)._repr_html_()
    assert decode(re.search(r'<img[^>]*src="([^"]+)"', page)[1]).convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_the_same_frames_give_the_same_bytes_and_others_another_key():
    def key(one):
        return re.search(r'data-player="(\w+)"', one._repr_html_())[1]

    assert make()._repr_html_() == make()._repr_html_()
    changes = [{}, {"alt": "Other."}, {"caption": "Other."}, {"fps": 4}, {"labels": ["a", "b"]}]
    others = [make([1, 2], **change) for change in changes] + [make([2, 1]), make([1, 2, 3])]
    assert len({key(one) for one in others}) == len(others)
    assert repr(make()) == "Player(alt='A hand turns.', frames=4)"


def test_texts_cannot_break_out_of_their_places():
    nasty = '</script></figcaption>"<b>&@KEY@'
    page = make(alt=nasty, caption=nasty, labels=[nasty, "β", "</script>", "d"])._repr_html_()
    reader = Reader(page)
    assert reader.open == [] and not any(tag == "b" for tag, _ in reader.tags)
    assert next(attributes for tag, attributes in reader.tags if tag == "img")["alt"] == nasty
    assert "".join(reader.texts["figcaption"]) == nasty
    assert script_data(page)["labels"] == [nasty, "β", "</script>", "d"]


def test_figures_are_closed_and_a_generator_keeps_one_open():
    plt.close("all")
    opened = []

    def frames():
        for angle in ANGLES:
            figure = frame(angle)
            opened.append(len(plt.get_fignums()))
            yield figure

    player(frames(), **WORDS)
    assert opened == [1] * len(ANGLES) and plt.get_fignums() == []


def test_a_long_player_of_a_plain_plot_is_small():
    assert len(make(np.linspace(0, 1.5, 20))._repr_html_()) < 60_000


@pytest.mark.parametrize(
    "angles, changes, error, match",
    [
        ((), {}, ValueError, "at least two figures, got 0"),
        ((1.0,), {}, ValueError, "at least two figures, got 1"),
        (ANGLES, {"alt": " "}, ValueError, "alt must be a sentence"),
        (ANGLES, {"caption": None}, ValueError, "caption must be a sentence"),
        (ANGLES, {"fps": 0}, ValueError, "fps must be a finite positive number"),
        (ANGLES, {"fps": float("nan")}, ValueError, "fps must be a finite positive number"),
        (ANGLES, {"labels": ["a"]}, ValueError, "labels must be one text a frame, got 1 for 4"),
    ],
)
def test_wrong_arguments_of_the_player_are_named(angles, changes, error, match):
    with pytest.raises(error, match=match):
        make(angles, **changes)


def test_wrong_frames_are_named():
    with pytest.raises(ValueError, match=r"frames must all have one size, got \[\(288, 288\), \(432, 288\)\] pixels"):
        player([frame(0), frame(1, size=(2, 2))], **WORDS)
    with pytest.raises(TypeError, match="frames must hold matplotlib figures, got Axes"):
        player([frame(0), frame(1).axes[0]], **WORDS)


# The player, in a browser --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-background-networking"]
        )
        yield chromium
        chromium.close()


PIXELS = "index => document.querySelectorAll('.sigreg-player canvas')[index].toDataURL('image/png')"


def opened(browser, *players, **options):
    page = browser.new_context(**options).new_page()
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.set_content("<!doctype html><title>t</title>" + "".join(one._repr_html_() for one in players))
    if options.get("java_script_enabled", True):
        page.wait_for_function("() => document.querySelectorAll('canvas').length === " + str(len(players)))
    return page


def drawn(page, index, angle):
    """Whether the canvas shows, to the last pixel, the figure at this angle."""
    figure = frame(angle)
    figure.canvas.draw()
    shown = decode(page.evaluate(PIXELS, index), "png").convert("RGBA")
    return np.array_equal(np.asarray(shown), np.asarray(figure.canvas.buffer_rgba()))


def test_keys_turn_the_frames_of_one_player_only(browser):
    page = opened(browser, make(), make(fps=5), make())  # the third is the first once more
    sliders = page.locator("input")
    sliders.nth(0).focus()
    for key, expected in [
        ("ArrowRight", 1), ("ArrowUp", 2), ("ArrowLeft", 1), ("ArrowDown", 0), ("ArrowLeft", 0), ("End", 3),
        ("ArrowRight", 3), ("Home", 0), ("ArrowRight", 1),
    ]:
        page.keyboard.press(key)
        assert sliders.nth(0).input_value() == str(expected), key
        assert sliders.nth(0).get_attribute("aria-valuetext") == f"{expected + 1} / 4"
    page.wait_for_timeout(200)
    assert drawn(page, 0, ANGLES[1]) and drawn(page, 1, ANGLES[0]) and drawn(page, 2, ANGLES[0])
    assert sliders.nth(1).input_value() == sliders.nth(2).input_value() == "0"
    assert page.errors == []


def test_play_runs_to_the_end_and_the_space_bar_pauses(browser):
    page = opened(browser, make(fps=20))
    button, slider = page.locator("button"), page.locator("input")
    assert button.inner_text() == "Play", "nothing moves before it is asked to"
    button.click()
    page.wait_for_function("() => document.querySelector('input').value === '3'")
    assert button.inner_text() == "Play"
    page.wait_for_timeout(100)
    assert drawn(page, 0, ANGLES[3])
    slow = opened(browser, make(fps=2))
    slow.locator("input").focus()
    slow.keyboard.press("Space")
    assert slow.locator("button").inner_text() == "Pause"
    slow.wait_for_function("() => document.querySelector('input').value === '1'")
    slow.keyboard.press("Space")
    slow.wait_for_timeout(700)
    assert slow.locator("input").input_value() == "1" and slow.locator("button").inner_text() == "Play"
    slider.fill("2")
    page.wait_for_timeout(100)
    assert drawn(page, 0, ANGLES[2]) and page.locator("output").inner_text() == "3 / 4"
    assert page.errors == slow.errors == []


def test_keys_stay_inside_the_player_and_space_presses_its_button_once(browser):
    page = opened(browser, make(fps=1))
    page.evaluate("() => { window.seen = []; document.addEventListener('keydown', e => window.seen.push(e.key)); }")
    page.locator("button").focus()
    page.keyboard.press("Space")
    assert page.locator("button").inner_text() == "Pause"
    page.keyboard.press("ArrowRight")
    assert page.locator("input").input_value() == "1" and page.locator("button").inner_text() == "Play"
    page.keyboard.press("Control+ArrowRight")  # a combination belongs to the page: a notebook, or the browser
    assert page.locator("input").input_value() == "1"
    assert page.evaluate("() => window.seen") == ["Control", "ArrowRight"]


def test_less_motion_is_slower_and_no_script_shows_the_first_frame(browser):
    calm = opened(browser, make(fps=50), reduced_motion="reduce")
    calm.locator("button").click()
    calm.wait_for_timeout(300)
    assert calm.locator("input").input_value() == "0"  # 50 frames a second would be at the end by now
    still = opened(browser, make(), java_script_enabled=False)
    assert still.locator("img").is_visible() and still.locator("figcaption").is_visible()
    assert not still.locator("button").is_visible() and still.locator("noscript").inner_text().startswith("This figure")


def test_a_narrow_page_does_not_scroll_sideways(browser):
    page = opened(browser, make(labels=["a long label of a frame"] * 4), viewport={"width": 320, "height": 600})
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 320
