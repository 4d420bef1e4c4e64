"""The first page's findings: numbers from the records, a tile for each claim, and sentences that can be refuted."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("book_findings", ROOT / "book" / "_ext" / "findings.py")
findings = importlib.util.module_from_spec(spec)
spec.loader.exec_module(findings)
INDEX = (ROOT / "book" / "index.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", findings.FINDINGS)
def test_a_finding_has_a_number_and_a_picture_that_is_described(name):
    number, unit, drawn = findings.FINDINGS[name]()
    assert re.search(r"\d", number) and unit
    assert "aria-label" in drawn and "nan" not in drawn
    assert f"{{finding}} {name}" in INDEX


def test_a_sentence_that_a_record_refutes_stops_the_build(monkeypatch):
    def other(name):
        record = load(name)
        for entry in record["units"]:
            entry["result"]["spread"] = [1.0 for _ in entry["result"].get("spread", [])]
        return record

    load = findings.load_record
    monkeypatch.setattr(findings, "load_record", other)
    with pytest.raises(ValueError, match="no longer holds: collapsed cells"):
        findings.stop()


def test_each_claim_has_its_tile_and_its_word():
    claims = yaml.safe_load((ROOT / "book" / "claims.yml").read_text(encoding="utf-8"))["claims"]
    shown = re.findall(r'class="tile ([\w-]+)" href="claims.html#claim-(\w+)"', findings.glance())
    cards = re.findall(
        r"\(claim-(\w+)\)=\n:::\{div\} claim ([\w-]+)", (ROOT / "book" / "claims.md").read_text(encoding="utf-8")
    )
    assert len(shown) == len(claims) == len(cards)
    assert {name: word for word, name in shown} == dict(cards)


def test_the_entry_to_cite_says_what_the_citation_file_says():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["title"] in findings.bibtex() and cited["version"] in findings.bibtex()
    assert findings.bibtex().count("{") == findings.bibtex().count("}")
