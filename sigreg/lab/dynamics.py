r"""Two laboratories of Chapter 8 in which every quantity is exact.

Gradient ascent of the Donsker-Varadhan bound on a discrete channel, by turns or jointly; and a linear encoder of
Gaussian views under each choice of stop-gradient, predictor and regulariser. All informations are in nats.
"""

import math
from dataclasses import dataclass

import torch

from sigreg._validate import require_distribution, require_floating
from sigreg.information_maximization import donsker_varadhan

# ---------------------------------------------------------------- ascent of J on a discrete channel


def ring_channel(size, concentration):
    r"""Two views of a position on a ring: each is the position plus its own noise. The exact joint probabilities.

    .. math:: p(x, x') = \frac1n \sum_s k(x - s)\, k(x' - s), \qquad k(r) \propto e^{\zeta \cos(2 \pi r / n)}

    The views are exchangeable and, given the position, independent; so the operator :math:`\mathrm{E}[\,\cdot \mid x]`
    has no negative eigenvalue.

    Args:
        size: n, at least 2.
        concentration: ζ, 0 for independent views.

    Returns:
        (n, n), float64.

    Raises:
        ValueError: ``size`` is less than 2 or ``concentration`` is negative.

    Reference:
        The discrete von Mises law.

    Derived in:
        Chapter 8, Example 8.7.

    >>> joint = ring_channel(4, 0.0)
    >>> bool((joint == 1 / 16).all())
    True
    """
    if size < 2 or concentration < 0:
        raise ValueError(f"size must be at least 2 and concentration 0 or more, got {size} and {concentration}")
    place = torch.arange(size, dtype=torch.float64)
    kernel = torch.softmax(concentration * torch.cos(2 * math.pi * (place[:, None] - place) / size), 0)  # p(x | s)
    return kernel @ kernel.T / size


@dataclass(frozen=True)
class Ascent:
    """``exact`` (steps + 1,): J under the true probabilities before the first step and after each. ``estimate``
    (steps,): J on the minibatch of each step, or None. ``f`` (m, D), ``g`` (n, D): the tables at the end."""

    exact: torch.Tensor
    estimate: torch.Tensor | None
    f: torch.Tensor
    g: torch.Tensor


def ascend(joint, f, g, *, mode, lr, steps, batch=None, generator=None):
    r"""Gradient ascent of J(f, g), the Donsker-Varadhan bound with the critic T(x, x') = f(x).g(x'), on a channel.

    Args:
        joint: p(x, x'), (m, n).
        f, g: starting tables (m, D) and (n, D): the encoders, with one free code for each symbol.
        mode: ``"alternating"``: a step of f with g held fixed, then one of g with the new f held fixed (one step of
            the count). ``"joint"``: both tables move at once. ``"shared"``: one table, g = f, every gradient flows;
            ``"shared_stopped"``: one table, and in each half of the symmetric objective the partner is held fixed.
        lr: step length. The gradient in f has a Lipschitz constant of at most :math:`\max |g(x')|^2`.
        steps: how many.
        batch: None for the exact gradient; else a number of pairs drawn afresh for each step, whose B^2 - B other
            pairings estimate the marginal term.
        generator: of the minibatches.

    Returns:
        :class:`Ascent`.

    Raises:
        TypeError, ValueError: tables that do not fit, an unknown mode, a minibatch without a generator, or a step so
            long that the scores overflow.

    Reference:
        Sabby et al. (2025), arXiv 2510.01345, for the two paradigms; the algorithm is block gradient ascent.

    Derived in:
        Chapter 8, Propositions 8.6 and 8.8.

    >>> start = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> run = ascend(ring_channel(6, 2.0), start, start, mode="alternating", lr=0.5, steps=50)
    >>> bool((run.exact.diff() > 0).all())
    True
    """
    require_distribution("joint", require_floating("joint", joint, 2, "(m, n)"), dim=(0, 1))
    modes = ("alternating", "joint", "shared", "shared_stopped")
    if mode not in modes:
        raise ValueError(f"mode must be one of {', '.join(modes)}, got {mode!r}")
    if f.shape[0] != joint.shape[0] or g.shape != (joint.shape[1], f.shape[1]):
        wanted = f"({joint.shape[0]}, D) and ({joint.shape[1]}, D)"
        raise ValueError(f"f and g must have shapes {wanted}, got {tuple(f.shape)} and {tuple(g.shape)}")
    if batch is not None and generator is None:
        raise ValueError("generator is needed to draw minibatches: pass torch.Generator().manual_seed(...)")
    shared = mode.startswith("shared")
    f = f.clone()
    g = f if shared else g.clone()
    exact, estimates = [], []

    def value(f, g, pairs=None):
        scores = f @ g.T if pairs is None else f[pairs[0]] @ g[pairs[1]].T
        if not torch.isfinite(scores).all():
            raise ValueError(f"the ascent blew up at step {len(exact)}: lower lr={lr}")
        return donsker_varadhan(scores, None if pairs is not None else joint).bound

    exact.append(value(f, g))
    for _ in range(steps):
        pairs = None if batch is None else _draw(joint, batch, generator)
        if pairs is not None:
            estimates.append(value(f, g, pairs))
        if mode == "shared":
            (slope,) = _gradient(lambda t, p=pairs: value(t, t, p), f)
            f = g = f + lr * slope
        elif mode == "shared_stopped":
            (slope,) = _gradient(lambda t, h=f, p=pairs: (value(t, h, p) + value(h, t, p)) / 2, f)
            f = g = f + lr * slope
        elif mode == "joint":
            slope_f, slope_g = _gradient(lambda t, u, p=pairs: value(t, u, p), f, g)
            f, g = f + lr * slope_f, g + lr * slope_g
        else:
            f = f + lr * _gradient(lambda t, h=g, p=pairs: value(t, h, p), f)[0]
            g = g + lr * _gradient(lambda t, h=f, p=pairs: value(h, t, p), g)[0]
        exact.append(value(f, g))
    return Ascent(torch.stack(exact), torch.stack(estimates) if estimates else None, f, g)


