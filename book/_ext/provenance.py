"""One line at the foot of every page: release, commit and date of what the reader sees.

Without git (a source archive) the line names the release alone, so that the same files give the same pages.
"""

import re
import subprocess
from pathlib import Path


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


def line(root: Path, repository: str) -> str:
    text = f"Release {release(root)}"
    if found := head(root):
        commit, date = found
        text += f' · commit <a href="{repository}/commit/{commit}">{commit[:10]}</a> · {date}'
    return f'<p class="provenance">{text}</p>'


def configure(app, config) -> None:
    repository = config.html_theme_options.get("repository_url", "").rstrip("/")
    config.html_theme_options["extra_footer"] = line(Path(app.confdir), repository)


def setup(app):
    app.connect("config-inited", configure)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
