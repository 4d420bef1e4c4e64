"""Statements: a tiny book is built, and its boxes, links and mistakes are looked at."""

import json
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("sphinx")
pytest.importorskip("myst_parser")

from sphinx.testing.util import SphinxTestApp

EXTENSIONS = Path(__file__).resolve().parents[2] / "book" / "_ext"

FIRST = r"""# 1. First

> **Before you start.** *You need:* patience. *Time:* a minute.

See Proposition 1.2 and Chapter 2; Chapter 9 is not written, and
$$ c = d $$
is displayed. `Theorem 7.7` is code,
[Theorem 3.1 of another book](https://example.org) a link.

> **Definition 1.1 (Code, with $\beta$).** A map $w$.

> **Proposition 1.2 (Radial nuisance).** By Definition
> 1.1 and Theorem 2.1.
>
> $$ a = b $$

<details>
<summary>Proof</summary>

It follows from **Proposition 1.2** that $a = b$. $\square$

</details>

> A plain quotation, and it mentions Proposition 1.2.

> **Exercise 1.1 (Try).** Do it.

<details><summary>Solution</summary>

Done.

</details>

> **Verdict.** P1 holds.
"""

SECOND = """# 2. Second

## About Proposition 1.2

> **Theorem 2.1.** Everything, by Propositions 1.2 and 2.2.

> **Proposition 2.2 (Twin).** Chapters 1-2 agree.
"""


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Build pages {name: text}; return the output folder and the warnings."""
    monkeypatch.syspath_prepend(str(EXTENSIONS))

    def run(pages, parallel=1, extensions=("myst_parser",)):
        source = tmp_path / "source"
        source.mkdir(exist_ok=True)
        names = [name for name in pages if not name.startswith("index")]
        toc = "# Book\n\n```{toctree}\n" + "\n".join(Path(name).stem for name in names) + "\n```\n"
        for name, text in {"index.md": toc, **pages}.items():
            if not (source / name).exists() or (source / name).read_text() != text:
                (source / name).write_text(text)
        notebooks = "myst_nb" in extensions
        suffixes = {".md": "myst-nb", ".ipynb": "myst-nb"} if notebooks else {".md": "markdown"}
        (source / "conf.py").write_text(
            f"extensions = {[*extensions, 'statements']}\nsource_suffix = {suffixes}\n"
            "myst_enable_extensions = ['dollarmath']\nmyst_dmath_double_inline = True\n"
            "numfig = True\nnb_execution_mode = 'off'\nsuppress_warnings = ['myst.header']\n"
        )
        app = SphinxTestApp("html", srcdir=source, builddir=tmp_path / "build", parallel=parallel)
        try:
            app.build()
            return Path(app.outdir), [line for line in app.warning.getvalue().splitlines() if "WARNING" in line]
        finally:
            app.cleanup()

    yield run
    sys.modules.pop("statements", None)


def pair(build, first=FIRST, second=SECOND, **more):
    out, warnings = build({"01_first.md": first, "02_second.md": second, **more})
    return (out / "01_first.html").read_text(), (out / "02_second.html").read_text(), warnings


def test_boxes_anchors_and_titles(build):
    first, second, warnings = pair(build)
    assert warnings == []
    assert '<div class="statement proposition" id="proposition-1-2">' in first
    assert '<div class="statement definition" id="definition-1-1">' in first
    assert '<span class="statement-label">Proposition 1.2</span>' in first
    assert '<span class="statement-name">Radial nuisance</span>' in first
    assert "**" not in first and "Radial nuisance)." not in first
    # A name may hold mathematics; a statement may have no name; other quotations stay quotations.
    assert 'Code, with <span class="math' in first
    assert second.count("statement-name") == 1
    assert first.count("<blockquote>") == 1
    # Every named box can be pointed at.
    assert first.count('href="#proposition-1-2" title="Link to this statement"') == 1


def test_displays_stand_between_paragraphs_not_in_them(build):
    first, _, _ = pair(build)
    before, after = first.split("\\[ c = d \\]")
    assert before.rstrip().endswith('<div class="math notranslate nohighlight">') and "</p>" in before[-80:]
    assert after.split()[:3] == ["</div>", "<p>", "is"]


def test_punctuation_stays_with_its_formula(build):
    first, _, _ = pair(build, first=FIRST.replace("It follows", "The $k$-th of $n$ (or $m$), as $x$ grows. It follows"))
    bound = re.findall(r'<span class="bound"><span class="math[^>]*>\\\((.*?)\\\)</span>(.*?)</span>', first)
    assert {("k", "-th"), ("m", "),"), ("a = b", "."), ("w", ".")} == set(bound)


def test_unnumbered_boxes_have_no_anchor_and_the_opening_box_is_a_list(build):
    first, _, _ = pair(build)
    assert '<div class="statement verdict">' in first
    opening = first[first.index('<div class="statement before-you-start">') :].split("</div>")[0]
    assert "<p><em>You need:</em> patience. </p>" in opening and "<p><em>Time:</em> a minute.</p>" in opening


def test_a_verdict_has_the_class_of_its_outcome(build):
    outcomes = {
        "**P1 is confirmed.**": " confirmed",
        "**P1 is confirmed in a region**, and **P2 is confirmed in a region**": " confirmed-in-a-region",
        "**V3 is not confirmed** at this scale.": " not-confirmed",
        "**P1 is confirmed.** **V3 is not confirmed.**": "",
        "P9: open.": "",
    }
    boxes = "\n\nText.\n\n> **Verdict.** ".join(outcomes)
    first, _, _ = pair(build, first=FIRST.replace("P1 holds.", boxes))
    assert re.findall(r'<div class="statement verdict(.*?)">', first) == list(outcomes.values())


def test_numbers_get_a_minus_sign_and_no_line_breaks_them_or_starts_with_the_end_of_a_proof(build):
    text = "A gain of -0.5 (-0.7 to +0.1) or 0.61 ± 0.02, not 784-64, 2026-11-22, $-1$ or `-1`. It follows"
    first = FIRST.replace("It follows", text).replace("Done.", "The last word. $\\square$")
    page, _, _ = pair(build, first=first)
    nbsp, minus = "\u00a0", "\u2212"
    assert f"{minus}0.5 ({minus}0.7{nbsp}to{nbsp}+0.1) or 0.61{nbsp}±{nbsp}0.02, not 784-64, 2026-11-22, " in page
    assert "\\(-1\\)" in page and '<span class="pre">-1</span>' in page
    end = f'{nbsp}<span class="math notranslate nohighlight">\\(\\square\\)</span></span>'
    assert page.split(end)[0].endswith("</span>.</span>") and f'<span class="bound">word.{end}' in page


def test_folds_are_named_after_their_summary(build):
    first, _, _ = pair(build)
    assert '<details class="fold proof">' in first and '<details class="fold solution">' in first
    proof = first[first.index('<details class="fold proof">') :].split("</details>")[0]
    assert '<span class="math notranslate nohighlight">\\(a = b\\)</span>' in proof


def test_mentions_become_links_with_hover_titles(build):
    first, second, _ = pair(build)
    here = '<a class="reference internal" href="#proposition-1-2" title="Proposition 1.2 (Radial nuisance)">'
    assert first.count(here) == 3  # in the text, in the proof, in the quotation
    assert 'href="02_second.html#theorem-2-1" title="Theorem 2.1"' in first
    assert 'href="02_second.html" title="2. Second"' in first
    # A mention that is broken over two lines of the source is one link.
    assert 'href="#definition-1-1" title="Definition 1.1 (Code, with' in first
    # Plurals: each number leads to its own statement.
    assert ">Propositions\u00a01.2</span></a> and <a" in second and ">2.2</span></a>" in second
    assert 'href="01_first.html" title="1. First"' in second


def test_claims_become_links_where_the_claims_page_has_them(build):
    claims = {"claims.md": "# Claims\n\n(claim-p6)=\n## P6 is this\n\nP6 and P7.\n"}
    first, _, warnings = pair(build, first=FIRST.replace("See Prop", "See **P6**, P7, `P6` and Prop"), **claims)
    assert warnings == []
    assert first.count('href="claims.html#claim-p6" title="Claim P6"') == 1
    assert "P7, <code" in first and "P1 holds" in first  # no such claim: plain text


def test_each_box_is_written_to_a_file_of_its_own(build):
    out, _ = build({"01_first.md": FIRST, "02_second.md": SECOND})
    files = {path.stem: path.read_text() for path in (out / "_static/statements").iterdir()}
    assert files.keys() == {"definition-1-1", "proposition-1-2", "exercise-1-1", "theorem-2-1", "proposition-2-2"}
    page = (out / "01_first.html").read_text()
    assert files["proposition-1-2"].startswith('<div class="statement proposition" id="proposition-1-2">')
    assert "\\[ a = b \\]" in files["proposition-1-2"] and files["proposition-1-2"] in page


def test_what_is_not_running_prose_stays_as_it_is(build):
    first, second, warnings = pair(build)
    assert warnings == []  # neither the code nor the foreign link is taken for a mention of this book's Theorem
    assert "Chapter\u00a09 is not written" in first
    assert "<h2>About Proposition 1.2<" in second
    assert ">Chapters\u00a01</span></a>-2 agree" in second  # a page does not link to itself


def test_search_knows_statements_by_name(build):
    out, _ = build({"01_first.md": FIRST, "02_second.md": SECOND})
    index = json.loads((out / "searchindex.js").read_text().removeprefix("Search.setIndex(").removesuffix(")"))
    found = {f"{prefix}.{entry[4]}": entry[3] for prefix, entries in index["objects"].items() for entry in entries}
    assert found["Proposition 1.2 (Radial nuisance)"] == "proposition-1-2"
    assert found["Theorem 2.1"] == "theorem-2-1" and found["Exercise 1.1 (Try)"] == "exercise-1-1"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("See Proposition 1.2", "See Proposition 1.7", "Proposition 1.7 is mentioned and does not exist"),
        ("See Proposition 1.2", "See Lemma 1.2", "Lemma 1.2 is mentioned and does not exist (1.2 is Pro"),
        ("See Proposition 1.2", "See Exercise 1.2", "Exercise 1.2 is mentioned and does not exist"),
        ("**Exercise 1.1 (Try).**", "**Proposition 1.2 (Try).**", "Proposition 1.2 exists twice"),
        ("**Exercise 1.1 (Try).**", "**Theorem 1.2 (Try).**", "Theorem 1.2 is out of order"),
        ("**Exercise 1.1 (Try).**", "**Lemma 1.5 (Try).**", "out of order: the next number here is 1.3"),
        ("**Exercise 1.1 (Try).**", "**Exercise 1.2 (Try).**", "Exercise 1.2 is out of order"),
        ("**Exercise 1.1 (Try).**", "**Exercise 2.1 (Try).**", "Exercise 2.1 stands in 01_first, which is not Chap"),
        ("**Exercise 1.1 (Try).**", "**Exercise 1.1 Try**", 'write a statement as "**Proposition 1.2 (Name).**"'),
        ("\n\n<details>\n", "\n>\n> **Lemma 1.3.** Swallowed.\n\n<details>\n", "inside the box"),
        ("\n</details>\n\n> A plain", "\n> A plain", "a <details> opens and does not close"),
    ],
)  # fmt: skip
def test_mistakes_fail_the_build(build, old, new, message):
    assert old in FIRST
    _, _, warnings = pair(build, first=FIRST.replace(old, new, 1))
    assert [line for line in warnings if message in line], warnings


def test_the_same_number_on_two_pages_is_found(build):
    _, _, warnings = pair(build, second=SECOND.replace("**Theorem 2.1.**", "**Proposition 1.2.**"))
    assert any("Proposition 1.2 exists twice: here and in 01_first" in line for line in warnings)


def test_incremental_builds_see_changes_on_other_pages(build):
    _, second, _ = pair(build)
    assert "Proposition 1.2 (Radial nuisance)" in second
    _, second, warnings = pair(build, first=FIRST.replace("Radial nuisance", "Angle"))
    assert "Proposition 1.2 (Angle)" in second and warnings == []
    _, _, warnings = pair(build, first=FIRST.replace("**Proposition 1.2 (Radial", "**Lemma 1.2 (Radial"))
    assert any("02_second" in line and "Proposition 1.2 is mentioned" in line for line in warnings)


def test_parallel_reading_gives_the_same_pages(build):
    pages = {"01_first.md": FIRST, "02_second.md": SECOND} | {
        f"{k:02}_more.md": f"# {k}\n\n> **Lemma {k}.1 (Same).** By Theorem 2.1.\n" for k in range(3, 9)
    }
    out, warnings = build(pages, parallel=2)
    assert warnings == []
    assert all('href="02_second.html#theorem-2-1"' in (out / f"{k:02}_more.html").read_text() for k in range(3, 9))
    assert 'id="proposition-1-2"' in (out / "01_first.html").read_text()


def test_notebooks_and_figure_numbers(build):
    pytest.importorskip("myst_nb")
    png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    figure = {"image": {"alt": "one grey pixel"}, "figure": {"caption": "By Lemma 3.1.", "name": "fig-pixel"}}
    image = {"output_type": "display_data", "data": {"image/png": png}, "metadata": {}}
    text = {"output_type": "display_data", "data": {"text/markdown": "So Lemma 3.1 holds."}, "metadata": {}}
    cells = [
        {"cell_type": "markdown", "source": "# 3. Third\n\n> **Lemma 3.1 (Pixel).** Small.", "metadata": {}, "id": "a"},
        {"cell_type": "code", "source": "1", "outputs": [image], "metadata": {"mystnb": figure}, "id": "b"},
        {"cell_type": "code", "source": "2", "outputs": [text], "metadata": {}, "id": "c"},
    ]
    for count, cell in enumerate(cells[1:], start=1):
        cell["execution_count"] = count
    language = {"language_info": {"name": "python", "pygments_lexer": "python"}}
    notebook = {"cells": cells, "metadata": language, "nbformat": 4, "nbformat_minor": 5}
    out, warnings = build({"03_third.ipynb": json.dumps(notebook)}, extensions=("myst_nb",))
    page = (out / "03_third.html").read_text()
    assert warnings == []
    assert 'id="lemma-3-1"' in page
    assert page.count('href="#lemma-3-1" title="Lemma 3.1 (Pixel)"') == 2  # in the caption and in the output
    assert '<span class="caption-number">Fig. 3.1 </span>' in page


LATER = """# 1b. Later

