"""Check the built book, file by file, as a browser without a network would find it.

    python book/_tools/site.py _build/html

One line for each problem: anything loaded from another host, links and anchors that lead nowhere, pictures
without a meaningful description, Markdown or TeX that was not rendered, an id used twice, pages too heavy, pages that
do not say of which release they are, or that have no card to show where their address is shared; chapters that do not
open in Colab or cannot be downloaded.
"""

from __future__ import annotations

import gzip
import re
import statistics
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

MEDIAN_WEIGHT, LARGEST_WEIGHT = 1e6, 3e6  # bytes a reader's browser fetches for one page, MathJax left out
NOT_PAGES = ("_static", "_sources", "_images", "_downloads")
TEXT_FILES = {".html", ".css", ".js", ".svg", ".json", ".txt"}  # web hosts send these gzipped

LOADING_LINKS = {
    "stylesheet", "icon", "shortcut", "apple-touch-icon", "manifest",
    "preload", "modulepreload", "prefetch", "preconnect", "dns-prefetch",
}  # fmt: skip
LOADING = {
    "script": ["src"], "img": ["src", "srcset"], "source": ["src", "srcset"], "iframe": ["src"],
    "embed": ["src"],
    "video": ["src", "poster"], "audio": ["src"], "track": ["src"], "object": ["data"], "input": ["src"],
    "use": ["href", "xlink:href"], "image": ["href", "xlink:href"],
}  # fmt: skip
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
VERBATIM = {"script", "style", "pre", "code", "kbd", "samp", "textarea", "template", "noscript"}

CSS_LOAD = re.compile(r"""url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)""")
UNRENDERED = {
    "a MyST role or directive": re.compile(r"\{[a-z][\w:+-]*\}`|`{3,}|:{3,}\s*\{|\{code-cell\}"),
    "TeX": re.compile(r"\$|\\[()\[\]]|\\(?:begin|end|frac|mathbb|sum|log|beta)\b"),
    "Markdown": re.compile(r"\*\*\S|\S\*\*|\]\(\S+\)"),
    "HTML": re.compile(r"</?(?:details|summary|div|span|br)\b"),
}
HASH = re.compile(r"[0-9a-f]{12,}|\.(?:png|svg|webp|jpe?g|gif)$", re.IGNORECASE)


class Page(HTMLParser):
    """What one page holds: ids, links, loads, pictures and the text outside code and mathematics."""

    def __init__(self, path: Path):
        super().__init__(convert_charrefs=True)
        self.ids: dict[str, list[int]] = {}
        self.links: list[tuple[int, str]] = []
        self.loads: list[tuple[int, str]] = []
        self.pictures: list[tuple[int, dict, bool]] = []
        self.text: list[tuple[int, str]] = []
        self.css: list[tuple[int, str]] = []
        self.redirect = None
        self.properties: dict[str, str] = {}
        self.tags: set[str] = set()
        self.provenance = ""
        self._open: list[tuple[str, bool]] = []  # (tag, its text is verbatim)
        self._in_provenance = False
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag, attributes):
        line = self.getpos()[0]
        self.tags.add(tag)
        have = {name: value or "" for name, value in attributes}
        if "id" in have:
            self.ids.setdefault(have["id"], []).append(line)
        if tag == "a" and "name" in have and have["name"] != have.get("id"):
            self.ids.setdefault(have["name"], []).append(line)
        if tag in ("a", "area") and "href" in have:
            self.links.append((line, have["href"]))
        if tag == "form" and have.get("action"):
            self.links.append((line, have["action"]))
        if tag == "link" and LOADING_LINKS & set(have.get("rel", "").lower().split()):
            self.loads.append((line, have.get("href", "")))
        for name in LOADING.get(tag, []):
            if name == "srcset":
                self.loads += [(line, part.split()[0]) for part in have.get(name, "").split(",") if part.strip()]
            elif have.get(name):
                self.loads.append((line, have[name]))
        if tag == "img":
            self.pictures.append((line, have, any(name == "article" for name, _ in self._open)))
        if tag == "meta" and "property" in have:
            self.properties[have["property"]] = have.get("content", "")
        if tag == "meta" and have.get("http-equiv", "").lower() == "refresh":
            self.redirect = re.sub(r".*?url=", "", have.get("content", ""), flags=re.IGNORECASE)
            self.links.append((line, self.redirect))
        if "style" in have:
            self.css.append((line, have["style"]))
        if tag not in VOID:
            classes = set(have.get("class", "").split())
            self._open.append((tag, tag in VERBATIM or bool({"math", "sig"} & classes)))
            self._in_provenance = "provenance" in classes or (self._in_provenance and tag != "p")

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        if any(name == tag for name, _ in self._open):
            while self._open.pop()[0] != tag:
                pass

    def handle_data(self, data):
        if self._in_provenance and any(name == "p" for name, _ in self._open):
            self.provenance += data
        if self._open and self._open[-1][0] == "style":
            self.css.append((self.getpos()[0], data))
        elif re.fullmatch(r"\*{1,2}\w+", data):
            pass  # a parameter such as **kwargs
        elif data.strip() and not any(verbatim for _, verbatim in self._open):
            self.text.append((self.getpos()[0], data))


