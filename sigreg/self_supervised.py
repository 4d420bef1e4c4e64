r"""Learning without labels: random views, the view-prediction loss, and what is asked of the features afterwards.

Two views of one image should get one code, and the codes of all images should look like a standard Gaussian sample.
The first wish is the conditional rate of a Gaussian encoder, with the second view in the place of the target; the
second is SIGReg. Everything random comes from explicit generators, drawn on the CPU, so that a run is the same on
every device and, in a process group, the same as on one process.
"""

import math
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from sigreg._validate import require_finite, require_floating, require_labels
from sigreg.data import MEAN, STD
from sigreg.gaussian_regularization import random_directions, slice_free_sigreg, sliced_sigreg
from sigreg.models import mlp

BACKGROUND = -MEAN / STD  # a black pixel, normalised: what lies outside an image

# ---------------------------------------------------------------- views


def random_views(
    images, generator, *, size=None, scale=(0.3, 1.0), ratio=4 / 3, flip=0.5, degrees=10.0, intensity=0.3
):
    r"""One random view of every image: crop and resize, flip, rotation, in a single resampling; then ink strength.

    .. math:: \text{view}(u) = b + g \cdot \bigl(\text{image}(A u + c) - b\bigr), \qquad
        A = R_\theta \, \mathrm{diag}(\pm s_x, s_y), \quad g \sim \mathcal U(1 - \iota, 1 + \iota)

    with u in [-1, 1]^2, b the black of the background, :math:`s_x s_y` the share of the area that the crop keeps,
    :math:`s_x / s_y` its ratio and c a centre that leaves an upright crop inside the image. Every image has its own
    numbers. They are drawn on the CPU; the resampling (bilinear) runs where the images are.

    Args:
        images: (B, 1, H, W), normalised as :func:`sigreg.data.fashion_mnist_tensors` gives them.
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
    if not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(f"scale must be two shares with 0 < smallest <= largest <= 1, got {tuple(scale)}")
    if not ratio >= 1:
        raise ValueError(f"ratio must be at least 1, got {ratio}")
    if not 0 <= flip <= 1:
        raise ValueError(f"flip must be a probability, got {flip}")
    if not 0 <= intensity < 1:
        raise ValueError(f"intensity must lie in [0, 1), got {intensity}")
    b = len(images)
    u = torch.rand(7, b, generator=generator)
    area = scale[0] + (scale[1] - scale[0]) * u[0]
    shape = torch.exp(math.log(ratio) * (2 * u[1] - 1))
    width, height = (area * shape).sqrt().clamp_max(1), (area / shape).sqrt().clamp_max(1)  # shares of the image
    x, y = (1 - width) * (2 * u[2] - 1), (1 - height) * (2 * u[3] - 1)
    mirror = torch.where(u[4] < flip, -1.0, 1.0)
    angle = math.radians(degrees) * (2 * u[5] - 1)
    gain = 1 + intensity * (2 * u[6] - 1)
    cos, sin = angle.cos(), angle.sin()
    rows = [cos * width * mirror, -sin * height, x, sin * width * mirror, cos * height, y]
    maps = torch.stack(rows, 1).view(b, 2, 3).to(images)
    target = (b, 1, *((size, size) if size is not None else images.shape[-2:]))
    grid = F.affine_grid(maps, target, align_corners=False)
    ink = F.grid_sample(images - BACKGROUND, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return BACKGROUND + gain.to(images).view(-1, 1, 1, 1) * ink


class ViewBatches:
    r"""Shuffled batches of random views for :func:`sigreg.fit.fit`: the same whenever they are iterated.

    What does not fill a batch at the end of an epoch is left out.

    Args:
        images: (N, 1, H, W), on the device that trains.
        labels: (N,) integer tensor that travels along; by default the images' places 0 .. N - 1.
        batch_size: B, at most N.
        epochs: passes over the images.
        views: V, views of full size for each image.
        small_views: further views of ``small_size`` pixels, with ``small_scale`` as their range of areas.
        small_size, small_scale: see there.
        seed: of the order and of the views.
        **settings: of :func:`random_views`.

    Yields:
        ``(view_1, ..., view_V, labels, step)``: views (B, 1, H, W), small ones last, labels (B,), and the number of
        the batch, repeated B times, from which a loss may seed its own randomness.

    Raises:
        ValueError: more is asked for in one batch than there is, or no view.

    Reference:
        Small views: Caron et al. (2020), arXiv 2006.09882, "multi-crop".

    Derived in:
        Nothing to derive; Chapters 5 to 8 train on them.

    Example:
        >>> batches = ViewBatches(torch.zeros(10, 1, 28, 28), batch_size=4, epochs=3, seed=0)
        >>> *views, place, step = next(iter(batches))
        >>> len(batches), len(views), views[0].shape, place.shape, step.tolist()
        (6, 2, torch.Size([4, 1, 28, 28]), torch.Size([4]), [0, 0, 0, 0])
    """

    def __init__(
        self,
        images,
        labels=None,
        *,
        batch_size,
        epochs,
        views=2,
        small_views=0,
        small_size=14,
        small_scale=(0.15, 0.4),
        seed=0,
        **settings,
    ):
        require_floating("images", images, 4, "(N, 1, H, W)")
        if not 1 <= batch_size <= len(images):
            raise ValueError(f"batch_size must lie in 1..{len(images)}, the number of images, got {batch_size}")
        if views < 0 or small_views < 0 or views + small_views < 1:
            raise ValueError(f"at least one view is needed, got views={views} and small_views={small_views}")
        places = torch.arange(len(images), device=images.device)
        self.labels = places if labels is None else require_labels("labels", labels, len(images))
        self.images, self.batch_size, self.epochs, self.seed = images, batch_size, epochs, seed
        small = {**settings, "size": small_size, "scale": tuple(small_scale)}
        self.settings = [settings] * views + [small] * small_views

    def __len__(self):
        return self.epochs * (len(self.images) // self.batch_size)

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.seed)
        step = 0
        for _ in range(self.epochs):
            order = torch.randperm(len(self.images), generator=generator)
            for place in order[: len(order) // self.batch_size * self.batch_size].view(-1, self.batch_size):
                place = place.to(self.images.device)
                images = self.images[place]
                views = [random_views(images, generator, **settings) for settings in self.settings]
                yield *views, self.labels[place], torch.full_like(place, step)
                step += 1


# ---------------------------------------------------------------- network and loss


class ViewNetwork(nn.Module):
    r"""A backbone and a projector: the features are kept, the codes are trained on.

    .. math:: h = \mathrm{encoder}(x), \qquad z = \mathrm{projector}(\mathrm{pool}(h))

    Views of one size share a forward pass, and with it the moments of batch norm.

    Args:
        encoder: a :class:`sigreg.models.ConvEncoder`.
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
        >>> from sigreg.models import ConvEncoder
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


