"""Copy the repository's address and the version from where each stands once to wherever else it is needed.

The address stands in `_config.yml` (`repository.url`, `repository.branch`, `html.baseurl`; the book's `title` goes with
it), the version in `pyproject.toml`.

    python book/_tools/stamp.py          write both into every file that shows them
    python book/_tools/stamp.py check    change nothing; list the copies that disagree (exit status 1 if there are any)

To move the book to another address: edit `_config.yml`, run this, then `python book/_tools/pairs.py run`, which carries
the change into the notebooks without executing them again. The former address need not be told: `pyproject.toml`, which
is stamped last, still has it.
"""

import argparse
import difflib
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import tomllib
import yaml

ROOT = Path(__file__).resolve().parents[2]

# Where the address may stand. The notebooks themselves are missing on purpose: pairs.py writes them from the .md.
FILES = (
    "*.md",
    "*.cff",
    "Makefile",
    "requirements.in",
    ".ci/*",
    "book/*.md",
    "book/*.yml",
    "book/*.bib",
    "book/_ext/*.py",
    "book/_static/*.*",
    "benchmarks/*.py",
    "sigreg/**/*.py",
    "notebooks/*.md",
    "pyproject.toml",  # last: it remembers the former address until all else is done
)

SETUP_CELL = """\
# Does nothing where sigreg is installed; in Colab it adds this one package and touches nothing else.
import importlib.util

if importlib.util.find_spec("sigreg") is None:
    %pip install --quiet --no-deps "git+{url}@{branch}"

import sigreg.lab.notebook

sigreg.lab.notebook.start()"""

HEAD_LINE = "*Chapter {number} of [{title}]({book}) · [open in Colab]({colab}/notebooks/{stem}.ipynb)*"


@dataclass(frozen=True)
class Address:
    """Where the book lives: `url` of the repository and its `branch`, `book` on the web, `title` of the book."""

    url: str
    branch: str
    book: str
    title: str

    def __post_init__(self):
        if not re.fullmatch(r"https://github\.com/[\w-]+/[\w.-]+", self.url):
            raise SystemExit(
                f"_config.yml: repository.url is {self.url!r}: it must read https://github.com/OWNER/REPOSITORY, "
                "because Colab opens notebooks from there"
            )

    @property
    def slug(self):
        return self.url.removeprefix("https://github.com/")

    @property
    def repo(self):
        return self.slug.split("/")[1]

    @property
    def colab(self):
        return f"https://colab.research.google.com/github/{self.slug}/blob/{self.branch}"


