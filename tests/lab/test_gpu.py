"""`make gpu` in little, on the CPU."""

import json

import pytest
import torch

from sigreg.lab import gpu


@pytest.mark.parametrize(("part", "file"), [("bench", "loop.json"), ("records", "partial_collapse.tiny.json")])
def test_a_part_leaves_its_file(tmp_path, part, file, capsys):
    assert gpu.main(["--parts", part, "--device", "cpu", "--size", "tiny", "--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / file).read_text())
    assert f"left in {tmp_path}" in capsys.readouterr().out


def test_a_part_that_fails_does_not_stop_the_next(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "bench", lambda *_: 1 / 0)
    monkeypatch.setattr(gpu, "studies", lambda *_: print("studies ran"))
    assert gpu.main(["--parts", "bench,records", "--device", "cpu", "--size", "tiny", "--out", str(tmp_path)]) == 1
    found = capsys.readouterr()
    assert "studies ran" in found.out and "ZeroDivisionError" in found.err


def test_wrong_parts_and_missing_gpus_are_named(capsys, monkeypatch):
    with pytest.raises(SystemExit):
        gpu.main(["--parts", "bench,dance", "--device", "cpu"])
    assert "no part dance: choose from tests, bench" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--device", "cuda"]) == 2
    assert "--device cpu --size tiny" in capsys.readouterr().err


def test_a_chapter_runs_as_a_script(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "01_x.md"
    path.write_text("# 1. X\n\n```{code-cell}\n---\ntags: [a]\n---\nx = 2\nif x > 2:\n    %pip install y\n```\n\n"
                    "```{code-cell}\nprint(x + 1)\n```\n\n```python\nnot a cell\n```\n")  # fmt: skip
    monkeypatch.setenv("SIGREG_DEVICE", "cpu")
    gpu.run_chapter(path, torch.device("cpu"))
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0] == "3" and set(json.loads(lines[-1])) == {"seconds", "host_megabytes"}
