"""What the live figures of the book are checked against, and the grids that they show.

    python book/_tools/live.py          write the cases of the tests and the grids of book/_static/live
    python book/_tools/live.py check    say which of them the package would now make differently

``tests/book/live_cases.json`` holds codes, directions, and what `sigreg.sliced_sigreg`, its gradient and
`sigreg.radial_sigreg` say of them; tests/book/test_live.py holds the script of the pages, book/_static/live/sigreg.js,
against it.
"""

import json
import sys
from pathlib import Path

import torch

from sigreg import radial_sigreg, random_directions, sigreg_null_mean, sliced_sigreg

LIVE = Path(__file__).resolve().parents[1] / "_static" / "live"
CASES = Path(__file__).resolve().parents[2] / "tests" / "book" / "live_cases.json"
SHAPES = [(5, 1, 1, 17, 3.0), (12, 2, 4, 17, 3.0), (40, 8, 16, 17, 3.0), (24, 64, 8, 17, 3.0), (10, 3, 5, 33, 4.5)]


def case(n, dim, slices, knots, t_max):
    """Codes of one size, drawn wide, and what the package says of them."""
    generator = torch.Generator().manual_seed(n * dim)
    z = 1.5 * torch.randn(n, dim, generator=generator, dtype=torch.float64)
    z.requires_grad_()
    directions = random_directions(slices, dim, generator=generator, dtype=torch.float64)
    grid = {"knots": knots, "t_max": t_max}
    value = sliced_sigreg(z, directions, **grid)
    (gradient,) = torch.autograd.grad(value, z)
    return {
        "dim": dim,
        **grid,
        "z": z.flatten().tolist(),
        "directions": directions.flatten().tolist(),
        "value": value.item(),
        "gradient": gradient.flatten().tolist(),
        "radial": radial_sigreg(z, **grid).item(),
        "null": sigreg_null_mean(**grid),
    }


def cases():
    return [case(*shape) for shape in SHAPES]


# What is stored where, and the function that makes it.
STORED = {CASES: cases}


def difference(a, b):
    """The largest difference of the numbers in two structures of one shape; infinite where the shapes differ."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return max((difference(a[key], b[key]) for key in a), default=0.0)
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return max((difference(x, y) for x, y in zip(a, b, strict=True)), default=0.0)
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return abs(a - b)
    return 0.0 if a == b else float("inf")


def problems(stored=None, tolerance=1e-5):
    """A line for each stored file that the package would not make again."""
    found = []
    for path, make in (stored or STORED).items():
        apart = difference(json.loads(path.read_text()), make()) if path.exists() else float("inf")
        if not apart <= tolerance:
            found.append(f"{path.name} is {apart:.2g} away from the package: run `python book/_tools/live.py`")
    return found


def main(arguments):
    if arguments not in ([], ["check"]):
        print(__doc__)
        return 2
    if not arguments:
        for path, make in STORED.items():
            path.write_text(json.dumps(make(), separators=(",", ":"), ensure_ascii=False) + "\n")
    found = problems()
    print(*found or ["the live figures show what the package computes"], sep="\n")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
