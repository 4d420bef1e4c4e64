"""SIGReg and the information-theoretic losses around it, derived and checked in *Encoders Want to Be Normal*.

Everything exported here needs torch and numpy only; data and figures need the extras `sigreg[book]`.
"""

from importlib.metadata import PackageNotFoundError, version

from sigreg.gaussian_regularization import (
    SIGReg,
    epps_pulley,
    epps_pulley_closed_form,
    random_directions,
    sigreg_collapse_value,
    sigreg_null_mean,
    slice_free_sigreg,
    sliced_sigreg,
)
from sigreg.rate_distortion import (
    InformationCurve,
    critical_beta,
    information_bottleneck,
    learnability_beta,
    mutual_information,
)
from sigreg.transform_chain import (
    entropy_ledger,
    gaussian_to_orthant,
    label_simplex_information,
    orthant_to_gaussian,
    orthant_to_simplex,
    simplex_to_orthant,
)

try:
    __version__ = version("sigreg")
except PackageNotFoundError:  # a source tree on the path, never installed
    __version__ = "0.0.0"

__all__ = [
    "InformationCurve",
    "SIGReg",
    "critical_beta",
    "entropy_ledger",
    "epps_pulley",
    "epps_pulley_closed_form",
    "gaussian_to_orthant",
    "information_bottleneck",
    "label_simplex_information",
    "learnability_beta",
    "mutual_information",
    "orthant_to_gaussian",
    "orthant_to_simplex",
    "random_directions",
    "sigreg_collapse_value",
    "sigreg_null_mean",
    "simplex_to_orthant",
    "slice_free_sigreg",
    "sliced_sigreg",
]
