r"""The engine behind :func:`sigreg.rate_distortion.information_bottleneck`: descent, Newton steps, search, certificate.

In the measure :math:`\mu` over predictions q the problem is convex, and one number decides. With
:math:`Z(x) = \int e^{-\beta d(x, q)} \mu(dq)`, put :math:`G(q) = \sum_x p(x) e^{-\beta d(x, q)} / Z(x)`; then
:math:`\Phi(\mu) - \min \Phi \le \log \max_q G(q)`. A solve goes in rounds: Blahut and Arimoto's step, Newton steps for
all weights and words at once, and a search of the simplex for q with G(q) > 1, which join the code as new words.
"""

import math
from typing import NamedTuple

import torch

TINY = 1e-300  # stands for zero inside logarithms; the solver works in float64
FINEST = 1 << 25  # numbers in the largest code to start from: of more than 5800 inputs a cover starts, the search adds
NEWTON = 3000  # inputs up to which Newton's step, with its (X, X) matrix, is worth it
WORK = 1e12  # most multiplications for one beta, about: a minute or two on one core; then the gap stays what it is
CHUNK = 1 << 19  # numbers in the largest temporary of a search on a CPU: 4 MB, which stays in its cache
CHUNK_CUDA = 1 << 25


class Source:
    """p(x) and p(y|x) in float64, without the inputs of probability zero and with equal rows p(y|x) merged."""

    def __init__(self, joint):
        joint = joint.detach()
        joint = (joint.cpu() if joint.device.type == "mps" else joint).double()
        self.columns = joint.sum(0) > 0
        self.rows = joint.sum(1) > 0
        px = joint.sum(1)[self.rows] / joint.sum()
        p = joint[self.rows][:, self.columns]
        p = p / p.sum(1, keepdim=True)
        # W need not tell equal rows apart. Rows of different scale that were equal differ by rounding now.
        _, self.where = torch.unique((p * 1e15).round(), dim=0, return_inverse=True)
        n = int(self.where.max()) + 1
        self.px = px.new_zeros(n).index_add_(0, self.where, px)
        p = p.new_zeros(n, p.shape[1]).index_add_(0, self.where, p * (px / self.px[self.where])[:, None])
        self.p = p / p.sum(1, keepdim=True)
        self.py = self.px @ self.p
        self.negentropy = torch.special.xlogy(self.p, self.p).sum(1)  # (X,): sum_y p(y|x) log p(y|x)
        self.information = (self.px @ self.negentropy - torch.special.xlogy(self.py, self.py).sum()).item()

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

    def mixtures(self, n, generator):
        """Predictions from which to search besides the inputs: p_Y and n random mixtures of few inputs; (n + 1, Y)."""
        single = self.p[self.cover(min(n, 256))]
        mass = -torch.rand(n, len(single), generator=generator, dtype=torch.float64).log().to(single)
        mixtures = (mass**3 / (mass**3).sum(1, keepdim=True)) @ single  # cubed: a few inputs lead each mixture
        return torch.cat([self.py[None], mixtures])

    def ratio(self, r):
        """KL(r || p_X) / KL(r_Y || p_Y) for laws r in the columns of an (X, S) tensor; infinite where r is p_X."""
        above = divergence(r, self.px[:, None])
        below = divergence(self.p.T @ r, self.py[:, None])
        return torch.where(below > 1e-9, above / below.clamp_min(1e-9), math.inf)

    def inside(self, q, beta):
        """q moved off the faces of the simplex, which no iteration can leave, by too little to be felt."""
        share = 1e-3 * min(1e-3, 1 / beta)
        return (1 - share) * q + share * self.py

    def chunks(self, q):
        """q (S, Y) in parts whose (S, X) temporaries stay small."""
        return q.split(max(1, (CHUNK_CUDA if q.is_cuda else CHUNK) // len(self.p)))

    def exponents(self, q, beta):
        """-beta d(x, q), shape (..., K, X): minus 1e30 or less where q rules out what x allows."""
        logs = torch.where(q > 0, q.clamp_min(TINY).log(), -1e30)
        return torch.matmul(logs * beta, self.p.T).sub_(self.negentropy * beta)

    def step(self, weight, q, beta):
        """Phi of the codes (..., K), (..., K, Y) and their images under Blahut and Arimoto's step."""
        a = self.exponents(q, beta).add_(torch.where(weight > 0, weight.log(), -math.inf).unsqueeze(-1))
        top = a.amax(-2, keepdim=True)
        a = exp_(a.sub_(top))
        z = a.sum(-2, keepdim=True)
        phi = -((z.log() + top).squeeze(-2) @ self.px)
        a = a.mul_(self.px / z)  # p(x, w)
        weight = a.sum(-1)
        q = torch.matmul(a, self.p)
        return phi, weight / weight.sum(-1, keepdim=True), q / q.sum(-1, keepdim=True).clamp_min(TINY)

    def second_moments(self, terms):
        """sum_x terms(w, x) p(y|x) p(y'|x), (K, Y, Y)."""
        total, inputs = 0.0, max(1, CHUNK // self.p.shape[1] ** 2)
        for part, p in zip(terms.split(inputs, 1), self.p.split(inputs), strict=True):
            total = total + part @ (p[:, :, None] * p[:, None, :]).flatten(1)
        return total.view(len(terms), *self.p.shape[1:] * 2)

    def rate_and_distortion(self, weight, q, beta):
        """The two terms of Phi = R + beta D for a code, as numbers; R + b D bounds min Phi at every other b."""
        a = self.exponents(q, beta)
        log_z = (a + weight.log()[:, None]).logsumexp(0)
        encoder = (a + weight.log()[:, None] - log_z).exp()
        distortion = ((encoder * (-a / beta)).nan_to_num(0).sum(0) @ self.px).item()
        return -(log_z @ self.px).item() - beta * distortion, distortion

    def log_partition(self, weight, q, beta):
        """log Z(x) = log sum_w p(w) exp(-beta d(x, q_w)), (X,)."""
        return torch.cat([
            (self.exponents(part, beta) + share.log()[:, None]).logsumexp(0, keepdim=True)
            for part, share in zip(self.chunks(q), weight.split(len(self.chunks(q)[0])), strict=True)
        ]).logsumexp(0)

    def log_lambda(self, weight, q, beta):
        """log p(x) / Z(x), (X,): the multipliers of the dual problem."""
        return self.px.log() - self.log_partition(weight, q, beta)

    def log_g(self, q, log_lambda, beta):
        """log G(q), (S,), for the multipliers lambda(x) = p(x) / Z(x)."""
        return torch.cat([(self.exponents(part, beta) + log_lambda).logsumexp(1) for part in self.chunks(q)])

    def climb(self, q, log_lambda, beta, steps):
        """Raise G(q) by the decoder's half of the step, which cannot lower it; log G (S,) and q (S, Y)."""
        heights, tops = [], []
        for part in self.chunks(q):
            for left in range(steps, -1, -1):
                terms = self.exponents(part, beta).add_(log_lambda)
                top = terms.amax(1, keepdim=True)
                total = exp_(terms.sub_(top)).sum(1, keepdim=True)
                if left:
                    part = (terms @ self.p) / total
            heights.append((total.log() + top)[:, 0])
            tops.append(part)
        return torch.cat(heights), torch.cat(tops)


def exp_(a):
    """exp in place, floored at 1e-260: numbers below float64's normal range make everything ten times slower."""
    return a.clamp_min_(-600).exp_()


def divergence(r, p):
    """KL(r || p) along the first dimension, accurate for r close to p."""
    u = r / p - 1
    return (p * (torch.where(u > -1, (1 + u) * torch.log1p(u.clamp_min(-1 + 1e-16)), 0.0) - u)).sum(0)


class Code(NamedTuple):
    """Weights (K,) and words (K, Y) of a code, and a lower bound on min Phi."""

    weight: torch.Tensor
    q: torch.Tensor
    bound: float


def solve(source, betas, starts, tolerance, relative, max_rounds, size=None):
    """Codes for a falling sequence of betas, each started from the one before, with as many words as are needed."""
    size = size or max(256, FINEST // len(source.p))
    codes, (weight, q) = [], finest(source, betas[0], size)
    for beta in betas:
        for _ in range(8 if codes else 16):
            _, weight, q = source.step(weight, q, beta)
        limit = tolerance + relative * beta * source.information
        codes.append(solve_one(source, beta, weight, q, starts, limit, max_rounds))
        weight, q = codes[-1].weight, source.inside(codes[-1].q, beta)
    return codes


def cross_check(source, betas, codes, starts, tolerance, relative, max_rounds):
    """Codes that another beta's code refutes, by a Lagrangian below their bound, are solved again from that code.

    A bound that is refuted once more is thrown away: what no search may claim is that min Phi is above Phi of a code.
    """
    for last in (False, True):
        lines = [source.rate_and_distortion(code.weight, code.q, beta) for beta, code in zip(betas, codes, strict=True)]
        rate, distortion = torch.tensor(lines, dtype=torch.float64).T
        for b, beta in enumerate(betas):
            value, best = (rate + beta * distortion).min(0)
            if value >= codes[b].bound - 1e-13 * (1 + beta):
                continue
            if last:
                codes[b] = codes[b]._replace(bound=min(1.0, beta) * source.information - 1e-14 * (1 + beta))
            else:
                limit = tolerance + relative * beta * source.information
                inside = source.inside(codes[best].q, beta)
                codes[b] = solve_one(source, beta, codes[best].weight, inside, starts, limit, max_rounds)
    return codes


def finest(source, beta, size):
    """One word for each input, or for each of a cover, weighted by the inputs nearest to it."""
    q = source.p[source.cover(size)]
    weight = source.px
    if len(q) < len(source.p):
        nearest = torch.cat([(part.sqrt() @ q.sqrt().T).argmax(1) for part in source.chunks(source.p)])
        weight = torch.zeros_like(q[:, 0]).index_add_(0, nearest, source.px)
    return weight, source.inside(q, beta)


def solve_one(source, beta, weight, q, starts, limit, max_rounds):
    """Rounds of descent and search at one beta, until no G above exp(limit) is found, or for as long as allowed.

    A round with K words for X inputs takes about 100 K^2 X multiplications, most of them for the weights.
    """
    spent = 0.0
    weight, q, phi = descend(source, *tidy(weight, q, 1e-3 / beta), beta, limit / 30)
    for round_ in range(max_rounds):
        spent += 100 * len(weight) ** 2 * len(source.p)
        last = round_ == max_rounds - 1 or spent > WORK
        log_lambda, cost = capped(source, source.log_lambda(weight, q, beta), limit / 20)
        g, tops = search(source, torch.cat([source.inside(source.p, beta), q]), log_lambda, beta, False, limit / 3000)
        if cost + g.max() <= limit or last:
            g, tops = certify(source, q, tops, starts, log_lambda, beta, limit / 3000)
            if cost + g.max() <= limit or last:
                break
        wanted = g > limit / 10
        weight, q = torch.cat([weight, torch.zeros_like(g[wanted])]), torch.cat([q, tops[wanted]])
        weight, q = tidy(*reweigh(source, weight, q, beta, limit / 100), 1e-9 / beta)
        phi = source.step(weight, q, beta)[0].item()
        # Words on one bump become one, which may raise Phi a little; Newton's steps then lower it by far more, or fail.
        fewer = descend(source, *tidy(weight, q, 1e-2 / beta), beta, limit / 30)
        if fewer[2] < phi + 1e-11:
            weight, q, phi = fewer
    # No Lagrangian is below (1 - beta) I(X;Y) or below zero, whatever the search may have missed.
    sure = min(1.0, beta) * source.information
    return Code(weight, q, max(phi - cost - max(g.max().item(), 0.0), sure - 1e-14 * (1 + beta)))


def capped(source, log_lambda, budget):
    """Multipliers no larger than they need be, and what the bound pays for that.

    Any lambda bounds: min Phi >= sum p log(lambda / p) - log max_q sum lambda e^(-beta d). The best has lambda <= 1.
    An input so rare that no code owes it a word would still raise G to any height near itself; it is worth next to
    nothing in the first sum, so its lambda may as well be small. All caps together cost about ``budget``.
    """
    cap = -(budget / (len(source.px) * source.px)).clamp_max(30)
    lower = torch.minimum(log_lambda, cap)
    return lower, (source.px @ (log_lambda - lower)).item()


def search(source, points, log_lambda, beta, patient, still):
    """The peaks of log G that are reached from ``points``.

    All points climb by the plain step, those that follow a higher neighbour are dropped, the others take Newton steps.
    """
    g, tops = source.climb(points, log_lambda, beta, 6 if patient else 2)
    return summit(source, *peaks(g, tops, beta), log_lambda, beta, 60 if patient else 6, still)


def certify(source, q, tops, starts, log_lambda, beta, still):
    """The same from the tops of a quick search from all inputs and words, with ``starts``, and patiently.

    The inputs and words are looked at as they are, too: on the faces of the simplex if that is where they are.
    """
    points = torch.cat([tops, starts, source.inside(between(q, beta), beta)])
    g, tops = search(source, points, log_lambda, beta, True, still)
    g[0] = torch.maximum(g[0], source.log_g(torch.cat([source.p, q]), log_lambda, beta).max())
    return g, tops


def apart(q):
    """Squared Hellinger distances of all pairs of predictions (S, Y): (S, S)."""
    root = q.sqrt()
    return 2 - 2 * root @ root.T


def between(q, beta, most=8, reach=6.0):
    """The middle of each word and its nearest others, (S, Y): a peak may stand there that no word climbs to."""
    gap, other = apart(q).topk(min(most + 1, len(q)), largest=False)
    word = torch.arange(len(q), device=q.device)[:, None].expand_as(other)
    near = (gap < reach / beta) & (word != other)
    pairs = torch.stack([word[near], other[near]], 1).sort(1).values.unique(dim=0)
    return q[pairs].mean(1)


def tidy(weight, q, reach, floor=1e-14):
    """Join words within squared Hellinger distance ``reach`` of a heavier one and drop the lightest."""
    order = weight.argsort(descending=True, stable=True)
    weight, q = weight[order], q[order]
    near = (apart(q) < reach).tril(-1)
    into = torch.where(near.any(1), near.int().argmax(1), torch.arange(len(q), device=q.device))
    into = into[into]
    total = torch.zeros_like(weight).index_add_(0, into, weight)
    q = torch.zeros_like(q).index_add_(0, into, q * weight[:, None])
    keep = total > floor
    return total[keep] / total[keep].sum(), q[keep] / total[keep][:, None]


def peaks(g, q, beta, *others, most=1024):
    """Of points with heights g, those with no higher one close to them, in units of the width of a bump."""
    lead = g.topk(min(len(g), 4 * most)).indices
    keep = lead[~(apart(q[lead]) < 0.02 / beta).tril(-1).any(1)][:most]
    return tuple(part[keep] for part in (g, q, *others))


def alike(terms, neglect=1e-5):
    """Words in groups that reach about as many inputs, with those inputs (K, S), or None for all where most count.

    So no group is padded to the reach of the widest word, and wide words are dealt with without any indices.
    """
    inputs = terms.shape[1]
    reach, order = (terms > neglect).sum(1).sort(descending=True)
    wide = int((reach > 0.4 * inputs).sum())
    for part in order[:wide].split(max(1, (1 << 22) // inputs**2 + (1 << 18) // inputs)):
        if wide:
            yield part, None
    reach, begin = reach.tolist(), wide
    while begin < len(order):
        end = begin + max(1, (1 << 21) // max(1, reach[begin]) ** 2)
        while end > begin + 1 and reach[min(end, len(order)) - 1] < reach[begin] / 2:
            end = begin + (end - begin + 1) // 2
        yield order[begin:end], terms[order[begin:end]].topk(max(1, reach[begin]), 1).indices
        begin = end


def local_model(source, q, terms, beta, near):
    """Second order of log G at words q, from terms p(x) e^(-beta d(x, q)) / Z(x), shape (K, X), rows of sum one.

    With q' = q + sqrt(q) v, log G rises by beta (m.v - v.A v / 2), where A = 1 - beta C and C is the correlation matrix
    of the cluster. Returns for the inputs ``near`` (K, S) that count, or for all, F = terms (p / sqrt(q) - sqrt(q)),
    (K, S, Y), and |A|^-1 F^T, (K, Y, S); |A|^-1 m, (K, Y); the rise that the model promises, infinite where q is no
    peak; and how far to both sides of q the peaks then are, about, (K, Y), zero elsewhere.
    """
    root = q.clamp_min(1e-30).sqrt()
    p, r = (source.p, terms) if near is None else (source.p[near], terms.gather(1, near))
    f = p / root[:, None] - root[:, None]
    weighted = r[:, :, None] * f
    m = (terms @ source.p) / root - root
    inverse, saddle, fork = inverse_bend(weighted.mT @ f, beta)
    lift = (inverse @ m[:, :, None])[:, :, 0]
    rise = torch.where(saddle, math.inf, beta / 2 * (m * lift).sum(1))
    return weighted, inverse @ weighted.mT, lift, rise, fork


def inverse_bend(c, beta):
    """|A|^-1 for A = 1 - beta C, (K, Y, Y); where A is not positive; the fork there, (K, Y).

    There q is no peak: a step climbs along the wrong bends, as steeply as it would descend. If two inputs of the same
    weight are at fault, log G is log cosh less a parabola, and the peaks are sqrt(3 bend / beta) to both sides of q.
    """
    eye = torch.eye(c.shape[1]).to(c)
    a = eye - beta * c
    factor, failed = torch.linalg.cholesky_ex(a + 1e-7 * eye)
    saddle = failed > 0
    inverse = torch.cholesky_solve(eye.expand_as(a), torch.where(saddle[:, None, None], eye, factor))
    fork = torch.zeros_like(c[:, 0])
    if saddle.any():
        bend, axes = torch.linalg.eigh(a[saddle])
        inverse[saddle] = axes / bend.abs().clamp_min(1e-6)[:, None, :] @ axes.mT
        fork[saddle] = axes[:, :, 0] * (3 / beta * bend[:, :1].abs()).sqrt()
    return inverse, saddle, fork


def moved(q, v, beta):
    """q moved by v in units of sqrt(q), at most about the width of a bump, without leaving the simplex."""
    v = v / (v.norm(dim=1, keepdim=True) * beta**0.5).clamp_min(1)
    q = q * (v / q.clamp_min(1e-30).sqrt()).clamp(-2, 2).exp()
    return q / q.sum(1, keepdim=True)


def summit(source, g, q, log_lambda, beta, steps, still):
    """Steps up log G by Newton or by the plain step, whichever climbs higher, until none climbs by ``still``.

    Points that come close to a higher one on the way are dropped: most of them share few peaks.
    """
    live = source.climb(q, log_lambda, beta, 1)[0] - g > still
    for _ in range(steps):
        if not live.any():
            break
        for part in live.nonzero().flatten().split(len(source.chunks(q)[0])):
            heights, tops = ascend(source, q[part], log_lambda, beta)
            rise = heights - g[part]
            better = part[rise > 0]
            g[better], q[better], live[part] = heights[rise > 0], tops[rise > 0], rise > still
        g, q, live = peaks(g, q, beta, live)
    return g, q


def ascend(source, q, log_lambda, beta):
    """The highest of the plain step, Newton's, and a quarter of Newton's, from each of the points q; log G there."""
    terms = (source.exponents(q, beta) + log_lambda).softmax(1)
    image, root = terms @ source.p, q.clamp_min(1e-30).sqrt()
    m = image / root
    c = source.second_moments(terms) / (root[:, :, None] * root[:, None, :])
    c = c + (root - m)[:, :, None] * root[:, None, :] - root[:, :, None] * m[:, None, :]
    v = (inverse_bend(c, beta)[0] @ (m - root)[:, :, None])[:, :, 0]
    trials = torch.stack([image, moved(q, v, beta), moved(q, v / 4, beta)])
    heights, which = source.log_g(trials.flatten(0, 1), log_lambda, beta).view(3, -1).max(0)
    return heights, trials[which, torch.arange(len(q), device=q.device)]


def reweigh(source, weight, q, beta, tolerance, steps=60):
    """The best weights for given words, a convex problem, and the words that they use."""
    e = exp_(source.exponents(q, beta))  # (K, X)

    def slope(w):
        z = w @ e
        half = e * (source.px.sqrt() / z)
        return 1 - half @ source.px.sqrt(), half @ half.T

    w, s = interior(slope, 0.9 * weight + 0.1 / len(weight), 0.1, tolerance, steps)
    keep = w > 1e-3 * s
    return w[keep] / w[keep].sum(), q[keep]


def interior(slope, w, least, tolerance, steps):
    """Minimise a convex function of w >= 0 by a primal-dual interior-point method; w and the multipliers of w >= 0.

    ``slope`` gives the gradient and the matrix of second derivatives, which may be singular: words overlap.
    """
    s = slope(w)[0].clamp_min(least)
    for _ in range(steps):
        gradient, hessian = slope(w)
        mu = (w @ s).item() / len(w)
        if mu * len(w) < tolerance and gradient.min() > -tolerance:
            break
        hessian.diagonal().add_(s / w)
        aim = 0.1 * mu / w
        factor, failed = torch.linalg.cholesky_ex(hessian)
        if failed:
            break
        dw = torch.cholesky_solve((aim - gradient)[:, None], factor)[:, 0]
        ds = aim - s - s / w * dw
        reach = 0.99 / max(1.0, (-dw / w).max().item(), (-ds / s).max().item())
        w, s = w + reach * dw, s + reach * ds
    return w, s


def descend(source, weight, q, beta, tolerance, steps=8):
    """Newton steps for all weights and words at once, until the words are at peaks of height one; with Phi.

    A step must lower Phi; or, where Phi cannot tell any more because it errs by the square of what G errs by, the
    height of the peaks must be falling.
    """
    if len(source.p) > NEWTON:
        weight, q, phi = accelerate(source, weight[None], q[None], torch.full_like(weight[:1], beta), 40)
        return weight[0], q[0], phi.item()
    phi, least = source.step(weight, q, beta)[0].item(), math.inf
    for _ in range(steps):
        new_weight, v, fork, height = newton(source, weight, q, beta, tolerance)
        if height < tolerance:
            break
        for t, split in ((1.0, fork.norm(dim=1) > (0.02 / beta) ** 0.5), (1.0, None), (0.3, None)):
            if split is not None and not split.any():
                continue
            trial = ((1 - t) * weight + t * new_weight, moved(q, t * v, beta))
            if split is not None:
                half = new_weight * torch.where(split, 0.5, 1.0)
                ends = [moved(q[split], v[split] + side * fork[split], beta) for side in (1, -1)]
                trial[1][split] = ends[0]
                trial = torch.cat([half, half[split]]), torch.cat([trial[1], ends[1]])
            new_phi = source.step(*trial, beta)[0].item()
            if new_phi < phi - 1e-11 or (new_phi < phi + 1e-12 and height < 0.7 * least):
                break
        else:
            break
        phi, least = new_phi, min(least, height)
        keep = trial[0] > 1e-12
        weight, q = trial[0][keep] / trial[0][keep].sum(), trial[1][keep]
    return weight, q, phi


def newton(source, weight, q, beta, tolerance):
    """Newton's step for the conditions G = 1 and slope zero at every word: weights, moves, forks, height of the peaks.

    With peaks below ``tolerance`` no step is needed, and none is made.
    The unknown is u, the relative change of p(x) / Z(x). With words free to follow their peaks it solves a quadratic
    problem: M u = p - c - P w, P^T u <= -log G, w >= 0 with complementary slackness; P holds p(x|w), and M =
    diag p + beta sum_w p(w) F A^-1 F^T. Rows and columns are divided by sqrt(p(x)).
    """
    log_p = source.exponents(q, beta).add_(source.log_lambda(weight, q, beta))
    g = log_p.logsumexp(1)
    terms = (log_p - g[:, None]).exp()
    root, n, share = source.px.sqrt(), len(source.px), beta * weight * g.exp()
    matrix, push = torch.eye(n).to(q).flatten(), torch.zeros(n).to(q)
    lift, fork, rise, models = torch.empty_like(q), torch.empty_like(q), torch.empty_like(weight), []
    for part, near in alike(terms):
        weighted, solved, lift[part], rise[part], fork[part] = local_model(source, q[part], terms[part], beta, near)
        scale = root.expand(1, -1) if near is None else root[near]
        scaled = weighted * share[part, None, None] / scale[:, :, None]
        if near is None:
            flat = scaled.mT.flatten(0, 1)  # (K Y, X)
            matrix.view(n, n).addmm_(flat.T, (solved / root).flatten(0, 1))
            push += flat.T @ lift[part].flatten()
        else:
            block = scaled @ (solved / scale[:, None, :])
            matrix.index_add_(0, (near[:, :, None] * n + near[:, None, :]).flatten(), block.flatten())
            push.index_add_(0, near.flatten(), (scaled @ lift[part, :, None]).flatten())
        models.append((part, near, solved))
    matrix = matrix.view(n, n)
    height = (g + rise).max().item()
    if height < tolerance:
        return weight, lift, fork, height
    columns = (terms / root).T  # (X, K)
    factor, failed = torch.linalg.cholesky_ex((matrix + matrix.T) / 2)
    factor = torch.where(failed > 0, torch.eye(n).to(q), factor)
    solution = torch.cholesky_solve(torch.cat([columns, (root - push)[:, None]], 1), factor)
    gram = columns.T @ solution
    new_weight = quadratic(gram[:, :-1], gram[:, -1] + g, weight)
    u = (solution[:, -1] - solution[:, :-1] @ new_weight) / root
    for part, near, solved in models:
        lift[part] += solved @ u if near is None else (solved @ u[near][:, :, None])[:, :, 0]
    new_weight = new_weight / g.exp()
    return new_weight / new_weight.sum(), lift, fork, height


def quadratic(gram, b, start):
    """w >= 0 with gram w >= b and w (gram w - b) = 0, by pivoting: nearly all words stay in use."""
    used, scale, fewest = torch.ones_like(b, dtype=torch.bool), b.abs().max(), math.inf
    for _ in range(10):
        factor, failed = torch.linalg.cholesky_ex(gram[used][:, used])
        if failed:
            break
        w = torch.zeros_like(b)
        w[used] = torch.cholesky_solve(b[used][:, None], factor)[:, 0]
        slack = gram @ w - b
        if slack[used].abs().max() > 1e-9 * scale:
            break
        wrong = torch.where(used, w < 0, slack < -1e-13 * scale)
        if not wrong.any():
            return w
        if wrong.sum() >= fewest:
            break
        used, fewest = used ^ wrong, wrong.sum()
    w, s = interior(lambda w: (gram @ w - b, gram.clone()), start + 1e-3 * start.mean(), 0.1 * scale, 1e-13 * scale, 40)
    return torch.where(w > 1e-3 * s, w, 0)


def accelerate(source, weight, q, beta, steps, enough=0.0, memory=8):
    """Blahut and Arimoto's step on codes (B, K), (B, K, Y), extrapolated by Anderson's method as long as Phi falls."""
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
        phi, weight, q = source.step(*unpack(theta), beta[:, None, None])
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


def restrict(source, beta, codes, size, sweeps=4):
    """Codes of at most ``size`` words for increasing betas: the cheapest pairs joined, then neighbours exchanged."""
    codes = [join_pairs(code.weight, code.q, size) for code in codes]
    weight = torch.stack([pad(weight, size) for weight, _ in codes])
    q = torch.stack([torch.cat([q, source.py.expand(size - len(q), -1)]) for _, q in codes])
    weight, q, phi = accelerate(source, weight, q, beta, 100, 1e-11)
    for _ in range(sweeps):
        for shift in (1, -1):
            other = (torch.arange(len(beta), device=beta.device) + shift).clamp(0, len(beta) - 1)
            trial = accelerate(source, weight[other], q[other], beta, 30, 1e-11)
            better = trial[2] < phi
            weight = torch.where(better[:, None], trial[0], weight)
            q = torch.where(better[:, None, None], trial[1], q)
            phi = torch.where(better, trial[2], phi)
    before = phi
    weight, q, phi = accelerate(source, weight, q, beta, 200, 1e-11)
    return weight, q, before - phi


def pad(weight, size):
    return torch.nn.functional.pad(weight, (0, size - len(weight)))


def join_pairs(weight, q, size):
    """Agglomerate: the pair whose union loses least I(W;Y) becomes one word, until ``size`` are left."""
    weight, q = weight[weight > 0].clone(), q[weight > 0].clone()

    def loss(w, p):  # of joining word (w, p) to each of all
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
    return weight, q
