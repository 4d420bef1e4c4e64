r"""SIGReg: how far a batch of codes is from an isotropic Gaussian, seen along many directions.

Three forms of one quantity stand here, plainest first: the formula as it reads (``plain_*``), the same value
and gradient made fast and lean (:func:`sliced_sigreg`, :class:`SIGReg`), and the limit of infinitely many
directions in closed form (:func:`slice_free_sigreg`). A healthy value is near 1, not 0: see
:func:`sigreg_null_mean`.
"""

from __future__ import annotations

import copy
import functools
import math
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from sigreg._distributed import count_shared, from_first, group_to_pickle, randn, shared_group, sum_shared
from sigreg._per_view import compute_dtype
from sigreg._precision import in_range, without_autocast
from sigreg._slice_free import slice_free
from sigreg._sliced import grid_constants, sliced, unit_rows
from sigreg._validate import require_count, require_flag, require_floating, require_generator, require_sharing

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = [
    "SIGReg",
    "backward_in_parts",
    "epps_pulley",
    "epps_pulley_closed_form",
    "radial_null_mean",
    "radial_sigreg",
    "random_directions",
    "sigreg_collapse_value",
    "sigreg_null_mean",
    "slice_free_sigreg",
    "sliced_sigreg",
]

# ---------------------------------------------------------------------------------------------------------
# The formula as it reads
# ---------------------------------------------------------------------------------------------------------


def plain_epps_pulley(x: Tensor, *, knots: int = 17, t_max: float = 3.0) -> Tensor:
    r"""The Epps-Pulley statistic of each column, written as the formula reads: the oracle of the fast form.

    Its cost is a tensor of N x M x knots entries; :func:`epps_pulley` has the same value and gradient without it.

    Args:
        x: floating (N, M), one sample a column.
        knots: number of grid points on [0, t_max], at least 2.
        t_max: end of the grid, positive.

    Returns:
        (M,) statistics, in the dtype of ``x``.

    Reference:
        Epps and Pulley (1983); Balestriero and LeCun, arXiv 2511.08544.

    Derived in:
        Chapter 4, Definition 4.1.

    >>> plain_epps_pulley(torch.zeros(4, 1, dtype=torch.float64)) / 4  # total collapse
    tensor([0.4020], dtype=torch.float64)
    """
    t = torch.linspace(0, t_max, knots, dtype=x.dtype, device=x.device)  # (T,)
    gaussian = torch.exp(-t.square() / 2)  # the characteristic function of N(0, 1), and the weight
    trapezoid = torch.full_like(t, 2 * t_max / (knots - 1))  # twice the step: the integrand is even
    trapezoid[0] /= 2
    trapezoid[-1] /= 2
    angle = x.unsqueeze(-1) * t  # (N, M, T)
    distance = (angle.cos().mean(0) - gaussian).square() + angle.sin().mean(0).square()  # (M, T)
    return len(x) * distance @ (trapezoid * gaussian)


def plain_sliced_sigreg(z: Tensor, directions: Tensor, *, knots: int = 17, t_max: float = 3.0) -> Tensor:
    r"""SIGReg along given directions, written as the formula reads: the oracle of :func:`sliced_sigreg`.

    Args:
        z: floating codes (N, D) or (V, N, D).
        directions: floating unit rows (M, D).
        knots, t_max: the grid, as in :func:`plain_epps_pulley`.

    Returns:
        A scalar: the mean over directions and views.

    Derived in:
        Chapter 4, Definition 4.2 and Corollary 4.10.

    >>> z = torch.eye(2, dtype=torch.float64)
    >>> plain_sliced_sigreg(z, z)  # two axes as directions
    tensor(0.6154, dtype=torch.float64)
    """
    return _plain_per_view(z if z.ndim == 3 else z.unsqueeze(0), directions, knots, t_max).mean()


def _plain_per_view(z: Tensor, directions: Tensor, knots: int, t_max: float) -> Tensor:
    x = (z @ directions.T).movedim(0, 1)  # (N, V, M)
    statistic = plain_epps_pulley(x.flatten(1), knots=knots, t_max=t_max)  # (V * M,)
    return statistic.unflatten(0, x.shape[1:]).mean(1)


