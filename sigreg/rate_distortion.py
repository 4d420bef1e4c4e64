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

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import torch

from sigreg._validate import require_distribution, require_finite, require_floating

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

TINY = 1e-300  # stands for zero inside logarithms; the solver works in float64


@dataclass(frozen=True)
class InformationCurve:
    """Points of the information bottleneck curve, one for each beta, and the codes that reach them.

    ``betas`` (B,); ``rate`` (B,) = I(X;W) and ``relevance`` (B,) = I(W;Y) in nats; ``encoder`` (B, X, K) = p(w|x);
    ``decoder`` (B, K, Y) = p(y|w); ``marginal`` (B, K) = p(w), codewords sorted by falling probability, unused ones
    with probability zero; ``gap`` (B,) in nats: the distance to the optimum that the search could not exclude
    (see :func:`information_bottleneck`); ``converged`` (B,): whether the stopping test was met.
    """

    betas: torch.Tensor
    rate: torch.Tensor
    relevance: torch.Tensor
    encoder: torch.Tensor
    decoder: torch.Tensor
    marginal: torch.Tensor
    gap: torch.Tensor
    converged: torch.Tensor

    @property
    def lagrangian(self):
        """I(X;W) - beta I(W;Y), shape (B,)."""
        return self.rate - self.betas * self.relevance


def mutual_information(joint):
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


def rate_and_relevance(joint, encoder):
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
    require_floating("encoder", encoder, tuple(range(2, max(3, encoder.ndim + 1))) if isinstance(
        encoder, torch.Tensor) else 2, "(..., X, K)")
    require_distribution("encoder", encoder)
    if encoder.shape[-2] != joint.shape[0]:
        raise ValueError(f"encoder has {encoder.shape[-2]} inputs where joint has {joint.shape[0]}: "
                         "their shapes must be (..., X, K) and (X, Y)")
    xlogy = torch.special.xlogy
    with_x = joint.sum(1)[:, None] * encoder  # (..., X, K)
    with_y = encoder.transpose(-1, -2) @ joint  # (..., K, Y)
    marginal = with_x.sum(-2)  # (..., K)
    entropy_w = -xlogy(marginal, marginal).sum(-1)
    rate = xlogy(with_x, encoder).sum((-1, -2)) + entropy_w
    py = joint.sum(0)
    relevance = xlogy(with_y, with_y).sum((-1, -2)) + entropy_w - xlogy(py, py).sum()
    return rate, relevance


def critical_beta(joint):
    r"""Where the trivial code stops being a local minimum: 1 / rho^2, rho the maximal correlation.

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
    source = _Source(joint)
    largest = torch.linalg.eigvalsh(source.correlation())[-1]
    beta = torch.where(largest > 1e-14, 1 / largest.clamp_min(1e-14), math.inf)
    return beta.clamp_min(1).to(joint)


def learnability_beta(joint, *, n_starts=64, generator=None):
    r"""Where a non-trivial code first beats the trivial one: 1 / s*, s* the strong data-processing constant.

    .. math:: \beta_0 = \frac{1}{s^*}, \qquad
              s^* = \sup_{r \ne p_X} \frac{\mathrm{KL}(r_Y \| p_Y)}{\mathrm{KL}(r \| p_X)}, \qquad
              r_Y(y) = \sum_x r(x) p(y|x)

    The supremum is not a concave problem. It is searched from single inputs, from the leading singular directions in
    both senses, and from random laws, by the fixed point of its stationarity condition,
    :math:`r(x) \propto p(x) \exp(\beta \sum_y p(y|x) \log (r_Y(y) / p_Y(y)))` with :math:`\beta` the present ratio. The
    ratio never rises along an iteration. The value returned is therefore an upper bound on beta_0 that is as good as
    the search, and never above :func:`critical_beta`, which is the limit of laws close to p_X.

    Args:
        joint: p(x, y), shape (X, Y).
        n_starts: how many single inputs and how many random laws to start from.
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
    if not n_starts >= 1:
        raise ValueError(f"n_starts must be 1 or more, got {n_starts}")
    source, local = _Source(joint), critical_beta(joint.double())
    if not torch.isfinite(local):
        return local.to(joint)
    q = source.search_points(n_starts, _default(generator), extra=source.singular_predictions())
    best = local
    for rounds, keep in ((30, 16), (300, 4), (3000, 1)):  # cheap sieve first, then polish the few that lead
        for step in range(rounds):
            gain = source.p @ (q.clamp_min(TINY) / source.py).log().T  # (X, S): sum_y p(y|x) log q / p_Y
            if step == 0:
                beta = source.ratio(torch.softmax(local * gain + source.px.log()[:, None], 0))
            r = torch.softmax(beta * gain + source.px.log()[:, None], 0)
            q, old, beta = r.T @ source.p, beta, torch.minimum(beta, source.ratio(r))
            if (old - beta <= 1e-14 * beta).all():
                break
        best = torch.minimum(best, beta.min())
        lead = beta.argsort()[:keep]
        q = q[lead]
    return best.clamp_min(1).to(joint)


