"""Print the built book into one PDF with Chromium, and link it from the first page.

    python book/_tools/printed.py _build/html

All pages are set into one document in the order of the table of contents, their links turned inwards, folded blocks
open, and Chromium prints it with page numbers and bookmarks. The file, ``encoders-want-to-be-normal.pdf``, lies beside
``index.html``; the first page then links it, with its length and size. Needs what ``browser.py`` needs, and
``pikepdf``; where there is no Chromium nothing is printed, and the first page simply has no such link.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

import yaml
from browser import READY, chromium, lacking, opened, serve

ROOT = Path(__file__).resolve().parents[2]
NAME = "encoders-want-to-be-normal.pdf"
FIRST = "book/index.html"
START = "book/notation.html"  # all are assembled there, because it has MathJax
LEFT_OUT = "book/api"  # pages that begin so: a reference to search in, not to read in print
PLACE = re.compile(r'(<span id="print-version">).*?(</span>)', re.DOTALL)
LARGEST = 10e6  # bytes

ORDER = """() => [...document.querySelectorAll('nav.bd-links a.internal, nav.bd-links a.reference')]
  .map(a => new URL(a.getAttribute('href'), location.href)).filter(u => !u.hash).map(u => u.pathname.slice(1))"""

# Fetches the pages, makes ids and links unique to their page, and replaces the document.
ASSEMBLE = r"""async ({ names, book, release }) => {
  const key = name => name.replace(/\.html$/, '').replace(/[^\w]+/g, '-');
  const known = new Set(names), sections = [];
  const address = (href, name) => {
    const url = new URL(href, new URL(name, location.origin + '/'));
    if (url.origin !== location.origin) return href;
    const page = url.pathname.slice(1);
    if (!known.has(page)) return new URL(page + url.hash, book).href;
    return '#' + key(page) + (url.hash ? '--' + url.hash.slice(1) : '');
  };
  // A picture goes into the file as a JPEG of at most 1200 dots, where that is lighter than what it was.
  const lighten = async image => {
    await image.decode().catch(() => {});
    const shrink = Math.min(1, 1200 / image.naturalWidth), canvas = document.createElement('canvas');
    if (!image.naturalWidth || image.src.endsWith('.svg')) return;
    canvas.width = image.naturalWidth * shrink, canvas.height = image.naturalHeight * shrink;
    const pen = canvas.getContext('2d');
    pen.fillStyle = '#fff', pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(image, 0, 0, canvas.width, canvas.height);
    const lighter = canvas.toDataURL('image/jpeg', 0.8), bytes = await (await fetch(image.src)).arrayBuffer();
    if (lighter.length * 0.75 < bytes.byteLength) image.src = lighter;
    await image.decode();
  };
  const parser = new DOMParser();
  for (const name of names) {
    const text = await (await fetch('/' + name)).text();
    const article = parser.parseFromString(text, 'text/html').querySelector('article.bd-article');
    for (const e of article.querySelectorAll('.headerlink, .copybtn, .controls, noscript, .prev-next-area, button'))
      e.remove();
    const onScreen = 'svg.narrow, #print-version, .code-switch, .plumbing, .only-dark, script:not([type^="math"])';
    for (const e of article.querySelectorAll(onScreen)) e.remove();
    for (const e of article.querySelectorAll('[id]')) e.id = key(name) + '--' + e.id;
    for (const e of article.querySelectorAll('[marker-end]'))
      e.setAttribute('marker-end', e.getAttribute('marker-end').replace('#', '#' + key(name) + '--'));
    for (const e of article.querySelectorAll('a[href]')) e.setAttribute('href', address(e.getAttribute('href'), name));
    for (const e of article.querySelectorAll('img[src]')) {
      e.loading = 'eager';
      e.src = new URL(e.getAttribute('src'), new URL(name, location.origin + '/')).href;
    }
    for (const e of article.querySelectorAll('details')) e.open = true;
    article.id = key(name);
    sections.push(article);
  }
  document.body.replaceChildren(...sections);
  document.body.className = 'printed';
  const line = Object.assign(document.createElement('p'), { className: 'release', textContent: release });
  sections[0].querySelector('h1').after(line);
  document.documentElement.dataset.theme = 'light';
  breakLines();  // of book.js
  await MathJax.typesetPromise();
  // A formula is one thing, read out as its TeX.
  for (const { typesetRoot, math } of MathJax.startup.document.math) {
    typesetRoot.setAttribute('role', 'img');
    typesetRoot.setAttribute('aria-label', math);
  }
  await Promise.all([...document.images].map(lighten));
  return document.querySelectorAll('mjx-merror').length;
}"""

# A formula wider than the page is scaled down, a picture is sent as it was drawn.
FIT = """() => { for (const box of document.querySelectorAll('div.math')) {
  box.style.fontSize = '';
  const ratio = box.clientWidth / box.scrollWidth;
  if (ratio < 1) box.style.fontSize = `${ratio - 0.01}em`; } }"""

# The headings in order, a formula as its TeX; beside each the page it stands on, unless it is the page's own.
HEADINGS = r"""() => [...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].map(heading => {
  const copy = heading.cloneNode(true), first = heading.closest('article').querySelector('h1');
  const page = heading === first ? '' : first.textContent.trim();
  for (const e of copy.querySelectorAll('mjx-container')) e.replaceWith(e.getAttribute('aria-label'));
  return [copy.textContent.replace(/\s+/g, ' ').trim(), page.replace(/\s+/g, ' ').replace(/^(\d+)\. .*/, 'Chapter $1')];
})"""

FOOT = (
    '<div style="width: 100%; font: 8px sans-serif; color: #666; text-align: center">'
    '<span class="pageNumber"></span></div>'
)


def print_book(root: Path, command: str) -> tuple[Path, list[list[str]]]:
    """Print all pages into one file; return it, and its headings, each with the page it stands on."""
    target = root / NAME
    with serve(root) as home, opened(command) as browser:
        # The width of the text on A4, so that what fits on the screen fits on the paper.
        tab = browser.new_page(viewport={"width": 688, "height": 1000}, color_scheme="light")
        tab.set_default_timeout(300_000)
        tab.goto(f"{home}/{START}", wait_until="load")
        tab.evaluate(READY)
        names = dict.fromkeys([FIRST, *tab.evaluate(ORDER)])
        book = tab.evaluate("() => document.querySelector('link[rel=canonical]')?.href || ''")
        release = tab.evaluate("() => document.querySelector('.provenance')?.textContent || ''")
        settings = {
            "names": [name for name in names if not name.startswith(LEFT_OUT) and (root / name).is_file()],
            "book": book.removesuffix(START) or home,
            "release": release,
        }
        if wrong := tab.evaluate(ASSEMBLE, settings):
            raise SystemExit(f"{wrong} formulas cannot be typeset")
        tab.emulate_media(media="print")
        tab.evaluate(FIT)
        headings = tab.evaluate(HEADINGS)
        margin = {"top": "18mm", "bottom": "18mm", "left": "14mm", "right": "14mm"}
        tab.pdf(path=target, format="A4", margin=margin, outline=True, tagged=True, print_background=True,
                display_header_footer=True, header_template="<span></span>", footer_template=FOOT)  # fmt: skip
    return target, headings


def bookmarks(headings: list[list[str]]) -> list[str]:
    """The titles of the headings, with their page where the same one stands on several."""
    count = Counter(title for title, _ in headings)
    return [f"{title} ({page})" if page and count[title] > 1 else title for title, page in headings]


def pack(path: Path, headings: list[list[str]], title: str, author: str) -> int:
    """Say what the file is, and compress the structure that screen readers need; return the number of pages.

    Chromium runs the words of a bookmark together where its heading breaks, and leaves formulas out.
    """
    import pikepdf

    def nodes(items):
        for item in items:
            yield item
            yield from nodes(item.children)

    with pikepdf.open(path, allow_overwriting_input=True) as pdf:
        with pdf.open_outline() as outline:
            for node, text in zip(nodes(outline.root), bookmarks(headings), strict=True):
                node.title = text
        pdf.docinfo["/Title"], pdf.docinfo["/Author"] = title, author
        pdf.save(path, object_stream_mode=pikepdf.ObjectStreamMode.generate, compress_streams=True)
        return len(pdf.pages)


def link(root: Path, pages: int, size: int) -> None:
    """Put the link into the place that the first page keeps for it."""
    path = root / FIRST
    text = path.read_text(encoding="utf-8")
    if not PLACE.search(text):
        raise SystemExit(f'{FIRST} has no <span id="print-version"></span>')
    words = f'To print: <a href="../{NAME}">PDF</a> ({pages} pages, {size / 1e6:.1f}\u00a0MB).'
    path.write_text(PLACE.sub(rf"\g<1>{words}\g<2>", text, count=1), encoding="utf-8")


def main() -> int:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "_build/html")
    if (browser := chromium()) is None:
        return lacking("the book is not printed")
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    path, headings = print_book(root, browser)
    pages, size = pack(path, headings, config["title"], config["author"]), path.stat().st_size
    print(f"{NAME}: {pages} pages, {size / 1e6:.1f} MB")
    if size > LARGEST:
        print(f"at most {LARGEST / 1e6:.0f} MB are wanted")
        return 1
    link(root, pages, size)
    return 0


if __name__ == "__main__":
    sys.exit(main())