def epps_pulley_closed_form(x: Tensor) -> Tensor:
    r"""The Epps-Pulley statistic of each column with the integral over the whole line done by hand.

    .. math:: T = N \sqrt{2\pi} \Big[ \tfrac{1}{N^2} \sum_{ij} e^{-(x_i - x_j)^2/2}
                  - \tfrac{\sqrt 2}{N} \sum_i e^{-x_i^2/4} + \tfrac{1}{\sqrt 3} \Big]

    What :func:`epps_pulley` tends to as the grid grows longer and finer. Its cost is N x N x M.

    Args:
        x: floating (N, M), one sample a column.

    Returns:
        (M,) statistics, in the dtype of ``x`` (float32 for half precision).

    Raises:
        TypeError, ValueError: ``x`` is not a non-empty floating matrix.

    Reference:
        Epps and Pulley (1983); Baringhaus and Henze (1988), dimension one.

    Derived in:
        Chapter 4, Proposition 4.3.

    >>> epps_pulley_closed_form(torch.zeros(4, 1, dtype=torch.float64)) / 4
    tensor([0.4089], dtype=torch.float64)
    """
    require_floating("x", x, 2, "(N, M)")
    fine = x if x.device.type == "mps" else x.double()  # three terms of order N leave one of order 1
    pairs = torch.exp(-(fine.unsqueeze(0) - fine.unsqueeze(1)).square() / 2).mean((0, 1))
    alone = torch.exp(-fine.square() / 4).mean(0)
    value = len(x) * math.sqrt(2 * math.pi) * (pairs - math.sqrt(2) * alone + 1 / math.sqrt(3))
    return value.to(compute_dtype(x))


def sigreg_null_mean(knots: int = 17, t_max: float = 3.0) -> float:
    r"""What SIGReg reads on average when the codes are standard Gaussian, for every N: the value to aim at.

    .. math:: \mathbb{E}\, T = 2 \int_0^{t_{\max}} (1 - e^{-t^2})\, e^{-t^2/2}\, dt

    by the trapezoid rule of the same grid; with ``t_max=math.inf`` the integral itself,
    :math:`\sqrt{2\pi} - \sqrt{2\pi/3} = 1.0594`.

    Raises:
        TypeError, ValueError: the grid is not allowed.

    Derived in:
        Chapter 4, Proposition 4.4.

    >>> round(sigreg_null_mean(), 4), round(sigreg_null_mean(t_max=math.inf), 4)
    (1.0525, 1.0594)
    """
    if isinstance(t_max, float) and t_max == math.inf:
        return math.sqrt(2 * math.pi) - math.sqrt(2 * math.pi / 3)
    grid = grid_constants(*_require_grid(knots, t_max))
    gaussian, weight = grid.target[: knots - 1], grid.weight[: knots - 1]
    return float(weight @ (1 - gaussian**2))


def sigreg_collapse_value(knots: int = 17, t_max: float = 3.0) -> float:
    r"""What SIGReg reads *per sample*, T / N, when every code is the same point at the origin.

    .. math:: T / N = 2 \int_0^{t_{\max}} (1 - e^{-t^2/2})^2\, e^{-t^2/2}\, dt

    by the trapezoid rule of the same grid; with ``t_max=math.inf`` the integral itself,
    :math:`\sqrt{2\pi}\,(1 - \sqrt 2 + 1/\sqrt 3) = 0.4089`. Multiply by N for the value that a collapsed run shows.

    Raises:
        TypeError, ValueError: the grid is not allowed.

    Derived in:
        Chapter 4, Proposition 4.4.

    >>> round(sigreg_collapse_value(), 4), round(sigreg_collapse_value(t_max=math.inf), 4)
    (0.402, 0.4089)
    """
    if isinstance(t_max, float) and t_max == math.inf:
        return math.sqrt(2 * math.pi) * (1 - math.sqrt(2) + 1 / math.sqrt(3))
    grid = grid_constants(*_require_grid(knots, t_max))
    gaussian, weight = grid.target[: knots - 1], grid.weight[: knots - 1]
    return float(weight @ (1 - gaussian) ** 2)


# ---------------------------------------------------------------------------------------------------------
# The same value and gradient, fast and lean
# ---------------------------------------------------------------------------------------------------------


