r"""Flat Dirichlet -> exponential -> Gaussian: the maps, their exact entropy ledger, and an entropy estimator.

The chain starts at a point p drawn uniformly from the simplex of C classes. A radius S ~ Gamma(C, 1) lifts it
to E = S p, whose C coordinates are independent Exp(1). Each coordinate then becomes Gaussian, either as the
squared modulus of a complex Gaussian (route ``"complex"``, dimension 2C) or through its quantile (route
``"quantile"``, dimension C). Entropies are in nats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import torch
from torch import Tensor

from sigreg._precision import exponent_of, times_two_to
from sigreg._validate import (
    require_choice,
    require_count,
    require_distribution,
    require_finite,
    require_floating,
    require_generator,
    require_same_device,
    values_at_hand,
)

__all__ = [
    "entropy_ledger",
    "flat_dirichlet",
    "gaussian_to_orthant",
    "knn_entropy",
    "label_simplex_information",
    "orthant_to_gaussian",
    "orthant_to_simplex",
    "simplex_to_orthant",
]

_ROUTES = ("complex", "quantile")
_EULER = 0.57721566490153286061  # Euler's constant gamma


def _require_rows(name: str, value: Tensor, least: int = 2) -> Tensor:
    """Return ``value`` if it is a finite floating tensor (..., C) with C at least ``least``."""
    require_floating(name, value, range(1, 65), "(..., C)")
    if value.shape[-1] < least:
        raise ValueError(f"{name} must have at least {least} entries in a row, got {tuple(value.shape)}")
    return require_finite(name, value)


def _require_route(route: str) -> None:
    require_choice("route", route, _ROUTES)


def _require_classes(n_classes: int) -> int:
    n_classes = require_count("n_classes", n_classes, -(2**63))
    if n_classes < 2:
        raise ValueError(f"n_classes must be at least 2, got {n_classes}: one class needs no prediction")
    return n_classes


# Simplex -> orthant -------------------------------------------------------------------------------------


def flat_dirichlet(
    n: int, n_classes: int, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float64
) -> Tensor:
    r"""Points drawn uniformly from the probability simplex.

    The C gaps between 0, C - 1 sorted uniform numbers, and 1. No exponential is drawn, so that checks of the
    chain that start here do not assume what they test.

    Args:
        n: number of points N, at least 1.
        n_classes: number of classes C, at least 2.
        generator: source of the uniform numbers; torch's global one by default.
        dtype: floating dtype of the result. The gaps are computed in float64.

    Returns:
        ``(N, C)`` on the CPU; rows are non-negative and sum to 1.

    Raises:
        TypeError: if ``n_classes`` is not an int.
        ValueError: if ``n`` or ``n_classes`` is too small.

    Reference: Devroye, *Non-Uniform Random Variate Generation* (1986), Chapter V, uniform spacings.
    Derived in: Chapter 2, Exercise 2.1.

    >>> p = flat_dirichlet(5, 3, torch.Generator().manual_seed(0))
    >>> p.shape, bool((p >= 0).all()), bool(torch.allclose(p.sum(-1), torch.ones(5, dtype=p.dtype)))
    (torch.Size([5, 3]), True, True)
    """
    n_classes, n = _require_classes(n_classes), require_count("n", n)
    require_generator("generator", generator)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"dtype must be a floating torch.dtype, got {dtype!r}")
    cuts = torch.rand(n, n_classes - 1, generator=generator, dtype=torch.float64).sort(dim=-1).values
    ends = torch.zeros(n, 1, dtype=torch.float64)
    return torch.cat([ends, cuts, ends + 1], dim=-1).diff(dim=-1).to(dtype)


def simplex_to_orthant(
    p: Tensor, generator: torch.Generator | None = None, total: Tensor | None = None
) -> Tensor:
    r"""Lift points of the simplex to the positive orthant: E = S p with a radius S independent of p.

    .. math:: E = S\,p, \qquad S \sim \mathrm{Gamma}(C, 1).

    If p is flat Dirichlet, the coordinates of E are independent Exp(1). The radius is drawn as a sum of C
    exponentials, which is what Gamma(C, 1) is for an integer C.

    Args:
        p: ``(..., C)`` floating, non-negative, rows summing to 1.
        generator: a CPU generator for S; torch's global one by default.
        total: the radius S, ``(...)`` and positive, in place of a random one. With it the lift draws nothing,
            and undoes ``(orthant_to_simplex(e), e.sum(-1))``.

    Returns:
        ``(..., C)``, the dtype and device of ``p``.

    Raises:
        TypeError: if ``p`` is not a floating tensor.
        ValueError: if rows of ``p`` are not probabilities, or ``total`` is not positive or has another shape.

    Reference: Devroye, *Non-Uniform Random Variate Generation* (1986), Chapter V, exponential spacings.
    Derived in: Chapter 2, Proposition 2.3.

    >>> p = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    >>> e = simplex_to_orthant(p, generator=torch.Generator().manual_seed(0))
    >>> bool(torch.allclose(e / e.sum(), p))
    True
    >>> simplex_to_orthant(p, total=torch.tensor(10.0, dtype=torch.float64))
    tensor([2., 3., 5.], dtype=torch.float64)
    """
    require_distribution("p", _require_rows("p", p))
    require_generator("generator", generator)
    if total is None:
        # -log(1 - U) in double precision: the same numbers on every platform, and a tail that is not cut off early.
        parts = -torch.log1p(-torch.rand(p.shape, dtype=torch.float64, generator=generator))
        total = parts.sum(-1).to(p.device, p.dtype)
    else:
        if not isinstance(total, torch.Tensor) or total.shape != p.shape[:-1]:
            came = tuple(total.shape) if isinstance(total, torch.Tensor) else type(total).__name__
            raise ValueError(f"total must be a tensor of shape {tuple(p.shape[:-1])}, got {came}")
        require_floating("total", total, total.ndim, str(tuple(p.shape[:-1])))
        require_finite("total", total)
        require_same_device(p=p, total=total)
        if values_at_hand(total) and (total <= 0).any():
            raise ValueError(f"total must be positive, got {total.min().item():.3g}")
    return total.unsqueeze(-1) * p


def orthant_to_simplex(e: Tensor) -> Tensor:
    r"""Return to the simplex: p = E / sum(E).

    .. math:: p_i = E_i \Big/ \sum_j E_j .

    Rows are divided by their largest entry first, so that the sum neither overflows nor underflows.

    Args:
        e: ``(..., C)`` floating, finite, non-negative, no row all zero.

    Returns:
        ``(..., C)``, rows summing to 1.

    Raises:
        TypeError: if ``e`` is not a floating tensor.
        ValueError: if an entry is negative or not finite, or a row is all zero.

    Reference: Devroye, *Non-Uniform Random Variate Generation* (1986), Chapter V, exponential spacings.
    Derived in: Chapter 2, Proposition 2.3.

    >>> orthant_to_simplex(torch.tensor([1.0, 1.0, 2.0]))
    tensor([0.2500, 0.2500, 0.5000])
    """
    _require_orthant(e)
    largest = e.detach().amax(-1, keepdim=True)  # any constant cancels, so no gradient is owed to it
    if values_at_hand(largest) and (largest == 0).any():
        raise ValueError("e has a row of zeros, which has no direction: every row needs a positive entry")
    scaled = e / largest
    return scaled / scaled.sum(-1, keepdim=True)


def _require_orthant(e: Tensor, least: int = 2) -> None:
    _require_rows("e", e, least)
    if values_at_hand(e) and (e < 0).any():
        raise ValueError(f"e must be non-negative, got {e.min().item():.3g}")


# Orthant -> Gaussian ------------------------------------------------------------------------------------


class _QuantileMap(torch.autograd.Function):
    """z with -log Phi(-z) = e, entry by entry; backward by the Mills ratio, itself differentiable."""

    @staticmethod
    def forward(ctx: Any, e: Tensor) -> Tensor:
        # Phi(z) = 1 - exp(-e). Use whichever tail is small, so that no digit is lost to 1 - something.
        left, right = torch.special.ndtri(-torch.expm1(-e)), -torch.special.ndtri(torch.exp(-e))
        # exp(-e) underflows at 103 (float32) or 745 (float64); beyond 50 solve log Phi(-z) = -e instead, by Newton's
        # method from z^2 / 2 = e, which is a little too far out: four steps then reach the last digit.
        far = e.clamp_min(50)
        deep = (2 * far).sqrt()
        for _ in range(4):
            deep = deep + (far + torch.special.log_ndtr(-deep)) * _mills_ratio(deep)
        z = torch.where(e < math.log(2), left, torch.where(e < 50, right, deep))
        ctx.save_for_backward(z)
        return z

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        return grad * _mills_ratio(z)


class _QuantileReturn(torch.autograd.Function):
    """-log Phi(-z): log_ndtr with a backward that holds where its own, at |z| above 1e4, no longer does."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return -torch.special.log_ndtr(-z)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        return grad / _mills_ratio(z)