def pages_of(root: Path) -> dict[str, Page]:
    paths = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*.html"))}
    return {name: Page(path) for name, path in paths.items() if name.split("/")[0] not in NOT_PAGES}


def is_foreign(address: str) -> bool:
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme in ("http", "https", "ftp", "ws", "wss")


def target_of(name: str, address: str) -> str | None:
    """The file that `address`, found in the file `name`, leads to; None if it leads out of the book."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return None
    if not parts.path:
        return name
    steps: list[str] = []
    for step in [*name.split("/")[:-1], *unquote(parts.path).split("/")]:
        if step == ".." and steps:
            steps.pop()
        elif step not in ("", "."):
            steps.append(step)
    return "/".join(steps) + ("/index.html" if parts.path.endswith("/") and steps else "")


def css_loads(css: str) -> list[str]:
    return [first or second for first, second in CSS_LOAD.findall(re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL))]


def check_loads(root: Path, name: str, page: Page) -> list[str]:
    loads = page.loads + [(line, load) for line, css in page.css for load in css_loads(css)]
    problems = []
    for line, address in loads:
        if is_foreign(address):
            problems.append(f"{name}:{line}: loads from another host: {address}")
        elif (target := target_of(name, address)) is not None and not (root / target).is_file():
            problems.append(f"{name}:{line}: loads a file that does not exist: {address[:100]}")
    return problems


def check_style_sheets(root: Path) -> list[str]:
    problems = []
    for path in sorted(root.rglob("*.css")):
        name = path.relative_to(root).as_posix()
        for address in css_loads(path.read_text(encoding="utf-8")):
            if is_foreign(address):
                problems.append(f"{name}: loads from another host: {address}")
    return problems


def check_links(root: Path, name: str, page: Page, pages: dict[str, Page]) -> list[str]:
    problems = []
    for line, address in page.links:
        if (target := target_of(name, address)) is None:
            continue
        fragment = unquote(urlsplit(address).fragment)
        if not (root / target).is_file():
            problems.append(f"{name}:{line}: link to a page that does not exist: {address}")
        elif fragment and target in pages and fragment not in pages[target].ids:
            problems.append(f"{name}:{line}: link to an anchor that does not exist: {address}")
    return problems


def check_pictures(name: str, page: Page) -> list[str]:
    problems = []
    for line, picture, in_article in page.pictures:
        alt = picture.get("alt")
        # The theme's logo stands beside the book's title in one link, so it is rightly silent.
        if alt == "" and "logo__image" in picture.get("class", ""):
            continue
        if not alt or not alt.strip():
            problems.append(f"{name}:{line}: picture without a description (alt)")
        elif HASH.search(alt) or (in_article and len(alt.split()) < 3):
            problems.append(f'{name}:{line}: picture whose description says nothing: "{alt[:60]}"')
    return problems


def check_text(name: str, page: Page) -> list[str]:
    problems = []
    for line, text in page.text:
        for what, pattern in UNRENDERED.items():
            if match := pattern.search(text):
                near = " ".join(text[max(0, match.start() - 25) : match.end() + 25].split())
                problems.append(f'{name}:{line}: {what} was not rendered: "{near}"')
    return problems


def check_ids(name: str, page: Page) -> list[str]:
    return [
        f'{name}:{lines[1]}: the id "{anchor}" is used {len(lines)} times'
        for anchor, lines in page.ids.items()
        if len(lines) > 1
    ]


def check_origin(root: Path, name: str, page: Page) -> list[str]:
    """The foot says which release this is, and a chapter's also what its outputs were made on; a card is declared."""
    if page.redirect is not None or "article" not in page.tags or name == "search.html":
        return []
    problems = []
    if not re.match(r"Release \d", page.provenance):
        problems.append(f"{name}: the foot does not say which release this is")
    elif name.startswith("notebooks/") and "outputs: " not in page.provenance:
        problems.append(f"{name}: the foot does not say what the outputs were made on")
    card = page.properties.get("og:image", "")
    if not card.startswith("https://") or "/_static/" not in card:
        problems.append(f"{name}: no og:image with an absolute address")
    elif not (root / "_static" / card.split("/_static/")[1]).is_file():
        problems.append(f"{name}: og:image is a file that does not exist: {card}")
    return problems


