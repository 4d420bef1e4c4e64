"""Copy the repository's address, which stands in `_config.yml`, to every file that names it.

    python book/_tools/stamp.py          write; then `python book/_tools/pairs.py run` carries it into the notebooks
    python book/_tools/stamp.py check    change nothing; list the files that name another

The former address is read from `pyproject.toml`, which is written last.
"""

import argparse
import re
import sys
from pathlib import Path
from typing import NamedTuple

import tomllib
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILES = ("*.md", "*.cff", "book/*.*", "book/_ext/*.py", "book/_static/*.*", "sigreg/**/*.py", "notebooks/*.md")
TEXT = {".md", ".cff", ".yml", ".bib", ".py", ".toml", ".js", ".css", ".html", ".svg"}


class Address(NamedTuple):
    url: str
    branch: str
    book: str
    title: str


def present_address(root=ROOT):
    """The address in `_config.yml`."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    url, branch = config["repository"]["url"].rstrip("/"), config["repository"]["branch"]
    if not re.fullmatch(r"https://github\.com/[\w-]+/[\w.-]+", url):
        raise SystemExit(f"_config.yml: repository.url is {url!r}: Colab opens only https://github.com/OWNER/REPOSITORY")
    return Address(url, branch, config["html"]["baseurl"].rstrip("/") + "/", config["title"])


def stale_files(root=ROOT):
    """Yield `(path, text, wanted)` for each file that names the former address."""
    now, old = present_address(root), tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    old = old["project"]["urls"]
    slug, repo = "/".join(now.url.split("/")[-2:]), re.escape(old["Source"].split("/")[-1])
    branch = old["Changelog"].split("/blob/")[1].split("/")[0]
    for path in [path for pattern in (*FILES, "*.toml") for path in sorted(root.glob(pattern)) if path.suffix in TEXT]:
        text = path.read_text(encoding="utf-8")
        wanted = re.sub(rf"{re.escape(old['Book'].rstrip('/'))}(?![\w-])", now.book[:-1], text)
        # An owner in capitals, as in github.com/YOU/sigreg, is a placeholder and stays.
        wanted = re.sub(rf"(github[.\w]*)/(?![A-Z]+/)[\w-]+/{repo}(?![\w-])", rf"\1/{slug}", wanted)
        of_branch = rf"(/{re.escape(slug)}(?:/blob/|/tree/|/raw/|@)){branch}(?![\w.-])"
        wanted = re.sub(of_branch, rf"\g<1>{now.branch}", wanted)
        if wanted != text:
            yield path, text, wanted


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", nargs="?", choices=["write", "check"], default="write")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository (default: the one this file is in)")
    options = parser.parse_args(arguments)
    stale = list(stale_files(options.root))
    for path, text, wanted in stale:
        line = next(k for k, (a, b) in enumerate(zip(text.splitlines(), wanted.splitlines(), strict=True), 1) if a != b)
        print(f"{path.relative_to(options.root)}:{line}: is not what _config.yml says of the repository")
        if options.action == "write":
            path.write_text(wanted, encoding="utf-8")
    return bool(stale) and options.action == "check"


if __name__ == "__main__":
    sys.exit(main())
