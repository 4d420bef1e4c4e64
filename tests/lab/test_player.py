"""The player of figures: as a file and in a browser."""

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from sigreg.lab.figures import use_style
from sigreg.lab.player import player


@pytest.fixture(autouse=True)
def style():
    with plt.rc_context():
        use_style()
        yield
    plt.close("all")


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
        ("ArrowRight", 1),
        ("ArrowUp", 2),
        ("ArrowLeft", 1),
        ("ArrowDown", 0),
        ("ArrowLeft", 0),
        ("End", 3),
        ("ArrowRight", 3),
        ("Home", 0),
        ("ArrowRight", 1),
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
