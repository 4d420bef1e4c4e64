"""Copy the repository's address (it stands in `_config.yml`) and the version (in `pyproject.toml`) to where they show.

    python book/_tools/stamp.py          write them; then `python book/_tools/pairs.py run` carries them into notebooks
    python book/_tools/stamp.py check    change nothing; list the copies that disagree

The former address need not be told: `pyproject.toml`, which is stamped last, still has it.
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
HOSTS = r"(?:github\.com|raw\.githubusercontent\.com|colab\.research\.google\.com/github)"

SETUP_CELL = """\
# Does nothing where sigreg is installed; in Colab it adds this one package and touches nothing else.
import importlib.util

if importlib.util.find_spec("sigreg") is None:
    %pip install --quiet --no-deps "git+{url}@{branch}"

import sigreg.lab.notebook

sigreg.lab.notebook.start()"""
PARTS = {"": "", "b": ", second part,", "c": ", third part,"}  # 04b_name is the second page of Chapter 4
HEAD_LINE = "*Chapter {number}{part} of [{title}]({book}) · [open in Colab]({colab}/notebooks/{stem}.ipynb)*"


class Address(NamedTuple):
    url: str
    branch: str
    book: str
    title: str

    @property
    def colab(self):
        return self.url.replace("github.com", "colab.research.google.com/github") + f"/blob/{self.branch}"


def present_address(root=ROOT):
    """The address in `_config.yml`."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    url, branch = config["repository"]["url"].rstrip("/"), config["repository"]["branch"]
    if not re.fullmatch(r"https://github\.com/[\w-]+/[\w.-]+", url):
        raise SystemExit(
            f"_config.yml: repository.url is {url!r}: Colab opens only https://github.com/OWNER/REPOSITORY"
        )
    return Address(url, branch, config["html"]["baseurl"].rstrip("/") + "/", config["title"])


def setup_cell(address):
    """The first code cell of every chapter."""
    return SETUP_CELL.format(**address._asdict())


def head_line(address, stem):
    """The line under the title of the chapter `notebooks/<stem>.md`."""
    number, part = re.match(r"(\d+)([bc]?)", stem).groups()
    return HEAD_LINE.format(number=int(number), part=PARTS[part], colab=address.colab, stem=stem, **address._asdict())


def restamp_chapter(text, stem, now):
    """Return a chapter's `text` with its setup cell and its line of links as they should be."""
    cell = re.search(r"(?ms)^```\{code-cell\}[^\n]*\n(?:(?::[^\n]*|---\n.*?^---)\n+)*(?P<code>.*?)\n```$", text)
    if cell and 'find_spec("sigreg")' in cell["code"]:
        text = text[: cell.start("code")] + setup_cell(now) + text[cell.end("code") :]
    return re.sub(r"(?m)^([*_])Chapter \d+(?:, \w+ part,)? of.*\1$", lambda _: head_line(now, stem), text, count=1)


def changed_files(root=ROOT):
    """Yield `(path, text, wanted)` for each file whose text is not what it should be, `pyproject.toml` last."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    now, former, version = present_address(root), project["urls"], project["version"]
    slug, repo = now.url.removeprefix("https://github.com/"), re.escape(former["Source"].split("/")[-1])
    branch = re.escape(re.search(r"/blob/([^/]+)/|$", former.get("Changelog", ""))[1] or now.branch)
    stamped = re.escape(former["Book"].rstrip("/"))
    steps = [  # an owner in capitals, as in github.com/YOU/sigreg, is a placeholder and stays
        (rf"({HOSTS})/(?![A-Z]+/)[\w-]+/{repo}(?![\w-])", rf"\1/{slug}"),
        (rf"({HOSTS}/{re.escape(slug)}(?:/(?:blob|tree|edit|raw)/|/|@)){branch}(?![\w.-])", rf"\g<1>{now.branch}"),
        (rf"(?:{stamped}|https://[\w-]+\.github\.io/{repo})(?![\w-])", now.book[:-1]),
    ]
    paths = [path for pattern in FILES for path in sorted(root.glob(pattern))]
    for path in [*paths, root / "pyproject.toml"]:
        if path.suffix not in (".md", ".cff", ".yml", ".bib", ".py", ".toml", ".js", ".css", ".html", ".svg"):
            continue
        text = wanted = path.read_text(encoding="utf-8")
        for pattern, value in steps:
            wanted = re.sub(pattern, value, wanted)
        if path.parent.name == "notebooks":
            wanted = restamp_chapter(wanted, path.stem, now)
        if path.name == "CITATION.cff":
            wanted = re.sub(r"(?m)^version:.*$", f"version: {version}", wanted)
        if wanted != text:
            yield path, text, wanted


def check(root=ROOT):
    """Return a line for each file that disagrees, and whether the changelog lacks an entry for the version."""
    problems = []
    for path, text, wanted in changed_files(root):
        pairs = zip(text.splitlines(), wanted.splitlines(), strict=False)
        line = next((k for k, (is_so, should) in enumerate(pairs, 1) if is_so != should), 1)
        what = "is not what _config.yml or pyproject.toml says: run `python book/_tools/stamp.py`"
        problems.append(f"{path.relative_to(root)}:{line}: {what}")
    version = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    entries = re.findall(r"(?m)^## \[?v?(\d+\.\d+[\w.]*)", (root / "CHANGELOG.md").read_text(encoding="utf-8"))
    if entries[:1] != [version]:
        problems.append(f"CHANGELOG.md: its newest entry is {entries[:1]}: add `## {version}`, or correct the version")
    return problems


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", nargs="?", choices=["write", "check"], default="write")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository (default: the one this file is in)")
    options = parser.parse_args(arguments)
    if options.action == "check":
        problems = check(options.root)
        print(*problems, f"copies of the address or the version that disagree: {len(problems)}", sep="\n")
        return bool(problems)
    for path, _, wanted in changed_files(options.root):
        path.write_text(wanted, encoding="utf-8")
        print(f"stamped {path.relative_to(options.root)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
