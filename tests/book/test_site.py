"""The checks of the built pages: a small sound site passes, and every way of breaking it is caught."""

import importlib.util
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "book" / "_tools" / "site.py"
spec = importlib.util.spec_from_file_location("book_site", TOOL)
site = importlib.util.module_from_spec(spec)
spec.loader.exec_module(site)

PAGE = """<!DOCTYPE html>
<html><head><title>One</title>
<link rel="stylesheet" href="_static/style.css?digest=1">
<link rel="canonical" href="https://example.org/one.html">
<meta property="og:image" content="https://example.org/_static/card.png">
<script src="_static/script.js"></script></head>
<body><a href="index.html"><img class="logo__image" src="_static/logo.svg" alt="">Book</a>
<article><h1 id="one">One</h1>
<p>Text with <span class="math">\\(x^2\\)</span> and <code>$HOME **bold** {role}`x`</code>, for 5 % of readers.</p>
<p><a href="two.html#second">Two</a> <a href="#one">here</a> <a href="https://example.org/">out</a></p>
<figure><img src="_images/curve.png" alt="A curve that rises and levels off"></figure>
<div style="background: url(data:image/png;base64,AAAA)"></div>
<dl><dt class="sig">f(<em>**kwargs</em>)</dt><dd><strong>**kwargs</strong> pass on</dd></dl>
</article><p class="provenance">Release 1.0 · commit <a href="https://example.org/c">abc</a></p></body></html>
"""
FILES = {
    "one.html": PAGE,
    "two.html": '<html><head><meta property="og:image" content="https://example.org/_static/card.png"></head><body>'
    '<article><h2 id="second">Two</h2></article><p class="provenance">Release 1.0</p></body></html>',
    "index.html": '<meta http-equiv="Refresh" content="0; url=one.html" />',
    "_static/style.css": "/* @import 'http://old.example' */ @font-face { src: url('font.woff2') }",
    "_static/script.js": "// see https://example.org\n",
    "_static/logo.svg": "<svg/>",
    "_static/font.woff2": "font",
    "_static/card.png": "card",
    "_static/theme-macros.html": "<p>$ not a page of the book</p>",
    "_images/curve.png": "picture",
}


@pytest.fixture
def tree(tmp_path):
    def write(**changed):
        for name, text in {**FILES, **changed}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def test_a_sound_site_has_no_problem(tree):
    assert site.check(tree()) == []


ARTICLE = "</article>"


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ('<script src="https://cdn.example/x.js"></script>', "one.html:14: loads from another host"),
        ('<script src="//cdn.example/x.js"></script>', "loads from another host: //cdn.example/x.js"),
        ('<link rel="preconnect" href="https://fonts.example">', "loads from another host"),
        ('<link rel="shortcut icon" href="https://cdn.example/i.ico">', "loads from another host"),
        ('<iframe src="https://video.example"></iframe>', "loads from another host"),
        ('<video poster="https://video.example/p.png"></video>', "loads from another host"),
        ('<svg><use xlink:href="https://cdn.example/s.svg#a"/></svg>', "loads from another host"),
        ('<img alt="A curve that falls" srcset="_images/curve.png 1x, https://cdn.example/2.png 2x">', "loads"),
        ("<style>@import url('https://fonts.example/f.css');</style>", "loads from another host"),
        ('<p style="background: url(//cdn.example/p.png)">x</p>', "loads from another host"),
        ('<script src="_static/gone.js"></script>', "loads a file that does not exist: _static/gone.js"),
        ('<a href="three.html">x</a>', "link to a page that does not exist: three.html"),
        ('<a href="two.html#third">x</a>', "link to an anchor that does not exist: two.html#third"),
        ('<a href="#gone">x</a>', "link to an anchor that does not exist: #gone"),
        ('<form action="gone.html"></form>', "link to a page that does not exist: gone.html"),
        ('<img src="_images/curve.png">', "picture without a description"),
        ('<img src="_images/curve.png" alt=" ">', "picture without a description"),
        ('<img src="_images/curve.png" alt="../_images/d2dc545311d8f246.png">', "description says nothing"),
        ('<img src="_images/curve.png" alt="a curve">', "description says nothing"),
        ("<p>Let $x$ be</p>", "TeX was not rendered"),
        ("<p>Let \\(x\\) be</p>", "TeX was not rendered"),
        ("<p>the sum \\frac{1}{2}</p>", "TeX was not rendered"),
        ("<p>see {numref}`fig-x`</p>", "a MyST role or directive was not rendered"),
        ("<p>```{note}</p>", "a MyST role or directive was not rendered"),
        ("<p>a **bold** word</p>", "Markdown was not rendered"),
        ("<p>a [link](there.md)</p>", "Markdown was not rendered"),
        ("<p>&lt;details&gt;</p>", "HTML was not rendered"),
        ('<p id="one">x</p>', 'the id "one" is used 2 times'),
    ],
)
def test_each_defect_is_caught_once(tree, added, message):
    problems = site.check(tree(**{"one.html": PAGE.replace(ARTICLE, added + ARTICLE)}))
    assert len(problems) == 1, problems
    assert message in problems[0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Release 1.0", "", "one.html: the foot does not say which release this is"),
        ('class="provenance"', "", "one.html: the foot does not say which release this is"),
        ("og:image", "og:title", "one.html: no og:image with an absolute address"),
        ("https://example.org/_static/card.png", "_static/card.png", "no og:image with an absolute address"),
        ("card.png", "gone.png", "og:image is a file that does not exist: https://example.org/_static/gone.png"),
    ],
)
def test_a_page_says_where_it_is_from(tree, old, new, message):
    assert old in PAGE
    problems = site.check(tree(**{"one.html": PAGE.replace(old, new)}))
    assert len(problems) == 1 and message in problems[0], problems


