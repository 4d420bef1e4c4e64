"""One variable asks for the full preset."""

import pytest

from sigreg.lab.preset import is_full


@pytest.mark.parametrize("value, expected", [(None, False), ("", False), ("0", False), ("1", True)])
def test_preset(monkeypatch, value, expected):
    monkeypatch.delenv("SIGREG_FULL", raising=False)
    if value is not None:
        monkeypatch.setenv("SIGREG_FULL", value)
    assert is_full() is expected
