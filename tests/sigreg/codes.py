"""Codes, directions and slopes that the tests of SIGReg and of its engines share."""

import torch

from sigreg.gaussian_regularization import random_directions

GRIDS = [(17, 3.0), (17, 5.0), (2, 1.0), (3, 0.5), (4, 2.0), (8, 3.0), (33, 6.0), (64, 8.0)]


def gaussian(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def directions_for(m, d, seed=1, dtype=torch.float64):
    return random_directions(m, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def value_and_grad(loss, *inputs):
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    value = loss(*inputs)
    return value.detach(), torch.autograd.grad(value.sum(), inputs)
