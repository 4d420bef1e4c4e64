"""Link a term of the glossary where a chapter's page first uses it, so that its card shows there.

Chapters stay plain Markdown: the terms are read from ``book/glossary.md``, found in running prose, and linked once a
page.
"""

import re
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref
from statements import NOT_PROSE

PLAIN = {"view"}  # words that chapters mostly use in their everyday sense


def terms_of(glossary: str) -> dict[str, str]:
    """Words to look for, in small letters -> the entry of the glossary; "Long name (LN)" is found by either."""
    block = re.search(r"```\{glossary\}\n(.*?)```", glossary, re.DOTALL)[1]
    found = {}
    for entry in re.findall(r"^(\S.*)$", block, re.MULTILINE):
        if "$" in entry:
            continue
        name, short = re.fullmatch(r"(.*?)(?: \((\w+)\))?", entry).groups()
        found |= {word.lower(): entry for word in (name, short) if word and word.lower() not in PLAIN}
    return found


def pattern_of(terms: dict[str, str]) -> re.Pattern:
    longest_first = sorted(terms, key=len, reverse=True)
    return re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, longest_first))})(?:s|es)?(?![\w-])", re.IGNORECASE)


def link(document: nodes.document, docname: str, terms: dict[str, str]) -> int:
    """Turn first mentions into links; the number of links made."""
    pattern, made = pattern_of(terms), set()
    for text in list(document.findall(nodes.Text)):
        if not _is_running(text):
            continue
        pieces, position = [], 0
        for match in pattern.finditer(text):
            entry = terms[match[1].lower()]
            if entry in made:
                continue
            made.add(entry)
            word = nodes.inline("", match[0], classes=["term-mention"])
            about = {"refdomain": "std", "reftype": "term", "reftarget": entry, "refdoc": docname}
            reference = pending_xref("", word, refexplicit=True, refwarn=True, **about)
            pieces += [nodes.Text(text[position : match.start()]), reference]
            position = match.end()
        if pieces:
            parent = text.parent
            place = parent.index(text)
            parent[place : place + 1] = [*pieces, nodes.Text(text[position:])]
    return len(made)


def _is_running(text: nodes.Text) -> bool:
    """In a paragraph or a list, not in a title, a table, a link, a caption or a program."""
    node, paragraph = text.parent, False
    while node is not None:
        if isinstance(node, (*NOT_PROSE, nodes.table, nodes.caption, nodes.strong)):
            return False
        if "statement-title" in getattr(node, "attributes", {}).get("classes", []):
            return False
        paragraph = paragraph or isinstance(node, nodes.paragraph)
        node = node.parent
    return paragraph


def read(app, doctree: nodes.document) -> None:
    if app.env.docname.startswith("notebooks/"):
        glossary = Path(app.confdir, "book", "glossary.md").read_text(encoding="utf-8")
        link(doctree, app.env.docname, terms_of(glossary))


def setup(app):
    app.connect("doctree-read", read, priority=600)  # after the statements have their boxes and mentions
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