def random_directions(
    num_slices: int,
    dim: int,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    r"""Directions drawn uniformly from the unit sphere: normalised Gaussian vectors.

    They are drawn in float32 whatever ``dtype`` is, so one seed gives the same directions in every precision.

    Args:
        num_slices: number of directions M, at least 1.
        dim: dimension D, at least 1.
        generator: a ``torch.Generator``. Its own device draws: a CPU generator gives the same directions on every
            device, a CUDA generator draws faster there. By default the generator of ``device``.
        device: where the result goes. By default the generator's device, or the CPU.
        dtype: floating dtype of the result, by default ``torch.get_default_dtype()``.

    Returns:
        (M, D) unit rows.

    Raises:
        ValueError: ``num_slices`` or ``dim`` is less than 1.

    Derived in:
        Chapter 4, Definition 4.2 and Corollary 4.10.

    >>> a = random_directions(3, 5, generator=torch.Generator().manual_seed(0))
    >>> a.shape, a.norm(dim=1)
    (torch.Size([3, 5]), tensor([1., 1., 1.]))
    """
    require_count("num_slices", num_slices)
    require_count("dim", dim)
    require_generator("generator", generator)
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise TypeError(f"dtype must be a floating torch.dtype or None, got {dtype!r}")
    if device is not None and not isinstance(device, (str, torch.device)):
        raise TypeError(f"device must be a torch.device, a string or None, got {type(device).__name__}")
    try:
        device = None if device is None else torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device must name a device, as 'cpu' or 'cuda:0' do, got {device!r}") from error
    return unit_rows(randn(num_slices, dim, generator=generator, device=device, dtype=dtype))


def epps_pulley(x: Tensor, *, knots: int = 17, t_max: float = 3.0) -> Tensor:
    r"""The Epps-Pulley distance of each column from N(0, 1).

    .. math:: T = N \int \Big| \tfrac{1}{N} \sum_n e^{i t x_n} - e^{-t^2/2} \Big|^2 e^{-t^2/2}\, dt

    by the trapezoid rule on ``linspace(0, t_max, knots)``, doubled because the integrand is even. For standard
    Gaussian samples its mean is :func:`sigreg_null_mean`, whatever N.

    Args:
        x: floating (N, M), one sample a column. NaN and infinity make the statistic of their column NaN.
        knots: number of grid points on [0, t_max], at least 2.
        t_max: end of the grid, positive.

    Returns:
        (M,) statistics, in the dtype of ``x`` (float32 for half precision).

    Raises:
        TypeError, ValueError: ``x`` is not a non-empty floating matrix, or the grid is not allowed.

    Reference:
        Epps and Pulley (1983); Balestriero and LeCun, arXiv 2511.08544.

    Derived in:
        Chapter 4, Definition 4.1.

    >>> epps_pulley(torch.tensor([[-1.0, 5.0], [0.0, 5.0], [1.0, 5.0]]))
    tensor([ 0.0329, 11.8199])
    """
    require_floating("x", x, 2, "(N, M)")
    knots, t_max = _require_grid(knots, t_max)
    samples = x.to(compute_dtype(x)).T.unsqueeze(-1)  # (M, N, 1): every column is a view of dimension one
    return sliced(samples, samples.new_ones(1, 1), knots, t_max, None, _plain_per_view)


def sliced_sigreg(
    z: Tensor,
    directions: Tensor,
    *,
    knots: int = 17,
    t_max: float = 3.0,
    sync: bool = True,
    group: ProcessGroup | None = None,
) -> Tensor:
    r"""SIGReg: the mean Epps-Pulley distance from N(0, 1) of the codes projected on given directions.

    .. math:: \mathrm{SIGReg}(z) = \tfrac{1}{M} \sum_m T\big(\{a_m \cdot z_n\}_n\big)

    with T as in :func:`epps_pulley`. Value and gradient equal :func:`plain_sliced_sigreg` to rounding, but nothing
    of size N x M x knots is ever made, and the gradient with respect to ``z`` is made together with the value, so
    that ``backward`` only scales it. The gradient with respect to ``directions``, forward-mode and second derivatives
    come from the plain formula, at its cost. All is computed in float32 (float64 for float64 codes), under autocast
    too; on a GPU, ``torch.set_float32_matmul_precision`` decides what its two matrix products do. On CUDA a Triton
    kernel makes value and gradient, where Triton is installed and finds a C compiler.

    Args:
        z: floating codes (..., N, D). The sample is the axis before the last: every leading index (a view, a time
            step, a position) is a batch of N codes that is scored apart, and the scores are averaged. NaN and
            infinity make the value and the gradient of their batch NaN.
        directions: floating (M, D) of unit rows, as :func:`random_directions` gives (not checked).
        knots: number of grid points on [0, t_max], at least 2.
        t_max: end of the grid, positive.
        sync: under ``torch.distributed``, score the batch of all processes together (they must all call, with the
            same directions and the same leading axes; N may differ, and be 0). Every process returns the same value,
            and the gradient of the *sum* of these values over the processes, which DistributedDataParallel's
            averaging turns into the gradient that one process would have had.
        group: the process group to share with, by default all processes.

    Returns:
        A scalar in the dtype of ``z`` (float32 for half precision).

    Raises:
        TypeError, ValueError: an argument has the wrong type, shape or range; or N < 3 with no other process, which
            is too few to tell a collapse from a Gaussian and nearly always a batch axis in the wrong place.
        NotImplementedError: a second or forward-mode derivative, or one in ``directions``, is asked for across
            processes.

    Warns:
        UserWarning: once, if the axis before the samples is longer than N, as in batch-first codes.

    Reference:
        Balestriero and LeCun, arXiv 2511.08544.

    Derived in:
        Chapter 4, Definition 4.2; the product form of the sums, Algorithm 4.18.

    >>> generator = torch.Generator().manual_seed(0)
    >>> directions = random_directions(64, 8, generator=generator)
    >>> z = torch.randn(512, 8, generator=generator)
    >>> sliced_sigreg(z, directions), sliced_sigreg(2 * z, directions)
    (tensor(0.96...), tensor(122.0...))
    """
    require_sharing(sync, group)
    group = shared_group(sync, group)
    views = _views(z, group)
    require_floating("directions", directions, 2, "(M, D)")
    if directions.shape[1] != z.shape[-1]:
        raise ValueError(
            f"directions must have shape (M, D) with D = {z.shape[-1]} as in z, got {tuple(directions.shape)}"
        )
    if directions.device != z.device:
        raise ValueError(f"directions are on {directions.device} and z is on {z.device}: move them with .to(z.device)")
    knots, t_max = _require_grid(knots, t_max)
    return _over_views(sliced(views, directions, knots, t_max, group, _plain_per_view))


class SIGReg(nn.Module):
    r"""SIGReg with fresh random directions at every call: :func:`sliced_sigreg` of :func:`random_directions`.

    The module holds settings and no state: no buffers, no step counter, the same in ``train()`` and ``eval()``.
    Only the generator decides which directions are drawn. Under ``torch.distributed`` all processes use those of
    the first one.

    Args:
        num_slices: number of directions M drawn at each call.
        knots: number of grid points on [0, t_max], at least 2.
        t_max: end of the grid, positive.
        sync, group: how processes share, as in :func:`sliced_sigreg`.

    All five are attributes too, and may be changed between calls.

    Raises:
        TypeError, ValueError: an argument has the wrong type or range, when made or when changed.

    Reference:
        Balestriero and LeCun, arXiv 2511.08544.

    Derived in:
        Chapter 4, Definition 4.2 and Corollary 4.10.

    >>> generator = torch.Generator().manual_seed(0)
    >>> z = torch.randn(512, 8, generator=generator, requires_grad=True)
    >>> loss = SIGReg(num_slices=64)(z, generator)
    >>> loss.backward()
    >>> loss, z.grad.shape
    (tensor(1..., grad_fn=...), torch.Size([512, 8]))
    """

    if TYPE_CHECKING:  # nn.Module promises nothing of a call

        def __call__(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor: ...

    def __init__(
        self,
        num_slices: int = 256,
        knots: int = 17,
        t_max: float = 3.0,
        *,
        sync: bool = True,
        group: ProcessGroup | None = None,
    ) -> None:
        super().__init__()
        self.num_slices, self.knots, self.t_max = num_slices, knots, t_max
        self.sync, self.group = sync, group

    def __setattr__(self, name: str, value: Any) -> None:  # a setting may be changed later, and is checked then as now
        check = _SETTINGS.get(name)
        super().__setattr__(name, value if check is None else check(value))

    def forward(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """SIGReg of codes ``z`` (..., N, D), a scalar; ``generator`` (eager only) draws the directions."""
        group = shared_group(self.sync, self.group)
        views = _views(z, group)
        require_generator("generator", generator)
        directions = randn(self.num_slices, z.shape[-1], generator=generator, device=z.device, dtype=compute_dtype(z))
        directions = from_first(directions, group)
        return _over_views(sliced(views, directions, self.knots, self.t_max, group, _plain_per_view, drawn=True))

    def extra_repr(self) -> str:
        alone = "" if self.sync else ", sync=False"
        shared = "" if self.group is None else f", group={self.group}"
        return f"num_slices={self.num_slices}, knots={self.knots}, t_max={self.t_max}{alone}{shared}"

    def __deepcopy__(self, memo: dict[int, Any]) -> SIGReg:
        memo[id(self.group)] = self.group  # processes are shared by the copies, not copied
        twin = type(self).__new__(type(self))
        twin.__dict__ = copy.deepcopy(self.__dict__, memo)
        return twin

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "group": group_to_pickle(self.group)}


# ---------------------------------------------------------------------------------------------------------
# Infinitely many directions
# ---------------------------------------------------------------------------------------------------------


def slice_free_sigreg(z: Tensor, *, slice_dim: int = 1, sync: bool = True, group: ProcessGroup | None = None) -> Tensor:
    r"""SIGReg averaged over the whole sphere of directions and integrated over the whole line, in closed form.

    .. math:: N \sqrt{2\pi} \Big[ \tfrac{1}{N^2} \sum_{ij} k\big(\tfrac12 |z_i - z_j|^2\big)
              - \tfrac{\sqrt 2}{N} \sum_i k\big(\tfrac14 |z_i|^2\big) + \tfrac{1}{\sqrt 3} \Big],
              \qquad k(u) = {}_1F_1(\tfrac12;\, \tfrac D2;\, -u)

    What :func:`sliced_sigreg` tends to with ever more directions and an ever longer, finer grid: a kernel distance
    (MMD) to N(0, I), with no noise from slices and unchanged by rotations. It costs N^2 D operations, but only
    blocks of the N x N pairs are ever held. For large D the kernel tends to :math:`(1 + |z - z'|^2 / D)^{-1/2}`.
    In float32, distances and sums are formed in float64 where the device has it. The three terms nearly cancel, so
    the value has a relative error of about 3e-8 N; that of the gradient is 1e-6 or less.

    With ``slice_dim`` k, planes of k dimensions take the place of lines, at the same cost:

    .. math:: N \sqrt{2\pi} \Big[ \tfrac{1}{N^2} \sum_{ij} k_k\big(\tfrac12 |z_i - z_j|^2\big)
              - \tfrac{2^{1 - k/2}}{N} \sum_i k_k\big(\tfrac14 |z_i|^2\big) + 3^{-k/2} \Big],
              \qquad k_k(u) = {}_1F_1(\tfrac k2;\, \tfrac D2;\, -u)

    Its weight on the plane has the total mass :math:`\sqrt{2\pi}` for every k, so Gaussian codes read
    :math:`\sqrt{2\pi}\,(1 - 3^{-k/2})` on average. The kernel tends to :math:`(1 + |z - z'|^2 / D)^{-k/2}`; k = 2 gives
    the exponent of Wasserstein auto-encoders, k = D the Gaussian kernel.

    Args:
        z: floating codes (..., N, D), the sample before the last axis, as in :func:`sliced_sigreg`. NaN and infinity
            make the value and the gradient of their batch NaN.
        slice_dim: dimension k of a slice, from 1 to D.
        sync, group: how processes share, as in :func:`sliced_sigreg`; here each process gathers all codes and
            takes the pairs of its own.

    Returns:
        A scalar in the dtype of ``z`` (float32 for half precision).

    Raises:
        TypeError, ValueError: ``z`` has the wrong type or shape; N < 3 with no other process; or ``slice_dim`` is
            not an integer from 1 to D.
        NotImplementedError: a second or forward-mode derivative is asked for across processes.

    Reference:
        Balestriero and LeCun, arXiv 2511.08544, for the sliced form; arXiv 2512.19605 (KerJEPA) for this limit as a
        kernel distance with the same kernel; Knop et al., arXiv 1805.09235, for the closed form of the average over
        projections.

    Derived in:
        Chapter 4, Proposition 4.11; planes in Proposition 4.22.

    >>> slice_free_sigreg(torch.zeros(10, 3)) / 10  # total collapse
    tensor(0.4089)
    """
    require_sharing(sync, group)
    group = shared_group(sync, group)
    views, k = _views(z, group), require_count("slice_dim", slice_dim)
    if k > z.shape[-1]:
        raise ValueError(f"slice_dim must be at most D = {z.shape[-1]}, the dimension of the codes, got {k}")
    return _over_views(slice_free(views, group, k))


# ---------------------------------------------------------------------------------------------------------
# A whole batch in parts
# ---------------------------------------------------------------------------------------------------------


_Part = TypeVar("_Part")


def backward_in_parts(
    encode: Callable[[_Part], Tensor], parts: Iterable[_Part], loss: Callable[[Tensor], Tensor]
) -> Tensor:
    r"""Back-propagate a loss of the whole batch while only a part of it is in the encoder's memory.

    .. math:: \frac{\partial L}{\partial \theta} = \sum_p \frac{\partial z_p}{\partial \theta} \,
              \frac{\partial L}{\partial z_p}, \qquad L = L(z_1, \dots, z_P)

    The mean of SIGReg over small batches is not SIGReg of the large one. So the codes of all parts are made first,
    without a graph; the loss of all codes gives its gradient in each code; then each part is encoded again, and that
    gradient is sent through. Value and gradients are those of one large batch, for twice the encoder's forward time.
    Random numbers of the encoder (dropout) are the same both times. Batch normalisation normalises each part apart,
    and its running averages move twice.

    Args:
        encode: function from a part to its codes (..., N of the part, D).
        parts: sequence of parts; their N may differ.
        loss: function from all codes (..., N, D) to a scalar, such as a :class:`SIGReg`. Parameters of its own get
            their gradients too.

    Returns:
        The loss, a scalar without a graph. Gradients are added to ``.grad`` as ``backward`` does.

    Raises:
        ValueError: ``parts`` is empty.

    Reference:
        Gao et al., arXiv 2101.06983.

    Derived in:
        the chain rule above.

    >>> generator = torch.Generator().manual_seed(0)
    >>> net, x = nn.Linear(4, 3), torch.randn(64, 4, generator=generator)
    >>> directions = random_directions(16, 3, generator=generator)
    >>> value = backward_in_parts(net, x.split(16), lambda z: sliced_sigreg(z, directions))
    >>> torch.testing.assert_close(value, sliced_sigreg(net(x), directions).detach())
    """
    for name, given in (("encode", encode), ("loss", loss)):
        if not callable(given):
            raise TypeError(f"{name} must be a function or a module, got {type(given).__name__}")
    if not isinstance(parts, Iterable):
        raise TypeError(f"parts must be a sequence of parts of the batch, got {type(parts).__name__}")
    parts = list(parts)
    if not parts:
        raise ValueError("parts is empty: expected at least one part of the batch")
    codes, states = [], []
    with torch.no_grad():
        for part in parts:
            states.append(_random_state())
            codes.append(encode(part))
    for code in codes:
        require_floating("encode(part)", code, range(2, 65), "(..., N, D)")
    sizes = [len(code.movedim(-2, 0)) for code in codes]
    whole = torch.cat(codes, -2).requires_grad_()
    value = loss(whole)
    if not isinstance(value, Tensor) or value.ndim or not value.requires_grad:
        raise ValueError("loss must return a scalar tensor that depends on the codes")
    value.backward()
    if whole.grad is None:
        raise ValueError("loss must depend on the codes: its backward left none of them a gradient")
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        for part, state, slope in zip(parts, states, whole.grad.split(sizes, -2), strict=True):
            _set_random_state(state)
            code = encode(part)
            if not code.requires_grad:
                raise ValueError("encode gives codes that no parameter has a part in: nothing could learn")
            code.backward(slope)
    return value.detach()


def _random_state() -> tuple[Tensor, list[Tensor]]:
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []


def _set_random_state(state: tuple[Tensor, list[Tensor]]) -> None:
    torch.set_rng_state(state[0])
    torch.cuda.set_rng_state_all(state[1])


# ---------------------------------------------------------------------------------------------------------
# Checks
# ---------------------------------------------------------------------------------------------------------


def _views(z: Tensor, group: ProcessGroup | None) -> Tensor:
    """Codes (..., N, D) as (V, N, D)."""
    require_floating("z", z, range(2, 65), "(..., N, D)", empty=group is not None)
    n, d = z.shape[-2:]
    where = f"z must have shape (..., N, D), the sample before the last axis, got {tuple(z.shape)}"
    if d == 0 or 0 in z.shape[:-2]:
        raise ValueError(f"{where}: only N may be 0")
    if group is None and n < 3:
        raise ValueError(f"{where}: N must be at least 3; batch-first codes (N, V, D) want .transpose(0, 1)")
    if z.ndim > 2 and z.shape[-3] > n and not torch.compiler.is_compiling():
        _warn_of_many_views(z.shape[-3], n)
    return z.unsqueeze(0) if z.ndim == 2 else z.flatten(0, -3)


def _over_views(values: Tensor) -> Tensor:
    """The mean over views; of a single one the value itself, which spares a launch here and one in backward."""
    return values.squeeze(0) if len(values) == 1 else values.mean()


_warned: list[tuple[int, int]] = []  # of many views, once is enough


def _warn_of_many_views(v: int, n: int) -> None:
    if not _warned:
        _warned.append((v, n))
        warnings.warn(
            f"z has {v} views of {n} samples each: the sample is the axis before the last, (..., N, D). "
            "If these codes are batch-first (N, V, D), SIGReg scores each sample's views: use z.transpose(0, 1)",
            stacklevel=4,
        )


def _require_grid(knots: Any, t_max: Any) -> tuple[int, float]:
    return require_count("knots", knots, 2), _require_end(t_max)


def _require_end(t_max: Any) -> float:
    if isinstance(t_max, bool) or not isinstance(t_max, (int, float, np.integer, np.floating)):
        raise TypeError(f"t_max must be a number, got {type(t_max).__name__}")
    if not 0 < t_max < math.inf:
        raise ValueError(f"t_max must be positive and finite, got {t_max}")
    return float(t_max)


def _require_group(group: Any) -> ProcessGroup | None:
    require_sharing(True, group)
    return group


_SETTINGS: dict[str, Callable[[Any], Any]] = {  # of SIGReg
    "num_slices": functools.partial(require_count, "num_slices"),
    "knots": functools.partial(require_count, "knots", least=2),
    "t_max": _require_end,
    "sync": functools.partial(require_flag, "sync"),
    "group": _require_group,
}


# ---------------------------------------------------------------------------------------------------------
# One more shadow: the radius
# ---------------------------------------------------------------------------------------------------------


@without_autocast
def radial_sigreg(
    z: Tensor, *, knots: int = 17, t_max: float = 3.0, sync: bool = True, group: ProcessGroup | None = None
) -> Tensor:
    r"""The Epps-Pulley statistic of the codes' lengths: what no slice shows, whether :math:`|z|` follows its law.

    .. math::
        R(z) = 2N \int_0^{t_{\max}} \bigl|\hat\varphi(t) - \varphi_D(t)\bigr|^2\, e^{-t^2/2}\, dt,
        \qquad \hat\varphi(t) = \tfrac1N \sum_n e^{i t x_n}, \quad x_n = \sqrt2\,\bigl(|z_n| - \sqrt{D - 1/2}\bigr)

    with :math:`\varphi_D` the characteristic function of x for a Gaussian code. On Gaussian codes its mean is
    :func:`radial_null_mean`; its gradient with respect to one code is never longer than :math:`8\sqrt2`. It says
    nothing of directions, so it belongs beside SIGReg and not in its place. The cost is N x (D + knots).

    Args:
        z: floating codes (..., N, D), the sample before the last axis, as in :func:`sliced_sigreg`.
        knots: number of grid points on [0, t_max], at least 2.
        t_max: end of the grid, positive.
        sync, group: how processes share, as in :func:`sliced_sigreg`.

    Returns:
        a scalar, in float32 for half-precision codes and in the dtype of ``z`` otherwise.

    Raises:
        TypeError, ValueError: ``z`` is not a non-empty floating array of that shape, or the grid is not allowed.

    Reference:
        Kuang et al., arXiv 2602.14272 (Radial-VCReg), draw lengths to the chi law by another loss, beside VICReg's.

    Derived in:
        Chapter 4, Proposition 4.20.

    >>> z = torch.randn(256, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> cube = torch.rand(256, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 12**0.5 - 3**0.5
    >>> radial_sigreg(z) < 4 < radial_sigreg(cube)
    tensor(True)
    """
    require_sharing(sync, group)
    group = shared_group(sync, group)
    require_floating("z", z, range(2, 65), "(..., N, D)", empty=group is not None)
    knots, t_max = _require_grid(knots, t_max)
    dim, dtype = z.shape[-1], compute_dtype(z)
    if torch.compiler.is_compiling():  # the compiler takes a tensor for a constant, and no tuples
        t, weight, real, imaginary = _constant_radius_law(dim, knots, t_max).to(z.device, dtype)
    else:
        t, weight, real, imaginary = (_filled(v, dtype, z.device) for v in _radius_law(dim, knots, t_max))
    small, size = in_range(z.to(dtype))
    x = math.sqrt(2) * (size.squeeze(-1) * small.norm(dim=-1) - math.sqrt(dim - 0.5))  # (..., N)
    angle = x.unsqueeze(-1) * t  # (..., N, T)
    count = count_shared(z.shape[-2], group, x)
    cosine, sine = sum_shared(torch.stack([angle.cos().sum(-2), angle.sin().sum(-2)]), group) / count
    return count * (((cosine - real).square() + (sine - imaginary).square()) @ weight).mean()


def _filled(values: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Constants on a device. A CUDA graph holds no copy from the host: there each is filled in by itself."""
    if device.type != "cuda":
        return torch.tensor(values, dtype=dtype, device=device)
    return torch.stack([torch.full((), value, dtype=dtype, device=device) for value in values])


def radial_null_mean(dim: int, knots: int = 17, t_max: float = 3.0) -> float:
    r"""What :func:`radial_sigreg` reads on average when the codes are standard Gaussian, for every N.

    .. math:: \mathbb{E}\, R = 2 \int_0^{t_{\max}} \bigl(1 - |\varphi_D(t)|^2\bigr)\, e^{-t^2/2}\, dt

    Args:
        dim: D, at least 1.
        knots: number of grid points on [0, t_max], at least 2.
        t_max: end of the grid, positive.

    Raises:
        TypeError, ValueError: an argument is not allowed.

    Derived in:
        Chapter 4, Proposition 4.20.

    >>> round(radial_null_mean(64), 3)
    1.051
    """
    _, weight, real, imaginary = _radius_law(require_count("dim", dim), *_require_grid(knots, t_max))
    return float(sum(w * (1 - a * a - b * b) for w, a, b in zip(weight, real, imaginary, strict=True)))


def _constant_radius_law(dim: int, knots: int, t_max: float) -> Tensor:
    return torch.tensor(_radius_law(dim, knots, t_max), dtype=torch.float64)


# What torch.compiler.assume_constant_result sets, which would import all of the compiler (seconds) to do so.
_constant_radius_law._dynamo_marked_constant = True  # type: ignore[attr-defined]


@functools.lru_cache(maxsize=64)
def _radius_law(dim: int, knots: int, t_max: float) -> tuple[tuple[float, ...], ...]:
    """Grid, trapezoid weights and the characteristic function of x: four tuples of ``knots`` numbers.

    The density of |z| is r^(D - 1) e^(-r^2 / 2) up to a constant. Nearly all of it lies within 10 of sqrt(D), where
    256 Gauss-Legendre nodes integrate it to rounding.
    """
    node, share = np.polynomial.legendre.leggauss(256)
    low, high = max(0.0, math.sqrt(dim) - 10), math.sqrt(dim) + 10
    r = (low + high) / 2 + (high - low) / 2 * node
    density = (dim - 1) * np.log(r) - r**2 / 2
    share = share * np.exp(density - density.max())
    share /= share.sum()
    t = np.linspace(0, t_max, knots)
    weight = np.full(knots, 2 * t_max / (knots - 1))  # twice the step: the integrand is even
    weight[[0, -1]] /= 2
    phi = np.exp(1j * math.sqrt(2) * np.outer(t, r - math.sqrt(dim - 0.5))) @ share
    return tuple(t), tuple(weight * np.exp(-(t**2) / 2)), tuple(phi.real), tuple(phi.imag)
