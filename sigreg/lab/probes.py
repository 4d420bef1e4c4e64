r"""Linear probes on the device: logistic regression along a path of ridges, the ridge chosen on held-out data.

The same objective as :func:`sigreg.evaluation.linear_probe`. Its Hessian never exceeds

.. math:: \tfrac12 X^\top X / N + \rho I

for softmax (Böhning 1992), so Nesterov's method with the inverse of that matrix for a step needs no line search and
never asks the host. The inverse is made once from a Gram matrix, and all ridges share each product with the features.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from sigreg._precision import without_autocast

RIDGES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
STEPS = 60  # of Nesterov's method
FLOOR = 1e-3  # variance added before whitening, as a share of the mean variance


class Reading(NamedTuple):
    """What :func:`chosen_probe` found."""

    accuracy: float  # on the test set, asked once
    held_out: list  # accuracy on held-out training data, for each ridge
    ridge: float  # the best of them
    gradient: float  # largest entry of the objective's gradient at the end, at that ridge
    right: torch.Tensor  # (N',) which test images were guessed right


def chosen_probe(train_x, train_y, test_x, test_y, *, ridges=RIDGES, whiten=False, steps=STEPS):
    r"""Logistic regression whose ridge is the best on the last sixth of the training data, then fitted to all of it.

    Args:
        train_x, test_x: (N, F), (N', F) features; they are standardised by the training set's moments.
        train_y, test_y: (N,), (N',) integer labels.
        ridges: tried weights of :math:`|A|^2/2`.
        whiten: make the training covariance the identity first (but for ``FLOOR``), and not only its diagonal.
        steps: of the search.

    Returns:
        :class:`Reading`; ``accuracy`` is None where ``test_x`` is None, as in trials.

    Reference:
        Böhning (1992), "Multinomial logistic regression algorithm"; Nesterov (1983), with the restarts of O'Donoghue
        and Candès (2015), arXiv 1204.3982.

    Derived in:
        Chapter 6, section 6.8.

    >>> x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    >>> chosen_probe(x, (x[:, 0] > 0).long(), x, (x[:, 0] > 0).long()).accuracy > 0.97
    True
    """
    x, asked = _standardised(train_x, test_x, whiten)
    kept = len(x) - len(x) // 6
    weight, bias, _ = ridge_path(x[:kept], train_y[:kept], ridges, steps)
    held_out = _right(x[kept:], train_y[kept:], weight, bias).double().mean(1).tolist()
    best = max(range(len(ridges)), key=lambda k: held_out[k])  # of equals the strongest
    if asked is None:
        return Reading(None, held_out, ridges[best], None, None)
    weight, bias, gradient = ridge_path(x, train_y, ridges[best : best + 1], steps)
    right = _right(asked, test_y, weight, bias)[0]
    return Reading(right.double().mean().item(), held_out, ridges[best], gradient.item(), right)


def _standardised(train_x, test_x, whiten):
    mean, std = train_x.mean(0), train_x.std(0, correction=0)
    std = torch.where(std > 1e-6 * std.max().clamp_min(1e-12), std, 1.0)
    both = [None if x is None else (x - mean) / std for x in (train_x, test_x)]
    if whiten:
        covariance = _gram(both[0])
        covariance.diagonal().add_(FLOOR * covariance.diagonal().mean())
        root = torch.linalg.inv(torch.linalg.cholesky(covariance)).T.to(train_x)  # any root: the ridge sees none
        both = [None if x is None else x @ root for x in both]
    return both


def _gram(x):
    """X'X / N, in double: a small ridge is lost in the rounding of a single one."""
    return sum(part.T @ part for part in (rows.double() for rows in x.split(10_000))) / len(x)


@torch.no_grad()
@without_autocast
def ridge_path(x, y, ridges, steps=STEPS):
    """Weights (R, F, C), biases (R, 1, C) and largest gradients (R,) of logistic regression at each of R ridges."""
    (n, f), r, c = x.shape, len(ridges), int(y.max()) + 1
    mean = x.mean(0)  # the bias is free of the weights only for centred features
    x = x - mean
    gram = _gram(x) / 2
    identity = torch.eye(f, dtype=gram.dtype, device=gram.device)
    bound = torch.stack([torch.cholesky_inverse(torch.linalg.cholesky(gram + rho * identity)).to(x) for rho in ridges])
    rho = x.new_tensor(ridges).view(r, 1, 1)
    target = F.one_hot(y, c).to(x).repeat(1, r)  # (N, R C)

    def gradient(weight, bias):
        scores = (x @ weight.movedim(0, 1).reshape(f, r * c)).view(n, r, c) + bias.movedim(0, 1)
        error = (scores.softmax(-1).flatten(1) - target) / n
        on_weight = (x.T @ error).view(f, r, c).movedim(1, 0) + rho * weight
        return on_weight, error.sum(0).view(r, 1, c)

    weight, bias = x.new_zeros(r, f, c), x.new_zeros(r, 1, c)
    ahead_w, ahead_b, age = weight, bias, x.new_zeros(r, 1, 1)
    for _ in range(steps):
        on_w, on_b = gradient(ahead_w, ahead_b)
        new_w, new_b = ahead_w - bound @ on_w, ahead_b - 2 * on_b
        move_w, move_b = new_w - weight, new_b - bias
        uphill = (on_w * move_w).sum((1, 2), keepdim=True) + (on_b * move_b).sum((1, 2), keepdim=True) > 0
        age = torch.where(uphill, 0.0, age + 1)
        speed = (age - 1).clamp_min(0) / (age + 2)
        ahead_w, ahead_b, weight, bias = new_w + speed * move_w, new_b + speed * move_b, new_w, new_b
    on_w, on_b = gradient(weight, bias)
    worst = torch.maximum(on_w.abs().amax((1, 2)), on_b.abs().amax((1, 2)))
    return weight, bias - (mean @ weight).unsqueeze(1), worst


def _right(x, y, weight, bias):
    """(R, N): which guesses are right, for each of R readers."""
    return torch.stack([(x @ w + b).argmax(1) == y for w, b in zip(weight, bias, strict=True)])
