r"""What VICReg says in nats: Gaussian mixtures through a network, entropy estimates, and a bound for a linear probe.

A deterministic network has no conditional entropy, so the randomness must come from the input: a small Gaussian around
each image. Where the network is affine the code is Gaussian again, and the codes of all images are a Gaussian
mixture (:func:`local_affine_maps`, :func:`mixture_entropy_bounds`). From there to VICReg's three terms leads a chain
of approximations, each of which :func:`information_steps` measures. :func:`probe_terms` and :func:`probe_bound` say
what invariance and whitening buy a linear probe. Entropies are in nats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import jacrev, vmap

from sigreg._precision import at_least_float32, without_autocast
from sigreg._validate import (
    require_count,
    require_finite,
    require_flag,
    require_floating,
    require_labels,
    require_positive,
    require_same_device,
    values_at_hand,
)
from sigreg.joint_embedding import batch_covariance, covariance_term, variance_term
from sigreg.transform_chain import EntropyEstimate

LOG_2PI_E = math.log(2 * math.pi * math.e)

# ---------------------------------------------------------------------------------------------------------
# A small Gaussian through a piecewise affine network
# ---------------------------------------------------------------------------------------------------------


def local_affine_maps(network: nn.Module, x: Tensor, batch_size: int = 64) -> tuple[Tensor, Tensor]:
    r"""The affine map that a piecewise affine network is, around each of some inputs.

    .. math:: f(x_n + \delta) = f(x_n) + A_n \delta \quad \text{for } x_n + \delta \text{ in the region of } x_n

    Args:
        network: a module in evaluation mode, (B, ...) to (B, D), whose layers are affine or piecewise linear
            (convolutions, batch norm in evaluation mode, ReLU, average pooling).
        x: floating (N, ...).
        batch_size: inputs at a time.

    Returns:
        ``(value, slope)``: (N, D), and (N, D, P) with P the entries of one input.

    Raises:
        TypeError: ``x`` is not a floating tensor.
        ValueError: ``network`` is in training mode, where batch norm ties the inputs of a batch together.

    Reference:
        Shwartz-Ziv et al. (2023), arXiv 2303.00633; Balestriero and Baraniuk (2018), arXiv 1805.06576, for networks
        as splines.

    Derived in:
        Chapter 7, Proposition 7.2.

    >>> value, slope = local_affine_maps(torch.nn.ReLU().eval(), torch.tensor([[2.0, -1.0]]))
    >>> value, slope
    (tensor([[2., 0.]]), tensor([[[1., 0.],
             [0., 0.]]]))
    """
    require_floating("x", x, (2, 3, 4), "(N, ...)")
    batch_size = require_count("batch_size", batch_size)
    _require_evaluation(network)

    def one(image: Tensor) -> tuple[Tensor, Tensor]:
        code = network(image.unsqueeze(0)).squeeze(0)
        return code, code

    values, slopes = [], []
    for part in x.split(batch_size):
        slope, value = vmap(jacrev(one, has_aux=True))(part)
        values.append(value.detach())
        slopes.append(slope.detach().flatten(2))
    return torch.cat(values), torch.cat(slopes)


def leaving_probability(network: nn.Module, x: Tensor, sigma: Sequence[float] | Tensor) -> Tensor:
    r"""An upper bound on the chance that a small Gaussian leaves the region where the network is affine.

    .. math:: P\bigl(x + \sigma\varepsilon \notin \text{region of } x\bigr)
        \le \sum_k \Phi\Bigl(-\frac{|h_k(x)|}{\sigma\, |\nabla h_k(x)|}\Bigr)

    over all inputs :math:`h_k` of the network's ReLU units. Inside the region every one of them is affine, so that
    the region is the polytope where none changes sign; the sum bounds the union.

    Args:
        network: as in :func:`local_affine_maps`, with ``torch.nn.ReLU`` modules as its only non-linearity.
        x: floating (N, ...).
        sigma: (S,) positive floats.

    Returns:
        (N, S) bounds, cut at 1.

    Raises:
        TypeError, ValueError: as in :func:`local_affine_maps`, or a sigma is not positive, or there is no ReLU.

    Reference:
        Ours; the regions are those of Balestriero and Baraniuk (2018), arXiv 1805.06576.

    Derived in:
        Chapter 7, Proposition 7.2.

    >>> relu = torch.nn.Sequential(torch.nn.Identity(), torch.nn.ReLU()).eval()
    >>> leaving_probability(relu, torch.tensor([[1.0, -3.0]]), [1.0])  # Phi(-1) + Phi(-3)
    tensor([[0.1600]])
    """
    require_floating("x", x, (2, 3, 4), "(N, ...)")
    _require_evaluation(network)
    sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
    if not (sigma > 0).all():
        raise ValueError(f"sigma must be positive, got {sigma.min().item()}")
    bounds = []
    for image in x:
        inputs = unit_inputs(network, image.unsqueeze(0)).squeeze(0)
        if not len(inputs):
            raise ValueError("network has no torch.nn.ReLU module: nothing tells where its regions end")
        # With its units frozen as they are at the image, the network is one affine map: feed it a basis, and zero.
        basis = torch.cat([torch.eye(image.numel()), torch.zeros(1, image.numel())]).to(image)
        response = unit_inputs(network, basis.view(-1, *image.shape), frozen=inputs > 0)
        distance = inputs.abs() / (response[:-1] - response[-1]).norm(dim=0).clamp_min(1e-30)
        bounds.append(torch.special.ndtr(-distance[:, None] / sigma).sum(0).clamp_max(1))
    return torch.stack(bounds)


@torch.no_grad()
def unit_inputs(network: nn.Module, x: Tensor, frozen: Tensor | None = None) -> Tensor:
    """What every ReLU unit receives, (B, ...) to (B, units); ``frozen`` (units,) may say which units let it through."""
    found: list[Tensor] = []

    def see(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        inputs = arguments[0]
        place = sum(part.shape[1] for part in found)
        found.append(inputs.flatten(1))
        if frozen is not None:
            return inputs * frozen[place : place + found[-1].shape[1]].view(1, *inputs.shape[1:])
        return None

    hooks = [module.register_forward_hook(see) for module in network.modules() if isinstance(module, nn.ReLU)]
    try:
        network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat(found, 1) if found else x.new_empty(len(x), 0)


# ---------------------------------------------------------------------------------------------------------
# The entropy of a Gaussian mixture
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MixtureBounds:
    """What encloses the entropy of an equal mixture of Gaussians, in nats, from the crudest to the finest."""

    component: float  # mean entropy of one component: the mixture has at least this
    lower: float  # pairwise, with the Bhattacharyya distance
    upper: float  # pairwise, with the Kullback-Leibler divergence
    ceiling: float  # component + log N
    gaussian: float  # the entropy of the Gaussian with the mixture's covariance


def mixture_entropy_bounds(mean: Tensor, covariance: Tensor) -> MixtureBounds:
    r"""Bounds on the entropy of an equal mixture of N Gaussians, without sampling.

    .. math:: \bar h - \frac1N \sum_i \log \frac1N \sum_j e^{-C(p_i, p_j)} \;\le\; h \;\le\;
        \bar h - \frac1N \sum_i \log \frac1N \sum_j e^{-\mathrm{KL}(p_i \Vert p_j)}, \qquad
        \bar h = \frac1N \sum_i h(p_i),

    with the Bhattacharyya distance :math:`C(p, q) = -\log \int \sqrt{pq}`. Cruder: :math:`\bar h \le h \le \bar h +
    \log N`, and h is at most the entropy of the Gaussian with the mixture's covariance.

    Args:
        mean: floating (N, D).
        covariance: (N, D, D), symmetric and positive definite.

    Returns:
        A :class:`MixtureBounds`. Time grows as N^2 D^3.

    Raises:
        TypeError, ValueError: shapes do not fit, or a covariance is not positive definite.

    Reference:
        Kolchinsky and Tracey (2017), arXiv 1706.02419.

    Derived in:
        Chapter 7, Proposition 7.4, from Chapter 3, Proposition 3.7.

    >>> mean, covariance = torch.zeros(3, 2).double(), torch.eye(2).double().expand(3, 2, 2)
    >>> bounds = mixture_entropy_bounds(mean, covariance)  # three times the same Gaussian
    >>> round(bounds.lower, 4) == round(bounds.upper, 4) == round(bounds.component, 4) == 2.8379
    True
    """
    mean, factor, log_det = _require_mixture(mean, covariance)
    n, dim = mean.shape
    component = 0.5 * dim * LOG_2PI_E + 0.5 * log_det.mean()
    covariance = covariance.to(mean)
    kl, chernoff = mean.new_empty(n, n), mean.new_empty(n, n)
    for i in range(n):
        delta = mean[i] - mean  # (N, D)
        scaled = torch.linalg.solve_triangular(factor, delta.unsqueeze(-1), upper=False).squeeze(-1)
        inner = torch.linalg.solve_triangular(factor, factor[i].expand_as(factor), upper=False)
        kl[i] = 0.5 * (inner.square().sum((1, 2)) + scaled.square().sum(1) - dim + log_det - log_det[i])
        middle = torch.linalg.cholesky((covariance[i] + covariance) / 2)
        scaled = torch.linalg.solve_triangular(middle, delta.unsqueeze(-1), upper=False).squeeze(-1)
        log_middle = 2 * middle.diagonal(dim1=1, dim2=2).log().sum(1)
        chernoff[i] = scaled.square().sum(1) / 8 + 0.5 * (log_middle - 0.5 * (log_det + log_det[i]))
    whole = covariance.mean(0) + torch.cov(mean.T, correction=0).reshape(dim, dim)
    return MixtureBounds(
        component=component.item(),
        lower=(component - (torch.logsumexp(-chernoff, 1) - math.log(n)).mean()).item(),
        upper=(component - (torch.logsumexp(-kl, 1) - math.log(n)).mean()).item(),
        ceiling=component.item() + math.log(n),
        gaussian=(0.5 * dim * LOG_2PI_E + 0.5 * torch.logdet(whole)).item(),
    )


def mixture_entropy(
    mean: Tensor, covariance: Tensor, draws: int, generator: torch.Generator | None
) -> EntropyEstimate:
    r"""The entropy of an equal mixture of N Gaussians by sampling it and asking its density.

    .. math:: \hat h = \bar h + \frac1S \sum_s \log \frac{p_{i_s}(w_s)}{\frac1N \sum_j p_j(w_s)},
        \qquad w_s \sim p_{i_s},

    with the mean entropy of a component apart, which is known: what is sampled is the information of the code about
    its component, and where components do not overlap that hardly varies.

    Args:
        mean: floating (N, D).
        covariance: (N, D, D), symmetric and positive definite.
        draws: samples of each component, at least 2; S is N times as many.
        generator: torch.Generator on the CPU.

    Returns:
        A :class:`sigreg.transform_chain.EntropyEstimate`, unbiased, with its standard error.

    Raises:
        TypeError, ValueError: as in :func:`mixture_entropy_bounds`, or fewer than 2 draws.

    Derived in:
        Chapter 7, Proposition 7.4.

    >>> centres = torch.tensor([[0.0, 0.0], [100.0, 0.0]]).double()
    >>> estimate = mixture_entropy(centres, torch.eye(2).double().expand(2, 2, 2), 5, torch.Generator().manual_seed(0))
    >>> round(estimate.nats, 4)  # log 2 pi e + log 2
    3.531
    """
    mean, factor, log_det = _require_mixture(mean, covariance)
    draws = require_count("draws", draws, 2)  # one has no spread
    n, dim = mean.shape
    drawn = []
    for _ in range(draws):
        noise = torch.randn(n, dim, 1, generator=generator, dtype=torch.float64).to(mean)
        w = mean + (factor @ noise).squeeze(-1)  # one of each component
        delta = (w - mean[:, None]).mT  # (N components, D, N samples)
        square = torch.linalg.solve_triangular(factor, delta, upper=False).square().sum(1)  # (components, samples)
        log_density = -0.5 * (square + log_det[:, None])  # up to a constant
        drawn.append(log_density.diagonal() - torch.logsumexp(log_density, 0) + math.log(n))
    values = torch.stack(drawn)  # (draws, N): every component is drawn equally often, so only its own spread counts
    component = 0.5 * dim * LOG_2PI_E + 0.5 * log_det.mean().item()
    return EntropyEstimate(component + values.mean().item(), math.sqrt(values.var(0).mean().item() / values.numel()))


def _require_mixture(mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    require_finite("mean", require_floating("mean", mean, 2, "(N, D)"))
    require_finite("covariance", require_floating("covariance", covariance, 3, "(N, D, D)"))
    if covariance.shape != (*mean.shape, mean.shape[1]):
        raise ValueError(f"covariance must have shape {(*mean.shape, mean.shape[1])}, got {tuple(covariance.shape)}")
    mean, covariance = mean.double(), covariance.double()
    factor, fault = torch.linalg.cholesky_ex(covariance)
    if fault.any():
        raise ValueError(f"covariance has {int((fault > 0).sum())} matrices that are not positive definite")
    return mean, factor, 2 * factor.diagonal(dim1=1, dim2=2).log().sum(1)


# ---------------------------------------------------------------------------------------------------------
# Entropy of codes whose law is not known
# ---------------------------------------------------------------------------------------------------------


def variance_covariance_entropy(z: Tensor) -> Tensor:
    r"""The entropy that VICReg's two regularizers stand for, in nats.

    .. math:: \hat h = \frac D2 \log 2\pi e - D\, v(z) - \frac D4\, c(z)

    with :func:`sigreg.joint_embedding.variance_term` and :func:`sigreg.joint_embedding.covariance_term`: the expansion
    of the log-determinant at unit variance and no correlation.

    Args:
        z: floating (N, D), N at least 2.

    Returns:
        A scalar tensor.

    Raises:
        TypeError, ValueError: the codes are not a floating matrix of at least 2 rows.

    Reference:
        Shwartz-Ziv et al. (2023), arXiv 2303.00633, for the reading; the constants are ours.

    Derived in:
        Chapter 7, Proposition 7.9.

    >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> variance_covariance_entropy(z)  # log 2 pi e: as much as a standard Gaussian in two dimensions
    tensor(2.8379)
    """
    dim = require_floating("z", z, 2, "(N, D)").shape[1]
    return 0.5 * dim * LOG_2PI_E - dim * variance_term(z, sync=False) - 0.25 * dim * covariance_term(z, sync=False)


def logdet_error(n: int, dim: int) -> tuple[float, float]:
    r"""Exact bias and standard deviation of the log-determinant entropy of N Gaussian samples, of any covariance.

    .. math:: \text{bias} = \frac12 \sum_{d=1}^D \psi\Bigl(\frac{N - d}{2}\Bigr) - \frac D2 \log \frac{N - 1}{2}, \qquad
        \text{variance} = \frac14 \sum_{d=1}^D \psi_1\Bigl(\frac{N - d}{2}\Bigr)

    for the unbiased sample covariance without a floor; about :math:`-D(D + 1)/4N` and :math:`D/2N`.

    Args:
        n: samples N, more than D.
        dim: D.

    Returns:
        ``(bias, standard deviation)``, floats in nats.

    Raises:
        ValueError: N is not more than D, where the sample covariance is singular.

    Reference:
        Bartlett's decomposition of a Wishart matrix; Goodman (1963) for the complex case.

    Derived in:
        Chapter 7, Proposition 7.10.

    >>> bias, deviation = logdet_error(256, 32)
    >>> round(bias, 3), round(deviation, 3)
    (-1.082, 0.259)
    """
    n, dim = require_count("n", n), require_count("dim", dim)
    if n <= dim:
        raise ValueError(f"n must be more than dim, got n={n} and dim={dim}")
    half = (n - torch.arange(1, dim + 1, dtype=torch.float64)) / 2
    bias = 0.5 * (torch.special.digamma(half).sum().item() - dim * math.log((n - 1) / 2))
    return bias, 0.5 * math.sqrt(torch.special.polygamma(1, half).sum().item())


# ---------------------------------------------------------------------------------------------------------
# From the information between two views to VICReg
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class InformationSteps:
    """One pair of views of N images, from what is certain to what VICReg maximises; all in nats."""

    contrastive: float  # InfoNCE: a lower bound in expectation
    cap: float  # log N: no code of N images carries more
    gaussian: float  # -1/2 sum log(1 - rho^2), canonical correlations: exact for jointly Gaussian codes
    logdet: float  # 1/2 log det Sigma - D/2 log(error): Gaussian entropy, one variance for the error
    diagonal: float  # the same, with the variances instead of the determinant
    vicreg: float  # the same, with VICReg's two terms, after the codes are scaled to unit variance


def information_steps(z_a: Tensor, z_b: Tensor) -> InformationSteps:
    r"""What the code of one view is said to know of the other view: bounds, and VICReg's approximations.

    .. math:: \text{InfoNCE} \;\le\; I(Z; Z') \;\le\; \log N, \qquad
        \text{log-det: } \frac12 \log\det\Sigma - \frac D2 \log s, \quad s = \frac1D E|z - z'|^2

    The last one is :math:`\hat h(Z) + E \log q(Z|z')` with :math:`q = N(z', s I)`: an upper bound minus a lower one,
    and so no bound. ``cap`` is of the empirical law: the N images equally likely, and two independent views of one.

    Args:
        z_a, z_b: floating (N, D), the codes of two views of N different images, N at least 4 D.

    Returns:
        An :class:`InformationSteps`.

    Raises:
        TypeError, ValueError: not two finite floating matrices of one shape, or too few rows.

    Reference:
        Poole et al. (2019), arXiv 1905.06922, for InfoNCE; Shwartz-Ziv et al. (2023), arXiv 2303.00633.

    Derived in:
        Chapter 7, Propositions 7.6 to 7.9.

    >>> generator = torch.Generator().manual_seed(0)
    >>> shared, a, b = torch.randn(3, 4000, 2, generator=generator, dtype=torch.float64)
    >>> steps = information_steps(shared + 0.1 * a, shared + 0.1 * b)
    >>> -math.log(1 - 1 / 1.01**2), round(steps.gaussian, 2)  # 3.93 nats, and its estimate
    (3.92..., 3.9...)
    """
    for name, z in (("z_a", z_a), ("z_b", z_b)):
        require_finite(name, require_floating(name, z, 2, "(N, D)"))
    if z_a.shape != z_b.shape or len(z_a) < 4 * z_a.shape[1]:
        shapes = f"{tuple(z_a.shape)} and {tuple(z_b.shape)}"
        raise ValueError(f"z_a and z_b must have one shape (N, D) with N >= 4 D, got {shapes}")
    z_a, z_b = z_a.double(), z_b.double()
    dim = z_a.shape[1]
    error = (z_a - z_b).square().mean()
    joint = batch_covariance(torch.cat([z_a, z_b], 1))
    sigma = (joint[:dim, :dim] + joint[dim:, dim:]) / 2
    both = torch.cat([z_a - z_a.mean(0), z_b - z_b.mean(0)]) / sigma.diagonal().sqrt()
    standard = variance_covariance_entropy(both) - 0.5 * dim * LOG_2PI_E  # of unit-variance codes
    log_variance = sigma.diagonal().log().sum()
    log_error = dim * error.log()
    gaussian = 0.5 * (torch.logdet(joint[:dim, :dim]) + torch.logdet(joint[dim:, dim:]) - torch.logdet(joint))
    return InformationSteps(
        contrastive=infonce_information(z_a, z_b),
        cap=math.log(len(z_a)),
        gaussian=gaussian.item(),
        logdet=0.5 * (torch.logdet(sigma) - log_error).item(),
        diagonal=0.5 * (log_variance - log_error).item(),
        vicreg=(standard + 0.5 * (log_variance - log_error)).item(),
    )


def infonce_information(
    z_a: Tensor, z_b: Tensor, temperatures: Sequence[float] = (0.5, 1.0, 2.0, 4.0, 8.0), block: int = 1000
) -> float:
    r"""InfoNCE with a Gaussian critic: a lower bound, in expectation, on the information between two views.

    .. math:: \log N + \frac1N \sum_i \log \frac{e^{-|z_i - z'_i|^2 / 2\tau s}}{\sum_j e^{-|z_i - z'_j|^2 / 2 \tau s}}
        \;\le\; \log N

    with s the mean squared error a coordinate. The temperature is the one that is best on the first half of the
    images; the value is that of the second half.

    Args:
        z_a, z_b: floating (N, D).
        temperatures: candidates for tau.
        block: rows at a time; the result does not depend on it.

    Returns:
        A float, in nats, at most log(N / 2).

    Raises:
        TypeError, ValueError: not two finite floating matrices of one shape with at least 4 rows, or a setting is not
            positive.

    Derived in:
        Chapter 7, Proposition 7.6.

    >>> z = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    >>> far = infonce_information(100 * z, 100 * z + 0.01)
    >>> round(far, 3) == round(math.log(200), 3)
    True
    """
    for name, z in (("z_a", z_a), ("z_b", z_b)):
        require_finite(name, require_floating(name, z, 2, "(N, D)"))
    if z_a.shape != z_b.shape or len(z_a) < 4:
        shapes = f"{tuple(z_a.shape)} and {tuple(z_b.shape)}"
        raise ValueError(f"z_a and z_b must have one shape (N, D) with N >= 4, got {shapes}")
    require_same_device(z_a=z_a, z_b=z_b)
    if not values_at_hand(z_a, z_b):
        raise ValueError("z_a lives where there are no numbers to look at, like the meta device")
    block = require_count("block", block)
    temperatures = [require_positive("temperatures", temperature) for temperature in temperatures]
    dtype = torch.promote_types(torch.promote_types(z_a.dtype, z_b.dtype), torch.float32)
    z_a, z_b = z_a.to(dtype), z_b.to(dtype)
    half = len(z_a) // 2
    error = (z_a - z_b).square().mean()

    def value(a: Tensor, b: Tensor, temperature: float) -> float:
        total = 0.0
        for start in range(0, len(a), block):
            rows = a[start : start + block]
            square = (rows.square().sum(1)[:, None] + b.square().sum(1) - 2 * rows @ b.T).clamp_min(0)
            place = torch.arange(start, start + len(rows), device=a.device)
            total += F.cross_entropy(-square / (2 * temperature * error), place, reduction="sum").item()
        return math.log(len(a)) - total / len(a)

    centre = z_a.mean(0)
    a, b = z_a - centre, z_b - centre
    best = max(temperatures, key=lambda temperature: value(a[:half], b[:half], temperature))
    return value(a[half:], b[half:], best)


# ---------------------------------------------------------------------------------------------------------
# What invariance and whitening buy a linear probe
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ProbeTerms:
    """What the bound on a probe's squared error is made of; targets are the corners of the simplex."""

    risk: float  # least squares on single views, the best that any probe can do
    averaged_risk: float  # the same probe on each image's mean code
    jitter: float  # what the views move its predictions: risk = averaged_risk + jitter
    invariance: float  # E|z - z'|^2 / 2, the spread of one image's codes
    class_spread: float  # E|mean code - mean of its class|^2
    least_variance: float  # smallest eigenvalue of the codes' covariance
    label_variance: float  # largest eigenvalue of Cov(Y): 1 / C for balanced classes
    norm: float  # |W|^2 of the best probe, with its constant
    radius: float  # L^2 = 1 + largest |z|^2
    dim: int
    classes: int

    @property
    def jitter_bound(self) -> float:
        """Invariance times the largest squared gain that whitening leaves to the probe."""
        return self.invariance * self.label_variance / self.least_variance


def probe_terms(codes: Tensor, labels: Tensor) -> ProbeTerms:
    r"""The terms of :func:`probe_bound` from several views of many images that the encoder has not seen.

    .. math:: \underbrace{E|Y - W z|^2}_{\text{risk}} = \underbrace{E|Y - W \bar z|^2}_{\text{averaged risk}}
        + \underbrace{E|W(z - \bar z)|^2}_{\text{jitter}}, \qquad
        \text{jitter} \le \frac{\lambda_{\max}(\operatorname{Cov} Y)}{\lambda_{\min}(\operatorname{Cov} z)}
        \cdot \tfrac12 E|z - z'|^2

    with :math:`\bar z` the mean code of an image over its views, z' another view, and W the least-squares probe with a
    constant.

    Args:
        codes: floating (V, N, D), V at least 2 independent views.
        labels: (N,) integers.

    Returns:
        A :class:`ProbeTerms`. Spreads within an image are unbiased for V views; W is that of the sample.

    Raises:
        TypeError, ValueError: shapes do not fit, or the codes are not finite.

    Reference:
        Ours, in place of the bound of Shwartz-Ziv et al. (2023), arXiv 2303.00633.

    Derived in:
        Chapter 7, Propositions 7.11 and 7.12.

    >>> z = torch.eye(2).repeat(50, 1) + 0.1 * torch.randn(2, 100, 2, generator=torch.Generator().manual_seed(0))
    >>> terms = probe_terms(z, torch.arange(100) % 2)
    >>> abs(terms.invariance - 0.02) < 0.005, terms.jitter <= terms.jitter_bound
    (True, True)
    """
    require_finite("codes", require_floating("codes", codes, 3, "(V, N, D)"))
    views, n, dim = codes.shape
    if views < 2:
        raise ValueError(f"codes must hold at least two views, got shape {tuple(codes.shape)}")
    labels = require_labels("labels", labels, n)
    labels = torch.unique(labels, return_inverse=True)[1]  # ids may be large
    z = codes.double()
    radius = 1 + z.square().sum(-1).max().item()
    target = F.one_hot(labels).double()
    centre = z.mean((0, 1))
    z = z - centre
    covariance = torch.einsum("vnd,vne->de", z, z) / (views * n)
    share = target.mean(0)
    cross = torch.einsum("vnd,nc->cd", z, target - share) / (views * n)
    probe = torch.linalg.lstsq(covariance, cross.T).solution.T  # (C, D)
    error = (target - share - z @ probe.T).square().sum(-1).mean()
    mean = z.mean(0)
    inside = views / (views - 1)  # a mean over V views has taken up part of the spread
    jitter = inside * ((z - mean) @ probe.T).square().sum(-1).mean()
    invariance = inside * (z - mean).square().sum(-1).mean()
    class_mean = target.T @ mean / target.sum(0).clamp_min(1)[:, None]
    spread = (mean - class_mean[labels]).square().sum(-1).mean() - invariance / views
    label_covariance = torch.diag(share) - torch.outer(share, share)
    return ProbeTerms(
        risk=error.item(),
        averaged_risk=(error - jitter).item(),
        jitter=jitter.item(),
        invariance=invariance.item(),
        class_spread=spread.item(),
        least_variance=torch.linalg.eigvalsh(covariance)[0].item(),
        label_variance=torch.linalg.eigvalsh(label_covariance)[-1].item(),
        norm=(probe.square().sum() + (share - probe @ centre).square().sum()).item(),
        radius=radius,
        dim=dim,
        classes=target.shape[1],
    )


def probe_bound(terms: ProbeTerms, n: int) -> tuple[float, float]:
    r"""An upper bound on the expected squared error of a ridge probe trained on n labelled views.

    .. math:: E|Y - \hat W_n \phi|^2 \le \Bigl(1 + \frac{L}{\sqrt n}\Bigr)^2 \Bigl[
        \underbrace{E|Y - W\bar z|^2}_{\text{fit}} +
        \underbrace{\frac{\lambda_{\max}(\operatorname{Cov} Y)}{\lambda_{\min}(\operatorname{Cov} z)}\,
        \tfrac12 E|z - z'|^2}_{\text{invariance}}
        + \underbrace{\frac{L \sqrt n}{n + 1} |W|^2}_{\text{labels}} \Bigr]

    for ridge regression of the label's corner on :math:`\phi = (1, z)` with the penalty :math:`L\sqrt n\,|W|^2` on
    the sum of squares (:func:`ridge_probe`), in expectation over n independent labelled views and one more.

    Args:
        terms: a :class:`ProbeTerms`.
        n: labelled images.

    Returns:
        ``(bound, with_jitter)``: as above, and with the measured jitter in place of its own bound.

    Raises:
        ValueError: n is less than 1.

    Reference:
        Ours, by leave-one-out.

    Derived in:
        Chapter 7, Theorem 7.13.

    >>> z = torch.eye(2).repeat(50, 1) + 0.1 * torch.randn(2, 100, 2, generator=torch.Generator().manual_seed(0))
    >>> bound, with_jitter = probe_bound(probe_terms(z, torch.arange(100) % 2), 1000)
    >>> 0 < with_jitter <= bound
    True
    """
    n = require_count("n", n)
    largest = math.sqrt(terms.radius)
    factor = (1 + largest / math.sqrt(n)) ** 2
    labels = largest * math.sqrt(n) / (n + 1) * terms.norm
    return factor * (terms.averaged_risk + terms.jitter_bound + labels), factor * (terms.risk + labels)


def ridge_probe(z: Tensor, labels: Tensor, radius: float, classes: int) -> Tensor:
    r"""Ridge regression of the label's corner on (1, z), with the penalty that :func:`probe_bound` is about.

    .. math:: \hat W = \arg\min_W \sum_i |e_{y_i} - W (1, z_i)|^2 + L \sqrt n\, |W|^2

    Args:
        z: floating (n, D).
        labels: (n,) integers below ``classes``.
        radius: L^2.
        classes: C.

    Returns:
        (C, D + 1), the constant first.

    Raises:
        TypeError, ValueError: shapes or types do not fit, or ``radius`` is not positive.

    Derived in:
        Chapter 7, Theorem 7.13.

    >>> ridge_probe(torch.tensor([[1.0], [-1.0]]), torch.tensor([0, 1]), radius=1e-12, classes=2)
    tensor([[ 0.5000,  0.5000],
            [ 0.5000, -0.5000]], dtype=torch.float64)
    """
    require_finite("z", require_floating("z", z, 2, "(n, D)"))
    classes = require_count("classes", classes)
    labels = require_labels("labels", labels, len(z), classes)
    radius = require_positive("radius", radius)
    require_same_device(z=z, labels=labels)
    phi = F.pad(z.double(), (1, 0), value=1.0)
    gram = phi.T @ phi + math.sqrt(radius * len(z)) * torch.eye(phi.shape[1], dtype=phi.dtype, device=phi.device)
    return torch.linalg.solve(gram, phi.T @ F.one_hot(labels, classes).double()).T


# ---------------------------------------------------------------------------------------------------------
# SIGReg with two moments as its test
# ---------------------------------------------------------------------------------------------------------


@without_autocast
def sliced_moments(z: Tensor, directions: Tensor, *, square: bool = True) -> Tensor:
    r"""SIGReg with the first two moments of each slice in the place of Epps and Pulley's statistic.

    .. math:: \frac1M \sum_m \bigl[ \bar u_m^2 + (v_m - 1)^2 \bigr], \qquad u_m = a_m \cdot z, \quad
        v_m = \text{variance or standard deviation of } u_m

    Args:
        z: floating (N, D), N at least 2.
        directions: (M, D) unit rows.
        square: compare the variance with 1; False compares the standard deviation.

    Returns:
        A scalar tensor.

    Raises:
        TypeError, ValueError: shapes do not fit.

    Reference:
        Balestriero and LeCun (2025), arXiv 2511.08544, moments among the univariate tests.

    Derived in:
        Chapter 7, Proposition 7.14.

    >>> z = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    >>> sliced_moments(z, torch.eye(2))  # variances 2 and 0
    tensor(1.)
    """
    require_flag("square", square)
    z = _require_spread(z)
    require_floating("directions", directions, 2, "(M, D)")
    if directions.shape[1] != z.shape[1]:
        raise ValueError(f"directions must have shape (M, {z.shape[1]}), got {tuple(directions.shape)}")
    require_same_device(z=z, directions=directions)
    slices = z @ directions.to(z.dtype).T
    spread = slices.var(0)
    return (slices.mean(0).square() + ((spread if square else spread.sqrt()) - 1).square()).mean()


@without_autocast
def slice_free_moments(z: Tensor) -> Tensor:
    r"""The limit of :func:`sliced_moments` for infinitely many slices: moment matching of VICReg's kind.

    .. math:: \frac{|\bar z|^2}{D} + \frac{2 |\Sigma - I|_F^2 + \operatorname{tr}(\Sigma - I)^2}{D (D + 2)},
        \qquad |\Sigma - I|_F^2 = \underbrace{\sum_{d \ne e} \Sigma_{de}^2}_{D\,c(z)} + \sum_d (\Sigma_{dd} - 1)^2

    Args:
        z: floating (N, D), N at least 2.

    Returns:
        A scalar tensor.

    Raises:
        TypeError, ValueError: ``z`` is not a floating matrix.

    Reference:
        Balestriero and LeCun (2025), arXiv 2511.08544, say what it tends to; the closed form is ours.

    Derived in:
        Chapter 7, Proposition 7.14.

    >>> z = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])  # Sigma - I = diag(1, -1)
    >>> slice_free_moments(z)
    tensor(0.5000)
    """
    z = _require_spread(z)
    dim = z.shape[1]
    excess = batch_covariance(z) - torch.eye(dim, dtype=z.dtype, device=z.device)
    spread = 2 * excess.square().sum() + excess.trace().square()
    return z.mean(0).square().sum() / dim + spread / (dim * (dim + 2))


def _require_spread(z: Tensor) -> Tensor:
    z = at_least_float32(require_floating("z", z, 2, "(N, D)"))
    if len(z) < 2:
        raise ValueError(f"z must have at least 2 rows, got shape {tuple(z.shape)}: one code has no spread")
    return z


def _require_evaluation(network: nn.Module) -> None:
    if network.training:
        raise ValueError("network must be in evaluation mode, where each input has its own map: call network.eval()")
