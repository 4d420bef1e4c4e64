"""Build the book with plain Sphinx, as on the day when Jupyter Book 1 no longer works.

    python book/_tools/plain.py          write conf.py from _config.yml, then build into _build/plain
    python book/_tools/plain.py conf     write conf.py only

Jupyter Book 1 is a layer over Sphinx: it turns `_config.yml` into settings and starts Sphinx. `conf.py` holds those
settings, and the build below may not import `jupyter_book` at all. CONTRIBUTING.md says what to do with it.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEAD = """# Written by book/_tools/plain.py from _config.yml. Sphinx alone needs nothing else.
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "book" / "_ext"))
"""
# Sphinx in a process where Jupyter Book cannot be imported.
BUILD = "import sys; sys.modules['jupyter_book'] = None; from sphinx.cmd.build import main; sys.exit(main())"
WITHOUT = ("jupyter_book", "sphinx_jupyterbook_latex", "sphinx_multitoc_numbering")  # what only Jupyter Book brings


def plain(text: str) -> str:
    """The settings that Jupyter Book wrote, less what is its own."""
    for name in WITHOUT:
        text, count = re.subn(rf"'{name}', |, '{name}'(?=\])", "", text)
        if count != 1:
            raise ValueError(f"the extension {name} stands {count} times in conf.py, once was expected")
    text = re.sub(r"(?m)^use_(?:jupyterbook_latex|multitoc_numbering) = .*\n", "", text)
    return HEAD + re.sub(r"(?m)\A(?:#.*\n)+", "", text)


def write_conf(root: Path = ROOT) -> Path:
    """Write conf.py at the top of the repository; git ignores it."""
    subprocess.run([Path(sys.executable).with_name("jupyter-book"), "config", "sphinx", "."], cwd=root, check=True)
    conf = root / "conf.py"
    conf.write_text(plain(conf.read_text(encoding="utf-8")), encoding="utf-8")
    return conf


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["conf"]):
        print(__doc__)
        return 2
    conf = write_conf()
    if arguments == ["conf"]:
        return 0
    try:
        options = ["-b", "html", "-W", "--keep-going", "-n", "-q", "-d", "_build/plain/doctrees"]
        return subprocess.run([sys.executable, "-c", BUILD, *options, ".", "_build/plain/html"], cwd=ROOT).returncode
    finally:
        conf.unlink()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
