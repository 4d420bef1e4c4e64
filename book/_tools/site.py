"""Check the built book, file by file, as a browser without a network would find it.

    python book/_tools/site.py _build/html

One line for each problem: anything loaded from another host, links and anchors that lead nowhere, pictures without a
meaningful description, Markdown or TeX that was not rendered, an id used twice, pages too heavy, pages that do not say
of which release they are or have no card to show where they are shared, chapters that do not open in Colab.
"""

import gzip
import re
import statistics
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from bs4 import BeautifulSoup, NavigableString

MEDIAN_WEIGHT, LARGEST_WEIGHT = 1e6, 3e6  # bytes a reader's browser fetches for one page, MathJax left out
NOT_PAGES = ("_static", "_sources", "_images", "_downloads")
TEXT_FILES = {".html", ".css", ".js", ".svg", ".json", ".txt"}  # web hosts send these gzipped

NOT_LOADING = {"canonical", "next", "prev", "author", "index", "search", "copyright", "license"}  # of <link rel>
LOADING = ("src", "srcset", "poster", "data", "xlink:href")
VERBATIM = {"script", "style", "pre", "code", "kbd", "samp", "textarea", "template", "noscript"}
CSS_LOAD = re.compile(r"""url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)""")
UNRENDERED = {
    "a MyST role or directive": re.compile(r"\{[a-z][\w:+-]*\}`|`{3,}|:{3,}\s*\{|\{code-cell\}"),
    "TeX": re.compile(r"\$|\\[()\[\]]|\\(?:begin|end|frac|mathbb|sum|log|beta)\b"),
    "Markdown": re.compile(r"\*\*\S|\S\*\*|\]\(\S+\)"),
    "HTML": re.compile(r"</?(?:details|summary|div|span|br)\b"),
}
HASH = re.compile(r"[0-9a-f]{12,}|\.(?:png|svg|webp|jpe?g|gif)$", re.IGNORECASE)


class Page:
    """What one page holds: ids, links, loads, pictures, and the text outside code and mathematics, with their lines."""

    def __init__(self, path):
        soup = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        self.ids, self.links, self.loads, self.pictures, self.text = defaultdict(list), [], [], [], []
        for tag in soup.find_all(True):
            line = tag.sourceline
            for name in {tag.get("id"), tag.get("name") if tag.name == "a" else None} - {None}:
                self.ids[name].append(line)
            if tag.name in ("a", "area", "form"):
                self.links += [(line, tag[key]) for key in ("href", "action") if tag.get(key)]
            elif (tag.name == "link" and not NOT_LOADING & {*tag.get("rel", [])}) or tag.name in ("use", "image"):
                self.loads += [(line, tag["href"])] if tag.get("href") else []
            for key in LOADING:
                parts = tag.get(key, "").split(",") if key == "srcset" else [tag.get(key, "")]
                self.loads += [(line, part.split()[0]) for part in parts if part.strip()]
            css = tag.get("style", "") + (tag.get_text() if tag.name == "style" else "")
            self.loads += [(line, address) for address in css_loads(css)]
            if tag.name == "img":
                self.pictures.append((line, tag.get("alt"), tag))
        for text in soup.find_all(string=True):
            verbatim = any(e.name in VERBATIM or {"math", "sig"} & {*e.get("class", [])} for e in text.parents)
            if type(text) is NavigableString and not verbatim and not re.fullmatch(r"\*{1,2}\w+", text):
                self.text.append((text.parent.sourceline or 1, text))
        refresh = soup.find("meta", attrs={"http-equiv": re.compile("refresh", re.IGNORECASE)})
        self.redirects = refresh is not None
        if refresh:
            self.links.append((refresh.sourceline, re.sub(r"(?i).*?url=", "", refresh["content"])))
        self.is_read = soup.find("article") is not None and not refresh
        self.foot = " ".join(e.get_text() for e in soup.select("p.provenance"))
        card = soup.find("meta", property="og:image")
        self.card = card.get("content", "") if card else ""


def pages_of(root):
    paths = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*.html"))}
    return {name: Page(path) for name, path in paths.items() if name.split("/")[0] not in NOT_PAGES}


def css_loads(css):
    return [first or second for first, second in CSS_LOAD.findall(re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL))]


def is_foreign(address):
    return bool(urlsplit(address).netloc) or urlsplit(address).scheme in ("http", "https", "ftp", "ws", "wss")


