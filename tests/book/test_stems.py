"""Every module is tested in a file that carries its name, so that a reader finds the tests of what he reads."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FLOORS = {"sigreg": "sigreg", "sigreg/lab": "lab", "sigreg/lab/experiments": "lab"}  # package: folder in tests
WITH = {"slice_free_triton": "sliced_triton"}  # one run of Triton's interpreter tries both kernels


def without_tests(root=ROOT):
    """Modules without `test_<stem>.py`, leading underscores left out; an experiment's may end in `_experiment`."""
    for package, tests in FLOORS.items():
        for path in sorted((root / package).glob("*.py")):
            stem, ending = path.stem.lstrip("_"), "_experiment" if package.endswith("experiments") else ""
            stem = WITH.get(stem, stem)
            names = {f"test_{stem}.py", f"test_{stem}{ending}.py"}
            if path.name != "__init__.py" and not any((root / "tests" / tests / name).is_file() for name in names):
                yield f"{package}/{path.name}"


def test_every_module_has_tests_of_its_name():
    assert not list(without_tests())


def test_a_module_without_tests_is_seen(tmp_path):
    for folder in ("sigreg/lab/experiments", "tests/sigreg", "tests/lab"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("sigreg/_engine.py", "sigreg/lab/views.py", "sigreg/lab/experiments/power.py"):
        (tmp_path / name).touch()
    for name in ("tests/sigreg/test_engine.py", "tests/lab/test_power_experiment.py", "tests/sigreg/test_views.py"):
        (tmp_path / name).touch()
    assert list(without_tests(tmp_path)) == ["sigreg/lab/views.py"]
