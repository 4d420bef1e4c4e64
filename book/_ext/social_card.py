"""What a page shows when its address is shared: title, first sentence, the book's card.

Open Graph needs absolute addresses; they come from ``html_baseurl``.
"""

from html import escape

from docutils import nodes

CARD, SIZE = "_static/card.png", (1200, 630)
ALT = "Three clouds of points: a triangle evenly filled, the same points along three axes, and as a round ball"


def summary(doctree: nodes.document | None, most: int = 200) -> str:
    """The first paragraph of prose that is not a line of links or a box, cut at a word."""
    for paragraph in doctree.findall(nodes.paragraph) if doctree else ():
        text = " ".join(paragraph.astext().split())
        plain = isinstance(paragraph.parent, nodes.section)
        if plain and len(text) > 60 and not paragraph.next_node(nodes.math) and not text.startswith("Chapter "):
            return text if len(text) <= most else text[:most].rsplit(" ", 1)[0].rstrip(",;:") + " …"
    return ""


def tags(base: str, page: str, title: str, description: str, book: str) -> str:
    base = base.rstrip("/") + "/"
    properties = {
        "og:type": "website" if page.endswith("index") else "article",
        "og:site_name": book,
        "og:title": title,
        "og:description": description,
        "og:url": f"{base}{page}.html",
        "og:image": base + CARD,
        "og:image:width": str(SIZE[0]),
        "og:image:height": str(SIZE[1]),
        "og:image:alt": ALT,
    }
    lines = [f'<meta property="{key}" content="{escape(value)}" />' for key, value in properties.items() if value]
    lines.append('<meta name="twitter:card" content="summary_large_image" />')
    if description:
        lines.append(f'<meta name="description" content="{escape(description)}" />')
    return "\n".join(lines)


def add(app, pagename, templatename, context, doctree) -> None:
    if app.config.html_baseurl and doctree is not None:
        title = app.env.titles[pagename].astext()
        head = tags(app.config.html_baseurl, pagename, title, summary(doctree), app.config.html_title)
        context["metatags"] = context.get("metatags", "") + head


def setup(app):
    app.connect("html-page-context", add)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