def target_of(name, address):
    """The file that `address`, found in the file `name`, leads to; None if it leads out of the book."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return None
    path = unquote(urlsplit(urljoin(f"file:///{name}", parts.path)).path)
    return path[1:] + ("index.html" if path.endswith("/") else "")


def check_page(root, name, page, pages):
    """Yield what is wrong with a page, whatever it is about."""
    for line, address in page.loads:
        if is_foreign(address):
            yield f"{name}:{line}: loads from another host: {address}"
        elif (target := target_of(name, address)) is not None and not (root / target).is_file():
            yield f"{name}:{line}: loads a file that does not exist: {address[:100]}"
    for line, address in page.links:
        if (target := target_of(name, address)) is None:
            continue
        fragment = unquote(urlsplit(address).fragment)
        if not (root / target).is_file():
            yield f"{name}:{line}: link to a page that does not exist: {address}"
        elif fragment and target in pages and fragment not in pages[target].ids:
            yield f"{name}:{line}: link to an anchor that does not exist: {address}"
    for anchor, lines in page.ids.items():
        if len(lines) > 1:
            yield f'{name}:{lines[1]}: the id "{anchor}" is used {len(lines)} times'
    for line, alt, tag in page.pictures:
        if alt == "" and "logo__image" in tag.get("class", []):  # stands beside the book's title in one link
            continue
        if not (alt or "").strip():
            yield f"{name}:{line}: picture without a description (alt)"
        elif HASH.search(alt) or (tag.find_parent("article") and len(alt.split()) < 3):
            yield f'{name}:{line}: picture whose description says nothing: "{alt[:60]}"'
    for line, text in page.text:
        for what, pattern in UNRENDERED.items():
            if match := pattern.search(text):
                near = " ".join(text[max(0, match.start() - 25) : match.end() + 25].split())
                yield f'{name}:{line}: {what} was not rendered: "{near}"'


def check_origin(root, name, page):
    """Yield what a page does not say of its release, its missing card, and why a chapter would not open in Colab."""
    if not page.is_read or name == "search.html":
        return
    if not re.match(r"Release \d", page.foot):
        yield f"{name}: the foot does not say which release this is"
    if not re.match(r"https://.+/_static/", page.card):
        yield f"{name}: no og:image with an absolute address"
    elif not (root / "_static" / page.card.split("/_static/")[1]).is_file():
        yield f"{name}: og:image is a file that does not exist: {page.card}"
    if not name.startswith("notebooks/"):
        return
    if "outputs: " not in page.foot:
        yield f"{name}: the foot does not say what the outputs were made on"
    notebook, addresses = name.removesuffix(".html") + ".ipynb", [address for _, address in page.links]
    launches = [address for address in addresses if urlsplit(address).netloc == "colab.research.google.com"]
    if len(launches) < 2:
        yield f"{name}: {len(launches)} links to Colab, a button and a link in the first lines are wanted"
    if len({*launches}) > 1 or not all(re.search(rf"/blob/[^/]+/{notebook}$", address) for address in launches):
        yield f"{name}: its links to Colab differ, or do not open this chapter: {', '.join(sorted({*launches}))}"
    copy = root / "_sources" / notebook
    if not any(target_of(name, address) == f"_sources/{notebook}" for address in addresses):
        yield f"{name}: no button to download the notebook"
    elif copy.is_file() and '"outputs"' not in copy.read_text(encoding="utf-8"):
        yield f"{name}: what can be downloaded is not the executed notebook"


@cache
def sent_size(path):
    """Bytes on the wire: hosts gzip text."""
    return len(gzip.compress(path.read_bytes(), 6)) if path.suffix in TEXT_FILES else path.stat().st_size


def weight(root, name, page):
    """Bytes of the page and of what it loads, style sheets' fonts included, MathJax left out."""
    files, queue = {name}, [target for _, address in page.loads if (target := target_of(name, address))]
    while queue:
        file = queue.pop()
        if file in files or "/mathjax/" in file or not (root / file).is_file():
            continue
        files.add(file)
        if file.endswith(".css"):
            css = (root / file).read_text(encoding="utf-8")
            queue += [target for load in css_loads(css) if (target := target_of(file, load)) and load.endswith("woff2")]
    return sum(sent_size(root / file) for file in files)


def check(root):
    """Return the problems, a line each."""
    pages = pages_of(root)
    if not pages:
        return [f"{root}: no page found; build the book first"]
    problems = []
    for path in sorted(root.rglob("*.css")):
        foreign = filter(is_foreign, css_loads(path.read_text(encoding="utf-8")))
        problems += [f"{path.relative_to(root)}: loads from another host: {address}" for address in foreign]
    weights = {}
    for name, page in pages.items():
        problems += [*check_page(root, name, page, pages), *check_origin(root, name, page)]
        if not page.redirects and (size := weights.setdefault(name, weight(root, name, page))) > LARGEST_WEIGHT:
            problems.append(f"{name}: weighs {size / 1e6:.2f} MB, at most {LARGEST_WEIGHT / 1e6:.0f} allowed")
    middle = statistics.median(weights.values())
    print(f"{len(weights)} pages; median {middle / 1e6:.2f} MB, heaviest {max(weights.values()) / 1e6:.2f} MB")
    if middle > MEDIAN_WEIGHT:
        problems.append(f"the median page weighs {middle / 1e6:.2f} MB, at most {MEDIAN_WEIGHT / 1e6:.0f} allowed")
    return problems


def main():
    problems = check(Path(sys.argv[1] if len(sys.argv) > 1 else "_build/html"))
    print(*problems, f"problems: {len(problems)}", sep="\n")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
