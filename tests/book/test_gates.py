"""The gates: the book is broken on purpose, in a copy, and each breakage must be caught by the check that should."""

import fcntl
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book/_tools"))
import gates  # noqa: E402


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A folder that all processes of this run of the tests have in common, and a way to do costly things once."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "gates"
    folder.mkdir(exist_ok=True)

    def once(name, make):
        with open(folder / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            result = folder / f"{name}.json"
            if not result.exists():
                result.write_text(json.dumps(make(folder)))
        return json.loads(result.read_text())

    return once, folder


@pytest.fixture(scope="module")
def book(shared, tmp_path_factory):
    """The copy of the book, with a small executed chapter: made once, and again copied for each process to break."""
    once, folder = shared
    once("made", lambda folder: str(gates.make_book(folder / "made").root))
    return gates.Book(shutil.copytree(folder / "made", tmp_path_factory.mktemp("mine") / "book"))


@pytest.fixture(scope="module")
def before(book):
    return gates.what_checks_say(book.root)


@pytest.fixture
def built(shared, book):
    """Exit status and warnings of the build of the sound copy; its pages lie in the folder beside."""

    def make(folder):
        shutil.copytree(book.root, folder / "built")
        gates.write_contents(folder / "built", [f"{gates.STEM}.ipynb"])
        return gates.build(folder / "built")

    once, folder = shared
    return *once("sound-build", make), folder / "built/_build/html"


@pytest.fixture
def build_of_broken_pages(shared, book):
    def make(folder):
        broken = gates.Book(shutil.copytree(book.root, folder / "broken"))
        gates.add_broken_pages(broken)
        return gates.build(broken.root)

    return shared[0]("broken-build", make)


@pytest.fixture
def again(shared, book):
    """What nbval says of each notebook, the sound one too."""
    return shared[0]("again", lambda folder: gates.try_nbval(book, folder / "again"))


def test_the_sound_copy_passes(before):
    assert before == {}


@pytest.mark.parametrize("gate", gates.GATES, ids=lambda gate: gate.what)
def test_a_broken_file_is_caught(book, before, gate):
    found = gates.try_gate(book, gate, before)
    assert set(found) == set(gate.caught_by.split()), found
    assert any(gate.says in line for lines in found.values() for line in lines), found
    assert gates.what_checks_say(book.root) == before  # it was put right again


@pytest.mark.parametrize("gate", gates.HARMLESS, ids=lambda gate: gate.what)
def test_what_is_harmless_is_let_through(book, before, gate):
    assert gates.try_gate(book, gate, before) == {}


def test_a_breakage_that_breaks_nothing_is_an_error(book):
    gate = gates.Gate("a typo in this list", "pairs", "", lambda book: book.edit("README.md", "not there at all", ""))
    with pytest.raises(LookupError, match="nothing like 'not there at all'"):
        gates.try_gate(book, gate, {})


def test_the_sound_build_passes(built):
    status, lines, html = built
    assert (status, lines) == (0, [])
    assert gates.our_site().check(html) == []


@pytest.mark.parametrize("stem", [*gates.BUILD_GATES, gates.WARNED])
def test_a_broken_page_fails_the_build(build_of_broken_pages, stem):
    status, lines = build_of_broken_pages
    says = gates.BUILD_GATES[stem][2] if stem in gates.BUILD_GATES else "stderr was found in the cell outputs"
    (line,) = [line for line in lines if stem in line]
    assert status != 0 and says in line


def test_no_other_page_is_blamed(build_of_broken_pages):
    assert len(build_of_broken_pages[1]) == len(gates.BUILD_GATES) + 1


@pytest.mark.parametrize("what, old, new, says", gates.SITE_GATES, ids=[what for what, *_ in gates.SITE_GATES])
def test_a_broken_built_page_is_caught(built, shared, what, old, new, says):
    with open(shared[1] / "site.lock", "w") as lock:  # one process at a time breaks the page
        fcntl.flock(lock, fcntl.LOCK_EX)
        (problem,) = gates.try_site(built[2], old, new)
    assert says in problem


@pytest.mark.skipif(not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), reason="no browser")
def test_what_only_an_open_page_shows_is_caught(built, shared):
    with open(shared[1] / "site.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert gates.our_site().check(built[2]) == []
        problems = gates.try_browser(built[2])
    for what, _, says in gates.BROWSER_GATES:
        assert any(says in problem for problem in problems), what


def test_a_sound_notebook_runs_again_alike(again):
    assert again["sound"] == []


@pytest.mark.parametrize("name", gates.NBVAL_GATES)
def test_another_outcome_is_caught_by_running_again(again, name):
    assert again[name] == ["Cell 1"]


def test_a_forged_number_is_beyond_the_checks_of_files(book, before):
    """What only running again can show: a wrong number in a notebook whose digests were made to match."""
    gate = gates.Gate("a forged number", "", "", lambda book: book.forge(gates.another_number))
    assert gates.try_gate(book, gate, before) == {}
