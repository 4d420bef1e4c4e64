"""One variable names the device, else the best there is."""

import pytest
import torch

from sigreg.lab.device import default_device


@pytest.mark.parametrize(("cuda", "mps", "found"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_the_best_device_there_is_unless_one_is_named(monkeypatch, cuda, mps, found):
    monkeypatch.delenv("SIGREG_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert default_device().type == found
    monkeypatch.setenv("SIGREG_DEVICE", "meta")
    assert default_device() == torch.device("meta")
