"""The map of the chapters: what can be read of it, what it draws, and its mistakes."""

import importlib.util
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("sphinx")

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("chapter_map", ROOT / "book/_ext/chapter_map.py")
chapter_map = importlib.util.module_from_spec(spec)
spec.loader.exec_module(chapter_map)

LINES = ["1 @ 0,1: First", "2 @ 1,0: Second & more <- (1)", "", "3 @ 1,2: Third one <- 1", "4 @ 3,0: Last <- 3, (2)"]


def book_map():
    text = (ROOT / "book/index.md").read_text(encoding="utf-8")
    return chapter_map.parse(text.split("```{chapter-map}\n")[1].split("```")[0].splitlines())


def test_reading():
    chapters = chapter_map.parse(LINES)
    assert [chapter.number for chapter in chapters] == [1, 2, 3, 4]
    assert chapters[1].title == "Second & more" and chapters[1].needs == ((1, False),)
    assert chapters[3].needs == ((3, True), (2, False))
    words = chapter_map.describe(chapters)
    assert "Chapter 1 stands alone; Chapter 2 is motivated by 1;" in words
    assert words.endswith("Chapter 4 builds on 3 and is motivated by 2.")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("two @ 0,0: x", "cannot read"),
        ("5: no place", "cannot read"),
        ("1 @ 0,0: again", "chapter 1 is listed twice"),
        ("5 @ 0,0: x <- 9", "chapter 5 builds on 9, which is not listed before it"),
        ("5 @ 0,0: x <- 5", "chapter 5 builds on 5"),
    ],
)
def test_mistakes(line, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        chapter_map.parse([*LINES, line])


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("chapters", [chapter_map.parse(LINES), book_map()], ids=["small", "book"])
def test_the_drawing_is_sound(chapters, wide):
    links = {c.number: (f"{c.number}.html", f"{c.number}. {c.title}") for c in chapters[:-1]}
    svg = ElementTree.fromstring(chapter_map.draw(chapters, links, wide))
    right, bottom = map(float, svg.get("viewBox").split()[2:])
    boxes = [tuple(float(rect.get(k)) for k in ("x", "y", "width", "height")) for rect in svg.iter("rect")]
    assert len(boxes) == len(chapters)
    assert all(x >= 0 and y >= 0 and x + w <= right and y + h <= bottom for x, y, w, h in boxes)
    for k, (x, y, w, h) in enumerate(boxes):
        for a, b, c, d in boxes[:k]:
            assert x + w <= a or a + c <= x or y + h <= b or b + d <= y, "two boxes overlap"
    # The last chapter is not in the book yet: no link. All others have one, with a name for those who hear it.
    assert [(a.get("href"), a.get("aria-label")) for a in svg.iter("a")] == [
        (address, f"Chapter {title}") for address, title in links.values()
    ]
    assert len(svg.findall("g[@class='absent']")) == 1
    kinds = [path.get("class") for path in svg.iter("path") if path.get("class")]
    needs = [needed for chapter in chapters for _, needed in chapter.needs]
    assert kinds == ["needed" if needed else "motivating" for needed in needs]


def test_titles_fit_their_boxes():
    assert [c.number for c in book_map()] == list(range(1, 9))
    for chapter in book_map():
        lines = chapter_map.wrap(chapter.title, chapter_map.LETTERS)
        assert len(lines) <= 2 and max(map(len, lines)) <= chapter_map.LETTERS, chapter.title


def test_the_map_agrees_with_the_table_of_dependences():
    """How to read this book says the same in a table."""
    table = re.findall(r"(?m)^\| (\d)\. .+? \| (.+?) \|", (ROOT / "book/how_to_read.md").read_text(encoding="utf-8"))
    assert len(table) == 8
    for chapter, (number, needs) in zip(book_map(), table, strict=True):
        assert chapter.number == int(number)
        motivating = "for motivation" in needs
        assert chapter.needs == tuple((int(n), not motivating) for n in re.findall(r"\d", needs)), number
