r"""The networks of the book: small enough to read in one sitting and to train by the dozen."""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import nn

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
