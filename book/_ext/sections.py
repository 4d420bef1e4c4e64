"""A search that finds sections, statements and claims, with readable snippets.

Sphinx's own index knows whole pages. When the pages are written, their sections are cut out of them into
``_static/sections.js``; ``search.js`` ranks those on the search page, and on no other page is either loaded.
"""

import json
import re
from pathlib import Path

from bs4 import BeautifulSoup

MOST = 1600  # letters of a section's own text that are kept
SKIPPED = ".headerlink, details.hide, .live, .math.long, .findings, .glance, button, nav"
UNREAD = re.compile(r'<(pre|script|style|svg|table)\b.*?</\1>|src="data:[^"]*"', re.DOTALL)
SIGNS = {
    "frac": "/", "le": "≤", "ge": "≥", "to": "→", "infty": "∞", "times": "×", "cdot": "·", "mid": "|", "alpha": "α",
    "beta": "β", "gamma": "γ", "delta": "δ", "lambda": "λ", "mu": "μ", "nu": "ν", "sigma": "σ", "tau": "τ", "phi": "φ",
    "varphi": "φ", "theta": "θ", "rho": "ρ", "varepsilon": "ε", "kappa": "κ", "chi": "χ", "log": "log ", "Phi": "Φ",
}  # fmt: skip


def plain(tex: str) -> str:
    """A formula as it could be typed in a sentence; an ellipsis where it is long."""
    tex = tex.strip().removeprefix("\\(").removesuffix("\\)")
    tex = re.sub(r"\\([A-Za-z]+)", lambda m: SIGNS.get(m[1], " "), tex)
    tex = " ".join(re.sub(r"[\\{}$]", "", tex).split())
    return tex if len(tex) <= 24 else "…"


def text_of(part) -> str:
    return re.sub(r"\s+([.,;:!?)])", r"\1", " ".join(part.get_text(" ").split()))


def entries(html: str) -> tuple[str, list[tuple[str, str, str]]]:
    """The title of a page, and (anchor, title, text) of its sections, statements, claims and terms."""
    html = re.sub(UNREAD, "", html[max(html.find("<article"), 0) : html.find("</article>") + 10 or None])
    article = BeautifulSoup(html, "html.parser").find("article")
    if article is None or article.find("h1") is None:
        return "", []
    for part in article.select(SKIPPED):
        part.decompose()
    for part in article.select(".math"):
        part.replace_with(plain(part.get_text()) if part.name == "span" else " … ")
    found = []
    for box in article.select(".statement[id], .claim[id]"):
        words = text_of(box)
        if "claim" in box["class"]:
            head = box.find("p")
            verdict = head.select_one(".chip")
            name = f"Claim {head.find('strong').get_text()}: {verdict.get_text() if verdict else ''}"
            words = words.removeprefix(text_of(head)).strip()
        else:
            head = box.select_one(".statement-title")
            label, named = (head.select_one(f".statement-{part}") for part in ("label", "name"))
            name = f"{text_of(label)} ({text_of(named)})" if named else text_of(label)
            words = words.removeprefix(text_of(head)).strip()
        found.append((box["id"], name, words[:MOST]))
        box.decompose()
    for term in article.select("dl.glossary > dt[id]"):
        found.append((term["id"], text_of(term), text_of(term.find_next_sibling("dd"))[:MOST]))
        term.find_next_sibling("dd").decompose()
        term.decompose()
    title = text_of(article.find("h1"))
    for section in reversed(article.select("section[id]")):  # the inner ones first
        heading = section.find(re.compile("^h[1-6]$"))
        if heading is None:
            continue
        name = text_of(heading)
        heading.extract()
        found.append(("" if name == title else section["id"], name, text_of(section)[:MOST]))
        section.extract()
    return title, found


def index(root: Path, names: list[str]) -> dict:
    pages, listed = [], []
    for name in names:
        title, found = entries((root / name).read_text(encoding="utf-8"))
        if title:
            pages.append([name, title])
            listed += [[len(pages) - 1, *entry] for entry in found]
    return {"pages": pages, "entries": listed}


def write(app, exception) -> None:
    if exception or app.builder.name != "html":
        return
    out = Path(app.outdir)
    found = index(out, [f"{name}.html" for name in sorted(app.env.all_docs) if (out / f"{name}.html").exists()])
    text = json.dumps(found, ensure_ascii=False, separators=(",", ":"))
    (out / "_static" / "sections.js").write_text(f"const SECTIONS = {text};\n", encoding="utf-8")


def add(app, pagename, templatename, context, doctree) -> None:
    if pagename == "search":
        for script in ("sections.js", "search.js"):
            app.add_js_file(script, loading_method="defer", priority=900)


def setup(app):
    app.connect("html-page-context", add)
    app.connect("build-finished", write, priority=800)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
