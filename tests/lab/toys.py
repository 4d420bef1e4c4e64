"""Small random data that several tests of the laboratory draw."""

import torch
import torch.nn.functional as F

from sigreg.lab.batches import FewLabelBatches
from sigreg.lab.models import BottleneckClassifier, CodeClassifier, ConvEncoder
from sigreg.lab.views import BACKGROUND


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def networks(count, seed=0):
    torch.manual_seed(seed)
    return [BottleneckClassifier(in_features=6, hidden=(5,), latent_dim=2, num_classes=3) for _ in range(count)]


def data(n=48, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 6, generator=generator), torch.arange(n) % 3


def pictures(n=16, size=28, seed=0):
    """Smooth random ink on black, normalised: (n, 1, size, size)."""
    coarse = torch.rand(n, 1, 7, 7, generator=seeded(seed))
    return BACKGROUND + 2 * F.interpolate(coarse, size=(size, size), mode="bilinear")


def small_network(dim=5, read=None, seed=0):
    torch.manual_seed(seed)
    return CodeClassifier(ConvEncoder((4, 6), (4, 2)), latent_dim=dim, read=read, num_classes=3)


def small_batches(steps=2, labels=None, unlabelled=8, seed=0):
    kind = torch.arange(30) % 3
    images = normal(30, 1, 28, 28, dtype=torch.float32) + 3 * kind[:, None, None, None]  # a brightness for each class
    labels = kind if labels is None else labels
    sizes = {"labelled_batch": 6, "unlabelled_batch": unlabelled, "steps": steps}
    return FewLabelBatches(images, labels, torch.arange(9), seed=seed, **sizes)
