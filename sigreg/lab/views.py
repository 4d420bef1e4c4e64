r"""Random views of images: a crop, a flip, a rotation and the strength of the ink, in one resampling."""

import math

import torch
import torch.nn.functional as F

from sigreg._validate import require_floating
from sigreg.lab.data import MEAN, STD

BACKGROUND = -MEAN / STD  # a black pixel, normalised: what lies outside an image
WEAK = {"scale": (0.7, 1.0), "ratio": 1.15, "degrees": 5.0, "intensity": 0.1}

STRONG = {"scale": (0.3, 1.0), "ratio": 4 / 3, "degrees": 10.0, "intensity": 0.3}


def random_views(images, generator, *, size=None, scale=(0.3, 1.0), ratio=4 / 3, flip=0.5, degrees=10.0, intensity=0.3):
    r"""One random view of every image: crop and resize, flip, rotation, in a single resampling; then ink strength.

    .. math:: \text{view}(u) = b + g \cdot \bigl(\text{image}(A u + c) - b\bigr), \qquad
        A = R_\theta \, \mathrm{diag}(\pm s_x, s_y), \quad g \sim \mathcal U(1 - \iota, 1 + \iota)

    with u in [-1, 1]^2, b the black of the background, :math:`s_x s_y` the share of the area that the crop keeps,
    :math:`s_x / s_y` its ratio and c a centre that leaves an upright crop inside the image. Every image has its own
    numbers. They are drawn on the CPU; the resampling (bilinear) runs where the images are.

    Args:
        images: (B, 1, H, W), normalised as :func:`sigreg.lab.data.fashion_mnist_tensors` gives them.
        generator: torch.Generator on the CPU.
        size: height and width of the views; by default those of the images. Smaller views are cheaper.
        scale: smallest and largest share of the area that is kept; (1, 1) for no crop.
        ratio: largest width / height of the crop, at least 1; its inverse is the smallest; logarithm uniform.
        flip: probability of a left-right flip.
        degrees: the angle is uniform in [-degrees, degrees].
        intensity: :math:`\iota` in [0, 1).

    Returns:
        Tensor (B, 1, size, size), or of the images' own height and width.

    Raises:
        TypeError: ``images`` is not a floating tensor.
        ValueError: a setting is out of its range.

    Reference:
        The random resized crop of Szegedy et al. (2015), arXiv 1409.4842, as in Chen et al. (2020), arXiv 2002.05709.

    Derived in:
        Chapter 6, section 6.6, where each of them is left out in turn.

    Example:
        >>> images = torch.rand(8, 1, 28, 28)
        >>> random_views(images, torch.Generator().manual_seed(0), size=14).shape
        torch.Size([8, 1, 14, 14])
        >>> still = dict(scale=(1, 1), ratio=1, flip=0, degrees=0, intensity=0)
        >>> torch.allclose(random_views(images, torch.Generator(), **still), images, atol=1e-5)
        True
    """
    require_floating("images", images, 4, "(B, 1, H, W)")
    maps, gain = view_maps(
        torch.rand(7, len(images), generator=generator),
        scale=scale,
        ratio=ratio,
        flip=flip,
        degrees=degrees,
        intensity=intensity,
    )
    ink = resample(images - BACKGROUND, maps.to(images), gain.to(images), size)
    return BACKGROUND + ink


def view_maps(u, *, scale=(0.3, 1.0), ratio=4 / 3, flip=0.5, degrees=10.0, intensity=0.3):
    """From uniform numbers ``u`` (7, ...) to the affine maps (..., 2, 3) and the gains (...) of views, on its device.

    >>> maps, gain = view_maps(torch.full((7, 4), 0.5), flip=0)  # the middle of every range
    >>> maps.shape, gain
    (torch.Size([4, 2, 3]), tensor([1., 1., 1., 1.]))
    """
    if not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(f"scale must be two shares with 0 < smallest <= largest <= 1, got {tuple(scale)}")
    if not ratio >= 1:
        raise ValueError(f"ratio must be at least 1, got {ratio}")
    if not 0 <= flip <= 1:
        raise ValueError(f"flip must be a probability, got {flip}")
    if not 0 <= intensity < 1:
        raise ValueError(f"intensity must lie in [0, 1), got {intensity}")
    area = scale[0] + (scale[1] - scale[0]) * u[0]
    shape = torch.exp(math.log(ratio) * (2 * u[1] - 1))
    width, height = (area * shape).sqrt().clamp_max(1), (area / shape).sqrt().clamp_max(1)  # shares of the image
    x, y = (1 - width) * (2 * u[2] - 1), (1 - height) * (2 * u[3] - 1)
    mirror = torch.where(u[4] < flip, -1.0, 1.0)
    angle = math.radians(degrees) * (2 * u[5] - 1)
    gain = 1 + intensity * (2 * u[6] - 1)
    cos, sin = angle.cos(), angle.sin()
    rows = [cos * width * mirror, -sin * height, x, sin * width * mirror, cos * height, y]
    return torch.stack(rows, -1).unflatten(-1, (2, 3)), gain


def resample(ink, maps, gain, size=None):
    """Views (B, 1, size, size) of images of ink (B, 1, H, W), whose paper is 0, under given maps and gains."""
    target = (len(ink), 1, *((size, size) if size is not None else ink.shape[-2:]))
    grid = F.affine_grid(maps, target, align_corners=False)
    seen = F.grid_sample(ink, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return gain.view(-1, 1, 1, 1) * seen
