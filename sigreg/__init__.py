"""SIGReg and the information-theoretic losses around it, derived and checked in *Encoders Want to Be Normal*.

Everything exported here needs torch and numpy only; the book's laboratory, ``sigreg.lab``, needs the extra
``sigreg[book]``.
"""

import importlib
import warnings
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from sigreg import (
    conditional_bottleneck,
    evaluation,
    gaussian_regularization,
    information_maximization,
    joint_embedding,
    rate_distortion,
    self_supervised,
    semi_supervised,
    transform_chain,
)
from sigreg.conditional_bottleneck import *
from sigreg.evaluation import *
from sigreg.gaussian_regularization import *
from sigreg.information_maximization import *
from sigreg.joint_embedding import *
from sigreg.rate_distortion import *
from sigreg.self_supervised import *
from sigreg.semi_supervised import *
from sigreg.transform_chain import *

try:
    __version__ = version("sigreg")
except PackageNotFoundError:  # a source tree on the path, never installed
    __version__ = "0.0.0"

_MOVED = {  # old name: where it is now
    "few_label_objective": "sigreg.lab.objectives.semi_supervised_objective",
    "info_nce": "sigreg.info_nce_bound",
    "random_views": "sigreg.lab.views.random_views",
    "self_supervised_loss": "sigreg.view_prediction_loss",
}

if not TYPE_CHECKING:  # a type checker knows the names, and would take every other for one of those that moved
    __all__ = [
        *conditional_bottleneck.__all__,
        *evaluation.__all__,
        *gaussian_regularization.__all__,
        *information_maximization.__all__,
        *joint_embedding.__all__,
        *rate_distortion.__all__,
        *self_supervised.__all__,
        *semi_supervised.__all__,
        *transform_chain.__all__,
    ]

    def __getattr__(name: str) -> Any:
        if name not in _MOVED:
            raise AttributeError(f"module 'sigreg' has no attribute {name!r}")
        module, new = _MOVED[name].rsplit(".", 1)
        warnings.warn(f"sigreg.{name} is now {_MOVED[name]}; the next release drops it", FutureWarning, stacklevel=2)
        return getattr(importlib.import_module(module), new)
