r"""Learning from few labels: the conditional bottleneck where labels are known, the law of the codes everywhere.

The code of an input is :math:`W = \mu(X) + \sigma \varepsilon`. The conditional bottleneck splits into a rate that
needs no label and a relevance that does,

.. math:: \beta\, I(X;W|Y) - I(W;Y) = \beta\, I(X;W) - (1 + \beta)\, I(W;Y),

and every term of :func:`few_label_objective` stands for a piece of it: cross-entropy for the relevance, a rate from
minibatch marginals for :math:`I(X;W|Y)` on the labelled images, SIGReg for the law of *all* codes (which fixes
:math:`I(X;W)`, Chapter 5, Proposition 5.2), the distance of two views for what no label could ask for. Letters: B
examples, D latent dimensions, C classes; all rates are in nats.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from sigreg._validate import require_floating, require_labels
from sigreg.conditional_bottleneck import pairwise_rate
from sigreg.gaussian_regularization import random_directions, sliced_sigreg
from sigreg.models import SharedBatchNorm, mlp
from sigreg.self_supervised import random_views, view_prediction_rate

WEAK = {"scale": (0.7, 1.0), "ratio": 1.15, "degrees": 5.0, "intensity": 0.1}
STRONG = {"scale": (0.3, 1.0), "ratio": 4 / 3, "degrees": 10.0, "intensity": 0.3}
CURVATURE = math.sqrt(2 * math.pi) / (3 * math.sqrt(3))  # Proposition 5.8: SIGReg / N against a small error of the law

# ---------------------------------------------------------------- what the law of the codes fixes


def standard_code_rate(dim, sigma):
    r"""Rate of a code :math:`W = \mu(X) + \sigma \varepsilon` whose law is exactly N(0, I), in nats.

    .. math:: I(X;W) = h(W) - h(W|X) = D \log \frac1\sigma

    It depends on nothing else: an encoder can choose what it remembers, but not how much.

    Args:
        dim: D.
        sigma: standard deviation of the noise in each coordinate, in (0, 1].

    Returns:
        A float, nats.

    Raises:
        ValueError: ``dim`` is below 1, or ``sigma`` lies outside (0, 1].

    Reference:
        The entropy of a Gaussian; the reading is ours.

    Derived in:
        Chapter 5, Proposition 5.2.

    Example:
        >>> round(standard_code_rate(16, 0.3), 2)  # of which ten classes can use log 10 = 2.30
        19.26
    """
    if dim < 1:
        raise ValueError(f"dim must be at least 1, got {dim}")
    if not 0 < sigma <= 1:
        raise ValueError(f"sigma must lie in (0, 1], the noise being part of a code of variance 1, got {sigma}")
    return -dim * math.log(sigma)


def sigreg_weight(dim, count, nats=1.0):
    r"""The weight that makes SIGReg count a small error of scale as ``nats`` times KL(p(w) || N(0, I)).

    .. math:: \lambda = \mathrm{nats} \cdot \frac{D}{c N}, \qquad c = \frac{\sqrt{2\pi}}{3 \sqrt 3}

    For an error of the mean the same weight counts twice the divergence.

    Args:
        dim: D.
        count: N, codes that SIGReg scores together.
        nats: weight of the divergence.

    Returns:
        A float.

    Raises:
        ValueError: ``dim`` or ``count`` is below 1, or ``nats`` is negative.

    Reference:
        Ours.

    Derived in:
        Chapter 5, Proposition 5.8.

    Example:
        >>> round(sigreg_weight(16, 256), 3)
        0.13
    """
    if dim < 1 or count < 1:
        raise ValueError(f"dim and count must be at least 1, got {dim} and {count}")
    if not nats >= 0:
        raise ValueError(f"nats must be 0 or more, got {nats}")
    return nats * dim / (CURVATURE * count)


def class_sigreg(w, responsibilities, scale, directions, generator=None):
    r"""SIGReg given the class: the codes of each class shall be Gaussian about the mean of the class.

    .. math:: \mathrm{SIGReg}\Bigl(\frac{w_i - m_{k_i}}{s}\Bigr), \qquad k_i \sim r_i, \qquad
        m_k = \frac{\sum_i r_{ik} w_i}{\sum_i r_{ik}}

    The law asked for is a mixture of C Gaussians, with room between them. The class of a labelled code is known (its
    row of r is one-hot); that of another is drawn from what the decoder believes. The means carry no gradient.

    Args:
        w: codes, (B, D), floating.
        responsibilities: r, probabilities of the classes, (B, C).
        scale: s, the standard deviation within a class.
        directions: unit vectors, (M, D).
        generator: torch.Generator on the CPU for the classes; by default the global one.

    Returns:
        Scalar tensor; about 1 where every class is Gaussian with standard deviation s.

    Raises:
        TypeError: an argument is not a floating tensor.
        ValueError: the shapes do not fit, or ``scale`` is not positive.

    Reference:
        The backward encoder of Fischer (2020), arXiv 2002.05379, with a fixed width, tested by SIGReg.

    Derived in:
        Chapter 5, Proposition 5.7.

    Example:
        >>> w = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
        >>> y = torch.arange(400) % 4
        >>> far = 20.0 * torch.eye(4)[y][:, :3] + 0.5 * w
        >>> value = class_sigreg(far, F.one_hot(y, 4).float(), 0.5, torch.eye(3))
        >>> 0.3 < value < 3
        tensor(True)
    """
    require_floating("w", w, 2, "(B, D)")
    require_floating("responsibilities", responsibilities, 2, "(B, C)")
    if len(responsibilities) != len(w):
        raise ValueError(f"responsibilities must have one row a code, {len(w)}, got {len(responsibilities)}")
    if not scale > 0:
        raise ValueError(f"scale must be positive, got {scale}")
    r = responsibilities.detach()
    means = (r.T @ w.detach()) / r.sum(0).clamp_min(1e-6)[:, None]
    classes = torch.multinomial(r.cpu(), 1, generator=generator)[:, 0].to(w.device)
    return sliced_sigreg((w - means[classes]) / scale, directions)


def consistency_loss(weak_logits, strong_logits, threshold=0.9):
    r"""Cross-entropy of a strong view against the label that the weak view is sure of.

    .. math:: \frac1B \sum_i \mathbf 1[\max_y q(y|w_i) > \tau]\, \bigl(-\log q(\hat y_i | w'_i)\bigr), \qquad
        \hat y_i = \arg\max_y q(y|w_i)

    No gradient reaches the weak view.

    Args:
        weak_logits, strong_logits: scores of two views of the same images, (B, C).
        threshold: :math:`\tau` in [0, 1).

    Returns:
        Scalar tensor, nats.

    Raises:
        TypeError: a tensor of scores is not floating.
        ValueError: the shapes differ, or ``threshold`` is out of range.

    Reference:
        Sohn et al. (2020), arXiv 2001.07685, FixMatch, equation 4.

    Derived in:
        Nothing to derive; the baseline of Chapter 5.

    Example:
        >>> sure, unsure = torch.tensor([[9.0, 0.0]]), torch.tensor([[0.1, 0.0]])
        >>> consistency_loss(sure, torch.zeros(1, 2)), consistency_loss(unsure, torch.zeros(1, 2))
        (tensor(0.6931), tensor(0.))
    """
    require_floating("weak_logits", weak_logits, 2, "(B, C)")
    require_floating("strong_logits", strong_logits, 2, "(B, C)")
    if weak_logits.shape != strong_logits.shape:
        raise ValueError(f"the two must have one shape, got {tuple(weak_logits.shape)}, {tuple(strong_logits.shape)}")
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold must lie in [0, 1), got {threshold}")
    sure, label = weak_logits.detach().softmax(1).max(1)
    return ((sure > threshold) * F.cross_entropy(strong_logits, label, reduction="none")).mean()


@torch.no_grad()
def variance_between(w, labels):
    r"""Share of the codes' variance that lies between the class means: 0 for one cloud, 1 for C points.

    .. math:: \frac{\sum_y n_y |m_y - m|^2}{\sum_i |w_i - m|^2}

    Args:
        w: codes, (N, D), floating.
        labels: integer classes, (N,).

    Returns:
        A float in [0, 1].

    Raises:
        TypeError, ValueError: wrong types or shapes, or all codes are equal.

    Reference:
        Fisher (1936): the decomposition of the variance.

    Derived in:
        Chapter 5, section 5.7.

    Example:
        >>> w = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
        >>> round(variance_between(w, torch.tensor([0, 0, 1, 1])), 4)  # 100 / 104
        0.9615
    """
    require_floating("w", w, 2, "(N, D)")
    require_labels("labels", labels, len(w))
    w = w.cpu().double()
    w = w - w.mean(0)
    member = F.one_hot(labels.cpu()).double()
    size = member.sum(0)
    means = (member.T @ w) / size.clamp_min(1)[:, None]
    total = w.square().sum().item()
    if not total > 0:
        raise ValueError("w has no variance: all codes are equal")
    return (size @ means.square().sum(1)).item() / total


# ---------------------------------------------------------------- data and network


def balanced_draw(labels, count, generator):
    """Places of ``count`` examples, equally many of each class, drawn without replacement.

    Args:
        labels: integer classes 0..C-1, (N,).
        count: a multiple of C.
        generator: torch.Generator on the CPU.

    Returns:
        (count,) integer tensor on the CPU, class by class.

    Raises:
        TypeError, ValueError: ``labels`` are not integers; ``count`` is not a multiple of C, or a class is too small.

    Derived in:
        Nothing to derive.

    Example:
        >>> labels = torch.arange(40) % 4
        >>> labels[balanced_draw(labels, 8, torch.Generator().manual_seed(0))].bincount()
        tensor([2, 2, 2, 2])
    """
    labels = require_labels("labels", labels, len(labels)).cpu()
    sizes = torch.bincount(labels)
    if count < len(sizes) or count % len(sizes):
        raise ValueError(f"count must be a positive multiple of the {len(sizes)} classes, got {count}")
    each = count // len(sizes)
    if each > sizes.min():
        raise ValueError(f"count={count} asks for {each} examples of a class that has {int(sizes.min())}")
    found = []
    for y in range(len(sizes)):
        members = (labels == y).nonzero()[:, 0]
        found.append(members[torch.randperm(len(members), generator=generator)[:each]])
    return torch.cat(found)


class FewLabelBatches:
    r"""Batches of labelled views beside pairs of views of unlabelled images, the same whenever they are iterated.

    Args:
        images: (N, 1, H, W), all images; the labels of most are never looked at.
        labels: (N,) integer classes.
        labelled: places of the images whose label is known.
        labelled_batch: labelled images a step, drawn with replacement.
        unlabelled_batch: images a step of which two views are made; 0 for none.
        steps: number of batches.
        seed: of order and views.

    Yields:
        ``(view, labels, weak, strong, step)``: a weak view of labelled images with their labels, a weak and a strong
        view of the same unlabelled images, and the number of the step, once for each labelled image.

    Raises:
        TypeError, ValueError: wrong types, or sizes below those allowed.

    Reference:
        Weak and strong views as in Sohn et al. (2020), arXiv 2001.07685.

    Derived in:
        Nothing to derive.

    Example:
        >>> images, labels = torch.zeros(30, 1, 28, 28), torch.arange(30) % 3
        >>> batches = FewLabelBatches(images, labels, torch.arange(6), labelled_batch=4, unlabelled_batch=8, steps=2)
        >>> [tuple(part.shape) for part in next(iter(batches))]
        [(4, 1, 28, 28), (4,), (8, 1, 28, 28), (8, 1, 28, 28), (4,)]
    """

    def __init__(self, images, labels, labelled, *, labelled_batch, unlabelled_batch, steps, seed=0):
        require_floating("images", images, 4, "(N, 1, H, W)")
        require_labels("labels", labels, len(images))
        for name, value, least in (
            ("labelled_batch", labelled_batch, 1),
            ("unlabelled_batch", unlabelled_batch, 0),
            ("steps", steps, 1),
            ("labelled", len(labelled), 1),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        self.images, self.labels, self.labelled = images, labels, labelled.cpu()
        self.sizes, self.steps, self.seed = (labelled_batch, unlabelled_batch), steps, seed

    def __len__(self):
        return self.steps

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.seed)
        device = self.images.device
        for step in range(self.steps):
            known = self.labelled[torch.randint(len(self.labelled), self.sizes[:1], generator=generator)].to(device)
            view = random_views(self.images[known], generator, **WEAK)
            weak = strong = self.images[:0]
            if self.sizes[1]:
                others = torch.randint(len(self.images), self.sizes[1:], generator=generator).to(device)
                weak = random_views(self.images[others], generator, **WEAK)
                strong = random_views(self.images[others], generator, **STRONG)
            yield view, self.labels[known], weak, strong, torch.full_like(known, step)


class CodeOfViews(NamedTuple):
    """One pass: the means of the codes, the codes with their noise, the decoder's scores."""

    mean: torch.Tensor  # (B, D)
    w: torch.Tensor  # (B, D)
    logits: torch.Tensor  # (B, C)


class CodeClassifier(nn.Module):
    r"""A backbone, a linear code with fixed noise, and a linear softmax decoder that reads some of its coordinates.

    .. math:: \mu(x) = A\,\mathrm{encoder}(x) + b, \qquad w = \mu(x) + \sigma \varepsilon, \qquad
        q(y|w) = \mathrm{softmax}(G\, w_{1..r} + c)_y

    With ``read`` = r < D the other D - r coordinates are free: they can hold what the law of the codes demands and
    the classes do not.

    Args:
        encoder: a :class:`sigreg.models.ConvEncoder`.
        latent_dim: D.
        read: r, coordinates that the decoder reads; all by default.
        num_classes: C.

    Shape:
        ``images`` (B, 1, H, W) and ``noise`` (B, D), already scaled by sigma (None for none), to
        :class:`CodeOfViews`.

    Raises:
        ValueError: ``read`` is not in 1..D.

    Reference:
        Fischer (2020), arXiv 2002.05379, with one fixed noise for all inputs.

    Derived in:
        Chapter 5, section 5.1.

    Example:
        >>> from sigreg.models import ConvEncoder
        >>> network = CodeClassifier(ConvEncoder((4,), (4,)), latent_dim=6, read=4, num_classes=3)
        >>> code = network(torch.zeros(5, 1, 28, 28))
        >>> code.w.shape, code.logits.shape
        (torch.Size([5, 6]), torch.Size([5, 3]))
    """

    def __init__(self, encoder, latent_dim=16, read=None, num_classes=10):
        super().__init__()
        read = latent_dim if read is None else read
        if not 1 <= read <= latent_dim:
            raise ValueError(f"read must lie in 1..{latent_dim}, the dimensions of the code, got {read}")
        self.encoder = encoder
        self.code = mlp((encoder.features, latent_dim))
        self.decoder = nn.Linear(read, num_classes)

    def forward(self, images, noise=None):
        mean = self.code(self.encoder(images))
        w = mean if noise is None else mean + noise
        return CodeOfViews(mean, w, self.decoder(w[:, : self.decoder.in_features]))


@torch.no_grad()
def refresh_norms(network, images, batch_size=500):
    """Replace the moments kept by batch norm by those of whole images: in training it saw crops.

    Args:
        network: a module with :class:`sigreg.models.SharedBatchNorm` layers; its parameters stay.
        images: (N, 1, H, W), of the training set, no labels needed.
        batch_size: images at a time; the moments of the batches are averaged.

    Raises:
        TypeError: ``images`` is not a floating tensor.

    Derived in:
        Nothing to derive.

    Example:
        >>> layer = SharedBatchNorm(1)
        >>> refresh_norms(layer, torch.full((4, 1, 2, 2), 3.0), batch_size=2)
        >>> layer.running_mean.item()
        3.0
    """
    require_floating("images", images, 4, "(N, 1, H, W)")
    norms = [m for m in network.modules() if isinstance(m, SharedBatchNorm)]
    kept, training = [m.momentum for m in norms], network.training
    network.train()
    for i, part in enumerate(images.split(batch_size)):
        for m in norms:
            m.momentum = 1 / (i + 1)
        network(part)
    for m, momentum in zip(norms, kept, strict=True):
        m.momentum = momentum
    network.train(training)


# ---------------------------------------------------------------- the loss


def few_label_objective(
    *,
    sigma=0.3,
    labelled=1.0,
    rate=0.0,
    sigreg=0.0,
    views=0.0,
    consistency=0.0,
    scored="all",
    class_scale=None,
    threshold=0.9,
    num_slices=64,
    seed=0,
):
    r"""The loss of Chapter 5 as :func:`sigreg.fit.fit` wants it, for :class:`CodeClassifier`.

    .. math:: \mathcal L = a\,\bigl[-\log q(y|w)\bigr]_{\text{labelled}} + \beta\, \hat I(X;W|Y)_{\text{labelled}}
        + \lambda\, \mathrm{SIGReg}(w)_{\text{all}}
        + \alpha\, \Bigl[\frac{|\mu - \mu'|^2}{2\sigma^2}\Bigr]_{\text{views}} + \kappa\, [\text{consistency}]

    Noise and slices of a step come from a generator seeded by ``seed`` and the step's number.

    Args:
        sigma: standard deviation of the code's noise.
        labelled: a, weight of the cross-entropy, which stands for the relevance.
        rate: :math:`\beta`, weight of the labelled conditional rate from minibatch marginals.
        sigreg: :math:`\lambda`, weight of SIGReg.
        views: :math:`\alpha`, weight of the rate between a weak and a strong view of unlabelled images.
        consistency: :math:`\kappa`, weight of :func:`consistency_loss`; no part of the bottleneck, a baseline.
        scored: whose codes SIGReg sees: ``"all"``, ``"labelled"`` or ``"unlabelled"``. Weak views (with the labelled
            ones) and strong views are scored apart, and averaged.
        class_scale: None for one Gaussian, or the s of :func:`class_sigreg` for one Gaussian a class.
        threshold: of the consistency loss.
        num_slices: M.
        seed: of noise and slices.

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
        >>> from sigreg.fit import fit
        >>> from sigreg.models import ConvEncoder
        >>> images = torch.randn(60, 1, 28, 28, generator=torch.Generator().manual_seed(0))
        >>> batches = FewLabelBatches(
        ...     images, torch.arange(60) % 3, torch.arange(9), labelled_batch=6, unlabelled_batch=8, steps=2
        ... )
        >>> network = CodeClassifier(ConvEncoder((4,), (4,)), latent_dim=4, num_classes=3)
        >>> history = fit(network, few_label_objective(sigreg=0.1, views=0.1), batches)
        >>> sorted(history[0])
        ['cross_entropy', 'loss', 'sigreg', 'views']
    """
    if not sigma > 0:
        raise ValueError(f"sigma must be positive, got {sigma}")
    weights = {"labelled": labelled, "rate": rate, "sigreg": sigreg, "views": views, "consistency": consistency}
    for name, weight in weights.items():
        if not weight >= 0:
            raise ValueError(f"{name} must be 0 or more, got {weight}")
    if scored not in ("all", "labelled", "unlabelled"):
        raise ValueError(f"scored must be 'all', 'labelled' or 'unlabelled', got {scored!r}")

    def loss(network, batch):
        view, labels, weak, strong, step = batch
        known, pairs = len(view), len(weak)
        if not pairs and (views or consistency or (sigreg and scored != "labelled")):
            raise ValueError("views, consistency and SIGReg on unlabelled codes need unlabelled images in the batch")
        generator = torch.Generator().manual_seed(1_000_003 * seed + int(step[0]))
        images = torch.cat([view, weak, strong])
        noise = sigma * torch.randn(len(images), network_dim(network), generator=generator)
        code = network(images, noise.to(images))
        parts = code.w.split([known, pairs, pairs])
        logits = code.logits.split([known, pairs, pairs])
        means = code.mean.split([known, pairs, pairs])
        found = {"cross_entropy": F.cross_entropy(logits[0], labels)}
        total = labelled * found["cross_entropy"]
        if rate:
            found["rate"] = pairwise_rate(means[0], torch.full_like(means[0], math.log(sigma)), labels)
            total = total + rate * found["rate"]
        if sigreg:
            sets = {"all": [[0, 1], [2]], "labelled": [[0]], "unlabelled": [[1], [2]]}[scored]
            directions = random_directions(
                num_slices, code.w.shape[1], generator=generator, device=code.w.device, dtype=code.w.dtype
            )
            beliefs = [F.one_hot(labels, code.logits.shape[1]).to(code.w), *(part.softmax(1) for part in logits[1:])]
            values = []
            for members in sets:
                w = torch.cat([parts[k] for k in members])
                if class_scale is None:
                    values.append(sliced_sigreg(w, directions))
                else:
                    belief = torch.cat([beliefs[k] for k in members])
                    values.append(class_sigreg(w, belief, class_scale, directions, generator))
            found["sigreg"] = torch.stack(values).mean()
            total = total + sigreg * found["sigreg"]
        if views:
            found["views"] = view_prediction_rate(torch.stack(means[1:]), sigma)
            total = total + views * found["views"]
        if consistency:
            found["consistency"] = consistency_loss(logits[1], logits[2], threshold)
            total = total + consistency * found["consistency"]
        return {"loss": total, **found}

    return loss


def network_dim(network):
    """D of a :class:`CodeClassifier`, also when it is wrapped for data-parallel training."""
    return getattr(network, "module", network).code[-1].out_features


@torch.no_grad()
def accuracy(network, images, labels, batch_size=1000):
    """Share of images whose class the decoder gets right from the mean of the code, in evaluation mode.

    Args:
        network: a :class:`CodeClassifier`.
        images: (N, 1, H, W).
        labels: (N,).
        batch_size: images at a time; the result does not depend on it.

    Returns:
        A float in [0, 1].

    Raises:
        TypeError, ValueError: wrong types or shapes.

    Derived in:
        Nothing to derive.

    Example:
        >>> from sigreg.models import ConvEncoder
        >>> network = CodeClassifier(ConvEncoder((4,), (4,)), latent_dim=4, num_classes=1)
        >>> accuracy(network, torch.zeros(3, 1, 28, 28), torch.zeros(3, dtype=torch.long))
        1.0
    """
    require_floating("images", images, 4, "(N, 1, H, W)")
    require_labels("labels", labels, len(images))
    training = network.training
    network.eval()
    right = 0
    for x, y in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        right += int((network(x).logits.argmax(1) == y).sum())
    network.train(training)
    return right / len(images)
