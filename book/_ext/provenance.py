"""One line at the foot of every page: release, commit and date of what the reader sees.

A chapter's line also says what its outputs were made on, as the chapter itself printed it when it was executed:
preset, device, and the versions of Python and torch. Without git (a source archive) the line names no commit, so that
the same files give the same pages.
"""

import json
import re
import subprocess
from pathlib import Path

# What sigreg.lab.notebook.start() prints at the head of every chapter.
STARTED = re.compile(r"sigreg \S+ · Python (\S+) · torch (\S+) · device (\S+) · preset (\S+)")


def release(root: Path) -> str:
    return re.search(r'^version = "(.+)"', (root / "pyproject.toml").read_text(), re.MULTILINE)[1]


def head(root: Path) -> tuple[str, str] | None:
    """Commit and its date, if `root` is the top of a git work tree."""
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "log", "-1", "--format=%H %cs"]
    try:
        commit, date = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError, ValueError):
        return None
    return commit, date


def results(source: Path) -> str:
    """What the outputs of a notebook were made on; empty for other pages."""
    if source.suffix != ".ipynb":
        return ""
    for cell in json.loads(source.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            if match := STARTED.search("".join(output.get("text", ""))):
                python, torch, device, preset = match.groups()
                return f"outputs: {preset} preset, {device.upper()}, Python {python}, torch {torch.split('+')[0]}"
    return ""


def line(root: Path, repository: str) -> str:
    text = f"Release {release(root)}"
    if found := head(root):
        commit, date = found
        text += f' · commit <a href="{repository}/commit/{commit}">{commit[:10]}</a> · {date}'
    return f'<p class="provenance">{text}</p>'


def configure(app, config) -> None:
    repository = config.html_theme_options.get("repository_url", "").rstrip("/")
    config.html_theme_options["extra_footer"] = line(Path(app.confdir), repository)


def add_results(app, pagename, templatename, context, doctree) -> None:
    if doctree is not None and (made := results(Path(app.env.doc2path(pagename)))):
        context["theme_extra_footer"] = context["theme_extra_footer"].replace("</p>", f" · {made}</p>")


def setup(app):
    app.connect("config-inited", configure)
    app.connect("html-page-context", add_results)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
