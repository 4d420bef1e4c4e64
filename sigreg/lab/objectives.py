r"""The losses of Chapters 3, 5 and 6 as the training loops want them: functions of a network and a batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sigreg._distributed import gather_rows, shared_group
from sigreg._validate import (
    require_between,
    require_choice,
    require_count,
    require_positive,
    require_sharing,
    require_weight,
)
from sigreg.conditional_bottleneck import defensive_rate, minibatch_rate, pairwise_rate, variational_ceb_rate, vib_rate
from sigreg.gaussian_regularization import random_directions, sliced_sigreg
from sigreg.joint_embedding import covariance_term, variance_term
from sigreg.lab.models import network_dim
from sigreg.self_supervised import view_prediction_loss, view_prediction_rate
from sigreg.semi_supervised import class_sigreg, consistency_loss

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

Batch = tuple[Tensor, ...]

RATES: dict[str, Callable[[Any, Tensor, dict[str, Tensor]], Tensor]] = {
    "vib": lambda code, labels, network: vib_rate(code.mean, code.log_std),
    "variational_ceb": lambda code, labels, network: variational_ceb_rate(
        code.mean, code.log_std, labels, network["class_mean"], network["class_log_std"]
    ),
    "minibatch": lambda code, labels, network: minibatch_rate(code.w, code.mean, code.log_std, labels),
    "leave_one_out": lambda code, labels, network: minibatch_rate(
        code.w, code.mean, code.log_std, labels, include_self=False
    ),
    "defensive": lambda code, labels, network: defensive_rate(code.w, code.mean, code.log_std, labels),
    "pairwise": lambda code, labels, network: pairwise_rate(code.mean, code.log_std, labels),
    "moments": lambda code, labels, network: _moments_rate(
        code.mean, code.log_std, F.one_hot(labels, len(network["class_mean"])).to(code.mean.dtype)
    ),
}


def _moments_rate(mean: Tensor, log_std: Tensor, one_hot: Tensor) -> Tensor:
    """Mean KL divergence to the Gaussian with the mean and the variance that the class has in the batch."""
    size = one_hot.sum(0)[:, None]
    share = one_hot / size.clamp_min(1).T
    centre = share.T @ mean
    variance = share.T @ (torch.exp(2 * log_std) + (mean - one_hot @ centre).square())
    # with these moments the squares in the divergence average to what its trace lacks: logarithms are left
    return 0.5 * (one_hot @ variance).log().sum(1).mean() - log_std.sum(1).mean()


def bottleneck_objective(method: str) -> Callable[..., Tensor]:
    r"""The loss of Chapter 3 for one way of estimating the rate, as :func:`train_stack` wants it.

    .. math:: \frac1B \sum_i -\log q(y_i|w_i) + \beta \hat I(X;W|Y),
        \qquad \text{for VIB with } \frac{\beta}{1+\beta} \hat I(X;W) \text{ as the last term}

    All methods aim at the same objective for the same beta: VIB's rate is the unconditional one, so its weight
    is translated by the dictionary of Chapter 3.

    Args:
        method: ``"vib"``, ``"variational_ceb"``, ``"minibatch"`` (own sample included), ``"leave_one_out"``,
            ``"defensive"``, ``"pairwise"`` or ``"moments"`` (one Gaussian a class, with the moments of the batch).

    Returns:
        A function of ``(forward, params, (images, labels, noise), beta)``.

    Raises:
        ValueError: no such method.

    Reference:
        Fischer (2020), arXiv 2002.05379, and Alemi et al. (2017), arXiv 1612.00410, for the two variational losses.

    Derived in:
        Chapter 3, Propositions 3.2 and 3.4.

    Example:
        >>> bottleneck_objective("mine")
        Traceback (most recent call last):
        ...
        ValueError: method must be one of vib, ..., moments, got 'mine'
    """
    if method not in RATES:
        raise ValueError(f"method must be one of {', '.join(RATES)}, got {method!r}")

    def loss(forward: Callable[..., Any], params: dict[str, Tensor], batch: Batch, beta: float | Tensor) -> Tensor:
        images, labels, noise = batch
        code = forward(images, noise)
        weight = beta / (1 + beta) if method == "vib" else beta
        return F.cross_entropy(code.logits, labels) + weight * RATES[method](code, labels, params)

    return loss


def lejepa_objective(
    *, weight: float, sigma: float = 1.0, num_slices: int | None = 256, noise: bool = False, seed: int = 0
) -> Callable[[nn.Module, Batch], dict[str, Tensor]]:
    """The loss above as :func:`sigreg.lab.fit.fit` wants it, for :class:`ViewNetwork` and :class:`ViewBatches`.

    Slices and noise of a step are drawn from a generator seeded by ``seed`` and the step's number. So a run that is
    stopped and resumed, or split among processes, sees the same ones.

    Args:
        weight, sigma, num_slices, noise: as in :func:`~sigreg.self_supervised.view_prediction_loss`.
        seed: of slices and noise.

    Returns:
        Function of ``(network, batch)``, a dictionary of scalars.

    Raises:
        As :func:`~sigreg.self_supervised.view_prediction_loss`, when it is called.

    Derived in:
        Chapter 6, Proposition 6.3.

    Example:
        >>> from sigreg.lab.batches import ViewBatches
        >>> from sigreg.lab.fit import fit
        >>> from sigreg.lab.models import ConvEncoder, ViewNetwork
        >>> images = torch.randn(64, 1, 28, 28, generator=torch.Generator().manual_seed(0))
        >>> batches = ViewBatches(images, batch_size=32, epochs=2)
        >>> network = ViewNetwork(ConvEncoder((4,), (4,)), hidden=(16,), latent_dim=4)
        >>> history = fit(network, lejepa_objective(weight=1.0), batches)
        >>> len(history), sorted(history[0])
        (4, ['loss', 'rate', 'sigreg'])
    """

    def loss(network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        *views, _, step = batch
        generator = step_generator(seed, step)
        z = network(*views)
        return view_prediction_loss(z, generator, weight=weight, sigma=sigma, num_slices=num_slices, noise=noise)

    return loss


def semi_supervised_objective(
    *,
    sigma: float = 0.3,
    labelled: float = 1.0,
    rate: float = 0.0,
    sigreg: float = 0.0,
    moments: float = 0.0,
    views: float = 0.0,
    consistency: float = 0.0,
    scored: Literal["all", "labelled", "unlabelled"] = "all",
    class_scale: float | None = None,
    threshold: float = 0.9,
    num_slices: int = 64,
    seed: int = 0,
    sync: bool = True,
    group: ProcessGroup | None = None,
) -> Callable[[nn.Module, Batch], dict[str, Tensor]]:
    r"""The loss of Chapter 5 as :func:`sigreg.lab.fit.fit` wants it, for :class:`CodeClassifier`.

    .. math:: \mathcal L = a\,\bigl[-\log q(y|w)\bigr]_{\text{labelled}} + \beta\, \hat I(X;W|Y)_{\text{labelled}}
        + \lambda\, \mathrm{SIGReg}(w)_{\text{all}}
        + \alpha\, \Bigl[\frac{|\mu - \mu'|^2}{2\sigma^2}\Bigr]_{\text{views}} + \kappa\, [\text{consistency}]

    Noise and slices of a step come from a generator seeded by ``seed`` and the step's number. Under
    ``torch.distributed`` the loss is that of the batch of all processes together, and the noise of a code is what one
    process would have drawn for it.

    Args:
        sigma: standard deviation of the code's noise.
        labelled: a, weight of the cross-entropy, which stands for the relevance.
        rate: :math:`\beta`, weight of the labelled conditional rate from minibatch marginals.
        sigreg: :math:`\lambda`, weight of SIGReg.
        moments: weight of VICReg without its invariance, over 25: variance + 2 covariance / 25, averaged over the sets
            that SIGReg sees; no part of the bottleneck, a rival.
        views: :math:`\alpha`, weight of the rate between a weak and a strong view of unlabelled images.
        consistency: :math:`\kappa`, weight of :func:`consistency_loss`; no part of the bottleneck, a baseline.
        scored: whose codes SIGReg and the moments see: ``"all"``, ``"labelled"`` or ``"unlabelled"``. Weak views (with
            the labelled ones) and strong views are scored apart, and averaged.
        class_scale: None for one Gaussian, or the s of :func:`class_sigreg` for one Gaussian a class.
        threshold: of the consistency loss.
        num_slices: M.
        seed: of noise and slices.
        sync, group: how processes share, as in :func:`~sigreg.gaussian_regularization.sliced_sigreg`.

    Returns:
        Function of ``(network, batch)``, a dictionary of scalars: ``"loss"`` and the terms in use.

    Raises:
        ValueError: ``sigma`` is not positive, a weight is negative, ``scored`` is unknown; or a term needs unlabelled
            images and the batch has none.

    Reference:
        Domb (2026), arXiv 2604.27743, for the decomposition and for SIGReg as the regularizer of this setting; the
        form is ours.

    Derived in:
        Chapter 5, section 5.4.

    Example:
        >>> from sigreg.lab.batches import FewLabelBatches
        >>> from sigreg.lab.fit import fit
        >>> from sigreg.lab.models import CodeClassifier, ConvEncoder
        >>> images = torch.randn(60, 1, 28, 28, generator=torch.Generator().manual_seed(0))
        >>> batches = FewLabelBatches(
        ...     images, torch.arange(60) % 3, torch.arange(9), labelled_batch=6, unlabelled_batch=8, steps=2
        ... )
        >>> network = CodeClassifier(ConvEncoder((4,), (4,)), latent_dim=4, num_classes=3)
        >>> history = fit(network, semi_supervised_objective(sigreg=0.1, views=0.1), batches)
        >>> sorted(history[0])
        ['cross_entropy', 'loss', 'sigreg', 'views']
    """
    require_positive("sigma", sigma)
    require_count("num_slices", num_slices)
    require_between("threshold", threshold, 0, 1, closed="[")
    require_sharing(sync, group)
    if class_scale is not None:
        require_positive("class_scale", class_scale)
    weights = {
        "labelled": labelled,
        "rate": rate,
        "sigreg": sigreg,
        "moments": moments,
        "views": views,
        "consistency": consistency,
    }
    for name, weight in weights.items():
        require_weight(name, weight)
    require_choice("scored", scored, ("all", "labelled", "unlabelled"))

    def loss(network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        view, labels, weak, strong, step = batch
        shared = shared_group(sync, group)
        known, pairs = len(view), len(weak)
        first_known, all_known = _place(known, shared, view)
        first_pair, all_pairs = _place(pairs, shared, view)
        if not all_pairs and (views or consistency or ((sigreg or moments) and scored != "labelled")):
            raise ValueError("views, consistency and SIGReg on unlabelled codes need unlabelled images in the batch")
        generator = step_generator(seed, step)
        images = torch.cat([view, weak, strong])
        drawn = torch.randn(all_known + 2 * all_pairs, network_dim(network), generator=generator)
        drawn = drawn.split([all_known, all_pairs, all_pairs])  # for the whole batch: each process takes its rows
        firsts, counts = (first_known, first_pair, first_pair), (known, pairs, pairs)
        noise = sigma * torch.cat([part[i : i + n] for part, i, n in zip(drawn, firsts, counts, strict=True)])
        code = network(images, noise.to(images))
        parts = code.w.split([known, pairs, pairs])
        logits = code.logits.split([known, pairs, pairs])
        means = code.mean.split([known, pairs, pairs])
        surprise = F.cross_entropy(logits[0], labels, reduction="none")
        found = {"cross_entropy": gather_rows(surprise, shared)[0].mean()}
        total = labelled * found["cross_entropy"]
        if rate:
            found["rate"] = pairwise_rate(
                means[0], torch.full_like(means[0], math.log(sigma)), labels, sync=sync, group=group
            )
            total = total + rate * found["rate"]
        sets = {"all": [[0, 1], [2]], "labelled": [[0]], "unlabelled": [[1], [2]]}[scored]
        together = [torch.cat([parts[k] for k in members]) for members in sets] if sigreg or moments else []
        if sigreg:
            directions = random_directions(
                num_slices, code.w.shape[1], generator=generator, device=code.w.device, dtype=code.w.dtype
            )
            beliefs = [F.one_hot(labels, code.logits.shape[1]).to(code.w), *(part.softmax(1) for part in logits[1:])]
            values = []
            for members, w in zip(sets, together, strict=True):
                if class_scale is None:
                    values.append(sliced_sigreg(w, directions, sync=sync, group=group))
                else:
                    belief = torch.cat([beliefs[k] for k in members])
                    values.append(class_sigreg(w, belief, class_scale, directions, generator, sync=sync, group=group))
            found["sigreg"] = torch.stack(values).mean()
            total = total + sigreg * found["sigreg"]
        if moments:
            values = [variance_term(w, sync=sync, group=group) for w in together]
            values += [2 * covariance_term(w, sync=sync, group=group) / 25 for w in together]  # summed over two views
            found["moments"] = torch.stack(values).sum() / len(sets)
            total = total + moments * found["moments"]
        if views:
            found["views"] = view_prediction_rate(torch.stack(means[1:]), sigma, sync=sync, group=group)
            total = total + views * found["views"]
        if consistency:
            found["consistency"] = consistency_loss(logits[1], logits[2], threshold, sync=sync, group=group)
            total = total + consistency * found["consistency"]
        return {"loss": total, **found}

    return loss


def _place(rows: int, shared: ProcessGroup | None, like: Tensor) -> tuple[int, int]:
    """Where this process's rows stand among those of all, and how many all have."""
    everyone, start = gather_rows(torch.zeros(rows, device=like.device), shared)
    return start, len(everyone)


def step_generator(seed: int, step: Tensor) -> torch.Generator:
    """The generator of one step's noise and slices: a run that is stopped and resumed, or split, draws them again."""
    return torch.Generator().manual_seed(1_000_003 * seed + int(step[0]))
