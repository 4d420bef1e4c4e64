r"""The losses of joint embedding as short functions: VICReg and its relatives, contrast, regression.

One convention for all of them. Two views of B images have the codes ``z_a`` and ``z_b``, both (B, D); row i of the one
and row i of the other belong to the same image. A loss is a scalar to be *minimised*, a mean over the batch, in the
dtype of the codes (float32 for half precision). A variance over the batch divides by B - 1, unless a function
says that its source divides by B. Entropies are in nats. Gradients flow into every argument, unless a function says
that one is held fixed. NaN and infinity make a loss NaN, or raise a ValueError where a decomposition needs finite
numbers. Under ``torch.distributed`` a loss sees the codes of its own process only.
"""

import math

import torch
import torch.nn.functional as F

from sigreg._validate import require_finite, require_floating

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

_TINY = 1e-8  # the least length that a code is divided by, as in torch.nn.functional.cosine_similarity

# ---------------------------------------------------------------------------------------------------------
# VICReg and its three terms
# ---------------------------------------------------------------------------------------------------------


def invariance_term(z_a, z_b):
    r"""How far apart the codes of two views are, per coordinate.

    .. math:: s = \frac{1}{BD} \sum_{i} |z^a_i - z^b_i|^2

    A mean over coordinates, as in the method's published code and in lightly; the article's formula sums over them.

    Args:
        z_a, z_b: floating (B, D), B at least 2.

    Returns:
        A scalar, 0 or more.

    Raises:
        TypeError, ValueError: the codes are not two floating matrices of one shape, or hold fewer than 2 rows.

    Reference:
        Bardes, Ponce and LeCun (2022), arXiv 2105.04906, the term s(Z, Z').

    Derived in:
        Chapter 7, Proposition 7.7.

    >>> invariance_term(torch.zeros(2, 4), torch.ones(2, 4))
    tensor(1.)
    """
    z_a, z_b = _require_pair(z_a, z_b)
    return (z_a - z_b).square().mean()


def variance_term(z, *, target=1.0, floor=1e-4):
    r"""How far the standard deviation of a coordinate falls short of ``target``, averaged over coordinates.

    .. math:: v = \frac1D \sum_d \max\bigl(0,\; \gamma - \sqrt{\operatorname{Var} z_d + \epsilon}\bigr),

    the variance unbiased (over B - 1). The floor keeps the slope finite where a coordinate has collapsed.

    Args:
        z: floating (B, D), B at least 2.
        target: the standard deviation gamma, positive.
        floor: epsilon, positive.

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
    z = _require_codes("z", z)
    _require_positive("target", target)
    _require_positive("floor", floor)
    return F.relu(target - (z.var(0) + floor).sqrt()).mean()


def covariance_term(z):
    r"""The squared covariances between different coordinates, summed and divided by their number D.

    .. math:: c = \frac1D \sum_{d \ne e} \Sigma_{de}^2, \qquad
        \Sigma = \frac{1}{B - 1} \sum_i (z_i - \bar z)(z_i - \bar z)^\top

    Args:
        z: floating (B, D), B at least 2.

    Returns:
        A scalar, 0 or more.

    Raises:
        TypeError, ValueError: the codes are not a floating matrix of at least 2 rows.

    Reference:
        Bardes, Ponce and LeCun (2022), arXiv 2105.04906, Equations 3 and 4.

    Derived in:
        Chapter 7, Proposition 7.9.

    >>> covariance_term(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))  # both covariances are 2
    tensor(4.)
    """
    z = _require_codes("z", z)
    covariance = batch_covariance(z)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / z.shape[1]


def vicreg_loss(z_a, z_b, *, invariance=25.0, variance=25.0, covariance=1.0):
    r"""Variance-invariance-covariance regularization.

    .. math:: \lambda\, s(z^a, z^b) + \frac{\mu}{2} \bigl[v(z^a) + v(z^b)\bigr] + \nu \bigl[c(z^a) + c(z^b)\bigr]

    with :func:`invariance_term`, :func:`variance_term` and :func:`covariance_term`. The variance is averaged over the
    two views and the covariance summed, as in the method's published code and in lightly.

    Args:
        z_a, z_b: floating (B, D), B at least 2.
        invariance, variance, covariance: the weights lambda, mu and nu.

    Returns:
        A scalar.

    Raises:
        TypeError, ValueError: the codes are not two floating matrices of one shape, or hold fewer than 2 rows.

    Reference:
        Bardes, Ponce and LeCun (2022), arXiv 2105.04906, Equation 6.

    Derived in:
        Chapter 7, Proposition 7.9.

    >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> vicreg_loss(z, z), vicreg_loss(0 * z, 0 * z)  # spread out without correlation; collapsed
    (tensor(0.), tensor(24.7500))
    """
    z_a, z_b = _require_pair(z_a, z_b)
    spread = (variance_term(z_a) + variance_term(z_b)) / 2
    correlation = covariance_term(z_a) + covariance_term(z_b)
    return invariance * invariance_term(z_a, z_b) + variance * spread + covariance * correlation


# ---------------------------------------------------------------------------------------------------------
# VICReg with an entropy estimator in place of its variance and covariance terms
# ---------------------------------------------------------------------------------------------------------


def logdet_entropy(z, *, floor=1e-4):
    r"""The entropy of the Gaussian that has the covariance of the codes.

    .. math:: \hat h = \frac12 \log\det(\Sigma + \epsilon I) + \frac D2 \log 2\pi e

    An *upper* bound on the entropy of any law with that covariance. From the singular values of the centred codes, so
    that neither B < D nor a large scale makes a determinant negative.

    Args:
        z: floating (B, D), B at least 2, finite.
        floor: epsilon, positive: the variance given to a direction that has none.

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
    z = require_finite("z", _require_codes("z", z))
    _require_positive("floor", floor)
    batch, dim = z.shape
    length = torch.linalg.svdvals(z - z.mean(0))  # (min(B, D),)
    log_det = (length.square() / (batch - 1) + floor).log().sum() + max(dim - batch, 0) * math.log(floor)
    return 0.5 * log_det + 0.5 * dim * math.log(2 * math.pi * math.e)


