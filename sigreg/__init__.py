"""SIGReg and the information-theoretic losses around it, derived and checked in *Encoders Want to Be Normal*.

Everything exported here needs torch and numpy only; data and figures need the extras `sigreg[book]`.
"""

from importlib.metadata import PackageNotFoundError, version

from sigreg.gaussian_regularization import (
    SIGReg,
    epps_pulley,
    random_directions,
    slice_free_sigreg,
    sliced_sigreg,
)

try:
    __version__ = version("sigreg")
except PackageNotFoundError:  # a source tree on the path, never installed
    __version__ = "0.0.0"

__all__ = [
    "SIGReg",
    "epps_pulley",
    "random_directions",
    "slice_free_sigreg",
    "sliced_sigreg",
]
