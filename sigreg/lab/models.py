r"""The networks of the book: small enough to read in one sitting and to train by the dozen."""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from sigreg._validate import require_floating

LOG_STD_LIMIT = 5.0  # keeps a standard deviation within e^-5 .. e^5, where float32 rates are exact to 1e-3 nats


class GaussianEncoder(nn.Module):
    r"""A multilayer perceptron that sends an input to a diagonal Gaussian over codes.

    .. math:: p(w|x) = N(\mu(x), \operatorname{diag} \sigma(x)^2), \qquad (\mu, s) = \mathrm{MLP}(x), \quad
        \log \sigma = 5 \tanh(s / 5)

    Args:
        in_features: entries of one input; inputs of any shape (B, ...) are flattened.
        hidden: widths of the hidden layers, each followed by a ReLU.
        latent_dim: D.

    Shape:
        (B, ...) to ``mean`` and ``log_std``, (B, D) each.

    Reference:
        Alemi, Fischer, Dillon and Murphy (2017), arXiv 1612.00410, with smaller layers.

    Derived in:
        Chapter 3, Definition 3.1.

    Example:
        >>> mean, log_std = GaussianEncoder()(torch.zeros(4, 1, 28, 28))
        >>> mean.shape, log_std.shape
        (torch.Size([4, 8]), torch.Size([4, 8]))
    """

    def __init__(self, in_features=784, hidden=(512, 256), latent_dim=8):
        super().__init__()
        widths = (in_features, *hidden)
        layers = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.network = nn.Sequential(*layers, nn.Linear(widths[-1], 2 * latent_dim))

    def forward(self, x):
        mean, raw = self.network(x.flatten(1)).chunk(2, -1)
        return mean, LOG_STD_LIMIT * torch.tanh(raw / LOG_STD_LIMIT)


class Code(NamedTuple):
    """One pass through a bottleneck: the sampled codes, the Gaussians they came from, the decoder's scores."""

    w: torch.Tensor  # (B, D)
    mean: torch.Tensor  # (B, D)
    log_std: torch.Tensor  # (B, D)
    logits: torch.Tensor  # (B, C)


class BottleneckClassifier(nn.Module):
    r"""A Gaussian encoder, a linear softmax decoder, and the class Gaussians that variational CEB needs.

    .. math:: w = \mu(x) + \sigma(x) \odot \varepsilon, \qquad q(y|w) = \mathrm{softmax}(A w + c)_y

    Every loss of Chapter 3 trains this one network; only variational CEB uses ``class_mean`` and ``class_log_std``.

    Args:
        in_features, hidden, latent_dim: as for :class:`GaussianEncoder`.
        num_classes: C.

    Shape:
        ``x`` (B, ...) and standard normal ``noise`` (B, D) to a :class:`Code`.

    Reference:
        Fischer (2020), arXiv 2002.05379: encoder, backward encoder, classifier.

    Derived in:
        Chapter 3, Definition 3.1.

    Example:
        >>> network = BottleneckClassifier(in_features=6, hidden=(5,), latent_dim=2, num_classes=3)
        >>> network(torch.zeros(4, 6), torch.zeros(4, 2)).logits.shape
        torch.Size([4, 3])
    """

    def __init__(self, in_features=784, hidden=(512, 256), latent_dim=8, num_classes=10):
        super().__init__()
        self.encoder = GaussianEncoder(in_features, hidden, latent_dim)
        self.decoder = nn.Linear(latent_dim, num_classes)
        self.class_mean = nn.Parameter(torch.zeros(num_classes, latent_dim))
        self.class_log_std = nn.Parameter(torch.zeros(num_classes, latent_dim))

    def forward(self, x, noise):
        mean, log_std = self.encoder(x)
        w = mean + torch.exp(log_std) * noise
        return Code(w, mean, log_std, self.decoder(w))


class _Average(torch.autograd.Function):
    """The mean of a tensor over all processes; its gradient is the mean of their gradients, times their number."""

    @staticmethod
    def forward(ctx, x):
        x = x.clone()
        dist.all_reduce(x)
        return x / dist.get_world_size()

    @staticmethod
    def backward(ctx, grad):
        grad = grad.clone()
        dist.all_reduce(grad)  # every process's loss depends on every process's moments
        return grad / dist.get_world_size()


