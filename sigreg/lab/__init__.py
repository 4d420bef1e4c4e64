"""The book's laboratory: data, networks, training, stored runs and figures. It needs the extra `sigreg[book]`.

Training and stored runs do without most of it, as a bare machine with a GPU does: what draws or shows asks for itself.
"""

from importlib.util import find_spec

NEEDED = (
    "IPython", "matplotlib", "matplotlib_inline", "pandas", "PIL", "scipy", "seaborn", "sklearn", "torchvision", "tqdm",
    "yaml",
)  # fmt: skip


def require_extra() -> None:
    """Say what to install where a package of the extra is missing."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise ModuleNotFoundError(f"sigreg.lab needs {', '.join(missing)}: pip install 'sigreg[book]'")