def _mills_ratio(z: Tensor) -> Tensor:
    """(1 - Phi(z)) / phi(z), which is dz/dE on the quantile route; erfcx keeps its digits in both tails."""
    return math.sqrt(math.pi / 2) * torch.special.erfcx(z / math.sqrt(2))


def orthant_to_gaussian(
    e: Tensor, route: Literal["complex", "quantile"] = "complex", generator: torch.Generator | None = None
) -> Tensor:
    r"""Turn exponential coordinates into Gaussian ones, by either exact route.

    .. math::

        \text{complex:}\quad & (G_{i1}, G_{i2}) = \sqrt{2 E_i}\,(\cos\varphi_i, \sin\varphi_i),
        \quad \varphi_i \sim \mathrm{Uniform}[0, 2\pi) \\
        \text{quantile:}\quad & Z_i = \Phi^{-1}(1 - e^{-E_i}).

    If the entries of E are independent Exp(1), the result is standard normal in dimension 2C or C. The
    quantile route draws nothing. It uses the small tail on either side of the median, and Newton's method on
    log Phi(-z) = -E where exp(-E) underflows.

    Args:
        e: ``(..., C)`` floating, finite, non-negative; for the quantile route positive.
        route: ``"complex"`` or ``"quantile"``.
        generator: a CPU generator for the phases of the complex route; torch's global one by default.

    Returns:
        ``(..., 2C)`` for ``"complex"``, entries 2i and 2i + 1 being the two parts of coordinate i;
        ``(..., C)`` for ``"quantile"``.

    Raises:
        TypeError: if ``e`` is not a floating tensor.
        ValueError: if an entry is negative, not finite, or (quantile route) zero; if ``route`` is unknown.

    Reference: Box and Muller (1958) for the complex route.
    Derived in: Chapter 2, Propositions 2.4 and 2.5.

    >>> e = torch.tensor([0.5, 2.0], dtype=torch.float64)
    >>> orthant_to_gaussian(e, route="quantile")
    tensor([-0.2703,  1.1015], dtype=torch.float64)
    >>> g = orthant_to_gaussian(e, route="complex", generator=torch.Generator().manual_seed(0))
    >>> g.shape, g.unflatten(-1, (2, 2)).square().sum(-1) / 2
    (torch.Size([4]), tensor([0.5000, 2.0000], dtype=torch.float64))
    """
    _require_route(route)
    _require_orthant(e, least=1)
    require_generator("generator", generator)
    work = torch.promote_types(e.dtype, torch.float32)  # half precision has no ndtri, and few phases
    if route == "complex":
        phase = 2 * math.pi * torch.rand(e.shape, dtype=work, generator=generator).to(e.device)
        radius = math.sqrt(2) * e.to(work).sqrt()
        pair = torch.stack([radius * phase.cos(), radius * phase.sin()], dim=-1)  # (..., C, 2)
        return pair.flatten(-2).to(e.dtype)
    if values_at_hand(e) and (e == 0).any():
        raise ValueError(
            f"e has {int((e == 0).sum())} zero entries, which the quantile route sends to minus infinity: "
            "use e.clamp_min(torch.finfo(e.dtype).tiny)"
        )
    return _QuantileMap.apply(e.to(work)).to(e.dtype)