> **Definition 1.3 (Late).** After Proposition 1.2.

## What moved

Text.
"""


def test_a_chapter_of_two_pages_counts_through_and_sends_old_anchors_on(build):
    out, warnings = build({"01_first.md": FIRST, "01b_later.md": LATER, "02_second.md": SECOND})
    assert warnings == []
    first, later = (out / "01_first.html").read_text(), (out / "01b_later.html").read_text()
    places = json.loads(re.search(r"\}\)\((\{.*?\})\);", first)[1])
    assert places["definition-1-3"] == places["what-moved"] == "01b_later.html"
    assert all(f'id="{anchor}"' in later and f'id="{anchor}"' not in first for anchor in places)
    assert "location.replace" not in later and "location.replace" not in (out / "02_second.html").read_text()
    assert 'href="01_first.html"' in (out / "02_second.html").read_text()  # "Chapter 1" is its first page


@pytest.mark.parametrize(
    ("number", "message"),
    [
        ("Definition 1.2", "Definition 1.2 has a number that another page of the chapter uses"),
        ("Definition 1.4", "Definition 1.4 is out of order: the next number here is 1.3"),
        ("Proposition 1.2", "Proposition 1.2 (exists twice|has a number that another page)"),
    ],
)
def test_numbers_are_right_over_the_pages_of_a_chapter(build, number, message):
    pages = {"01_first.md": FIRST, "01b_later.md": LATER.replace("Definition 1.3", number), "02_second.md": SECOND}
    _, warnings = build(pages)
    assert [line for line in warnings if re.search(message, line)], warnings
