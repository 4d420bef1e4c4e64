"""The bar of progress is tqdm's, and where tqdm is missing the same calls show nothing."""

import importlib
import sys

from sigreg.lab import progress


def test_the_same_calls_work_without_tqdm(monkeypatch, capfd):
    try:
        with monkeypatch.context() as bare:
            bare.setitem(sys.modules, "tqdm", None)
            stand_in = importlib.reload(progress).tqdm
        assert list(stand_in([1, 2], desc="units", unit="unit", mininterval=0.2, disable=False)) == [1, 2]
        with stand_in(total=2, unit="B") as bar:
            bar.update(2)
            bar.update()
        assert capfd.readouterr() == ("", "")
    finally:
        importlib.reload(progress)
    assert progress.tqdm.__module__.startswith("tqdm")