def information_bottleneck(joint, betas, n_codewords=None, *, generator=None, tolerance=5e-7, max_rounds=60):
    r"""Optimal codes of the information bottleneck, one for each beta, all solved together.

    .. math:: \min_{p(w|x)} \; I(X;W) - \beta I(W;Y), \qquad
              p(w|x) = \frac{p(w)\, e^{-\beta\, \mathrm{KL}(p(y|x) \| p(y|w))}}{Z(x, \beta)}

    The search starts from the finest code (one codeword for each input; for many inputs, codewords that cover
    them) at every beta, iterates Blahut and Arimoto's step, merges codewords that meet and drops those that die, and
    accelerates the rest by safeguarded Anderson extrapolation. Then it looks for a missing codeword: some q with
    G(q) > 1 (see the top of this module), among single inputs, the codewords of neighbouring betas, random mixtures,
    and what these climb to. Those found join the code and the search resumes. It ends when log max G is at most
    ``tolerance``, or when three rounds running lower the Lagrangian by at most a twentieth of it each.

    *Guaranteed:* the iteration never raises the Lagrangian; the code returned is the image of Blahut and Arimoto's
    step, so its decoder holds the centroids exactly; no code is better by more than ``gap``, *if* the search missed no
    higher G(q). *Not guaranteed:* that it missed none, since G is not concave. With ``n_codewords`` below what the
    optimum needs the problem is not convex any more: then codewords are merged in pairs, the cheapest first, and
    neighbouring betas exchange solutions; the result is a fixed point, and ``gap`` compares it with codes of any size.

    Args:
        joint: p(x, y), shape (X, Y); zero rows and columns are legal. float32 input is solved in float64.
        betas: trade-offs, shape (B,), positive. Large is faithful, small is compressed.
        n_codewords: the most codewords allowed, at most X. Default: as many as are needed.
        generator: draws the random mixtures; the default is a fresh one with seed 0.
        tolerance: certified distance to the optimum at which to stop, in nats.
        max_rounds: the most rounds of iteration and search (without ``n_codewords``).

    Returns:
        :class:`InformationCurve` in the dtype and on the device of ``joint``; K is the largest number of codewords in
        use, or ``n_codewords`` if given. ``converged`` says whether the search ended as described.

    Raises:
        TypeError: ``joint`` or ``betas`` is not a floating tensor.
        ValueError: ``joint`` is not a joint law; ``betas`` is empty, not one-dimensional, not finite or not
            positive; ``n_codewords`` is below 1 or above X.

    Reference: Tishby, Pereira and Bialek (1999), equations 16, 17 and 18 for the step; Lindsay (1983) for the
    certificate, in the language of mixtures.

    Derived in: Chapter 1, Propositions 1.3, 1.6 and 1.8.

    >>> joint = torch.tensor([[0.45, 0.05], [0.05, 0.45]], dtype=torch.float64)
    >>> curve = information_bottleneck(joint, torch.tensor([1.5, 1.6, 4.0], dtype=torch.float64))
    >>> [round(r, 4) for r in curve.rate.tolist()]  # nothing is worth its price before beta = 1.5625
    [0.0, 0.0892, 0.6859]
    """
    joint = _require_joint(joint)
    betas = _require_betas(betas)
    n_inputs = joint.shape[0]
    if n_codewords is not None and not 1 <= n_codewords <= n_inputs:
        raise ValueError(f"n_codewords must be from 1 to the number of inputs, {n_inputs}, got {n_codewords}")
    source = _Source(joint)
    beta = betas.to(source.px)
    search = source.search_points(_SEARCH_ROWS, _default(generator))
    # A code that will be cut to few codewords starts from a cover a few times finer, not from the finest.
    cover, rounds = (_COVER, max_rounds) if n_codewords is None else (min(_COVER, 32 + 4 * n_codewords), 3)
    chunk = max(1, _CHUNK // (len(source.p) * min(len(source.p), cover)))  # betas at once, to bound memory
    codes = []
    for part in beta.sort().values.split(chunk):
        codes += _solve(source, part, search, tolerance, rounds, cover)
    back = beta.argsort(stable=True).argsort()  # to the order of the caller
    gap = torch.tensor([code.gap for code in codes]).to(beta)
    if n_codewords is None:
        weight, q = _pad([_tidy(replace(code, new_weight=code.weight[:0], new_q=code.q[:0]), 0) for code in codes])
        converged = torch.tensor([code.gap <= tolerance or code.calm >= _CALM for code in codes], device=joint.device)
    else:
        weight, q, change = _restrict(source, beta.sort().values, codes, n_codewords)
        converged = (change <= tolerance / 20).to(joint.device)
        gap = _missing(source, weight, q, beta.sort().values, search, list(q[:, :16]), tolerance)[0]
        weight, q = (torch.nn.functional.pad(weight, (0, n_codewords - weight.shape[1])), q)
    return _curve(source, joint, betas, weight[back], q[back], gap[back], converged[back.to(joint.device)])


def squared_information_bottleneck(joint, multipliers, n_codewords=None, *, generator=None, steps=2000):
    r"""Codes that minimise the squared Lagrangian, which can stop anywhere on a straight stretch of the curve.

    .. math:: \min_{p(w|x)} \; I(X;W)^2 - \lambda\, I(W;Y)

    Where the curve is straight (deterministic labels: I(W;Y) = I(X;W) up to H(Y)), the plain Lagrangian has the
    same value all along, and can only jump from one end to the other. The square is strictly convex in the rate and
    picks one point, here I(X;W) = min(lambda / 2, H(Y)). Each step is Blahut and Arimoto's with
    beta = lambda / (2 I(X;W)), taken in part: the log encoder moves by a fraction that is halved until the objective
    does not rise.

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

    Derived in: Chapter 1, Propositions 1.13 and 1.14.

    >>> joint = torch.eye(2, dtype=torch.float64) / 2  # the label is the input
    >>> curve = squared_information_bottleneck(joint, torch.tensor([0.5, 1.0], dtype=torch.float64))
    >>> [round(r, 3) for r in curve.rate.tolist()], [round(r, 3) for r in curve.relevance.tolist()]
    ([0.25, 0.5], [0.25, 0.5])
    """
    joint = _require_joint(joint)
    multipliers = _require_betas(multipliers, "multipliers")
    if n_codewords is not None and not 1 <= n_codewords <= joint.shape[0]:
        raise ValueError(f"n_codewords must be from 1 to the number of inputs, {joint.shape[0]}, got {n_codewords}")
    source = _Source(joint)
    weigh = multipliers.to(source.px)
    size = n_codewords or min(len(source.p), len(source.py) + 1)
    random = torch.rand(len(source.p), size, generator=_default(generator), dtype=torch.float64).to(source.p)
    near = source.p @ source.p[source.cover(size)].clamp_min(TINY).log().T  # leans to the nearest of a cover
    log_encoder = (0.1 * random + near.clamp_min(-3)).log_softmax(1).repeat(len(weigh), 1, 1)  # (B, X, K)

    def state(log_encoder):
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
        logits = source._scores(q, beta).transpose(1, 2) + marginal.clamp_min(TINY).log()[:, None, :]
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
    encoder = log_encoder.exp()
    curve = _informations(source, joint, encoder)
    unknown = torch.full_like(curve[0], math.nan)
    return InformationCurve(beta.to(joint), *curve, unknown, ((settled >= 20) | (pace < 1e-6)).to(joint.device))


def annealing_tree(joint, curve):
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

    Derived in: Chapter 1, Corollary 1.12.

    >>> joint = torch.tensor([[8, 1, 1], [8, 1, 1], [1, 7, 2], [1, 2, 7.0]], dtype=torch.float64) / 40
    >>> curve = information_bottleneck(joint, torch.logspace(0, 1.5, 30, dtype=torch.float64))
    >>> leaves, codeword, joined = annealing_tree(joint, curve)
    >>> len(leaves), joined[1, 2].item() > joined[0, 1].item()  # the two mixed rows stay together longest
    (3, True)
    """
    px = _require_joint(joint).sum(1)
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


_COVER = 256  # the finest code of a problem with more inputs starts from a cover of this many of them
_SEARCH_ROWS = 256  # single inputs from which a missing codeword is searched
_CALM = 3  # rounds in a row that change next to nothing, after which the search ends
_NEW = 64  # the most codewords added to a code in one round
_CACHE = 1 << 19  # numbers in the largest tensor of a group of betas on a CPU: 2 MB
_CHUNK = 1 << 24  # numbers held at once in the largest tensor: 128 MB


class _Source:
    """p(x) and p(y|x) in float64, without the inputs of probability zero and with equal rows p(y|x) merged."""

    def __init__(self, joint):
        joint = joint.detach()
        joint = (joint.cpu() if joint.device.type == "mps" else joint).double()
        self.columns = joint.sum(0) > 0
        self.rows = joint.sum(1) > 0
        px = joint.sum(1)[self.rows] / joint.sum()
        p = joint[self.rows][:, self.columns]
        p = p / p.sum(1, keepdim=True)
        self.p, self.where = torch.unique(p, dim=0, return_inverse=True)  # W need not tell equal rows apart
        self.px = torch.zeros(len(self.p), dtype=px.dtype, device=px.device).index_add_(0, self.where, px)
        self.py = self.px @ self.p
        self.negentropy = torch.special.xlogy(self.p, self.p).sum(1)  # (X,): sum_y p(y|x) log p(y|x)
        self.lifted = torch.cat([self.p, torch.ones_like(self.px)[:, None], self.negentropy[:, None]], 1)

    def correlation(self):
        """C of the local threshold, (Y, Y)."""
        centred = (self.p - self.py) / self.py.sqrt()
        return (centred.T * self.px) @ centred

    def singular_predictions(self):
        """Predictions near p_Y, to both sides along the two leading directions of C."""
        directions = torch.linalg.eigh(self.correlation()).eigenvectors[:, -2:].T * self.py.sqrt()
        reach = (self.py / directions.abs().clamp_min(TINY)).amin(1, keepdim=True)  # stays in the simplex
        steps = torch.cat([directions * reach * s for s in (-0.9, -0.3, -0.03, 0.03, 0.3, 0.9)])
        return self.py + steps

    def cover(self, n):
        """Indices of n inputs, each the farthest from those before it (in Hellinger distance), the first from p_Y."""
        if n >= len(self.p):
            return torch.arange(len(self.p), device=self.p.device)
        root = self.p.sqrt()
        similarity, chosen = root @ self.py.sqrt(), []
        for _ in range(n):
            chosen.append(similarity.argmin())
            similarity = torch.maximum(similarity, root @ root[chosen[-1]])
        return torch.stack(chosen)

    def search_points(self, n, generator, extra=None):
        """Predictions to search from: p_Y, a cover by single inputs, n random mixtures of them; (S, Y)."""
        single = self.p[self.cover(n)]
        mass = -torch.rand(n, len(single), generator=generator, dtype=torch.float64).log().to(single)
        mixtures = (mass**3 / (mass**3).sum(1, keepdim=True)) @ single  # cubed: a few inputs lead each mixture
        return torch.cat([self.py[None], single, mixtures] + ([] if extra is None else [extra]))

    def ratio(self, r):
        """KL(r || p_X) / KL(r_Y || p_Y) for laws r in the columns of an (X, S) tensor; infinite where r is p_X."""
        above = _divergence(r, self.px[:, None])
        below = _divergence(self.p.T @ r, self.py[:, None])
        return torch.where(below > 1e-9, above / below.clamp_min(1e-9), math.inf)

    def step(self, weight, q, beta):
        """Phi of the codes (B, K), (B, K, Y), and their images under Blahut and Arimoto's step.

        The (B, K, X) tensor decides the time, so it is visited as seldom as may be: log weights and p log p ride along
        in the first product, weights and centroids come out of one second product.
        """
        logs = [q.clamp_min(TINY).log() * beta[:, None, None], weight.clamp_min(TINY).log()[:, :, None]]
        logs = torch.cat([*logs, -beta[:, None, None].expand(*weight.shape, 1)], 2)
        a = torch.matmul(logs, self.lifted.T)  # log p(w) - beta d(x, w)
        top = None
        z = _exp_(a).sum(1)  # (B, X)
        if z.min() < 1e-200:  # codewords far from some input: start again from the nearest
            a = torch.matmul(logs, self.lifted.T)
            top = a.amax(1)
            z = _exp_(a.sub_(top[:, None])).sum(1)
        phi = -((z.log() if top is None else z.log() + top) @ self.px)
        sums = a @ ((self.px / z)[:, :, None] * self.lifted[:, :-1])
        return phi, sums[:, :, -1], sums[:, :, :-1] / sums[:, :, -1:].clamp_min(TINY)

    def log_partition(self, weight, q, beta):
        """log sum_w p(w) exp(beta sum_y p(y|x) log q_w(y)), (B, X)."""
        a = self._scores(q, beta).add_(weight.clamp_min(TINY).log()[:, :, None])
        top = a.amax(1, keepdim=True)
        return (_exp_(a.sub_(top)).sum(1, keepdim=True).log() + top)[:, 0]

    def climb(self, q, log_partition, beta, steps):
        """Raise G(q) by the decoder's half of the step, which cannot lower it; log G (B, S) and q (B, S, Y)."""
        offset = (self.px.log() - log_partition)[:, None, :]
        for left in range(steps, -1, -1):
            terms = self._scores(q, beta).add_(offset)
            top = terms.amax(2, keepdim=True)
            total = _exp_(terms.sub_(top)).sum(2, keepdim=True)
            if left:
                q = (terms @ self.p) / total
        return (total.log() + top)[:, :, 0], q

    def _scores(self, q, beta):
        return torch.matmul(q.clamp_min(TINY).log() * beta[:, None, None], self.p.T)


def _exp_(a):
    """exp in place, floored at 1e-260: numbers below float64's normal range make everything ten times slower."""
    return a.clamp_min_(-600).exp_()


def _divergence(r, p):
    """KL(r || p) along the first dimension, accurate for r close to p."""
    u = r / p - 1
    return (p * (torch.where(u > -1, (1 + u) * torch.log1p(u.clamp_min(-1 + 1e-16)), 0.0) - u)).sum(0)


@dataclass
class _Code:
    """A code on its way: weights (K,), predictions (K, Y), what the certificate would add, Phi, gap, calm rounds."""

    weight: torch.Tensor
    q: torch.Tensor
    new_weight: torch.Tensor
    new_q: torch.Tensor
    phi: float = math.inf
    gap: float = math.inf
    calm: int = 0


def _solve(source, beta, search, tolerance, max_rounds, cover):
    """Codes for an increasing tensor of betas, with as many codewords as are needed."""
    q = source.p[source.cover(cover)]
    nearest = (source.p.sqrt() @ q.sqrt().T).argmax(1)
    weight = torch.zeros(len(q)).to(q).index_add_(0, nearest, source.px)
    weight, q = weight.expand(len(beta), -1), q.expand(len(beta), -1, -1)
    for _ in range(16):
        _, weight, q = source.step(weight, q, beta)
    codes = [_Code(weight[b], q[b], weight[b, :0], q[b, :0]) for b in range(len(beta))]
    active = list(range(len(beta)))
    for round_ in range(max_rounds):
        for b in active:  # codes that have met differ by rounding, but at first they are still on their way
            codes[b] = _tidy(codes[b], (1e-3 if round_ == 0 else 1e-7) / beta[b])
        for group in _by_size(source, active, codes):
            weight, q = _pad([codes[b] for b in group])
            weight, q, phi = _accelerate(source, weight, q, beta[group], 10 if round_ == 0 else 30, tolerance / 1e4)
            if round_ == 0:  # nothing is missing from the finest code yet
                for i, b in enumerate(group):
                    codes[b] = _Code(weight[i], q[i], weight[i, :0], q[i, :0], phi[i].item())
                continue
            gap, new_weight, new_q = _missing(
                source, weight, q, beta[group], search, [_neighbours(codes, b) for b in group], tolerance
            )
            for i, b in enumerate(group):
                fell = codes[b].phi - phi[i].item()
                calm = codes[b].calm + 1 if fell <= tolerance / 20 else 0
                certified = min(gap[i].item(), codes[b].gap - fell)  # what bounds the optimum once, bounds it always
                codes[b] = _Code(weight[i], q[i], new_weight[i], new_q[i], phi[i].item(), certified, calm)
        active = [b for b in active if codes[b].gap > tolerance and codes[b].calm < _CALM]
        if not active:
            break
    return _exchange(source, beta, codes, search, tolerance)


def _exchange(source, beta, codes, search, tolerance):
    """Codes that are not certified try those of the betas on both sides, and all try the trivial code."""
    information = (source.px @ source.negentropy - torch.special.xlogy(source.py, source.py).sum()).item()
    old = list(codes)
    for shift in (-1, 1):
        wanting = [b for b, code in enumerate(old) if code.gap > tolerance and 0 <= b + shift < len(old)]
        for group in _by_size(source, wanting, old):
            weight, q = _pad([old[b + shift] for b in group])
            weight, q, phi = _accelerate(source, weight, q, beta[group], 60)
            for i, b in enumerate(group):
                if phi[i] < codes[b].phi:
                    gain = codes[b].phi - phi[i].item()
                    codes[b] = replace(codes[b], weight=weight[i], q=q[i], phi=phi[i].item(), gap=codes[b].gap - gain)
    for b, code in enumerate(codes):
        trivial = beta[b].item() * information
        if code.phi >= trivial - 1e-13:
            codes[b] = replace(code, weight=source.px.new_ones(1), q=source.py[None], phi=trivial)
    return [replace(code, gap=max(code.gap, 0.0)) for code in codes]


def _by_size(source, active, codes):
    """Groups of betas with codes of similar size (so that padding wastes little) that fit the processor's cache."""
    groups = {}
    for b in active:
        groups.setdefault(round(math.log2(len(codes[b].weight))), []).append(b)
    for group in groups.values():
        size = max(len(codes[b].weight) for b in group) * len(source.p)
        count = max(1, (_CHUNK if source.p.is_cuda else _CACHE) // size)
        yield from (group[i : i + count] for i in range(0, len(group), count))


def _neighbours(codes, b):
    """The heaviest codewords of the betas on both sides, (16, Y) each."""
    near = [codes[c] for c in (b - 1, b + 1) if 0 <= c < len(codes)] or [codes[b]]
    return torch.cat([code.q[:16] for code in near])


def _pad(codes):
    """Stack codes of different size: unused codewords have weight zero and repeat the first prediction."""
    size = max(len(code.weight) for code in codes)
    weights = [torch.nn.functional.pad(code.weight, (0, size - len(code.weight))) for code in codes]
    return torch.stack(weights), _stack([code.q for code in codes])


def _stack(predictions):
    size = max(len(q) for q in predictions)
    return torch.stack([torch.cat([q, q[:1].expand(size - len(q), -1)]) for q in predictions])


def _tidy(code, reach, floor=1e-9):
    """Add what is missing, join codewords within squared distance ``reach`` of a heavier one, drop the lightest.

    The certificate brings back what was needed.
    """
    weight = torch.cat([code.weight * (1 - code.new_weight.sum()), code.new_weight])
    order = weight.argsort(descending=True)
    weight, q = weight[order], torch.cat([code.q, code.new_q])[order]
    root = q.sqrt()
    close = (2 - 2 * root @ root.T < reach).cpu()
    into, free = torch.arange(len(weight)), torch.ones(len(weight), dtype=torch.bool)
    for k in close.triu(1).any(1).nonzero().flatten().tolist():
        if free[k]:
            joined = close[k] & free
            into[joined] = k
            free &= ~joined
    into = into.to(q.device)
    total = torch.zeros_like(weight).index_add_(0, into, weight)
    q = torch.zeros_like(q).index_add_(0, into, q * weight[:, None])
    keep = total > floor
    weight, q = total[keep] / total[keep].sum(), q[keep] / total[keep][:, None]
    return replace(code, weight=weight, q=q, new_weight=weight[:0], new_q=q[:0])


def _accelerate(source, weight, q, beta, steps, enough=0.0, memory=8):
    """Blahut and Arimoto's step, extrapolated by Anderson's method wherever that does not raise Phi."""
    size = (*weight.shape[1:], 1 + q.shape[2])
    used = weight > 0

    def pack(weight, q):
        logs = torch.cat([torch.where(used, weight, 1.0)[:, :, None], q], 2).clamp_min(TINY).log()
        return logs.reshape(len(beta), -1)

    def unpack(theta):
        logs = theta.view(-1, *size)
        weight = torch.where(used, logs[:, :, 0], -math.inf).softmax(1)
        return weight, logs[:, :, 1:].softmax(2)

    theta = safe = pack(weight, q)
    # Residuals are weighed by sqrt(p(w)) and sqrt(p(w) q(y)), so that codewords nobody uses do not count.
    scale = torch.cat([weight.sqrt()[:, :, None], (weight[:, :, None] * q).sqrt()], 2).reshape(len(beta), -1)
    moves = theta.new_zeros(len(beta), memory, theta.shape[1])  # changes of the weighed residual, the last few
    images = torch.zeros_like(moves)  # and of the image
    gram = torch.zeros(len(beta), memory, memory).to(theta)
    eye = torch.eye(memory).to(theta)
    least = torch.full_like(beta, math.inf)
    last_residual = last_image = theta
    mark = least
    for iteration in range(steps):
        phi, weight, q = source.step(*unpack(theta), beta)
        worse = phi > least + 1e-13
        least = torch.where(worse, least, phi)
        if iteration % 5 == 4:
            if (mark - least).max() <= enough:
                break
            mark = least
        image = pack(weight, q)
        residual = (image - theta) * scale
        if iteration > 0:
            slot = iteration % memory
            moves[:, slot] = (residual - last_residual).masked_fill_(worse[:, None], 0)
            images[:, slot] = (image - last_image).masked_fill_(worse[:, None], 0)
            gram[:, slot] = gram[:, :, slot] = (moves @ moves[:, slot, :, None])[:, :, 0]
        last_residual, last_image = residual, image
        ridge = 1e-10 * gram.diagonal(dim1=1, dim2=2).sum(1) + TINY
        mix = torch.linalg.solve(gram + ridge[:, None, None] * eye, moves @ residual[:, :, None])
        theta = image - (mix.transpose(1, 2) @ images)[:, 0]
        theta = torch.where(worse[:, None], safe, theta)
        safe = torch.where(worse[:, None], safe, image)
    return *unpack(safe), least


def _missing(source, weight, q, beta, search, hints, tolerance):
    """Certified gap (B,), and the codewords that would lower Phi with the weights that a Newton step gives them."""
    log_partition = source.log_partition(weight, q, beta)
    shared = search.expand(len(beta), -1, -1)
    g, points = source.climb(torch.cat([shared, _stack(hints)], 1), log_partition, beta, 1)
    g, points = _top(g, points, 32)
    g, points = source.climb(torch.cat([points, q], 1), log_partition, beta, 10)
    gap = g.amax(1).clamp_min(0)
    g, points = _top(g, points, _NEW)
    wanted = (g > 0.1 * tolerance) & (gap > tolerance)[:, None]
    change = (source._scores(points, beta) - log_partition[:, None, :]).clamp_max(100).expm1()  # of Z(x), relative
    share = torch.where(wanted, (change @ source.px) / (change.square() @ source.px).clamp_min(TINY), 0)
    total = (share[:, None, :] @ change)[:, 0]  # (B, X), then a Newton step along it
    share = share * ((total @ source.px) / (total.square() @ source.px).clamp_min(TINY)).clamp_min(0)[:, None]
    return gap, share * (0.5 / share.sum(1, keepdim=True).clamp_min(0.5)), points


def _top(g, points, n):
    lead = g.topk(min(n, g.shape[1]), 1).indices
    return g.gather(1, lead), points.gather(1, lead[:, :, None].expand(-1, -1, points.shape[2]))


def _restrict(source, beta, codes, size, sweeps=4):
    """Codes of at most ``size`` codewords: the cheapest pairs joined, then exchanged between neighbouring betas."""
    weight, q = _pad([_join_pairs(code, size) for code in codes])
    weight, q, phi = _accelerate(source, weight, q, beta, 100, 1e-11)
    for _ in range(sweeps):
        for shift in (1, -1):
            other = (torch.arange(len(beta), device=beta.device) + shift).clamp(0, len(beta) - 1)
            trial = _accelerate(source, weight[other], q[other], beta, 30, 1e-11)
            better = trial[2] < phi
            weight = torch.where(better[:, None], trial[0], weight)
            q = torch.where(better[:, None, None], trial[1], q)
            phi = torch.where(better, trial[2], phi)
    before = phi
    weight, q, phi = _accelerate(source, weight, q, beta, 200, 1e-11)
    return weight, q, before - phi


def _join_pairs(code, size):
    """Agglomerate: the pair whose union loses least I(W;Y) becomes one codeword, until ``size`` are left."""
    weight, q = code.weight[code.weight > 0], code.q[code.weight > 0]

    def loss(w, p):  # of joining codeword (w, p) to each of all
        both = w + weight
        mean = (w * p + weight[:, None] * q) / both[:, None]
        entropy = -torch.special.xlogy(mean, mean).sum(1) * both
        return entropy + w * torch.special.xlogy(p, p).sum() + weight * torch.special.xlogy(q, q).sum(1)

    if len(weight) > size:
        cost = torch.stack([loss(w, p) for w, p in zip(weight, q, strict=True)])
        cost.fill_diagonal_(math.inf)
    while len(weight) > size:
        i, j = divmod(cost.argmin().item(), len(weight))
        q[i] = (weight[i] * q[i] + weight[j] * q[j]) / (weight[i] + weight[j])
        weight[i] += weight[j]
        keep = torch.arange(len(weight), device=weight.device) != j
        weight, q, cost, i = weight[keep], q[keep], cost[keep][:, keep], i - (i > j)
        cost[i] = cost[:, i] = loss(weight[i], q[i])
        cost[i, i] = math.inf
    return replace(code, weight=weight, q=q)


def _curve(source, joint, betas, weight, q, gap, converged):
    """The curve of what Blahut and Arimoto's step makes of the codes."""
    parts = []
    for b in range(len(betas)):  # one beta at a time: the encoders of a large problem fit in memory only once
        beta = betas[b : b + 1].to(q)
        weights = torch.where(weight[b] > 0, weight[b].log(), -math.inf)
        encoder = (source._scores(q[b : b + 1], beta)[0] + weights[:, None]).softmax(0).T
        parts.append(_informations(source, joint, encoder[None]))
    parts = (torch.cat(part) for part in zip(*parts, strict=True))
    return InformationCurve(betas.to(joint), *parts, gap.to(joint), converged)


def _informations(source, joint, encoder):
    """Rate, relevance, encoder, decoder, marginal for the inputs as they came, from p(w|x) of the distinct ones."""
    xlogy = torch.special.xlogy
    marginal, order = (source.px @ encoder).sort(descending=True)  # (B, K)
    encoder = encoder.gather(2, order[:, None, :].expand_as(encoder))
    q = (encoder.transpose(1, 2) * source.px) @ source.p / marginal[:, :, None].clamp_min(TINY)
    q = torch.where(marginal[:, :, None] > TINY, q, source.py)  # an unused codeword predicts the marginal
    rate = xlogy(encoder, encoder).sum(2) @ source.px - xlogy(marginal, marginal).sum(1)
    relevance = (marginal * _divergence(q.movedim(2, 0), source.py[:, None, None])).sum(1)
    whole = marginal[:, None, :].repeat(1, len(joint), 1)  # an input of probability zero gets the marginal
    whole[:, source.rows] = encoder[:, source.where]
    decoder = torch.zeros(*q.shape[:2], joint.shape[1]).to(q)
    decoder[:, :, source.columns] = q
    return tuple(t.to(joint) for t in (rate.clamp_min(0), relevance.clamp_min(0), whole, decoder, marginal))


def _default(generator):
    return torch.Generator().manual_seed(0) if generator is None else generator


def _require_joint(joint):
    require_floating("joint", joint, 2, "(X, Y)")
    return require_distribution("joint", joint, (0, 1))


def _require_betas(betas, name="betas"):
    require_floating(name, betas, 1, "(B,)")
    require_finite(name, betas)
    if not (betas > 0).all():
        raise ValueError(f"{name} must be positive, got {betas.min().item():.3g}")
    return betas
