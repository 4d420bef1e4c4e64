"""The printed book: the place of its link on the first page, and the packing of the file."""

import importlib.util
import sys
from pathlib import Path

import pytest

pikepdf = pytest.importorskip("pikepdf")

TOOLS = Path(__file__).resolve().parents[2] / "book" / "_tools"


@pytest.fixture
def printed(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(TOOLS)])  # at the end: a module there is called site
    spec = importlib.util.spec_from_file_location("printed", TOOLS / "printed.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("browser", None)


def test_the_link_takes_its_place_and_can_be_renewed(printed, tmp_path):
    page = tmp_path / printed.FIRST
    page.parent.mkdir()
    page.write_text('<p>Read <span id="print-version"></span></p>')
    printed.link(tmp_path, 12, 3_400_000)
    assert f'<a href="../{printed.NAME}">PDF</a> (12 pages, 3.4\u00a0MB).</span></p>' in page.read_text()
    printed.link(tmp_path, 13, 3_500_000)
    assert page.read_text().count("<a ") == 1 and "(13 pages" in page.read_text()


def test_a_first_page_without_the_place_is_an_error(printed, tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / printed.FIRST).write_text("<p>Read</p>")
    with pytest.raises(SystemExit, match="print-version"):
        printed.link(tmp_path, 1, 1)


def test_the_books_first_page_keeps_the_place():
    assert '<span id="print-version"></span>' in (TOOLS.parents[0] / "index.md").read_text(encoding="utf-8")


def test_packing_names_the_file_and_its_bookmarks_and_saves_bytes(printed, tmp_path):
    path = tmp_path / "book.pdf"
    with pikepdf.new() as pdf:
        for _ in range(40):
            pdf.add_blank_page()
        with pdf.open_outline() as outline:
            for title, part in (("The codeand its rate", "Verdicts"), ("Two", "Verdicts")):
                item = pikepdf.OutlineItem(title, 0)
                item.children.append(pikepdf.OutlineItem(part, 1))
                outline.root.append(item)
        pdf.save(path, object_stream_mode=pikepdf.ObjectStreamMode.disable)
    before = path.stat().st_size
    headings = [["The code and its rate", ""], ["Verdicts", "Chapter 1"], ["Two", ""], ["Verdicts", "Chapter 2"]]
    assert printed.pack(path, headings, "A Book", "somebody") == 40
    assert path.stat().st_size < before / 2
    with pikepdf.open(path) as pdf:
        assert len(pdf.pages) == 40
        assert (pdf.docinfo["/Title"], pdf.docinfo["/Author"]) == ("A Book", "somebody")
        with pdf.open_outline() as outline:
            titles = [[item.title, *(part.title for part in item.children)] for item in outline.root]
    assert titles == [["The code and its rate", "Verdicts (Chapter 1)"], ["Two", "Verdicts (Chapter 2)"]]
    with pytest.raises(ValueError, match="zip"):  # a bookmark without its heading would give all others a wrong name
        printed.pack(path, headings[1:], "A Book", "somebody")


def test_without_a_browser_nothing_is_printed_and_that_is_said(printed, monkeypatch, capsys):
    monkeypatch.setenv("CHROMIUM", "none")
    monkeypatch.delenv("CI", raising=False)
    assert printed.main() == 77
    assert capsys.readouterr().out.startswith("no Chromium on this machine, so the book is not printed")
    monkeypatch.setenv("CI", "true")
    assert printed.main() == 1
