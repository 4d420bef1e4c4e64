"""The visit by browser: a small sound page passes, and what a reader would stumble over is found."""

import importlib.util
import sys
from pathlib import Path

import pytest

pytest.importorskip("playwright")
pytest.importorskip("axe_playwright_python")

TOOLS = Path(__file__).resolve().parents[2] / "book" / "_tools"
spec = importlib.util.spec_from_file_location("book_browser", TOOLS / "browser.py")
browser = importlib.util.module_from_spec(spec)
spec.loader.exec_module(browser)

CHROMIUM = browser.chromium()
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

PAGE = """<!DOCTYPE html><html lang="en" data-theme="light"><head><title>Page</title>
<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">
<style>
html[data-theme=dark] body { background: #111; color: #eee; }
html[data-theme=dark] a { color: #9bf; }
body { background: #fff; color: #222; }
</style></head><body><main><article>
<h1>Page</h1> <button class="theme-switch-button">Theme</button>
<p>See <a class="reference internal" href="#lemma-1-1">Lemma 1.1</a> and <a href="#top">the top</a>.</p>
<div class="statement lemma" id="lemma-1-1"><p class="statement-title">Lemma 1.1</p><p>Small.</p></div>
<details><summary>Proof</summary><p>Obvious.</p></details>
<div class="sigreg-player"><figure><canvas></canvas><div class="controls"><button>Play</button>
<input type="range" min="0" max="3" value="0" aria-label="Frame"><output>0</output></div>
<figcaption>It moves.</figcaption></figure></div>
<div class="live"><label>Size <input type="range" min="1" max="3" value="2" aria-label="Size"></label>
<p class="live-says">2</p></div>
<figure><button class="zoom"><img width="40" height="20" alt="A dot" src="data:image/svg+xml,
%3Csvg xmlns='http://www.w3.org/2000/svg' width='400' height='200'/%3E"></button></figure>
</article></main>
<div id="statement-card" hidden></div>
<dialog id="zoom" aria-label="Enlarged"></dialog>
<script>
const d = document.documentElement.dataset, card = document.getElementById('statement-card');
d.theme = localStorage.theme || (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light');
document.querySelector('.theme-switch-button').onclick =
  () => { d.theme = localStorage.theme = d.theme === 'dark' ? 'light' : 'dark'; };
const link = document.querySelector('a');
const show = () => { card.textContent = 'Lemma 1.1 Small.'; card.hidden = false; };
link.onpointerenter = link.onfocus = show;
addEventListener('keydown', event => { if (event.key === 'Escape') card.hidden = true; });
const slider = document.querySelector('input'), shown = document.querySelector('output');
slider.oninput = () => { shown.textContent = slider.value; };
const size = document.querySelector('.live input');
size.oninput = () => { size.closest('.live').querySelector('p').textContent = size.value; };
const zoom = document.querySelector('.zoom'), dialog = document.querySelector('dialog');
zoom.onclick = () => { dialog.innerHTML = `<img alt="" src="${zoom.firstChild.src}">`; dialog.showModal(); };
document.querySelector('.controls button').onclick = () => { slider.value = 1; };
</script></body></html>
"""

DEFECTS = [
    ("</article>", '<div role="button">Do</div></article>', 'the Tab key does not reach <div role="button">'),
    ("</style>", "summary { outline: none !important; }</style>", "the focus does not show on <summary>"),
    ("<p>See", '<p style="color: #bbb">See', "axe, serious: Elements must meet minimum color contrast"),
    ('aria-label="Frame"', "", "axe, critical: Form elements must have labels"),
    ("</article>", '<p style="width: 1500px">x</p></article>', "page is 15"),
    ("</article>", '<img src="gone.png" alt="a picture that is gone"></article>', "picture not loaded: gone.png"),
    ("</article>", '<span class="math">x</span></article>', "mathematics not typeset"),
    ("</script>", "fetch('http://other.invalid/x').catch(() => {});</script>", "asks another host"),
    ("</script>", "throw new Error('broken');</script>", "script error: Error: broken"),
    ("</script>", "document.querySelector('summary').onclick = e => e.preventDefault();</script>", "a folded block"),
    ("slider.oninput = ", "const unused = ", "a player does not move with its slider"),
    ("size.oninput = ", "const idle = ", "a control of a live figure does nothing: Size"),
    ("slider.value = 1", "slider.title = 1", "a player does not play"),
    ("card.hidden = false", "card.title = ''", "Lemma 1.1 shows no card under the pointer"),
    ("card.textContent = 'Lemma 1.1 Small.'", "card.textContent = 'Other'", "the card of Lemma 1.1 is wrong"),
    ("card.hidden = true", "card.title = ''", "Escape does not close the card of Lemma 1.1"),
    ("d.theme = localStorage.theme = d.theme", "d.theme = d.theme", "does not outlast a reload"),
    ("</article>", '<figure><img alt="Small" src="data:,"></figure></article>', "a figure cannot be enlarged: Small"),
    ("dialog.showModal()", "dialog.title = ''", "a figure is not enlarged by the key"),
    ("dialog.showModal();", "dialog.showModal(); dialog.oncancel = () => false;", "Escape does not lead back"),
]


def site(folder, page):
    folder.mkdir()
    (folder / "page.html").write_text(page)
    return folder


@needs_chromium
def test_a_sound_page_has_no_problem(tmp_path):
    assert browser.check(site(tmp_path / "site", PAGE), CHROMIUM) == []


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The problems of a few pages that share out the defects, so that the browser need not start for each."""
    problems = {}
    folder = tmp_path_factory.mktemp("broken")
    groups = [range(0, 9), [9, 10, 11, 13], [12, 14], [15, 16], [17, 18], [19]]  # defects that do not hide each other
    for number, group in enumerate(groups):
        page = PAGE
        for k in group:
            old, new, _ = DEFECTS[k]
            assert old in page
            page = page.replace(old, new, 1)
        problems.update(dict.fromkeys(group, browser.check(site(folder / str(number), page), CHROMIUM)))
    return problems


@needs_chromium
@pytest.mark.parametrize("k", range(len(DEFECTS)), ids=[defect[2][:30] for defect in DEFECTS])
def test_each_defect_is_found(found, k):
    assert any(DEFECTS[k][2] in problem for problem in found[k]), found[k]


def test_an_empty_folder_is_not_a_book(tmp_path):
    assert browser.check(tmp_path, "chromium") == [f"{tmp_path}: no page to visit"]


def test_without_a_browser_no_page_is_visited_and_that_is_said(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["browser.py"])
    monkeypatch.setenv("CHROMIUM", "none")
    monkeypatch.delenv("CI", raising=False)
    assert browser.main() == 77
    assert capsys.readouterr().out.startswith("no Chromium on this machine, so the pages are not visited")
    monkeypatch.setenv("CI", "true")
    assert browser.main() == 1