def _draw(joint, batch, generator):
    index = torch.multinomial(joint.flatten(), batch, replacement=True, generator=generator)
    return index // joint.shape[1], index % joint.shape[1]


def _gradient(function, *tables):
    tables = [table.detach().requires_grad_() for table in tables]
    return torch.autograd.grad(function(*tables), tables)


# ---------------------------------------------------------------- a linear encoder of Gaussian views


def linear_prediction_loss(encoder, target, predictor, correlations):
    r"""Expected squared error of predicting the code of one Gaussian view from that of the other.

    .. math:: L = \tfrac12 \mathrm{E}\,|P A x - T x'|^2
        = \tfrac12 \operatorname{tr}(P A A^\top P^\top - 2 P A R\, T^\top + T T^\top)

    for views :math:`x, x' \sim N(0, I)` with :math:`\mathrm{E}\, x x'^\top = R = \operatorname{diag}(\rho)`.

    Args:
        encoder: A, (D, n).
        target: T, (D, n): the same A, with or without a stop-gradient.
        predictor: P, (D, D).
        correlations: rho, (n,), in [0, 1).

    Returns:
        A scalar.

    Raises:
        ValueError: shapes do not fit.

    Reference:
        Tian, Chen and Ganguli (2021), arXiv 2102.06810, Section 3, for the linear model.

    Derived in:
        Chapter 8, Proposition 8.9.

    >>> a = torch.eye(2)
    >>> linear_prediction_loss(a, a, torch.eye(2), torch.tensor([0.5, 0.0]))  # half of 2 (1 - 0.5) + 2
    tensor(1.5000)
    """
    if encoder.shape != target.shape or encoder.shape[1:] != correlations.shape:
        raise ValueError(
            f"encoder and target must be (D, n) and correlations (n,), got {tuple(encoder.shape)}, "
            f"{tuple(target.shape)} and {tuple(correlations.shape)}"
        )
    predicted = predictor @ encoder
    return (predicted.square().sum() - 2 * (predicted * correlations * target).sum() + target.square().sum()) / 2


def best_predictor(encoder, correlations):
    r"""The linear predictor of least squared error, :math:`P = A R A^\top (A A^\top)^{-1}`.

    Args:
        encoder: A, (D, n), of full row rank.
        correlations: rho, (n,).

    Returns:
        P, (D, D).

    Raises:
        torch.linalg.LinAlgError: A has lost its rank.

    Reference:
        The normal equations.

    Derived in:
        Chapter 8, Proposition 8.9.

    >>> best_predictor(torch.eye(2), torch.tensor([0.5, 0.25]))
    tensor([[0.5000, 0.0000],
            [0.0000, 0.2500]])
    """
    gram = encoder @ encoder.T
    return torch.linalg.solve(gram, (encoder * correlations) @ encoder.T).T


