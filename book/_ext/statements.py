"""Numbered, linkable statements from plain Markdown.

A block quote that opens in bold becomes a box:

    > **Proposition 1.2 (Radial nuisance).** The radius is independent of ...

It reads well wherever Markdown is shown; here it gets the anchor ``proposition-1-2``, a colour for its kind, and a
place in the search index. Plain mentions ("Proposition 1.2", "Theorems 2.1 and 2.3", "Chapter 4", the claims "P6",
"V1", "S3", and in chapters "Section 4.2") become links on every page, docstrings included. The build fails on a number
used twice, out of turn or on the wrong page, and on a mention of a statement that does not exist. A chapter may have
several pages, 04_name and 04b_other; the first sends old anchors on to where they stand now. Each box is also written
to a small file of its own, ``_static/statements/proposition-1-2.html``, from which ``book.js`` shows it where the
pointer rests on a mention.
Figures are numbered by chapter as well, numbers get a true minus sign, and folded blocks (``<details>``) are told
apart by their summary.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import count
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.domains import Domain, ObjType
from sphinx.util import logging
from sphinx.util.nodes import make_refnode

logger = logging.getLogger(__name__)

KINDS = (
    "Definition",
    "Proposition",
    "Theorem",
    "Lemma",
    "Corollary",
    "Remark",
    "Example",
    "Algorithm",
    "Exercise",
)
UNNUMBERED = ("Before you start", "In short", "Take away", "Verdict", "Note", "Warning")
WORDS = {kind: kind for kind in KINDS} | {
    (kind[:-1] + "ies" if kind.endswith("y") else kind + "s"): kind for kind in KINDS
}

OPENING = re.compile(rf"({'|'.join(KINDS)})\s+(\d+)\.(\d+)(?:\s+\((.+)\))?\.", re.DOTALL)
BARE_OPENING = re.compile(rf"({'|'.join(UNNUMBERED)})(?:\s+\((.+)\))?[.:]", re.DOTALL)
OUTCOME = re.compile(r"not confirmed|confirmed in a region|confirmed|undecided")
LOOKS_NUMBERED = re.compile(rf"({'|'.join(KINDS)})\s+[\dA-Z]")


def _list_of(number: str) -> str:
    return rf"{number}(?:(?:,\s*|,?\s+(?:and|or|to)\s+|\s*[-–]\s*){number})*"


_WORDS = "|".join(sorted(WORDS, key=len, reverse=True))
MENTION = re.compile(
    rf"\b(?:(?P<word>{_WORDS})\s+(?P<numbers>{_list_of('[0-9]+[.][0-9]+')})"
    rf"|(?P<section>[Ss]ections?)\s+(?P<sections>{_list_of('[0-9]+[.][0-9]+')})"
    rf"|(?P<chapter>Chapters?)\s+(?P<chapters>{_list_of('[0-9]+')})(?![.]?[0-9])"
    r"|(?P<claim>[PVS][0-9]{1,2})\b(?!\.[0-9]))"
)
CHAPTER_FILE = re.compile(r"(\d\d)([bc]?)_")  # 04b_name is the second page of Chapter 4

# Text here is a name, a quotation or a program, not running prose.
NOT_PROSE = (
    nodes.title, nodes.literal, nodes.literal_block, nodes.doctest_block, nodes.math, nodes.math_block,
    nodes.raw, nodes.reference, nodes.target, nodes.comment, nodes.image, nodes.citation,
    nodes.system_message, pending_xref,
)  # fmt: skip


class Box(NamedTuple):
    anchor: str
    kind: str
    chapter: int
    number: int
    name: str
    line: int | None

    @property
    def counter(self) -> str:
        return "Exercise" if self.kind == "Exercise" else "statement"

    @property
    def label(self) -> str:
        return f"{self.kind} {self.chapter}.{self.number}"

    @property
    def title(self) -> str:
        return f"{self.label} ({self.name})" if self.name else self.label


class Mention(NamedTuple):
    anchor: str
    text: str
    where: str | None


class statement(nodes.General, nodes.Element):
    """A box. Its first child is the title paragraph."""


def chapter_of(docname: str) -> int | None:
    match = CHAPTER_FILE.match(PurePosixPath(docname).name)
    return int(match[1]) if match else None


def page_of(docname: str) -> str:
    """Which page of its chapter a document is: "" for the first, "b" for the second."""
    match = CHAPTER_FILE.match(PurePosixPath(docname).name)
    return match[2] if match else ""


def anchor_of(kind: str, number: str) -> str:
    return f"{kind.lower()}-{number.replace('.', '-')}"


# Boxes -------------------------------------------------------------------------------------------------


def make_boxes(document: nodes.document, docname: str) -> list[Box]:
    boxes = []
    for quote in list(document.findall(nodes.block_quote)):
        strong = _opening_bold(quote[0]) if len(quote) else None
        if strong is None:
            continue
        text = strong.astext()
        numbered, bare = OPENING.fullmatch(text), BARE_OPENING.fullmatch(text)
        if numbered:
            kind, chapter, number, name = numbered.groups()
            anchor = anchor_of(kind, f"{chapter}.{number}")
            boxes.append(Box(anchor, kind, int(chapter), int(number), _one_line(name), quote.line))
            label = f"{kind} {chapter}.{number}"
        elif bare:
            kind, anchor, label, name = bare[1], None, bare[1], bare[2]
        else:
            if LOOKS_NUMBERED.match(text):
                _warn(
                    f'write a statement as "**Proposition 1.2 (Name).**", not "**{text}**"',
                    docname,
                    quote.line,
                )
            continue
        for paragraph in quote.children[1:]:
            inner = _opening_bold(paragraph)
            if inner is not None and OPENING.fullmatch(inner.astext()):
                _warn(f'"{inner.astext()}" is inside the box of "{label}"', docname, paragraph.line)
        title = _title(label, name and _name_nodes(strong, label), anchor)
        paragraph = quote[0]
        rest = paragraph.children[paragraph.index(strong) + 1 :]
        if rest and isinstance(rest[0], nodes.Text):
            rest[0] = nodes.Text(rest[0].lstrip())
        paragraph.children = []
        paragraph += rest
        body = quote.children if paragraph.astext().strip() else quote.children[1:]
        if kind == "Before you start" and body:
            body = [*_one_point_each(body[0]), *body[1:]]
        classes = ["statement", kind.lower().replace(" ", "-"), *(_outcome(quote) if kind == "Verdict" else ())]
        box = statement("", title, *body, classes=classes, ids=[anchor] if anchor else [])
        box.source, box.line = quote.source, quote.line
        quote.replace_self(box)
    return boxes


def _outcome(quote: nodes.Element) -> list[str]:
    """The outcome that all bold sentences of a verdict share, as a class; none where they differ."""
    said = {match[0] for bold in quote.findall(nodes.strong) if (match := OUTCOME.search(bold.astext()))}
    return [said.pop().replace(" ", "-")] if len(said) == 1 else []


def _opening_bold(paragraph: nodes.Node) -> nodes.strong | None:
    if not isinstance(paragraph, nodes.paragraph):
        return None
    first = next((child for child in paragraph.children if child.astext().strip()), None)
    return first if isinstance(first, nodes.strong) else None


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _name_nodes(strong: nodes.strong, label: str) -> list[nodes.Node]:
    """The nodes between "Proposition 1.2 (" and ")." -- a name may hold math."""
    children = [child.deepcopy() for child in strong.children]
    opening = re.compile(r"\s+".join(map(re.escape, label.split())) + r"\s+\(")
    children[0] = nodes.Text(opening.sub("", children[0].astext(), count=1))
    children[-1] = nodes.Text(re.sub(r"\)[.:]$", "", children[-1].astext()))
    return children


def _title(label: str, name: list[nodes.Node] | None, anchor: str | None) -> nodes.paragraph:
    title = nodes.paragraph("", "", nodes.inline("", label, classes=["statement-label"]), classes=["statement-title"])
    if name:
        title += [nodes.Text(" "), nodes.inline("", "", *name, classes=["statement-name"])]
    if anchor:
        link = f'<a class="headerlink" href="#{anchor}" title="Link to this statement">#</a>'
        title += nodes.raw("", link, format="html")
    return title


def _one_point_each(paragraph: nodes.Node) -> list[nodes.Node]:
    """Split "*You need:* a. *Time:* b." into one paragraph per label, so that the box reads as a list."""
    points: list[nodes.paragraph] = []
    for child in list(paragraph.children):
        starts = isinstance(child, nodes.emphasis) and child.astext().rstrip().endswith(":")
        if starts or not points:
            points.append(nodes.paragraph())
        points[-1] += child
    return [point for point in points if point.astext().strip()]


def label_folds(document: nodes.document, docname: str) -> None:
    """Give ``<details>`` the class of its summary (proof, solution, ...); it must close where it opened."""
    for parent in {id(raw.parent): raw.parent for raw in document.findall(nodes.raw)}.values():
        depth = 0
        for raw in [child for child in parent.children if isinstance(child, nodes.raw) and child["format"] == "html"]:
            depth += len(re.findall(r"<details\b", raw.astext())) - raw.astext().count("</details>")
            match = re.match(r"<details>\s*<summary>\s*(?:<\w+>)*(\w+)", raw.astext())
            if match:
                text = raw.astext().replace("<details>", f'<details class="fold {match[1].lower()}">', 1)
                new = nodes.raw("", text, format="html")
                new.source, new.line = raw.source, raw.line
                raw.replace_self(new)
        if depth:
            _warn("a <details> opens and does not close in the same section, list or box", docname, parent.line)


def free_displays(document: nodes.document) -> None:
    """Move displayed mathematics out of paragraphs, which cannot hold a block in HTML."""
    for paragraph in list(document.findall(nodes.paragraph)):
        if not any(isinstance(child, nodes.math_block) for child in paragraph.children):
            continue
        blocks: list[nodes.Element] = []
        for child in list(paragraph.children):
            if isinstance(child, nodes.math_block):
                blocks.append(child)
                continue
            if not blocks or isinstance(blocks[-1], nodes.math_block):
                blocks.append(nodes.paragraph())
                blocks[-1].source, blocks[-1].line = paragraph.source, paragraph.line
            blocks[-1] += child
        paragraph.replace_self([block for block in blocks if block.astext().strip()])


def keep_punctuation(document: nodes.document) -> None:
    """Bind a formula to the comma, bracket or "-th" after it, lest a line begin with it; so too the end of a proof."""
    for math in list(document.findall(nodes.math)):
        parent, place = math.parent, math.parent.index(math)
        after = parent[place + 1] if place + 1 < len(parent) else None
        match = re.match(r"[.,;:!?)\]’”]+|-\w+", after) if isinstance(after, nodes.Text) else None
        if match:
            bound = nodes.inline("", "", math.deepcopy(), nodes.Text(match[0]), classes=["bound"])
            parent[place : place + 2] = [bound, nodes.Text(after[match.end() :])]
    for math in [math for math in document.findall(nodes.math) if math.astext() == r"\square"]:
        parent, place = math.parent, math.parent.index(math)
        before = parent[place - 1] if place else None
        if not isinstance(before, nodes.Text):
            continue
        rest, word = re.fullmatch(r"(.*?)(\S*)\s*", before, re.DOTALL).groups()
        if word:
            kept, last = [nodes.Text(rest)], nodes.Text(word)
        elif place > 1:
            kept, last = [], parent[place - 2].deepcopy()
        else:
            continue
        bound = nodes.inline("", "", last, nodes.Text("\u00a0"), math.deepcopy(), classes=["bound"])
        parent[place - 1 - (not word) : place + 1] = [*kept, bound]


# Numbers -----------------------------------------------------------------------------------------------

NUMBER = r"[+\u2212]?\d[\d.,%]*"


def set_numbers(document: nodes.document) -> None:
    """A true minus sign before a number; no line ends inside "0.61 ± 0.02" or "(-0.2 to +0.5)"."""
    for text in [text for text in document.findall(nodes.Text) if _is_prose(text.parent)]:
        new = re.sub(r"(?<![^\s(\[=,;:±])-(?=\.?\d|inf\b)", "\u2212", text)
        new = re.sub(rf"(?<=[\d%]) ± (?={NUMBER})", "\u00a0±\u00a0", new)
        new = re.sub(rf"\({NUMBER} to {NUMBER}\)", lambda match: match[0].replace(" ", "\u00a0"), new)
        if new != text:
            text.parent.replace(text, nodes.Text(new))


# Mentions ----------------------------------------------------------------------------------------------


def link_mentions(document: nodes.document, docname: str) -> list[Mention]:
    mentions = []
    for parent in {id(text.parent): text.parent for text in document.findall(nodes.Text)}.values():
        if not _is_prose(parent):
            continue
        children: list[nodes.Node] = []
        for child in parent.children:  # a line break in the source splits a text in two: join them first
            if isinstance(child, nodes.Text) and children and isinstance(children[-1], nodes.Text):
                children[-1] = nodes.Text(children[-1] + child)
            else:
                children.append(child)
        linked = [piece for child in children for piece in _link(child, docname, parent, mentions)]
        if len(linked) != len(children):
            parent.children = []
            parent += linked
    return mentions


def _is_prose(node: nodes.Node | None) -> bool:
    while node is not None:
        if isinstance(node, NOT_PROSE) or "statement-title" in getattr(node, "attributes", {}).get("classes", []):
            return False
        node = node.parent
    return True


def _link(child: nodes.Node, docname: str, parent: nodes.Element, mentions: list[Mention]) -> list[nodes.Node]:
    if not isinstance(child, nodes.Text):
        return [child]
    pieces, position = [], 0
    for match in MENTION.finditer(child):
        if match["claim"]:
            target, text = f"claim-{match['claim'].lower()}", match["claim"]
            pieces += [nodes.Text(child[position : match.start()]), _reference("claim", target, text, docname)]
            position = match.end()
            continue
        if match["section"]:
            if chapter_of(docname) is None:
                continue  # elsewhere it may be a section of a paper
            kind, group = "Section", "sections"
        else:
            kind, group = (WORDS[match["word"]], "numbers") if match["word"] else ("Chapter", "chapters")
        for index, number in enumerate(re.finditer(r"\d+(?:\.\d+)?", match[group])):
            # The first link covers the word too, the others their number only.
            start = match.start() if index == 0 else match.start(group) + number.start()
            end = match.start(group) + number.end()
            mentions.append(
                Mention(anchor_of(kind, number[0]), f"{kind} {number[0]}", logging.get_node_location(parent))
            )
            # No line may end between the word and its number.
            text = "\u00a0".join(str(child[start:end]).split())
            link = _reference("mention", mentions[-1].anchor, text, docname)
            pieces += [nodes.Text(child[position:start]), link]
            position = end
    return [*pieces, nodes.Text(child[position:])] if pieces else [child]


def _reference(kind: str, target: str, text: str, docname: str) -> pending_xref:
    return pending_xref(
        "", nodes.inline("", text), refdomain="statement", reftype=kind, reftarget=target, refdoc=docname,
        refexplicit=True, refwarn=False,
    )  # fmt: skip


# The register of all pages -----------------------------------------------------------------------------


class StatementDomain(Domain):
    name = "statement"
    label = "statement"
    object_types = {"box": ObjType("statement")}  # noqa: RUF012
    initial_data = {"boxes": {}, "mentions": {}, "anchors": {}, "sections": {}, "published": {}}  # noqa: RUF012

    def clear_doc(self, docname: str) -> None:
        self.data["boxes"].pop(docname, None)
        self.data["mentions"].pop(docname, None)
        self.data["anchors"].pop(docname, None)
        self.data["sections"].pop(docname, None)

    def merge_domaindata(self, docnames: list[str], otherdata: dict) -> None:
        for docname in docnames:
            for key in ("boxes", "mentions", "anchors", "sections"):
                if docname in otherdata[key]:
                    self.data[key][docname] = otherdata[key][docname]

    def get_objects(self):
        for docname, boxes in self.data["boxes"].items():
            for box in boxes:
                yield box.title, box.title, "box", docname, box.anchor, 1

    def get_type_name(self, type, primary=False):
        return "statement"

    def targets(self) -> dict[str, tuple[str, str, str]]:
        """Anchor -> (page, fragment, hover title), of statements and of chapters."""
        found = {
            box.anchor: (docname, box.anchor, box.title)
            for docname, boxes in self.data["boxes"].items()
            for box in boxes
        }
        for docname, sections in self.data["sections"].items():
            found |= {anchor_of("section", number): (docname, *place) for number, place in sections.items()}
        for docname in self.env.found_docs:
            if (chapter := chapter_of(docname)) is not None and not page_of(docname):
                title = self.env.titles.get(docname)
                found[f"chapter-{chapter}"] = (docname, "", title.astext() if title else docname)
        return found

    def resolve_xref(self, env, fromdocname, builder, typ, target, node, contnode):
        where = self.claim(target) if typ == "claim" else self.targets().get(target)
        # Reported below, not in the book yet, or this page.
        if where is None or where[:2] == (fromdocname, "") or (typ == "claim" and where[0] == fromdocname):
            return nodes.Text(contnode.astext())
        docname, fragment, title = where
        return make_refnode(builder, fromdocname, docname, fragment, contnode, title)

    def claim(self, target: str) -> tuple[str, str, str] | None:
        """Like an entry of `targets`: where the claims page has the label ``claim-p6``."""
        docname, fragment = self.env.get_domain("std").anonlabels.get(target, ("", ""))
        return (docname, fragment, f"Claim {target.removeprefix('claim-').upper()}") if docname else None

    def resolve_any_xref(self, env, fromdocname, builder, target, node, contnode):
        return []

    def check_consistency(self) -> None:
        self._check_numbers()
        known = self.targets()
        kinds = {(b.chapter, b.number): b.label for boxes in self.data["boxes"].values() for b in boxes
                 if b.kind != "Exercise"}  # fmt: skip
        for _, mentions in sorted(self.data["mentions"].items()):
            for anchor, text, where in mentions:
                if anchor in known or text.startswith("Chapter"):
                    continue
                kind, number = text.split()
                other = kinds.get(tuple(map(int, number.split(".")))) if kind != "Exercise" else None
                hint = f" ({number} is {other})" if other else ""
                logger.warning(f"{text} is mentioned and does not exist{hint}", location=where, type="statements")

    def _check_numbers(self) -> None:
        """On each page numbers grow; over the pages of a chapter none is used twice and none is left out."""
        first: dict[str, str] = {}
        for docname, boxes in sorted(self.data["boxes"].items()):
            chapter, last = chapter_of(docname), {"Exercise": 0, "statement": 0}
            elsewhere = {
                (box.counter, box.number)
                for page, others in self.data["boxes"].items()
                if page != docname and chapter_of(page) == chapter
                for box in others
            }
            for box in boxes:
                due = next(k for k in count(last[box.counter] + 1) if (box.counter, k) not in elsewhere)
                if box.anchor in first:
                    _warn(f"{box.label} exists twice: here and in {first[box.anchor]}", docname, box.line)
                elif box.chapter != chapter:
                    what = f"{box.label} stands in {docname}, which is not Chapter {box.chapter}"
                    _warn(what, docname, box.line)
                elif (box.counter, box.number) in elsewhere:
                    _warn(f"{box.label} has a number that another page of the chapter uses", docname, box.line)
                elif box.number != due:
                    what = f"{box.label} is out of order: the next number here is {box.chapter}.{due}"
                    _warn(what, docname, box.line)
                first.setdefault(box.anchor, docname)
                last[box.counter] = box.number


def _warn(message: str, docname: str, line: int | None) -> None:
    logger.warning(message, location=(docname, line), type="statements")


SEND_ON = """(places => {
  const go = () => {
    const anchor = decodeURIComponent(location.hash.slice(1));
    if (places[anchor] && !document.getElementById(anchor)) location.replace(places[anchor] + location.hash);
  };
  addEventListener("DOMContentLoaded", go);
  addEventListener("hashchange", go);
})(%s);"""


def numbered_sections(document: nodes.document) -> dict[str, tuple[str, str]]:
    """Number of a section -> (anchor, title), from headings like "4.2 What a healthy value is"."""
    titles = [(section, section[0].astext()) for section in document.findall(nodes.section) if len(section)]
    matches = [(section, title, re.match(r"(\d+\.\d+) ", title)) for section, title in titles]
    return {match[1]: (section["ids"][0], title) for section, title, match in matches if match}


# Events ------------------------------------------------------------------------------------------------


def read(app, doctree: nodes.document) -> None:
    domain, docname = app.env.get_domain("statement"), app.env.docname
    free_displays(doctree)
    domain.data["boxes"][docname] = make_boxes(doctree, docname)
    label_folds(doctree, docname)
    set_numbers(doctree)
    domain.data["mentions"][docname] = link_mentions(doctree, docname)
    keep_punctuation(doctree)
    if chapter_of(docname) is not None:
        domain.data["sections"][docname] = numbered_sections(doctree)
    if chapter_of(docname) is not None and page_of(docname):
        domain.data["anchors"][docname] = {name for node in doctree.findall(nodes.Element) for name in node["ids"]}


def rewrite_mentions(app, env) -> list[str]:
    """In an incremental build, pages whose links or hover titles changed are written again."""
    domain = env.get_domain("statement")
    before, now = domain.data["published"], domain.targets()
    domain.data["published"] = now
    changed = {anchor for anchor in before.keys() | now.keys() if before.get(anchor) != now.get(anchor)}
    return [page for page, found in domain.data["mentions"].items() if any(m.anchor in changed for m in found)]


def number_figures(app, env) -> list[str]:
    """Number figures 1.1, 1.2, ... by chapter; Sphinx alone would count through the whole book."""
    taken: Counter = Counter()  # a chapter may have several pages; its figures are counted through
    for docname, types in sorted(env.toc_fignumbers.items()):
        if (chapter := chapter_of(docname)) is not None:
            for kind, numbers in types.items():
                names = list(numbers)
                numbers.update({name: (chapter, taken[chapter, kind] + k) for k, name in enumerate(names, start=1)})
                taken[chapter, kind] += len(names)
    return []


def send_on(app, pagename, templatename, context, doctree) -> None:
    """The first page of a chapter sends the anchors that stand on a later page there: old links still lead home."""
    chapter = chapter_of(pagename)
    if doctree is None or chapter is None or page_of(pagename):
        return
    places = {
        anchor: f"{PurePosixPath(docname).name}.html"
        for docname in sorted(app.env.found_docs)
        if chapter_of(docname) == chapter and page_of(docname)
        for anchor in sorted(app.env.get_domain("statement").data["anchors"].get(docname, ()))
    }
    if places:
        app.add_js_file(None, body=SEND_ON % json.dumps(places, separators=(",", ":")))


def visit_statement(self, node: statement) -> None:
    node["starts_at"] = len(self.body)
    self.body.append(self.starttag(node, "div"))


def depart_statement(self, node: statement) -> None:
    self.body.append("</div>\n")
    if node["ids"]:
        path = Path(self.builder.outdir, "_static", "statements", f"{node['ids'][0]}.html")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(self.body[node["starts_at"] :]), encoding="utf-8")


def setup(app):
    app.add_node(statement, html=(visit_statement, depart_statement))
    app.add_domain(StatementDomain)
    app.connect("doctree-read", read)
    app.connect("env-get-updated", number_figures, priority=900)  # after Sphinx has numbered them
    app.connect("env-updated", rewrite_mentions)
    app.connect("html-page-context", send_on)
    return {"version": "1", "env_version": 4, "parallel_read_safe": True, "parallel_write_safe": True}
