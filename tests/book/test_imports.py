"""Two floors: the arrows go down from the laboratory to the statements to the engines, and never up."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("imports", ROOT / "book" / "_tools" / "imports.py")
imports = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(imports)


def upward(root=ROOT):
    return [pair for pair in imports.arrows(root) if imports.floor_of(pair[1]) < imports.floor_of(pair[0])]


def sideways(root=ROOT):
    """Statements that import another chapter's, where `how_to_read` does not say that the one builds on the other."""
    below = imports.chapters_below(root)
    for start, end in imports.arrows(root):
        if imports.floor_of(start) == imports.floor_of(end) == 2:
            chapter, other = imports.chapter_of(start, root), imports.chapter_of(end, root)
            if chapter and other and other not in below[chapter]:
                yield start, end


def test_no_arrow_goes_up():
    assert len(imports.arrows()) > 50 and not upward()


def test_statements_import_only_the_chapters_they_build_on():
    assert sorted(imports.chapters_below()) == list(range(1, 9))
    assert not list(sideways())


@pytest.mark.parametrize("module, line", [
    ("sigreg/_validate.py", "from sigreg.evaluation import features"),
    ("sigreg/evaluation.py", "import sigreg.lab.data"),
    ("sigreg/transform_chain.py", "def late():\n    from sigreg.lab import fit"),
])  # fmt: skip
def test_an_arrow_upwards_is_seen(tmp_path, module, line):
    for path in imports.modules().values():
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    assert not upward(tmp_path)
    (tmp_path / module).write_text(f"{line}\n", encoding="utf-8")
    assert len(upward(tmp_path)) == 1


def test_statements_need_torch_and_numpy_only():
    """With every other package out of reach, `import sigreg` and its losses work."""
    code = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"scipy", "sklearn", "pandas", "matplotlib", "seaborn", "torchvision", "tqdm",
                                      "IPython", "PIL", "yaml"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
import torch, sigreg
z = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
print(sigreg.SIGReg(num_slices=8)(z) > 0, sigreg.effective_rank(z) > 3)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and done.stdout.split() == ["tensor(True)", "True"], done.stderr


@pytest.mark.parametrize("old, new", [("info_nce", "info_nce_bound"), ("self_supervised_loss", "view_prediction_loss")])
def test_an_old_name_works_and_warns(old, new):
    import sigreg

    with pytest.warns(FutureWarning, match=f"sigreg.{old} is now sigreg.{new}"):
        assert getattr(sigreg, old) is getattr(sigreg, new)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sigreg.nothing