COLAB = "https://colab.research.google.com/github/a/b/blob/main/notebooks/01_x.ipynb"
WAYS = f'<a href="{COLAB}">button</a><a href="{COLAB}">line</a><a href="../_sources/notebooks/01_x.ipynb">download</a>'
SOURCE = {"_sources/notebooks/01_x.ipynb": '{"cells": [{"outputs": []}]}'}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (f'<a href="{COLAB}">button</a>', "", "that open this chapter in Colab"),
        ("01_x.ipynb", "02_y.ipynb", "that open this chapter in Colab"),
        ("blob/main", "tree/main", "that open this chapter in Colab"),
        (f'{COLAB}">line', f'{COLAB.replace("main", "old")}">line', "that open this chapter in Colab"),
        ('<a href="../_sources/notebooks/01_x.ipynb">download</a>', "", "no button to download"),
    ],
)
def test_a_chapter_opens_in_colab_and_can_be_downloaded(tree, old, new, message):
    chapter = FILES["two.html"].replace("Release 1.0", "Release 1.0 · outputs: CPU").replace(ARTICLE, WAYS + ARTICLE)
    assert site.check(tree(**SOURCE, **{"notebooks/01_x.html": chapter})) == []
    problems = site.check(tree(**SOURCE, **{"notebooks/01_x.html": chapter.replace(old, new)}))
    assert any(message in problem for problem in problems)


def test_a_chapter_says_what_its_outputs_were_made_on(tree):
    chapter = re.sub(r'(href|src)="(?=[_it])', r'\1="../', PAGE).replace(ARTICLE, WAYS + ARTICLE)
    complete = chapter.replace("abc</a>", "abc</a> · outputs: default preset")
    assert site.check(tree(**SOURCE, **{"notebooks/01_x.html": complete})) == []
    problems = site.check(tree(**SOURCE, **{"notebooks/01_x.html": chapter}))
    assert problems == ["notebooks/01_x.html: the foot does not say what the outputs were made on"]


def test_style_sheets_may_not_load_from_elsewhere(tree):
    problems = site.check(tree(**{"_static/style.css": '@import "https://fonts.example/f.css";'}))
    assert problems == ["_static/style.css: loads from another host: https://fonts.example/f.css"]


def test_a_redirect_must_lead_somewhere(tree):
    problems = site.check(tree(**{"index.html": '<meta http-equiv="Refresh" content="0; url=gone.html" />'}))
    assert any("index.html:1: link to a page that does not exist: gone.html" in line for line in problems)


def test_an_empty_folder_is_not_a_site(tmp_path):
    assert site.check(tmp_path) == [f"{tmp_path}: no page found; build the book first"]


def weigh(root):
    return site.weight(root, "one.html", site.Page(root / "one.html"))


def test_a_page_weighs_what_it_loads(tree):
    root = tree()
    light = weigh(root)
    assert light > len(PAGE) + len("picture")
    (root / "_images/curve.png").write_bytes(bytes(4_100_000))
    assert weigh(root) == light + 4_100_000 - len("picture")
    assert [line for line in site.check(root) if line.startswith("one.html: weighs 4.10 MB")]


def test_mathjax_is_not_weighed(tree):
    heavier = PAGE.replace("</head>", '<script src="_static/mathjax/tex.js"></script></head>')
    root = tree(**{"one.html": heavier, "_static/mathjax/tex.js": "x" * 100})
    assert any("mathjax" in address for _, address in site.Page(root / "one.html").loads)
    before = weigh(root)
    (root / "_static/mathjax/tex.js").write_bytes(bytes(50_000))
    assert weigh(root) == before


def load(name):
    spec = importlib.util.spec_from_file_location(name, TOOL.parents[1] / "_ext" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_foot_of_a_chapter_names_what_it_ran_on(tmp_path):
    provenance, path = load("provenance"), tmp_path / "01_x.ipynb"
    printed = "sigreg 0.1.0 · Python 3.13.1 · torch 2.15.0+cu132 · device cuda · preset full\n"
    for text in (printed, [printed]):  # a notebook holds a text whole, or line by line
        cells = [{"cell_type": "markdown"}, {"outputs": [{"text": "x"}, {"text": text}]}]
        path.write_text(json.dumps({"cells": cells}))
        assert provenance.results(path) == "outputs: full preset, CUDA, Python 3.13.1, torch 2.15.0"
    path.write_text(json.dumps({"cells": cells[:1]}))
    assert provenance.results(path) == "" and provenance.results(tmp_path / "page.md") == ""


def test_the_foot_of_a_page_names_release_commit_and_date(tmp_path):
    provenance = load("provenance")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "1.2.3"\n')
    # No git: the release alone, and nothing that depends on the machine or the day.
    assert provenance.line(tmp_path, "https://example.org/r") == '<p class="provenance">Release 1.2.3</p>'
    identity = {
        "GIT_AUTHOR_NAME": "A",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "A",
        "GIT_COMMITTER_EMAIL": "a@b",
    }
    when = {"GIT_AUTHOR_DATE": "2026-03-04T12:00:00Z", "GIT_COMMITTER_DATE": "2026-03-04T12:00:00Z"}
    environment = {**os.environ, **identity, **when}
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run(["git", *command], cwd=tmp_path, env=environment, check=True)
    found = provenance.line(tmp_path, "https://example.org/r")
    assert re.search(r'commit <a href="https://example.org/r/commit/[0-9a-f]{40}">[0-9a-f]{10}</a> · 2026-03-04', found)