def gaussian_to_orthant(g: Tensor, route: Literal["complex", "quantile"] = "complex") -> Tensor:
    r"""Undo :func:`orthant_to_gaussian`: from Gaussian to exponential coordinates.

    .. math::

        \text{complex:}\quad E_i = \tfrac12 (G_{i1}^2 + G_{i2}^2), \qquad
        \text{quantile:}\quad E_i = -\log \Phi(-Z_i).

    Args:
        g: ``(..., 2C)`` for ``"complex"`` (pairs side by side), ``(..., C)`` for ``"quantile"``; floating and
            finite.
        route: ``"complex"`` or ``"quantile"``.

    Returns:
        ``(..., C)``, non-negative.

    Raises:
        TypeError: if ``g`` is not a floating tensor.
        ValueError: if an entry is not finite, ``route`` is unknown, or the complex route meets an odd width.

    Reference: Box and Muller (1958) for the complex route.
    Derived in: Chapter 2, Propositions 2.4 and 2.5.

    >>> e = torch.tensor([1e-30, 1.0, 1000.0], dtype=torch.float64)
    >>> gaussian_to_orthant(orthant_to_gaussian(e, route="quantile"), route="quantile")
    tensor([1.0000e-30, 1.0000e+00, 1.0000e+03], dtype=torch.float64)
    >>> gaussian_to_orthant(torch.tensor([3.0, 4.0]))
    tensor([12.5000])
    """
    _require_route(route)
    _require_rows("g", g, least=1)
    if route == "complex":
        if g.shape[-1] % 2:
            raise ValueError(f"g must have an even last dimension on the complex route, got {tuple(g.shape)}")
        pair = g.unflatten(-1, (-1, 2))
        return (0.5 * pair * pair).sum(-1)  # halved first: no overflow before E itself overflows
    work = torch.promote_types(g.dtype, torch.float32)
    return _QuantileReturn.apply(g.to(work)).to(g.dtype)