def self_supervised_loss(z, generator=None, *, weight, sigma=1.0, num_slices=256, noise=False):
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
        >>> found = self_supervised_loss(z, torch.Generator().manual_seed(1), weight=10.0)
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


def pretraining_objective(*, weight, sigma=1.0, num_slices=256, noise=False, seed=0):
    """The loss above as :func:`sigreg.fit.fit` wants it, for :class:`ViewNetwork` and :class:`ViewBatches`.

    Slices and noise of a step are drawn from a generator seeded by ``seed`` and the step's number. So a run that is
    stopped and resumed, or split among processes, sees the same ones.

    Args:
        weight, sigma, num_slices, noise: as in :func:`self_supervised_loss`.
        seed: of slices and noise.

    Returns:
        Function of ``(network, batch)``, a dictionary of scalars.

    Raises:
        As :func:`self_supervised_loss`, when it is called.

    Derived in:
        Chapter 6, Proposition 6.3.

    Example:
        >>> from sigreg.fit import fit
        >>> from sigreg.models import ConvEncoder
        >>> images = torch.randn(64, 1, 28, 28, generator=torch.Generator().manual_seed(0))
        >>> batches = ViewBatches(images, batch_size=32, epochs=2)
        >>> network = ViewNetwork(ConvEncoder((4,), (4,)), hidden=(16,), latent_dim=4)
        >>> history = fit(network, pretraining_objective(weight=1.0), batches)
        >>> len(history), sorted(history[0])
        (4, ['loss', 'rate', 'sigreg'])
    """

    def loss(network, batch):
        *views, _, step = batch
        generator = torch.Generator().manual_seed(1_000_003 * seed + int(step[0]))
        z = network(*views)
        return self_supervised_loss(z, generator, weight=weight, sigma=sigma, num_slices=num_slices, noise=noise)

    return loss


