"""Visit every page of the built book in Chromium: wide and narrow, light and dark, folded blocks open.

    python book/_tools/browser.py _build/html [--screenshots DIR] [--only PART_OF_A_PATH]

Reported, one line each: console errors, requests to another host, mathematics left untypeset or cut off, pictures
that did not load, pages wider than the screen, and statements that the search does not find. Needs Debian's
``chromium`` (or Chrome) and the PyPI package ``playwright``, whose own browsers are not used.
"""

from __future__ import annotations

import argparse
import functools
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, urlsplit

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

READY = (
    "() => window.MathJax ? MathJax.startup.promise.then(() => document.fonts.ready).then(() => true) : true"
)

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
STATEMENT = """() => { const e = document.querySelector('.statement[id] .statement-title');
  if (!e) return null;
  const name = e.querySelector('.statement-name');
  return name && !name.querySelector('mjx-container') ? [name.textContent, e.parentElement.id] : null; }"""


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


def pages(root: Path) -> list[str]:
    skipped = ("_static", "_sources", "_images", "_downloads")
    found = []
    for path in sorted(root.rglob("*.html")):
        name = path.relative_to(root)
        redirects = b'http-equiv="refresh"' in path.read_bytes()[:500].lower()
        if name.parts[0] not in skipped and name.as_posix() != "search.html" and not redirects:
            found.append(name.as_posix())
    return found


def visit(tab, home: str, name: str, shots: Path | None, screen: str) -> list[str]:
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
        "pageerror": lambda error: problems.append(f"script error: {error}"),
        "request": on_request,
    }
    for event, handler in handlers.items():
        tab.on(event, handler)
    tab.goto(f"{home}/{name}", wait_until="load")
    tab.evaluate(READY)
    problems += tab.evaluate(CHECK)
    if shots:
        stem = f"{name.removesuffix('.html').replace('/', '-')}-{screen}"
        tab.screenshot(
            path=shots / f"{stem}-{tab.evaluate('document.documentElement.dataset.theme')}.png",
            full_page=True,
        )
    theme = tab.evaluate(OTHER_THEME)
    tab.evaluate(OPEN_ALL)
    problems += tab.evaluate(CHECK)
    if shots:
        tab.screenshot(path=shots / f"{stem}-{theme}.png", full_page=True)
    for event, handler in handlers.items():
        tab.remove_listener(event, handler)
    return list(dict.fromkeys(problems))


def search(tab, home: str, name: str) -> list[str]:
    """The first named statement of a page must be among the results for its name."""
    tab.goto(f"{home}/{name}", wait_until="domcontentloaded")
    found = tab.evaluate(STATEMENT)
    if not found:
        return []
    title, anchor = found
    tab.goto(f"{home}/search.html?q={quote(title)}", wait_until="load")
    try:
        tab.wait_for_selector(f'#search-results a[href*="{anchor}"]', timeout=5000)
    except Exception:
        return [f'a search for "{title}" does not find {anchor}']
    return []


def check(root: Path, shots: Path | None = None, only: str = "") -> list[str]:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("no chromium on this machine: install it (Debian: apt-get install chromium)")
    names = [name for name in pages(root) if only in name]
    problems = [] if names else [f"{root}: no page to visit"]
    with serve(root) as home, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        for screen, (width, height, scheme) in SCREENS.items():
            context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
            tab = context.new_page()
            for name in names:
                problems += [f"{name} ({screen}): {text}" for text in visit(tab, home, name, shots, screen)]
            if screen == "wide":
                problems += [f"{name}: {text}" for name in names for text in search(tab, home, name)]
            context.close()
        browser.close()
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, nargs="?", default=Path("_build/html"))
    parser.add_argument("--screenshots", type=Path, help="folder for a picture of every page")
    parser.add_argument("--only", default="", help="visit only pages whose path holds this")
    arguments = parser.parse_args()
    if arguments.screenshots:
        arguments.screenshots.mkdir(parents=True, exist_ok=True)
    problems = check(arguments.root, arguments.screenshots, arguments.only)
    print(*problems, sep="\n", end="\n" if problems else "")
    if not problems:
        print(f"{len(pages(arguments.root))} pages visited, wide and narrow, light and dark: no problem")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
