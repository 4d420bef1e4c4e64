r"""What features are worth: a linear probe, neighbours, the directions in use. Nothing here is random."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sigreg._precision import at_least_float32, exponent_of, in_range, times_two_to, without_autocast
from sigreg._validate import (
    require_count,
    require_finite,
    require_floating,
    require_labels,
    require_same_device,
    require_weight,
    values_at_hand,
)

__all__ = ["effective_rank", "features", "knn_accuracy", "linear_probe"]


@torch.no_grad()
def features(encoder: nn.Module, images: Tensor, batch_size: int = 1000) -> Tensor:
    """The outputs of a module in evaluation mode for many images, a batch at a time, without gradients.

    Args:
        encoder: a module, (B, ...) to (B, F).
        images: (N, ...).
        batch_size: images at a time; the result does not depend on it.

    Returns:
        Tensor (N, F).

    Raises:
        TypeError: ``images`` is not a floating tensor.

    Example:
        >>> features(torch.nn.Flatten(), torch.zeros(5, 1, 2, 2), batch_size=2).shape
        torch.Size([5, 4])
    """
    _require_module("encoder", encoder)
    require_floating("images", images, range(2, 65), "(N, ...)")
    batch_size = require_count("batch_size", batch_size)
    return _outputs(encoder, images, batch_size, lambda output: output)


@torch.no_grad()
def _outputs(module: nn.Module, images: Tensor, batch_size: int, read: Callable[[Any], Tensor]) -> Tensor:
    """What ``read`` takes from the outputs of a module in evaluation mode, all batches together."""
    training = module.training
    module.eval()
    found = torch.cat([read(module(part)) for part in images.split(batch_size)])
    module.train(training)
    return found


def accuracy(network: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 1000) -> float:
    """Share of images whose class the decoder gets right from the mean of the code, in evaluation mode.

    Args:
        network: a module whose outputs have ``logits``, (N, C).
        images: (N, 1, H, W).
        labels: (N,).
        batch_size: images at a time; the result does not depend on it.

    Returns:
        A float in [0, 1].

    Raises:
        TypeError, ValueError: wrong types or shapes.

    Example:
        >>> from types import SimpleNamespace
        >>> class Pixels(torch.nn.Module):  # its scores are the pixels
        ...     def forward(self, x):
        ...         return SimpleNamespace(logits=x.flatten(1))
        >>> accuracy(Pixels(), torch.eye(3)[:, None, None], torch.tensor([0, 1, 1]), batch_size=2) * 3
        2.0
    """
    _require_module("network", network)
    require_floating("images", images, 4, "(N, 1, H, W)")
    batch_size = require_count("batch_size", batch_size)
    labels = require_labels("labels", labels, len(images))
    scores = _outputs(network, images, batch_size, lambda code: code.logits)
    return (scores.argmax(1) == labels).double().mean().item()


@dataclass(frozen=True)
class Probe:
    """What :func:`linear_probe` found."""

    accuracy: float  # on the test set
    train_accuracy: float
    weight: torch.Tensor  # (F, C), for standardised features
    bias: torch.Tensor  # (C,)
    gradient: float  # largest entry of the objective's gradient where the search ended
    evaluations: int  # of the objective
    ridge: float  # that was used
    right: torch.Tensor  # (N',) which test images were guessed right


@without_autocast
def linear_probe(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    *,
    ridge: float | Sequence[float] = 1e-3,
    max_iter: int = 200,
) -> Probe:
    r"""Multinomial logistic regression on standardised features, by full-batch L-BFGS from zero.

    .. math:: \min_{A, c}\; -\frac1N \sum_n \log \mathrm{softmax}(A^\top \tilde x_n + c)_{y_n} + \frac\rho2 |A|^2,
        \qquad \tilde x = (x - \text{mean}) / \text{std}

    Means and standard deviations are those of the training set; a feature that never changes is left out of the
    division. There is no randomness.

    A ridge that suits one representation punishes another: codes with many nearly empty directions need a small one.
    Of several values the probe takes the one that is most accurate on every fifth training image when trained on the
    others, the largest of equals, and trains with it on all.

    Args:
        train_x, test_x: (N, F), (N', F) features.
        train_y, test_y: (N,), (N',) integer labels.
        ridge: :math:`\rho`, on the weights and not on the biases; or several to choose from.
        max_iter: of L-BFGS.

    Returns:
        :class:`Probe`.

    Raises:
        TypeError, ValueError: shapes or types do not fit, a feature is not finite, ``ridge`` is negative or empty, or
            there are too few images to choose a ridge by.

    Reference:
        Liu and Nocedal (1989), for L-BFGS.

    Derived in:
        Chapter 4, Proposition 4.16, says what a ridge asks of features.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
        >>> linear_probe(x, torch.tensor([0, 0, 1, 1]), x, torch.tensor([0, 0, 1, 1])).accuracy
        1.0
    """
    train_x, train_y, test_x, test_y = _require_sets(train_x, train_y, test_x, test_y)
    exponent = -exponent_of(train_x)  # squares stay in range; standardised features are the same
    train_x, test_x = times_two_to(exponent, train_x), times_two_to(exponent, test_x)
    max_iter = require_count("max_iter", max_iter)
    ridges = sorted({require_weight("ridge", r) for r in (ridge if isinstance(ridge, (list, tuple)) else [ridge])})
    if not ridges:
        raise ValueError("ridge must be a number or several to choose from, got an empty sequence")
    classes = int(train_y.max()) + 1
    if classes > max(2**16, 16 * len(train_y)):  # a weight a class and feature would not fit
        raise ValueError(
            f"train_y has the label {classes - 1} among {len(train_y)}: number the classes from 0, as "
            "torch.unique(train_y, return_inverse=True) does"
        )
    if len(ridges) > 1:
        held = torch.arange(len(train_x), device=train_x.device) % 5 == 4
        if not held.any():
            raise ValueError(f"choosing a ridge takes 5 training images or more, got {len(train_x)}")
        parts = train_x[~held], train_y[~held], train_x[held], train_y[held]
        tried = {r: _fit_probe(*parts, r, max_iter, classes).accuracy for r in ridges}
        ridges = [max(reversed(ridges), key=lambda r: tried[r])]
    return _fit_probe(train_x, train_y, test_x, test_y, ridges[0], max_iter, classes)


@torch.enable_grad()  # a caller may have switched gradients off
def _fit_probe(
    train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor, ridge: float, max_iter: int, classes: int
) -> Probe:
    mean, std = train_x.mean(0), train_x.std(0, correction=0)
    std = torch.where(std > 1e-6 * std.max().clamp_min(1e-12), std, 1.0)
    x = (train_x - mean) / std
    weight = x.new_zeros(x.shape[1], classes, requires_grad=True)
    bias = x.new_zeros(classes, requires_grad=True)
    search = torch.optim.LBFGS(
        [weight, bias],
        max_iter=max_iter,
        max_eval=2 * max_iter,
        tolerance_grad=1e-6,
        tolerance_change=0.0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )
    calls = 0

    def objective() -> Tensor:
        nonlocal calls
        calls += 1
        search.zero_grad()
        value = F.cross_entropy(x @ weight + bias, train_y) + 0.5 * ridge * weight.square().sum()
        value.backward()
        return value

    search.step(objective)
    objective()
    gradient = max(p.grad.abs().max().item() for p in (weight, bias) if p.grad is not None)
    with torch.no_grad():
        train_accuracy = ((x @ weight + bias).argmax(1) == train_y).double().mean().item()
        right = ((test_x - mean) / std @ weight + bias).argmax(1) == test_y
    accuracy = right.double().mean().item()
    return Probe(accuracy, train_accuracy, weight.detach(), bias.detach(), gradient, calls, ridge, right)


@torch.no_grad()
@without_autocast
def knn_accuracy(
    train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor, k: int = 20, batch_size: int = 500
) -> float:
    r"""Share of test images whose label is that of most of their k nearest training images, by cosine.

    .. math:: \hat y(x) = \arg\max_c \#\{n \in \mathrm{N}_k(x) : y_n = c\}, \qquad
        \mathrm{N}_k \text{ by the largest } \frac{x \cdot x_n}{|x| |x_n|}

    A tie goes to the smaller label.

    Args:
        train_x, test_x: (N, F), (N', F).
        train_y, test_y: (N,), (N',) integer labels.
        k: neighbours, at most N.
        batch_size: test images at a time; the result does not depend on it.

    Returns:
        A float in [0, 1].

    Raises:
        TypeError, ValueError: shapes or types do not fit, or ``k`` is not in 1..N.

    Reference:
        The usual check of frozen features, Wu et al. (2018), arXiv 1805.01978, there with weighted votes.

    Example:
        >>> x = torch.eye(3).repeat(4, 1)
        >>> knn_accuracy(x, torch.arange(12) % 3, x[:3], torch.arange(3), k=4)
        1.0
    """
    train_x, train_y, test_x, test_y = _require_sets(train_x, train_y, test_x, test_y)
    k, batch_size = require_count("k", k), require_count("batch_size", batch_size)
    if k > len(train_x):
        raise ValueError(f"k must lie in 1..{len(train_x)}, the number of training images, got {k}")
    occurring, place = torch.unique(train_y, return_inverse=True)
    reference = F.normalize(in_range(train_x)[0], dim=1)
    right = 0
    for x, y in zip(test_x.split(batch_size), test_y.split(batch_size), strict=True):
        near = (F.normalize(in_range(x)[0], dim=1) @ reference.T).topk(k, 1).indices
        votes = F.one_hot(place[near], len(occurring)).sum(1)
        right += int((occurring[votes.argmax(1)] == y).sum())
    return right / len(test_x)


@torch.no_grad()
def effective_rank(z: Tensor) -> float:
    r"""How many directions the codes really use: the exponential of the entropy of their singular values.

    .. math:: \exp\Bigl(-\sum_d p_d \log p_d\Bigr), \qquad p_d = \frac{s_d}{\sum_e s_e}

    with s the singular values of the centred codes. It is D for equal ones, 1 if all codes lie on a line, and 0 here
    if all codes are one point.

    Args:
        z: (N, D).

    Returns:
        A float in [0, D].

    Raises:
        TypeError, ValueError: ``z`` is not a finite floating tensor (N, D).

    Reference:
        Roy and Vetterli (2007), "The effective rank"; as a check of features, Garrido et al. (2023), arXiv 2210.02885.

    Example:
        >>> round(effective_rank(torch.cat([torch.eye(4), -torch.eye(4)])), 3)
        4.0
    """
    _require_numbers("z", require_finite("z", require_floating("z", z, 2, "(N, D)")))
    z = z.cpu().double() if z.device.type == "mps" else z.double()
    z = times_two_to(-exponent_of(z), z)  # at most one, so that squares stay in range
    size = z.abs().max()
    z = z - z.mean(0)
    gram = z @ z.T if len(z) < z.shape[1] else z.T @ z  # the smaller of two with the same singular values
    s = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    if s.max() <= 1e-12 * len(z) ** 0.5 * size:
        return 0.0
    p = s / s.sum()
    return torch.exp(-torch.special.xlogy(p, p).sum()).item()


def _require_module(name: str, value: nn.Module) -> None:
    if not isinstance(value, nn.Module):
        raise TypeError(f"{name} must be a torch.nn.Module, got {type(value).__name__}")


def _require_numbers(name: str, value: Tensor) -> None:
    if not values_at_hand(value):
        raise ValueError(f"{name} lives where there are no numbers to look at, like the meta device")


def _require_sets(
    train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    for name, x in (("train_x", train_x), ("test_x", test_x)):
        _require_numbers(name, require_finite(name, require_floating(name, x, 2, "(N, F)")))
    if train_x.shape[1] != test_x.shape[1]:
        raise ValueError(f"train_x and test_x must have equal F, got {train_x.shape[1]} and {test_x.shape[1]}")
    if train_x.dtype != test_x.dtype:
        raise TypeError(f"train_x and test_x must have one dtype, got {train_x.dtype} and {test_x.dtype}")
    train_y = require_labels("train_y", train_y, len(train_x))
    test_y = require_labels("test_y", test_y, len(test_x))
    require_same_device(train_x=train_x, test_x=test_x, train_y=train_y, test_y=test_y)
    return at_least_float32(train_x.detach()), train_y, at_least_float32(test_x.detach()), test_y
