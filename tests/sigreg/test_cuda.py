"""Every public function on a GPU against its float64 value on the CPU; on the CPU, the table in every precision.

A call is a function of ``on``, which brings a tensor to a device and, if it is floating, to a precision.
"""

import dataclasses
import importlib
import inspect

import pytest
import torch
from codes import directions_for, gaussian
from loss_list import LABELS, LOSSES, seeded

import sigreg
from sigreg import vicreg_information as vi

MODULES = [
    "conditional_bottleneck", "evaluation", "gaussian_regularization", "information_maximization", "joint_embedding",
    "rate_distortion", "self_supervised", "semi_supervised", "transform_chain",
]  # fmt: skip
ON_NUMBERS = {  # of numbers to numbers: no tensor, no device
    "entropy_ledger", "label_simplex_information", "radial_null_mean", "sigreg_collapse_value", "sigreg_null_mean",
    "sigreg_weight", "standard_code_rate", "logdet_error", "probe_bound",
}  # fmt: skip

A = gaussian(32, 8).bfloat16().double()  # numbers that every precision can hold
B = (A + gaussian(32, 8, seed=1) / 2).bfloat16().double()
MEAN, LOG_STD = A + B.tanh() / 8, B.tanh() / 8
UNIT = directions_for(12, 8)
JOINT = torch.tensor([[0.30, 0.05, 0.02], [0.04, 0.25, 0.04], [0.03, 0.02, 0.25]], dtype=torch.float64)
BETAS = torch.tensor([1.5, 4.0], dtype=torch.float64)
SIMPLEX = torch.tensor([[0.5, 0.25, 0.25], [0.125, 0.125, 0.75]], dtype=torch.float64)
COVARIANCE = torch.eye(8).double() / 4 + A[:, :, None] * A[:, None, :] / 64
NET = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))


def net(on):
    weight = torch.linspace(-1, 1, 48).view(6, 8)
    for p, value in zip(NET.parameters(), (weight, weight[:, 0], weight[:3, :6], weight[:3, 7]), strict=True):
        p.data = on(value.double())
    return NET.eval()


def of_losses(name):
    return lambda on: LOSSES[name](on(A), on(B))


ANY = {name: of_losses(name) for name in LOSSES} | {  # in any floating precision
    "SIGReg": lambda on: sigreg.SIGReg(32)(on(A), seeded()),
    "backward_in_parts": lambda on: sigreg.backward_in_parts(net(on), on(A).split(8), sigreg.radial_sigreg),
    "epps_pulley": lambda on: sigreg.epps_pulley(on(A)),
    "epps_pulley_closed_form": lambda on: sigreg.epps_pulley_closed_form(on(A)),
    "effective_rank": lambda on: sigreg.effective_rank(on(A)),
    "features": lambda on: sigreg.features(net(on), on(A)),
    "gaussian_log_density_matrix": lambda on: sigreg.gaussian_log_density_matrix(on(A), on(MEAN), on(LOG_STD)),
    "held_out_information": lambda on: sigreg.held_out_information(on(A), on(MEAN), on(LOG_STD), on(LABELS)),
    "knn_accuracy": lambda on: sigreg.knn_accuracy(on(A), on(LABELS), on(B), on(LABELS), k=3),
    "pairwise_rate_bounds": lambda on: sigreg.pairwise_rate_bounds(on(MEAN), on(LOG_STD)),
    "pointwise_rate": lambda on: sigreg.pointwise_rate(on(A), on(MEAN), on(LOG_STD), on(MEAN), on(LOG_STD)),
    "radial_sigreg": lambda on: sigreg.radial_sigreg(on(A)),
    "random_directions": lambda on: sigreg.random_directions(5, 3, generator=seeded(), device=on(A).device),
    "slice_free_sigreg": lambda on: sigreg.slice_free_sigreg(on(A)),
    "sliced_sigreg": lambda on: sigreg.sliced_sigreg(on(A), on(UNIT)),
    "variance_covariance_entropy": lambda on: vi.variance_covariance_entropy(on(A)),
}
SINGLE = {  # in float32 and float64
    "critical_beta": lambda on: sigreg.critical_beta(on(JOINT)),
    "flat_dirichlet": lambda on: sigreg.flat_dirichlet(6, 3, seeded(), on(A).dtype),
    "gaussian_to_orthant": lambda on: sigreg.gaussian_to_orthant(on(A[:, :4])),
    "information_steps": lambda on: vi.information_steps(on(A), on(B)),
    "infonce_information": lambda on: vi.infonce_information(on(A), on(B)),
    "knn_entropy": lambda on: sigreg.knn_entropy(on(gaussian(100, 2))),
    "leaving_probability": lambda on: vi.leaving_probability(net(on), on(A), on(torch.tensor([0.1, 1.0]).double())),
    "linear_probe": lambda on: sigreg.linear_probe(on(A), on(LABELS), on(B), on(LABELS)).weight,
    "local_affine_maps": lambda on: vi.local_affine_maps(net(on), on(A)),
    "mixture_entropy_bounds": lambda on: vi.mixture_entropy_bounds(on(MEAN), on(COVARIANCE)),
    "mutual_information": lambda on: sigreg.mutual_information(on(JOINT)),
    "orthant_to_gaussian": lambda on: sigreg.orthant_to_gaussian(on(SIMPLEX), "quantile"),
    "orthant_to_simplex": lambda on: sigreg.orthant_to_simplex(on(SIMPLEX)),
    "probe_terms": lambda on: vi.probe_terms(on(torch.stack([A, B])), on(LABELS)),
    "rate_and_relevance": lambda on: sigreg.rate_and_relevance(on(JOINT), on(torch.eye(3).double())),
    "ridge_probe": lambda on: vi.ridge_probe(on(A), on(LABELS), 1.0, 4),
    "simplex_to_orthant": lambda on: sigreg.simplex_to_orthant(on(SIMPLEX), total=on(SIMPLEX[:, 0])),
    "unit_inputs": lambda on: vi.unit_inputs(net(on), on(A)),
}
DOUBLE = {  # solvers
    "annealing_tree": lambda on: sigreg.annealing_tree(on(JOINT), solved(on)),
    "information_bottleneck": lambda on: solved(on).rate,
    "learnability_beta": lambda on: sigreg.learnability_beta(on(JOINT), n_starts=4),
    "squared_information_bottleneck": lambda on: (
        sigreg.squared_information_bottleneck(on(JOINT), on(BETAS / 4), 3, steps=200).rate
    ),
}
# Draws differ from device to device, and with the precision: asked for their estimate or their repetition below.
RANDOM = {"mixture_entropy", "view_prediction_loss", "lejepa_loss"}


