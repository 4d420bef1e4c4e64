"""Measure every page of the built book as a reader first sees it, and fail above the limits.

    python book/_tools/measure.py _build/html [--only PART_OF_A_PATH] [--table]
    python book/_tools/measure.py _build/html --answers [--only book/index]

In Chromium at 1300 x 900 px, folds closed: height, share of it that is code, screens and lines of code before the first
figure, bytes (text gzipped, as web hosts send it) and requests, contrast of captions in light and dark, words of a
verdict, numbers in a paragraph; at 390 px, the smallest letters of the figures. Chapters are held to all limits, other
pages to those that concern them. ``OWN`` is for a page that cannot meet a limit yet, with the value that it may not
exceed, so that nothing gets worse; it is empty.

``--answers`` tells after how many seconds a live figure answers, as fast as this machine is and slowed four times, and
how long the page was blocked. It has no limit: the numbers are those of the machine, and of what else it does.
"""

from __future__ import annotations

import argparse
import gzip
import sys
from pathlib import Path
from urllib.parse import urlsplit

import browser

TEXT_FILES = {".html", ".css", ".js", ".svg", ".json", ".txt"}  # web hosts send these gzipped
WIDTH, HEIGHT, PHONE = 1300, 900, 390
LIMITS = {
    "height": 20_000,  # px
    "code": 18,  # per cent of the height
    "screens": 1.5,  # to the first figure
    "lines": 40,  # of visible code before it
    "megabytes": 1.5,
    "requests": 20,
    "contrast": 7,  # of captions, at least
    "verdict": 60,  # words
    "numbers": 4,  # in a paragraph
    "letters": 9,  # px of the smallest in a figure on a phone, at least
}
AT_LEAST = ("contrast", "letters")
OF_CHAPTERS = ("code", "screens", "lines")
OWN: dict[str, dict[str, float]] = {}

READY = "async () => { await window.MathJax?.startup?.promise; await document.fonts.ready; }"
MEASURE = r"""() => {
  const article = document.querySelector('article') || document.body;
  const seen = e => e.checkVisibility({ visibilityProperty: true }) && e.getBoundingClientRect().height > 0;
  const top = e => e.getBoundingClientRect().top + scrollY;
  const tall = list => list.reduce((sum, e) => sum + e.getBoundingClientRect().height, 0);
  const height = document.documentElement.scrollHeight;
  const code = [...article.querySelectorAll('.cell_input')].filter(seen);
  const pictures = 'figure, .cell_output img, .sigreg-player, svg.figure, canvas';
  const first = [...article.querySelectorAll(pictures)].filter(seen).map(top).sort((a, b) => a - b)[0];
  const before = code.filter(e => top(e) < first);
  const kinds =
    'Definition|Proposition|Theorem|Lemma|Corollary|Algorithm|Exercise|Section|Chapter|Fig(ure|\\.)|[Ii]tem';
  const named = new RegExp(`(${kinds})s?\\s[\\d.,\\s and]+`, 'g');
  const plain = e => {
    const copy = e.cloneNode(true);
    for (const part of copy.querySelectorAll('.math, mjx-container, a, code, sup, .headerlink')) part.remove();
    return copy.textContent.replace(named, ' ').replace(/\(\d{4}[a-z]?\)|, \d{4}[);]/g, ' ');
  };
  const numbers = e => {
    const text = plain(e).replace(/(\d)\s*±\s*[\d.]+/g, '$1'); // a number with its error is one
    return (text.match(/(?<![\w.])[+−-]?\d[\d.,]*%?(?!\w)/g) || []).length;
  };
  const elsewhere = 'figcaption, table, nav, .citation, .tableofcontents-wrapper, .provenance, dl.py';
  const paragraphs = [...article.querySelectorAll('p, li')]
    .filter(e => !e.querySelector('p, li') && !e.closest(elsewhere))
    .map(e => [numbers(e), e.textContent.replace(/\s+/g, ' ').trim().slice(0, 70)]).sort((a, b) => b[0] - a[0]);
  const verdicts = [...article.querySelectorAll('.statement.verdict')].map(e => [...e.querySelectorAll(':scope > p')]
    .filter(p => !p.matches('.statement-title')).map(p => p.textContent.trim().split(/\s+/).length))
    .map(words => Math.max(0, ...words));
  return {
    height, code: 100 * tall(code) / height,
    screens: first === undefined ? Infinity : first / innerHeight,
    lines: before.reduce((sum, e) => sum + e.textContent.trim().split('\n').length, 0),
    verdict: Math.max(0, ...verdicts), numbers: paragraphs[0]?.[0] || 0,
    crowded: paragraphs.filter(([n]) => n > 4),
  };
}"""

