r"""Learning from few labels: the conditional bottleneck where labels are known, the law of the codes everywhere.

The code of an input is :math:`W = \mu(X) + \sigma \varepsilon`. The conditional bottleneck splits into a rate that
needs no label and a relevance that does,

.. math:: \beta\, I(X;W|Y) - I(W;Y) = \beta\, I(X;W) - (1 + \beta)\, I(W;Y),

and every term of the loss of Chapter 5 stands for a piece of it: cross-entropy for the relevance, a rate from
minibatch marginals for :math:`I(X;W|Y)` on the labelled images, SIGReg for the law of *all* codes (which fixes
:math:`I(X;W)`, Chapter 5, Proposition 5.2), the distance of two views for what no label could ask for. Letters: B
examples, D latent dimensions, C classes; all rates are in nats.
"""

import math

import torch
import torch.nn.functional as F

from sigreg._validate import require_floating, require_labels
from sigreg.gaussian_regularization import sliced_sigreg

__all__ = ["class_sigreg", "sigreg_weight", "standard_code_rate"]

CURVATURE = math.sqrt(2 * math.pi) / (3 * math.sqrt(3))  # Proposition 5.8: SIGReg / N against a small error of the law

# ---------------------------------------------------------------- what the law of the codes fixes


def standard_code_rate(dim, sigma):
    r"""Rate of a code :math:`W = \mu(X) + \sigma \varepsilon` whose law is exactly N(0, I), in nats.

    .. math:: I(X;W) = h(W) - h(W|X) = D \log \frac1\sigma

    It depends on nothing else: an encoder can choose what it remembers, but not how much.

    Args:
        dim: D.
        sigma: standard deviation of the noise in each coordinate, in (0, 1].

    Returns:
        A float, nats.

    Raises:
        ValueError: ``dim`` is below 1, or ``sigma`` lies outside (0, 1].

    Reference:
        The entropy of a Gaussian; the reading is ours.

    Derived in:
        Chapter 5, Proposition 5.2.

    Example:
        >>> round(standard_code_rate(16, 0.3), 2)  # of which ten classes can use log 10 = 2.30
        19.26
    """
    if dim < 1:
        raise ValueError(f"dim must be at least 1, got {dim}")
    if not 0 < sigma <= 1:
        raise ValueError(f"sigma must lie in (0, 1], the noise being part of a code of variance 1, got {sigma}")
    return -dim * math.log(sigma)


def sigreg_weight(dim, count, nats=1.0):
    r"""The weight that makes SIGReg count a small error of scale as ``nats`` times KL(p(w) || N(0, I)).

    .. math:: \lambda = \mathrm{nats} \cdot \frac{D}{c N}, \qquad c = \frac{\sqrt{2\pi}}{3 \sqrt 3}

    For an error of the mean the same weight counts twice the divergence, for one of the covariance's shape (at equal
    trace) :math:`2/(D+2)` of it. Where several sets of codes are scored and averaged, N is the mean size of a set.

    Args:
        dim: D.
        count: N, codes that SIGReg scores together.
        nats: weight of the divergence.

    Returns:
        A float.

    Raises:
        ValueError: ``dim`` or ``count`` is below 1, or ``nats`` is negative.

    Reference:
        Ours.

    Derived in:
        Chapter 5, Proposition 5.8.

    Example:
        >>> round(sigreg_weight(16, 256), 3)
        0.13
    """
    if dim < 1 or count < 1:
        raise ValueError(f"dim and count must be at least 1, got {dim} and {count}")
    if not nats >= 0:
        raise ValueError(f"nats must be 0 or more, got {nats}")
    return nats * dim / (CURVATURE * count)


