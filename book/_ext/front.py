"""What a web host serves besides the pages: the address people share, the page for a lost link, the sitemap.

The book's address is Sphinx's ``html_baseurl``; without one nothing is written, and the root stays a bare redirect.
"""

import re
from html import escape, unescape
from pathlib import Path
from urllib.parse import urljoin

STYLE = (
    "body{margin:12vh auto;max-width:36rem;padding:0 1.2rem;font:1.05rem/1.6 system-ui,sans-serif;"
    "color:#23272e;background:#fff}a{color:#3355c8}input{font:inherit;padding:.3em .6em;width:70%}"
    "button{font:inherit;padding:.3em .8em}"
    "@media(prefers-color-scheme:dark){body{color:#d6dae1;background:#15181d}a{color:#9ab1ff}"
    "input,button{color:inherit;background:#1b1f26;border:1px solid #5c6470}}"
)


ROOT_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8" />
<meta http-equiv="refresh" content="0; url={first}" />
<title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1" />
<meta name="description" content="{text}" />
<link rel="canonical" href="{canonical}" />
<meta property="og:title" content="{title}" />
<meta property="og:description" content="{text}" />
<meta property="og:type" content="website" />
<meta property="og:url" content="{book}" />
<meta property="og:image" content="{image}" />
<meta name="twitter:card" content="summary_large_image" />
</head>
<body><p><a href="{first}">{title}</a></p></body>
</html>
"""

LOST_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8" />
<title>Not found: {title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1" />
<meta name="robots" content="noindex" />
<link rel="icon" href="data:," />
<style>{style}</style>
</head>
<body>
<main>
<h1>This page does not exist</h1>
<p>It may have moved. Search for what it was about, or start at <a href="{start}">{title}</a>.</p>
<form action="{search}">
<label>Search the book<br /><input name="q" type="search" /></label>
<button>Search</button>
</form>
<ul>
{items}
</ul>
</main>
</body>
</html>
"""


def description(index: str) -> str:
    """The sentence for previews, from the first page's own head."""
    tags = re.findall(r"<meta\b[^>]*>", index)
    named = [tag for tag in tags if 'name="description"' in tag]
    return unescape(re.search(r'content="([^"]*)"', named[0])[1]) if named else ""


def root_page(title: str, text: str, book: str, first: str, image: str) -> str:
    """The root of the site: leads to the first page, and has a preview of its own where it is shared."""
    values = {"title": title, "text": text, "book": book, "first": first, "image": image}
    return ROOT_PAGE.format(canonical=urljoin(book, first), **{name: escape(value) for name, value in values.items()})


def lost_page(title: str, book: str, first: str, chapters: list[tuple[str, str]]) -> str:
    """Shown for an address that does not exist, at whatever depth: all its links are whole addresses."""
    items = "\n".join(f'<li><a href="{urljoin(book, address)}">{escape(name)}</a></li>' for address, name in chapters)
    start, search = urljoin(book, first), urljoin(book, "search.html")
    return LOST_PAGE.format(title=escape(title), style=STYLE, start=start, search=search, items=items)


def sitemap(book: str, pages: list[str]) -> str:
    places = "".join(f"<url><loc>{escape(urljoin(book, page))}</loc></url>\n" for page in pages)
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n'
    return f"{head}{places}</urlset>\n"


def write(app, exception) -> None:
    book = app.config.html_baseurl
    if exception or app.builder.name != "html" or not book:
        return
    out, title = Path(app.outdir), app.config.project if app.config.html_title is None else app.config.html_title
    book, first = book.rstrip("/") + "/", f"{app.config.root_doc}.html"
    pages = sorted(app.env.all_docs)
    chapters = [(f"{page}.html", app.env.titles[page].astext()) for page in pages if page.startswith("notebooks/")] + [
        ("book/claims.html", "Claims"),
        ("book/use_sigreg.html", "SIGReg in your training loop"),
    ]
    text = description((out / first).read_text(encoding="utf-8"))
    image = urljoin(book, app.config.ogp_image)
    (out / "index.html").write_text(root_page(title, text, book, first, image), encoding="utf-8")
    (out / "404.html").write_text(lost_page(title, book, first, chapters), encoding="utf-8")
    (out / "sitemap.xml").write_text(sitemap(book, [f"{page}.html" for page in pages]), encoding="utf-8")


def setup(app):
    app.connect("build-finished", write, priority=900)  # after the contents have put a bare redirect there
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