def pairwise_entropy(z, *, sigma=1.0, bound="upper"):
    r"""A bound on the entropy of codes blurred by a Gaussian, from their pairwise distances.

    .. math:: \hat h = \frac D2 \log(2\pi e \sigma^2)
        - \frac1B \sum_i \log \frac1B \sum_j \exp\Bigl(-\frac{|z_i - z_j|^2}{2 \sigma^2 q}\Bigr),
        \qquad q = 1 \text{ (upper)}, \; 4 \text{ (lower)}

    The codes are the centres of an equal mixture of B Gaussians N(z_i, sigma^2 I); the two values enclose the entropy
    of *that mixture*. Neither leaves [0, log B] above the entropy of one component: a batch of B codes can show no
    more.

    Args:
        z: floating (B, D), B at least 2.
        sigma: standard deviation of the blur, positive.
        bound: ``"upper"`` or ``"lower"``.

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
    z = _require_codes("z", z)
    _require_positive("sigma", sigma)
    if bound not in ("upper", "lower"):
        raise ValueError(f"bound must be 'upper' or 'lower', got {bound!r}")
    batch, dim = z.shape
    square = squared_distances(z) / (sigma**2 * (2 if bound == "upper" else 8))
    apart = math.log(batch) - torch.logsumexp(-square, 1).mean()
    return apart + 0.5 * dim * math.log(2 * math.pi * math.e * sigma**2)


def vicreg_logdet_loss(z_a, z_b, *, invariance=25.0, entropy=1.0, floor=1e-4):
    r"""VICReg's invariance, with the log-determinant entropy in place of its variance and covariance terms.

    .. math:: \lambda\, s(z^a, z^b) - \frac{\mu}{2D} \bigl[\hat h(z^a) + \hat h(z^b)\bigr]

    with :func:`invariance_term` and :func:`logdet_entropy`. Both parts are per coordinate, so that weights keep their
    meaning when D changes. No target for the scale is needed: invariance charges for width what entropy pays for it.

    Args:
        z_a, z_b: floating (B, D), B at least 2, finite.
        invariance, entropy: the weights lambda and mu.
        floor: epsilon of the entropy, positive.

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
    z_a, z_b = _require_pair(z_a, z_b)
    mean = (logdet_entropy(z_a, floor=floor) + logdet_entropy(z_b, floor=floor)) / 2
    return invariance * invariance_term(z_a, z_b) - entropy * mean / z_a.shape[1]


