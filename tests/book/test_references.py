"""The list of references: every work that a chapter lists is in it, under the same address."""

import re
import unicodedata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.md"))
ACCENTS = re.compile(r"\{?\\[\"'`^~]\{?(\w)\}?\}?")


def plain(text):
    text = unicodedata.normalize("NFKD", ACCENTS.sub(r"\1", text))
    return re.sub(r"[^a-z0-9 ]", "", "".join(c for c in text if not unicodedata.combining(c)).lower())


def entries():
    """Key -> fields, of the simple BibTeX that references.bib is written in: one field a line."""
    found = {}
    for block in re.split(r"(?m)^@", (ROOT / "book/references.bib").read_text(encoding="utf-8"))[1:]:
        key = re.match(r"\w+\{([^,]+),", block)[1]
        assert key not in found, f"{key} is defined twice"
        found[key] = dict(re.findall(r"(?m)^  (\w+) = \{(.*)\},?$", block))
    return found


def works(chapter):
    """The lines under "## References", one a work."""
    text = chapter.read_text(encoding="utf-8").split("\n## References\n")[1]
    return re.findall(r"(?m)^[*-] (.+)$", text)


def address(url):
    """What identifies a work, whatever the form of its link."""
    return re.sub(r"^https?://(www\.|dx\.)?|\.html$|/$", "", url.lower())


ENTRIES = entries()


def test_every_entry_is_complete():
    for key, fields in ENTRIES.items():
        assert {"author", "title", "year"} <= fields.keys(), key
        surname = plain(fields["author"].split(",")[0]).replace(" ", "")
        assert key.startswith(surname), f"{key} is by {fields['author']}"
        if "arXiv:" in fields.get("note", ""):
            number = re.search(r"arXiv:([\w./-]+)", fields["note"])[1]
            assert fields["url"] == f"https://arxiv.org/abs/{number}", key


def test_no_work_stands_twice():
    urls = [address(fields["url"]) for fields in ENTRIES.values() if "url" in fields]
    titles = [plain(fields["title"]) for fields in ENTRIES.values()]
    assert len(urls) == len(set(urls)) and len(titles) == len(set(titles))


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_every_work_of_a_chapter_is_listed(chapter):
    known = {address(fields["url"]) for fields in ENTRIES.values() if "url" in fields}
    titles = [plain(fields["title"]) for fields in ENTRIES.values()]
    listed = works(chapter)
    assert listed
    lacking = []
    for line in listed:
        links = [address(url) for url in re.findall(r"\]\((https?://[^)]+)\)", line)]
        named = any(title in plain(line) for title in titles)
        if not (named and (not links or known & set(links))):
            lacking.append(line)
    assert not lacking, "not in book/references.bib, or under another title or address:\n" + "\n".join(lacking)
