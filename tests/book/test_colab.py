"""The rehearsal: on a tiny package of its own, through a real kernel, real git and real pip, without a network."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import nbformat
import pytest
import tomllib
from nbformat.v4 import new_code_cell, new_notebook, new_output
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book/_tools"))
import colab  # noqa: E402

ADDRESS = "https://github.com/first/tinybook"
SETUP = f"""\
import importlib.util

if importlib.util.find_spec("tinybook") is None:
    %pip install --quiet --no-deps "git+{ADDRESS}@main"

import tinybook"""

# A builder of wheels that needs nothing from a registry.
BACKEND = """\
import zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "tinybook-1.0-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.write("tinybook.py")
        for part, text in (
            ("METADATA", "Metadata-Version: 2.1\\nName: tinybook\\nVersion: 1.0\\n"),
            ("WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"),
            ("RECORD", ""),
        ):
            wheel.writestr(f"tinybook-1.0.dist-info/{part}", text)
    return name
"""
PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """An environment that has all that this one has, and room of its own for what pip adds."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin/python"
    ask = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    own = Path(subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip())
    (own / "more.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.fixture
def rehearse(environment, tmp_path):
    """Rehearse a notebook of these cells beside the tiny package; `(result, what git was given, checkout)`."""

    def run(*cells):
        checkout, bare = tmp_path / "checkout", tmp_path / "bare.git"
        (checkout / "notebooks").mkdir(parents=True)
        (checkout / "pyproject.toml").write_text(PROJECT)
        (checkout / "backend.py").write_text(BACKEND)
        (checkout / "tinybook.py").write_text("NUMBER = 1\n")
        subprocess.run(["git", "init", "-q"], cwd=checkout, check=True)
        (checkout / ".gitignore").write_text("junk\n")
        (checkout / "junk").write_text("not for git")
        path = checkout / "notebooks/01_tiny.ipynb"
        nbformat.write(new_notebook(cells=[cell(SETUP, tags=["nbval-ignore-output"]), *cells]), path)
        commit = colab.snapshot(checkout, bare, "main")
        names = subprocess.run(
            ["git", f"--git-dir={bare}", "ls-tree", "--name-only", "main"], capture_output=True, text=True, check=True
        ).stdout.split()
        assert names == [".gitignore", "backend.py", "notebooks", "pyproject.toml", "tinybook.py"]
        return colab.rehearse(path, environment, bare, commit, ADDRESS, package="tinybook", keep=tmp_path / "kept")

    return run


def cell(source, text=None, **metadata):
    return new_code_cell(source, outputs=[new_output("stream", text=text)] if text else [], metadata=metadata)


def test_a_sound_chapter_passes_from_an_empty_folder(rehearse, environment, tmp_path):
    result = rehearse(
        cell("import os\nprint(tinybook.NUMBER, os.listdir())"),
        cell("print(f'{0.001:.0e}')", "1e-03\n"),
        cell("print('other')", "stored\n", tags=["nbval-ignore-output"]),
        cell("import sys\nprint(' 40%|####      | 4/10', end='\\r', file=sys.stderr)"),
    )
    assert result["problems"] == []
    (difference,) = result["differences"]  # the first cell has no output stored
    assert (difference["cell"], difference["kind"]) == (2, "stdout")
    assert difference["lines"] == ["+ 1 ['01_tiny.ipynb']"]
    assert 0 < result["start"] < result["seconds"] and (result["memory"] > 1e7 or sys.platform != "linux")
    assert "tinybook" not in colab.installed(environment)  # ready for the next chapter
    assert (tmp_path / "kept/01_tiny.ipynb").exists()
    table = "\n".join(colab.table([result]))
    assert "1 cells differ" in table and "FAILED" not in table


def test_a_warning_fails_the_chapter(rehearse):
    result = rehearse(cell("import warnings\nwarnings.warn('take care')"), cell("print(2)", "3\n"))
    (problem,) = result["problems"]
    assert problem.startswith("cell 2 shows a warning: ") and "UserWarning: take care" in problem
    assert [found["lines"] for found in result["differences"] if found["cell"] == 3] == [["- 3", "+ 2"]]
    assert "01_tiny: cell 2 shows a warning" in "\n".join(colab.table([result]))


def test_an_error_fails_the_chapter(rehearse, environment):
    result = rehearse(cell("raise KeyError('gone')"))
    assert result["problems"][0].startswith("it does not finish: ") and "KeyError" in result["problems"][0]
    assert "tinybook" not in colab.installed(environment)


# --- The parts ------------------------------------------------------------------------------------------------------


def test_pip_may_add_this_package_and_nothing_else():
    wanted = f"{ADDRESS}@abc"
    before = {"torch": "2.11.0", "numpy": "2.1.3"}
    assert colab.what_pip_did(before, before | {"tinybook": wanted}, "tinybook", wanted) == []
    assert colab.what_pip_did(before, before, "tinybook", wanted) == [f"tinybook is not installed, not {wanted}"]
    elsewhere = before | {"tinybook": "1.0"}
    assert colab.what_pip_did(before, elsewhere, "tinybook", wanted) == [f"tinybook is 1.0, not {wanted}"]
    more = {"torch": "2.15.0", "lightly": "1.6.0", "tinybook": wanted}
    assert colab.what_pip_did(before, more, "tinybook", wanted) == [
        "pip touched lightly: it was missing and is 1.6.0",
        "pip touched numpy: it was 2.1.3 and is missing",
        "pip touched torch: it was 2.11.0 and is 2.15.0",
    ]


@pytest.mark.parametrize(
    "name, text, is_warning",
    [
        ("stderr", "x.py:1: UserWarning: careful\n", True),
        ("stderr", "\r 10%|#   | 1/10 [00:00<?, ?it/s]\r100%|####| 10/10 [00:01<00:00]\n", False),
        ("stderr", "unzipping:  10%|#   | 1/10\rand a word", True),
        ("stdout", "WARNING: Running pip as the 'root' user\n", True),
        ("stdout", "ERROR: pip's dependency resolver does not take into account\n", True),
        ("stdout", "error 0.1, standard error: 0.02\n", False),
        ("stdout", "DEPRECATION: this will go\n", True),
    ],
)
def test_what_counts_as_a_warning(name, text, is_warning):
    found = colab.warnings_shown([new_code_cell("x", outputs=[new_output("stream", name=name, text=text)])])
    assert bool(found) == is_warning


def test_what_is_compared_is_what_nbval_compares():
    def differ(old, new, **metadata):
        return colab.differences(
            [new_code_cell("x", outputs=old, metadata=metadata)], [new_code_cell("x", outputs=new, metadata=metadata)]
        )

    def stream(text):
        return new_output("stream", text=text)

    def shown(**data):
        return new_output("display_data", data)

    assert differ([stream("a\n"), stream("b\n")], [stream("a\nb\n")]) == []  # where a stream is cut is chance
    assert differ([stream("a\n")], [stream("b\n")])[0]["lines"] == ["- a", "+ b"]
    assert differ([stream("a\n")], [stream("b\n")], tags=["nbval-skip"]) == []
    picture, other = ({"image/svg+xml": text, "image/png": text, "text/plain": "<Figure>"} for text in ("x", "y"))
    assert differ([shown(**picture)], [shown(**other)]) == []
    assert differ([shown(**picture)], [shown(**other | {"text/plain": "<Axes>"})])[0]["kind"] == "text/plain"
    assert differ([shown(**{"text/markdown": "1"})], [])[0]["lines"] == ["- 1"]
    assert differ([shown(**{"application/papermill.record/text/plain": "1"})], []) == []


def test_pins_are_exact_and_names_normal():
    assert colab.pins("# a list\nJupyter_Client==7.4.9  # old\n\ntorch==2.11.0\n") == {
        "jupyter-client": "7.4.9",
        "torch": "2.11.0",
    }
    with pytest.raises(ValueError):
        colab.pins("torch>=2.0\n")


def test_colab_has_what_the_package_needs():
    """Or `--no-deps` in the setup cell would leave the reader without a package."""
    pins = colab.pins(colab.PACKAGES.read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for line in [*project["dependencies"], *project["optional-dependencies"]["book"]]:
        needed = Requirement(line)
        assert colab.normal(needed.name) in pins and needed.specifier.contains(pins[colab.normal(needed.name)]), line


def test_an_interpreter_is_found_or_the_lack_of_one_is_said(tmp_path):
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = colab.find_python(own)
    said = subprocess.run([found, "-V"], capture_output=True, text=True).stdout
    assert said.startswith(f"Python {own}.")
    assert colab.find_python("2.99") is None
    with pytest.raises(SystemExit, match=r"no Python 2\.99 on this machine"):
        colab.make_environment(tmp_path / "env", colab.PACKAGES, "2.99")