def _processes():
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _own_part(noise):
    """This process's share of what was drawn for the whole batch, (V, B of all, D) to (V, B, D)."""
    return noise if _processes() == 1 else noise.chunk(_processes(), 1)[dist.get_rank()]


# ---------------------------------------------------------------- what the features are worth


@torch.no_grad()
def features(encoder, images, batch_size=1000):
    """The outputs of a module in evaluation mode for many images, a batch at a time, without gradients.

    Args:
        encoder: a module, (B, ...) to (B, F).
        images: (N, ...).
        batch_size: images at a time; the result does not depend on it.

    Returns:
        Tensor (N, F).

    Raises:
        TypeError: ``images`` is not a floating tensor.

    Derived in:
        Nothing to derive.

    Example:
        >>> features(torch.nn.Flatten(), torch.zeros(5, 1, 2, 2), batch_size=2).shape
        torch.Size([5, 4])
    """
    require_floating("images", images, (2, 3, 4), "(N, ...)")
    training = encoder.training
    encoder.eval()
    found = torch.cat([encoder(part) for part in images.split(batch_size)])
    encoder.train(training)
    return found


@dataclass(frozen=True)
class Probe:
    """What :func:`linear_probe` found."""

    accuracy: float  # on the test set
    train_accuracy: float
    weight: torch.Tensor  # (F, C), for standardised features
    bias: torch.Tensor  # (C,)
    gradient: float  # largest entry of the objective's gradient where the search ended
    evaluations: int  # of the objective


def linear_probe(train_x, train_y, test_x, test_y, *, ridge=1e-3, max_iter=200):
    r"""Multinomial logistic regression on standardised features, by full-batch L-BFGS from zero.

    .. math:: \min_{A, c}\; -\frac1N \sum_n \log \mathrm{softmax}(A^\top \tilde x_n + c)_{y_n} + \frac\rho2 |A|^2,
        \qquad \tilde x = (x - \text{mean}) / \text{std}

    Means and standard deviations are those of the training set; a feature that never changes is left out of the
    division. There is no randomness.

    Args:
        train_x, test_x: (N, F), (N', F) features.
        train_y, test_y: (N,), (N',) integer labels.
        ridge: :math:`\rho`, on the weights and not on the biases.
        max_iter: of L-BFGS.

    Returns:
        :class:`Probe`.

    Raises:
        TypeError, ValueError: shapes or types do not fit, a feature is not finite, or ``ridge`` is negative.

    Reference:
        Liu and Nocedal (1989), for L-BFGS.

    Derived in:
        Nothing to derive; Chapter 4, Proposition 4.16, says what a ridge asks of features.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
        >>> linear_probe(x, torch.tensor([0, 0, 1, 1]), x, torch.tensor([0, 0, 1, 1])).accuracy
        1.0
    """
    for name, x in (("train_x", train_x), ("test_x", test_x)):
        require_finite(name, require_floating(name, x, 2, "(N, F)"))
    if train_x.shape[1] != test_x.shape[1]:
        raise ValueError(f"train_x and test_x must have equal F, got {train_x.shape[1]} and {test_x.shape[1]}")
    if not ridge >= 0:
        raise ValueError(f"ridge must be 0 or more, got {ridge}")
    classes = int(require_labels("train_y", train_y, len(train_x)).max()) + 1
    require_labels("test_y", test_y, len(test_x))
    mean, std = train_x.mean(0), train_x.std(0, correction=0)
    std = torch.where(std > 1e-6 * std.max().clamp_min(1e-12), std, 1.0)
    x = (train_x - mean) / std
    weight = x.new_zeros(x.shape[1], classes, requires_grad=True)
    bias = x.new_zeros(classes, requires_grad=True)
    search = torch.optim.LBFGS(
        [weight, bias],
        max_iter=max_iter,
        max_eval=2 * max_iter,
        tolerance_grad=1e-6,
        tolerance_change=0.0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )
    calls = 0

    def objective():
        nonlocal calls
        calls += 1
        search.zero_grad()
        value = F.cross_entropy(x @ weight + bias, train_y) + 0.5 * ridge * weight.square().sum()
        value.backward()
        return value

    search.step(objective)
    objective()
    gradient = max(weight.grad.abs().max().item(), bias.grad.abs().max().item())
    with torch.no_grad():
        train_accuracy = ((x @ weight + bias).argmax(1) == train_y).double().mean().item()
        guess = ((test_x - mean) / std @ weight + bias).argmax(1)
        accuracy = (guess == test_y).double().mean().item()
    return Probe(accuracy, train_accuracy, weight.detach(), bias.detach(), gradient, calls)


