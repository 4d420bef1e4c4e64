"""The search's sections: cut out of a page with their own text only, and readable."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("book_sections", ROOT / "book" / "_ext" / "sections.py")
sections = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sections)

PAGE = r"""<html><body><article><section id="one"><h1>1. One<a class="headerlink">#</a></h1><p>Opening.</p>
<section id="inner"><h2>1.1 Inner</h2><p>Here <span class="math">\(\beta \le 2\)</span> holds.</p><pre>code = 1</pre>
<div class="statement lemma" id="lemma-1-1"><p class="statement-title"><span class="statement-label">Lemma 1.1</span>
<span class="statement-name">Small</span><a class="headerlink">#</a></p><p>It is small.</p></div>
<section id="deep"><h3>Deep</h3><p>Further down.</p></section></section>
<div class="claim confirmed" id="claim-p6"><p><strong>P6</strong> <span class="chip confirmed">confirmed</span></p>
<p>It works.</p></div><dl class="glossary"><dt id="term-Code">Code</dt><dd><p>What an encoder says.</p></dd></dl>
</section></article></body></html>"""


@pytest.fixture
def found():
    title, listed = sections.entries(PAGE)
    assert title == "1. One"
    return {anchor: (name, text) for anchor, name, text in listed}


def test_a_section_keeps_its_own_text_only(found):
    assert found["inner"] == ("1.1 Inner", "Here β ≤ 2 holds.")
    assert found["deep"] == ("Deep", "Further down.")
    assert found[""] == ("1. One", "Opening.")


def test_statements_claims_and_terms_are_found_by_name(found):
    assert found["lemma-1-1"] == ("Lemma 1.1 (Small)", "It is small.")
    assert found["claim-p6"] == ("Claim P6: confirmed", "It works.")
    assert found["term-Code"] == ("Code", "What an encoder says.")


def test_a_long_formula_is_left_out_and_a_page_without_text_has_no_entry():
    assert sections.plain(r"\(\frac{1}{N} \sum_n e^{i t x_n} + \mathrm{something}\)") == "…"
    assert sections.entries("<html><body>moved</body></html>") == ("", [])