class SharedBatchNorm(nn.Module):
    r"""Batch normalisation whose moments, in a process group, are those of the whole batch.

    .. math:: y = \gamma \, \frac{x - \mathrm{E}_B[x]}{\sqrt{\mathrm{E}_B[x^2] - \mathrm{E}_B[x]^2 + \epsilon}} + \delta

    torch's ``SyncBatchNorm`` runs on CUDA only; this runs anywhere, so that two processes on a laptop take the steps
    of one. Without a process group it is ``torch.nn.functional.batch_norm``. Processes must hold parts of equal size.

    Args:
        features: channels, or features of a vector.
        momentum: weight of a new batch in the moments kept for evaluation.
        eps: added to the variance.

    Shape:
        (B, features) or (B, features, H, W) to the same.

    Reference:
        Ioffe and Szegedy (2015), arXiv 1502.03167.

    Example:
        >>> y = SharedBatchNorm(3)(5 + 2 * torch.randn(64, 3, generator=torch.Generator().manual_seed(0)))
        >>> y.mean(0).abs().max() < 1e-5, (y.var(0, correction=0) - 1).abs().max() < 1e-4
        (tensor(True), tensor(True))
    """

    def __init__(self, features, momentum=0.1, eps=1e-5):
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))

    def forward(self, x):
        alone = not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)
        if alone or not self.training:
            moments = self.running_mean, self.running_var, self.weight, self.bias
            return F.batch_norm(x, *moments, self.training, self.momentum, self.eps)
        reduced = [d for d in range(x.ndim) if d != 1]
        mean, square = _Average.apply(torch.stack([x.mean(reduced), x.square().mean(reduced)]))
        variance = square - mean.square()
        count = x.numel() // x.shape[1] * dist.get_world_size()
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)  # torch keeps the unbiased one
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shape = [1, -1] + [1] * (x.ndim - 2)
        return x * scale.view(shape) + (self.bias - mean * scale).view(shape)


class ConvEncoder(nn.Module):
    r"""A small convolutional backbone: 3x3 convolutions, each with batch norm and ReLU, flattened at the end.

    .. math:: h = \mathrm{flatten}\,(f_L \circ \dots \circ f_1)(x), \qquad
        f_l(x) = \mathrm{ReLU}(\mathrm{BN}(\mathrm{conv}_{3 \times 3}^{\text{stride } s_l}(x)))

    Args:
        channels: output channels of the layers.
        strides: their strides, as many.
        size: height and width of the images.

    Shape:
        (B, 1, size, size) to (B, features); ``features`` is an attribute.

    Raises:
        ValueError: ``channels`` and ``strides`` differ in length.

    Reference:
        The plain stack of 3x3 convolutions of Springenberg et al. (2015), arXiv 1412.6806.

    Example:
        >>> encoder = ConvEncoder()
        >>> encoder(torch.zeros(2, 1, 28, 28)).shape, encoder.features
        (torch.Size([2, 1024]), 1024)
    """

    def __init__(self, channels=(16, 32, 64), strides=(2, 2, 2), size=28):
        super().__init__()
        if len(channels) != len(strides):
            raise ValueError(f"channels and strides must have equal length, got {len(channels)} and {len(strides)}")
        layers = []
        for before, after, stride in zip((1, *channels), channels, strides, strict=False):
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), SharedBatchNorm(after), nn.ReLU()]
            size = (size - 1) // stride + 1
        self.network = nn.Sequential(*layers, nn.Flatten())
        self.features = channels[-1] * size * size

    def forward(self, x):
        return self.network(x)