# The entropy ledger -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LedgerRow:
    r"""One line of the ledger: an exact number of nats.

    ``terms`` are the exact coefficients of 1, log Gamma(C), digamma(C) and log 2 pi; ``nats`` is their value.
    A row is either the entropy of a stage (``is_stage``) or a step between two stages. ``dimension`` is that
    of the stage, or of what the step adds.
    """

    symbol: str
    formula: str
    terms: tuple[Fraction, Fraction, Fraction, Fraction]
    nats: float
    dimension: int
    is_stage: bool


@dataclass(frozen=True)
class EntropyLedger:
    """The entropies along the chain for C classes, and the steps between them; see :func:`entropy_ledger`."""

    n_classes: int
    simplex: LedgerRow
    radius: LedgerRow
    stretch: LedgerRow
    orthant: LedgerRow
    phases: LedgerRow
    complex_gaussian: LedgerRow
    quantile_stretch: LedgerRow
    quantile_gaussian: LedgerRow

    def rows(self, route: Literal["complex", "quantile"]) -> tuple[LedgerRow, ...]:
        """The lines of one route in order; the steps between two stages sum to the difference of the two."""
        _require_route(route)
        to_orthant = (self.simplex, self.radius, self.stretch, self.orthant)
        if route == "complex":
            return (*to_orthant, self.phases, self.complex_gaussian)
        return (*to_orthant, self.quantile_stretch, self.quantile_gaussian)

    @property
    def lift(self) -> float:
        """The cost of leaving the simplex, h(E) - h(p) = C + log Gamma(C), in nats."""
        return self.n_classes + math.lgamma(self.n_classes)


