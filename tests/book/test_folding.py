"""What folds: a small notebook is built, and its cells and proofs are looked at."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("myst_nb")

from docutils import nodes
from docutils.utils import new_document
from sphinx.addnodes import desc, desc_signature
from sphinx.testing.util import SphinxTestApp

EXTENSIONS = Path(__file__).resolve().parents[2] / "book" / "_ext"
spec = importlib.util.spec_from_file_location("book_folding", EXTENSIONS / "folding.py")
folding = importlib.util.module_from_spec(spec)
spec.loader.exec_module(folding)

LONG = "It is so because " + "of this and that and " * 20 + "so on. $\\square$"


@pytest.mark.parametrize(
    ("source", "tags", "shown"),
    [
        ("def mean(x):\n    return x.sum() / len(x)", (), True),
        ("def mean(x):\n    return x.sum() / len(x)", ("hide-input",), False),
        ("class Loss:\n    pass", (), True),
        ("x = mean(y)\nassert x > 0", (), False),
        ("x = mean(y)", ("show-input",), True),
        ('say(f"The mean is {mean(x)}.")', (), False),
        ("def frame(k):\n    figure, ax = plt.subplots()\n    return figure", (), False),
        ("%pip install sigreg\nimport torch", (), False),
    ],
)
def test_a_cell_that_is_a_method_shows(source, tags, shown):
    assert folding.is_method(source, tags) is shown


def page(tmp_path, monkeypatch, text, cells):
    monkeypatch.syspath_prepend(str(EXTENSIONS))
    source = tmp_path / "source"
    (source / "notebooks").mkdir(parents=True, exist_ok=True)
    (source / "index.md").write_text("# Book\n\n```{toctree}\nnotebooks/01_one\n```\n")
    out = [{"output_type": "stream", "name": "stdout", "text": "what it printed"}]
    code = [
        {
            "cell_type": "code",
            "source": cell,
            "outputs": out,
            "metadata": {"tags": tags},
            "id": f"c{k}",
            "execution_count": k,
        }
        for k, (cell, tags) in enumerate(cells, 1)
    ]
    head = {
        "cell_type": "markdown",
        "source": "# 1. One\n\n*Chapter 1 of a book*\n\n" + text,
        "metadata": {},
        "id": "t",
    }
    language = {"language_info": {"name": "python", "pygments_lexer": "python"}}
    notebook = {"cells": [head, *code], "metadata": language, "nbformat": 4, "nbformat_minor": 5}
    (source / "notebooks/01_one.ipynb").write_text(json.dumps(notebook))
    (source / "conf.py").write_text(
        "extensions = ['myst_nb', 'folding', 'statements']\nnb_execution_mode = 'off'\n"
        "source_suffix = {'.md': 'myst-nb', '.ipynb': 'myst-nb'}\nmyst_enable_extensions = ['dollarmath']\n"
        f"html_static_path = [{str(EXTENSIONS.parent / '_static')!r}]\n"
    )
    app = SphinxTestApp("html", srcdir=source, builddir=tmp_path / "build")
    try:
        app.build()
        assert "WARNING" not in app.warning.getvalue()
        return (Path(app.outdir) / "notebooks/01_one.html").read_text()
    finally:
        app.cleanup()
        sys.modules.pop("folding", None), sys.modules.pop("statements", None)


def test_inputs_fold_and_outputs_stay(tmp_path, monkeypatch):
    cells = [
        ("x = 1\nsigreg.lab.notebook.start()", []),
        ("def f(x):\n    return x\n\n\n", []),
        ("f(2)", []),
        ("f(3)", ["hide-cell"]),
    ]
    html = page(tmp_path, monkeypatch, "Text.", cells)
    assert html.count('<details class="plumbing">') == 2 and html.count("<summary>Set-up</summary>") == 1
    outside = re.sub(r'<details class="plumbing">.*?</details>', "", html, flags=re.DOTALL)
    assert outside.count("what it printed") == 3  # all but that of the set-up
    assert re.search(r'class="n">x</span>\n</pre>', html)  # in colours, and without the empty lines at the end
    assert html.index("code-switch") > html.index("of a book") and "code.js" in html


def test_long_proofs_fold_and_short_ones_stand(tmp_path, monkeypatch):
    text = (
        f"> **Lemma 1.1.** So.\n\n*Proof.* Clear. $\\square$\n\n> **Lemma 1.2.** So.\n\n*Proof.* {LONG}\n\nThen more."
    )
    html = page(tmp_path, monkeypatch, text, [("x = 1", [])])
    assert html.count('<details class="fold proof">') == 1
    assert html.count("<em>Proof.</em>") == 1  # the short one, as it was written
    inside = html.split('<details class="fold proof">')[1].split("</details>")[0]
    assert "It is so because" in inside and "<em>Proof" not in inside and "Then more" not in inside


def test_what_is_for_a_second_reading_folds_and_so_do_references(tmp_path, monkeypatch):
    text = (
        "## 1.1 Deep\n\nFirst.\n\n*For a second reading.*\n\nHidden.\n\n### Within\n\nToo.\n\n"
        "## 1.2 Next\n\nShown.\n\n## References\n\n* One.\n* Two.\n"
    )
    html = page(tmp_path, monkeypatch, text, [])
    before, deep = html.split('<details class="fold deep"><summary>For a second reading</summary>')
    inside, rest = deep.split("</details>", 1)
    assert "First." in before and "Hidden." in inside and "Too." in inside and "Shown." in rest
    assert '<details class="fold works"><summary>2 works</summary>' in rest


def test_the_figure_of_in_short_stands_under_it(tmp_path, monkeypatch):
    figure = "```{figure} a.png\n:name: fig-curve\n:alt: a curve\n\nA curve.\n```"
    text = f"> **In short.** It works. [The curve.](#fig-curve)\n\n{figure}"
    (tmp_path / "source/notebooks").mkdir(parents=True)
    (tmp_path / "source/notebooks/a.png").write_bytes(b"\x89PNG")
    html = page(tmp_path, monkeypatch, text, [("x = 1", [])])
    small, rest = html.split('<figure class="in-short">')[1].split("</figure>", 1)
    assert 'alt="a curve"' in small and 'href="#fig-curve"' in small and "The curve." in small
    assert html.index("It works.") < html.index('class="in-short"') and 'id="fig-curve"' in rest


def test_modules_fold_under_the_names_they_offer():
    def offered(name):
        return desc("", desc_signature("", "", ids=[f"sigreg.lab.data.{name}"]))

    document = new_document("api_lab")
    title, first, second = nodes.title("", "data"), nodes.paragraph("", "Where data are."), nodes.paragraph("", "More.")
    document += nodes.section("", title, first, second, offered("fetch"), offered("verify"))
    document += nodes.section("", nodes.title("", "Without names"), nodes.paragraph("", "Stays."))
    folding.fold_modules(document)
    shown, opening, *inside, closing = document[0].children[1:]
    assert shown is first and "<code>fetch</code>, <code>verify</code>" in opening.astext()
    assert inside[0] is second and len(inside) == 3 and closing.astext() == "</details>"
    assert len(document[1]) == 2
