"""The one place that reads the preset: how much work a chapter does."""

import os


def is_full() -> bool:
    """Whether ``SIGREG_FULL=1`` asks for the full preset (whole data set, longer runs) and not the default.

    Raises:
        ValueError: ``SIGREG_FULL`` is set to something other than 0 or 1.

    >>> is_full() in {True, False}
    True
    """
    value = os.environ.get("SIGREG_FULL", "").strip()
    if value in {"", "0"}:
        return False
    if value == "1":
        return True
    raise ValueError(f"the environment variable SIGREG_FULL must be 0 or 1, got {value!r}")