@torch.no_grad()
def knn_accuracy(train_x, train_y, test_x, test_y, k=20, batch_size=500):
    r"""Share of test images whose label is that of most of their k nearest training images, by cosine.

    .. math:: \hat y(x) = \arg\max_c \#\{n \in \mathrm{N}_k(x) : y_n = c\}, \qquad
        \mathrm{N}_k \text{ by the largest } \frac{x \cdot x_n}{|x| |x_n|}

    A tie goes to the smaller label.

    Args:
        train_x, test_x: (N, F), (N', F).
        train_y, test_y: (N,), (N',) integer labels.
        k: neighbours, at most N.
        batch_size: test images at a time; the result does not depend on it.

    Returns:
        A float in [0, 1].

    Raises:
        TypeError, ValueError: shapes or types do not fit, or ``k`` is not in 1..N.

    Reference:
        The usual check of frozen features, Wu et al. (2018), arXiv 1805.01978, there with weighted votes.

    Derived in:
        Nothing to derive.

    Example:
        >>> x = torch.eye(3).repeat(4, 1)
        >>> knn_accuracy(x, torch.arange(12) % 3, x[:3], torch.arange(3), k=4)
        1.0
    """
    for name, x in (("train_x", train_x), ("test_x", test_x)):
        require_floating(name, x, 2, "(N, F)")
    classes = int(require_labels("train_y", train_y, len(train_x)).max()) + 1
    require_labels("test_y", test_y, len(test_x))
    if not 1 <= k <= len(train_x):
        raise ValueError(f"k must lie in 1..{len(train_x)}, the number of training images, got {k}")
    reference = F.normalize(train_x, dim=1)
    right = 0
    for x, y in zip(test_x.split(batch_size), test_y.split(batch_size), strict=True):
        near = (F.normalize(x, dim=1) @ reference.T).topk(k, 1).indices
        votes = F.one_hot(train_y[near], classes).sum(1)
        right += int((votes.argmax(1) == y).sum())
    return right / len(test_x)


@torch.no_grad()
def effective_rank(z):
    r"""How many directions the codes really use: the exponential of the entropy of their singular values.

    .. math:: \exp\Bigl(-\sum_d p_d \log p_d\Bigr), \qquad p_d = \frac{s_d}{\sum_e s_e}

    with s the singular values of the centred codes. It is D for equal ones, 1 if all codes lie on a line, and 0 here
    if all codes are one point.

    Args:
        z: (N, D).

    Returns:
        A float in [0, D].

    Raises:
        TypeError, ValueError: ``z`` is not a finite floating tensor (N, D).

    Reference:
        Roy and Vetterli (2007), "The effective rank"; as a check of features, Garrido et al. (2023), arXiv 2210.02885.

    Derived in:
        Nothing to derive.

    Example:
        >>> round(effective_rank(torch.cat([torch.eye(4), -torch.eye(4)])), 3)
        4.0
    """
    require_finite("z", require_floating("z", z, 2, "(N, D)"))
    z = z.cpu().double()
    size = z.abs().max()
    z = z - z.mean(0)
    s = torch.linalg.eigvalsh(z.T @ z).clamp_min(0).sqrt()
    if s.max() <= 1e-12 * len(z) ** 0.5 * size:
        return 0.0
    p = s / s.sum()
    return torch.exp(-torch.special.xlogy(p, p).sum()).item()