def vicreg_pairdist_loss(z_a, z_b, *, invariance=25.0, entropy=1.0, sigma=1.0, bound="upper"):
    r"""VICReg's invariance, with the pairwise-distance entropy in place of its variance and covariance terms.

    .. math:: \lambda\, s(z^a, z^b) - \frac{\mu}{2D} \bigl[\hat h_\sigma(z^a) + \hat h_\sigma(z^b)\bigr]

    with :func:`invariance_term` and :func:`pairwise_entropy`, per coordinate as in :func:`vicreg_logdet_loss`.

    Args:
        z_a, z_b: floating (B, D), B at least 2.
        invariance, entropy: the weights lambda and mu.
        sigma, bound: as in :func:`pairwise_entropy`.

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
    z_a, z_b = _require_pair(z_a, z_b)
    mean = sum(pairwise_entropy(z, sigma=sigma, bound=bound) for z in (z_a, z_b)) / 2
    return invariance * invariance_term(z_a, z_b) - entropy * mean / z_a.shape[1]


# ---------------------------------------------------------------------------------------------------------
# Barlow Twins
# ---------------------------------------------------------------------------------------------------------


def cross_correlation(z_a, z_b, *, floor=1e-5):
    r"""The correlation of every coordinate of one view with every coordinate of the other.

    .. math:: C_{de} = \frac1B \sum_i \tilde z^a_{id}\, \tilde z^b_{ie}, \qquad
        \tilde z = \frac{z - \bar z}{\sqrt{\operatorname{Var} z + \epsilon}},

    here with the *biased* variance (over B), as batch normalization has it, and so do the method and lightly.

    Args:
        z_a, z_b: floating (B, D), B at least 2.
        floor: epsilon, positive.

    Returns:
        (D, D), entries in [-1, 1].

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
    z_a, z_b = _require_pair(z_a, z_b)
    _require_positive("floor", floor)
    a, b = ((z - z.mean(0)) / (z.var(0, unbiased=False) + floor).sqrt() for z in (z_a, z_b))
    return a.T @ b / len(a)


def barlow_twins_loss(z_a, z_b, *, redundancy=5e-3):
    r"""Barlow Twins: the cross-correlation of the two views should be the identity.

    .. math:: \sum_d (1 - C_{dd})^2 + \lambda \sum_{d \ne e} C_{de}^2

    with C of :func:`cross_correlation` (biased variance, floor 1e-5). Sums, not means: the value grows with D.

    Args:
        z_a, z_b: floating (B, D), B at least 2.
        redundancy: the weight lambda.

    Returns:
        A scalar, 0 or more.

    Raises:
        TypeError, ValueError: the codes are not two floating matrices of one shape, or hold fewer than 2 rows.

    Reference:
        Zbontar, Jing, Misra, LeCun and Deny (2021), arXiv 2103.03230, Equation 1.

    Derived in:
        Chapter 8, Barlow Twins by second-order expansion.

    >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    >>> barlow_twins_loss(z, z), barlow_twins_loss(z, 0 * z)  # 2e-10 where the floor were zero would be 0
    (tensor(2.0000e-10, dtype=torch.float64), tensor(2., dtype=torch.float64))
    """
    correlation = cross_correlation(z_a, z_b)
    diagonal = correlation.diagonal()
    off_diagonal = correlation - torch.diag_embed(diagonal)
    return (1 - diagonal).square().sum() + redundancy * off_diagonal.square().sum()


# ---------------------------------------------------------------------------------------------------------
# Contrast: SimCLR, and MoCo with its queue
# ---------------------------------------------------------------------------------------------------------


