"""Check the built book, file by file, as a browser without a network would find it.

    python book/_tools/site.py _build/html

One line for each problem: anything loaded from another host, links and anchors that lead nowhere, pictures without a
meaningful description, Markdown or TeX that was not rendered, an id used twice, pages too heavy, pages that do not say
of which release they are or have no card to show where they are shared, chapters that do not open in Colab.
"""

import re
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from bs4 import BeautifulSoup, NavigableString

LARGEST_WEIGHT = 4e6  # bytes a reader's browser holds for one page
NOT_PAGES = ("_static", "_sources", "_images", "_downloads")
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
    """What one page holds: ids, links and loads with their lines."""

    def __init__(self, path):
        self.soup = soup = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        self.ids = Counter(tag["id"] for tag in soup.find_all(id=True))
        self.links, self.loads = [], []
        for tag in soup.find_all(True):
            if tag.name in ("a", "area", "form"):
                self.links += [(tag.sourceline, tag[key]) for key in ("href", "action") if tag.get(key)]
            loads = [tag.get(key) for key in LOADING]
            if (tag.name == "link" and not NOT_LOADING & {*tag.get("rel", [])}) or tag.name in ("use", "image"):
                loads.append(tag.get("href"))
            loads += css_loads(tag.get("style", "") + (tag.get_text() if tag.name == "style" else ""))
            self.loads += [(tag.sourceline, address) for address in loads if address]
        refresh = soup.find("meta", attrs={"http-equiv": re.compile("refresh", re.IGNORECASE)})
        self.links += [(refresh.sourceline, refresh["content"].partition("url=")[2])] if refresh else []
        self.is_read = soup.find("article") is not None and not refresh

    def texts(self):
        """The text outside code and mathematics, with its lines."""
        for text in self.soup.find_all(string=True):
            verbatim = any(e.name in VERBATIM or {"math", "sig"} & {*e.get("class", [])} for e in text.parents)
            if type(text) is NavigableString and not verbatim and not re.fullmatch(r"\*{1,2}\w+", text):
                yield text.parent.sourceline or 1, text


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
        target, fragment = target_of(name, address), unquote(urlsplit(address).fragment)
        if target is not None and not (root / target).is_file():
            yield f"{name}:{line}: link to a page that does not exist: {address}"
        elif fragment and target in pages and not pages[target].ids[fragment]:
            yield f"{name}:{line}: link to an anchor that does not exist: {address}"
    yield from (f'{name}: the id "{anchor}" is used {count} times' for anchor, count in page.ids.items() if count > 1)
    for tag in page.soup.find_all("img"):
        alt = tag.get("alt") or ""
        if "logo__image" in tag.get("class", []):  # stands beside the book's title in one link
            continue
        if not alt.strip():
            yield f"{name}:{tag.sourceline}: picture without a description (alt)"
        elif HASH.search(alt) or (tag.find_parent("article") and len(alt.split()) < 3):
            yield f'{name}:{tag.sourceline}: picture whose description says nothing: "{alt[:60]}"'
    for line, text in page.texts():
        for what, pattern in UNRENDERED.items():
            if match := pattern.search(text):
                near = " ".join(text[max(0, match.start() - 25) : match.end() + 25].split())
                yield f'{name}:{line}: {what} was not rendered: "{near}"'


def check_origin(root, name, page):
    """Yield what a page to be read does not say of its release, its missing card, and how Colab would not open it."""
    foot = " ".join(e.get_text() for e in page.soup.select("p.provenance"))
    if not re.match(r"Release \d", foot):
        yield f"{name}: the foot does not say which release this is"
    card = page.soup.find("meta", property="og:image") or {}
    if not re.match(r"https://.+/_static/", address := card.get("content", "")):
        yield f"{name}: no og:image with an absolute address"
    elif not (root / "_static" / address.split("/_static/")[1]).is_file():
        yield f"{name}: og:image is a file that does not exist: {address}"
    if not name.startswith("notebooks/"):
        return
    if "outputs: " not in foot:
        yield f"{name}: the foot does not say what the outputs were made on"
    notebook, addresses = name.removesuffix(".html") + ".ipynb", [address for _, address in page.links]
    launches = [address for address in addresses if "//colab.research.google.com/" in address]
    if len(launches) < 2 or len({*launches}) > 1 or not re.search(rf"/blob/[^/]+/{notebook}$", launches[0]):
        yield f"{name}: a button and a line that open this chapter in Colab are wanted, not {launches}"
    if not any(target_of(name, address) == f"_sources/{notebook}" for address in addresses):
        yield f"{name}: no button to download the notebook"


def weight(root, name, page):
    """Bytes of the page and of the files it names, MathJax left out."""
    files = {name, *(target_of(name, address) for _, address in page.loads)} - {None}
    return sum((root / file).stat().st_size for file in files if "/mathjax/" not in file and (root / file).is_file())


def check(root):
    """Return the problems, a line each."""
    paths = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*.html"))}
    pages = {name: Page(path) for name, path in paths.items() if name.split("/")[0] not in NOT_PAGES}
    if not pages:
        return [f"{root}: no page found; build the book first"]
    problems = []
    for path in sorted(root.rglob("*.css")):
        foreign = filter(is_foreign, css_loads(path.read_text(encoding="utf-8")))
        problems += [f"{path.relative_to(root)}: loads from another host: {address}" for address in foreign]
    weights = {}
    for name, page in pages.items():
        problems += check_page(root, name, page, pages)
        problems += check_origin(root, name, page) if page.is_read and name != "search.html" else []
        if (size := weights.setdefault(name, weight(root, name, page))) > LARGEST_WEIGHT:
            problems.append(f"{name}: weighs {size / 1e6:.2f} MB, at most {LARGEST_WEIGHT / 1e6:.0f} allowed")
    print(f"{len(weights)} pages; the heaviest {max(weights.values()) / 1e6:.2f} MB")
    return problems


def main():
    problems = check(Path(sys.argv[1] if len(sys.argv) > 1 else "_build/html"))
    print(*problems, f"problems: {len(problems)}", sep="\n")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