def entropy_ledger(n_classes: int) -> EntropyLedger:
    r"""Every entropy of the chain and every step between, in closed form.

    .. math::

        h(p) &= -\log\Gamma(C), \qquad h(S) = C + \log\Gamma(C) + (1 - C)\,\psi(C), \\
        h(E) &= h(p) + h(S) + (C - 1)\,\mathrm{E}\log S = C, \\
        h(G) &= h(E) + C \log 2\pi = C \log 2\pi e, \qquad
        h(Z) = h(E) + \tfrac{C}{2} \log\tfrac{2\pi}{e} = \tfrac{C}{2} \log 2\pi e .

    h(p) is taken in the first C - 1 coordinates. The coefficients of every row are kept as fractions, so that
    the rows add up exactly and not only to rounding.

    Args:
        n_classes: number of classes C, at least 2.

    Returns:
        An :class:`EntropyLedger`; ``.rows("complex")`` and ``.rows("quantile")`` give either route in order.

    Raises:
        TypeError: if ``n_classes`` is not an int.
        ValueError: if ``n_classes`` is less than 2.

    Reference: Cover and Thomas, *Elements of Information Theory* (2006), for the entropies of single laws.
    Derived in: Chapter 2, Proposition 2.7.

    >>> ledger = entropy_ledger(3)
    >>> round(ledger.lift, 4), round(ledger.radius.nats, 4), ledger.orthant.nats
    (3.6931, 1.8476, 3.0)
    >>> step = [r for r in ledger.rows("quantile") if not r.is_stage]
    >>> sum(r.terms[0] for r in step) == ledger.quantile_gaussian.terms[0] - ledger.simplex.terms[0]
    True
    """
    c = _require_classes(n_classes)
    digamma = torch.special.digamma(torch.tensor(c, dtype=torch.float64)).item()
    basis = (1.0, math.lgamma(c), digamma, math.log(2 * math.pi))

    def row(
        symbol: str, formula: str, terms: tuple[int | Fraction, ...], dimension: int, is_stage: bool = False
    ) -> LedgerRow:
        one, log_gamma, psi, log_2pi = (Fraction(t) for t in terms)
        exact = (one, log_gamma, psi, log_2pi)
        nats = math.fsum(float(t) * b for t, b in zip(exact, basis, strict=True))
        return LedgerRow(symbol, formula, exact, nats, dimension, is_stage)

    half = Fraction(c, 2)
    return EntropyLedger(
        n_classes=c,
        simplex=row("h(p)", r"-\log\Gamma(C)", (0, -1, 0, 0), c - 1, True),
        radius=row("h(S)", r"C + \log\Gamma(C) + (1-C)\,\psi(C)", (c, 1, 1 - c, 0), 1),
        stretch=row(r"(C-1)\,\mathrm{E}\log S", r"(C-1)\,\psi(C)", (0, 0, c - 1, 0), 0),
        orthant=row("h(E)", "C", (c, 0, 0, 0), c, True),
        phases=row(r"h(\varphi)", r"C \log 2\pi", (0, 0, 0, c), c),
        complex_gaussian=row("h(G)", r"C \log 2\pi e", (c, 0, 0, c), 2 * c, True),
        quantile_stretch=row(
            r"\sum_i \mathrm{E}\log \mathrm{d}Z_i/\mathrm{d}E_i",
            r"\tfrac{C}{2} \log\tfrac{2\pi}{e}",
            (-half, 0, 0, half),
            0,
        ),
        quantile_gaussian=row("h(Z)", r"\tfrac{C}{2} \log 2\pi e", (half, 0, 0, half), c, True),
    )


def label_simplex_information(n_classes: int) -> float:
    r"""What a flat Dirichlet on the label simplex can say about the label: I(Y; W) = log C - H_C + 1.

    .. math:: I(Y; W) = \log C - H_C + 1 \;\longrightarrow\; 1 - \gamma, \qquad H_C = \sum_{k=1}^C \tfrac1k ,

    where W is uniform on the simplex and Y given W is drawn from it.

    Args:
        n_classes: number of classes C, at least 2.

    Returns:
        A float, in nats.

    Raises:
        TypeError: if ``n_classes`` is not an int.
        ValueError: if ``n_classes`` is less than 2.

    Reference: Wolpert and Wolf (1995), the mean entropy under a Dirichlet prior.
    Derived in: Chapter 2, Proposition 2.11.

    >>> round(label_simplex_information(10), 4), round(label_simplex_information(10**9), 4)
    (0.3736, 0.4228)
    """
    c = _require_classes(n_classes)
    harmonic = torch.special.digamma(torch.tensor(c + 1.0, dtype=torch.float64)).item() + _EULER
    return math.log(c) - harmonic + 1


