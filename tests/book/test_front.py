"""The root of the site, the page for lost links and the sitemap."""

import importlib.util
import xml.etree.ElementTree as ET
from pathlib import Path
from urllib.parse import urlsplit

from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("book_front", ROOT / "book" / "_ext" / "front.py")
front = importlib.util.module_from_spec(spec)
spec.loader.exec_module(front)

BOOK = "https://example.org/book/"


def test_the_root_leads_on_and_has_a_preview_of_its_own():
    page = BeautifulSoup(front.root_page('A "title"', "About.", BOOK, "a/index.html", BOOK + "card.png"), "html.parser")
    assert page.title.text == 'A "title"'
    assert page.find("meta", attrs={"http-equiv": "refresh"})["content"].endswith("url=a/index.html")
    cards = {meta["property"]: meta["content"] for meta in page.find_all("meta", property=True)}
    assert (
        cards["og:title"] == 'A "title"' and cards["og:description"] == "About." and cards["og:image"].startswith(BOOK)
    )


def test_a_lost_reader_finds_whole_addresses_and_a_search():
    page = BeautifulSoup(front.lost_page("T", BOOK, "i.html", [("n/1.html", "One & two")]), "html.parser")
    links = [a["href"] for a in page.find_all("a")] + [page.form["action"]]
    assert all(link.startswith(BOOK) for link in links) and BOOK + "n/1.html" in links
    assert page.form.input["name"] == "q" and "One & two" in page.text
    assert not page.find_all(src=True)  # it may be served at any depth


def test_the_sitemap_names_every_page():
    tree = ET.fromstring(front.sitemap(BOOK, ["a.html", "b/c.html"]))
    found = [place.text for place in tree.iter("{http://www.sitemaps.org/schemas/sitemap/0.9}loc")]
    assert found == [BOOK + "a.html", BOOK + "b/c.html"] and all(urlsplit(place).netloc for place in found)


def test_the_description_is_the_first_page_s_own():
    assert front.description('<meta content="Why." name="description" />') == "Why."
    assert front.description('<meta name="description" content="Why." />') == "Why."
    assert front.description("<title>x</title>") == ""
