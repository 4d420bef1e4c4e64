r"""Learning from few labels: the conditional bottleneck where labels are known, the law of the codes everywhere.

The code of an input is :math:`W = \mu(X) + \sigma \varepsilon`. The conditional bottleneck splits into a rate that
needs no label and a relevance that does,

.. math:: \beta\, I(X;W|Y) - I(W;Y) = \beta\, I(X;W) - (1 + \beta)\, I(W;Y),

and every term of the loss of Chapter 5 stands for a piece of it: cross-entropy for the relevance, a rate from
minibatch marginals for :math:`I(X;W|Y)` on the labelled images, SIGReg for the law of *all* codes (which fixes
:math:`I(X;W)`, Chapter 5, Proposition 5.2), the distance of two views for what no label could ask for. Letters: B
examples, D latent dimensions, C classes; all rates are in nats. Half precision is computed and returned in float32.

Under ``torch.distributed`` a loss is that of the batch of all processes together, unless ``sync=False``; every process
must call it, their B may differ and may be 0. Value and gradient are as in
:func:`sigreg.gaussian_regularization.sliced_sigreg`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from sigreg._distributed import from_first, gather_rows, shared_group
from sigreg._precision import at_least_float32, exponent_of, times_two_to, without_autocast
from sigreg._validate import (
    require_between,
    require_count,
    require_finite,
    require_floating,
    require_generator,
    require_labels,
    require_positive,
    require_same_device,
    require_sharing,
    require_weight,
    values_at_hand,
)
from sigreg.gaussian_regularization import sliced_sigreg

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["class_sigreg", "sigreg_weight", "standard_code_rate"]

CURVATURE = math.sqrt(2 * math.pi) / (3 * math.sqrt(3))  # Proposition 5.8: SIGReg / N against a small error of the law

# ---------------------------------------------------------------- what the law of the codes fixes


def standard_code_rate(dim: int, sigma: float) -> float:
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
    dim = require_count("dim", dim)
    sigma = require_between("sigma", sigma, 0, 1, closed="]")  # the noise is part of a code of variance 1
    return -dim * math.log(sigma)


def sigreg_weight(dim: int, count: int, nats: float = 1.0) -> float:
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
    dim, count = require_count("dim", dim), require_count("count", count)
    return require_weight("nats", nats) * dim / (CURVATURE * count)


@without_autocast
def class_sigreg(
    w: Tensor,
    responsibilities: Tensor,
    scale: float,
    directions: Tensor,
    generator: torch.Generator | None = None,
    *,
    sync: bool = True,
    group: ProcessGroup | None = None,
) -> Tensor:
    r"""SIGReg given the class: the codes of each class shall be Gaussian about the mean of the class.

    .. math:: \mathrm{SIGReg}\Bigl(\frac{w_i - m_{k_i}}{s}\Bigr), \qquad k_i \sim r_i, \qquad
        m_k = \frac{\sum_i r_{ik} w_i}{\sum_i r_{ik}}

    The law asked for is a mixture of C Gaussians, with room between them. The class of a labelled code is known (its
    row of r is one-hot); that of another is drawn from what the decoder believes. The means carry no gradient.

    Args:
        w: codes, (B, D), floating.
        responsibilities: r, probabilities of the classes, (B, C).
        scale: s, the standard deviation within a class.
        directions: unit vectors, (M, D), the same on every process.
        generator: torch.Generator on the CPU for the classes; by default the global one.
        sync, group: how processes share, see the head of the module.

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
    require_sharing(sync, group)
    shared = shared_group(sync, group)
    w = at_least_float32(require_floating("w", w, 2, "(B, D)", empty=shared is not None))
    require_floating("responsibilities", responsibilities, 2, "(B, C)", empty=shared is not None)
    require_finite("responsibilities", responsibilities)
    if len(responsibilities) != len(w):
        raise ValueError(f"responsibilities must have one row a code, {len(w)}, got {len(responsibilities)}")
    scale = require_positive("scale", scale)
    require_floating("directions", directions, 2, "(M, D)")
    require_same_device(w=w, responsibilities=responsibilities, directions=directions)
    require_generator("generator", generator)
    own = responsibilities.detach().to(w.dtype)
    if values_at_hand(own) and ((own < 0).any() or (own.sum(1) <= 0).any()):
        raise ValueError("responsibilities must be 0 or more, and some entry of every row positive: use a softmax")
    (r, start), everyone = gather_rows(own, shared), gather_rows(w.detach(), shared)[0]
    means = (r.T @ everyone) / r.sum(0).clamp_min(1e-6)[:, None]
    share = r if r.is_meta else r.cpu()  # one generator's classes on every device
    classes = from_first(torch.multinomial(share, 1, generator=generator)[:, 0].to(w.device), shared)
    about = means[classes[start : start + len(w)]]
    return sliced_sigreg((w - about) / scale, directions, sync=sync, group=group)


