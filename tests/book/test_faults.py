"""The tool that plants faults: it must tell a check that notices from one that does not."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("jupytext")
pytest.importorskip("matplotlib")

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "_tools"))

import faults  # noqa: E402

CHAPTER = """# 1. Toy

```{code-cell}
from sigreg.transform_chain import orthant_to_simplex
import torch

e = torch.tensor([[1.0, 3.0]])
```

```{code-cell}
p = orthant_to_simplex(e)
drawn = print("a figure")
assert abs(p[0, 1] - 0.75) < 1e-6  # three quarters
assert p.sum() > 0
```
"""


def test_outcomes_tell_red_from_green_and_from_other_errors(tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/01_toy.md").write_text(CHAPTER, encoding="utf-8")
    first, second = "abs(p[0, 1] - 0.75)", "p.sum() > 0"
    listed = [
        {"check": first, "fault": "the package forgets to divide", "in": "sigreg.transform_chain.orthant_to_simplex",
         "old": "return scaled / scaled.sum(-1, keepdim=True)", "new": "return scaled"},
        {"check": first, "fault": "another input", "old": "1.0, 3.0", "new": "2.0, 3.0"},
        {"check": second, "fault": "the sum is too large, and nobody minds", "old": "p.sum()", "new": "2 * p.sum()"},
        {"check": second, "fault": "the cell does not run", "old": "p.sum()", "new": "p.absent()"},
        {"check": second, "fault": "an earlier check fails first", "old": "1.0, 3.0", "new": "2.0, 3.0"},
    ]  # fmt: skip
    outcomes = faults.run_chapter(tmp_path, "01_toy", listed)
    assert outcomes[:3] == ["red", "red", "**not noticed**"]
    assert outcomes[3].startswith("AttributeError") and outcomes[4].startswith("red, but in line")


def test_every_fault_of_the_book_has_its_place():
    import yaml

    for stem, listed in yaml.safe_load((ROOT / "book/faults.yml").read_text(encoding="utf-8")).items():
        cells = faults.cells_of(ROOT, stem)
        for fault in listed:
            faults.place(cells, fault)