def class_sigreg(w, responsibilities, scale, directions, generator=None):
    r"""SIGReg given the class: the codes of each class shall be Gaussian about the mean of the class.

    .. math:: \mathrm{SIGReg}\Bigl(\frac{w_i - m_{k_i}}{s}\Bigr), \qquad k_i \sim r_i, \qquad
        m_k = \frac{\sum_i r_{ik} w_i}{\sum_i r_{ik}}

    The law asked for is a mixture of C Gaussians, with room between them. The class of a labelled code is known (its
    row of r is one-hot); that of another is drawn from what the decoder believes. The means carry no gradient.

    Args:
        w: codes, (B, D), floating.
        responsibilities: r, probabilities of the classes, (B, C).
        scale: s, the standard deviation within a class.
        directions: unit vectors, (M, D).
        generator: torch.Generator on the CPU for the classes; by default the global one.

    Returns:
        Scalar tensor; about 1 where every class is Gaussian with standard deviation s.

    Raises:
        TypeError: an argument is not a floating tensor.
        ValueError: the shapes do not fit, or ``scale`` is not positive.

    Reference:
        The backward encoder of Fischer (2020), arXiv 2002.05379, with a fixed width, tested by SIGReg.

    Derived in:
        Chapter 5, Proposition 5.7.

    Example:
        >>> w = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
        >>> y = torch.arange(400) % 4
        >>> far = 20.0 * torch.eye(4)[y][:, :3] + 0.5 * w
        >>> value = class_sigreg(far, F.one_hot(y, 4).float(), 0.5, torch.eye(3))
        >>> 0.3 < value < 3
        tensor(True)
    """
    require_floating("w", w, 2, "(B, D)")
    require_floating("responsibilities", responsibilities, 2, "(B, C)")
    if len(responsibilities) != len(w):
        raise ValueError(f"responsibilities must have one row a code, {len(w)}, got {len(responsibilities)}")
    if not scale > 0:
        raise ValueError(f"scale must be positive, got {scale}")
    r = responsibilities.detach()
    means = (r.T @ w.detach()) / r.sum(0).clamp_min(1e-6)[:, None]
    classes = torch.multinomial(r.cpu(), 1, generator=generator)[:, 0].to(w.device)
    return sliced_sigreg((w - means[classes]) / scale, directions)


def consistency_loss(weak_logits, strong_logits, threshold=0.9):
    r"""Cross-entropy of a strong view against the label that the weak view is sure of.

    .. math:: \frac1B \sum_i \mathbf 1[\max_y q(y|w_i) > \tau]\, \bigl(-\log q(\hat y_i | w'_i)\bigr), \qquad
        \hat y_i = \arg\max_y q(y|w_i)

    No gradient reaches the weak view.

    Args:
        weak_logits, strong_logits: scores of two views of the same images, (B, C).
        threshold: :math:`\tau` in [0, 1).

    Returns:
        Scalar tensor, nats.

    Raises:
        TypeError: a tensor of scores is not floating.
        ValueError: the shapes differ, or ``threshold`` is out of range.

    Reference:
        Sohn et al. (2020), arXiv 2001.07685, FixMatch, equation 4.

    Derived in:
        Nothing to derive; the baseline of Chapter 5.

    Example:
        >>> sure, unsure = torch.tensor([[9.0, 0.0]]), torch.tensor([[0.1, 0.0]])
        >>> consistency_loss(sure, torch.zeros(1, 2)), consistency_loss(unsure, torch.zeros(1, 2))
        (tensor(0.6931), tensor(0.))
    """
    require_floating("weak_logits", weak_logits, 2, "(B, C)")
    require_floating("strong_logits", strong_logits, 2, "(B, C)")
    if weak_logits.shape != strong_logits.shape:
        raise ValueError(f"the two must have one shape, got {tuple(weak_logits.shape)}, {tuple(strong_logits.shape)}")
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold must lie in [0, 1), got {threshold}")
    sure, label = weak_logits.detach().softmax(1).max(1)
    return ((sure > threshold) * F.cross_entropy(strong_logits, label, reduction="none")).mean()


@torch.no_grad()
def variance_between(w, labels):
    r"""Share of the codes' variance that lies between the class means: 0 for one cloud, 1 for C points.

    .. math:: \frac{\sum_y n_y |m_y - m|^2}{\sum_i |w_i - m|^2}

    Args:
        w: codes, (N, D), floating.
        labels: integer classes, (N,).

    Returns:
        A float in [0, 1].

    Raises:
        TypeError, ValueError: wrong types or shapes, or all codes are equal.

    Reference:
        Fisher (1936): the decomposition of the variance.

    Derived in:
        Chapter 5, section 5.7.

    Example:
        >>> w = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
        >>> round(variance_between(w, torch.tensor([0, 0, 1, 1])), 4)  # 100 / 104
        0.9615
    """
    require_floating("w", w, 2, "(N, D)")
    require_labels("labels", labels, len(w))
    w = w.cpu().double()
    w = w - w.mean(0)
    member = F.one_hot(labels.cpu()).double()
    size = member.sum(0)
    means = (member.T @ w) / size.clamp_min(1)[:, None]
    total = w.square().sum().item()
    if not total > 0:
        raise ValueError("w has no variance: all codes are equal")
    return (size @ means.square().sum(1)).item() / total