# The contrast of each caption's own words with the ground behind them, the least of all.
CONTRAST = r"""() => {
  const parse = text => (text.match(/[\d.]+/g) || []).map(Number);
  const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const ground = e => {
    for (let p = e; p; p = p.parentElement) {
      const c = parse(getComputedStyle(p).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const captions = [...document.querySelectorAll('article figcaption p, article figcaption')];
  return captions.filter(e => e.checkVisibility()).map(e => {
    const style = getComputedStyle(e), [a, b] = [light(parse(style.color)), light(ground(e))].sort((x, y) => y - x);
    return parse(style.fontWeight)[0] < 400 ? 1 : (a + 0.05) / (b + 0.05);
  }).reduce((least, v) => Math.min(least, v), 21);
}"""


# The smallest letters of the drawings, as they are shown: their size in points is known, and the scale of the drawing.
LETTERS = r"""() => [...document.querySelectorAll('.inked')].map(box => {
  const image = [...box.querySelectorAll('img')].find(e => e.checkVisibility()), size = +box.dataset.letters;
  if (!image || !size) return Infinity;
  const { width, height } = image.getBoundingClientRect();
  const scale = Math.min(width / image.getAttribute('width'), height / image.getAttribute('height'));
  return size * 4 / 3 * scale;
}).reduce((least, size) => Math.min(least, size), 99)"""


# From the first line on: as soon as a live figure has a control, use it, and note when the figure has changed.
ANSWERS = """() => {
  const said = window.answers = { at: null, first: null, tasks: [] };
  new PerformanceObserver(list => said.tasks.push(...list.getEntries().map(task => [task.startTime, task.duration])))
    .observe({ type: 'longtask', buffered: true });
  new PerformanceObserver(list => { said.first ??= list.getEntries()[0].startTime; })
    .observe({ type: 'paint', buffered: true });
  const look = setInterval(() => {
    const box = document.querySelector('.live'), other = box?.querySelector('input:not(:checked):not([type=range])');
    if (!other) return;
    clearInterval(look);
    const before = box.textContent;
    other.click();
    const changed = () => box.textContent !== before ? said.at = performance.now() : setTimeout(changed, 5);
    changed();
  }, 5);
}"""


def answers(chrome, address: str, slowed: float = 1) -> dict[str, float]:
    """Seconds to the first paint and to the answer of a live figure, with a processor slowed so many times.

    `work` is the processor's time on the page up to the answer, which other programs do not lengthen as they do the
    others; `longest` the longest task, `blocked` what long tasks took above 50 ms each, all in seconds.
    """
    tab = chrome.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
    session = tab.context.new_cdp_session(tab)
    session.send("Emulation.setCPUThrottlingRate", {"rate": slowed})
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    tab.add_init_script(f"({ANSWERS})()")
    tab.goto(address, wait_until="commit", timeout=120_000)
    tab.wait_for_function("() => window.answers?.at", timeout=60_000)
    spent = {entry["name"]: entry["value"] for entry in session.send("Performance.getMetrics")["metrics"]}
    said = tab.evaluate("() => window.answers")
    tab.close()
    tasks = [length for start, length in said["tasks"] if start < said["at"]]
    return {
        "paint": (said["first"] or 0) / 1000,
        "answer": said["at"] / 1000,
        "work": spent["TaskDuration"],
        "longest": max(tasks, default=0) / 1000,
        "blocked": sum(length - 50 for length in tasks) / 1000,
    }


def tell_answers(root: Path, command: str, only: str) -> None:
    """Print what :func:`answers` finds, the best of three visits each."""
    with browser.serve(root) as home, browser.opened(command) as chrome:
        for name in browser.pages(root):
            if only in name and "live.figure(" in (root / name).read_text("utf-8"):
                for slowed in (1, 4):
                    visits = [answers(chrome, f"{home}/{name}", slowed) for _ in range(3)]
                    best = min(visits, key=lambda visit: visit["answer"])
                    shown = ", ".join(f"{key} {value:.2f} s" for key, value in best.items())
                    print(f"{name}, slowed {slowed} times: {shown}")


