"""The measures of a page: a page that keeps every limit passes, and each fault is found in Chromium."""

import importlib.util
import sys
from pathlib import Path

import pytest

pytest.importorskip("playwright")

TOOLS = Path(__file__).resolve().parents[2] / "book" / "_tools"
sys.path.insert(0, str(TOOLS))
spec = importlib.util.spec_from_file_location("book_measure", TOOLS / "measure.py")
measure = importlib.util.module_from_spec(spec)
spec.loader.exec_module(measure)
sys.path.remove(str(TOOLS))

CHROMIUM = measure.browser.chromium()
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

PAGE = """<!DOCTYPE html><html lang="en"><head><title>Page</title><link rel="icon" href="data:,"></head><body><article>
<p>Of 3 runs 2 held, by Proposition 4.2 and Figure 1.3 (2020).</p>
<figure><svg class="figure" width="300" height="200"></svg><figcaption><p>A caption.</p></figcaption></figure>
<span class="inked" data-letters="9.00"><img width="600" height="300" style="width: 450px; height: 225px" alt="A curve"
src="data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg'/%3E"></span>
<div class="cell_input"><pre>x = 1</pre></div>
<div class="statement verdict"><p class="statement-title">P1</p><p>Short.</p></div>
<p style="height: 800px">Text.</p></article></body></html>
"""

FAULTS = {
    "height": ("height: 800px", "height: 30000px"),
    "code": ("<pre>x = 1</pre>", "<pre>x = 1</pre><p style='height: 900px'></p>"),
    "screens": ("<figure>", "<p style='height: 1500px'>far</p><figure>"),
    "lines": ("<figure>", "<div class='cell_input'><pre>" + "x\n" * 50 + "</pre></div><figure>"),
    "megabytes": ("</article>", "<img src='heavy.png' alt='heavy'></article>"),
    "requests": ("</article>", "".join(f"<img src='small.png?{k}' alt=''>" for k in range(25)) + "</article>"),
    "contrast": ("<p>A caption", "<p style='color: #888'>A caption"),
    "verdict": ("<p>Short.</p>", "<p>" + "word " * 61 + "</p>"),
    "letters": ("width: 450px; height: 225px", "width: 400px; height: 200px"),
    "numbers": ("Of 3 runs 2 held", "Of 3 runs 2 held, 0.1 ± 0.2, 4% and 7 more"),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The measures of the sound page and of one page for each fault."""
    root = tmp_path_factory.mktemp("site")
    (root / "notebooks").mkdir()
    (root / "notebooks/sound.html").write_text(PAGE)
    (root / "notebooks/heavy.png").write_bytes(bytes(1_600_000))
    (root / "notebooks/small.png").write_bytes(b"x")
    for name, (old, new) in FAULTS.items():
        assert old in PAGE
        (root / f"notebooks/{name}.html").write_text(PAGE.replace(old, new, 1))
    return measure.measured(root, CHROMIUM)


@needs_chromium
def test_a_sound_page_keeps_every_limit(found):
    assert measure.problems("notebooks/sound.html", found["notebooks/sound.html"]) == []
    assert found["notebooks/sound.html"]["numbers"] == 2  # those of Proposition 4.2 and of the year do not count


@needs_chromium
@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_found(found, name):
    lines = measure.problems(f"notebooks/{name}.html", found[f"notebooks/{name}.html"])
    assert [line for line in lines if f": {name} is" in line], lines


@needs_chromium
def test_a_page_may_have_a_limit_of_its_own(found, monkeypatch):
    page = found["notebooks/height.html"]
    monkeypatch.setattr(measure, "OWN", {"notebooks/height.html": {"height": page["height"]}})
    assert measure.problems("notebooks/height.html", page) == []
    monkeypatch.setattr(measure, "OWN", {"notebooks/height.html": {"height": page["height"] - 1}})
    assert measure.problems("notebooks/height.html", page)


@needs_chromium
def test_the_answer_of_a_live_figure_waits_for_what_blocks_the_page(tmp_path):
    figure = '<div class="live"><input type="checkbox" id="box"><output id="said">0</output></div>'
    script = 'box.onchange = () => { said.textContent = "1"; };'
    wait = "const end = performance.now() + 400; while (performance.now() < end);"
    (tmp_path / "quick.html").write_text(f"<body>{figure}<script>{script}</script></body>")
    (tmp_path / "slow.html").write_text(f"<body>{figure}<script>{wait} {script}</script></body>")
    with measure.browser.serve(tmp_path) as home, measure.browser.opened(CHROMIUM) as chrome:
        quick, slow = (measure.answers(chrome, f"{home}/{name}.html") for name in ("quick", "slow"))
    assert slow["answer"] > max(0.4, quick["answer"]) and slow["longest"] > 0.3 and slow["blocked"] > 0.25
