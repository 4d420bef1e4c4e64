r"""The information bottleneck as a rate-distortion problem: its curve, its thresholds, its tree.

Chapter 1 derives everything here. The solver rests on one fact (Proposition 1.8). Name a codeword by the
prediction :math:`q` it makes. Then :math:`d(x, q) = \mathrm{KL}(p(y|x) \| q)` is an ordinary distortion, the code is
a measure :math:`\mu` on the simplex of predictions, and

.. math:: \Phi_\beta(\mu) = -\sum_x p(x) \log \int e^{-\beta d(x, q)} \mu(dq)

is *convex* in :math:`\mu`. Its minimum is that of the Lagrangian I(X;W) - beta I(W;Y), up to the constant
beta I(X;Y). So a code can be certified: with :math:`Z(x) = \int e^{-\beta d(x, q)} \mu(dq)` and
:math:`G(q) = \sum_x p(x) e^{-\beta d(x, q)} / Z(x)`, no code is better by more than :math:`\log \max_q G(q)`.

All quantities are in nats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sigreg import _bottleneck_solver as engine
from sigreg._bottleneck_solver import TINY, Source, divergence
from sigreg._validate import (
    require_count,
    require_distribution,
    require_finite,
    require_floating,
    require_generator,
    require_weight,
)

__all__ = [
    "InformationCurve",
    "annealing_tree",
    "critical_beta",
    "information_bottleneck",
    "learnability_beta",
    "mutual_information",
    "rate_and_relevance",
    "squared_information_bottleneck",
]


@dataclass(frozen=True)
class InformationCurve:
    """Points of the information bottleneck curve, one for each beta, and the codes that reach them.

    ``betas`` (B,); ``rate`` (B,) = I(X;W) and ``relevance`` (B,) = I(W;Y) in nats; ``encoder`` (B, X, K) = p(w|x);
    ``decoder`` (B, K, Y) = p(y|w); ``marginal`` (B, K) = p(w), codewords sorted by falling probability, unused ones
    with probability zero; ``gap`` (B,) in nats: a bound on the distance to the optimum, as good as the search behind it
    (see :func:`information_bottleneck`); ``converged`` (B,): whether that gap is within the tolerance asked for.
    """

    betas: Tensor
    rate: Tensor
    relevance: Tensor
    encoder: Tensor
    decoder: Tensor
    marginal: Tensor
    gap: Tensor
    converged: Tensor

    @property
    def lagrangian(self) -> Tensor:
        """I(X;W) - beta I(W;Y), shape (B,)."""
        return self.rate - self.betas * self.relevance


def mutual_information(joint: Tensor) -> Tensor:
    r"""Mutual information of two discrete variables.

    .. math:: I(X;Y) = \sum_{x,y} p(x,y) \log \frac{p(x,y)}{p(x)\,p(y)}

    Args:
        joint: p(x, y), shape (X, Y); entries sum to one, zero rows and columns are legal.

    Returns:
        Tensor of shape (), in nats.

    Raises:
        TypeError: ``joint`` is not a floating tensor.
        ValueError: ``joint`` is empty, not two-dimensional, not finite, negative or not normalised.

    Reference: Cover and Thomas, Elements of Information Theory (2006), equation 2.28.

    Derived in: Chapter 1, Definition 1.1.

    >>> mutual_information(torch.eye(2, dtype=torch.float64) / 2).item()  # one fair coin, seen twice: log 2
    0.6931...
    """
    joint = _require_joint(joint)
    product = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    return (torch.special.xlogy(joint, joint) - torch.special.xlogy(joint, product)).sum()


def rate_and_relevance(joint: Tensor, encoder: Tensor) -> tuple[Tensor, Tensor]:
    r"""The two informations of a code W of X, where W is independent of Y given X.

    .. math:: I(X;W) = \sum_{x,w} p(x) p(w|x) \log \frac{p(w|x)}{p(w)}, \qquad
              I(W;Y) = \sum_{w,y} p(w) p(y|w) \log \frac{p(y|w)}{p(y)}

    Args:
        joint: p(x, y), shape (X, Y).
        encoder: p(w|x), shape (..., X, K), rows sum to one.

    Returns:
        Two tensors of shape (...), in nats.

    Raises:
        TypeError: an argument is not a floating tensor.
        ValueError: an argument is not a distribution, or the numbers of inputs differ.

    Reference: Tishby, Pereira and Bialek (1999), section 3.

    Derived in: Chapter 1, Definition 1.1.

    >>> joint = torch.tensor([[0.4, 0.1], [0.1, 0.4]], dtype=torch.float64)
    >>> rate, relevance = rate_and_relevance(joint, torch.eye(2, dtype=torch.float64))  # W = X
    >>> bool(torch.isclose(relevance, mutual_information(joint)))
    True
    """
    joint = _require_joint(joint)
    _require_numbers("encoder", require_floating("encoder", encoder, range(2, 65), "(..., X, K)"))
    require_distribution("encoder", encoder)
    encoder = encoder.to(joint)
    if encoder.shape[-2] != joint.shape[0]:
        raise ValueError(
            f"encoder has {encoder.shape[-2]} inputs where joint has {joint.shape[0]}: "
            "their shapes must be (..., X, K) and (X, Y)"
        )
    xlogy = torch.special.xlogy
    with_x = joint.sum(1)[:, None] * encoder  # (..., X, K)
    with_y = encoder.transpose(-1, -2) @ joint  # (..., K, Y)
    marginal = with_x.sum(-2)  # (..., K)
    entropy_w = -xlogy(marginal, marginal).sum(-1)
    rate = xlogy(with_x, encoder).sum((-1, -2)) + entropy_w
    py = joint.sum(0)
    relevance = xlogy(with_y, with_y).sum((-1, -2)) + entropy_w - xlogy(py, py).sum()
    return rate, relevance


def critical_beta(joint: Tensor) -> Tensor:
    r"""Where the trivial code stops beating all codes near it: 1 / rho^2, rho the maximal correlation.

    Near means that p(w|x) / p(w) is close to one for every x and w.

    .. math:: \beta_c = 1 / \lambda_{\max}(C), \qquad
              C_{yy'} = \sum_x p(x) \frac{(p(y|x) - p(y)) (p(y'|x) - p(y'))}{\sqrt{p(y)\, p(y')}}

    Args:
        joint: p(x, y), shape (X, Y).

    Returns:
        Tensor of shape (): at least 1, and infinite if X and Y are independent.

    Raises:
        TypeError, ValueError: as :func:`mutual_information`.

    Reference: Anantharam, Gohari, Kamath and Nair (2013) for the maximal correlation.

    Derived in: Chapter 1, Theorem 1.10.

    >>> a = 0.1  # a binary symmetric channel: 1 / (1 - 2a)^2 = 1 / 0.64
    >>> joint = torch.tensor([[1 - a, a], [a, 1 - a]], dtype=torch.float64) / 2
    >>> round(critical_beta(joint).item(), 6)
    1.5625
    """
    joint = _require_joint(joint)
    source = Source(joint)
    largest = torch.linalg.eigvalsh(source.correlation())[-1]
    beta = torch.where(largest > 1e-14, 1 / largest.clamp_min(1e-14), math.inf)
    return beta.clamp_min(1).to(joint)


def learnability_beta(joint: Tensor, *, n_starts: int = 64, generator: torch.Generator | None = None) -> Tensor:
    r"""Where a non-trivial code first beats the trivial one: 1 / s*, s* the strong data-processing constant.

    .. math:: \beta_0 = \frac{1}{s^*}, \qquad
              s^* = \sup_{r \ne p_X} \frac{\mathrm{KL}(r_Y \| p_Y)}{\mathrm{KL}(r \| p_X)}, \qquad
              r_Y(y) = \sum_x r(x) p(y|x)

    The supremum is not a concave problem. It is searched from every input, from the leading singular directions in
    both senses, and from random laws, by the fixed point of its stationarity condition,
    :math:`r(x) \propto p(x) \exp(\beta \sum_y p(y|x) \log (r_Y(y) / p_Y(y)))` with :math:`\beta` the present ratio. The
    ratio never rises along an iteration. Then the answer must pass the solver's certificate: at that beta the search
    of :func:`information_bottleneck` may find no G above one for the trivial code; where it does, the ratio of what it
    found is lower, and becomes the answer.

    *Proven:* the value is an upper bound on beta_0, because a law r attains it (or it is :func:`critical_beta`, the
    limit of laws close to p_X). *Searched:* that no law does better.

    Args:
        joint: p(x, y), shape (X, Y).
        n_starts: how many random laws to start from, besides every input.
        generator: draws the random laws; the default is a fresh one with seed 0.

    Returns:
        Tensor of shape (): at least 1, and infinite if X and Y are independent.

    Raises:
        TypeError, ValueError: as :func:`mutual_information`; ``n_starts`` is below 1.

    Reference: Anantharam, Gohari, Kamath and Nair (2013); Wu, Fischer, Chuang and Tegmark (2019) for learnability.

    Derived in: Chapter 1, Theorem 1.11.

    >>> e = 0.3  # an erasure channel keeps X with probability 1 - e, and s* = 1 - e
    >>> joint = torch.tensor([[1 - e, 0, e], [0, 1 - e, e]], dtype=torch.float64) / 2
    >>> round(learnability_beta(joint).item() * (1 - e), 6)
    1.0
    """
    joint = _require_joint(joint)
    n_starts = require_count("n_starts", n_starts)
    source, local = Source(joint), critical_beta(joint.double())
    if not torch.isfinite(local):
        return local.to(joint)
    starts = source.mixtures(n_starts, _default(generator))[1:]
    q = torch.cat([source.p[source.cover(_STARTS)], starts, source.singular_predictions()])
    best = local
    for rounds, keep in ((30, 64), (300, 16), (1000, 1)):  # cheap sieve first, then polish those that lead
        for step in range(rounds):
            gain = source.p @ (q.clamp_min(TINY) / source.py).log().T  # (X, S): sum_y p(y|x) log q / p_Y
            if step == 0:
                beta = source.ratio(torch.softmax(local * gain + source.px.log()[:, None], 0))
            r = torch.softmax(beta * gain + source.px.log()[:, None], 0)
            q, old, beta = r.T @ source.p, beta, torch.minimum(beta, source.ratio(r))
            if (old - beta <= 1e-14 * beta).all():
                break
        best = torch.minimum(best, beta.min())
        q = q[beta.argsort()[:keep]]
    trivial = source.py[None]
    for _ in range(20):
        beta = best.item()
        log_lambda = source.log_lambda(torch.ones_like(source.py[:1]), trivial, beta)
        points = torch.cat([source.inside(source.p, beta), trivial, q])
        g, tops = engine.certify(source, trivial, points, starts, log_lambda, beta, 1e-12)
        top = tops[g > 1e-13]
        if len(top) == 0:
            break
        gain = source.p @ (top.clamp_min(TINY) / source.py).log().T
        found = source.ratio(torch.softmax(beta * gain + source.px.log()[:, None], 0)).min()
        if found >= best * (1 - 1e-12):
            break
        best = found
    return best.clamp_min(1).to(joint)


def information_bottleneck(
    joint: Tensor,
    betas: Tensor,
    n_codewords: int | None = None,
    *,
    generator: torch.Generator | None = None,
    tolerance: float = 5e-7,
    relative_tolerance: float = 1e-13,
    max_rounds: int = 60,
) -> InformationCurve:
    r"""Optimal codes of the information bottleneck, one for each beta, each with a bound on what it may lack.

    .. math:: \min_{p(w|x)} \; I(X;W) - \beta I(W;Y), \qquad
              p(w|x) = \frac{p(w)\, e^{-\beta\, \mathrm{KL}(p(y|x) \| p(y|w))}}{Z(x, \beta)}

    The largest beta starts from the finest code (one codeword for each input; for very many inputs, codewords that
    cover them), every other from the code of the next larger one. Rounds follow: Newton's step for all weights and
    words at once, kept where it lowers the Lagrangian; a search for a missing codeword, some q with G(q) > 1 (see the
    top of this module); the best weights for the old and the new words, a convex problem. The search climbs from every
    input, every word, the middle of words that are close and 257 mixtures of inputs, by Blahut and Arimoto's half step
    and by Newton's. It ends when it finds no log G above the tolerance.

    *Proven:* the code returned is the image of Blahut and Arimoto's step, so its decoder holds the centroids exactly,
    and rate and relevance are those of its encoder. With the largest G on the whole simplex, ``gap`` would bound the
    distance to the optimum whatever the weights, however skewed p(x) and however large beta; and it never exceeds the
    distance to :math:`(\min(1, \beta) - \beta) I(X;Y)`, which no Lagrangian undercuts. *Searched:* that largest G. G is
    not concave, and no search from finitely many points proves that it missed no peak. ``gap`` is that of one last
    search, never carried over from an earlier one; and the codes of all betas are held against each other: one that
    another beats by more than its gap is solved again from there.

    With ``n_codewords`` below what the optimum needs the problem is not convex any more: then codewords are merged in
    pairs, the cheapest first, and neighbouring betas exchange solutions; the result is a fixed point, ``gap`` compares
    it with codes of any size, and ``converged`` says that the iteration has settled.

    Time grows with the square of the number of inputs, memory too up to some thousand of them.

    Args:
        joint: p(x, y), shape (X, Y); zero rows and columns are legal. float32 input is solved in float64.
        betas: trade-offs, shape (B,), positive. Large is faithful, small is compressed.
        n_codewords: the most codewords allowed, at most X. Default: as many as are needed.
        generator: draws the random mixtures; the default is a fresh one with seed 0.
        tolerance: the gap at which to stop, in nats.
        relative_tolerance: what is added to it, in units of beta I(X;Y); 1e-13 is what float64 can tell.
        max_rounds: the most rounds of descent and search at each beta (without ``n_codewords``). Codes of more than
            some hundred words get fewer, so that no beta runs on and on; what is then left shows in ``gap``.

    Returns:
        :class:`InformationCurve` in the dtype and on the device of ``joint``; K is the largest number of codewords in
        use, or ``n_codewords`` if given. ``converged`` is true where ``gap`` is at most
        ``tolerance + relative_tolerance * beta * I(X;Y)``, and false elsewhere (without ``n_codewords``).

    Raises:
        TypeError: ``joint`` or ``betas`` is not a floating tensor.
        ValueError: ``joint`` is not a joint law; ``betas`` is empty, not one-dimensional, not finite or not
            positive; ``n_codewords`` is below 1 or above X; ``max_rounds`` is below 1.

    Reference: Tishby, Pereira and Bialek (1999), equations 16, 17 and 18 for the step; Lindsay (1983) for the
    certificate, in the language of mixtures.

    Derived in: Chapter 1, Propositions 1.3, 1.6 and 1.8.

    >>> joint = torch.tensor([[0.45, 0.05], [0.05, 0.45]], dtype=torch.float64)
    >>> curve = information_bottleneck(joint, torch.tensor([1.5, 1.6, 4.0], dtype=torch.float64))
    >>> [round(r, 3) for r in curve.rate.tolist()]  # nothing is worth its price before beta = 1.5625
    [0.0, 0.089, 0.686]
    """
    joint = _require_joint(joint)
    betas = _require_betas(betas)
    n_codewords = _require_codewords(n_codewords, len(joint))
    max_rounds = require_count("max_rounds", max_rounds)
    tolerance = require_weight("tolerance", tolerance)
    relative_tolerance = require_weight("relative_tolerance", relative_tolerance)
    source = Source(joint)
    beta = betas.to(source.px)
    falling = beta.sort(descending=True, stable=True)
    prices, back = falling.values.tolist(), falling.indices.argsort()
    starts = source.mixtures(256, _default(generator))
    if n_codewords is None:
        codes = engine.solve(source, prices, starts, tolerance, relative_tolerance, max_rounds)
        codes = engine.cross_check(source, prices, codes, starts, tolerance, relative_tolerance, max_rounds)
        codes = [codes[i] for i in back.tolist()]
        size = max(len(code.weight) for code in codes)
        weights, words, settled = [code.weight for code in codes], [code.q for code in codes], None
    else:  # a code that will be cut to few codewords starts from a cover a few times finer, not from the finest
        size, cover = n_codewords, 32 + 4 * n_codewords
        codes = engine.solve(source, prices, starts, tolerance, relative_tolerance, 2, cover)[::-1]
        weight, q, change = engine.restrict(source, beta.sort().values, codes, min(size, len(source.p)))
        to_caller = beta.argsort(stable=True).argsort()
        codes = [codes[i] for i in to_caller.tolist()]
        weights, words, settled = weight[to_caller], q[to_caller], change[to_caller] <= tolerance / 20
    bound = torch.tensor([code.bound for code in codes], dtype=torch.float64).to(beta)
    return _curve(source, joint, betas, weights, words, bound, tolerance, relative_tolerance, size, settled)


def squared_information_bottleneck(
    joint: Tensor,
    multipliers: Tensor,
    n_codewords: int | None = None,
    *,
    generator: torch.Generator | None = None,
    steps: int = 2000,
) -> InformationCurve:
    r"""Codes that minimise the squared Lagrangian, which can stop anywhere on a straight stretch of the curve.

    .. math:: \min_{p(w|x)} \; I(X;W)^2 - \lambda\, I(W;Y)

    Where the curve is straight, the plain Lagrangian has the same value all along, and can only jump from one end
    to the other. Deterministic labels make all of it straight, I(W;Y) = I(X;W) up to H(Y); other laws, labels
    blurred over classes among them, can have a straight stretch at the origin (Benger, Asoodeh and Chen 2023). The
    square is strictly convex in the rate and picks one point, here I(X;W) = min(lambda / 2, H(Y)). Each step is
    Blahut and Arimoto's with beta = lambda / (2 I(X;W)), taken in part: the log encoder moves by a fraction that is
    halved until the objective does not rise.

    Args:
        joint: p(x, y), shape (X, Y).
        multipliers: lambda, shape (B,), positive.
        n_codewords: codewords allowed, at most X. Default: the number of distinct predictions, at most Y + 1.
        generator: draws the starting encoders; the default is a fresh one with seed 0.
        steps: the most iterations.

    Returns:
        :class:`InformationCurve` whose ``betas`` are lambda / (2 I(X;W)), the slope at which each code sits; ``gap``
        is NaN, since nothing is certified: the result is a local minimum.

    Raises:
        TypeError, ValueError: as :func:`information_bottleneck`.

    Reference: Kolchinsky, Tracey and Van Kuyk (2019), section 5.

    Derived in: Chapter 1, Propositions 1.14 and 1.15.

    >>> joint = torch.eye(2, dtype=torch.float64) / 2  # the label is the input
    >>> curve = squared_information_bottleneck(joint, torch.tensor([0.5, 1.0], dtype=torch.float64))
    >>> [round(r, 3) for r in curve.rate.tolist()], [round(r, 3) for r in curve.relevance.tolist()]
    ([0.25, 0.5], [0.25, 0.5])
    """
    joint = _require_joint(joint)
    multipliers = _require_betas(multipliers, "multipliers")
    n_codewords, steps = _require_codewords(n_codewords, len(joint)), require_count("steps", steps)
    source = Source(joint)
    weigh = multipliers.to(source.px)
    size = n_codewords or min(len(source.p), len(source.py) + 1)
    random = torch.rand(len(source.p), size, generator=_default(generator), dtype=torch.float64).to(source.p)
    near = source.p @ source.p[source.cover(size)].clamp_min(TINY).log().T  # leans to the nearest of a cover
    log_encoder = (0.1 * random + near.clamp_min(-3)).log_softmax(1).repeat(len(weigh), 1, 1)  # (B, X, K)

    def state(log_encoder: Tensor) -> tuple[Tensor, ...]:
        encoder = log_encoder.exp()
        marginal = source.px @ encoder  # (B, K)
        q = (encoder.transpose(1, 2) * source.px) @ source.p / marginal[:, :, None].clamp_min(TINY)
        rate = ((encoder * (log_encoder - marginal.clamp_min(TINY).log()[:, None, :])).sum(2) @ source.px).clamp_min(0)
        relevance = (marginal * (torch.special.xlogy(q, q / source.py)).sum(2)).sum(1)
        return marginal, q, rate, relevance, rate.square() - weigh * relevance

    marginal, q, rate, relevance, value = state(log_encoder)
    pace, settled = torch.full_like(weigh, 0.5), torch.zeros_like(weigh)
    for _ in range(steps):
        beta = weigh / (2 * rate.clamp_min(1e-9))
        logits = source.exponents(q, beta[:, None, None]).transpose(1, 2) + marginal.clamp_min(TINY).log()[:, None, :]
        trial = log_encoder + pace[:, None, None] * (logits - log_encoder)
        trial = trial.log_softmax(2).clamp_min(-600)
        new = state(trial)
        better = new[4] <= value + 1e-15
        settled = torch.where(better & (value - new[4] < 1e-13), settled + 1, 0 * settled)
        log_encoder = torch.where(better[:, None, None], trial, log_encoder)
        marginal, q, rate, relevance, value = (
            torch.where(better.view(-1, *[1] * (a.ndim - 1)), a, b)
            for a, b in zip(new, (marginal, q, rate, relevance, value), strict=True)
        )
        pace = torch.where(better, (pace * 1.1).clamp_max(1), pace / 2)
        if ((settled >= 20) | (pace < 1e-6)).all():
            break
    beta = weigh / (2 * rate.clamp_min(1e-9))
    found = _informations(source, joint, log_encoder.exp())
    rate, relevance, encoder, decoder, marginal = (part.to(joint) for part in found)
    unknown = torch.full_like(rate, math.nan)
    converged = ((settled >= 20) | (pace < 1e-6)).to(joint.device)
    return InformationCurve(beta.to(joint), rate, relevance, encoder, decoder, marginal, unknown, converged)


def annealing_tree(joint: Tensor, curve: InformationCurve) -> tuple[Tensor, Tensor, Tensor]:
    r"""Which codewords of the finest code come together as beta falls.

    A codeword of one beta descends to the codeword of the next smaller beta that takes most of its mass,
    :math:`\arg\max_{w'} \sum_x p(x) p(w|x) p'(w'|x)`; two leaves are joined at the largest beta at which they share
    a codeword. (An optimal code need not refine the one before it; the tree is what remains when each codeword is
    given one parent.)

    Args:
        joint: p(x, y), shape (X, Y).
        curve: an :class:`InformationCurve` of that joint, with at least two betas.

    Returns:
        ``leaves`` (L,): the codewords in use at the largest beta, by index; ``codeword`` (B, L): for each beta, in
        the order of ``curve.betas``, the codeword that holds the leaf; ``joined`` (L, L): the largest beta at which
        two leaves share a codeword (infinite on the diagonal, zero if never).

    Raises:
        ValueError: fewer than two betas, or a curve of another joint.
        TypeError: ``joint`` is not a floating tensor.

    Reference: Tishby, Pereira and Bialek (1999), section 3.4; Rose (1998) for deterministic annealing.

    Derived in: Chapter 1, Corollary 1.13.

    >>> joint = torch.tensor([[8, 1, 1], [8, 1, 1], [1, 7, 2], [1, 2, 7.0]], dtype=torch.float64) / 40
    >>> curve = information_bottleneck(joint, torch.logspace(0, 1.5, 30, dtype=torch.float64))
    >>> leaves, codeword, joined = annealing_tree(joint, curve)
    >>> len(leaves), joined[1, 2].item() > joined[0, 1].item()  # the two mixed rows stay together longest
    (3, True)
    """
    px = _require_joint(joint).sum(1)
    if not isinstance(curve, InformationCurve):
        raise TypeError(f"curve must be an InformationCurve of this joint, got {type(curve).__name__}")
    if curve.encoder.shape[1] != len(px):
        raise ValueError(f"curve has {curve.encoder.shape[1]} inputs and joint {len(px)}: pass the joint of the curve")
    if len(curve.betas) < 2:
        raise ValueError(f"curve must have at least two betas to be a tree, got {len(curve.betas)}")
    order = curve.betas.argsort(descending=True).tolist()
    leaves = (curve.marginal[order[0]] > 1e-6).nonzero().flatten()
    codeword = torch.zeros(len(curve.betas), len(leaves), dtype=torch.long, device=leaves.device)
    codeword[order[0]] = leaves
    joined = torch.zeros(len(leaves), len(leaves)).to(curve.betas)
    for fine, coarse in pairwise(order):
        mass = (curve.encoder[fine] * px[:, None]).T @ curve.encoder[coarse]  # (K, K')
        codeword[coarse] = mass.argmax(1)[codeword[fine]]
        same = codeword[coarse][:, None] == codeword[coarse][None, :]
        joined = torch.where(same & (joined == 0), curve.betas[coarse], joined)
    joined.fill_diagonal_(math.inf)
    return leaves, codeword, joined


_STARTS = 4096  # inputs from which the global threshold is searched; of more, a cover


def _curve(
    source: Source,
    joint: Tensor,
    betas: Tensor,
    weights: Any,
    words: Any,
    bound: Tensor,
    tolerance: float,
    relative: float,
    size: int,
    settled: Tensor | None,
) -> InformationCurve:
    """The curve of what Blahut and Arimoto's step makes of the codes, with gaps from lower bounds on Phi."""
    parts = []
    for beta, weight, q in zip(betas.to(bound), weights, words, strict=True):  # one at a time, to bound memory
        used = weight > 0
        encoder = (source.exponents(q[used], beta) + weight[used].log()[:, None]).softmax(0).T
        parts.append(_informations(source, joint, torch.nn.functional.pad(encoder, (0, size - encoder.shape[1]))[None]))
    rate, relevance, encoder, decoder, marginal = (torch.cat(part) for part in zip(*parts, strict=True))
    scale = betas.to(bound) * source.information
    value = rate.to(bound) - betas.to(bound) * relevance.to(bound) + scale
    gap = (value - bound).clamp_min(0) + 1e-15 * (1 + scale)  # and what rounding may hide
    if settled is None:
        settled = gap <= tolerance + relative * scale
    rate, relevance, encoder, decoder, marginal, gap = (
        part.to(joint) for part in (rate, relevance, encoder, decoder, marginal, gap)
    )
    betas, settled = betas.to(joint), settled.to(joint.device)
    return InformationCurve(betas, rate, relevance, encoder, decoder, marginal, gap, settled)


