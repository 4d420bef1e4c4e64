r"""Self-supervised learning as the ascent of one lower bound on mutual information, on problems with known answers.

Chapter 8 derives everything here. A critic Ψ scores pairs of codes. Its *joint term* is its mean over true pairs, its
*marginal term* the log-mean of its exponential over pairs whose parts come from different images:

.. math:: I(Z;Z') \ge J(\Psi) = \mathrm{E}_{\text{joint}} \Psi - \log \mathrm{E}_{\text{product}}\, e^{\Psi} .

This module is that bound and its relatives: on tables of scores, which serve for a discrete channel with its true
probabilities and for a minibatch alike, and in closed form for Gaussian pairs.

All quantities are in nats. Half precision is computed and returned in float32, under autocast too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sigreg._precision import at_least_float32, without_autocast
from sigreg._validate import (
    require_between,
    require_distribution,
    require_finite,
    require_floating,
    require_same_device,
)

__all__ = ["donsker_varadhan", "info_nce_bound", "second_order_bound"]

# ---------------------------------------------------------------------------------------------------------
# The bound on a table of scores
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Terms:
    """The two terms of a lower bound on mutual information, scalars in nats; ``bound`` is their difference."""

    joint: Tensor
    marginal: Tensor

    @property
    def bound(self) -> Tensor:
        """Joint term less marginal term."""
        return self.joint - self.marginal


@without_autocast
def donsker_varadhan(scores: Tensor, joint: Tensor | None = None, product: Tensor | None = None) -> Terms:
    r"""Donsker and Varadhan's bound for one critic, given as the table of its scores.

    .. math:: J(\Psi) = \sum_{ij} P_{ij} \Psi_{ij} - \log \sum_{ij} Q_{ij} e^{\Psi_{ij}}

    For a discrete channel pass its ``joint``. For a minibatch pass the scores of all pairs, the true ones on the
    diagonal: by default P is then uniform on the diagonal and Q uniform on the *other* entries.

    Args:
        scores: Ψ, floating (m, n).
        joint: P, (m, n), entries sum to one; None for a minibatch (B, B).
        product: Q, (m, n), entries sum to one; None for the product of the marginals of ``joint``, or for the
            entries off the diagonal of a minibatch.

    Returns:
        :class:`Terms`.

    Raises:
        TypeError, ValueError: the tables are not floating, finite, normalised or of one shape; or a minibatch is
            not square, or has fewer than two rows.

    Reference:
        Donsker and Varadhan (1983), doi 10.1002/cpa.3160360204; Belghazi et al. (2018), arXiv 1801.04062, Theorem 1.

    Derived in:
        Chapter 8, Proposition 8.2.

    >>> joint = torch.tensor([[0.4, 0.1], [0.1, 0.4]], dtype=torch.float64)
    >>> best = torch.log(joint / 0.25)
    >>> donsker_varadhan(best, joint).bound.item()  # the information itself: log 2 - H(0.2)
    0.1927...
    """
    scores, joint, product = _tables(scores, joint, product)
    marginal = torch.logsumexp((scores + product.log()).flatten(), 0)
    return Terms((joint * scores).sum(), marginal)


@without_autocast
def second_order_bound(scores: Tensor, joint: Tensor | None = None, product: Tensor | None = None) -> Terms:
    r"""The bound with its marginal term expanded to second order in the scores. No longer a bound on information.

    .. math:: J_2(\Psi) = \mathrm{E}_P \Psi - \mathrm{E}_Q \Psi - \tfrac12 \operatorname{Var}_Q \Psi, \qquad
        \sup_\Psi J_2 = \tfrac12 \chi^2(P \Vert Q)

    Args:
        scores, joint, product: as for :func:`donsker_varadhan`.

    Returns:
        :class:`Terms`, the marginal one :math:`\mathrm{E}_Q \Psi + \frac12 \operatorname{Var}_Q \Psi`.

    Raises:
        TypeError, ValueError: as for :func:`donsker_varadhan`.

    Reference:
        The cumulant expansion; that Barlow Twins follows from one is a claim of Sabby et al. (2025), arXiv 2510.01345.

    Derived in:
        Chapter 8, Proposition 8.12.

    >>> joint = torch.tensor([[0.3, 0.2], [0.2, 0.3]], dtype=torch.float64)
    >>> round(second_order_bound(joint / 0.25 - 1, joint).bound.item(), 6)  # half of 0.2 squared
    0.02
    """
    scores, joint, product = _tables(scores, joint, product)
    mean = (product * scores).sum()
    variance = (product * (scores - mean).square()).sum()
    return Terms((joint * scores).sum(), mean + variance / 2)


@without_autocast
def info_nce_bound(scores: Tensor) -> Tensor:
    r"""InfoNCE: Donsker and Varadhan's bound with a critic that the batch normalises, so that no marginal term is left.

    .. math:: \hat I = \frac1B \sum_i \log \frac{e^{T_{ii}}}{\frac1B \sum_j e^{T_{ij}}} \;\le\; \log B,
        \qquad \mathrm{E}\,\hat I \le I(Z;Z')

    Args:
        scores: Ψ, floating (B, B): row i holds the scores of one code with every partner, its own at column i.

    Returns:
        A scalar, in nats.

    Raises:
        TypeError, ValueError: the scores are not a floating, finite, square table of at least two rows.

    Reference:
        van den Oord, Li and Vinyals (2018), arXiv 1807.03748, Equation 4; Poole et al. (2019), arXiv 1905.06922.

    Derived in:
        Chapter 8, Proposition 8.4.

    >>> info_nce_bound(50 * torch.eye(8)).item(), math.log(8)  # the cap
    (2.0794..., 2.0794...)
    """
    scores = at_least_float32(require_finite("scores", require_floating("scores", scores, 2, "(B, B)")))
    _square(scores)
    return math.log(len(scores)) + scores.log_softmax(1).diagonal().mean()


def _square(scores: Tensor) -> None:
    if scores.shape[0] != scores.shape[1] or len(scores) < 2:
        raise ValueError(f"scores of a minibatch must have shape (B, B) with B >= 2, got {tuple(scores.shape)}")


def _tables(scores: Tensor, joint: Tensor | None, product: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    scores = at_least_float32(require_finite("scores", require_floating("scores", scores, 2, "(m, n)")))
    if joint is None:
        _square(scores)
        size = len(scores)
        eye = torch.eye(size, dtype=scores.dtype, device=scores.device)
        joint = eye / size
        if product is None:
            product = (1 - eye) / (size * (size - 1))
    for name, table in (("joint", joint), ("product", product)):
        if table is None:
            continue
        require_floating(name, table, 2, "(m, n)")
        if table.shape != scores.shape:
            raise ValueError(f"{name} must have the shape of scores, {tuple(scores.shape)}, got {tuple(table.shape)}")
        require_distribution(name, table, dim=(0, 1))
        require_same_device(scores=scores, **{name: table})
    joint = joint.to(torch.promote_types(joint.dtype, scores.dtype))
    if product is None:
        product = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    return scores, joint, product


# ---------------------------------------------------------------------------------------------------------
# Gaussian pairs: everything in closed form
# ---------------------------------------------------------------------------------------------------------


@without_autocast
def gaussian_critic(z: Tensor, z_prime: Tensor, correlation: float) -> Tensor:
    r"""The best critic for standard Gaussian pairs: the logarithm of the density ratio, for all pairs of two batches.

    .. math:: \Psi^*(z, z') = \sum_d \frac{\rho z_d z'_d - \rho^2 (z_d^2 + z_d'^2) / 2}{1 - \rho^2}
        - \frac12 \log (1 - \rho^2)

    Args:
        z, z_prime: (B, D) and (B', D), floating.
        correlation: rho in (-1, 1), of each coordinate with its partner.

    Returns:
        Scores (B, B').

    Raises:
        TypeError, ValueError: the codes are not floating matrices of one width, or rho is not inside (-1, 1).

    Reference:
        The bivariate normal density.

    Derived in:
        Chapter 8, Example 8.3.

    >>> gaussian_critic(torch.zeros(1, 2), torch.zeros(1, 2), 0.6)  # -log(0.8) a coordinate
    tensor([[0.4463]])
    """
    require_floating("z", z, 2, "(B, D)")
    require_floating("z_prime", z_prime, 2, "(B', D)")
    if z.shape[1] != z_prime.shape[1]:
        raise ValueError(f"z and z_prime must have the same width D, got {z.shape[1]} and {z_prime.shape[1]}")
    if z.dtype != z_prime.dtype:
        raise TypeError(f"z and z_prime must have one dtype, got {z.dtype} and {z_prime.dtype}")
    require_same_device(z=z, z_prime=z_prime)
    z, z_prime = at_least_float32(z), at_least_float32(z_prime)
    rho = require_between("correlation", correlation, -1, 1)
    left = 1 - rho**2
    squares = z.square().sum(1)[:, None] + z_prime.square().sum(1)[None]
    return (rho * z @ z_prime.T - rho**2 * squares / 2) / left - z.shape[1] * math.log(left) / 2


def gaussian_bounds(correlation: float) -> dict[str, float]:
    r"""What one coordinate of a standard Gaussian pair gives to each quantity of Chapter 8, in nats.

    ========================  =============================================================================
    ``information``           :math:`I = -\frac12 \log(1 - \rho^2)`
    ``bilinear``              :math:`\max_a J(a z z') = a \rho + \frac12 \log(1 - a^2)` at
                              :math:`a = (\sqrt{1 + 4\rho^2} - 1) / 2\rho`
    ``second_order``          :math:`\max_a J_2(a z z') = \frac12 \rho^2`
    ``half_chi_square``       :math:`\max_\Psi J_2(\Psi) = \frac12 \rho^2 / (1 - \rho^2)`
    ========================  =============================================================================

    Args:
        correlation: rho in (-1, 1).

    Returns:
        A dictionary of floats.

    Raises:
        ValueError: rho is not inside (-1, 1).

    Reference:
        The bivariate normal density.

    Derived in:
        Chapter 8, Proposition 8.13.

    >>> {name: round(value, 4) for name, value in gaussian_bounds(0.6).items()}
    {'information': 0.2231, 'bilinear': 0.1572, 'second_order': 0.18, 'half_chi_square': 0.2812}
    """
    rho = require_between("correlation", correlation, -1, 1)
    slope = 2 * rho / (1 + math.sqrt(1 + 4 * rho**2))  # the same root, without a division by zero at rho = 0
    return {
        "information": -math.log1p(-(rho**2)) / 2,
        "bilinear": slope * rho + math.log1p(-(slope**2)) / 2,
        "second_order": rho**2 / 2,
        "half_chi_square": rho**2 / (1 - rho**2) / 2,
    }
