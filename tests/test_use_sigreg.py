"""Every snippet of book/use_sigreg.md runs, in order, and does what the page says."""

import os
import pathlib
import re
import subprocess
import sys

import pytest
import torch

from sigreg.gaussian_regularization import sigreg_null_mean

PAGE = pathlib.Path(__file__).parent.parent / "book" / "use_sigreg.md"
SNIPPETS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)
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
    for line in ("healthy:   1.0525", "collapsed: 0.4020", "over the whole line: 1.0594", "torch.float32"):
        assert line in printed
    steps = re.findall(r"step \d+: agreement ([\d.]+), SIGReg ([\d.]+)", printed)
    first, last = (float(steps[i][1]) for i in (0, -1))
    assert first > 10 and last < 3  # far from Gaussian at first, near 1 in the end
    assert float(re.search(r"held out: ([\d.]+)", printed)[1]) < 8
    z = page["encoder"](page["two_views"]())
    assert (z[0] - z[1]).square().mean() < 0.5 * z[0].var(0).mean()  # and the views agree


def test_distributed_script_runs_under_torchrun(tmp_path):
    if not torch.distributed.is_available():
        pytest.skip("torch was built without torch.distributed")
    (script,) = SCRIPTS
    (tmp_path / "train_ddp.py").write_text(script)
    result = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "train_ddp.py"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr
    values = re.findall(r"process \d: ([\d.]+)", result.stdout)
    assert len(values) == 2 and values[0] == values[1]
    assert 0.3 < float(values[0]) < 5


def test_numbers_of_the_page():
    text = PAGE.read_text()
    assert "loses 0.7% of the integral" in text
    assert 1 - sigreg_null_mean() / sigreg_null_mean(t_max=float("inf")) == pytest.approx(0.0065, abs=5e-4)
    for t_max, knots, period in ((3.0, 17, "33.5"), (5.0, 9, "10.05")):
        assert f"{2 * torch.pi * (knots - 1) / t_max:.4g}".startswith(period[:4]) and period in text
