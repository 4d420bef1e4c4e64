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


def test_packing_keeps_the_pages_and_saves_bytes(printed, tmp_path):
    path = tmp_path / "book.pdf"
    with pikepdf.new() as pdf:
        for _ in range(40):
            pdf.add_blank_page()
        pdf.save(path, object_stream_mode=pikepdf.ObjectStreamMode.disable)
    before = path.stat().st_size
    assert printed.pack(path) == 40
    assert path.stat().st_size < before / 2
    with pikepdf.open(path) as pdf:
        assert len(pdf.pages) == 40
