"""Lighter pages: one style sheet and one script a page in place of some twenty, pictures fetched as they come near.

Icons are a font of some 2000 pictures, of which the book shows twenty: the others are left out of the font and of the
style sheet. Logo and icon of the book stand in the page. Pictures carry their size, so that the page has its height
before they are there, and an address that leads to a figure ends at it.

The theme and its extensions each bring files of their own. When the book is built, those that a page names in its head
are written behind each other into one file, in their order, and the page names that file. Addresses inside a style
sheet are rewritten. MathJax stays by itself, for only some pages need it; the search page, whose scripts wait for each
other in their own way, stays as it is.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from functools import cache
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

from fontTools import subset

LINK = re.compile(r"[ \t]*<link\b[^>]*>\n?")
SCRIPT = re.compile(r"[ \t]*<script\b[^>]*></script>\n?")
ATTRIBUTE = re.compile(r'([\w-]+)="([^"]*)"')
# What others need before the page goes on, and what only some pages need.
APART = ("documentation_options.js", "mathjax", "design-tabs.js")
ICON = re.compile(r'([^{}]*)\{content:"\\([ef][0-9a-f]{3})"\}')
ICON_NAME = re.compile(r"\bfa-[a-z0-9-]+")
ICON_FONT = re.compile(r'src:url\("([^"]*/fa-[a-z]+-\d+)\.woff2"\)[^}]*')
PICTURE = re.compile(r"<img\b[^>]*>")
URL = re.compile(r"""url\(\s*(["']?)(?!data:|#|https?:)([^"')]+)\1\s*\)""")
IMPORT = re.compile(r"""@import\s+(?:url\()?["']?([^"');]+)["']?\)?;""")


def file_of(page: Path, address: str) -> Path:
    return (page.parent / urlsplit(address).path).resolve()


def one_style(paths: list[Path], static: Path) -> str:
    """The style sheets behind each other; what they load is found from `static`."""
    parts = []
    for path in paths:

        def moved(match, path=path):
            address, mark, rest = match[2].partition("?")
            target = (path.parent / address).resolve().relative_to(static).as_posix()
            return f'url("{target}{mark}{rest}")'

        text = path.read_text(encoding="utf-8")
        for address in IMPORT.findall(text):
            text = text.replace(IMPORT.search(text)[0], one_style([(path.parent / address).resolve()], static), 1)
        parts.append(re.sub(r"/\*# sourceMappingURL=.*?\*/", "", URL.sub(moved, text)))
    return "\n".join(parts)


def one_script(paths: list[Path]) -> str:
    """The scripts behind each other, each closed by a semicolon."""
    parts = [re.sub(r"(?m)^//# sourceMappingURL=.*$", "", path.read_text(encoding="utf-8")) for path in paths]
    return "\n".join(f"{part.rstrip()}\n;" for part in parts)


def keep(static: Path, text: str, ending: str) -> str:
    """Write a bundle under a name that tells its content; return its address from the root."""
    name = f"bundle-{hashlib.sha256(text.encode()).hexdigest()[:10]}.{ending}"
    (static / name).write_text(text, encoding="utf-8")
    return f"_static/{name}"


def local(tags: re.Pattern, text: str, key: str, wanted) -> list[tuple[re.Match, str]]:
    """The tags of a page that load a file of the book, with its address."""
    found = []
    for match in tags.finditer(text):
        given = dict(ATTRIBUTE.findall(match[0]))
        if given.get(key) and not urlsplit(given[key]).netloc and wanted(given):
            found.append((match, given[key]))
    return found


def joined(text: str, tags: list[tuple[re.Match, str]], tag: str) -> str:
    """Put one tag where the last of several stood: before it the others have been read."""
    for match, _ in reversed(tags):
        text = text[: match.start()] + (tag if match is tags[-1][0] else "") + text[match.end() :]
    return text


@cache
def with_icons(style: str, names: frozenset[str], static: Path) -> str:
    """The style sheet with the rules of these icons, and with fonts that hold no others."""

    def kept(rule):
        icons = {selector.strip().removeprefix(".").split(":")[0] for selector in rule[1].split(",")}
        return rule[0] if icons & names or not all(icon.startswith("fa-") for icon in icons) else ""

    style = ICON.sub(kept, style)
    letters = {int(code, 16) for code in re.findall(r'"\\([ef][0-9a-f]{3})"', style)}

    def smaller(match):
        font = few_letters(static / f"{match[1]}.ttf", letters)
        name = f"icons-{hashlib.sha256(font).hexdigest()[:10]}.woff"
        (static / name).write_bytes(font)
        return f'src:url("{name}") format("woff")'

    return ICON_FONT.sub(smaller, style)


def few_letters(path: Path, letters: set[int]) -> bytes:
    """A font with these letters only; copyright and licence stay in it, its name does not."""
    options = subset.Options(flavor="woff", layout_features=[], name_IDs=[0, 13, 14])
    writer = subset.Subsetter(options)
    writer.populate(unicodes=letters)
    with subset.load_font(path, options) as font:
        writer.subset(font)
        subset.save_font(font, file := BytesIO(), options)
    return file.getvalue()


def icons_of(root: Path) -> frozenset[str]:
    """Names of the icons that pages and scripts mention."""
    files = [path for ending in ("html", "js") for path in root.rglob(f"*.{ending}")]
    files = [path for path in files if not {"mathjax", "vendor", "_sources"} & set(path.parts)]
    return frozenset(name for path in files for name in ICON_NAME.findall(path.read_text(encoding="utf-8")))


def lighten(page: Path, root: Path, icons: frozenset[str] = frozenset()) -> str:
    """The text of a page with its style sheets and scripts in one file each."""
    text, static = page.read_text(encoding="utf-8"), (root / "_static").resolve()
    up = "../" * len(page.relative_to(root).parts[1:])
    styles = local(LINK, text, "href", lambda given: given.get("rel") == "stylesheet")
    if styles:
        style = one_style([file_of(page, address) for _, address in styles], static)
        bundle = keep(static, with_icons(style, icons, static), "css")
        text = joined(text, styles, f'<link rel="stylesheet" href="{up}{bundle}" />\n')
    scripts = local(SCRIPT, text, "src", lambda given: given.get("type") != "module")
    scripts = [(match, address) for match, address in scripts if not any(word in address for word in APART)]
    files = [file_of(page, address) for _, address in scripts]
    if scripts:
        bundle = keep(static, one_script(files), "js")
        text = joined(text, scripts, f'<script defer="defer" src="{up}{bundle}"></script>\n')
    for match, address in reversed(local(LINK, text, "href", lambda given: given.get("rel") == "preload")):
        if file_of(page, address) in files:
            text = text[: match.start()] + text[match.end() :]
    return text


def lazy_pictures(text: str) -> str:
    """All pictures but the logo and the first of the text are fetched when they come near the screen."""
    start = text.find("<article")
    first = text.find("<img ", start) if start >= 0 else -1
    for match in reversed(list(re.finditer(r"<img (?=([^>]*)>)", text))):
        if match.start() != first and not re.search("loading=|logo__image", match[1]):
            text = f'{text[: match.end()]}loading="lazy" {text[match.end() :]}'
    return text


def size_of(path: Path) -> tuple[int, int] | None:
    """Width and height of a PNG or SVG in CSS pixels; None where the file does not say."""
    with path.open("rb") as file:
        head = file.read(2000)
    if head.startswith(b"\x89PNG") and len(head) >= 24:
        return struct.unpack(">II", head[16:24])
    sides = {name: _pixels(head, name) for name in (b"width", b"height")}
    return None if None in sides.values() else tuple(sides.values())


def _pixels(head: bytes, name: bytes) -> int | None:
    found = re.search(rb'<svg\b[^>]*?\s%s="([\d.]+)(pt|px)?"' % name, head)
    return found and round(float(found[1]) * (4 / 3 if found[2] == b"pt" else 1))


def sized_pictures(page: Path, text: str) -> str:
    """Each picture that says no size says that of its file."""
    for match in reversed(list(PICTURE.finditer(text))):
        given = dict(ATTRIBUTE.findall(match[0]))
        path = file_of(page, given.get("src", ""))
        if given.keys() & {"width", "height"} or path.suffix not in (".png", ".svg") or not path.is_file():
            continue
        if size := size_of(path):
            start = match.start() + len("<img")
            text = f'{text[:start]} width="{size[0]}" height="{size[1]}"{text[start:]}'
    return text


def inline_marks(page: Path, text: str) -> str:
    """Logo and icon, less than a kilobyte each, stand in the page: two requests fewer."""
    for match in reversed(list(re.finditer(r'(?:href|src)="([^":]*_static/(?:logo|favicon)\.svg)"', text))):
        path = file_of(page, match[1])
        if not path.is_file():  # from the root of the host: as on the page of a lost address
            continue
        data = base64.b64encode(path.read_bytes()).decode()
        text = f"{text[: match.start(1)]}data:image/svg+xml;base64,{data}{text[match.end(1) :]}"
    return text


def inline_options(page: Path, text: str) -> str:
    """The dozen lines of `documentation_options.js` stand in the page; the script of tabs goes where there are none."""
    for match, address in reversed(local(SCRIPT, text, "src", lambda given: True)):
        if "documentation_options.js" in address:
            script = f"<script>{file_of(page, address).read_text(encoding='utf-8').strip()}</script>\n"
            text = text[: match.start()] + script + text[match.end() :]
        elif "design-tabs.js" in address and "sd-tab-set" not in text:
            text = text[: match.start()] + text[match.end() :]
    return text


def finish(app, exception) -> None:
    if exception is not None or app.builder.format != "html":
        return
    root = Path(app.outdir)
    icons = icons_of(root)
    for page in sorted(root.rglob("*.html")):
        if "_static" not in page.relative_to(root).parts[:1] and page.name != "search.html":
            text = inline_marks(page, inline_options(page, lighten(page, root, icons)))
            page.write_text(sized_pictures(page, lazy_pictures(text)), encoding="utf-8")


def setup(app):
    app.connect("build-finished", finish, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