def mlp(widths):
    r"""Linear layers with batch norm and ReLU between them: a projector or a predictor.

    .. math:: x \mapsto A_L \, \mathrm{ReLU}(\mathrm{BN}(\cdots \mathrm{ReLU}(\mathrm{BN}(A_1 x)))) + b_L

    Args:
        widths: features of input, hidden layers and output; two of them give one linear layer.

    Returns:
        ``torch.nn.Sequential``, (B, widths[0]) to (B, widths[-1]).

    Raises:
        ValueError: fewer than two widths.

    Reference:
        The projector of Chen et al. (2020), arXiv 2002.05709, with batch norm.

    Example:
        >>> mlp((8, 16, 4))(torch.zeros(3, 8)).shape
        torch.Size([3, 4])
    """
    if len(widths) < 2:
        raise ValueError(f"widths must name at least input and output, got {tuple(widths)}")
    layers = []
    for before, after in pairwise(widths[:-1]):
        layers += [nn.Linear(before, after, bias=False), SharedBatchNorm(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


class ViewNetwork(nn.Module):
    r"""A backbone and a projector: the features are kept, the codes are trained on.

    .. math:: h = \mathrm{encoder}(x), \qquad z = \mathrm{projector}(\mathrm{pool}(h))

    Views of one size share a forward pass, and with it the moments of batch norm.

    Args:
        encoder: a :class:`sigreg.lab.models.ConvEncoder`.
        hidden: widths of the projector's hidden layers.
        latent_dim: D.
        pool: average the last maps to ``pool`` x ``pool`` before the projector; needed for views of several sizes.
            None flattens them.

    Shape:
        V views (B, 1, H, W) to codes (V, B, D).

    Raises:
        ValueError: views of a size other than the encoder's, without ``pool``.

    Reference:
        Chen et al. (2020), arXiv 2002.05709: train on the projection, keep what comes before it.

    Derived in:
        Chapter 6, section 6.4.

    Example:
        >>> from sigreg.lab.models import ConvEncoder
        >>> network = ViewNetwork(ConvEncoder(), hidden=(32,), latent_dim=8)
        >>> network(torch.zeros(4, 1, 28, 28), torch.zeros(4, 1, 28, 28)).shape
        torch.Size([2, 4, 8])
    """

    def __init__(self, encoder, hidden=(256,), latent_dim=32, pool=None):
        super().__init__()
        self.encoder, self.pool = encoder, pool
        self.channels = [m for m in encoder.modules() if isinstance(m, nn.Conv2d)][-1].out_channels
        width = encoder.features if pool is None else self.channels * pool**2
        self.projector = mlp((width, *hidden, latent_dim))

    def forward(self, *views):
        sizes = {}
        for place, view in enumerate(views):
            sizes.setdefault(view.shape[-2:], []).append(place)
        codes = [None] * len(views)
        for places in sizes.values():
            h = self.encoder(torch.cat([views[place] for place in places]))
            if self.pool is not None:
                side = math.isqrt(h.shape[1] // self.channels)
                h = F.adaptive_avg_pool2d(h.unflatten(1, (self.channels, side, side)), self.pool).flatten(1)
            elif h.shape[1] != self.encoder.features:
                raise ValueError(f"views of {views[places[0]].shape[-1]} pixels do not fit the encoder: give pool")
            for place, z in zip(places, self.projector(h).chunk(len(places)), strict=True):
                codes[place] = z
        return torch.stack(codes)


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
        encoder: a :class:`sigreg.lab.models.ConvEncoder`.
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
        >>> from sigreg.lab.models import ConvEncoder
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


def network_dim(network):
    """D of a :class:`CodeClassifier`, also when it is wrapped for data-parallel training."""
    return getattr(network, "module", network).code[-1].out_features


@torch.no_grad()
def follow(slow: nn.Module, fast: nn.Module, momentum: float) -> None:
    r"""Move the parameters of a copy a little towards those of the network that it follows.

    .. math:: \theta_{\text{slow}} \leftarrow m\, \theta_{\text{slow}} + (1 - m)\, \theta_{\text{fast}}

    >>> slow, fast = nn.Linear(1, 1), nn.Linear(1, 1)
    >>> for value, part in enumerate((slow, fast)):
    ...     _ = nn.init.constant_(part.weight, value)
    >>> follow(slow, fast, 0.75)
    >>> slow.weight.item()
    0.25
    """
    torch._foreach_lerp_(list(slow.parameters()), list(fast.parameters()), 1 - momentum)


@torch.no_grad()
def refresh_norms(network, images, batch_size=500):
    """Replace the moments kept by batch norm by those of whole images: in training it saw crops.

    Args:
        network: a module with :class:`sigreg.lab.models.SharedBatchNorm` layers; its parameters stay.
        images: (N, 1, H, W), of the training set, no labels needed.
        batch_size: images at a time; the moments of the batches are averaged.

    Raises:
        TypeError: ``images`` is not a floating tensor.

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
