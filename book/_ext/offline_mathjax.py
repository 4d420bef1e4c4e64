"""Serve MathJax from the book itself, so that no page asks another host for anything.

Only the one script that holds every TeX package, and its fonts, are copied (about 1.7 of 24 MB).
"""

from importlib.metadata import files
from pathlib import Path

from sphinx.util.fileutil import copy_asset

SCRIPT = "tex-chtml-full.js"
FONTS = "output/chtml/fonts/woff-v2"


def mathjax_folder() -> Path:
    # The package's folder is named sphinx-mathjax-offline, with hyphens, so it cannot be imported.
    script = next(path for path in files("sphinx-mathjax-offline") if path.name == SCRIPT)
    return Path(script.locate()).parent


def copy_mathjax(app) -> None:
    if app.builder.format == "html":
        target = Path(app.outdir, "_static", "mathjax")
        copy_asset(mathjax_folder() / SCRIPT, target)
        copy_asset(mathjax_folder() / FONTS, target / FONTS)


def configure(app, config) -> None:
    config.mathjax_path = f"mathjax/{SCRIPT}"
    config.mathjax3_config = {
        # A little larger than the text; matched to the height of a sans-serif x, formulas would outgrow the column.
        "chtml": {"matchFontHeight": False, "scale": 1.07},
        # Formulas keep their context menu, but do not become hundreds of stops of the Tab key.
        "options": {"menuOptions": {"settings": {"inTabOrder": False}}},
    } | (config.mathjax3_config or {})


def leave_out(app, pagename, templatename, context, doctree) -> None:
    """Without a formula the book's first page needs no MathJax; Sphinx counts the formulas of all pages for it."""
    if pagename == app.config.root_doc and 'class="math' not in context.get("body", ""):
        parts = {file: f"{file.filename} {file.attributes.get('body')}" for file in context["script_files"]}
        context["script_files"] = [file for file, text in parts.items() if "mathjax" not in text.lower()]


def setup(app):
    app.connect("config-inited", configure)
    app.connect("builder-inited", copy_mathjax)
    app.connect("html-page-context", leave_out, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
