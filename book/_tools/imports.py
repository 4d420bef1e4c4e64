"""Who imports whom in `sigreg`, as a picture: the arrows go down, from the laboratory to statements to engines.

    python book/_tools/imports.py FILE.svg     draw it
    python book/_tools/imports.py              list the arrows, one a line

`tests/book/test_imports.py` holds the package to it.
"""

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FLOORS = ("experiments", "laboratory", "statements", "engines")  # from above


def modules(root=ROOT):
    """Return `{dotted name: file}` of the package's modules, without the package itself."""
    files = [path for path in sorted((root / "sigreg").rglob("*.py")) if path.stem != "__init__"]
    return {".".join(path.relative_to(root).with_suffix("").parts): path for path in files}


def floor_of(name):
    """Return the number of a module's floor in `FLOORS`."""
    parts = name.split(".")
    if "experiments" in parts or name == "sigreg.lab.gpu":  # what `make gpu` runs: the experiments
        return 0
    if "lab" in parts:
        return 1
    return 3 if parts[-1].startswith("_") else 2


def arrows(root=ROOT):
    """Return all pairs `(who imports, what is imported)`, imports inside of functions too."""
    known = modules(root)
    found = set()
    for name, path in known.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            targets = []
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                targets = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            found.update((name, target) for target in targets if target in known and target != name)
    return sorted(found)


def chapters_below(root=ROOT):
    """Return `{chapter: chapters that how_to_read says it builds on}`, as numbers."""
    text = (root / "book/how_to_read.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d)\. [^|]*\|([^|]*)\|", text, re.MULTILINE)
    return {int(number): {int(n) for n in re.findall(r"\d", needs)} for number, needs in rows}


def chapter_of(name, root=ROOT):
    """Return the number of the chapter whose stem a statement module has, None where there is none."""
    stem = name.split(".")[-1]
    return next((int(p.name[:2]) for p in (root / "notebooks").glob("*.md") if p.stem[3:] == stem), None)


def draw(path, root=ROOT):
    """Write the picture as SVG."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "imports", "font.size": 8})
    import matplotlib.pyplot as plt

    rows = [[name for name in modules(root) if floor_of(name) == k] for k in range(len(FLOORS))]
    figure, ax = plt.subplots(figsize=(13, 6.5))
    place = {}
    for k, row in enumerate(rows):
        ax.text(-0.02, -k, FLOORS[k], ha="right", va="center", weight="bold")
        for i, name in enumerate(row):
            place[name] = ((i + 0.5) / len(row), -k - (0.14 if i % 2 else -0.14))
    for start, end in arrows(root):
        style = {"arrowstyle": "-|>", "color": "0.35", "lw": 0.4, "alpha": 0.5, "shrinkA": 9, "shrinkB": 9}
        ax.annotate("", place[end], place[start], arrowprops=style)
    for name, (x, y) in place.items():
        box = {"boxstyle": "round,pad=0.25", "fc": "white", "ec": "0.6", "lw": 0.6}
        ax.text(x, y, name.split(".")[-1].replace("_", " ").strip(), ha="center", va="center", size=6, bbox=box)
    ax.set(xlim=(-0.1, 1.02), ylim=(-len(FLOORS) + 0.6, 0.4))
    ax.axis("off")
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        draw(sys.argv[1])
    else:
        print("\n".join(f"{start} -> {end}" for start, end in arrows()))
