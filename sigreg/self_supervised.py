r"""Learning without labels: view prediction as the conditional rate, SIGReg for the law of the codes.

Two views of one image should get one code, and the codes of all images should look like a standard Gaussian sample.
The first wish is the conditional rate of a Gaussian encoder, with the second view in the place of the target; the
second is SIGReg.
"""

import torch
import torch.distributed as dist

from sigreg._validate import require_floating
from sigreg.gaussian_regularization import random_directions, slice_free_sigreg, sliced_sigreg

__all__ = ["lejepa_loss", "view_prediction_rate"]


def view_prediction_rate(z, sigma=1.0):
    r"""Upper bound, in nats, on the conditional rate of a code given another view of the same image.

    .. math:: \hat R = \frac{1}{\sigma^2} \, \frac1B \sum_b \frac{1}{V - 1} \sum_v |z_{vb} - \bar z_b|^2
        \;=\; \frac1B \sum_b \operatorname*{mean}_{v \ne v'} \frac{|z_{vb} - z_{v'b}|^2}{2 \sigma^2}

    The code is :math:`W = z + \sigma \varepsilon`, the backward encoder :math:`b(w | x') = N(z(x'), \sigma^2 I)`.

    Args:
        z: (V, B, D) codes of V >= 2 views.
        sigma: standard deviation of the code's noise.

    Returns:
        Scalar tensor, nats.

    Raises:
        TypeError: ``z`` is not a floating tensor.
        ValueError: fewer than two views, or ``sigma`` is not positive.

    Reference:
        Fischer (2020), arXiv 2002.05379, for the conditional rate; Balestriero and LeCun (2025), arXiv 2511.08544, for
        this term as the prediction loss of LeJEPA.

    Derived in:
        Chapter 6, Proposition 6.2.

    Example:
        >>> z = torch.tensor([[[0.0, 0.0]], [[3.0, 4.0]]])  # two views of one image, a distance of 5
        >>> view_prediction_rate(z, sigma=0.5).item()  # 25 / (2 * 0.25)
        50.0
    """
    require_floating("z", z, 3, "(V, B, D)")
    if len(z) < 2:
        raise ValueError(f"z must hold at least two views, got shape {tuple(z.shape)}")
    if not sigma > 0:
        raise ValueError(f"sigma must be positive, got {sigma}")
    return (z - z.mean(0)).square().sum((0, 2)).mean() / ((len(z) - 1) * sigma**2)


def lejepa_loss(z, generator=None, *, weight, sigma=1.0, num_slices=256, noise=False):
    r"""View prediction plus SIGReg: the Gaussian conditional rate, and the law that the codes shall have.

    .. math:: \mathcal L = \hat R_\sigma(z) + \lambda \, \mathrm{SIGReg}(w), \qquad
        w = z \;\text{ or, with noise, }\; w = z + \sigma \varepsilon

    Without ``noise`` only :math:`\lambda \sigma^2` matters, up to the scale of the loss.

    Args:
        z: (V, B, D) codes of V >= 2 views.
        generator: torch.Generator on the CPU for slices and noise; by default the global one.
        weight: :math:`\lambda \ge 0`.
        sigma: standard deviation of the code's noise.
        num_slices: M random directions, or None for the slice-free form.
        noise: score the noisy codes, whose law the bottleneck speaks of, and not their means.

    Returns:
        Dictionary of scalar tensors: ``"loss"``, ``"rate"`` (nats) and ``"sigreg"``.

    Raises:
        TypeError, ValueError: as in :func:`view_prediction_rate`; or ``weight`` is negative.

    Reference:
        Balestriero and LeCun (2025), arXiv 2511.08544; read as a bottleneck by Domb (2026), arXiv 2604.27743.

    Derived in:
        Chapter 6, Proposition 6.3.

    Example:
        >>> z = torch.randn(2, 256, 8, generator=torch.Generator().manual_seed(0))  # views that share nothing
        >>> found = lejepa_loss(z, torch.Generator().manual_seed(1), weight=10.0)
        >>> round(found["rate"].item()), round(found["sigreg"].item())  # D nats, and the null mean
        (8, 1)
    """
    if not weight >= 0:
        raise ValueError(f"weight must be 0 or more, got {weight}")
    rate = view_prediction_rate(z, sigma)
    if noise:
        v, b, d = z.shape
        z = z + sigma * _own_part(torch.randn(v, b * _processes(), d, generator=generator)).to(z)
    if num_slices is None:
        value = slice_free_sigreg(z)
    else:
        directions = random_directions(num_slices, z.shape[-1], generator=generator, device=z.device, dtype=z.dtype)
        value = sliced_sigreg(z, directions)
    return {"loss": rate + weight * value, "rate": rate, "sigreg": value}


def _processes():
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _own_part(noise):
    """This process's share of what was drawn for the whole batch, (V, B of all, D) to (V, B, D)."""
    return noise if _processes() == 1 else noise.chunk(_processes(), 1)[dist.get_rank()]
