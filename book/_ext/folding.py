"""What a page shows first: findings, and the code that is an equation or a method.

A code cell is *shown* if it defines a function or a class and draws nothing; all others (set-up, imports, checks,
figures, computed sentences) fold, and their outputs stay. Two tags of a cell overrule that: ``show-input`` for a method
that is not a function, ``hide-input`` for a function that is only a helper. Above the text stands one switch that shows
all code; ``code.js`` remembers it. Proofs of more than a few lines fold, the list of references, and the rest of a
section from the line "*For a second reading.*" on. On the page of the laboratory each module folds. The figure that the
box "In short" names is shown under it. Notebooks are left as they are: in Colab and on GitHub everything shows.
"""

from __future__ import annotations

import ast
import re

from docutils import nodes
from sphinx.addnodes import desc, pending_xref

LONG_PROOF = 45  # words
DRAWS = re.compile(r"\bplt\.|\bax\.|\baxes\b|\bfigure\b")
DEEP = "For a second reading."
SETUP = "sigreg.lab.notebook.start()"
OF_MODULES = ("book/api_lab",)  # a page of two dozen modules, to be searched and not read
SWITCH = (
    '<div class="code-switch" hidden><label><input type="checkbox" role="switch"/> Show all code</label>'
    '<span class="code-switch-note"></span></div>'
)


def is_method(source: str, tags=()) -> bool:
    """Is a cell an equation or a method, and so part of what a page has to say?"""
    if "show-input" in tags or "hide-input" in tags:
        return "show-input" in tags
    python = re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", source)
    try:
        body = ast.parse(python).body
    except SyntaxError:
        return True
    defines = any(isinstance(node, (ast.FunctionDef, ast.ClassDef)) for node in body)
    return defines and not DRAWS.search(source)


def _raw(text: str, line: int | None) -> nodes.raw:
    node = nodes.raw("", text, format="html")
    node.line = line
    return node


def trim_code(document: nodes.document) -> None:
    """No cell ends in empty lines."""
    for cell in document.findall(lambda node: isinstance(node, nodes.container)):
        if cell.get("nb_element") == "cell_code_source":
            for block in cell.findall(nodes.literal_block):
                text = block.astext().rstrip()
                block.clear()
                block += nodes.Text(text)
                block.rawsource = text  # else Sphinx takes it for text with markup, and gives no colours


def fold_code(document: nodes.document) -> int:
    """Fold the inputs that are not methods; return how many."""
    folded = 0
    for cell in document.findall(lambda node: isinstance(node, nodes.container)):
        if cell.get("nb_element") != "cell_code" or cell.get("hide_mode") == "all" or not cell.children:
            continue
        source = cell.children[0]
        if source.get("nb_element") != "cell_code_source":
            continue
        text, tags = source.astext(), cell.get("cell_metadata", {}).get("tags", [])
        if is_method(text, tags):
            continue
        cell.attributes.pop("hide_mode", None)
        inside = list(cell.children) if SETUP in text else [source]
        rest = [child for child in cell.children if child not in inside]
        word = "Set-up" if SETUP in text else "Code"
        opening = _raw(f'<details class="plumbing"><summary>{word}</summary>', cell.line)
        cell.children = []
        cell += [opening, *inside, _raw("</details>", cell.line), *rest]
        cell["classes"].append("folded")
        folded += 1
    return folded


def fold_proofs(document: nodes.document) -> None:
    """Wrap each long proof, from "*Proof.*" to its little square, in a fold like those written as <details>."""
    for start in list(document.findall(nodes.paragraph)):
        first = start.children[0] if start.children else None
        if not (isinstance(first, nodes.emphasis) and re.match(r"Proof\b", first.astext())):
            continue
        parent, begin = start.parent, start.parent.index(start)
        end = next((k for k in range(begin, len(parent)) if _ends_proof(parent[k])), None)
        if end is None or any(isinstance(node, nodes.section) for node in parent[begin : end + 1]):
            continue
        proof = parent[begin : end + 1]
        if sum(len(node.astext().split()) for node in proof) <= LONG_PROOF:
            continue
        name = first.astext().rstrip(".")
        start.remove(first)
        if start.children and isinstance(start[0], nodes.Text):
            start[0] = nodes.Text(start[0].lstrip())
        opening = _raw(f'<details class="fold proof"><summary>{name}</summary>', start.line)
        parent.children[begin : end + 1] = []
        for k, node in enumerate([opening, *proof, _raw("</details>", start.line)]):
            parent.insert(begin + k, node)