@without_autocast
def consistency_loss(
    weak_logits: Tensor,
    strong_logits: Tensor,
    threshold: float = 0.9,
    *,
    sync: bool = True,
    group: ProcessGroup | None = None,
) -> Tensor:
    r"""Cross-entropy of a strong view against the label that the weak view is sure of.

    .. math:: \frac1B \sum_i \mathbf 1[\max_y q(y|w_i) > \tau]\, \bigl(-\log q(\hat y_i | w'_i)\bigr), \qquad
        \hat y_i = \arg\max_y q(y|w_i)

    No gradient reaches the weak view.

    Args:
        weak_logits, strong_logits: scores of two views of the same images, (B, C).
        threshold: :math:`\tau` in [0, 1).
        sync, group: how processes share, see the head of the module.

    Returns:
        Scalar tensor, nats.

    Raises:
        TypeError: a tensor of scores is not floating.
        ValueError: the shapes differ, or ``threshold`` is out of range.

    Reference:
        Sohn et al. (2020), arXiv 2001.07685, FixMatch, equation 4.

    Derived in:
        The baseline of Chapter 5.

    Example:
        >>> sure, unsure = torch.tensor([[9.0, 0.0]]), torch.tensor([[0.1, 0.0]])
        >>> consistency_loss(sure, torch.zeros(1, 2)), consistency_loss(unsure, torch.zeros(1, 2))
        (tensor(0.6931), tensor(0.))
    """
    require_sharing(sync, group)
    shared = shared_group(sync, group)
    for name, logits in (("weak_logits", weak_logits), ("strong_logits", strong_logits)):
        require_floating(name, logits, 2, "(B, C)", empty=shared is not None)
    if weak_logits.shape != strong_logits.shape:
        shapes = f"{tuple(weak_logits.shape)} and {tuple(strong_logits.shape)}"
        raise ValueError(f"weak_logits and strong_logits must have one shape (B, C), got {shapes}")
    require_same_device(weak_logits=weak_logits, strong_logits=strong_logits)
    threshold = require_between("threshold", threshold, 0, 1, closed="[")
    sure, label = at_least_float32(weak_logits.detach()).softmax(1).max(1)
    loss = F.cross_entropy(at_least_float32(strong_logits), label, reduction="none")
    loss = (sure > threshold) * loss + 0 * sure  # a view of NaN is sure of nothing, and must not go unseen
    return gather_rows(loss, shared)[0].mean()


@torch.no_grad()
def variance_between(w: Tensor, labels: Tensor) -> float:
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
    require_finite("w", require_floating("w", w, 2, "(N, D)"))
    labels = require_labels("labels", labels, len(w))
    w = w.cpu().double()
    w = times_two_to(-exponent_of(w), w)  # squares stay in range
    w = w - w.mean(0)
    member = F.one_hot(torch.unique(labels.cpu(), return_inverse=True)[1]).double()
    size = member.sum(0)
    means = (member.T @ w) / size.clamp_min(1)[:, None]
    total = w.square().sum().item()
    if not total > 0:
        raise ValueError("w has no variance: all codes are equal")
    return (size @ means.square().sum(1)).item() / total
