r"""The engine behind :func:`sigreg.rate_distortion.information_bottleneck`: descent, Newton steps, search, certificate.

In the measure :math:`\mu` over predictions q the problem is convex, and one number decides. With
:math:`Z(x) = \int e^{-\beta d(x, q)} \mu(dq)`, put :math:`G(q) = \sum_x p(x) e^{-\beta d(x, q)} / Z(x)`; then
:math:`\Phi(\mu) - \min \Phi \le \log \max_q G(q)`. A solve goes in rounds: Blahut and Arimoto's step, Newton steps for
all weights and words at once, and a search of the simplex for q with G(q) > 1, which join the code as new words.
"""

import math
from dataclasses import dataclass

import torch

TINY = 1e-300  # stands for zero inside logarithms; the solver works in float64
FINEST = 4096  # codes of more inputs start from a cover of this many; what they miss, the search adds
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

    def log_partition(self, weight, q, beta):
        """log Z(x) = log sum_w p(w) exp(-beta d(x, q_w)), (X,)."""
        return torch.cat([
            (self.exponents(part, beta) + share.log()[:, None]).logsumexp(0, keepdim=True)
            for part, share in zip(self.chunks(q), weight.split(len(self.chunks(q)[0])), strict=True)
        ]).logsumexp(0)

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
                    part = (terms @ self.p) / total  # noqa: PLW2901
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


@dataclass
class Code:
    """Weights (K,), words (K, Y), Phi, and the highest certified lower bound on min Phi."""

    weight: torch.Tensor
    q: torch.Tensor
    phi: float = math.inf
    bound: float = -math.inf

    @property
    def gap(self):
        return self.phi - self.bound


def finest(source, beta, size=FINEST):
    """One word for each input, or for each of a cover, weighted by the inputs nearest to it."""
    q = source.p[source.cover(size)]
    weight = source.px
    if len(q) < len(source.p):
        nearest = torch.cat([(part.sqrt() @ q.sqrt().T).argmax(1) for part in source.chunks(source.p)])
        weight = torch.zeros_like(q[:, 0]).index_add_(0, nearest, source.px)
    return weight, source.inside(q, beta)


def solve(source, betas, starts, tolerance, relative, max_rounds, size=FINEST):
    """Codes for a falling sequence of betas, each started from the one before, with as many words as are needed."""
    codes, weight, q = [], *finest(source, betas[0], size)
    for beta in betas:
        for _ in range(8 if codes else 16):
            _, weight, q = source.step(weight, q, beta)
        code = solve_one(source, beta, weight, q, starts, tolerance + relative * beta * source.information, max_rounds)
        codes.append(code)
        weight, q = code.weight, source.inside(code.q, beta)
    return codes


def solve_one(source, beta, weight, q, starts, tolerance, max_rounds):
    """Rounds of descent and search at one beta, until the gap is at most ``tolerance``."""
    bound, fine = -math.inf, False
    rows = source.inside(source.p, beta)
    last = math.inf
    for round_ in range(max_rounds):
        if round_ == 0:
            weight, q = tidy(weight, q, 1e-3 / beta)
        weight, q = reweigh(source, weight, q, beta, 1e-12)
        weight, q = tidy(weight, q, 1e-9 / beta)
        phi = source.step(weight, q, beta)[0].item()
        fewer = descend(source, *tidy(weight, q, MERGE / beta), beta, NEWT, tolerance / 10)
        if DEBUG: print(f'     newton from {len(q)} to {len(fewer[1])}, phi {phi} {fewer[2]-phi:.2e}')
        if fewer[2] < phi + 1e-11:
            weight, q, phi = fewer
        log_lambda = source.px.log() - source.log_partition(weight, q, beta)
        begin = torch.cat([rows, q] + ([starts, source.p] if fine else []))
        g, tops = source.climb(begin, log_lambda, beta, 20 if fine else 2)
        g, tops = peaks(g, tops, beta)
        g, tops = summit(source, tops, log_lambda, beta, 60 if fine else ITS)
        top = max(g.max().item(), 0.0)
        if DEBUG: print(f"   {round_} beta {beta:.4g} K {len(q)} phi {phi:.12f} top {top:.2e} n {int((g>tolerance/10).sum())} fine {fine} t {time.process_time()-T0:.2f}")
        bound = max(bound, phi - top)
        if phi - bound <= tolerance:
            if fine:
                break
            fine = True
        wanted = g > tolerance / 10
        if wanted.any():
            q = torch.cat([q, tops[wanted]])
            weight = torch.cat([weight, torch.zeros_like(g[wanted])])
    return Code(weight, q, phi, bound)

DEBUG=False
MERGE=1e-2
NEWT=8
ITS=10
import time
T0=time.process_time()

def tidy(weight, q, reach, floor=1e-14):
    """Join words within squared Hellinger distance ``reach`` of a heavier one and drop the lightest."""
    order = weight.argsort(descending=True, stable=True)
    weight, q = weight[order], q[order]
    root = q.sqrt()
    into = ((2 - 2 * root @ root.T).tril() + torch.ones_like(root @ root.T).triu(1) < reach).int().argmax(1)
    into = into[into]
    total = torch.zeros_like(weight).index_add_(0, into, weight)
    q = torch.zeros_like(q).index_add_(0, into, q * weight[:, None])
    keep = total > floor
    return total[keep] / total[keep].sum(), q[keep] / total[keep][:, None]


