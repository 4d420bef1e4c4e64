"""Outputs are compared as numbers: what rounding does passes, what is wrong fails; alone, and in nbval's own run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "book/_tools"))
import compare  # noqa: E402

ALIKE = [
    ("differ by 1e-16", "differ by 0"),
    ("differ by 0", "differ by 4.4e-16"),
    ("right for 85 %", "right for 86 %"),
    (r"right for 85\% of", r"right for 86\% of"),
    ("a rate of 0.83 nats", "a rate of 0.84 nats"),
    ("9.99e-04", "1.00e-03"),
    ("0.999", "1.000"),
    ("3.99", "4"),
    ("-0.00", "0.00"),
    ("[ 0.01 -0.10]", "[-0.00  -0.11]"),
    ("  9.99 |  3", " 10.00 |  3"),
    ("\u22120.31 ± 0.02", "-0.32 ± 0.02"),
    ("about 12,345.6 of them", "about 12,345.7 of them"),
    ("'0.286'", "'0.287'"),
]
OTHER = [
    ("differ by 1e-16", "differ by 1e-11"),
    ("differ by 1e-16", "differ by 1e-03"),
    ("differ by 0", "differ by 1e-03"),
    ("3.98", "4"),
    ("right for 85 %", "right for 87 %"),
    ("a rate of 0.83 nats", "a rate of 0.85 nats"),
    ("1.00e-03", "1.02e-03"),
    ("4 of 5 seeds", "5 of 5 seeds"),
    ("12,345 of them", "12,346 of them"),
    ("0.30", "-0.30"),
    ("0.5", "nan"),
    ("0.5", "0.5 0.5"),
    ("it rises by 0.5", "it falls by 0.5"),
    ("P9 is confirmed", "P8 is confirmed"),
    ("torch 2.15.0", "torch 2.15.1"),
    ("a 0.5\nb", "a 0.5\nc"),
    ("float32", "float33"),
    ("0.5", ""),
]


@pytest.mark.parametrize("stored, fresh", ALIKE)
def test_what_rounding_does_passes(stored, fresh):
    assert compare.difference(stored, fresh) == ""
    assert compare.difference(fresh, stored) == ""


@pytest.mark.parametrize("stored, fresh", OTHER)
def test_what_is_wrong_fails(stored, fresh):
    assert compare.difference(stored, fresh)
    assert compare.difference(fresh, stored)


def test_a_cell_states_its_tolerance():
    assert compare.allowed(["hide-input", "rtol=0.05", "atol=2"]) == {"rtol": 0.05, "atol": 2.0}
    assert compare.difference("loss 1.000", "loss 1.049", rtol=0.05) == ""
    assert compare.difference("loss 1.000", "loss 1.060", rtol=0.05)
    assert compare.difference("17 steps", "19 steps", atol=2) == ""
    assert compare.difference("17 steps", "20 steps", atol=2)
    assert compare.difference("17 steps up", "17 steps down", atol=2)


def test_what_differs_is_named():
    said = compare.difference("the rate is 0.83 nats", "the rate is 0.85 nats")
    assert said == "0.83 is stored, and 0.85 came, after 'the rate is': 0.01 is allowed"


# source, what is stored, its kind, tags, whether nbval must let it pass
CELLS = [
    ("print('differ by', 0)", "differ by 1e-16\n", "stream", [], True),
    ("print(f'{0.8550001:.0%}')", "85%\n", "stream", [], True),
    ("print(f'{0.8650001:.0%}')", "85%\n", "stream", [], False),
    ("print(f'{0.8650001:.0%}')", "85%\n", "stream", ["rtol=0.05"], True),
    ("print('the rate is 0.83')", "the rate was 0.83\n", "stream", [], False),
    ("print('4 of 5')", "3 of 5\n", "stream", [], False),
    ("from IPython.display import display", None, None, [], True),
    ("display({'text/markdown': 'It is **0.286**.'}, raw=True)", "It is **0.287**.", "text/markdown", [], True),
    ("display({'text/markdown': 'It is **0.286**.'}, raw=True)", "It is **0.288**.", "text/markdown", [], False),
    ("display({'image/svg+xml': '<svg x=\\'1\\'/>'}, raw=True)", "<svg x='2'/>", "image/svg+xml", [], True),
    ("from myst_nb import glue; glue('x', '0.286', display=False)", "'0.287'", "glue", [], True),
    ("from myst_nb import glue; glue('x', '0.286', display=False)", "'0.289'", "glue", [], False),
]
GLUED = "application/papermill.record/text/plain"


def test_nbval_compares_so(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("nbval")
    v4, cells = nbformat.v4, []
    for source, stored, kind, tags, _ in CELLS:
        cell = v4.new_code_cell(source, metadata={"tags": tags}, execution_count=len(cells) + 1)
        if kind == "stream":
            cell.outputs = [v4.new_output("stream", text=stored)]
        elif stored:
            name = {"scrapbook": {"mime_prefix": "application/papermill.record/", "name": "x"}}
            kinds = {GLUED if kind == "glue" else kind: stored}
            cell.outputs = [v4.new_output("display_data", kinds, metadata=name if kind == "glue" else {})]
        cells.append(cell)
    for name in ("notebooks/conftest.py", "book/_tools/compare.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        shutil.copy(ROOT / name, tmp_path / name)
    nbformat.write(v4.new_notebook(cells=cells), tmp_path / "notebooks/planted.ipynb")
    command = [sys.executable, "-m", "pytest", "-v", "-c", os.devnull, "--rootdir", tmp_path, "-p", "no:cacheprovider"]
    command += ["-p", "no:xdist", "--nbval", "--nbval-current-env", tmp_path / "notebooks"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(command, cwd=tmp_path, env=kept, capture_output=True, text=True)
    for k, (source, stored, *_, passes) in enumerate(CELLS):
        assert f"Cell {k} {'PASSED' if passes else 'FAILED'}" in done.stdout, (source, stored, done.stdout[-3000:])
    assert "0.288 is stored, and 0.286 came" in done.stdout