def solved(on):
    return sigreg.information_bottleneck(on(JOINT), on(BETAS), 3, generator=seeded())


def public():
    names = {name for module in MODULES for name in importlib.import_module(f"sigreg.{module}").__all__}
    kinds = {name for name in names if inspect.isclass(getattr(sigreg, name)) and name != "SIGReg"}
    functions = inspect.getmembers(vi, inspect.isfunction)
    return names - kinds | {n for n, f in functions if f.__module__ == vi.__name__ and not n.startswith("_")}


def test_the_table_forgets_nothing():
    assert public() - set(ANY) - set(SINGLE) - set(DOUBLE) - ON_NUMBERS - RANDOM == set()


TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3, torch.bfloat16: 6e-2}
EVERY = [
    pytest.param(name, call, dtype, id=f"{name}-{str(dtype)[6:]}")
    for table, dtypes in ((ANY, [*TOLERANCE]), (SINGLE, [torch.float64, torch.float32]), (DOUBLE, [torch.float64]))
    for name, call in table.items()
    if name not in RANDOM
    for dtype in dtypes
]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


def numbers(result):
    """The tensors and numbers of a result, whatever holds them, in order."""
    if isinstance(result, torch.Tensor):
        return [result]
    if dataclasses.is_dataclass(result):
        result = {f.name: getattr(result, f.name) for f in dataclasses.fields(result)}
    if isinstance(result, dict):
        result = list(result.values())
    return [n for part in result for n in numbers(part)] if isinstance(result, (tuple, list)) else [result]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("name", "call", "dtype"), EVERY)
def test_value_device_and_precision(name, call, dtype, device):
    def on(x):
        return x.to(device=device, dtype=dtype if x.is_floating_point() else x.dtype)

    expected, found = numbers(call(lambda x: x)), numbers(call(on))
    for exact, value in zip(expected, found, strict=True):
        if isinstance(value, torch.Tensor):
            assert value.device.type == device or name in ("flat_dirichlet",)  # where its generator is
            assert not value.is_floating_point() or value.dtype in (dtype, torch.float32, torch.float64)
            value = value.detach().cpu()
        exact, value = (torch.as_tensor(x).double() for x in (exact, value))
        error = TOLERANCE[dtype] * (1 + exact.abs().max().nan_to_num())
        torch.testing.assert_close(value, exact, rtol=0, atol=error.item(), equal_nan=True)


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", [name for name in LOSSES if name not in RANDOM])
def test_cuda_slopes(name, dtype):
    slopes = []
    for device, kind in (("cpu", torch.float64), ("cuda", dtype)):
        z = [x.to(device=device, dtype=kind).requires_grad_() for x in (A, B)]
        slopes.append([g for g in torch.autograd.grad(LOSSES[name](*z), z, allow_unused=True) if g is not None])
    for exact, slope in zip(*slopes, strict=True):
        assert slope.is_cuda and slope.dtype == dtype
        error = TOLERANCE[dtype] * exact.abs().max().item()
        torch.testing.assert_close(slope.cpu().double(), exact, rtol=0, atol=error)


@pytest.mark.parametrize("device", DEVICES)
def test_mixture_entropy_by_its_own_error(device):
    exact = vi.mixture_entropy(MEAN, COVARIANCE, 4000, seeded())
    there = [x.to(device) for x in (MEAN, COVARIANCE)]
    found = vi.mixture_entropy(*there, 4000, torch.Generator(device).manual_seed(1))
    assert abs(found.nats - exact.nats) < 4 * (found.standard_error**2 + exact.standard_error**2) ** 0.5


@pytest.mark.cuda
@pytest.mark.parametrize("where", ["cpu", "cuda"])
def test_cuda_generators_repeat_themselves(where):
    z = A.float().cuda()

    def prediction(z, generator):
        return sigreg.view_prediction_loss(torch.stack([z, z]), generator, weight=1.0)["loss"]

    for loss in (sigreg.SIGReg(32), prediction):
        values = {loss(z, torch.Generator(where).manual_seed(3)).item() for _ in range(2)}
        assert len(values) == 1 and loss(z, torch.Generator(where).manual_seed(4)).item() not in values
