"""The book's laboratory: data, networks, training, stored runs and figures. It needs the extra `sigreg[book]`."""

from importlib.util import find_spec

NEEDED = ("IPython", "matplotlib", "pandas", "PIL", "scipy", "seaborn", "sklearn", "torchvision", "tqdm")

if _missing := [name for name in NEEDED if find_spec(name) is None]:
    raise ModuleNotFoundError(f"sigreg.lab needs {', '.join(_missing)}: pip install 'sigreg[book]'")
