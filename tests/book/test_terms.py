"""Terms of the glossary in a chapter: linked once, in running prose only."""

import sys
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import terms  # noqa: E402

GLOSSARY = "# Glossary\n\n```{glossary}\nCollapse\n  All the same.\n\nLong name (LN)\n  Both are found.\n```\n"


def document(*parts):
    from docutils.utils import new_document

    made = new_document("page")
    made += parts
    return made


def test_both_names_of_an_entry_are_known():
    assert terms.terms_of(GLOSSARY) == {"collapse": "Collapse", "long name": "Long name (LN)", "ln": "Long name (LN)"}
    assert len(terms.terms_of((ROOT / "book" / "glossary.md").read_text(encoding="utf-8"))) > 30


def test_the_first_mention_in_prose_is_linked_and_no_other():
    page = document(
        nodes.title("", "Collapse"),
        nodes.paragraph(
            "", "", nodes.literal("", "collapse"), nodes.Text(" is code; Collapses differ, an LN, a collapse.")
        ),
        nodes.paragraph("", "Precollapse is another word; a long name came before."),
    )
    assert terms.link(page, "notebooks/01", terms.terms_of(GLOSSARY)) == 2
    links = list(page.findall(pending_xref))
    assert [(link.astext(), link["reftarget"]) for link in links] == [
        ("Collapses", "Collapse"),
        ("LN", "Long name (LN)"),
    ]
    assert page[1].astext() == "collapse is code; Collapses differ, an LN, a collapse."
