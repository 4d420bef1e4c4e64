"""Put into each page the scripts of the live figures that stand on it, and the grids that they show.

A live figure is an ordinary one: a picture with a caption, a number and a description. On the built page a script finds
it by its name and puts what the reader moves in the picture's place; without scripts, in print and in Colab the picture
stays. The grids travel inside the page, so that nothing is fetched and a page opened from a disk works too.
"""

from pathlib import Path

# Name of the figure -> script with its live form. Its grid, if there is one, is book/_static/live/NAME.json.
FIGURES = {
    "fig-sigreg-alive": "alive.js",
    "fig-sigreg-says": "alive.js",
    "fig-information-curve": "grids.js",
    "fig-estimates": "grids.js",
    "fig-power": "grids.js",
    "fig-water": "grids.js",
    "fig-cube": "grids.js",
}
FIRST = {"alive.js": ["sigreg.js", "explore.js"], "grids.js": ["explore.js"]}


def scripts_of(body: str) -> tuple[list[str], list[str]]:
    """Names of the live figures on a page, and the scripts they need, in order."""
    names = [name for name in FIGURES if f'id="{name}"' in body]
    scripts = [script for name in names for script in [*FIRST[FIGURES[name]], FIGURES[name]]]
    return names, list(dict.fromkeys(scripts))


def add(app, pagename, templatename, context, doctree) -> None:
    names, scripts = scripts_of(context.get("body") or "")
    folder = Path(app.confdir, "book", "_static", "live")
    for name in names:
        grid = folder / f"{name}.json"
        if grid.exists():
            text = grid.read_text(encoding="utf-8").strip().replace("<", "\\u003c")
            context["body"] += f'\n<script type="application/json" id="grid-{name}">{text}</script>\n'
    for script in scripts:  # a few kilobytes, within the page: no request of their own
        context["body"] += f"\n<script>\n{(folder / script).read_text(encoding='utf-8')}</script>\n"


def setup(app):
    app.connect("html-page-context", add)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
