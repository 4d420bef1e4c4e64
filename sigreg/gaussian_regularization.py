r"""SIGReg: how far a batch of codes is from an isotropic Gaussian, seen along many directions."""

import math

import torch
from torch import nn

from sigreg._validate import require_floating


def random_directions(num_slices, dim, *, generator=None, device=None, dtype=None):
    r"""Unit vectors drawn uniformly from the sphere, one a row: (num_slices, dim)."""
    drawn_on = generator.device if generator is not None else device
    directions = torch.randn(num_slices, dim, generator=generator, device=drawn_on, dtype=dtype)
    directions /= torch.linalg.vector_norm(directions, dim=1, keepdim=True)
    return directions.to(device)


def plain_epps_pulley(x, *, knots=17, t_max=3.0):
    r"""The Epps-Pulley statistic of each column of ``x`` (N, M) as the formula reads: (M,)."""
    t = torch.linspace(0, t_max, knots, dtype=x.dtype, device=x.device)  # (K,)
    target = torch.exp(-t.square() / 2)
    weight = torch.full_like(t, 2 * t_max / (knots - 1))
    weight[0] /= 2
    weight[-1] /= 2
    angle = x.unsqueeze(-1) * t  # (N, M, K)
    error = (angle.cos().mean(0) - target).square() + angle.sin().mean(0).square()  # (M, K)
    return len(x) * error @ (weight * target)


def plain_sliced_sigreg(z, directions, *, knots=17, t_max=3.0):
    r"""SIGReg as the formula reads: the mean statistic of the projections of ``z`` on ``directions``."""
    views = z if z.ndim == 3 else z.unsqueeze(0)  # (V, N, D)
    return torch.stack([plain_epps_pulley(v @ directions.T, knots=knots, t_max=t_max) for v in views]).mean()


def epps_pulley(x, *, knots=17, t_max=3.0):
    r"""The Epps-Pulley statistic of each column of ``x`` (N, M): (M,)."""
    require_floating("x", x, 2, "(N, M)")
    return plain_epps_pulley(x, knots=knots, t_max=t_max)


def sliced_sigreg(z, directions, *, knots=17, t_max=3.0):
    r"""SIGReg of codes ``z`` (N, D) or (V, N, D) along given unit ``directions`` (M, D): a scalar."""
    require_floating("z", z, (2, 3), "(N, D) or (V, N, D)")
    return plain_sliced_sigreg(z, directions, knots=knots, t_max=t_max)


class SIGReg(nn.Module):
    r"""SIGReg with fresh directions at each call."""

    def __init__(self, num_slices=256, knots=17, t_max=3.0):
        super().__init__()
        self.num_slices, self.knots, self.t_max = num_slices, knots, t_max

    def forward(self, z, generator=None):
        directions = random_directions(self.num_slices, z.shape[-1], generator=generator, device=z.device, dtype=z.dtype)
        return sliced_sigreg(z, directions, knots=self.knots, t_max=self.t_max)


def slice_free_sigreg(z):
    r"""SIGReg with infinitely many slices: a kernel distance to N(0, I): a scalar."""
    raise NotImplementedError("slice_free_sigreg is being written")


def epps_pulley_closed_form(x):
    r"""The Epps-Pulley statistic over the whole line, for each column of ``x`` (N, M): (M,)."""
    require_floating("x", x, 2, "(N, M)")
    pairs = torch.exp(-(x.unsqueeze(0) - x.unsqueeze(1)).square() / 2).mean((0, 1))
    cross = torch.exp(-x.square() / 4).mean(0)
    return len(x) * math.sqrt(2 * math.pi) * (pairs - math.sqrt(2) * cross + 1 / math.sqrt(3))
