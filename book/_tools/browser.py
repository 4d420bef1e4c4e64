"""Visit every page of the built book in Chromium: wide and narrow, light and dark, by mouse and by keyboard.

    python book/_tools/browser.py _build/html [--screenshots DIR] [--only PART_OF_A_PATH]

Reported, one line each:

* console errors and requests to another host;
* mathematics left untypeset or cut off, pictures that did not load, pages wider than the screen;
* controls that the Tab key does not reach, or that do not show that they have the focus;
* a theme switch, a folded block, a menu, a player, a live figure or a card that does not do its work, a figure that
  cannot be enlarged;
* statements that the search does not find by name;
* what axe-core calls a serious or critical barrier, in light and in dark.

Needs Debian's ``chromium`` or Chrome (the variable CHROMIUM may name another, or be "none") and the PyPI packages
``playwright``, whose own browsers are not used, and ``axe-playwright-python``, which carries axe-core.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from html import escape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SKIPPED = 77  # the exit status of a step that this machine cannot do
SCREENS = {"wide": (1280, 900, "light"), "phone": (390, 844, "dark")}
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

READY = """async () => {
  if (typeof live !== 'undefined') live.all();  // live figures far down the page, too
  await window.MathJax?.startup?.promise;
  await document.fonts.ready;
  for (const e of document.images) e.loading = 'eager'; // those further down, too
  await Promise.all([...document.images].map(e => e.complete || new Promise(done => { e.onload = e.onerror = done; })));
}"""

CHECK = r"""() => {
  const found = [], root = document.documentElement, width = root.clientWidth;
  const short = element => (element.tagName.toLowerCase() + '.' + element.className + ' ' +
    (element.textContent || '').trim().slice(0, 60)).replace(/\s+/g, ' ');
  for (const e of document.querySelectorAll('mjx-merror, [data-mjx-error]'))
    found.push('TeX error: ' + (e.getAttribute('data-mjx-error') || short(e)));
  for (const e of document.querySelectorAll('.math'))
    if (!e.querySelector('mjx-container')) found.push('mathematics not typeset: ' + short(e));
  for (const e of document.querySelectorAll('div.math')) {
    const math = e.querySelector('mjx-math'), box = e.getBoundingClientRect();
    if (!math || !e.clientWidth) continue;
    const { left, right } = math.getBoundingClientRect(), start = box.left - e.scrollLeft;
    if (left < start - 2 || right - start > e.scrollWidth + 2) found.push('formula cut off: ' + short(e));
  }
  for (const e of document.querySelectorAll('article span.math:not(.long)')) {
    const block = e.closest('p, li, dd, figcaption');
    if (block?.clientWidth && !block.closest('td, th') &&
        e.querySelector('mjx-math')?.getBoundingClientRect().right > block.getBoundingClientRect().right + 4)
      found.push('formula in a sentence cut off: ' + short(e));
  }
  for (const e of document.images) {
    const source = (e.getAttribute('src') || '').slice(0, 80);
    if (!e.complete || !e.naturalWidth) found.push('picture not loaded: ' + source);
  }
  if (root.scrollWidth > width) {
    const clips = e => ['auto', 'scroll', 'hidden', 'clip'].includes(getComputedStyle(e).overflowX);
    const free = e => { while ((e = e.parentElement)) if (clips(e)) return false; return true; };
    const wide = [...document.querySelectorAll('main *')]
      .filter(e => e.getBoundingClientRect().right > width + 1 && free(e)).slice(0, 2).map(short);
    found.push(`page is ${root.scrollWidth} wide on a screen of ${width}: ` + wide.join(' | '));
  }
  return found;
}"""

OTHER_THEME = """() => { const d = document.documentElement.dataset;
  d.theme = d.theme === 'dark' ? 'light' : 'dark'; return d.theme; }"""
OPEN_ALL = "() => document.querySelectorAll('details').forEach(e => { e.open = true; })"
NAMED = """() => [...document.querySelectorAll('.statement[id]')].map(e => [e, e.querySelector('.statement-name')])
  .filter(([, name]) => name && !name.querySelector('mjx-container, .math'))
  .map(([e, name]) => [name.textContent, e.id])"""

# Every control that can be seen. The listener notes which of them had the focus, and whether it showed.
CONTROLS = """() => {
  const seen = e => e.checkVisibility({ visibilityProperty: true }) && e.getClientRects().length > 0;
  const wanted = 'a[href], button, input, select, textarea, summary, video[controls], [tabindex="0"], [role=button]';
  window.controls = [...document.querySelectorAll(wanted)].filter(e => seen(e) && !e.disabled
    && !e.matches('[tabindex="-1"], input[type=radio]:not(:checked)'));  // arrow keys lead to the others of a group
  window.reached = new Set(), window.faint = [];
  document.addEventListener('focusin', event => {
    const e = event.target, style = getComputedStyle(e);
    reached.add(e);
    const ring = style.outlineStyle !== 'none' || style.boxShadow !== 'none' || e.closest('svg');
    if (!ring || +style.opacity === 0) faint.push(e);
  });
  document.activeElement?.blur();
  getSelection().removeAllRanges();
  return controls.length;
}"""
UNREACHED = """() => {
  const short = e => (e.outerHTML.match(/^<[^>]*>/)[0] + e.textContent.trim()).replace(/\\s+/g, ' ').slice(0, 110);
  return [...controls.filter(e => e.isConnected && !reached.has(e)).map(e => 'the Tab key does not reach ' + short(e)),
    ...faint.map(e => 'the focus does not show on ' + short(e))].slice(0, 6);
}"""

# Contrast is measured once for each look (colour, size and weight of the letters, grounds behind them): a chapter has
# some 20 000 parts, and axe takes milliseconds for each. The other rules see all but the inside of formulas.
# A colour on its way to another has no contrast of its own, so nothing moves while it is measured. The bar at the top
# floats over the page, and its buttons are no neighbours of what is scrolled under them: the page stands at its top.
SIMPLIFY = """() => {
  document.activeElement?.blur();
  scrollTo({ top: 0, behavior: 'instant' });
  const still = document.createElement('style');
  still.textContent = '*, ::before, ::after { transition: none !important; animation: none !important; }';
  document.head.append(still);
  for (const e of document.querySelectorAll('mjx-container')) e.replaceWith('x');
  const looks = new Set();
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || !e.checkVisibility()) continue;
    const { color, fontSize, fontWeight } = getComputedStyle(e), look = [color, fontSize, fontWeight];
    for (let p = e; p; p = p.parentElement) {
      const { backgroundColor, backgroundImage, opacity } = getComputedStyle(p);
      if (backgroundColor !== 'rgba(0, 0, 0, 0)' || backgroundImage !== 'none' || opacity !== '1')
        look.push(backgroundColor, backgroundImage, opacity);
    }
    if (!looks.has(look.join())) e.dataset.look = looks.add(look.join()).size;
  }
}"""
BARRIERS = """async () => {
  const common = { preload: false, resultTypes: ['violations'] };
  const values = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'];
  const contrast = await axe.run({ include: ['[data-look]'] }, { ...common, runOnly: ['color-contrast'] });
  const rest = await axe.run(document,
    { ...common, runOnly: { type: 'tag', values }, rules: { 'color-contrast': { enabled: false } } });
  return [...contrast.violations, ...rest.violations].filter(v => ['serious', 'critical'].includes(v.impact)).map(v =>
    `axe, ${v.impact}: ${v.help}, ${v.nodes.length} times, first: ${v.nodes[0].html.slice(0, 120)}`);
}"""

SHOWN = """e => [...e.querySelectorAll('.live-chart, .live-says')].map(part => part.innerHTML).join() +
  [...e.querySelectorAll('canvas')].map(part => part.toDataURL()).join()"""

LACKING = """titles => titles.filter(([title, anchor]) => {
  const found = Search._performSearch(...Search._parseQuery(title));
  return !found.some(item => item[2] === '#' + anchor);
})"""

FIXED = """() => [...document.querySelectorAll('article figure img, article .cell_output img')]
  .filter(e => !e.closest('a, button, .sigreg-player, .live')).map(e => e.alt)"""
ENLARGED = """button => {
  const large = document.querySelector('dialog[open] img'), width = e => e.getBoundingClientRect().width;
  return large?.naturalWidth && width(large) > width([...button.children].find(e => e.checkVisibility()));
}"""

CARD = """() => {
  const card = document.getElementById('statement-card');
  if (!card || card.hidden) return null;
  const { left, right, top } = card.getBoundingClientRect();
  return { text: card.textContent.trim(), inside: left >= 0 && right <= innerWidth && top >= 0,
    ready: !card.querySelector('.math:not(:has(mjx-container))') };
}"""


def chromium() -> str | None:
    """The browser's command, None without one."""
    named = os.environ.get("CHROMIUM")
    return next(filter(None, map(shutil.which, [named] if named else BROWSERS)), None)


