r"""Kummer's function 1F1(a; b; -u), the kernel that an average over all directions leaves behind."""

import functools
import math

import numpy as np
import torch

_NODES = 128  # enough for 1e-13 at every b used here; trailing coefficients are dropped below


def kummer(a, b, u):
    r"""Kummer's confluent hypergeometric function of a negative argument, differentiable to any order.

    .. math:: {}_1F_1(a;\, b;\, -u) = \sum_{n \ge 0} \frac{(a)_n}{(b)_n} \frac{(-u)^n}{n!}

    With a = 1/2 and b = D/2 it is the mean of exp(-u s^2), where s is one coordinate of a uniform
    unit vector in D dimensions.

    Args:
        a: a float with 0 < a <= b.
        b: a float.
        u: floating tensor of any shape with entries >= 0; infinity gives 0 and NaN gives NaN.

    Returns:
        A tensor like ``u`` with entries in [0, 1].

    Reference:
        NIST Digital Library of Mathematical Functions, 13.2.2 and 13.3.15 (derivative).

    Derived in:
        Chapter 4, the slice-free form.

    >>> kummer(0.5, 1.5, torch.tensor([0.0, 1.0], dtype=torch.float64))  # sqrt(pi) erf(1) / 2 at u = 1
    tensor([1.0000, 0.7468], dtype=torch.float64)
    """
    return _Kummer.apply(a, b, u)


class _Kummer(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(a, b, u):
        if a == b:
            return torch.exp(-u)
        # 1F1 falls like (1 + u/b)^-a, the inverse multiquadric. Divided by it, and as a function of
        # x = (u - b) / (u + b), what remains is so smooth on [-1, 1] that a short Chebyshev sum gives it.
        terms = coefficients(a, b, u.dtype)
        x = 2 / (1 + b / u) - 1
        below = above = torch.zeros_like(u)
        for c in reversed(terms[1:]):  # Clenshaw's recurrence
            below, above = torch.addcmul(c - above, x, below, value=2), below
        smooth = torch.addcmul(terms[0] - above, x, below)
        return smooth * (1 + u / b) ** -a

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.a, ctx.b, u = inputs
        ctx.save_for_backward(u)
        ctx.save_for_forward(u)

    @staticmethod
    def jvp(ctx, _a, _b, tangent):
        (u,) = ctx.saved_tensors
        return tangent * (-ctx.a / ctx.b) * kummer(ctx.a + 1, ctx.b + 1, u)

    @staticmethod
    def backward(ctx, grad):
        (u,) = ctx.saved_tensors
        return None, None, grad * (-ctx.a / ctx.b) * kummer(ctx.a + 1, ctx.b + 1, u)


@functools.lru_cache(maxsize=64)
def coefficients(a, b, dtype):
    """The Chebyshev coefficients that matter in ``dtype``, a tuple of floats; empty where a = b, an exponential."""
    if a == b:
        return ()
    every = _chebyshev_coefficients(a, b)
    matter = max(i for i, c in enumerate(every) if i == 0 or abs(c) >= 0.1 * torch.finfo(dtype).eps)
    return every[: matter + 1]


@functools.lru_cache(maxsize=64)
def _chebyshev_coefficients(a, b):
    """Coefficients in x of 1F1(a; b; -u) (1 + u/b)^a, a tuple of floats."""
    order, odd = np.arange(_NODES), 2 * np.arange(_NODES) + 1
    # Whole turns are taken off in integers: the cosine of a large angle would add noise to each coefficient.
    basis = np.cos(math.pi / (2 * _NODES) * (order[:, None] * odd % (4 * _NODES)))
    x = basis[1]
    u = b * (1 + x) / (1 - x)
    values = np.exp([_log_kummer_at(a, b, v) for v in u.tolist()] + a * np.log1p(u / b))
    coefficients = basis @ values * (2 / _NODES)
    coefficients[0] /= 2
    noise = 4e-16 * max(1.0, b / 4)  # the rounding error of the values: smaller coefficients mean nothing
    last = int(np.nonzero(np.abs(coefficients) > noise)[0].max())
    return tuple(coefficients[: last + 1].tolist())


def _log_kummer_at(a, b, u):
    """log 1F1(a; b; -u) for one float ``u`` > 0 and a < b: for large a the function itself leaves the floats."""
    if u > 4 * b + 60:  # DLMF 13.7.2; the terms fall at least like (b / u)^n before they grow
        total = term = 1.0
        for n in range(200):
            term *= (a + n) * (a - b + 1 + n) / ((n + 1) * u)
            total += term
            if abs(term) < 1e-18:
                break
        return math.lgamma(b) - math.lgamma(b - a) - a * math.log(u) + math.log(total)
    # Kummer's transformation exp(-u) 1F1(b - a; b; u): the mean of (b-a)_n / (b)_n over n ~ Poisson(u),
    # a sum without cancellation.
    n = np.arange(int(u + 14 * math.sqrt(u) + 60), dtype=np.float64)
    poisson = n * math.log(u) - _log_factorials(1 << (len(n) - 1).bit_length())[: len(n)]
    poisson = np.exp(poisson - poisson.max())
    ratio = np.cumprod(np.concatenate([[1.0], 1 - a / (b + n[:-1])]))
    return math.log(poisson @ ratio / poisson.sum())


@functools.lru_cache(maxsize=32)
def _log_factorials(size):
    return np.array([math.lgamma(n + 1) for n in range(size)])
