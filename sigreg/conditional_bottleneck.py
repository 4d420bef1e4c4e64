r"""The conditional entropy bottleneck (CEB) with marginals taken from the minibatch.

An encoder sends an input to a Gaussian :math:`p(w|x) = N(\mu(x), \operatorname{diag} \sigma(x)^2)`. Training
trades the rate :math:`I(X;W|Y)`, which is what the code remembers beyond the target, against the relevance
:math:`I(W;Y)`. The rate needs a marginal density of the code. Every function here is one choice of it:

* the average of the encoder's own densities over the minibatch (:func:`minibatch_rate`),
* that average with a moment-matched Gaussian mixed in, which lifts its cap (:func:`defensive_rate`),
* the same from divergences between pairs, without sampling noise (:func:`pairwise_rate`, :func:`pairwise_rate_bounds`),
* a fixed or learned Gaussian, the variational route (:func:`vib_rate`, :func:`variational_ceb_rate`).

All rates are in nats, scalars, and averages over the minibatch, whose axis is the first. Letters: B examples, D latent
dimensions, C classes. Half precision is computed and returned in float32, under autocast too. Labels may be
integers of any width and any size. NaN and infinity make a rate NaN or infinite.

**Several processes.** Under ``torch.distributed`` a rate is that of the minibatch of all processes together. Every
process must call it; their B may differ, and may be 0. Each returns the same value, and the gradient of the *sum*
of these values, which DistributedDataParallel's averaging turns into the gradient that one process would have had.
``sync=False`` scores each process by itself, ``group`` shares within a process group.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sigreg._distributed import gather_rows, shared_group
from sigreg._precision import at_least_float32, without_autocast
from sigreg._validate import (
    require_between,
    require_finite,
    require_flag,
    require_floating,
    require_labels,
    require_same_device,
    require_sharing,
    require_weight,
    values_at_hand,
)

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = [
    "HeldOutInformation",
    "bottleneck_loss",
    "defensive_rate",
    "gaussian_log_density_matrix",
    "held_out_information",
    "minibatch_rate",
    "minibatch_relevance",
    "pairwise_rate",
    "pairwise_rate_bounds",
    "pointwise_rate",
    "variational_ceb_rate",
    "vib_rate",
]

LOG_2PI = math.log(2 * math.pi)


@without_autocast
def gaussian_log_density_matrix(w: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    r"""Log-density of every code under every example's Gaussian, in nats.

    .. math:: L_{ij} = \log p(w_i | x_j)
        = -\tfrac12 \sum_d \Big[ \Big(\frac{w_{id} - \mu_{jd}}{\sigma_{jd}}\Big)^2
        + 2 \log \sigma_{jd} + \log 2\pi \Big]

    The squared distance is summed coordinate by coordinate. Expanding it into three matrix products is faster,
    but it subtracts large numbers and loses the small distances on which a rate depends. Half precision
    is computed in float32.

    Args:
        w: codes, (B, D), floating.
        mean: encoder means, (N, D).
        log_std: logarithms of the encoder's standard deviations, (N, D).

    Returns:
        (B, N) tensor. Finite, with its gradient, for ``log_std`` down to -20 in float32: a standard deviation of
        2e-9, below which a code of size one cannot be told from its mean.

    Raises:
        TypeError: an argument is not a floating tensor.
        ValueError: the shapes do not fit.

    Reference:
        The density of a diagonal Gaussian; the matrix is the building block of the minibatch bounds of Poole et al.
        (2019), arXiv 1905.06922.

    Derived in:
        Chapter 3, Definition 3.5.

    Example:
        >>> w = torch.zeros(1, 2)
        >>> gaussian_log_density_matrix(w, torch.zeros(1, 2), torch.zeros(1, 2)).item()  # -log(2 pi)
        -1.8378...
    """
    return _log_density(*_codes(w, mean, log_std))


@without_autocast
def minibatch_rate(
    w: Tensor,
    mean: Tensor,
    log_std: Tensor,
    labels: Tensor | None = None,
    *,
    include_self: bool = True,
    sync: bool = True,
    group: ProcessGroup | None = None,
) -> Tensor:
    r"""Rate against the minibatch's own marginal: :math:`\hat I(X;W)`, or :math:`\hat I(X;W|Y)` with labels.

    .. math:: \hat I = \frac1B \sum_i \log \frac{p(w_i|x_i)}{\frac{1}{|S_i|} \sum_{j \in S_i} p(w_i|x_j)}

    :math:`S_i` holds the examples with the label of i (all examples when ``labels`` is None).
    With its own sample in :math:`S_i` the estimate is a lower bound in expectation, and at most the logarithm of
    :math:`|S_i|`. With it left out the estimate is an upper bound in expectation and has no cap, if every class of
    the batch occurs at least twice and its mean share of a batch is its probability, as with fixed counts.

    An example that is alone in its class has the rate 0 when its own sample counts. When it is left out there is
    nothing to compare with, and the example does not enter the average: what is left is no bound on the whole.

    Args:
        w: sampled codes, (B, D), floating: one draw of p(w|x_i) for each i.
        mean: encoder means, (B, D).
        log_std: logarithms of the encoder's standard deviations, (B, D).
        labels: integer classes, (B,), for the conditional rate; None for the plain rate.
        include_self: whether the example's own density is part of its marginal.
        sync, group: how processes share, see the head of the module.

    Returns:
        Scalar, nats. NaN or infinite inputs give a NaN rate.

    Raises:
        TypeError: an argument has the wrong type or dtype.
        ValueError: the shapes do not fit, or ``include_self=False`` and no example shares its class with another.

    Reference:
        Poole, Ozair, van den Oord, Alemi and Tucker (2019), arXiv 1905.06922, the minibatch bounds;
        Fischer (2020), arXiv 2002.05379, for the conditional rate.

    Derived in:
        Chapter 3, Proposition 3.6.

    Example:
        Two codes far apart. The own-sample rate stops at log 2, whatever the distance:

        >>> mean = torch.tensor([[-9.0], [9.0]])
        >>> log_std = torch.zeros(2, 1)
        >>> minibatch_rate(mean, mean, log_std).item()
        0.6931...
        >>> minibatch_rate(mean, mean, log_std, include_self=False).item()
        162.0
        >>> minibatch_rate(mean, mean, log_std, torch.tensor([0, 1])).item()
        0.0
    """
    require_flag("include_self", include_self)
    w, mean, log_std, labels = _whole_batch(w, mean, log_std, labels, sync, group)
    blocks = _class_blocks(labels, w)
    own, log_marginal = _own_and_marginal(w, mean, log_std, blocks, include_self)
    return _mean_over_examples(own - log_marginal, blocks, include_self)


@without_autocast
def defensive_rate(
    w: Tensor,
    mean: Tensor,
    log_std: Tensor,
    labels: Tensor | None = None,
    *,
    weight: float = 0.5,
    sync: bool = True,
    group: ProcessGroup | None = None,
) -> Tensor:
    r"""Rate against the other examples' marginal with a moment-matched Gaussian mixed in.

    .. math:: \hat I = \frac1B \sum_i \log \frac{p(w_i|x_i)}
        {(1-a) \frac{1}{|S_i|} \sum_{j \in S_i} p(w_i|x_j) + a\, N(w_i;\, m_i, \operatorname{diag} v_i)}

    :math:`S_i` holds the *other* examples with the label of i, :math:`m_i` and :math:`v_i` are the mean and the
    variance of the mixture of their Gaussians, and a is ``weight``. No parameter is learned. The marginal does
    not see example i, so the estimate is an upper bound in expectation for every a, where
    :func:`minibatch_rate` without the own sample is one. It exceeds the leave-one-out estimate by at most
    :math:`-\log(1-a)` and the Gaussian bound by at most :math:`-\log a`. It has no cap, and when the codes of a batch
    move apart its gradient with respect to a common :math:`\log \sigma` tends to that of the rate itself, -D on
    average, where the own-sample estimate gives 0 and leave-one-out diverges. For that a class needs three members: of
    two, the other is one Gaussian, as narrow as the own.

    Args:
        w: sampled codes, (B, D), floating.
        mean: encoder means, (B, D).
        log_std: logarithms of the encoder's standard deviations, (B, D).
        labels: integer classes, (B,), for the conditional rate; None for the plain rate.
        weight: share a of the Gaussian, between 0 and 1, both excluded.
        sync, group: how processes share, see the head of the module.

    Returns:
        Scalar, nats. Examples alone in their class do not enter the average.

    Raises:
        TypeError: an argument has the wrong type or dtype.
        ValueError: the shapes do not fit, ``weight`` is not inside (0, 1), or no example shares its class with
            another.

    Reference:
        Ours; the mixture is the defensive mixture of Hesterberg (1995), Technometrics 37(2), put to a new use.

    Derived in:
        Chapter 3, Proposition 3.10.

    Example:
        Codes far apart: still the slope of the rate, here -1 for D = 1 (the own-sample estimate has slope 0).

        >>> mean = torch.linspace(-9, 9, 64).double()[:, None]
        >>> log_std = torch.full((64, 1), -9.0).double().requires_grad_()
        >>> defensive_rate(mean, mean, log_std).backward()
        >>> round(log_std.grad.sum().item(), 3)
        -1.0
    """
    weight = require_between("weight", weight, 0, 1)
    w, mean, log_std, labels = _whole_batch(w, mean, log_std, labels, sync, group)
    blocks = _class_blocks(labels, w)
    own, log_others = _own_and_marginal(w, mean, log_std, blocks, include_self=False)
    moments = _leave_one_out_gaussian(mean, log_std, labels)
    log_gaussian = _gaussian_log_density(w, *moments)[blocks.example]
    log_marginal = torch.logaddexp(log_others + math.log1p(-weight), log_gaussian + math.log(weight))
    return _mean_over_examples(own - log_marginal, blocks, include_self=False)


@without_autocast
def pairwise_rate(
    mean: Tensor,
    log_std: Tensor,
    labels: Tensor | None = None,
    *,
    weight: float = 0.5,
    sync: bool = True,
    group: ProcessGroup | None = None,
) -> Tensor:
    r"""The defensive rate without sampling noise: from the divergences of pairs of Gaussians, in closed form.

    .. math:: \hat I = -\frac1B \sum_i \log \Big[ (1-a) \frac{1}{|S_i|} \sum_{j \in S_i} e^{-\mathrm{KL}(p_i \| p_j)}
        + a\, e^{-\mathrm{KL}(p_i \| g_i)} \Big]

    :math:`p_i = p(w|x_i)`; :math:`S_i` and the Gaussian :math:`g_i = N(m_i, \operatorname{diag} v_i)` are those of
    :func:`defensive_rate`. By Jensen's inequality this is at least the expectation of :func:`defensive_rate` over the
    codes, so it too is an upper bound in expectation where that is one, with no cap and, from three members of a
    class on, the same limiting slope -D. It needs no sample of the code. Its gradient has no sampling noise, which is
    most of the noise where codes overlap.

    Args:
        mean: encoder means, (B, D), floating.
        log_std: logarithms of the encoder's standard deviations, (B, D).
        labels: integer classes, (B,), for the conditional rate; None for the plain rate.
        weight: share a of the Gaussian, between 0 and 1, both excluded.
        sync, group: how processes share, see the head of the module.

    Returns:
        Scalar, nats, never negative beyond rounding. Examples alone in their class do not enter the average.

    Raises:
        TypeError: an argument has the wrong type or dtype.
        ValueError: the shapes do not fit, ``weight`` is not inside (0, 1), or no example shares its class with
            another.

    Reference:
        Ours; the inequality is the variational bound of Hershey and Olsen (2007) for mixtures, which Kolchinsky and
        Tracey (2017), arXiv 1706.02419, build on.

    Derived in:
        Chapter 3, Proposition 3.11.

    Example:
        >>> mean = torch.linspace(-9, 9, 64).double()[:, None]
        >>> log_std = torch.full((64, 1), -9.0).double().requires_grad_()
        >>> pairwise_rate(mean, log_std).backward()
        >>> round(log_std.grad.sum().item(), 3)
        -1.0
    """
    weight = require_between("weight", weight, 0, 1)
    _, mean, log_std, labels = _whole_batch(mean, mean, log_std, labels, sync, group)
    blocks = _class_blocks(labels, mean)
    kl = _kl_matrix(mean[blocks.example], log_std[blocks.example])
    log_others = _log_mean_over_class(-kl, blocks, include_self=False)
    other_mean, other_variance = _leave_one_out_gaussian(mean, log_std, labels)
    log_gaussian = -_kl_to_gaussian(mean, log_std, other_mean, 0.5 * other_variance.log())[blocks.example]
    log_mixture = torch.logaddexp(log_others + math.log1p(-weight), log_gaussian + math.log(weight))
    return _mean_over_examples(-log_mixture, blocks, include_self=False)


@without_autocast
def pairwise_rate_bounds(
    mean: Tensor, log_std: Tensor, *, sync: bool = True, group: ProcessGroup | None = None
) -> tuple[Tensor, Tensor]:
    r"""Bounds on the rate of a uniform mixture of Gaussians from pairwise distances, with no sample of the code.

    .. math:: -\frac1B \sum_i \log \frac1B \sum_j e^{-C(p_i, p_j)} \;\le\; I(X;W) \;\le\;
        -\frac1B \sum_i \log \frac1B \sum_j e^{-\mathrm{KL}(p_i \| p_j)}

    C is the Bhattacharyya distance. With one common sigma the exponents are :math:`\|\mu_i - \mu_j\|^2 / 8 \sigma^2`
    and :math:`\|\mu_i - \mu_j\|^2 / 2 \sigma^2`. Both bounds hold for X uniform on these B examples, so both are at
    most log B.

    Args:
        mean: encoder means, (B, D), floating.
        log_std: logarithms of the encoder's standard deviations, (B, D).
        sync, group: how processes share, see the head of the module.

    Returns:
        ``(lower, upper)``, two scalars, nats.

    Raises:
        TypeError: an argument is not a floating tensor.
        ValueError: the shapes do not fit.

    Reference:
        Kolchinsky and Tracey (2017), arXiv 1706.02419, the bounds with KL and Bhattacharyya distances;
        Kolchinsky, Tracey and Wolpert (2019), arXiv 1705.02436.

    Derived in:
        Chapter 3, Proposition 3.7.

    Example:
        >>> lower, upper = pairwise_rate_bounds(torch.tensor([[0.0], [2.0]]), torch.zeros(2, 1))
        >>> round(lower.item(), 4), round(upper.item(), 4)
        (0.2191, 0.5662)
    """
    _, mean, log_std, _ = _whole_batch(mean, mean, log_std, None, sync, group)
    kl = _kl_matrix(mean, log_std)
    # log of the mean of two variances, as a log-sum-exp, so that tiny sigmas stay exact
    log_mean_variance = torch.logaddexp(2 * log_std[:, None, :], 2 * log_std[None, :, :]) - math.log(2)
    bhattacharyya = 0.125 * (mean[:, None, :] - mean[None, :, :]).square() * torch.exp(-log_mean_variance)
    bhattacharyya = bhattacharyya + 0.5 * (log_mean_variance - log_std[:, None, :] - log_std[None, :, :])
    log_batch = math.log(mean.shape[0])
    lower = log_batch - torch.logsumexp(-bhattacharyya.sum(-1), 1).mean()
    upper = log_batch - torch.logsumexp(-kl, 1).mean()
    return lower, upper


@without_autocast
def vib_rate(mean: Tensor, log_std: Tensor, *, sync: bool = True, group: ProcessGroup | None = None) -> Tensor:
    r"""Variational rate of the information bottleneck: the mean KL divergence to a standard normal.

    .. math:: \frac1B \sum_i \mathrm{KL}(N(\mu_i, \sigma_i^2) \| N(0, I))
        = \frac{1}{2B} \sum_{i,d} \big[ \mu_{id}^2 + \sigma_{id}^2 - 1 - 2 \log \sigma_{id} \big] \;\ge\; I(X;W)

    Args:
        mean: encoder means, (B, D), floating.
        log_std: logarithms of the encoder's standard deviations, (B, D).
        sync, group: how processes share, see the head of the module.

    Returns:
        Scalar, nats.

    Raises:
        TypeError: an argument is not a floating tensor.
        ValueError: the shapes do not fit.

    Reference:
        Alemi, Fischer, Dillon and Murphy (2017), arXiv 1612.00410, the rate term of VIB.

    Derived in:
        Chapter 3, Proposition 3.4.

    Example:
        >>> vib_rate(torch.zeros(4, 2), torch.zeros(4, 2)).item()
        0.0
        >>> vib_rate(torch.full((4, 2), 3.0), torch.zeros(4, 2)).item()
        9.0
    """
    require_sharing(sync, group)
    shared = shared_group(sync, group)
    mean, log_std = _codes(mean, mean, log_std, empty=shared is not None)[1:]
    rates = _kl_to_gaussian(mean, log_std, torch.zeros_like(mean), torch.zeros_like(mean))
    return gather_rows(rates, shared)[0].mean()


@without_autocast
def variational_ceb_rate(
    mean: Tensor,
    log_std: Tensor,
    labels: Tensor,
    class_mean: Tensor,
    class_log_std: Tensor,
    *,
    sync: bool = True,
    group: ProcessGroup | None = None,
) -> Tensor:
    r"""Variational conditional rate: the mean KL divergence to the backward encoder :math:`b(w|y)`.

    .. math:: \frac1B \sum_i \mathrm{KL}\big(N(\mu_i, \sigma_i^2) \,\|\, b(w|y_i)\big) \;\ge\; I(X;W|Y),
        \qquad b(w|y) = N(m_y, \operatorname{diag} s_y^2)

    The gap is the mean of :math:`\mathrm{KL}(p(w|y) \| b(w|y))`: it closes when b is the class marginal.

    Args:
        mean: encoder means, (B, D), floating.
        log_std: logarithms of the encoder's standard deviations, (B, D).
        labels: integer classes in 0..C-1, (B,).
        class_mean: means of the backward encoder, (C, D).
        class_log_std: logarithms of its standard deviations, (C, D).
        sync, group: how processes share, see the head of the module.

    Returns:
        Scalar, nats.

    Raises:
        TypeError: an argument has the wrong type or dtype.
        ValueError: the shapes do not fit, or a label is outside 0..C-1.

    Reference:
        Fischer (2020), arXiv 2002.05379, variational CEB with a backward encoder.

    Derived in:
        Chapter 3, Proposition 3.4.

    Example:
        >>> mean, labels = torch.tensor([[5.0], [-5.0]]), torch.tensor([0, 1])
        >>> variational_ceb_rate(mean, torch.zeros(2, 1), labels, mean, torch.zeros(2, 1)).item()
        0.0
    """
    require_sharing(sync, group)
    shared = shared_group(sync, group)
    mean, log_std = _codes(mean, mean, log_std, empty=shared is not None)[1:]
    names = ("class_mean", "class_mean", "class_log_std")
    class_mean, class_log_std = _codes(class_mean, class_mean, class_log_std, names=names)[1:]
    require_same_device(mean=mean, class_mean=class_mean)
    if class_mean.shape[1] != mean.shape[1]:
        raise ValueError(f"class_mean must have D = {mean.shape[1]} columns, got shape {tuple(class_mean.shape)}")
    labels = require_labels("labels", labels, len(mean), len(class_mean), empty=shared is not None)
    require_same_device(mean=mean, labels=labels)
    rates = _kl_to_gaussian(mean, log_std, class_mean[labels], class_log_std[labels])
    return gather_rows(rates, shared)[0].mean()


@without_autocast
def bottleneck_loss(
    logits: Tensor,
    labels: Tensor,
    rate: Tensor,
    beta: float | Tensor,
    *,
    sync: bool = True,
    group: ProcessGroup | None = None,
) -> Tensor:
    r"""Cross-entropy plus beta times a rate: the loss all four routes share.

    .. math:: \frac1B \sum_i -\log q(y_i | w_i) + \beta \hat R, \qquad \mathbb{E}[-\log q(Y|W)] \ge H(Y) - I(W;Y)

    With a rate :math:`\hat R` that estimates :math:`I(X;W|Y)` this is CEB, and beta = 1 aims at the minimum necessary
    information. With one that estimates :math:`I(X;W)` it is the information bottleneck, and beta / (1 + beta) takes
    the place of beta. Large beta compresses.

    Args:
        logits: decoder scores for the sampled codes, (B, C), floating.
        labels: integer classes, (B,).
        rate: scalar tensor, nats, from any rate of this module.
        beta: weight of the rate, a non-negative number, or a scalar tensor, which is not checked.
        sync, group: how processes share, see the head of the module.

    Returns:
        Scalar, nats.

    Raises:
        TypeError: ``logits`` is not a floating tensor, ``labels`` are not integers.
        ValueError: the shapes do not fit, a label is outside 0..C-1, or beta is negative or not finite.

    Reference:
        Fischer (2020), arXiv 2002.05379, the CEB objective with beta = 1 / gamma.

    Derived in:
        Chapter 3, Propositions 3.2 and 3.4.

    Example:
        >>> bottleneck_loss(torch.zeros(2, 4), torch.tensor([0, 3]), torch.tensor(2.0), beta=0.5).item()
        2.3862...
    """
    require_sharing(sync, group)
    shared = shared_group(sync, group)
    logits = at_least_float32(require_floating("logits", logits, 2, "(B, C)", empty=shared is not None))
    labels = require_labels("labels", labels, *logits.shape, empty=shared is not None)
    require_floating("rate", rate, 0, "()")
    if isinstance(beta, Tensor):
        require_floating("beta", beta, 0, "()")
    else:
        beta = require_weight("beta", beta)
    require_same_device(logits=logits, labels=labels, rate=rate)
    surprise = F.cross_entropy(logits, labels, reduction="none")
    return gather_rows(surprise, shared)[0].mean() + beta * at_least_float32(rate)


@without_autocast
def minibatch_relevance(
    w: Tensor,
    mean: Tensor,
    log_std: Tensor,
    labels: Tensor,
    *,
    include_self: bool = True,
    sync: bool = True,
    group: ProcessGroup | None = None,
) -> Tensor:
    r"""Relevance :math:`\hat I(W;Y)` from minibatch marginals alone: no decoder, no variational bound.

    .. math:: \hat I(W;Y) = \frac1B \sum_i \log \frac{\frac{1}{|S_i|} \sum_{j \in S_i} p(w_i|x_j)}
        {\frac{1}{|T_i|} \sum_{j \in T_i} p(w_i|x_j)}

    :math:`S_i` holds the examples of the class of i and :math:`T_i` all examples; both without i if ``include_self`` is
    False. It is the plain rate minus the conditional rate of :func:`minibatch_rate` over the same examples, and a
    kernel classifier in disguise. Being a difference of two bounds, it is itself no bound.
    CEB without any learned density is then ``beta * minibatch_rate(..., labels) - minibatch_relevance(...)``.

    Args:
        w: sampled codes, (B, D), floating.
        mean: encoder means, (B, D).
        log_std: logarithms of the encoder's standard deviations, (B, D).
        labels: integer classes, (B,).
        include_self: whether the example's own density is part of both marginals.
        sync, group: how processes share, see the head of the module.

    Returns:
        Scalar, nats. With ``include_self=False`` examples alone in their class do not enter the average.

    Raises:
        TypeError: an argument has the wrong type or dtype.
        ValueError: the shapes do not fit, or ``include_self=False`` and no example shares its class with another.

    Reference:
        The decomposition I(X;W) = I(X;W|Y) + I(W;Y): Fischer (2020), arXiv 2002.05379.

    Derived in:
        Chapter 3, Proposition 3.8.

    Example:
        Two classes, told apart perfectly: log 2.

        >>> mean, labels = torch.tensor([[-9.0], [-9.0], [9.0], [9.0]]), torch.tensor([0, 0, 1, 1])
        >>> minibatch_relevance(mean, mean, torch.zeros(4, 1), labels).item()
        0.6931...
    """
    if labels is None:
        raise TypeError("labels must be a torch.Tensor of shape (B,), got None")
    require_flag("include_self", include_self)
    w, mean, log_std, known = _whole_batch(w, mean, log_std, labels, sync, group)
    blocks, one_block = _class_blocks(known, w), _class_blocks(None, w)
    own, log_class = _own_and_marginal(w, mean, log_std, blocks, include_self)
    _, log_everyone = _own_and_marginal(w, mean, log_std, one_block, include_self)
    lost = own - own  # zero; NaN where an infinite example would else pass for one that is absent
    return _mean_over_examples(log_class - log_everyone[0][blocks.example] + lost, blocks, include_self)


@without_autocast
def pointwise_rate(
    w: Tensor, mean: Tensor, log_std: Tensor, reference_mean: Tensor, reference_log_std: Tensor
) -> Tensor:
    r"""Rate of each code against the mixture of other examples' Gaussians: large where the input is unlike them.

    .. math:: r_i = \log p(w_i|x_i) - \log \frac1N \sum_j p(w_i|x'_j)

    Args:
        w: sampled codes, (B, D), floating.
        mean: encoder means of the same inputs, (B, D).
        log_std: logarithms of their standard deviations, (B, D).
        reference_mean: encoder means of the reference inputs x', (N, D).
        reference_log_std: logarithms of their standard deviations, (N, D).

    Returns:
        (B,) tensor, nats, float64. Negative where many reference inputs share the code.

    Raises:
        TypeError: an argument is not a floating tensor.
        ValueError: the shapes do not fit.

    Reference:
        Alemi, Fischer and Dillon (2018), arXiv 1807.00906, use the variational form of this score.

    Derived in:
        Chapter 3, section 3.8.

    Example:
        >>> known = torch.zeros(100, 1)
        >>> pointwise_rate(torch.tensor([[0.0], [4.0]]), torch.tensor([[0.0], [4.0]]), torch.zeros(2, 1), known, known)
        tensor([0., 8.], dtype=torch.float64)
    """
    w, mean, log_std, _ = _whole_batch(w, mean, log_std, None, False, None)
    _codes(w, reference_mean, reference_log_std, names=("w", "reference_mean", "reference_log_std"))
    require_finite("reference_log_std", reference_log_std)  # an infinite width would pass for an example that is absent
    w, mean, log_std, reference_mean, reference_log_std = _double(
        w, mean, log_std, reference_mean, reference_log_std
    )
    own = _gaussian_log_density(w, mean, torch.exp(2 * log_std))
    total = _slab_logsumexp(w, reference_mean, reference_log_std)
    return own - total + math.log(reference_mean.shape[0])


@dataclass(frozen=True)
class HeldOutInformation:
    """What a code carries, measured on data that did not train it; all in nats.

    ``rate`` and ``conditional_rate`` are own-sample estimates of I(X;W) and I(X;W|Y), lower bounds that are
    capped at the logarithm of the number of examples (of one class). The ``_upper`` ones leave the own sample out
    and mix a Gaussian in, as :func:`defensive_rate` does. The truth lies between, up to sampling noise.
    """

    rate: float
    rate_upper: float
    conditional_rate: float
    conditional_rate_upper: float


@torch.no_grad()
@without_autocast
def held_out_information(
    w: Tensor, mean: Tensor, log_std: Tensor, labels: Tensor, *, weight: float = 0.5
) -> HeldOutInformation:
    r"""Bracket :math:`I(X;W)` and :math:`I(X;W|Y)` with the marginal over all held-out examples.

    The estimators of :func:`minibatch_rate` and :func:`defensive_rate` on any number of examples: the density matrix
    is made in slabs, in float64. Every method is judged by this function, never by the bound it was trained with.

    Args:
        w: sampled codes, (N, D), floating.
        mean: encoder means, (N, D).
        log_std: logarithms of the encoder's standard deviations, (N, D).
        labels: integer classes, (N,), none of them occurring just once.
        weight: share of the Gaussian in the upper estimates.

    Returns:
        :class:`HeldOutInformation`.

    Raises:
        TypeError: an argument has the wrong type or dtype.
        ValueError: the shapes do not fit, or a class occurs once.

    Reference:
        Poole et al. (2019), arXiv 1905.06922, the minibatch bounds.

    Derived in:
        Chapter 3, Propositions 3.6 and 3.10.

    Example:
        >>> generator = torch.Generator().manual_seed(2)
        >>> mean = 2 * torch.randn(2000, 1, generator=generator)
        >>> w = mean + torch.randn(2000, 1, generator=generator)
        >>> found = held_out_information(w, mean, torch.zeros(2000, 1), torch.arange(2000) % 2)
        >>> print(f"{found.rate:.2f} {found.rate_upper:.2f} truth {0.5 * math.log(5):.2f}")
        0.80 0.81 truth 0.80
    """
    weight = require_between("weight", weight, 0, 1)
    if labels is None:
        raise TypeError("labels must be a torch.Tensor of shape (N,), got None")
    w, mean, log_std, _ = _whole_batch(w, mean, log_std, labels, False, None)
    if not values_at_hand(w, labels):
        raise ValueError("w lives where there are no numbers to look at, like the meta device: move it to another")
    occurring, counts = torch.unique(labels, return_counts=True)
    if (counts == 1).any() or w.shape[0] < 2:
        raise ValueError("every class in labels must occur at least twice, or not at all: drop the single examples")
    w, mean, log_std = _double(w, mean, log_std)
    classes = [torch.nonzero(labels.to(w.device) == k)[:, 0] for k in occurring.tolist()]
    everyone = [torch.arange(w.shape[0], device=w.device)]
    found = []
    for groups in (everyone, classes):
        sides = [_lower_and_upper(w[group], mean[group], log_std[group], weight) for group in groups]
        found += torch.cat(sides, 1).mean(1).tolist()
    return HeldOutInformation(*found)


def _lower_and_upper(w: Tensor, mean: Tensor, log_std: Tensor, weight: float) -> Tensor:
    """(2, n) own-sample and defensive log-ratios of the examples of one group."""
    n = w.shape[0]
    own = _gaussian_log_density(w, mean, torch.exp(2 * log_std))
    others = _slab_logsumexp(w, mean, log_std, leave_out_diagonal=True)
    lower = own - torch.logaddexp(others, own) + math.log(n)
    gaussian = _gaussian_log_density(w, *_leave_one_out_gaussian(mean, log_std, None))
    mixed = torch.logaddexp(others - math.log(n - 1) + math.log1p(-weight), gaussian + math.log(weight))
    return torch.stack([lower, own - mixed])


def _slab_logsumexp(
    w: Tensor, mean: Tensor, log_std: Tensor, leave_out_diagonal: bool = False, slab: int = 256
) -> Tensor:
    """(B,) log of the sum of every code's densities; by matrix products, which is safe in float64 only."""
    precision = torch.exp(-2 * log_std)
    centre = mean.mean(0)
    w, mean = w - centre, mean - centre
    scaled = (mean * precision).T
    constant = 0.5 * (mean * mean * precision).sum(1) + log_std.sum(1) + 0.5 * w.shape[1] * LOG_2PI
    sums = []
    for start in range(0, w.shape[0], slab):
        part = w[start : start + slab]
        density = part @ scaled - 0.5 * (part * part) @ precision.T - constant
        if leave_out_diagonal:
            density.diagonal(start).fill_(-math.inf)
        sums.append(torch.logsumexp(density, 1))
    return torch.cat(sums)


def _double(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in float64, on the CPU where their device (MPS) has none."""
    return tuple(t.cpu().double() if t.device.type == "mps" else t.double() for t in tensors)


def _codes(
    w: Tensor,
    mean: Tensor,
    log_std: Tensor,
    *,
    empty: bool = False,
    names: tuple[str, str, str] = ("w", "mean", "log_std"),
) -> tuple[Tensor, Tensor, Tensor]:
    """The three arguments as floating (., D) tensors of one dtype, at least float32."""
    of_w, of_mean, of_log_std = names
    if w is not mean:
        require_floating(of_w, w, 2, "(B, D)", empty=empty)
    require_floating(of_mean, mean, 2, "(N, D)", empty=empty)
    require_floating(of_log_std, log_std, 2, "(N, D)", empty=empty)
    if log_std.shape != mean.shape:
        raise ValueError(
            f"{of_log_std} must have the shape of {of_mean}, {tuple(mean.shape)}, got {tuple(log_std.shape)}"
        )
    if w.shape[1] != mean.shape[1]:
        raise ValueError(f"{of_w} must have D = {mean.shape[1]} columns like {of_mean}, got shape {tuple(w.shape)}")
    require_same_device(**{of_w: w, of_mean: mean, of_log_std: log_std})
    dtype = torch.promote_types(torch.promote_types(w.dtype, mean.dtype), log_std.dtype)
    dtype = torch.promote_types(dtype, torch.float32)
    return w.to(dtype), mean.to(dtype), log_std.to(dtype)


def _whole_batch(
    w: Tensor, mean: Tensor, log_std: Tensor, labels: Tensor | None, sync: bool, group: ProcessGroup | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """As _codes, one code per row of mean, and labels or None: the rows of all processes with ``sync``."""
    require_sharing(sync, group)
    shared = shared_group(sync, group)
    w, mean, log_std = _codes(w, mean, log_std, empty=shared is not None)
    if w.shape[0] != mean.shape[0]:
        raise ValueError(f"w must hold one code per row of mean, {mean.shape[0]}, got {w.shape[0]}")
    if labels is not None:
        labels = require_labels("labels", labels, len(w), empty=shared is not None)
        require_same_device(w=w, labels=labels)
        labels = gather_rows(labels, shared)[0]
    if shared is None:
        return w, mean, log_std, labels
    w, mean, log_std = gather_rows(torch.stack([w, mean, log_std], 1), shared)[0].unbind(1)
    return w, mean, log_std, labels


def _log_density(w: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """(..., B, N) log-densities of codes (..., B, D) under Gaussians (..., N, D)."""
    z = (w[..., :, None, :] - mean[..., None, :, :]) * torch.exp(-log_std)[..., None, :, :]
    return -0.5 * (z * z).sum(-1) - (log_std.sum(-1) + 0.5 * w.shape[-1] * LOG_2PI)[..., None, :]


class _Blocks(NamedTuple):
    """The batch sorted by class: only pairs of one class are ever compared, a tenth of all pairs for ten classes."""

    example: Tensor  # (K, M) the one in each slot, M the size of the largest class, K the classes that occur
    real: Tensor  # (K, M) whether the slot is in use
    same: Tensor  # (K, M or 1, M) whether the example of a slot is of the class of another
    lonely: Tensor  # (K, M or 1) whether the class occurs once


def _class_blocks(labels: Tensor | None, w: Tensor) -> _Blocks:
    index = torch.arange(len(w), device=w.device)
    if labels is None or not values_at_hand(labels):  # sizes of classes are not known yet: one block, masked
        same = torch.ones_like(index, dtype=torch.bool)[None, :] if labels is None else labels[:, None] == labels
        return _Blocks(index[None], torch.ones_like(index[None], dtype=torch.bool), same[None], same.sum(-1)[None] == 1)
    counts = torch.unique(labels, return_counts=True)[1]
    first = counts.cumsum(0) - counts
    slot = index[: int(counts.max())]
    index = torch.argsort(labels, stable=True)[(first[:, None] + slot).clamp_max(len(w) - 1)]
    real = slot < counts[:, None]
    return _Blocks(index, real, real[:, None, :], counts[:, None] == 1)


def _own_and_marginal(
    w: Tensor, mean: Tensor, log_std: Tensor, blocks: _Blocks, include_self: bool
) -> tuple[Tensor, Tensor]:
    """(K, M) log-density of each code under its own Gaussian, and under the average over its class."""
    density = _log_density(w[blocks.example], mean[blocks.example], log_std[blocks.example])
    return density.diagonal(dim1=-2, dim2=-1), _log_mean_over_class(density, blocks, include_self)


def _log_mean_over_class(values: Tensor, blocks: _Blocks, include_self: bool) -> Tensor:
    """(K, M) log of the mean of exp(values), (K, M, M), over the members of the class, or over the other members."""
    kept = blocks.same.expand(values.shape)
    if not include_self:
        if values_at_hand(blocks.lonely) and blocks.lonely.all():
            raise ValueError(
                "labels: no example of the batch shares its class with another, so leaving the own sample out leaves "
                "no marginal: use a larger batch or include_self=True"
            )
        itself = torch.eye(values.shape[-1], dtype=torch.bool, device=values.device)
        kept = kept & (~itself | blocks.lonely[:, :, None])  # a lonely example keeps itself: no empty sum, no NaN
    # the rows of unused slots hold some other example of the batch, so that no row is minus infinity throughout
    return torch.logsumexp(values.masked_fill(~kept, -math.inf), -1) - kept.sum(-1).to(values.dtype).log()


def _mean_over_examples(log_ratio: Tensor, blocks: _Blocks, include_self: bool) -> Tensor:
    counted = blocks.real if include_self else blocks.real & ~blocks.lonely
    return torch.where(counted, log_ratio, torch.zeros_like(log_ratio)).sum() / counted.sum()


def _leave_one_out_gaussian(mean: Tensor, log_std: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
    """(N, D) mean and variance of the mixture of each example's class without the example itself."""
    labels, classes = _small_labels(labels, mean)
    one_hot = F.one_hot(labels, classes).to(mean.dtype)
    size = one_hot.sum(0)[labels][:, None]
    rest = (size - 1).clamp_min(1)
    offset = mean - (one_hot.T @ mean)[labels] / size  # about the class mean, so that a distant class does not cancel
    shift = -offset / rest  # the offsets of a class sum to zero
    noise = torch.exp(2 * log_std)
    noise = ((one_hot.T @ noise)[labels] - noise) / rest
    spread = ((one_hot.T @ offset.square())[labels] - offset.square()) / rest - shift.square()
    # rounding can make the differences negative; an example alone in its class has no variance and gets 1
    variance = noise.clamp_min(torch.finfo(mean.dtype).tiny) + spread.clamp_min(0)
    return mean - offset + shift, torch.where(size > 1, variance, torch.ones_like(variance))


def _small_labels(labels: Tensor | None, mean: Tensor) -> tuple[Tensor, int]:
    """Labels in 0..K-1 and K, for labels however large; one class for all without them."""
    if labels is None:
        return torch.zeros(len(mean), dtype=torch.long, device=mean.device), 1
    if not values_at_hand(labels):  # the place of the first example of the class
        return (labels[:, None] == labels).int().argmax(1), len(mean)
    occurring, small = torch.unique(labels, return_inverse=True)
    return small, len(occurring)


def _gaussian_log_density(w: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """(N,) log-density of each row of w under its own diagonal Gaussian."""
    return -0.5 * ((w - mean).square() / variance + variance.log() + LOG_2PI).sum(-1)


def _kl_matrix(mean: Tensor, log_std: Tensor) -> Tensor:
    """(..., B, B) KL divergences of every diagonal Gaussian (row) to every other (column), nats."""
    log_ratio = log_std[..., None, :, :] - log_std[..., :, None, :]  # log sigma_j / sigma_i
    z = (mean[..., :, None, :] - mean[..., None, :, :]) * torch.exp(-log_std)[..., None, :, :]
    return (log_ratio + 0.5 * torch.expm1(-2 * log_ratio) + 0.5 * z * z).sum(-1)


def _kl_to_gaussian(mean: Tensor, log_std: Tensor, other_mean: Tensor, other_log_std: Tensor) -> Tensor:
    """(B,) KL divergence between diagonal Gaussians, row by row, nats."""
    log_ratio = log_std - other_log_std
    z = (mean - other_mean) * torch.exp(-other_log_std)
    return (0.5 * torch.expm1(2 * log_ratio) - log_ratio + 0.5 * z * z).sum(-1)