def _ends_proof(node: nodes.Node) -> bool:
    formulas = (nodes.math, nodes.math_block)
    return any(r"\square" in math.astext() for math in node.findall(lambda part: isinstance(part, formulas)))


def fold_deep(document: nodes.document) -> None:
    """Fold the rest of a section from the line "*For a second reading.*" on; that line becomes the words to open it."""
    for mark in list(document.findall(nodes.paragraph)):
        if mark.astext().strip() != DEEP or not isinstance(mark.parent, nodes.section):
            continue
        section, at = mark.parent, mark.parent.index(mark)
        opening = f'<details class="fold deep"><summary>{DEEP.rstrip(".")}</summary>'
        section[at] = _raw(opening, mark.line)
        section += _raw("</details>", mark.line)


def fold_references(document: nodes.document) -> None:
    """Fold the closing list of sources; its summary counts them."""
    for section in document.findall(nodes.section):
        works = [node for node in section.children if isinstance(node, nodes.bullet_list)]
        if len(section) == 2 and works and section[0].astext() == "References":
            opening = f'<details class="fold works"><summary>{len(works[0])} works</summary>'
            section.insert(1, _raw(opening, section.line))
            section += _raw("</details>", section.line)


def fold_modules(document: nodes.document) -> None:
    """Of each module its first paragraph shows; what it offers folds under a list of the names."""
    for section in document.findall(nodes.section):
        names = [part[0]["ids"][0].rsplit(".", 1)[-1] for part in section.children if isinstance(part, desc)]
        if not names:
            continue
        first = next(k for k, part in enumerate(section.children) if isinstance(part, (nodes.paragraph, desc)))
        at = first + isinstance(section[first], nodes.paragraph)
        words = ", ".join(f"<code>{name}</code>" for name in names)
        section.insert(at, _raw(f'<details class="fold module"><summary>{words}</summary>', section.line))
        section += _raw("</details>", section.line)


def add_switch(document: nodes.document) -> None:
    """Put the switch below the line of links under the title."""
    section = next(iter(document.findall(nodes.section)), None)
    if section is None:
        return
    first = next((k for k, node in enumerate(section.children) if isinstance(node, nodes.paragraph)), None)
    if first is not None:
        section.insert(first + 1, _raw(SWITCH, section.line))


def show_in_short(document: nodes.document) -> None:
    """Under the box "In short" stands the figure that it links to, small; the link leads to where it is explained."""
    figures = {name: figure for figure in document.findall(nodes.figure) for name in figure["names"] + figure["ids"]}
    for quote in list(document.findall(nodes.block_quote)):
        if not quote.astext().lstrip().startswith("In short."):
            continue
        for link in list(quote.findall(lambda node: isinstance(node, (nodes.reference, pending_xref)))):
            name = (link.get("reftarget") or link.get("refid") or link.get("refuri") or "").lstrip("#")
            figure = figures.get(name)
            picture = next(iter(figure.findall(nodes.image)), None) if figure is not None else None
            if picture is None:
                continue
            words = link.parent
            small = [_raw('<figure class="in-short">', quote.line), picture.deepcopy()]
            small += [_raw("<figcaption>", quote.line), nodes.paragraph("", "", link.deepcopy())]
            small += [_raw("</figcaption></figure>", quote.line)]
            place = words.index(link)
            after = words[place + 1] if place + 1 < len(words) else None
            if isinstance(after, nodes.Text):
                words[place + 1] = nodes.Text(after.lstrip("."))
            words.remove(link)
            at = quote.parent.index(quote)
            for k, node in enumerate(small, start=1):
                quote.parent.insert(at + k, node)


def read(app, doctree: nodes.document) -> None:
    if app.env.docname in OF_MODULES:
        fold_modules(doctree)
    if app.env.docname.startswith("notebooks/"):
        show_in_short(doctree)
        fold_proofs(doctree)
        fold_deep(doctree)
        fold_references(doctree)
        trim_code(doctree)
        if fold_code(doctree):
            add_switch(doctree)


def add_script(app, pagename, templatename, context, doctree) -> None:
    body = context.get("body", "") if doctree is not None else ""
    if 'class="code-switch"' in body or 'class="fold module"' in body:
        app.add_js_file("code.js", loading_method="defer")


def setup(app):
    app.connect("doctree-read", read, priority=400)  # before `statements`, which sets displays free and labels folds
    app.connect("html-page-context", add_script)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