def present_address(root=ROOT):
    """The address in `_config.yml`."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    repository = config["repository"]
    book = config["html"]["baseurl"].rstrip("/") + "/"
    return Address(repository["url"].rstrip("/"), repository["branch"], book, config["title"])


def former_address(root=ROOT):
    """The address that was stamped last, as `pyproject.toml` has it under `[project.urls]`."""
    urls = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
    branch = re.search(r"/blob/([^/]+)/", urls.get("Changelog", ""))
    now = present_address(root)
    book = urls["Book"].rstrip("/") + "/"
    return Address(urls["Source"].rstrip("/"), branch[1] if branch else now.branch, book, now.title)


def setup_cell(address):
    """The first code cell of every chapter."""
    return SETUP_CELL.format(url=address.url, branch=address.branch)


def head_line(address, stem):
    """The line under the title of the chapter `notebooks/<stem>.md`."""
    number = int(stem.split("_")[0])
    return HEAD_LINE.format(number=number, title=address.title, book=address.book, colab=address.colab, stem=stem)


def restamp(text, former, now):
    """Return `text` with every copy of the address replaced by the present one.

    Recognised whoever the owner is (so that text merged from before a move is found too): links to github.com, its raw
    host and Colab, `git+https` installs, and OWNER.github.io. An owner in capitals, as in github.com/YOU/sigreg, is a
    placeholder and stays. All is done in one pass: a replacement is never replaced again.
    """
    repo = "(?:" + "|".join(sorted({re.escape(former.repo), re.escape(now.repo)}, key=len, reverse=True)) + ")"
    branch = "(?:" + "|".join(sorted({re.escape(former.branch), re.escape(now.branch)}, key=len, reverse=True)) + ")"
    pattern = re.compile(
        rf"(?P<former_book>{re.escape(former.book.rstrip('/'))}(?![\w-]))"
        rf"|https://(?P<pages_owner>[\w-]+)\.github\.io/{repo}(?![\w-])"
        rf"|https://(?P<host>github\.com/|raw\.githubusercontent\.com/|colab\.research\.google\.com/github/)"
        rf"(?P<owner>[\w-]+)/{repo}(?![\w-])(?:(?P<to_branch>/(?:(?:blob|tree|edit|raw)/)?|@){branch}(?![\w.-]))?"
        rf"|(?P<slug>(?<![\w./-]){re.escape(former.slug)}(?![\w-]))"
    )

    def present(match):
        owner = match["owner"] or match["pages_owner"] or ""
        if owner.isupper():
            return match[0]
        if match["former_book"] or match["pages_owner"]:
            return now.book.rstrip("/")
        if match["slug"]:
            return now.slug
        return f"https://{match['host']}{now.slug}" + (match["to_branch"] + now.branch if match["to_branch"] else "")

    return pattern.sub(present, text)


def restamp_chapter(text, stem, now):
    """Return the chapter's `text` with its setup cell and its line of links as the templates above have them."""
    cell = re.search(r"(?ms)^```\{code-cell\}[^\n]*\n(?:(?::[^\n]*|---\n.*?^---)\n+)*(?P<code>.*?)\n```$", text)
    if cell and 'find_spec("sigreg")' in cell["code"]:
        text = text[: cell.start("code")] + setup_cell(now) + text[cell.end("code") :]
    if re.match(r"\d+_", stem):
        text = re.sub(r"(?m)^([*_])Chapter \d+ of \[.*\1$", lambda _: head_line(now, stem), text, count=1)
    return text


def package_version(root=ROOT):
    """Return the version in `pyproject.toml`."""
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def changed_files(root=ROOT):
    """Yield `(path, text, wanted)` for each file whose text is not what it should be, `pyproject.toml` last."""
    now, former = present_address(root), former_address(root)
    for path in dict.fromkeys(path for pattern in FILES for path in sorted(root.glob(pattern)) if path.is_file()):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture
        wanted = restamp(text, former, now)
        if path.parent.name == "notebooks":
            wanted = restamp_chapter(wanted, path.stem, now)
        if path.name == "CITATION.cff":
            wanted = re.sub(r"(?m)^version:.*$", f"version: {package_version(root)}", wanted)
        if wanted != text:
            yield path, text, wanted


def check(root=ROOT):
    """Return the copies that disagree, a line each, and whether the changelog has an entry for this version."""
    problems = []
    for path, text, wanted in changed_files(root):
        lines = text.splitlines()
        for kind, start, *_ in difflib.SequenceMatcher(None, lines, wanted.splitlines(), autojunk=False).get_opcodes():
            if kind != "equal":
                shown = lines[start].strip()[:90] if start < len(lines) else ""
                what = f"{shown!r} is not what _config.yml or pyproject.toml says"
                problems.append(f"{path.relative_to(root)}:{start + 1}: {what}: run `python book/_tools/stamp.py`")
    version, changelog = package_version(root), root / "CHANGELOG.md"
    if changelog.exists():
        entries = re.findall(r"(?m)^## \[?v?(\d+\.\d+[\w.]*)", changelog.read_text(encoding="utf-8"))
        if entries[:1] != [version]:
            what = f"its newest entry is {entries[0] if entries else 'missing'}, but pyproject.toml has {version}"
            problems.append(f"CHANGELOG.md: {what}: add `## {version}` and what changed, or correct the version")
    return problems


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", nargs="?", choices=["write", "check"], default="write", help="default: write")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository (default: the one this file is in)")
    options = parser.parse_args(arguments)
    if options.action == "check":
        problems = check(options.root)
        print(*problems, f"{present_address(options.root).url}: {len(problems)} copies disagree", sep="\n")
        return bool(problems)
    for path, _, wanted in changed_files(options.root):
        path.write_text(wanted, encoding="utf-8")
        print(f"stamped {path.relative_to(options.root)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
