"""What chapters call: in a terminal, in a real kernel, with and without the book's tools."""

import json
import re
import subprocess
import sys

import matplotlib
import nbclient
import nbformat
import pytest
import torch
from myst_nb.core.variables import format_plain_text

from sigreg.lab import notebook


@pytest.fixture(autouse=True)
def restore():
    threads = torch.get_num_threads()
    with matplotlib.rc_context():
        yield
    torch.set_num_threads(threads)


def test_start_prints_one_line_and_sets_the_style(capsys, monkeypatch):
    monkeypatch.delenv("SIGREG_FULL", raising=False)
    matplotlib.rcdefaults()
    notebook.start()
    line, end = capsys.readouterr().out.split("\n")
    assert end == "" and f"torch {torch.__version__}" in line and line.endswith("preset default")
    assert matplotlib.rcParams["lines.linewidth"] == 2
    monkeypatch.setenv("SIGREG_FULL", "1")
    notebook.start()
    assert capsys.readouterr().out.endswith("preset full\n")


def test_start_fixes_the_threads_if_the_environment_says_so(capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(2)
    notebook.start()
    assert torch.get_num_threads() == 1
    monkeypatch.delenv("OMP_NUM_THREADS")
    torch.set_num_threads(2)
    notebook.start()
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
def test_a_thread_count_that_is_none_is_refused(monkeypatch, value):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    with pytest.raises(ValueError, match=f"OMP_NUM_THREADS must be a positive integer, got '{value}'"):
        notebook.start()


def test_in_a_terminal_say_prints_and_glue_is_silent(capsys):
    notebook.say("The gap is **0.1** nats.")
    notebook.glue("gap", "0.1")
    assert capsys.readouterr().out == "The gap is **0.1** nats.\n"


def test_without_the_tools_of_the_book_glue_does_nothing(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "myst_nb", None)
    monkeypatch.setattr(notebook, "get_ipython", lambda: object())
    notebook.glue("gap", "0.1")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("value", [0.1, None, torch.tensor(1.0), ["0.1"]])
def test_only_text_is_said_and_kept(value):
    for call in (lambda: notebook.say(value), lambda: notebook.glue("gap", value), lambda: notebook.glue(value, "0.1")):
        with pytest.raises(TypeError, match=r"must be a str, got \w+: format it first"):
            call()


def test_imports_stay_light():
    code = (
        "import json, sys, sigreg.lab.notebook, sigreg.lab.data; "
        "print(json.dumps([n for n in ('torchvision', 'scipy', 'sklearn', 'pandas', 'myst_nb') if n in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


@pytest.fixture(scope="module")
def executed():
    """A notebook that uses every call, run in a real kernel."""
    cells = [
        "import sigreg.lab.notebook\n\nsigreg.lab.notebook.start()",
        "from sigreg.lab.notebook import glue, say\n\nsay(f'Twice $a$ is **{2 * 2}**.')",
        "glue('number', f'{3.14159:.3g}')\nglue('words', 'it\\'s \"near\" 0.10 nats')",
        "import matplotlib.pyplot as plt\n\nfigure, ax = plt.subplots()\n_ = ax.plot([0, 1])\nplt.show()",
        "from sigreg.lab.player import player\n\nplayer([plt.figure(), plt.figure()], alt='A.', caption='B.')",
    ]
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    nbclient.NotebookClient(made, timeout=120, iopub_timeout=60, kernel_name="python3", record_timing=False).execute()
    return [cell.outputs for cell in made.cells]


def test_nothing_goes_to_the_error_stream(executed):
    assert not [out for outputs in executed for out in outputs if out.get("name") == "stderr"]


def test_in_a_notebook_say_shows_markdown_and_keeps_a_plain_copy(executed):
    (output,) = executed[1]
    text = "Twice $a$ is **4**."
    assert output.output_type == "display_data" and output.data == {"text/markdown": text, "text/plain": text}


def test_glued_text_comes_back_as_it_went(executed):
    kept = {
        output.metadata.scrapbook.name: output.data["application/papermill.record/text/plain"] for output in executed[2]
    }
    assert {name: format_plain_text(text, "s") for name, text in kept.items()} == {
        "number": "3.14",
        "words": 'it\'s "near" 0.10 nats',
    }
    assert all(list(output.data) == ["application/papermill.record/text/plain"] for output in executed[2])


def test_an_inline_figure_is_an_svg_small_opaque_and_as_large_as_the_style_says(executed):
    (output,) = executed[3]
    assert set(output.data) == {"image/svg+xml", "text/plain"}
    text = output.data["image/svg+xml"]
    width, height = (float(size) for size in re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', text).groups())
    assert len(text) < 50_000 and 425 < width < 500 and 250 < height < 310
    assert re.search(r'<g id="figure_1"><g id="patch_1"><path d="M 0 [^"]*" style="fill: #ffffff"/>', text)


def test_a_player_is_the_only_output_of_its_cell(executed):
    (output,) = executed[4]
    assert output.output_type == "execute_result" and set(output.data) == {"text/plain", "text/html"}
    assert output.data["text/plain"] == "Player(alt='A.', frames=2)"


def test_a_table_with_a_ragged_row_is_refused():
    with pytest.raises(ValueError, match="rows must have 2 entries, one for each heading"):
        notebook.table(("a", "b"), [(1, 2), (3,)])
