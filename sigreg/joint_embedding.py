r"""The losses of joint embedding as short functions: VICReg and its relatives, contrast, regression.

One convention for all of them. Two views of B images have the codes ``z_a`` and ``z_b``, both (..., B, D); row i of the
one and row i of the other belong to the same image. **The sample axis is the second last.** Axes before it (time
steps, heads) are scored apart and averaged. A loss is a scalar to be *minimised*, a mean over the batch, in the
dtype of the codes. Half precision is computed in float32 and comes back as float32, under autocast too. A variance
over the batch divides by B - 1, unless a function says that its source divides by B. Entropies are in nats. Gradients
flow into every argument, unless a function says that one is held fixed. A code that is divided by its length may have
any length, however small, but 0: zeros stay zeros. NaN and infinity make a loss NaN, or raise a ValueError where a
decomposition needs finite numbers.

**Several processes.** Under ``torch.distributed`` a loss is that of the batch of all processes together. Every process
must call it; their B may differ, and may be 0. Each returns the same value, and the gradient of the *sum* of these
values, which DistributedDataParallel's averaging turns into the gradient that one process would have had.
``sync=False`` scores each process by itself, ``group`` shares within a process group. Codes are gathered, so memory
and time are those of the whole batch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sigreg._distributed import gather_rows, shared_group
from sigreg._precision import at_least_float32, in_range, without_autocast
from sigreg._validate import (
    require_choice,
    require_finite,
    require_flag,
    require_floating,
    require_positive,
    require_same_device,
    require_sharing,
    require_weight,
)

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = [
    "barlow_twins_loss",
    "byol_loss",
    "logdet_entropy",
    "moco_loss",
    "negative_cosine",
    "nt_xent_loss",
    "pairwise_entropy",
    "simsiam_loss",
    "vicreg_logdet_loss",
    "vicreg_loss",
    "vicreg_pairdist_loss",
]

_TINY = 1e-8  # what a code of zeros is divided by; every other is brought above it first

# ---------------------------------------------------------------------------------------------------------
# VICReg and its three terms
# ---------------------------------------------------------------------------------------------------------


@without_autocast
def invariance_term(z_a: Tensor, z_b: Tensor, *, sync: bool = True, group: ProcessGroup | None = None) -> Tensor:
    r"""How far apart the codes of two views are, per coordinate.

    .. math:: s = \frac{1}{BD} \sum_{i} |z^a_i - z^b_i|^2

    A mean over coordinates, as in the method's published code and in lightly; the article's formula sums over them.

    Args:
        z_a, z_b: floating (..., B, D), B at least 1.
        sync, group: how processes share, see the head of the module.

    Returns:
        A scalar, 0 or more.

    Raises:
        TypeError, ValueError: the codes are not two floating matrices of one shape, or hold no row.

    Reference:
        Bardes, Ponce and LeCun (2022), arXiv 2105.04906, the term s(Z, Z').

    Derived in:
        Chapter 7, Proposition 7.7.

    >>> invariance_term(torch.zeros(2, 4), torch.ones(2, 4))
    tensor(1.)
    """
    z_a, z_b = _require_pair(z_a, z_b, sync, group, least=1)
    return (z_a - z_b).square().mean()


@without_autocast
def variance_term(
    z: Tensor, *, target: float = 1.0, floor: float = 1e-4, sync: bool = True, group: ProcessGroup | None = None
) -> Tensor:
    r"""How far the standard deviation of a coordinate falls short of ``target``, averaged over coordinates.

    .. math:: v = \frac1D \sum_d \max\bigl(0,\; \gamma - \sqrt{\operatorname{Var} z_d + \epsilon}\bigr),

    the variance unbiased (over B - 1). The floor keeps the slope finite where a coordinate has collapsed.

    Args:
        z: floating (..., B, D), B at least 2.
        target: the standard deviation gamma, positive.
        floor: epsilon, positive.
        sync, group: how processes share, see the head of the module.

    Returns:
        A scalar, 0 or more.

    Raises:
        TypeError, ValueError: the codes or a setting are not allowed.

    Reference:
        Bardes, Ponce and LeCun (2022), arXiv 2105.04906, Equations 1 and 2.

    Derived in:
        Chapter 7, Proposition 7.9.

    >>> variance_term(torch.zeros(4, 3))  # collapse: 1 - sqrt(1e-4)
    tensor(0.9900)
    """
    z = _require_batch("z", z, sync, group)
    require_positive("target", target)
    require_positive("floor", floor)
    return F.relu(target - (z.var(-2) + floor).sqrt()).mean()


@without_autocast
def covariance_term(z: Tensor, *, sync: bool = True, group: ProcessGroup | None = None) -> Tensor:
    r"""The squared covariances between different coordinates, summed and divided by their number D.

    .. math:: c = \frac1D \sum_{d \ne e} \Sigma_{de}^2, \qquad
        \Sigma = \frac{1}{B - 1} \sum_i (z_i - \bar z)(z_i - \bar z)^\top

    Args:
        z: floating (..., B, D), B at least 2.
        sync, group: how processes share, see the head of the module.

    Returns:
        A scalar, 0 or more.

    Raises:
        TypeError, ValueError: the codes are not a floating tensor of at least 2 rows.

    Reference:
        Bardes, Ponce and LeCun (2022), arXiv 2105.04906, Equations 3 and 4.

    Derived in:
        Chapter 7, Proposition 7.9.

    >>> covariance_term(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))  # both covariances are 2
    tensor(4.)
    """
    z = _require_batch("z", z, sync, group)
    return _without_diagonal(batch_covariance(z)).square().sum((-1, -2)).mean() / z.shape[-1]


@without_autocast
def vicreg_loss(
    z_a: Tensor,
    z_b: Tensor,
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    sync: bool = True,
    group: ProcessGroup | None = None,
) -> Tensor:
    r"""Variance-invariance-covariance regularization.

    .. math:: \lambda\, s(z^a, z^b) + \frac{\mu}{2} \bigl[v(z^a) + v(z^b)\bigr] + \nu \bigl[c(z^a) + c(z^b)\bigr]

    with :func:`invariance_term`, :func:`variance_term` and :func:`covariance_term`. The variance is averaged over the
    two views and the covariance summed, as in the method's published code and in lightly.

    Args:
        z_a, z_b: floating (..., B, D), B at least 2.
        invariance, variance, covariance: the weights lambda, mu and nu.
        sync, group: how processes share, see the head of the module.

    Returns:
        A scalar.

    Raises:
        TypeError, ValueError: the codes are not two floating tensors of one shape, or hold fewer than 2 rows.

    Reference:
        Bardes, Ponce and LeCun (2022), arXiv 2105.04906, Equation 6.

    Derived in:
        Chapter 7, Proposition 7.9.

    >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> vicreg_loss(z, z), vicreg_loss(0 * z, 0 * z)  # spread out without correlation; collapsed
    (tensor(0.), tensor(24.7500))
    """
    for name, weight in (("invariance", invariance), ("variance", variance), ("covariance", covariance)):
        require_weight(name, weight)
    z_a, z_b = _require_pair(z_a, z_b, sync, group)
    spread = (variance_term(z_a, sync=False) + variance_term(z_b, sync=False)) / 2
    correlation = covariance_term(z_a, sync=False) + covariance_term(z_b, sync=False)
    return invariance * invariance_term(z_a, z_b, sync=False) + variance * spread + covariance * correlation


# ---------------------------------------------------------------------------------------------------------
# VICReg with an entropy estimator in place of its variance and covariance terms
# ---------------------------------------------------------------------------------------------------------


@without_autocast
def logdet_entropy(z: Tensor, *, floor: float = 1e-4, sync: bool = True, group: ProcessGroup | None = None) -> Tensor:
    r"""The entropy of the Gaussian that has the covariance of the codes.

    .. math:: \hat h = \frac12 \log\det(\Sigma + \epsilon I) + \frac D2 \log 2\pi e

    An *upper* bound on the entropy of any law with that covariance. From the singular values of the centred codes, so
    that neither B < D nor a large scale makes a determinant negative.

    Args:
        z: floating (..., B, D), B at least 2, finite.
        floor: epsilon, positive: the variance given to a direction that has none.
        sync, group: how processes share, see the head of the module.

    Returns:
        A scalar, in nats.

    Raises:
        TypeError, ValueError: the codes or the floor are not allowed.

    Reference:
        Shwartz-Ziv, Balestriero, Kawaguchi, Rudner and LeCun (2023), arXiv 2303.00633.

    Derived in:
        Chapter 7, Proposition 7.8.

    >>> z = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> logdet_entropy(z) - logdet_entropy(z / 3)  # a cloud three times as wide, in two dimensions: 2 log 3
    tensor(2.19..., dtype=torch.float64)
    """
    z = require_finite("z", _require_batch("z", z, sync, group))
    require_positive("floor", floor)
    batch, dim = z.shape[-2:]
    length = torch.linalg.svdvals(z - z.mean(-2, keepdim=True))  # (..., min(B, D))
    log_det = (length.square() / (batch - 1) + floor).log().sum(-1) + max(dim - batch, 0) * math.log(floor)
    return 0.5 * log_det.mean() + 0.5 * dim * math.log(2 * math.pi * math.e)


@without_autocast
def pairwise_entropy(
    z: Tensor,
    *,
    sigma: float = 1.0,
    bound: Literal["upper", "lower"] = "upper",
    sync: bool = True,
    group: ProcessGroup | None = None,
) -> Tensor:
    r"""A bound on the entropy of codes blurred by a Gaussian, from their pairwise distances.

    .. math:: \hat h = \frac D2 \log(2\pi e \sigma^2)
        - \frac1B \sum_i \log \frac1B \sum_j \exp\Bigl(-\frac{|z_i - z_j|^2}{2 \sigma^2 q}\Bigr),
        \qquad q = 1 \text{ (upper)}, \; 4 \text{ (lower)}

    The codes are the centres of an equal mixture of B Gaussians N(z_i, sigma^2 I); the two values enclose the entropy
    of *that mixture*. Neither leaves [0, log B] above the entropy of one component: a batch of B codes can show no
    more.

    Args:
        z: floating (..., B, D), B at least 2.
        sigma: standard deviation of the blur, positive.
        bound: ``"upper"`` or ``"lower"``.
        sync, group: how processes share, see the head of the module.

    Returns:
        A scalar, in nats.

    Raises:
        TypeError, ValueError: the codes or a setting are not allowed.

    Reference:
        Kolchinsky and Tracey (2017), arXiv 1706.02419, for Gaussians of one covariance.

    Derived in:
        Chapter 7, Proposition 7.4.

    >>> far = 100 * torch.eye(4, dtype=torch.float64)
    >>> one = 2 * math.log(2 * math.pi * math.e)  # the entropy of a standard Gaussian in four dimensions
    >>> pairwise_entropy(far) - one, pairwise_entropy(0 * far) - one  # log 4, and nothing
    (tensor(1.3863, dtype=torch.float64), tensor(0., dtype=torch.float64))
    """
    z = _require_batch("z", z, sync, group)
    require_positive("sigma", sigma)
    require_choice("bound", bound, ("upper", "lower"))
    batch, dim = z.shape[-2:]
    square = squared_distances(z) / (sigma**2 * (2 if bound == "upper" else 8))
    apart = math.log(batch) - torch.logsumexp(-square, -1).mean()
    return apart + 0.5 * dim * math.log(2 * math.pi * math.e * sigma**2)


@without_autocast
def vicreg_logdet_loss(
    z_a: Tensor,
    z_b: Tensor,
    *,
    invariance: float = 25.0,
    entropy: float = 1.0,
    floor: float = 1e-4,
    sync: bool = True,
    group: ProcessGroup | None = None,
) -> Tensor:
    r"""VICReg's invariance, with the log-determinant entropy in place of its variance and covariance terms.

    .. math:: \lambda\, s(z^a, z^b) - \frac{\mu}{2D} \bigl[\hat h(z^a) + \hat h(z^b)\bigr]

    with :func:`invariance_term` and :func:`logdet_entropy`. Both parts are per coordinate, so that weights keep their
    meaning when D changes. No target for the scale is needed: invariance charges for width what entropy pays for it.

    Args:
        z_a, z_b: floating (..., B, D), B at least 2, finite.
        invariance, entropy: the weights lambda and mu.
        floor: epsilon of the entropy, positive.
        sync, group: how processes share, see the head of the module.

    Returns:
        A scalar.

    Raises:
        TypeError, ValueError: the codes or the floor are not allowed.

    Reference:
        Shwartz-Ziv et al. (2023), arXiv 2303.00633; the scaling is ours.

    Derived in:
        Chapter 7, Proposition 7.8.

    >>> z = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    >>> vicreg_logdet_loss(2 * z, 2 * z) - vicreg_logdet_loss(z, z)  # a wider cloud is better by log 2 a coordinate
    tensor(-0.693...)
    """
    require_weight("invariance", invariance)
    require_weight("entropy", entropy)
    z_a, z_b = _require_pair(z_a, z_b, sync, group)
    require_finite("z_a", z_a)
    require_finite("z_b", z_b)
    mean = (logdet_entropy(z_a, floor=floor, sync=False) + logdet_entropy(z_b, floor=floor, sync=False)) / 2
    return invariance * invariance_term(z_a, z_b, sync=False) - entropy * mean / z_a.shape[-1]


@without_autocast
def vicreg_pairdist_loss(
    z_a: Tensor,
    z_b: Tensor,
    *,
    invariance: float = 25.0,
    entropy: float = 1.0,
    sigma: float = 1.0,
    bound: Literal["upper", "lower"] = "upper",
    sync: bool = True,
    group: ProcessGroup | None = None,
) -> Tensor:
    r"""VICReg's invariance, with the pairwise-distance entropy in place of its variance and covariance terms.

    .. math:: \lambda\, s(z^a, z^b) - \frac{\mu}{2D} \bigl[\hat h_\sigma(z^a) + \hat h_\sigma(z^b)\bigr]

    with :func:`invariance_term` and :func:`pairwise_entropy`, per coordinate as in :func:`vicreg_logdet_loss`.

    Args:
        z_a, z_b: floating (..., B, D), B at least 2.
        invariance, entropy: the weights lambda and mu.
        sigma, bound: as in :func:`pairwise_entropy`.
        sync, group: how processes share, see the head of the module.

    Returns:
        A scalar.

    Raises:
        TypeError, ValueError: the codes or a setting are not allowed.

    Reference:
        Shwartz-Ziv et al. (2023), arXiv 2303.00633, with the estimator of Kolchinsky and Tracey (2017); the scaling
        is ours.

    Derived in:
        Chapter 7, Proposition 7.4.

    >>> z = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    >>> bool(vicreg_pairdist_loss(2 * z, 2 * z) < vicreg_pairdist_loss(z, z))
    True
    """
    require_weight("invariance", invariance)
    require_weight("entropy", entropy)
    z_a, z_b = _require_pair(z_a, z_b, sync, group)
    h_a, h_b = (pairwise_entropy(z, sigma=sigma, bound=bound, sync=False) for z in (z_a, z_b))
    mean = (h_a + h_b) / 2
    return invariance * invariance_term(z_a, z_b, sync=False) - entropy * mean / z_a.shape[-1]


# ---------------------------------------------------------------------------------------------------------
# Barlow Twins
# ---------------------------------------------------------------------------------------------------------


@without_autocast
def cross_correlation(
    z_a: Tensor, z_b: Tensor, *, floor: float = 1e-5, sync: bool = True, group: ProcessGroup | None = None
) -> Tensor:
    r"""The correlation of every coordinate of one view with every coordinate of the other.

    .. math:: C_{de} = \frac1B \sum_i \tilde z^a_{id}\, \tilde z^b_{ie}, \qquad
        \tilde z = \frac{z - \bar z}{\sqrt{\operatorname{Var} z + \epsilon}},

    here with the *biased* variance (over B), as batch normalization has it, and so do the method and lightly.

    Args:
        z_a, z_b: floating (..., B, D), B at least 2.
        floor: epsilon, positive.
        sync, group: how processes share, see the head of the module.

    Returns:
        (..., D, D), entries in [-1, 1].

    Raises:
        TypeError, ValueError: the codes or the floor are not allowed.

    Reference:
        Zbontar, Jing, Misra, LeCun and Deny (2021), arXiv 2103.03230, Equation 2.

    Derived in:
        Chapter 8, Barlow Twins by second-order expansion.

    >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> cross_correlation(z, -z).diagonal()
    tensor([-1.0000, -1.0000])
    """
    z_a, z_b = _require_pair(z_a, z_b, sync, group)
    require_positive("floor", floor)
    a, b = _standardised(z_a, floor), _standardised(z_b, floor)
    return a.mT @ b / z_a.shape[-2]


def _standardised(z: Tensor, floor: float) -> Tensor:
    z, _ = in_range(z, -2, least=0.0)  # where a scale is taken out, it is so large that no floor is felt
    return (z - z.mean(-2, keepdim=True)) / (z.var(-2, correction=0, keepdim=True) + floor).sqrt()


@without_autocast
def barlow_twins_loss(
    z_a: Tensor, z_b: Tensor, *, redundancy: float = 5e-3, sync: bool = True, group: ProcessGroup | None = None
) -> Tensor:
    r"""Barlow Twins: the cross-correlation of the two views should be the identity.

    .. math:: \sum_d (1 - C_{dd})^2 + \lambda \sum_{d \ne e} C_{de}^2

    with C of :func:`cross_correlation` (biased variance, floor 1e-5). Sums, not means: the value grows with D.

    Args:
        z_a, z_b: floating (..., B, D), B at least 2.
        redundancy: the weight lambda.
        sync, group: how processes share, see the head of the module.

    Returns:
        A scalar, 0 or more.

    Raises:
        TypeError, ValueError: the codes are not two floating tensors of one shape, or hold fewer than 2 rows.

    Reference:
        Zbontar, Jing, Misra, LeCun and Deny (2021), arXiv 2103.03230, Equation 1.

    Derived in:
        Chapter 8, Barlow Twins by second-order expansion.

    >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    >>> barlow_twins_loss(z, z), barlow_twins_loss(z, 0 * z)  # 2e-10 where the floor were zero would be 0
    (tensor(2.0000e-10, dtype=torch.float64), tensor(2., dtype=torch.float64))
    """
    require_weight("redundancy", redundancy)
    correlation = cross_correlation(z_a, z_b, sync=sync, group=group)
    on_diagonal = (1 - correlation.diagonal(dim1=-2, dim2=-1)).square().sum(-1)
    return (on_diagonal + redundancy * _without_diagonal(correlation).square().sum((-1, -2))).mean()


# ---------------------------------------------------------------------------------------------------------
# Contrast: SimCLR, and MoCo with its queue
# ---------------------------------------------------------------------------------------------------------


@without_autocast
def nt_xent_loss(
    z_a: Tensor, z_b: Tensor, *, temperature: float | Tensor = 0.5, sync: bool = True, group: ProcessGroup | None = None
) -> Tensor:
    r"""SimCLR's normalized temperature-scaled cross-entropy: find the other view among 2B - 1 candidates.

    .. math:: -\frac{1}{2B} \sum_{i=1}^{2B} \log
        \frac{\exp(u_i \cdot u_{i'} / \tau)}{\sum_{j \ne i} \exp(u_i \cdot u_j / \tau)}, \qquad u = z / |z|,

    over the 2B codes of both views, i' being the other view of i.

    Args:
        z_a, z_b: floating (..., B, D), B at least 1.
        temperature: tau, a positive number, or a scalar tensor, which may be learned.
        sync, group: how processes share, see the head of the module.

    Returns:
        A scalar, in nats; log(2B - 1) where all codes are alike.

    Raises:
        TypeError, ValueError: the codes or the temperature are not allowed.

    Reference:
        Chen, Kornblith, Norouzi and Hinton (2020), arXiv 2002.05709, Equation 1.

    Derived in:
        Chapter 8, the methods as instances.

    >>> nt_xent_loss(torch.ones(2, 3), torch.ones(2, 3))  # log 3
    tensor(1.0986)
    """
    require_positive("temperature", temperature, tensor=True)
    z_a, z_b = _require_pair(z_a, z_b, sync, group, least=1)
    unit = torch.cat([_unit(z_a), _unit(z_b)], -2)  # (..., 2B, D)
    alike = unit @ unit.mT / temperature
    alike = alike.masked_fill(_diagonal(alike), -math.inf)
    other = torch.arange(alike.shape[-1], device=alike.device).roll(z_a.shape[-2])
    return F.cross_entropy(alike.flatten(0, -2), other.expand(alike.shape[:-1]).flatten())


@without_autocast
def moco_loss(
    query: Tensor,
    key: Tensor,
    queue: Tensor,
    *,
    temperature: float | Tensor = 0.07,
    sync: bool = True,
    group: ProcessGroup | None = None,
) -> Tensor:
    r"""MoCo's InfoNCE: find the key of the own image among the keys of earlier batches.

    .. math:: -\frac1B \sum_i \log
        \frac{\exp(q_i \cdot k_i / \tau)}{\exp(q_i \cdot k_i / \tau) + \sum_{j=1}^{K} \exp(q_i \cdot n_j / \tau)},

    all codes divided by their lengths. Keys and queue are held fixed: the gradient flows into ``query`` only.

    Args:
        query: floating (..., B, D), B at least 1.
        key: floating (..., B, D), codes of the other view, in MoCo from a slowly moving copy of the encoder.
        queue: floating (K, D), keys of earlier batches, the same on every process; see :func:`update_queue`.
        temperature: tau, a positive number, or a scalar tensor, which may be learned.
        sync, group: how processes share, see the head of the module.

    Returns:
        A scalar, in nats.

    Raises:
        TypeError, ValueError: the codes, the queue or the temperature are not allowed.

    Reference:
        He, Fan, Wu, Xie and Girshick (2020), arXiv 1911.05722, Equation 1.

    Derived in:
        Chapter 8, the methods as instances.

    >>> moco_loss(torch.ones(2, 3), torch.ones(2, 3), torch.ones(7, 3))  # log 8
    tensor(2.0794)
    """
    require_positive("temperature", temperature, tensor=True)
    require_floating("queue", queue, 2, "(K, D)")
    query, key = _require_pair(query, key, sync, group, least=1, names=("query", "key"))
    require_same_device(query=query, queue=queue)
    if queue.shape[1] != query.shape[-1]:
        raise ValueError(f"queue must have shape (K, {query.shape[-1]}) like the codes, got {tuple(queue.shape)}")
    query, key, queue = _unit(query), _unit(key.detach()), _unit(queue.detach().to(query.dtype))
    alike = torch.cat([(query * key).sum(-1, keepdim=True), query @ queue.T], -1) / temperature
    return -alike.log_softmax(-1)[..., 0].mean()


@without_autocast
@torch.no_grad()
def update_queue(queue: Tensor, key: Tensor, *, sync: bool = True, group: ProcessGroup | None = None) -> Tensor:
    r"""The queue after a batch: the new keys (of all processes) in front, the oldest dropped, the length K kept.

    Args:
        queue: floating (K, D).
        key: floating (B, D).
        sync, group: how processes share, see the head of the module.

    Returns:
        (K, D), without gradient.

    Raises:
        TypeError, ValueError: not two floating matrices of one width.

    Reference:
        He, Fan, Wu, Xie and Girshick (2020), arXiv 1911.05722, Section 3.2.

    Derived in:
        Chapter 8, the methods as instances.

    >>> update_queue(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[9.0], [8.0]])).flatten()
    tensor([9., 8., 1.])
    """
    require_floating("queue", queue, 2, "(K, D)")
    require_sharing(sync, group)
    group = shared_group(sync, group)
    require_floating("key", key, 2, "(B, D)", empty=group is not None)
    require_same_device(queue=queue, key=key)
    if queue.shape[1] != key.shape[1]:
        raise ValueError(f"key must have shape (B, {queue.shape[1]}) like the queue, got {tuple(key.shape)}")
    return torch.cat([gather_rows(key.to(queue.dtype), group)[0], queue])[: len(queue)]


# ---------------------------------------------------------------------------------------------------------
# Regression: SimSiam and BYOL
# ---------------------------------------------------------------------------------------------------------


@without_autocast
def negative_cosine(
    prediction: Tensor, target: Tensor, *, sync: bool = True, group: ProcessGroup | None = None
) -> Tensor:
    r"""Minus the mean cosine of the angle between predictions and targets.

    .. math:: -\frac1B \sum_i \frac{p_i \cdot z_i}{|p_i|\,|z_i|}

    Gradients flow into both; a caller who wants a stop-gradient passes ``target.detach()``.

    Args:
        prediction, target: floating (..., B, D), B at least 1.
        sync, group: how processes share, see the head of the module.

    Returns:
        A scalar in [-1, 1].

    Raises:
        TypeError, ValueError: not two floating tensors of one shape, or no rows.

    Reference:
        Chen and He (2021), arXiv 2011.10566, Equation 1.

    Derived in:
        Chapter 8, the methods as instances.

    >>> negative_cosine(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [4.0, 0.0]]))
    tensor(-0.5000)
    """
    prediction, target = _require_pair(prediction, target, sync, group, least=1, names=("prediction", "target"))
    return -(_unit(prediction) * _unit(target)).sum(-1).mean()


@without_autocast
def simsiam_loss(
    p_a: Tensor,
    p_b: Tensor,
    z_a: Tensor,
    z_b: Tensor,
    *,
    stop_gradient: bool = True,
    sync: bool = True,
    group: ProcessGroup | None = None,
) -> Tensor:
    r"""SimSiam: each view's prediction should point where the other view's code does.

    .. math:: \tfrac12 D\bigl(p^a, \operatorname{sg} z^b\bigr) + \tfrac12 D\bigl(p^b, \operatorname{sg} z^a\bigr)

    with D of :func:`negative_cosine` and sg, "held fixed".

    Args:
        p_a, p_b: floating (..., B, D), the predictor's output for each view.
        z_a, z_b: floating (..., B, D), the codes.
        stop_gradient: False lets the gradient flow into the codes as well.
        sync, group: how processes share, see the head of the module.

    Returns:
        A scalar in [-1, 1].

    Raises:
        TypeError, ValueError: not floating tensors of one shape, or no rows.

    Reference:
        Chen and He (2021), arXiv 2011.10566, Equation 4.

    Derived in:
        Chapter 8, the methods as instances.

    >>> z = torch.eye(3)
    >>> simsiam_loss(z, z, z, z)
    tensor(-1.)
    """
    require_flag("stop_gradient", stop_gradient)
    p_a, z_b = _require_pair(p_a, z_b, sync, group, least=1, names=("p_a", "z_b"))
    p_b, z_a = _require_pair(p_b, z_a, sync, group, least=1, names=("p_b", "z_a"))
    if stop_gradient:
        z_a, z_b = z_a.detach(), z_b.detach()
    return (negative_cosine(p_a, z_b, sync=False) + negative_cosine(p_b, z_a, sync=False)) / 2


@without_autocast
def byol_loss(
    p_a: Tensor,
    p_b: Tensor,
    z_a: Tensor,
    z_b: Tensor,
    *,
    stop_gradient: bool = True,
    sync: bool = True,
    group: ProcessGroup | None = None,
) -> Tensor:
    r"""BYOL: the squared distance between unit predictions and unit targets, both ways.

    .. math:: \frac1B \sum_i \Bigl| \frac{p^a_i}{|p^a_i|} - \frac{z^b_i}{|z^b_i|} \Bigr|^2
        + \frac1B \sum_i \Bigl| \frac{p^b_i}{|p^b_i|} - \frac{z^a_i}{|z^a_i|} \Bigr|^2
        = 4 + 4\, \mathrm{SimSiam}

    In BYOL the targets come from a slowly moving copy of the encoder, and are held fixed.

    Args:
        p_a, p_b, z_a, z_b, stop_gradient: as in :func:`simsiam_loss`.
        sync, group: how processes share, see the head of the module.

    Returns:
        A scalar in [0, 8].

    Raises:
        TypeError, ValueError: not floating tensors of one shape, or no rows.

    Reference:
        Grill et al. (2020), arXiv 2006.07733, Equation 2 and the sum over both orders of the views.

    Derived in:
        Chapter 8, the methods as instances.

    >>> z = torch.eye(3)
    >>> byol_loss(z, z, -z, -z)
    tensor(8.)
    """
    return 4 + 4 * simsiam_loss(p_a, p_b, z_a, z_b, stop_gradient=stop_gradient, sync=sync, group=group)


# ---------------------------------------------------------------------------------------------------------
# Shared pieces and checks
# ---------------------------------------------------------------------------------------------------------


@without_autocast
def batch_covariance(z: Tensor) -> Tensor:
    r"""The unbiased covariance of the codes, (..., B, D) to (..., D, D): a sum over the batch divided by B - 1.

    >>> batch_covariance(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
    tensor([[2., 2.],
            [2., 2.]])
    """
    centred = z - z.mean(-2, keepdim=True)
    return centred.mT @ centred / (z.shape[-2] - 1)


@without_autocast
def squared_distances(z: Tensor) -> Tensor:
    r"""The squared distance of every code to every other, (..., B, D) to (..., B, B), zero on the diagonal.

    The product form below loses digits where distances are small beside the codes, so float32 codes are multiplied
    in float64, where the device has it.

    >>> squared_distances(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
    tensor([[ 0., 25.],
            [25.,  0.]])
    """
    fine = z if z.device.type == "mps" else z.double()
    fine = fine - fine.mean(-2, keepdim=True).detach()  # distances do not change, nor does their gradient
    square = fine.square().sum(-1)
    distance = square[..., :, None] + square[..., None, :] - 2 * fine @ fine.mT
    return distance.masked_fill(_diagonal(distance), 0).clamp_min(0).to(z.dtype)


def _diagonal(square: Tensor) -> Tensor:
    return torch.eye(square.shape[-1], dtype=torch.bool, device=square.device)


def _without_diagonal(square: Tensor) -> Tensor:
    """Masked before anything is squared: a difference of two sums of squares may round to less than nothing."""
    return square.masked_fill(_diagonal(square), 0)


def _unit(z: Tensor) -> Tensor:
    z, _ = in_range(z)  # the direction does not change, nor does its gradient
    return z / torch.linalg.vector_norm(z, dim=-1, keepdim=True).clamp_min(_TINY)


def _whole(z: Tensor, shared: ProcessGroup | None) -> Tensor:
    """The codes of all processes, joined along the axis of the samples, the second last."""
    return z if shared is None else gather_rows(z.movedim(-2, 0), shared)[0].movedim(0, -2)


def _require_batch(name: str, z: Tensor, sync: bool, group: ProcessGroup | None, least: int = 2) -> Tensor:
    """The codes of the whole batch, (..., B, D), in float32 at least."""
    require_sharing(sync, group)
    shared = shared_group(sync, group)
    require_floating(name, z, range(2, 65), "(..., B, D)", empty=shared is not None)
    return _require_rows(name, _whole(at_least_float32(z), shared), least)


def _require_pair(
    z_a: Tensor,
    z_b: Tensor,
    sync: bool,
    group: ProcessGroup | None,
    least: int = 2,
    names: tuple[str, str] = ("z_a", "z_b"),
) -> tuple[Tensor, Tensor]:
    require_sharing(sync, group)
    shared = shared_group(sync, group)
    for name, z in zip(names, (z_a, z_b), strict=True):
        require_floating(name, z, range(2, 65), "(..., B, D)", empty=shared is not None)
    if z_a.shape != z_b.shape:
        shapes = f"{tuple(z_a.shape)} and {tuple(z_b.shape)}"
        raise ValueError(f"{names[0]} and {names[1]} must have one shape (..., B, D), got {shapes}")
    z_a, z_b = at_least_float32(z_a), at_least_float32(z_b)
    if z_a.dtype != z_b.dtype:
        raise TypeError(f"{names[0]} and {names[1]} must have one dtype, got {z_a.dtype} and {z_b.dtype}")
    require_same_device(**dict(zip(names, (z_a, z_b), strict=True)))
    if shared is not None:
        z_a, z_b = _whole(torch.stack([z_a, z_b]), shared)
    return _require_rows(names[0], z_a, least), _require_rows(names[1], z_b, least)


def _require_rows(name: str, z: Tensor, least: int) -> Tensor:
    if z.shape[-2] < least:
        shape = tuple(z.shape)
        raise ValueError(f"{name} must have at least {least} rows, got shape {shape}: a batch of one has no spread")
    return z
