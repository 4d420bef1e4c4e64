"""Thousands of bad calls: each is answered by a TypeError or ValueError that names the argument, or by a NaN.

One argument of a good call is replaced by a bad value. Allowed answers: a clear error; a result that is not finite
(the documented fate of NaN and infinity); a result on the meta device for codes there; and, where only the *kind* of
a value was changed (its precision, the width of an integer, the size of an id), the result of the good call.
"""

import math
import re
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch

import sigreg
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
    vicreg_information,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # quantized, sparse

MODULES = (
    conditional_bottleneck, evaluation, gaussian_regularization, information_maximization, joint_embedding,
    rate_distortion, self_supervised, semi_supervised, transform_chain,
)  # fmt: skip


def codes(seed, rows=24, dim=3):
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))


def seeded():
    return torch.Generator().manual_seed(0)


def labels(rows=24, classes=3):
    return torch.arange(rows) % classes


def shared(**arguments):
    return {**arguments, "sync": True, "group": None}


def pair():
    return {"z_a": codes(0), "z_b": codes(1)}


def gaussians():
    return {"w": codes(0), "mean": codes(1), "log_std": 0.1 * codes(2)}


def four():
    return {"p_a": codes(0), "p_b": codes(1), "z_a": codes(2), "z_b": codes(3), "stop_gradient": True}


def simplex():
    return codes(0, 6).abs() + 0.1


def grid():
    return {"knots": 17, "t_max": 3.0}


def law():
    joint = codes(0, 4, 3).abs().double() + 0.1
    return joint / joint.sum()


def solved(joint):
    return rate_distortion.information_bottleneck(joint, torch.tensor([1.5, 6.0]).double(), max_rounds=3)


WRAPPED = {  # where the call is not the name alone, or the result holds more than numbers
    "SIGReg": lambda z, generator, **settings: sigreg.SIGReg(**settings)(z, generator),
    "backward_in_parts": lambda encode, loss: sigreg.backward_in_parts(encode, [codes(0), codes(1)], loss),
    "information_bottleneck": lambda **arguments: sigreg.information_bottleneck(**arguments).rate,
    "squared_information_bottleneck": lambda **arguments: sigreg.squared_information_bottleneck(**arguments).rate,
    "annealing_tree": lambda **arguments: sigreg.annealing_tree(**arguments)[1],
}

