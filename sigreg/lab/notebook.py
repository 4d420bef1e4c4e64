"""What every chapter calls: one start, computed prose and tables, and texts kept for other pages."""

import importlib.metadata
import os
import platform

from sigreg.lab import require_extra

require_extra()

import torch
from IPython import get_ipython
from IPython.display import display
from matplotlib.figure import Figure

from sigreg.lab.device import default_device
from sigreg.lab.figures import svg, use_style
from sigreg.lab.preset import is_full


def start() -> None:
    """Set the figures' style and form (SVG) and the thread count, and print what the chapter runs on.

    The number of threads is ``OMP_NUM_THREADS`` where that is set: the last digits of sums depend on it, and stored
    outputs are made with one thread.

    Raises:
        ValueError: ``OMP_NUM_THREADS`` is not a positive integer.

    >>> start()
    sigreg ... · Python ... · torch ... · device ... · preset ...
    """
    use_style()
    if (shell := get_ipython()) is not None:
        _show_svg(shell)
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads:
        if not threads.strip().isdigit() or int(threads) < 1:
            raise ValueError(f"the variable OMP_NUM_THREADS must be a positive integer, got {threads!r}")
        torch.set_num_threads(int(threads))
    try:
        version = importlib.metadata.version("sigreg")
    except importlib.metadata.PackageNotFoundError:
        version = "(not installed)"
    print(
        f"sigreg {version} · Python {platform.python_version()} · torch {torch.__version__}"
        f" · device {default_device()} · preset {'full' if is_full() else 'default'}"
    )


def _show_svg(shell) -> None:
    """Show figures as SVG. The import comes first: it lets the inline backend choose its own form, once."""
    import matplotlib_inline.backend_inline

    inline = matplotlib_inline.backend_inline.InlineBackend.instance(parent=shell)
    inline.shell = shell
    inline.figure_formats = {"svg"}
    shell.display_formatter.formatters["image/svg+xml"].for_type(Figure, svg)


def say(text: str) -> None:
    """Show ``text`` as Markdown prose: sentences whose numbers are computed and put in by an f-string.

    Args:
        text: Markdown, with LaTeX between dollars. Where Markdown cannot be shown (a terminal) it is printed.

    Raises:
        TypeError: ``text`` is not a str.

    >>> say(f"Twice two is **{2 * 2}**.")
    Twice two is **4**.
    """
    _require_str("text", text)
    if get_ipython() is None:
        print(text)
    else:
        display({"text/markdown": text, "text/plain": text}, raw=True)


def table(head, rows) -> str:
    """A Markdown table, for :func:`say`.

    Args:
        head: the column headings.
        rows: for each row as many entries; each is shown as ``str`` shows it, so format numbers first.

    Raises:
        ValueError: a row has more or fewer entries than there are headings.

    >>> print(table(("shape", "corners"), [("triangle", 3)]))
    | shape | corners |
    | --- | --- |
    | triangle | 3 |
    """
    for row in rows:
        if len(row) != len(head):
            raise ValueError(f"rows must have {len(head)} entries, one for each heading, got {row!r}")
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in (head, ["---"] * len(head), *rows))


def glue(name: str, text: str) -> None:
    """Keep a computed text under ``name``, so that other pages can show it with ``{glue:text}``.

    Does nothing outside a notebook, or where the book's tools (myst_nb) are not installed, as in Colab. The page that
    shows the text gives the role ``{glue:text}`` the content ``../notebooks/NN_stem.ipynb::name:s``; across pages the
    closing ``:s`` is needed.

    Args:
        name: a name, unique in the book.
        text: what the page shows: a number already rounded, e.g. ``f"{value:.3g}"``.

    Raises:
        TypeError: ``name`` or ``text`` is not a str.

    >>> glue("answer", f"{42:d}")
    """
    _require_str("name", name)
    _require_str("text", text)
    try:
        from myst_nb import glue as myst_glue
    except ImportError:
        return
    if get_ipython() is not None:
        myst_glue(name, text, display=False)


def _require_str(name, value):
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, got {type(value).__name__}: format it first, as in f'{{value:.3g}}'")