def check_chapter(root: Path, name: str, page: Page) -> list[str]:
    """A chapter opens in Colab, from its button and from its first line, and its notebook can be downloaded."""
    if not name.startswith("notebooks/") or page.redirect is not None:
        return []
    notebook = name.removesuffix(".html") + ".ipynb"
    addresses = [address for _, address in page.links]
    launches = [address for address in addresses if urlsplit(address).netloc == "colab.research.google.com"]
    problems = []
    if len(launches) < 2:
        problems.append(f"{name}: {len(launches)} links to Colab, a button and a link in the first lines are wanted")
    for address in sorted(set(launches)):
        if not re.fullmatch(rf"/github/[\w.-]+/[\w.-]+/blob/[\w.-]+/{re.escape(notebook)}", urlsplit(address).path):
            problems.append(f"{name}: the link to Colab does not open this chapter: {address}")
    if len(set(launches)) > 1:
        problems.append(f"{name}: its links to Colab differ: {', '.join(sorted(set(launches)))}")
    copy = root / "_sources" / notebook
    if not any(target_of(name, address) == f"_sources/{notebook}" for address in addresses):
        problems.append(f"{name}: no button to download the notebook")
    elif copy.is_file() and '"outputs"' not in copy.read_text(encoding="utf-8"):  # no file: check_links says so
        problems.append(f"{name}: what can be downloaded is not the executed notebook")
    return problems


@cache
def sent_size(path: Path) -> int:
    """Bytes on the wire: hosts gzip text."""
    return len(gzip.compress(path.read_bytes(), 6)) if path.suffix in TEXT_FILES else path.stat().st_size


def weight(root: Path, name: str, page: Page) -> int:
    """Bytes of the page and of what it loads, style sheets' fonts included, MathJax left out."""
    files = {name}
    queue = [target for _, address in page.loads if (target := target_of(name, address.split("?")[0]))]
    while queue:
        file = queue.pop()
        if file in files or "/mathjax/" in file or not (root / file).is_file():
            continue
        files.add(file)
        if file.endswith(".css"):
            css = (root / file).read_text(encoding="utf-8")
            queue += [target for load in css_loads(css) if (target := target_of(file, load)) and load.endswith("woff2")]
    return sum(sent_size(root / file) for file in files)


def check_weights(root: Path, pages: dict[str, Page]) -> list[str]:
    weights = {name: weight(root, name, page) for name, page in pages.items() if page.redirect is None}
    problems = [
        f"{name}: weighs {size / 1e6:.2f} MB, at most {LARGEST_WEIGHT / 1e6:.0f} allowed"
        for name, size in weights.items()
        if size > LARGEST_WEIGHT
    ]
    if weights and (median := statistics.median(weights.values())) > MEDIAN_WEIGHT:
        problems.append(f"the median page weighs {median / 1e6:.2f} MB, at most {MEDIAN_WEIGHT / 1e6:.0f} allowed")
    return problems


def check(root: Path) -> list[str]:
    pages = pages_of(root)
    if not pages:
        return [f"{root}: no page found; build the book first"]
    problems = check_style_sheets(root)
    for name, page in pages.items():
        problems += check_loads(root, name, page) + check_links(root, name, page, pages) + check_ids(name, page)
        problems += check_pictures(name, page) + check_text(name, page) + check_origin(root, name, page)
        problems += check_chapter(root, name, page)
    return problems + check_weights(root, pages)


def main() -> int:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "_build/html")
    problems = check(root)
    if problems:
        print(*problems, sep="\n")
        return 1
    pages = {name: page for name, page in pages_of(root).items() if page.redirect is None}
    weights = sorted(weight(root, name, page) for name, page in pages.items())
    middle, top = statistics.median(weights) / 1e6, weights[-1] / 1e6
    print(f"{len(pages)} pages, no problem; median page {middle:.2f} MB, heaviest {top:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