def _informations(source: Source, joint: Tensor, encoder: Tensor) -> tuple[Tensor, ...]:
    """Rate, relevance, encoder, decoder, marginal for the inputs as they came, from p(w|x) of the distinct ones."""
    xlogy = torch.special.xlogy
    marginal, order = (source.px @ encoder).sort(descending=True)  # (B, K)
    encoder = encoder.gather(2, order[:, None, :].expand_as(encoder))
    q = (encoder.transpose(1, 2) * source.px) @ source.p / marginal[:, :, None].clamp_min(TINY)
    q = torch.where(marginal[:, :, None] > TINY, q, source.py)  # an unused codeword predicts the marginal
    rate = xlogy(encoder, encoder).sum(2) @ source.px - xlogy(marginal, marginal).sum(1)
    relevance = (marginal * divergence(q.movedim(2, 0), source.py[:, None, None])).sum(1)
    whole = marginal[:, None, :].repeat(1, len(joint), 1)  # an input of probability zero gets the marginal
    whole[:, source.rows] = encoder[:, source.where]
    decoder = torch.zeros(*q.shape[:2], joint.shape[1]).to(q)
    decoder[:, :, source.columns] = q
    return rate.clamp_min(0), relevance.clamp_min(0), whole, decoder, marginal


def _default(generator: torch.Generator | None) -> torch.Generator:
    return require_generator("generator", generator) or torch.Generator().manual_seed(0)


def _require_joint(joint: Tensor) -> Tensor:
    _require_numbers("joint", require_floating("joint", joint, 2, "(X, Y)"))
    return require_distribution("joint", joint, (0, 1))


def _require_numbers(name: str, value: Tensor) -> None:
    if value.is_meta:
        raise ValueError(f"{name} is on the meta device, where there are no numbers to look at")


def _require_codewords(n_codewords: int | None, n_inputs: int) -> int | None:
    if n_codewords is not None and not 1 <= require_count("n_codewords", n_codewords, -math.inf) <= n_inputs:
        raise ValueError(f"n_codewords must be from 1 to the number of inputs, {n_inputs}, got {n_codewords}")
    return None if n_codewords is None else int(n_codewords)


def _require_betas(betas: Tensor, name: str = "betas") -> Tensor:
    _require_numbers(name, require_floating(name, betas, 1, "(B,)"))
    require_finite(name, betas)
    if not (betas > 0).all():
        raise ValueError(f"{name} must be positive, got {betas.min().item():.3g}")
    return betas