def linear_information(encoder, correlations, noise):
    r"""Information between noisy linear codes of two Gaussian views, :math:`W = A X + \sigma \varepsilon`.

    .. math:: I(W;W') = -\tfrac12 \log\det\bigl(I - S^{-1} C S^{-1} C\bigr), \qquad
        S = A A^\top + \sigma^2 I,\; C = A R A^\top

    Args:
        encoder: A, (..., D, n).
        correlations: rho, (n,).
        noise: sigma, positive: it makes small codes worth little, where without it no scale would matter.

    Returns:
        (...), in nats.

    Raises:
        ValueError: ``noise`` is not positive.

    Reference:
        The information of jointly Gaussian vectors, Cover and Thomas (2006), Chapter 8.

    Derived in:
        Chapter 8, Example 8.11.

    >>> linear_information(torch.ones(1, 1), torch.tensor([0.6]), 1e-4)  # -log(0.8)
    tensor(0.2231)
    """
    if not noise > 0:
        raise ValueError(f"noise must be positive, got {noise}")
    eye = torch.eye(encoder.shape[-2], dtype=encoder.dtype, device=encoder.device)
    root = torch.linalg.cholesky(encoder @ encoder.mT + noise**2 * eye)
    cross = (encoder * correlations) @ encoder.mT
    whitened = torch.linalg.solve_triangular(root, cross, upper=False)
    whitened = torch.linalg.solve_triangular(root, whitened.mT, upper=False)
    return -torch.linalg.slogdet(eye - whitened @ whitened.mT)[1] / 2


@dataclass(frozen=True)
class LinearRun:
    """One run of :func:`train_linear`, recorded before the first step and after each: ``information`` (steps + 1,) in
    nats, ``spectrum`` (steps + 1, D), the eigenvalues of the codes' covariance, falling; ``encoder`` (D, n)."""

    information: torch.Tensor
    spectrum: torch.Tensor
    encoder: torch.Tensor


def train_linear(
    encoder, correlations, *, stop_gradient, predictor, regularizer, lr=0.1, steps=400, speed=10.0, noise=0.1, decay=0.0
):
    r"""Gradient descent of a linear encoder on Gaussian views, in one cell of the cube of Chapter 8.

    .. math:: L + \frac{\lambda}{4} \| A A^\top - I \|_F^2, \qquad \lambda \in \{0, 1\}

    For Gaussian codes the second term vanishes exactly where SIGReg's and VICReg's do.

    Args:
        encoder: A at the start, (D, n).
        correlations: rho, (n,).
        stop_gradient: whether the target is held fixed in each step.
        predictor: None for the identity; ``"learned"``, descending from the identity beside the encoder;
            ``"best"``, :func:`best_predictor` anew at each step.
        regularizer: whether lambda is 1 rather than 0.
        lr: step length of the encoder.
        steps: how many.
        speed: step length of a learned predictor, in units of ``lr``.
        noise: sigma of :func:`linear_information`, for the record only.
        decay: weight decay of encoder and predictor.

    Returns:
        :class:`LinearRun`.

    Raises:
        ValueError: ``predictor`` is none of the three.

    Reference:
        Tian, Chen and Ganguli (2021), arXiv 2102.06810, for the model with stop-gradient and predictor.

    Derived in:
        Chapter 8, Propositions 8.8 and 8.9 and Theorem 8.10.

    >>> start = 0.5 * torch.eye(2, 3, dtype=torch.float64)
    >>> rho = torch.tensor([0.9, 0.5, 0.7], dtype=torch.float64)
    >>> run = train_linear(start, rho, stop_gradient=False, predictor=None, regularizer=False)
    >>> bool(run.spectrum[-1, -1] < 1e-6)  # collapse
    True
    """
    if predictor not in (None, "learned", "best"):
        raise ValueError(f"predictor must be None, 'learned' or 'best', got {predictor!r}")
    weights = encoder.clone()
    eye = torch.eye(len(weights), dtype=weights.dtype)
    guess = eye.clone()
    path = [weights]
    for _ in range(steps):
        if predictor == "best":
            guess = best_predictor(weights, correlations)
        a, p = weights.detach().requires_grad_(), guess.detach().requires_grad_()
        target = a.detach() if stop_gradient else a
        loss = linear_prediction_loss(a, target, p, correlations)
        if regularizer:
            loss = loss + (a @ a.T - eye).square().sum() / 4
        slope_a, slope_p = torch.autograd.grad(loss, (a, p))
        weights = weights - lr * (slope_a + decay * weights)
        if predictor == "learned":
            guess = guess - lr * speed * (slope_p + decay * guess)
        path.append(weights)
    path = torch.stack(path)  # (steps + 1, D, n)
    spectrum = torch.linalg.eigvalsh(path @ path.mT).flip(-1)
    return LinearRun(linear_information(path, correlations, noise), spectrum, weights)