def nt_xent_loss(z_a, z_b, *, temperature=0.5):
    r"""SimCLR's normalized temperature-scaled cross-entropy: find the other view among 2B - 1 candidates.

    .. math:: -\frac{1}{2B} \sum_{i=1}^{2B} \log
        \frac{\exp(u_i \cdot u_{i'} / \tau)}{\sum_{j \ne i} \exp(u_i \cdot u_j / \tau)}, \qquad u = z / |z|,

    over the 2B codes of both views, i' being the other view of i.

    Args:
        z_a, z_b: floating (B, D), B at least 2.
        temperature: tau, positive.

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
    z_a, z_b = _require_pair(z_a, z_b)
    _require_positive("temperature", temperature)
    unit = torch.cat([_unit(z_a), _unit(z_b)])  # (2B, D)
    alike = unit @ unit.T / temperature
    alike = alike.masked_fill(torch.eye(len(unit), dtype=torch.bool, device=unit.device), -math.inf)
    return F.cross_entropy(alike, torch.arange(len(unit), device=unit.device).roll(len(z_a)))


def moco_loss(query, key, queue, *, temperature=0.07):
    r"""MoCo's InfoNCE: find the key of the own image among the keys of earlier batches.

    .. math:: -\frac1B \sum_i \log
        \frac{\exp(q_i \cdot k_i / \tau)}{\exp(q_i \cdot k_i / \tau) + \sum_{j=1}^{K} \exp(q_i \cdot n_j / \tau)},

    all codes divided by their lengths. Keys and queue are held fixed: the gradient flows into ``query`` only.

    Args:
        query: floating (B, D), B at least 2.
        key: floating (B, D), codes of the other view, in MoCo from a slowly moving copy of the encoder.
        queue: floating (K, D), keys of earlier batches; see :func:`update_queue`.
        temperature: tau, positive.

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
    query, key = _require_pair(query, key, names=("query", "key"))
    _require_positive("temperature", temperature)
    require_floating("queue", queue, 2, "(K, D)")
    if queue.shape[1] != query.shape[1]:
        raise ValueError(f"queue must have shape (K, {query.shape[1]}) like the codes, got {tuple(queue.shape)}")
    query, key, queue = _unit(query), _unit(key.detach()), _unit(queue.detach().to(query))
    alike = torch.cat([(query * key).sum(1, keepdim=True), query @ queue.T], 1) / temperature
    return F.cross_entropy(alike, alike.new_zeros(len(alike), dtype=torch.long))


