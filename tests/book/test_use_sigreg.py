"""Every snippet of book/use_sigreg.md runs, in order, and does what the page says."""

import importlib.util
import json
import os
import pathlib
import re
import shlex
import socket
import subprocess
import sys

import pytest
import torch

from sigreg import random_directions, sliced_sigreg

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "book" / "use_sigreg.md"
TEXT = PAGE.read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)
SHELL = re.findall(r"^```bash\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)
COMMANDS = [shlex.split(line) for block in SHELL for line in block.splitlines()]
SCRIPTS = [s for s in SNIPPETS if re.match(r"# \w+\.py\n", s)]
INLINE = [s for s in SNIPPETS if s not in SCRIPTS]


@pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning", "ignore::UserWarning:lightning_fabric")
@pytest.mark.filterwarnings("ignore:.*num_workers", "ignore::FutureWarning:pytorch_lightning")
def test_snippets_run_in_order(capsys, monkeypatch, tmp_path):
    pytest.importorskip("pytorch_lightning")
    monkeypatch.chdir(tmp_path)
    page = {"__name__": "page"}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for number, snippet in enumerate(INLINE):
            exec(compile(snippet, f"{PAGE.name}, snippet {number}", "exec"), page)
    finally:
        torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    for line in ("healthy:   1.0525", "collapsed: 0.4020", "over the whole line: 1.0594", "torch.float32",
                 "[0, 3]: period 33.51", "[0, 5]: period 10.05"):
        assert line in printed
    steps = re.findall(r"step \d+: agreement ([\d.]+), SIGReg ([\d.]+)", printed)
    first, last = (float(steps[i][1]) for i in (0, -1))
    assert first > 10 and last < 3  # far from Gaussian at first, near 1 in the end
    assert float(re.search(r"held out: ([\d.]+)", printed)[1]) < 8
    z = page["encoder"](page["two_views"]())
    assert (z[0] - z[1]).square().mean() < 0.5 * z[0].var(0).mean()  # and the views agree
    each, together = (float(x) for x in re.search(r"each step: ([\d.]+), all together: ([\d.]+)", printed).groups())
    assert each < 2 < together  # collapse in time shows in one reading only
    alone, helped = map(int, re.search(r"steps out of collapse: (\d+) alone, (\d+) with", printed).groups())
    assert helped < alone / 3
    assert "['loss', 'sigreg', 'views']" not in printed and "['invariance', 'loss', 'sigreg', 'views']" in printed
    if importlib.util.find_spec("transformers"):
        assert page["trainer_class"]().compute_loss
    assert not list(tmp_path.iterdir())  # no snippet left a file


def speed_rows():
    """The table of speed and memory, from the stored measurements: the processor first, then each card."""
    stored = json.loads((ROOT / "benchmarks/results/gaussian_regularization.json").read_text())
    rows = []
    for record in sorted(stored["records"], key=lambda record: record["device"] != "cpu"):
        if record["allocator"] == "default":
            where, how = ("CPU", "") if record["device"] == "cpu" else (record["device"].split()[1], " captured")
            times = [record["milliseconds"][name + how]["median"] for name in ("sigreg", "lightly")]
            memory = [record["peak_extra_megabytes"][name] for name in ("sigreg", "lightly")]
            cells = " | ".join(f"{number:.2g}" if number < 100 else f"{number:.0f}" for number in times + memory)
            rows.append(f"| {where} | {', '.join(str(record[key]) for key in 'NDM')} | {cells} |")
    return rows, stored["environment"]["cpu"]


def test_speed_is_what_was_measured():
    section = TEXT.split("## How fast it is", 1)[1].split("\n## ", 1)[0]
    rows, processor = speed_rows()
    shown = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert shown == rows, "the table is now\n" + "\n".join(rows)
    assert processor["simd"] == "AVX512" and processor["threads"] == 2  # as the page says


def values_of(command, folder, **environment):
    """{(process, step): SIGReg} of a run of the script."""
    result = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr
    found = re.findall(r"rank (\d) step (\d) SIGReg ([\d.]+)", result.stdout)
    return {(int(rank), int(step)): float(value) for rank, step, value in found}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without torch.distributed")
def test_two_processes_train_as_one(tmp_path):
    (script,) = SCRIPTS
    (tmp_path / "train_ddp.py").write_text(script)
    (arguments,) = (words[1:] for words in COMMANDS if words[0] == "torchrun")
    assert arguments == ["--nproc-per-node", "2", "train_ddp.py"]
    port = free_port()
    one = values_of([sys.executable, "train_ddp.py"], tmp_path,
                    RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)  # fmt: skip
    launcher = [sys.executable, "-m", "torch.distributed.run", "--master-port", free_port()]
    two = values_of([*launcher, *arguments], tmp_path)
    assert len(one) == 5 and len(two) == 10
    for (_, step), value in two.items():  # the last step has weights that four gradients made
        assert value == two[0, step], "processes disagree"
        assert value == pytest.approx(one[0, step], rel=1e-4)
    assert abs(one[0, 4] - one[0, 0]) > 0.05 * one[0, 0]  # and the gradients did something


def test_commands_and_links_lead_somewhere():
    project = (ROOT / "pyproject.toml").read_text()
    assert {words[0] for words in COMMANDS} == {"pip", "torchrun"}
    (install,) = (words for words in COMMANDS if words[0] == "pip")
    assert install[1] == "install"
    assert f'Source = "{install[2].removeprefix("git+").removesuffix("@main")}"' in project
    assert f'"torch>={re.search(r"torch ([0-9.]+) or later", TEXT)[1]}"' in project
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert target.startswith("https://") or (PAGE.parent / target).exists(), target
    for path in re.findall(r"`(benchmarks/[^`]+)`", TEXT):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("lam", [0.05, 0.3])
def test_lejepa_loss_of_lightly_is_the_loop(monkeypatch, lam):
    loss = pytest.importorskip("lightly.loss")
    if not hasattr(loss, "LeJEPALoss"):
        pytest.skip("lightly before 1.6 has no LeJEPALoss")
    generator = torch.Generator().manual_seed(0)
    z, a = torch.randn(3, 64, 16, generator=generator), random_directions(32, 16, generator=generator)
    theirs = loss.LeJEPALoss(lambda_param=lam, sigreg_num_vectors=32)
    monkeypatch.setattr(theirs.sigreg, "_generate_unit_vectors", lambda *args, **kwargs: a.T)
    for n_global in (2, 3):
        if n_global == 3:  # all views global: the loop of the page, once lightly lets the local ones be none
            ours = (1 - lam) * (z - z.mean(0)).square().mean() + lam * sliced_sigreg(z, a)
            invariance = loss.lejepa_loss.lejepa_invariance_loss(all_proj=z, global_proj=z)
            torch.testing.assert_close((1 - lam) * invariance + lam * theirs.sigreg(z), ours)
        else:
            ours = (1 - lam) * (z - z[:2].mean(0)).square().mean() + lam * sliced_sigreg(z, a)
            torch.testing.assert_close(theirs(global_proj=z[:2], local_proj=z[2:]), ours)
