"""The list that ends `make test`: what failed does not stop the rest, what cannot run is skipped, all are counted."""

import importlib.util
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("book_check", ROOT / "book/_tools/check.py")
check = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check)


def ends(status):
    return [sys.executable, "-c", f"raise SystemExit({status})"]


def test_all_steps_run_and_are_counted(monkeypatch, capfd):
    monkeypatch.setattr(check, "CHECKS", {"a": ends(0), "b": ends(2), "c": ends(77), "d": ends(0)})
    monkeypatch.setattr(sys, "argv", ["check.py"])
    assert check.main()
    lines = capfd.readouterr().out.splitlines()
    assert lines[-1] == "2 passed, 1 failed, 1 skipped"
    assert [line.split()[0::3] for line in lines[-5:-1]] == [
        ["passed", "a"], ["failed", "b"], ["skipped", "c"], ["passed", "d"],
    ]  # fmt: skip
    assert all(re.search(r" \d+ s ", line) for line in lines[-5:-1])


def test_what_is_skipped_is_no_failure(monkeypatch):
    monkeypatch.setattr(check, "CHECKS", {"a": ends(0), "b": ends(77)})
    monkeypatch.setattr(sys, "argv", ["check.py"])
    assert not check.main()


def test_pages_of_a_failed_build_are_not_looked_at():
    results = check.run({"book": ends(1), "site": [*ends(0), check.PAGES], "unit": ends(0)})
    assert [outcome for outcome, _ in results.values()] == ["failed", "skipped", "passed"]


def test_the_steps_are_there():
    for command in check.CHECKS.values():
        for word in command:
            assert not word.startswith("book/") or (ROOT / word).exists(), word
    makefile = (ROOT / "Makefile").read_text()
    for command in [*check.CHECKS.values(), *check.processors().values()]:
        if "make" in command:
            assert re.search(rf"(?m)^{command[command.index('--no-print-directory') + 1]}:", makefile)
    assert len(check.processors()) == 6