def update_queue(queue, key):
    r"""The queue after a batch: the new keys in front, the oldest dropped, the length K kept.

    Args:
        queue: floating (K, D).
        key: floating (B, D).

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
    require_floating("key", key, 2, "(B, D)")
    if queue.shape[1] != key.shape[1]:
        raise ValueError(f"key must have shape (B, {queue.shape[1]}) like the queue, got {tuple(key.shape)}")
    return torch.cat([key.detach().to(queue), queue.detach()])[: len(queue)]


# ---------------------------------------------------------------------------------------------------------
# Regression: SimSiam and BYOL
# ---------------------------------------------------------------------------------------------------------


def negative_cosine(prediction, target):
    r"""Minus the mean cosine of the angle between predictions and targets.

    .. math:: -\frac1B \sum_i \frac{p_i \cdot z_i}{|p_i|\,|z_i|}

    Gradients flow into both; a caller who wants a stop-gradient passes ``target.detach()``.

    Args:
        prediction, target: floating (B, D), B at least 2.

    Returns:
        A scalar in [-1, 1].

    Raises:
        TypeError, ValueError: not two floating matrices of one shape, or fewer than 2 rows.

    Reference:
        Chen and He (2021), arXiv 2011.10566, Equation 1.

    Derived in:
        Chapter 8, the methods as instances.

    >>> negative_cosine(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [4.0, 0.0]]))
    tensor(-0.5000)
    """
    prediction, target = _require_pair(prediction, target, names=("prediction", "target"))
    return -(_unit(prediction) * _unit(target)).sum(1).mean()


def simsiam_loss(p_a, p_b, z_a, z_b, *, stop_gradient=True):
    r"""SimSiam: each view's prediction should point where the other view's code does.

    .. math:: \tfrac12 D\bigl(p^a, \operatorname{sg} z^b\bigr) + \tfrac12 D\bigl(p^b, \operatorname{sg} z^a\bigr)

    with D of :func:`negative_cosine` and sg, "held fixed".

    Args:
        p_a, p_b: floating (B, D), the predictor's output for each view.
        z_a, z_b: floating (B, D), the codes.
        stop_gradient: False lets the gradient flow into the codes as well.

    Returns:
        A scalar in [-1, 1].

    Raises:
        TypeError, ValueError: not floating matrices of one shape, or fewer than 2 rows.

    Reference:
        Chen and He (2021), arXiv 2011.10566, Equation 4.

    Derived in:
        Chapter 8, the methods as instances.

    >>> z = torch.eye(3)
    >>> simsiam_loss(z, z, z, z)
    tensor(-1.)
    """
    if stop_gradient:
        z_a, z_b = z_a.detach(), z_b.detach()
    return (negative_cosine(p_a, z_b) + negative_cosine(p_b, z_a)) / 2


def byol_loss(p_a, p_b, z_a, z_b, *, stop_gradient=True):
    r"""BYOL: the squared distance between unit predictions and unit targets, both ways.

    .. math:: \frac1B \sum_i \Bigl| \frac{p^a_i}{|p^a_i|} - \frac{z^b_i}{|z^b_i|} \Bigr|^2
        + \frac1B \sum_i \Bigl| \frac{p^b_i}{|p^b_i|} - \frac{z^a_i}{|z^a_i|} \Bigr|^2
        = 4 + 4\, \mathrm{SimSiam}

    In BYOL the targets come from a slowly moving copy of the encoder, and are held fixed.

    Args:
        p_a, p_b, z_a, z_b, stop_gradient: as in :func:`simsiam_loss`.

    Returns:
        A scalar in [0, 8].

    Raises:
        TypeError, ValueError: not floating matrices of one shape, or fewer than 2 rows.

    Reference:
        Grill et al. (2020), arXiv 2006.07733, Equation 2 and the sum over both orders of the views.

    Derived in:
        Chapter 8, the methods as instances.

    >>> z = torch.eye(3)
    >>> byol_loss(z, z, -z, -z)
    tensor(8.)
    """
    return 4 + 4 * simsiam_loss(p_a, p_b, z_a, z_b, stop_gradient=stop_gradient)


# ---------------------------------------------------------------------------------------------------------
# Shared pieces and checks
# ---------------------------------------------------------------------------------------------------------


def batch_covariance(z):
    r"""The unbiased covariance of the codes, (B, D) to (D, D): a sum over the batch divided by B - 1.

    >>> batch_covariance(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
    tensor([[2., 2.],
            [2., 2.]])
    """
    centred = z - z.mean(0)
    return centred.T @ centred / (len(z) - 1)


def squared_distances(z):
    r"""The squared distance of every code to every other, (B, D) to (B, B), zero on the diagonal.

    Codes are centred first: the product form below loses digits where the mean is far from zero.

    >>> squared_distances(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
    tensor([[ 0., 25.],
            [25.,  0.]])
    """
    z = z - z.mean(0).detach()  # distances do not change, nor does their gradient
    square = z.square().sum(1)
    distance = square[:, None] + square - 2 * z @ z.T
    return distance.masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), 0).clamp_min(0)


def _unit(z):
    return z / torch.linalg.vector_norm(z, dim=1, keepdim=True).clamp_min(_TINY)


def _require_codes(name, z):
    require_floating(name, z, 2, "(B, D)")
    if len(z) < 2:
        raise ValueError(f"{name} must have at least 2 rows, got shape {tuple(z.shape)}: a batch of one has no spread")
    return z if z.dtype in (torch.float32, torch.float64) else z.float()


def _require_pair(z_a, z_b, names=("z_a", "z_b")):
    z_a, z_b = _require_codes(names[0], z_a), _require_codes(names[1], z_b)
    if z_a.shape != z_b.shape:
        shapes = f"{tuple(z_a.shape)} and {tuple(z_b.shape)}"
        raise ValueError(f"{names[0]} and {names[1]} must have one shape (B, D), got {shapes}")
    if z_a.dtype != z_b.dtype:
        raise TypeError(f"{names[0]} and {names[1]} must have one dtype, got {z_a.dtype} and {z_b.dtype}")
    return z_a, z_b


def _require_positive(name, value):
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value}")