def gather(source, weight, q, beta):
    """Words that sit on one bump of G become one word at its peak."""
    log_lambda = source.px.log() - source.log_partition(weight, q, beta)
    _, tops = summit(source, q, log_lambda, beta, 8)
    order = weight.argsort(descending=True, stable=True)
    weight, tops = weight[order], tops[order]
    root = tops.sqrt()
    apart = 2 - 2 * root @ root.T
    into = (apart.tril() + torch.ones_like(apart).triu(1) < 1e-4 / beta).int().argmax(1)
    into = into[into]
    total = torch.zeros_like(weight).index_add_(0, into, weight)
    keep = total > 1e-14
    return total[keep] / total[keep].sum(), tops[keep]


def peaks(g, q, beta, most=512):
    """Of points with heights g, those with no higher one within the width of a bump."""
    lead = g.topk(min(len(g), 4096)).indices
    g, q = g[lead], q[lead]
    root = q.sqrt()
    near = 2 - 2 * root @ root.T < 0.02 / beta
    keep = ~near.tril(-1).any(1)
    return g[keep][:most], q[keep][:most]


def local_model(source, q, terms, beta, damp=0.0, neglect=1e-10):
    """Second order of log G around words: (near, F, A^-1 F^T, A^-1 m) with terms p(x|w) (K, X) normalised.

    In v = (q' - q) / sqrt(q), log G rises by beta (m.v - v.A v / 2), A = 1 - beta C with C the correlation matrix of the
    cluster. Only the inputs that count are kept: ``near`` (K, S).
    """
    size = int((terms > neglect).sum(1).max())
    r, near = terms.topk(size, 1)
    root = q.clamp_min(1e-30).sqrt()[:, None]
    f = source.p[near] / root - root
    weighted = r[:, :, None] * f
    m = weighted.sum(1)
    spread, axes = torch.linalg.eigh(weighted.mT @ f)
    bend = 1 - beta * spread  # negative where the word is no peak: there the step climbs as steeply as it would descend
    bent = axes / (bend.abs().clamp_min(1e-6) + damp)[:, None, :]
    solved = bent @ (axes.mT @ torch.cat([weighted.mT, m[:, :, None]], 2))
    failed = (bend < 0).any(1)
    return near, weighted, solved[:, :, :-1], solved[:, :, -1], m, failed


def moved(q, v, beta):
    """q moved by v in units of sqrt(q), at most about the width of a bump, without leaving the simplex."""
    v = v * (1 / (v.norm(dim=1, keepdim=True) * beta**0.5).clamp_min(1e-30)).clamp_max(1)
    q = q * (v / q.clamp_min(1e-30).sqrt()).clamp(-2, 2).exp()
    return q / q.sum(1, keepdim=True)


def summit(source, q, log_lambda, beta, steps):
    """Newton steps up log G, each kept where it climbs more than the plain step, until none climbs."""
    out_g, out_q = [], []
    for part in source.chunks(q):
        part = part.clone()
        g = source.log_g(part, log_lambda, beta)
        live = torch.arange(len(part), device=q.device)
        for it in range(steps):
            here = part[live]
            terms = (source.exponents(here, beta) + (log_lambda - g[live, None])).exp()
            v = local_model(source, here, terms, beta)[3]
            trials = torch.stack([terms @ source.p, moved(here, v, beta), moved(here, v / 4, beta)])
            heights = source.log_g(trials.flatten(0, 1), log_lambda, beta).view(3, -1)
            new, which = heights.max(0)
            rise = new - g[live]
            up = rise > 0
            part[live[up]] = trials[which, torch.arange(len(live))][up]
            g[live] = torch.maximum(new, g[live])
            live = live[rise > 1e-12]
            if len(live) == 0:
                break
        if DEBUG: print(f"         summit {len(part)} its {it} left {len(live)}")
        out_g.append(g), out_q.append(part)
    return torch.cat(out_g), torch.cat(out_q)


def reweigh(source, weight, q, beta, tolerance, steps=60):
    """The best weights for given words, by an interior-point method: a convex problem, however much words overlap."""
    e = exp_(source.exponents(q, beta))  # (K, X)
    w = 0.9 * weight + 0.1 / len(weight)
    z = w @ e
    s = (1 - e @ (source.px / z)).clamp_min(0.1)
    for it in range(steps):
        slope = 1 - e @ (source.px / z)
        mu = (w @ s).item() / len(w)
        if DEBUG: print(f"       reweigh {it} K {len(w)} phi {-(z.log()@source.px).item():.12f} {-slope.min().item():.2e} mu {mu*len(w):.2e} {time.process_time()-T0:.2f}")
        if mu * len(w) < tolerance and slope.min() > -tolerance:
            break
        half = e * (source.px.sqrt() / z)
        hessian = half @ half.T
        hessian.diagonal().add_(s / w)
        aim = 0.1 * mu / w
        factor, failed = torch.linalg.cholesky_ex(hessian)
        if failed:
            break
        dw = torch.cholesky_solve((aim - slope)[:, None], factor)[:, 0]
        ds = aim - s - s / w * dw
        reach = 0.99 / max(1.0, (-dw / w).max().item() , (-ds / s).max().item())
        w, s = w + reach * dw, s + reach * ds
        z = w @ e
    keep = w > 1e-3 * s
    return w[keep] / w[keep].sum(), q[keep]


