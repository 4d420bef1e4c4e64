"""The laboratory's extra: complete, and named where it is missing."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

from sigreg import lab
from sigreg.lab.experiments import without_labels_trials
from sigreg.lab.records import save_record

ROOT = Path(lab.__file__).parents[2]
DISTRIBUTION = {"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn", "IPython": "ipython"}
DISTRIBUTION |= {"matplotlib_inline": "matplotlib-inline"}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


def test_the_extra_has_all_that_the_laboratory_and_the_chapters_import():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = {re.split("[><=]", line)[0] for line in project["optional-dependencies"]["book"]}
    used = {name for path in (ROOT / "sigreg/lab").rglob("*.py") for name in imported(path)}
    cells = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "notebooks").glob("*.md"))
    used |= set(re.findall(r"(?m)^(?:import|from) (\w+)", cells))
    used -= {*sys.stdlib_module_names, "sigreg", "torch", "numpy", "myst_nb"}  # the last where the book is built
    assert used <= set(lab.NEEDED), used - set(lab.NEEDED)
    assert extra == {DISTRIBUTION.get(name, name) for name in lab.NEEDED}


def run_without(packages, code):
    block = f"import sys; sys.modules.update(dict.fromkeys({packages!r}))"
    return subprocess.run([sys.executable, "-c", f"{block}; {code}"], capture_output=True, text=True)


@pytest.mark.parametrize("package", ["tqdm", "IPython"])
def test_a_missing_package_says_which_extra_to_install(package):
    done = run_without([package], "import sigreg.lab.notebook")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.endswith(f"ModuleNotFoundError: sigreg.lab needs {package}: pip install 'sigreg[book]'\n")


BARE = ["IPython", "matplotlib", "pandas", "PIL", "seaborn", "sklearn", "torchvision", "tqdm"]


def test_a_bare_machine_plans_the_studies():
    plans = "[len(r.plan(r.load_experiment(name), 'full')[0]) for name in gpu.STUDIES]"
    code = f"from sigreg.lab import gpu, reproduce as r; print({plans})"
    done = run_without(BARE, code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[48, 5, 46]\n"


def test_a_bare_machine_runs_what_its_own_trials_chose(tmp_path, monkeypatch):
    monkeypatch.setenv("SIGREG_RECORDS", str(tmp_path))
    units = without_labels_trials.units("full", range(1))
    tried = [{"unit": u, "result": {"held_out": 0.8 + 0.1 * (u["lr"] == 3e-3)}, "seconds": 1} for u in units]
    provenance = {"preset": "full", "seeds": 1, "runs": []}
    save_record({"name": "without_labels_trials", "description": "", "provenance": provenance, "units": tried})
    study = "from sigreg.lab.experiments import without_labels as s, without_labels_trials as t"
    read = "from sigreg.lab.records import load_record; r = load_record('without_labels_trials')"
    shown = "print({u.get('lr') for u in s.units('full', range(1))} - {None}, t.summary(r).count('lr 0.003'))"
    done = run_without(BARE, f"{study}; {read}; {shown}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "{0.003} 8\n"
