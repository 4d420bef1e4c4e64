"""One style sheet and one script a page: in their order, with addresses that still lead home; pictures lazily."""

import importlib.util
import shutil
from pathlib import Path

from fontTools.ttLib import TTFont

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("book_lighter", ROOT / "book/_ext/lighter.py")
lighter = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lighter)

PAGE = """<html><head>
<link href="../_static/styles/theme.css?digest=1" rel="stylesheet" />
<link rel="stylesheet" type="text/css" href="../_static/own.css?v=2" />
<link rel="preload" as="script" href="../_static/scripts/late.js" />
<link rel="icon" href="../_static/icon.svg" />
<script src="../_static/documentation_options.js"></script>
<script src="../_static/first.js?v=1"></script>
<script defer="defer" src="../_static/mathjax/tex.js"></script>
<script>inline();</script>
</head><body><img class="logo__image" src="l.svg"><article><img src="a.png"><img src="b.png"></article>
<script defer src="../_static/scripts/late.js"></script>
</body></html>
"""


def site(root):
    static = root / "_static"
    (static / "styles").mkdir(parents=True), (static / "scripts").mkdir(), (static / "mathjax").mkdir()
    (static / "styles/theme.css").write_text('a { src: url("../fonts/f.woff2?v=1") } b { src: url(data:x) }')
    (static / "own.css").write_text("c { background: url(picture.png) }")
    (static / "documentation_options.js").write_text("const OPTIONS = {};")
    (static / "first.js").write_text("first()\n//# sourceMappingURL=first.js.map")
    (static / "scripts/late.js").write_text("late()")
    (static / "mathjax/tex.js").write_text("")
    (root / "book").mkdir()
    (root / "book/page.html").write_text(PAGE)
    return root / "book/page.html"


def test_styles_and_scripts_become_one_file_each(tmp_path):
    text = lighter.lighten(site(tmp_path), tmp_path)
    assert text.count('rel="stylesheet"') == 1 and text.count("bundle-") == 2 and "preload" not in text
    css, js = (next((tmp_path / "_static").glob(f"bundle-*.{ending}")).read_text() for ending in ("css", "js"))
    assert 'url("fonts/f.woff2?v=1")' in css and "url(data:x)" in css and 'url("picture.png")' in css
    assert css.index("woff2") < css.index("picture")
    assert js.index("first()") < js.index("late()") and "sourceMappingURL" not in js
    assert text.index("inline()") < text.index("bundle-", text.index("</article>"))  # where the last of them stood
    assert "mathjax/tex.js" in text and 'rel="icon"' in text


def test_options_stand_in_the_page(tmp_path):
    page = site(tmp_path)
    text = lighter.inline_options(page, page.read_text())
    assert "<script>const OPTIONS = {};</script>" in text and "documentation_options.js" not in text


def test_pictures_after_the_first_are_lazy():
    text = lighter.lazy_pictures(PAGE)
    assert '<img src="a.png">' in text and '<img loading="lazy" src="b.png">' in text and text.count("lazy") == 1


def test_pictures_say_their_size(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(4) + b"IHDR" + (640).to_bytes(4) + (480).to_bytes(4))
    (tmp_path / "b.svg").write_text('<?xml version="1.0"?>\n<svg viewBox="0 0 3 2" height="150pt" width="300pt"></svg>')
    (tmp_path / "c.svg").write_text('<svg viewBox="0 0 3 2"></svg>')
    text = '<img src="a.png" alt="A"><img src="b.svg"><img src="c.svg"><img width="9" src="a.png"><img src="gone.png">'
    assert lighter.sized_pictures(tmp_path / "page.html", text) == (
        '<img width="640" height="480" src="a.png" alt="A"><img width="400" height="200" src="b.svg">'
        '<img src="c.svg"><img width="9" src="a.png"><img src="gone.png">'
    )


def test_logo_and_icon_stand_in_the_page(tmp_path):
    page = site(tmp_path)
    (tmp_path / "_static/logo.svg").write_text("<svg/>")
    text = lighter.inline_marks(page, '<img src="../_static/logo.svg"><a href="https://a.b/_static/logo.svg">')
    assert text == '<img src="data:image/svg+xml;base64,PHN2Zy8+"><a href="https://a.b/_static/logo.svg">'


def test_icons_that_no_page_shows_are_left_out(tmp_path):
    theme = Path(importlib.util.find_spec("pydata_sphinx_theme").origin).parent
    fonts = "theme/pydata_sphinx_theme/static/vendor/fontawesome/webfonts"
    shutil.copytree(theme / fonts, tmp_path / "fonts")
    style = (
        '@font-face{font-family:F;src:url("fonts/fa-solid-900.woff2") format("woff2"),url("fonts/fa-solid-900.ttf")}'
        '.fa-bars:before,.fa-navicon:before{content:"\\f0c9"}.fa-truck:before{content:"\\f0d1"}p:after{content:"\\f107"}'
    )
    text = lighter.with_icons(style, frozenset({"fa-bars"}), tmp_path)
    assert "f0c9" in text and "f107" in text and "truck" not in text and "woff2" not in text
    (font,) = tmp_path.glob("icons-*.woff")
    assert font.name in text and font.stat().st_size < 3000
    with TTFont(font) as kept:
        assert set(kept.getBestCmap()) == {0xF0C9, 0xF107}
