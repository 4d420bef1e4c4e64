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
from sigreg.information_maximization import donsker_varadhan, info_nce, second_order_bound
from sigreg.joint_embedding import (
    barlow_twins_loss,
    byol_loss,
    logdet_entropy,
    moco_loss,
    negative_cosine,
    nt_xent_loss,
    pairwise_entropy,
    simsiam_loss,
    vicreg_logdet_loss,
    vicreg_loss,
    vicreg_pairdist_loss,
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
from sigreg.self_supervised import (
    effective_rank,
    knn_accuracy,
    linear_probe,
    random_views,
    self_supervised_loss,
    view_prediction_rate,
)
from sigreg.semi_supervised import class_sigreg, few_label_objective, sigreg_weight, standard_code_rate
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
    "barlow_twins_loss",
    "bottleneck_loss",
    "byol_loss",
    "class_sigreg",
    "critical_beta",
    "defensive_rate",
    "donsker_varadhan",
    "effective_rank",
    "entropy_ledger",
    "epps_pulley",
    "epps_pulley_closed_form",
    "few_label_objective",
    "flat_dirichlet",
    "gaussian_log_density_matrix",
    "gaussian_to_orthant",
    "held_out_information",
    "info_nce",
    "information_bottleneck",
    "knn_accuracy",
    "knn_entropy",
    "label_simplex_information",
    "learnability_beta",
    "linear_probe",
    "logdet_entropy",
    "minibatch_rate",
    "minibatch_relevance",
    "moco_loss",
    "mutual_information",
    "negative_cosine",
    "nt_xent_loss",
    "orthant_to_gaussian",
    "orthant_to_simplex",
    "pairwise_entropy",
    "pairwise_rate",
    "pairwise_rate_bounds",
    "pointwise_rate",
    "random_directions",
    "random_views",
    "rate_and_relevance",
    "second_order_bound",
    "self_supervised_loss",
    "sigreg_collapse_value",
    "sigreg_null_mean",
    "sigreg_weight",
    "simplex_to_orthant",
    "simsiam_loss",
    "slice_free_sigreg",
    "sliced_sigreg",
    "squared_information_bottleneck",
    "standard_code_rate",
    "variational_ceb_rate",
    "vib_rate",
    "vicreg_logdet_loss",
    "vicreg_loss",
    "vicreg_pairdist_loss",
    "view_prediction_rate",
]
