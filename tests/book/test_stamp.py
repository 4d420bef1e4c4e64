"""The repository's address stands in one place; every copy follows, and none is forgotten."""

import re
import sys
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book/_tools"))
import stamp  # noqa: E402

CONFIG = """\
title: A Book
repository:
  url: https://github.com/{owner}/{repo}
  branch: {branch}
html:
  baseurl: https://{owner}.github.io/{repo}/
"""

PROJECT = """\
[project]
version = "1.2.3"
[project.urls]
Book = "https://first.github.io/sigreg/"
Source = "https://github.com/first/sigreg"
Changelog = "https://github.com/first/sigreg/blob/main/CHANGELOG.md"
"""

README = """\
Read https://first.github.io/sigreg/notebooks/01_x.html or `git clone https://github.com/first/sigreg.git`.
[Colab](https://colab.research.google.com/github/first/sigreg/blob/main/notebooks/01_x.ipynb),
[file](https://github.com/first/sigreg/blob/main/README.md), and https://github.com/first/sigreg.
Install with `pip install "git+https://github.com/first/sigreg@main"`.
Fork it as https://github.com/YOU/sigreg. It builds on https://github.com/other/sigreg-tools and
https://github.com/other/thing/blob/main/x; see release https://github.com/first/sigreg/blob/v1.0/README.md.
"""

CHAPTER = """\
*Chapter 1 of [A Book](https://first.github.io/sigreg/) ·
[open in Colab](https://colab.research.google.com/github/first/sigreg/blob/main/notebooks/01_x.ipynb)*

    %pip install --quiet --no-deps "git+https://github.com/first/sigreg@main"
"""


@pytest.fixture
def root(tmp_path):
    """A small book at first/sigreg whose copies all agree."""
    for folder in ("notebooks", "book", "sigreg"):
        (tmp_path / folder).mkdir()
    move_to(tmp_path, "first", "sigreg", "main")
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "README.md").write_text(README)
    (tmp_path / "CITATION.cff").write_text("version: 1.2.3\nurl: https://first.github.io/sigreg/\n")
    (tmp_path / "book/use.md").write_text("See https://github.com/first/sigreg/tree/main/sigreg.\n")
    (tmp_path / "sigreg/x.py").write_text('"""Ask at https://github.com/first/sigreg/issues."""\n')
    (tmp_path / "notebooks/01_x.md").write_text(CHAPTER)
    assert check(tmp_path) == 0
    return tmp_path


def check(root):
    return stamp.main(["check", "--root", str(root)])


def move_to(root, owner, repo, branch):
    (root / "_config.yml").write_text(CONFIG.format(owner=owner, repo=repo, branch=branch))


def texts(root):
    return {path: path.read_text() for path in root.rglob("*.*")}


@pytest.mark.parametrize("place", [("second", "sigreg", "main"), ("first", "sigreg-two", "trunk"), ("a", "b", "main")])
def test_a_move_reaches_every_copy_and_back_again(root, place, capsys):
    before = texts(root)
    move_to(root, *place)
    assert check(root) == 1
    problems = capsys.readouterr().out
    for named in ("README.md:1", "CITATION.cff:2", "book/use.md:1", "sigreg/x.py:1", "pyproject.toml:4", "01_x.md:1"):
        assert f"{named}: is not what _config.yml says" in problems
    for _ in range(2):
        assert stamp.main(["--root", str(root)]) == 0
        assert check(root) == 0
    move_to(root, "first", "sigreg", "main")
    stamp.main(["--root", str(root)])
    assert texts(root) == before


def test_what_a_move_writes(root):
    move_to(root, "second", "normal", "trunk")
    stamp.main(["--root", str(root)])
    moved = README.replace("first.github.io/sigreg", "second.github.io/normal")
    moved = moved.replace("first/sigreg", "second/normal").replace("@main", "@trunk")
    moved = moved.replace("normal/blob/main", "normal/blob/trunk")
    assert (root / "README.md").read_text() == moved
    assert moved.count("second") == 7 and "YOU/sigreg" in moved and "other/thing/blob/main" in moved
    chapter = (root / "notebooks/01_x.md").read_text()
    assert '%pip install --quiet --no-deps "git+https://github.com/second/normal@trunk"' in chapter
    assert "https://colab.research.google.com/github/second/normal/blob/trunk/notebooks/01_x.ipynb" in chapter


def test_an_address_of_another_owner_that_a_merge_brought_in_is_found(root, capsys):
    (root / "book/use.md").write_text("fine\nSee https://github.com/someone-else/sigreg/issues.\n")
    assert check(root) == 1
    assert capsys.readouterr().out.startswith("book/use.md:2: ")


def test_the_version_stands_in_three_places():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    newest = re.search(r"(?m)^## \[?v?(\d+\.\d+[\w.]*)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert newest and newest[1] == version


def test_an_address_that_colab_cannot_open_is_refused(root):
    config = root / "_config.yml"
    config.write_text(config.read_text().replace("https://github.com/first/sigreg", "https://example.org/sigreg"))
    with pytest.raises(SystemExit, match=r"repository.url is 'https://example.org/sigreg'"):
        check(root)