# Entropy from samples -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class EntropyEstimate:
    """An entropy in nats and the standard error of its sampling noise, which does not cover the bias."""

    nats: float
    standard_error: float


@torch.no_grad()
def knn_entropy(samples: Tensor, k: int = 3) -> EntropyEstimate:
    r"""Differential entropy from nearest neighbours (Kozachenko and Leonenko).

    .. math::

        \hat h = \psi(N) - \psi(k) + \log V_D + \frac{D}{N} \sum_{n=1}^{N} \log r_{n},

    with r_n the Euclidean distance from sample n to its k-th nearest neighbour and V_D the volume of the unit
    ball. The standard error comes from 20 disjoint parts of the sample: the N terms share neighbours, so that
    their own spread over sqrt(N) is up to a third too small. The bias is not in it: that grows with the
    dimension and at hard edges of the support.

    Args:
        samples: ``(N, D)`` floating, independent draws from a law with a density, N at least 20 (k + 1).
        k: which neighbour, at least 1.

    Returns:
        An :class:`EntropyEstimate`, in nats. Computed in float64; time grows as N^2 D, memory as N.

    Raises:
        TypeError: if ``samples`` is not a floating tensor.
        ValueError: if ``samples`` is not finite or too few, ``k`` is less than 1, or k + 1 samples coincide.

    Reference: Kozachenko and Leonenko (1987); Berrett, Samworth and Yuan (2019), Equation 1.
    Derived in: Chapter 2, Proposition 2.8.

    >>> x = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> estimate = knn_entropy(x)
    >>> abs(estimate.nats - math.log(2 * math.pi * math.e)) < 4 * estimate.standard_error
    True
    """
    require_finite("samples", require_floating("samples", samples, 2, "(N, D)"))
    k = require_count("k", k)
    if not values_at_hand(samples):
        raise ValueError("samples lives where there are no numbers to look at, like the meta device")
    if len(samples) < _PARTS * (k + 1):
        raise ValueError(f"samples needs at least {_PARTS * (k + 1)} rows for k = {k}, got {len(samples)}")
    x = samples.double()
    exponent = exponent_of(x)
    x = times_two_to(-exponent, x)  # squared distances stay in range
    parts = [_knn_entropy(part, k) for part in x.tensor_split(_PARTS)]
    scale = x.shape[1] * exponent * math.log(2)
    return EntropyEstimate(_knn_entropy(x, k) + scale, torch.tensor(parts).std().item() / math.sqrt(_PARTS))


_PARTS = 20  # the error of the standard error is then about one part in six


def _knn_entropy(x: Tensor, k: int) -> float:
    n, dim = x.shape
    radius = torch.cat([_kth_distance(block, x, k) for block in x.split(max(1, 2**22 // n))])
    if (radius == 0).any():
        raise ValueError(
            f"samples holds {int((radius == 0).sum())} points with {k} exact copies: a law with atoms has no "
            "differential entropy; remove the copies or add noise"
        )
    log_ball = 0.5 * dim * math.log(math.pi) - math.lgamma(1 + 0.5 * dim)
    psi = torch.special.digamma(torch.tensor([float(n), float(k)], dtype=torch.float64))
    return (dim * radius.log().mean() + psi[0] - psi[1]).item() + log_ball


def _kth_distance(block: Tensor, x: Tensor, k: int) -> Tensor:
    # Differences, not matrix products: products lose the small distances, and only those count here.
    distance = torch.cdist(block, x, compute_mode="donot_use_mm_for_euclid_dist")
    return distance.topk(k + 1, largest=False).values[:, -1]  # each point is its own nearest neighbour
