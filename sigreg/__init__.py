"""SIGReg and the information-theoretic losses around it, derived and checked in *Encoders Want to Be Normal*.

Everything exported here needs torch and numpy only; data and figures need the extras `sigreg[book]`.
"""

from importlib.metadata import PackageNotFoundError, version

from sigreg.conditional_bottleneck import (
    HeldOutInformation,
    bottleneck_loss,
    defensive_rate,
    gaussian_log_density_matrix,
    held_out_information,
    minibatch_rate,
    minibatch_relevance,
    pairwise_rate,
    pairwise_rate_bounds,
    pointwise_rate,
    variational_ceb_rate,
    vib_rate,
)
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
    annealing_tree,
    critical_beta,
    information_bottleneck,
    learnability_beta,
    mutual_information,
    rate_and_relevance,
    squared_information_bottleneck,
)
from sigreg.transform_chain import (
    entropy_ledger,
    flat_dirichlet,
    gaussian_to_orthant,
    knn_entropy,
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
    "HeldOutInformation",
    "InformationCurve",
    "SIGReg",
    "annealing_tree",
    "bottleneck_loss",
    "critical_beta",
    "defensive_rate",
    "entropy_ledger",
    "epps_pulley",
    "epps_pulley_closed_form",
    "flat_dirichlet",
    "gaussian_log_density_matrix",
    "gaussian_to_orthant",
    "held_out_information",
    "information_bottleneck",
    "knn_entropy",
    "label_simplex_information",
    "learnability_beta",
    "minibatch_rate",
    "minibatch_relevance",
    "mutual_information",
    "orthant_to_gaussian",
    "orthant_to_simplex",
    "pairwise_rate",
    "pairwise_rate_bounds",
    "pointwise_rate",
    "random_directions",
    "rate_and_relevance",
    "sigreg_collapse_value",
    "sigreg_null_mean",
    "simplex_to_orthant",
    "slice_free_sigreg",
    "sliced_sigreg",
    "squared_information_bottleneck",
    "variational_ceb_rate",
    "vib_rate",
]