def descend(source, weight, q, beta, steps, tolerance):
    """Newton steps for all weights and words, until the words are at peaks of height one.

    A step must lower Phi; where Phi cannot tell any more, because it errs by the square of what G errs by, it must
    lower the height of the peaks. Where neither helps, Blahut and Arimoto's step is taken.
    """
    phi = source.step(weight, q, beta)[0].item()
    least, damp = math.inf, 0.0
    for it in range(steps):
        new_weight, v, height = newton(source, weight, q, beta, damp)
        if DEBUG: print(f"      newton {it} K {len(q)} phi {phi:.14f} height {height:.2e} {time.process_time()-T0:.2f} damp {damp}")
        if height < tolerance and damp == 0:
            break
        for t in (1.0, 0.3):
            trial = ((1 - t) * weight + t * new_weight, moved(q, t * v, beta))
            new_phi = source.step(*trial, beta)[0].item()
            if new_phi < phi - 1e-11 or (new_phi < phi + 1e-12 and height < 0.7 * least):
                break
        else:
            break
        if t == 1: damp = damp / 10 if damp > 1e-3 else 0.0
        least = min(least, height)
        if DEBUG: 
            k=(v.norm(dim=1)*(weight>1e-9)).argmax(); print('       t',t,'fell',phi-new_phi,'max v sqrt b',v.norm(dim=1).max().item()*beta**.5, 'of weight',weight[k].item(),new_weight[k].item(),'min w',new_weight.min().item(),int((new_weight<=0).sum()))
        phi = new_phi
        weight, q = trial
        keep = weight > 1e-12
        weight, q = weight[keep] / weight[keep].sum(), q[keep]
    return weight, q, phi


def newton(source, weight, q, beta, damp=0.0):
    log_z = source.log_partition(weight, q, beta)
    log_p = (source.exponents(q, beta) + (source.px.log() - log_z))
    g = log_p.logsumexp(1)
    terms = (log_p - g[:, None]).exp()
    near, weighted, solved, lift, m, lost = local_model(source, q, terms, beta, damp)
    root = source.px.sqrt()
    n = len(root)
    scaled = weighted / root[near][:, :, None]
    hessian = torch.zeros(n * n).to(q)
    push = torch.zeros(n).to(q)
    strength = (beta * weight * g.exp())[:, None, None]
    count = max(1, (1 << 22) // near.shape[1] ** 2)
    for lo in range(0, len(q), count):
        part = slice(lo, lo + count)
        block = (strength[part] * scaled[part]) @ (solved[part] / root[near[part]][:, None, :])
        hessian.index_add_(0, (near[part, :, None] * n + near[part, None, :]).flatten(), block.flatten())
    push.index_add_(0, near.flatten(), ((strength * scaled) @ lift[:, :, None]).flatten())
    hessian = hessian.view(n, n)
    hessian.diagonal().add_(1)
    columns = (terms / root).T
    factor, failed = torch.linalg.cholesky_ex((hessian + hessian.T) / 2)
    if failed:
        factor = torch.eye(n).to(q)
    solution = torch.cholesky_solve(torch.cat([columns, (root - push)[:, None]], 1), factor)
    gram = columns.T @ solution
    new_weight = nnls(gram[:, :-1], gram[:, -1] + g, weight)
    u = (solution[:, -1] - solution[:, :-1] @ new_weight) / root
    v = lift + (solved @ u[near][:, :, None])[:, :, 0]
    new_weight = new_weight / g.exp()
    height = torch.where(lost > 0, math.inf, g + beta / 2 * (m * lift).sum(1))
    return new_weight / new_weight.sum(), v, height.max().item()


def nnls(gram, b, start):
    """w >= 0 with gram w >= b and w (gram w - b) = 0, by an interior-point method."""
    w = start + 1e-3 * start.mean()
    scale = b.abs().max()
    s = (gram @ w - b).clamp_min(0.1 * scale)
    for _ in range(80):
        slope = gram @ w - b
        mu = (w @ s).item() / len(w)
        if mu * len(w) < 1e-13 * scale and slope.min() > -1e-12 * scale:
            break
        hessian = gram.clone()
        hessian.diagonal().add_(s / w)
        aim = 0.1 * mu / w
        factor, failed = torch.linalg.cholesky_ex(hessian)
        if failed:
            break
        dw = torch.cholesky_solve((aim - slope)[:, None], factor)[:, 0]
        ds = aim - s - s / w * dw
        reach = 0.99 / max(1.0, (-dw / w).max().item(), (-ds / s).max().item())
        w, s = w + reach * dw, s + reach * ds
    return torch.where(w > 1e-3 * s, w, 0)