GOOD = {
    "random_directions": lambda: {"num_slices": 8, "dim": 3, "generator": seeded(), "dtype": torch.float32},
    "epps_pulley": lambda: {"x": codes(0), **grid()},
    "epps_pulley_closed_form": lambda: {"x": codes(0)},
    "sigreg_null_mean": grid,
    "sigreg_collapse_value": grid,
    "sliced_sigreg": lambda: shared(z=codes(0).view(2, 12, 3), directions=torch.eye(3), **grid()),
    "SIGReg": lambda: shared(z=codes(0).view(2, 12, 3), generator=seeded(), num_slices=8, **grid()),
    "slice_free_sigreg": lambda: shared(z=codes(0).view(2, 12, 3), slice_dim=2),
    "radial_sigreg": lambda: shared(z=codes(0).view(2, 12, 3), **grid()),
    "radial_null_mean": lambda: {"dim": 3, **grid()},
    "backward_in_parts": lambda: {"encode": torch.nn.Linear(3, 3), "loss": sigreg.SIGReg(8)},
    "mutual_information": lambda: {"joint": law()},
    "rate_and_relevance": lambda: {"joint": law(), "encoder": torch.full((4, 2), 0.5).double()},
    "critical_beta": lambda: {"joint": law()},
    "learnability_beta": lambda: {"joint": law(), "n_starts": 2, "generator": seeded()},
    "information_bottleneck": lambda: {
        "joint": law(), "betas": torch.tensor([1.5, 6.0]).double(), "n_codewords": 2, "generator": seeded(),
        "tolerance": 1e-6, "relative_tolerance": 1e-12, "max_rounds": 3,
    },
    "squared_information_bottleneck": lambda: {
        "joint": law(), "multipliers": torch.tensor([0.1, 0.2]).double(), "n_codewords": 2, "generator": seeded(),
        "steps": 5,
    },
    "annealing_tree": lambda: {"joint": law(), "curve": solved(law())},
    "vicreg_loss": lambda: shared(**pair(), invariance=25.0, variance=25.0, covariance=1.0),
    "vicreg_logdet_loss": lambda: shared(**pair(), invariance=25.0, entropy=1.0, floor=1e-4),
    "vicreg_pairdist_loss": lambda: shared(**pair(), invariance=25.0, entropy=1.0, sigma=1.0, bound="upper"),
    "logdet_entropy": lambda: shared(z=codes(0), floor=1e-4),
    "pairwise_entropy": lambda: shared(z=codes(0), sigma=1.0, bound="lower"),
    "barlow_twins_loss": lambda: shared(**pair(), redundancy=5e-3),
    "nt_xent_loss": lambda: shared(**pair(), temperature=0.5),
    "moco_loss": lambda: shared(query=codes(0), key=codes(1), queue=codes(2, 7), temperature=0.07),
    "negative_cosine": lambda: shared(prediction=codes(0), target=codes(1)),
    "simsiam_loss": lambda: shared(**four()),
    "byol_loss": lambda: shared(**four()),
    "gaussian_log_density_matrix": gaussians,
    "minibatch_rate": lambda: shared(**gaussians(), labels=labels(), include_self=True),
    "defensive_rate": lambda: shared(**gaussians(), labels=labels(), weight=0.5),
    "pairwise_rate": lambda: shared(mean=codes(1), log_std=0.1 * codes(2), labels=labels(), weight=0.5),
    "pairwise_rate_bounds": lambda: shared(mean=codes(1), log_std=0.1 * codes(2)),
    "vib_rate": lambda: shared(mean=codes(1), log_std=0.1 * codes(2)),
    "variational_ceb_rate": lambda: shared(
        mean=codes(1), log_std=0.1 * codes(2), labels=labels(), class_mean=codes(3, 3), class_log_std=codes(4, 3)
    ),
    "bottleneck_loss": lambda: shared(logits=codes(0), labels=labels(), rate=torch.tensor(2.0), beta=0.5),
    "minibatch_relevance": lambda: shared(**gaussians(), labels=labels(), include_self=True),
    "pointwise_rate": lambda: {**gaussians(), "reference_mean": codes(3, 9), "reference_log_std": codes(4, 9)},
    "held_out_information": lambda: {**gaussians(), "labels": labels(), "weight": 0.5},
    "view_prediction_rate": lambda: shared(z=codes(0).view(2, 12, 3), sigma=1.0),
    "view_prediction_loss": lambda: shared(
        z=codes(0).view(2, 12, 3), generator=seeded(), weight=1.0, sigma=1.0, num_slices=8, noise=True
    ),
    "lejepa_loss": lambda: shared(
        global_views=codes(0).view(2, 12, 3), local_views=codes(1).view(2, 12, 3), generator=seeded(), weight=0.05,
        num_slices=8, pooled=False, scale=0.5,
    ),
    "class_sigreg": lambda: shared(
        w=codes(0), responsibilities=codes(1).softmax(1), scale=0.5, directions=torch.eye(3), generator=seeded()
    ),
    "sigreg_weight": lambda: {"dim": 16, "count": 256, "nats": 1.0},
    "standard_code_rate": lambda: {"dim": 16, "sigma": 0.3},
    "donsker_varadhan": lambda: {
        "scores": codes(0, 3), "joint": torch.full((3, 3), 1 / 9), "product": torch.full((3, 3), 1 / 9)
    },
    "second_order_bound": lambda: {
        "scores": codes(0, 3), "joint": torch.full((3, 3), 1 / 9), "product": torch.full((3, 3), 1 / 9)
    },
    "info_nce_bound": lambda: {"scores": codes(0, 3)},
    "features": lambda: {"encoder": torch.nn.Flatten(), "images": codes(0), "batch_size": 10},
    "linear_probe": lambda: {
        "train_x": codes(0), "train_y": labels(), "test_x": codes(1, 9), "test_y": labels(9), "ridge": 0.1,
        "max_iter": 20,
    },
    "knn_accuracy": lambda: {
        "train_x": codes(0), "train_y": labels(), "test_x": codes(1, 9), "test_y": labels(9), "k": 5, "batch_size": 4
    },
    "effective_rank": lambda: {"z": codes(0)},
    "flat_dirichlet": lambda: {"n": 4, "n_classes": 3, "generator": seeded(), "dtype": torch.float32},
    "simplex_to_orthant": lambda: {"p": simplex() / simplex().sum(1, keepdim=True), "generator": seeded()},
    "orthant_to_simplex": lambda: {"e": simplex()},
    "orthant_to_gaussian": lambda: {"e": simplex(), "route": "quantile", "generator": seeded()},
    "gaussian_to_orthant": lambda: {"g": simplex(), "route": "quantile"},
    "entropy_ledger": lambda: {"n_classes": 4},
    "label_simplex_information": lambda: {"n_classes": 4},
    "knn_entropy": lambda: {"samples": codes(0, 100), "k": 3},
    "invariance_term": lambda: shared(**pair()),
    "variance_term": lambda: shared(z=codes(0), target=1.0, floor=1e-4),
    "covariance_term": lambda: shared(z=codes(0)),
    "cross_correlation": lambda: shared(**pair(), floor=1e-5),
    "consistency_loss": lambda: shared(weak_logits=5 * codes(0), strong_logits=codes(1), threshold=0.5),
    "gaussian_bounds": lambda: {"correlation": 0.5},
    "variance_covariance_entropy": lambda: {"z": codes(0)},
    "logdet_error": lambda: {"n": 20, "dim": 3},
    "infonce_information": lambda: {"z_a": codes(0), "z_b": codes(0) + 0.1 * codes(1), "block": 10},
    "ridge_probe": lambda: {"z": codes(0), "labels": labels(), "radius": 1.0, "classes": 3},
    "sliced_moments": lambda: {"z": codes(0), "directions": torch.eye(3), "square": True},
    "slice_free_moments": lambda: {"z": codes(0)},
}  # fmt: skip
HOME = {  # of what stands on the pages of the API and is not offered at top level
    **dict.fromkeys(("invariance_term", "variance_term", "covariance_term", "cross_correlation"), joint_embedding),
    "consistency_loss": semi_supervised,
    "gaussian_bounds": information_maximization,
    **dict.fromkeys(
        ("variance_covariance_entropy", "logdet_error", "infonce_information", "ridge_probe", "sliced_moments",
         "slice_free_moments"), vicreg_information,
    ),
}  # fmt: skip

