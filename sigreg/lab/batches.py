r"""Streams of training batches, the same whenever they are iterated: everything random comes from one seed."""

import torch

from sigreg._validate import require_floating, require_labels
from sigreg.lab.views import STRONG, WEAK, random_views


class Minibatches:
    """Random minibatches of images with labels and encoder noise, drawn on the CPU from one seed, then moved.

    Iterating twice gives the same batches twice. What does not fill a batch at the end of an epoch is left out.

    Args:
        images: (N, ...) tensor, on the device that trains.
        labels: (N,) integer tensor, on the same device.
        batch_size: B, at most N.
        epochs: passes over the data.
        noise_dim: D of the encoder's noise.
        seed: of the order and the noise.

    Raises:
        ValueError: more is asked for in one batch than there is.

    Example:
        >>> batches = Minibatches(torch.zeros(10, 4), torch.arange(10), batch_size=4, epochs=3, noise_dim=2, seed=0)
        >>> len(batches), next(iter(batches))[2].shape
        (6, torch.Size([4, 2]))
    """

    def __init__(self, images, labels, *, batch_size, epochs, noise_dim, seed):
        require_labels("labels", labels, len(images))
        if not 1 <= batch_size <= len(images):
            raise ValueError(f"batch_size must lie in 1..{len(images)}, the number of images, got {batch_size}")
        self.images, self.labels = images, labels
        self.batch_size, self.epochs, self.noise_dim, self.seed = batch_size, epochs, noise_dim, seed

    def __len__(self):
        return self.epochs * (len(self.images) // self.batch_size)

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.seed)
        device = self.images.device
        for _ in range(self.epochs):
            order = torch.randperm(len(self.images), generator=generator)
            for index in order[: len(order) // self.batch_size * self.batch_size].view(-1, self.batch_size):
                noise = torch.randn(self.batch_size, self.noise_dim, generator=generator)
                index = index.to(device)
                yield self.images[index], self.labels[index], noise.to(device)


class ViewBatches:
    r"""Shuffled batches of random views for :func:`sigreg.lab.fit.fit`: the same whenever they are iterated.

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
        size: height and width of the views; by default those of the images.

    Yields:
        ``(view, labels, weak, strong, step)``: a weak view of labelled images with their labels, a weak and a strong
        view of the same unlabelled images, and the number of the step, once for each labelled image.

    Raises:
        TypeError, ValueError: wrong types, or sizes below those allowed.

    Reference:
        Weak and strong views as in Sohn et al. (2020), arXiv 2001.07685.

    Example:
        >>> images, labels = torch.zeros(30, 1, 28, 28), torch.arange(30) % 3
        >>> batches = FewLabelBatches(images, labels, torch.arange(6), labelled_batch=4, unlabelled_batch=8, steps=2)
        >>> [tuple(part.shape) for part in next(iter(batches))]
        [(4, 1, 28, 28), (4,), (8, 1, 28, 28), (8, 1, 28, 28), (4,)]
    """

    def __init__(self, images, labels, labelled, *, labelled_batch, unlabelled_batch, steps, seed=0, size=None):
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
        self.sizes, self.steps, self.seed, self.size = (labelled_batch, unlabelled_batch), steps, seed, size

    def __len__(self):
        return self.steps

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.seed)
        device = self.images.device
        for step in range(self.steps):
            known = self.labelled[torch.randint(len(self.labelled), self.sizes[:1], generator=generator)].to(device)
            view = random_views(self.images[known], generator, size=self.size, **WEAK)
            weak = strong = view[:0]
            if self.sizes[1]:
                others = torch.randint(len(self.images), self.sizes[1:], generator=generator).to(device)
                weak = random_views(self.images[others], generator, size=self.size, **WEAK)
                strong = random_views(self.images[others], generator, size=self.size, **STRONG)
            yield view, self.labels[known], weak, strong, torch.full_like(known, step)