@contextmanager
def opened(command: str) -> Iterator:
    """Chromium. Behind the book's own fonts it has matplotlib's, not the machine's: without any it would crash."""
    from playwright.sync_api import sync_playwright

    fonts = Path(importlib.util.find_spec("matplotlib").submodule_search_locations[0], "mpl-data/fonts/ttf")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        config = Path(folder, "fonts.conf")
        config.write_text(f"<fontconfig><dir>{escape(str(fonts))}</dir><cachedir>{folder}</cachedir></fontconfig>")
        environment = os.environ | {"FONTCONFIG_FILE": str(config)}
        browser = playwright.chromium.launch(executable_path=command, args=FLAGS, env=environment)
        yield browser
        browser.close()


def lacking(what: str) -> int:
    """Say in one line that there is no browser; the exit status, an error in continuous integration, which has one."""
    print(f"no Chromium on this machine, so {what} (Debian: apt-get install chromium)")
    return 1 if os.environ.get("CI") == "true" else SKIPPED


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextmanager
def serve(root: Path) -> Iterator[str]:
    """The address of `root`, served on the loopback interface while the context lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def pages(root: Path) -> list[str]:
    skipped = ("_static", "_sources", "_images", "_downloads")
    found = []
    for path in sorted(root.rglob("*.html")):
        name = path.relative_to(root)
        redirects = b'http-equiv="refresh"' in path.read_bytes()[:500].lower()
        if name.parts[0] not in skipped and name.as_posix() != "search.html" and not redirects:
            found.append(name.as_posix())
    return found


# What is looked at on every page ------------------------------------------------------------------------


def visit(tab, home: str, name: str, shots: Path | None, screen: str) -> list[str]:
    """What the page looks like, in both themes, and whether everything can be reached and used."""
    problems: list[str] = []
    host = urlsplit(home).netloc

    def on_console(message):
        if message.type == "error":
            problems.append(f"console: {message.text}")

    def on_request(request):
        if urlsplit(request.url).scheme in ("http", "https") and urlsplit(request.url).netloc != host:
            problems.append(f"asks another host: {request.url}")

    handlers = {
        "console": on_console,
        "pageerror": lambda error: problems.append(f"script error: {(error.stack or str(error))[:300]}"),
        "request": on_request,
    }
    for event, handler in handlers.items():
        tab.on(event, handler)
    tab.goto(f"{home}/{name}", wait_until="load")
    tab.evaluate(READY)
    problems += tab.evaluate(CHECK)
    stem = f"{name.removesuffix('.html').replace('/', '-')}-{screen}"
    theme = tab.evaluate("document.documentElement.dataset.theme")
    if shots:
        tab.screenshot(path=shots / f"{stem}-{theme}.png", full_page=True)
    if screen == "wide":
        problems += tab_through(tab) + use_folds(tab) + use_players(tab) + use_live(tab) + use_cards(tab)
    problems += use_zoom(tab)
    theme = tab.evaluate(OTHER_THEME)
    tab.evaluate(OPEN_ALL)
    problems += tab.evaluate(CHECK)
    if shots:
        tab.screenshot(path=shots / f"{stem}-{theme}.png", full_page=True)
    problems += barriers(tab)
    for event, handler in handlers.items():
        tab.remove_listener(event, handler)
    return list(dict.fromkeys(problems))


def tab_through(tab) -> list[str]:
    """Press Tab until the page is through: every control gets the focus, and shows it."""
    count = tab.evaluate(CONTROLS)
    for _ in range(count + 10):
        tab.keyboard.press("Tab")
    return tab.evaluate(UNREACHED)


def use_folds(tab) -> list[str]:
    """The Enter key opens each folded block, and closes it again."""
    problems = []
    for fold in tab.query_selector_all("article details"):
        fold.evaluate("e => { while ((e = e.parentElement.closest('details'))) e.open = true; }")
        states = []
        for _ in range(2):
            fold.query_selector("summary").focus()
            tab.keyboard.press("Enter")
            states.append(fold.evaluate("e => e.open"))
        if sorted(states) != [False, True]:
            problems.append(f"a folded block does not open and close: {fold.text_content().strip()[:60]}")
    return problems


def use_players(tab) -> list[str]:
    """By keyboard alone: the slider turns the frames, the button plays and pauses."""
    problems = []
    frame = "e => [e.querySelector('output').textContent, e.querySelector('canvas')?.toDataURL().length]"
    for player in tab.query_selector_all(".sigreg-player"):
        what = player.query_selector("figcaption").text_content().strip()[:60]
        try:
            player.wait_for_selector(".controls:not([hidden])", timeout=3000)
            slider, button = player.query_selector("input"), player.query_selector("button")
            slider.focus()
            tab.keyboard.press("Home")
            tab.wait_for_timeout(150)
            first = player.evaluate(frame)
            tab.keyboard.press("End")
            tab.wait_for_timeout(150)
            if first == player.evaluate(frame):
                problems.append(f"a player does not move with its slider: {what}")
            tab.keyboard.press("Home")
            button.focus()
            tab.keyboard.press("Enter")
            tab.wait_for_timeout(700)
            if int(slider.input_value()) == 0:
                problems.append(f"a player does not play: {what}")
            if button.text_content() == "Pause":
                tab.keyboard.press("Enter")
        except Exception as error:
            problems.append(f"a player fails, {str(error).splitlines()[0]}: {what}")
    return problems


def use_live(tab) -> list[str]:
    """By keyboard alone: each control of a live figure changes what the figure shows."""
    problems = []
    for figure in tab.query_selector_all(".live"):
        for control in figure.query_selector_all("input[type=range], input:checked"):
            before = figure.evaluate(SHOWN)
            control.focus()
            for key in ("Home", "End") if control.get_attribute("type") == "range" else ("ArrowRight", " "):
                tab.keyboard.press(key)  # one of the two moves a slider, wherever it stands
                for _ in range(20):
                    tab.wait_for_timeout(50)
                    if changed := figure.evaluate(SHOWN) != before:
                        break
                if changed:
                    break
            if not changed:
                label = control.evaluate("e => e.getAttribute('aria-label') || e.value")
                problems.append(f"a control of a live figure does nothing: {label}")
    return problems


def use_cards(tab) -> list[str]:
    """A mention shows its statement under the pointer and under the focus; Escape closes the card."""
    is_mention = "e => /^#(?!exercise)[a-z]+-\\d+-\\d+$/.test(e.hash) && e.checkVisibility()"
    links = [e for e in tab.query_selector_all("article a.reference.internal") if e.evaluate(is_mention)]
    elsewhere = [e for e in links if e.evaluate("e => e.pathname !== location.pathname")]
    problems = []
    for link in [*links[:1], *elsewhere[:1]]:
        label = link.text_content().replace("\u00a0", " ")
        link.scroll_into_view_if_needed()
        for by, act in (("pointer", link.hover), ("focus", link.focus)):
            tab.evaluate("document.activeElement.blur()")
            act()
            card = None
            for _ in range(60):
                tab.wait_for_timeout(50)
                card = tab.evaluate(CARD)
                if card and card["ready"]:
                    break
            if not card or not card["ready"]:
                problems.append(f"{label} shows no card under the {by}")
            elif label.split()[-1] not in card["text"] or not card["inside"]:
                problems.append(f"the card of {label} is wrong or off the screen: {card['text'][:60]}")
            tab.keyboard.press("Escape")
            if tab.evaluate(CARD):
                problems.append(f"Escape does not close the card of {label}")
            tab.mouse.move(1, 1)
    return problems


def use_zoom(tab) -> list[str]:
    """Every figure is in a button; by key and by pointer one opens larger, and Escape gives the focus back to it."""
    problems = [f"a figure cannot be enlarged: {alt[:60]}" for alt in tab.evaluate(FIXED)]
    for button in [e for e in tab.query_selector_all("article .zoom") if e.is_visible()][:1]:
        for by in ("key", "pointer"):
            button.press("Enter") if by == "key" else button.click()
            try:
                tab.wait_for_function(ENLARGED, arg=button, timeout=3000)
            except Exception:
                problems.append(f"a figure is not enlarged by the {by}")
            tab.keyboard.press("Escape")
            if not button.evaluate("e => e === document.activeElement && !document.querySelector('dialog[open]')"):
                problems.append(f"Escape does not lead back from an enlarged figure, opened by the {by}")
                tab.evaluate("document.querySelector('dialog[open]')?.close()")
    return problems


def barriers(tab) -> list[str]:
    """What axe-core finds. Leaves the page changed: the last thing to do on it."""
    tab.evaluate(SIMPLIFY)
    tab.evaluate(axe())
    return tab.evaluate(BARRIERS)


@functools.cache
def axe() -> str:
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None:
        raise SystemExit("axe-core is missing: pip install axe-playwright-python")
    return Path(found.submodule_search_locations[0], "axe.min.js").read_text(encoding="utf-8")


# What is looked at once ---------------------------------------------------------------------------------


def search(tab, home: str, names: list[str]) -> list[str]:
    """Every named statement is among the results for its name; one search by hand, from the keyboard."""
    named = []
    for name in names:
        tab.goto(f"{home}/{name}", wait_until="domcontentloaded")
        named += tab.evaluate(NAMED)
    if not named:
        return []
    title, anchor = named[0]
    tab.evaluate(READY)
    tab.keyboard.press("Control+k")
    tab.keyboard.type(title)
    tab.keyboard.press("Enter")
    try:
        tab.wait_for_selector(f'#search-results a[href*="{anchor}"]', timeout=5000)
    except Exception:
        return [f'a search for "{title}", typed after Ctrl+K, does not find {anchor}']
    found = [f'a search for "{title}" does not find {anchor}' for title, anchor in tab.evaluate(LACKING, named)]
    if tab.evaluate("typeof SECTIONS !== 'undefined' && SECTIONS.entries.some(entry => entry[1] === 'claim-p6')"):
        if tab.evaluate("Search._performSearch('P6')[0][2]") != "#claim-p6":
            found.append('a search for "P6" does not find its card first')
    return found


def switch_theme(tab, home: str, name: str) -> list[str]:
    """The theme button, pressed from the keyboard, leads to light and to dark, and a reload keeps the choice."""
    tab.goto(f"{home}/{name}", wait_until="load")
    themes = []
    for _ in range(3):
        tab.focus(".theme-switch-button:visible")
        tab.keyboard.press("Enter")
        theme = tab.evaluate("document.documentElement.dataset.theme")
        tab.reload(wait_until="load")
        if tab.evaluate("document.documentElement.dataset.theme") != theme:
            return [f"the theme {theme} does not outlast a reload"]
        themes.append((theme, tab.evaluate("getComputedStyle(document.body).backgroundColor")))
    return [] if len(set(themes)) == 2 else [f"the theme button leads to {sorted(set(themes))} only"]


def open_menus(tab, home: str, name: str) -> list[str]:
    """Each menu of the header opens with Enter, and Escape closes it."""
    tab.goto(f"{home}/{name}", wait_until="load")
    problems = []
    for button in tab.query_selector_all("button[data-bs-toggle=dropdown]"):
        if not button.is_visible():
            continue
        label = button.get_attribute("aria-label")
        for key, wanted in (("Enter", "true"), ("Escape", "false")):
            button.focus()
            tab.keyboard.press(key)
            if button.get_attribute("aria-expanded") != wanted:
                problems.append(f'{key} has no effect on the menu "{label}"')
    return problems


def tour(home: str, command: str, screen: str, names: list[str], shots: Path | None, last: bool) -> list[str]:
    """Visit some pages on one screen; the last tour of a screen also does what is done once."""
    width, height, scheme = SCREENS[screen]
    with opened(command) as browser:
        tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        problems = [f"{name} ({screen}): {text}" for name in names for text in visit(tab, home, name, shots, screen)]
        if last:
            found = open_menus(tab, home, names[-1]) + switch_theme(tab, home, names[-1])
            problems += [f"{names[-1]} ({screen}): {text}" for text in found]
        if screen == "wide":
            problems += search(tab, home, names)
    return problems


def check(root: Path, browser: str, shots: Path | None = None, only: str = "") -> list[str]:
    axe()  # complain now if it is missing
    names = [name for name in pages(root) if only in name]
    if not names:
        return [f"{root}: no page to visit"]
    # Two browsers at a time; the pages are dealt out in turn, since the chapters, the heavy ones, are neighbours.
    parts = [part for part in (names[::2], names[1::2]) if part]
    with serve(root) as home, ThreadPoolExecutor(2) as pool:
        tours = [
            pool.submit(tour, home, browser, screen, part, shots, last=part is parts[-1])
            for screen in SCREENS
            for part in parts
        ]
        return [problem for each in tours for problem in each.result()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, nargs="?", default=Path("_build/html"))
    parser.add_argument("--screenshots", type=Path, help="folder for a picture of every page")
    parser.add_argument("--only", default="", help="visit only pages whose path holds this")
    arguments = parser.parse_args()
    if arguments.screenshots:
        arguments.screenshots.mkdir(parents=True, exist_ok=True)
    if (browser := chromium()) is None:
        return lacking("the pages are not visited")
    problems = check(arguments.root, browser, arguments.screenshots, arguments.only)
    print(*problems, sep="\n", end="\n" if problems else "")
    if not problems:
        visited = sum(arguments.only in name for name in pages(arguments.root))
        print(f"{visited} pages visited, wide and narrow, light and dark, by mouse and by keyboard: no problem")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