OPTIONAL = {
    "labels", "joint", "product", "local_views", "generator", "group", "num_slices", "n_codewords", "dtype"
}  # None is a choice
FREE_ROWS = {  # arguments whose rows, or leading axes, nothing else fixes
    "queue", "directions", "reference_mean", "global_views", "local_views", "z", "images", "samples", "p", "e", "g",
    "logits", "scores", "x", "betas", "multipliers",
}  # fmt: skip
GOOD_AFTER_ALL = {  # another good call, with another result
    ("gaussian_log_density_matrix", "w", "rows"),
    ("linear_probe", "test_y", "same ids"),
    ("knn_accuracy", "test_y", "same ids"),
    ("consistency_loss", "weak_logits", "not finite"),  # minus infinity rules a class out
    ("consistency_loss", "strong_logits", "not finite"),
}
LEADING = {"z", "images", "p", "e", "g", "encoder"}
FREE_WIDTH = {
    "z", "x", "images", "p", "e", "g", "samples", "scores", "responsibilities", "logits", "train_x", "test_x"
}  # fmt: skip
OBJECTS = (None, "many", [1.0], {"a": 1}, object(), 1j, torch, np.ones(3), np.array("x"), b"x", (), {1})


def bad_tensors(name, value):
    """(kind, value); kinds that begin with ``same`` may be answered with the result of the good call."""
    for thing in OBJECTS:
        yield "object", thing
    yield from (("object", 3), ("object", 0.5), ("object", True), ("object", np.float32(1)), ("object", value.numpy()))
    yield "object", value.tolist()
    yield "complex", value.to(torch.complex64)
    yield "bool", value > 0
    yield "sparse", value.to_sparse()
    yield "sparse", value.to_sparse() if value.ndim != 2 else value.to_sparse_csr()
    yield "meta", value.to("meta")
    yield "nested", torch.nested.nested_tensor([value, value])
    yield "quantized", torch.quantize_per_tensor(value.float(), 0.1, 0, torch.qint8)
    yield "rank", value.flatten()[0] if value.ndim else value[None]
    yield "rank", torch.tensor([])
    if value.ndim:
        if not (name in LEADING and value.ndim > 1):
            yield "rank", value[0]
            yield "rank", value[None]
        yield "rank", value[(None,) * 65]
        yield "empty", value[:0]
        yield "empty", value[..., :0]
        if name not in FREE_ROWS:
            yield "rows", value[:-1]
            yield "rows", torch.cat([value, value[:1]])
    if value.is_floating_point():
        if value.ndim > 1 and name not in FREE_WIDTH:
            yield "width", value[..., :-1]
            yield "width", torch.cat([value, value[..., :1]], -1)
        for width in (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8):
            yield "integer", value.to(width)
        for precision in (torch.float16, torch.bfloat16, torch.float64):
            yield "same precision", value.to(precision)
        for number in (math.nan, math.inf, -math.inf):
            for place in (0, -1):
                broken = value.clone()
                broken.view(-1)[place] = number
                yield "not finite", broken
            yield "not finite", torch.full_like(value, number)
    else:
        for width in (torch.int8, torch.int16, torch.int32, torch.uint8):
            yield "same width", value.to(width)
        yield "same ids", 10**9 * value
        yield "same ids", (2**62 // 3) * value
        yield "floating", value.float()
        yield "floating", value.half()
        yield "negative", value - 1
        yield "negative", -(10**9) * (value + 1)
        yield "same ids", value + 10**9 * (value == 2)


def bad_numbers(name, value):
    for thing in OBJECTS:
        yield "object", thing
    yield from (("object", True), ("object", np.bool_(True)), ("object", torch.ones(2)), ("object", torch.tensor(2)))
    for number in (math.nan, math.inf, -math.inf, -1.0, -1e30, np.float32("nan"), np.float64("inf"), np.int64(-7), -3):
        yield "number", number
    if isinstance(value, int):
        yield from (("number", bad) for bad in (1.5, 0, np.int32(0), np.float64(2.0), "3"))
        yield from (("same number", kind(value)) for kind in (np.int64, np.int32, np.int16))
    else:
        yield from (("same number", np.float32(value)), ("same number", np.float64(value)))


def bad_values(name, value):
    if name == "group":
        yield from (("object", thing) for thing in (*OBJECTS, 3, 0.5, True, torch.ones(2), "world"))
    elif name == "generator":
        yield from (("object", thing) for thing in (*OBJECTS, 3, 0.5, True, torch.ones(2), -1, np.int64(3)))
    elif isinstance(value, torch.Tensor):
        yield from bad_tensors(name, value)
    elif isinstance(value, bool):
        yield from (("object", thing) for thing in (*OBJECTS, 3, 0.5, 1, 0, np.bool_(True), torch.tensor(True)))
    elif isinstance(value, (int, float)):
        yield from bad_numbers(name, value)
    else:  # a word, a dtype, a module
        yield from (("object", thing) for thing in (*OBJECTS, 3, 0.5, True, torch.ones(2), "upper "))


def numbers(result):
    """The numbers of a result, in one float64 tensor; None where they are on the meta device."""
    if isinstance(result, dict):
        result = list(result.values())
    elif hasattr(result, "__dataclass_fields__"):
        result = [getattr(result, field) for field in result.__dataclass_fields__]
    if isinstance(result, Fraction):
        result = float(result)
    if isinstance(result, (list, tuple)):
        parts = [numbers(part) for part in result if not isinstance(part, str)]
        return None if any(part is None for part in parts) else torch.cat(parts)
    result = torch.as_tensor(result).detach()
    return None if result.is_meta else result.double().flatten()


def names_the_argument(message, name, arguments):
    """The message speaks of this argument, or of one that it must fit."""
    known = [other for other in arguments if re.search(rf"\b{other}\b", message)]
    return name in known or (known and isinstance(arguments[known[0]], torch.Tensor))


def calls(name):
    for argument, value in GOOD[name]().items():
        for kind, bad in bad_values(argument, value):
            unbounded = isinstance(bad, float) and bad == math.inf
            whole_line = argument == "t_max" and name in ("sigreg_null_mean", "sigreg_collapse_value") and unbounded
            several = (name, argument) == ("linear_probe", "ridge") and isinstance(bad, list)  # candidates
            optional = bad is None and argument in OPTIONAL
            if not (optional or whole_line or several or (name, argument, kind) in GOOD_AFTER_ALL):
                yield argument, kind, bad


def test_the_list_is_long_and_names_every_function():
    assert sum(len(list(calls(name))) for name in GOOD) >= 4000
    callables = {name for module in MODULES for name in module.__all__ if not isinstance(getattr(sigreg, name), type)}
    assert callables | {"SIGReg"} | set(HOME) == set(GOOD)
    assert {module.__name__ for module in MODULES} == {getattr(sigreg, name).__module__ for name in callables}


@pytest.mark.parametrize("name", GOOD)
def test_bad_calls(name):
    function = WRAPPED.get(name) or getattr(HOME.get(name, sigreg), name)
    right = numbers(function(**GOOD[name]()))
    assert right.isfinite().all()
    faults = []
    for argument, kind, bad in calls(name):
        arguments = GOOD[name]()
        came = f"{name}({argument}={kind}: {str(bad)[:60]!r})"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = numbers(function(**{**arguments, argument: bad}))
        except (TypeError, ValueError) as error:
            if not names_the_argument(str(error), argument, arguments):
                faults.append(f"{came}: {type(error).__name__} does not name it: {error}")
        except Exception as error:
            faults.append(f"{came}: {type(error).__name__}: {str(error)[:150]}")
        else:
            if found is None:
                fine = kind == "meta"
            elif kind.startswith("same"):
                fine = found.shape == right.shape and torch.allclose(found, right, rtol=0.1, atol=0.1)
            else:
                fine = not found.isfinite().all()
            if not fine:
                faults.append(f"{came}: answered with {found}")
    assert not faults, f"{len(faults)} faults\n" + "\n".join(faults)