def sent(path: Path) -> int:
    """Bytes on the wire."""
    return len(gzip.compress(path.read_bytes(), 6)) if path.suffix in TEXT_FILES else path.stat().st_size


def look(tab, home: str, root: Path, name: str) -> dict:
    """Every measure of one page, `{measure: value}`; `crowded` lists its paragraphs with too many numbers."""
    files: list[str] = []
    tab.on("response", listen := lambda response: files.append(response.url))
    tab.goto(f"{home}/{name}", wait_until="load", timeout=120_000)  # a busy machine is no fault of the page
    tab.evaluate(READY)
    tab.wait_for_timeout(150)
    tab.remove_listener("response", listen)
    found = tab.evaluate(MEASURE)
    local = [root / urlsplit(url).path.lstrip("/") for url in files if url.startswith(home)]
    found["requests"] = len(files)
    found["megabytes"] = sum(sent(path) for path in local if path.is_file()) / 1e6
    contrasts = []
    for theme in ("light", "dark"):
        tab.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
        contrasts.append(tab.evaluate(CONTRAST))
    tab.set_viewport_size({"width": PHONE, "height": HEIGHT})
    return found | {"contrast": min(contrasts), "letters": tab.evaluate(LETTERS) + 0.05}  # sizes are whole pixels


def keeps(found: dict, measure: str, bound: float | None = None) -> bool:
    """Is a measure within the common limit, or another?"""
    bound = LIMITS[measure] if bound is None else bound
    return found[measure] >= bound if measure in AT_LEAST else found[measure] <= bound


def problems(name: str, found: dict) -> list[str]:
    """What a page has beyond its limits."""
    lines = []
    for measure, limit in LIMITS.items():
        if measure in OF_CHAPTERS and not name.startswith("notebooks/"):
            continue
        bound = OWN.get(name, {}).get(measure, limit)
        if not keeps(found, measure, bound):
            more = f": {found['crowded'][0][1]!r}" if measure == "numbers" else ""
            lines.append(f"{name}: {measure} is {found[measure]:.4g}, the limit is {bound:g}{more}")
    return lines


def measured(root: Path, command: str, only: str = "") -> dict[str, dict]:
    names = [name for name in browser.pages(root) if only in name]
    with browser.serve(root) as home, browser.opened(command) as chrome:
        found = {}
        for name in names:  # each as a first visit: a browser that has seen another page counts its fonts again
            tab = chrome.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
            found[name] = look(tab, home, root, name)
            tab.close()
        return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, nargs="?", default=Path("_build/html"))
    parser.add_argument("--only", default="", help="measure only pages whose path holds this")
    parser.add_argument("--table", action="store_true", help="print all measures, and crowded paragraphs")
    parser.add_argument("--answers", action="store_true", help="tell instead how soon live figures answer")
    arguments = parser.parse_args()
    if (command := browser.chromium()) is None:
        return browser.lacking("the pages are not measured")
    if arguments.answers:
        tell_answers(arguments.root, command, arguments.only)
        return 0
    found = measured(arguments.root, command, arguments.only)
    if not found:
        print(f"{arguments.root}: no page to measure")
        return 1
    if arguments.table:
        print(f"{'page':42}" + "".join(f"{measure:>10}" for measure in LIMITS))
        for name, values in found.items():
            print(f"{name:42}" + "".join(f"{values[measure]:10.4g}" for measure in LIMITS))
            for count, text in values["crowded"]:
                print(f"    {count} numbers: {text}")
    wrong = [line for name, values in found.items() for line in problems(name, values)]
    wrong += [f"{name}: in OWN, and no page of the book" for name in OWN if name not in found and not arguments.only]
    loose = [
        f"{name}, {measure}" for name in OWN if name in found for measure in OWN[name] if keeps(found[name], measure)
    ]
    print(*wrong, *(f"note: {place} keeps the common limit now: take it out of OWN" for place in loose), sep="\n")
    kept = sum(len(values) for values in OWN.values())
    print(f"{len(found)} pages measured, {len(wrong)} problems; {kept} limits are a page's own")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
