"""What `make mutants` plants: enough faults, each of them Python, each with tests that should notice."""

import importlib.util
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).resolve().parents[1] / "mutants.py"
spec = importlib.util.spec_from_file_location("mutants", TOOL)
mutants = importlib.util.module_from_spec(spec)
spec.loader.exec_module(mutants)


def test_every_fault_is_another_program_with_tests_that_should_notice():
    found = list(mutants.planted())
    assert len(found) >= 120 and len({fault[:4] for fault in found}) == len(found)
    for path, function, before, after, changed in found:
        assert compile(changed, str(path), "exec") and changed != path.read_text(encoding="utf-8"), (before, after)
        assert mutants.tests_of(path, function), (path, function)


ONE = """
import sys
sys.path.insert(0, "tests")
import mutants
path = mutants.ROOT / "sigreg/lab/data.py"
source = path.read_text(encoding="utf-8")
tests = ["tests/lab/test_data.py::test_normalisation_is_the_stated_one"]
for changed in (source, source.replace("MEAN = 0.2860", "MEAN = 0.3860")):
    print("noticed by", mutants.noticed_by(path, changed, tests))
"""


def test_a_fault_is_noticed_and_the_right_program_is_not():
    """Another mean in place of the file, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", ONE], capture_output=True, text=True, cwd=mutants.ROOT)
    right, wrong = done.stdout.splitlines()
    assert right == "noticed by " and "::test_normalisation" in wrong, done.stderr
