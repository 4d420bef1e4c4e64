"""The directive ``{chapter-map}``: how the chapters depend on each other, drawn as a picture whose boxes are links.

Its content has one chapter a line, with the place of its box and what it builds on ("needed", or "for motivation"
in brackets)::

    1 @ 0,1: The bottleneck as rate-distortion
    2 @ 1,0: From the simplex to the Gaussian <- (1)
    3 @ 1,2: The conditional bottleneck <- 1

The place is (step, lane): steps go from left to right on wide screens and from top to bottom on phones, lanes across.
A chapter that is not in the book yet is drawn faint and is no link. The build fails on a line that cannot be read, on
a chapter that builds on an unknown one, and on a chapter of the book that the map lacks.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import PurePosixPath
from typing import NamedTuple

from docutils import nodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

logger = logging.getLogger(__name__)

LINE = re.compile(
    r"(?P<number>\d+)\s*@\s*(?P<step>\d+),(?P<lane>\d+):\s*(?P<title>.+?)\s*(?:<-\s*(?P<needs>[\d\s,()]+))?"
)
CHAPTER_FILE = re.compile(r"(\d\d)_")

BOX = (144, 70)  # width and height
LETTERS = 18  # of a line in a box
WIDE = (178, 62)  # distance from step to step and from lane to lane, steps going to the right
NARROW = (104, 93)  # the same, steps going down


class Chapter(NamedTuple):
    number: int
    step: int
    lane: int
    title: str
    needs: tuple[tuple[int, bool], ...]  # (chapter, whether it is needed and not only motivating)


class chapter_map(nodes.General, nodes.Element):
    """Holds the chapters until all pages are known."""


def parse(lines: list[str]) -> list[Chapter]:
    """The chapters of the directive's content.

    Raises:
        ValueError: a line that cannot be read, a chapter listed twice, or one that builds on a chapter not before it.
    """
    chapters: list[Chapter] = []
    for line in filter(str.strip, lines):
        match = LINE.fullmatch(line.strip())
        if match is None:
            raise ValueError(f'cannot read "{line.strip()}": write "3 @ 1,2: Title <- 1, (2)"')
        known = [chapter.number for chapter in chapters]
        needs = [(int(n or m), bool(n)) for m, n in re.findall(r"\((\d+)\)|(\d+)", match["needs"] or "")]
        if int(match["number"]) in known:
            raise ValueError(f"chapter {match['number']} is listed twice")
        if missing := [str(number) for number, _ in needs if number not in known]:
            raise ValueError(f"chapter {match['number']} builds on {', '.join(missing)}, which is not listed before it")
        place = (int(match["number"]), int(match["step"]), int(match["lane"]))
        chapters.append(Chapter(*place, match["title"], tuple(needs)))
    return chapters


def describe(chapters: list[Chapter]) -> str:
    """The map in words."""
    said = []
    for chapter in chapters:
        needed = [str(number) for number, is_needed in chapter.needs if is_needed]
        motivating = [str(number) for number, is_needed in chapter.needs if not is_needed]
        what = [f"builds on {' and '.join(needed)}"] if needed else []
        what += [f"is motivated by {' and '.join(motivating)}"] if motivating else []
        said.append(f"Chapter {chapter.number} {' and '.join(what) or 'stands alone'}")
    return "; ".join(said) + "."


def wrap(title: str, width: int) -> list[str]:
    lines = [""]
    for word in title.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def draw(chapters: list[Chapter], links: dict[int, tuple[str, str]], wide: bool) -> str:
    """The map as SVG. ``links`` has the address and the full title of the chapters that are in the book."""
    (width, height), (step, lane), shape = BOX, *((WIDE, "wide") if wide else (NARROW, "narrow"))
    corner = {c.number: (4 + c.step * step, 4 + c.lane * lane) for c in chapters}
    if not wide:
        corner = {number: (y, x) for number, (x, y) in corner.items()}
    right = max(x for x, _ in corner.values()) + width + 4
    bottom = max(y for _, y in corner.values()) + height + 4
    parts = [
        f'<svg class="chapter-map {shape}" viewBox="0 0 {right} {bottom}" role="group" '
        f'aria-label="Map of the chapters: {escape(describe(chapters))}">',
        f'<defs><marker id="arrow-{shape}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0.5 8 4 0 7.5z"/></marker></defs>',
    ]
    for chapter in chapters:
        for number, needed in chapter.needs:
            kind = "needed" if needed else "motivating"
            route = _route(corner[number], corner[chapter.number], wide)
            parts.append(f'<path class="{kind}" d="{route}" marker-end="url(#arrow-{shape})"/>')
    for chapter in chapters:
        x, y = corner[chapter.number]
        text = f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="7"/>'
        text += f'<text class="number" x="{x + 12}" y="{y + 23}">{chapter.number}</text>'
        for k, line in enumerate(wrap(chapter.title, LETTERS)):
            text += f'<text x="{x + 12}" y="{y + 42 + 16 * k}">{escape(line)}</text>'
        if chapter.number in links:
            address, title = links[chapter.number]
            parts.append(f'<a href="{escape(address)}" aria-label="Chapter {escape(title)}">{text}</a>')
        else:
            parts.append(f'<g class="absent">{text}</g>')
    return "".join([*parts, "</svg>"])


def _route(start: tuple[int, int], end: tuple[int, int], wide: bool) -> str:
    """From one box to another: straight on past the boxes between, then a bend in the last gap."""
    (width, height), step = BOX, (WIDE if wide else NARROW)[0]
    if wide:
        (x0, y0), (x1, y1) = (start[0] + width, start[1] + height // 2), (end[0], end[1] + height // 2)
        before, middle = x1 - (step - width), x1 - (step - width) // 2
        return f"M{x0} {y0}H{before}C{middle} {y0} {middle} {y1} {x1} {y1}"
    (x0, y0), (x1, y1) = (start[0] + width // 2, start[1] + height), (end[0] + width // 2, end[1])
    before, middle = y1 - (step - height), y1 - (step - height) // 2
    return f"M{x0} {y0}V{before}C{x0} {middle} {x1} {middle} {x1} {y1}"


class ChapterMap(SphinxDirective):
    has_content = True

    def run(self):
        try:
            chapters = parse(list(self.content))
        except ValueError as error:
            logger.warning(f"chapter-map: {error}", location=self.get_location(), type="chapter-map")
            return []
        node = chapter_map("", chapters=chapters)
        self.set_source_info(node)
        return [node]


def chapters_of(env) -> dict[int, str]:
    found = {}
    for docname in env.found_docs:
        if match := CHAPTER_FILE.match(PurePosixPath(docname).name):
            found[int(match[1])] = docname
    return found


def resolve(app, doctree: nodes.document, docname: str) -> None:
    for node in list(doctree.findall(chapter_map)):
        pages, chapters = chapters_of(app.env), node["chapters"]
        if lacking := sorted(pages.keys() - {chapter.number for chapter in chapters}):
            logger.warning(f"chapter-map: chapter {lacking[0]} is missing", location=node, type="chapter-map")
        links = {
            number: (app.builder.get_relative_uri(docname, page), app.env.titles[page].astext())
            for number, page in pages.items()
            if page in app.env.titles
        }
        svg = draw(chapters, links, wide=True) + draw(chapters, links, wide=False)
        node.replace_self(nodes.raw("", f'<div class="chapter-map-frame">{svg}</div>', format="html"))


def setup(app):
    app.add_node(chapter_map)
    app.add_directive("chapter-map", ChapterMap)
    app.connect("doctree-resolved", resolve)
    return {"version": "1", "env_version": 1, "parallel_read_safe": True, "parallel_write_safe": True}
