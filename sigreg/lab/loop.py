r"""Training that does not wait for the host: everything random is drawn ahead on the device, a step is one CUDA graph.

:func:`sigreg.lab.fit.fit` asks the device for every step's loss, and its batches are drawn on the CPU. That is what
several processes and checkpoints want, and what keeps a GPU idle. Here a step reads its own number from the device and
finds there its images, their views and its learning rate, and leaves its loss there. So nothing crosses over within a
pass, and the whole step (views, forward, backward, AdamW) can be captured once and replayed. Without CUDA the same
step runs eagerly. The same seed on the same kind of device gives the same run, up to the order of atomic sums.
"""

import sys

import torch

from sigreg._validate import require_labels
from sigreg.lab.data import STD
from sigreg.lab.fit import _schedule
from sigreg.lab.views import BACKGROUND, resample, view_maps

WARM_UP_STEPS = 4  # eager steps before a capture: they count, and let cuDNN, Triton and AdamW make what they keep


class ViewStream:
    r"""Shuffled batches of random views of images that lie on the device as bytes, a whole pass drawn ahead.

    Args:
        pixels: (N, H, W) uint8, on the device that trains.
        labels: (N,) integer tensor, on the same device.
        batch_size: B, at most N; what does not fill a batch at the end of a pass is left out.
        generator: on the same device; it draws order and views.
        views: V views of each image.
        size: height and width of the views; by default those of the images.
        **settings: of :func:`sigreg.lab.views.view_maps`.

    Example:
        >>> stream = ViewStream(torch.zeros(10, 28, 28, dtype=torch.uint8), torch.arange(10), batch_size=4,
        ...                     generator=torch.Generator().manual_seed(0), size=24)
        >>> stream.draw()
        >>> views, labels = stream.batch(torch.tensor([1]))
        >>> stream.steps, views.shape, labels.shape
        (2, torch.Size([2, 4, 1, 24, 24]), torch.Size([4]))
    """

    def __init__(self, pixels, labels, *, batch_size, generator, views=2, size=None, **settings):
        if pixels.dtype != torch.uint8 or pixels.ndim != 3:
            raise TypeError(f"pixels must be bytes (N, H, W), got {pixels.dtype} {tuple(pixels.shape)}")
        if not 1 <= batch_size <= len(pixels):
            raise ValueError(f"batch_size must lie in 1..{len(pixels)}, the number of images, got {batch_size}")
        require_labels("labels", labels, len(pixels))
        self.pixels, self.labels, self.generator = pixels, labels, generator
        self.batch_size, self.views, self.size, self.settings = batch_size, views, size, settings
        self.steps = len(pixels) // batch_size
        self.order = torch.empty(self.steps, batch_size, dtype=torch.int64, device=pixels.device)
        self.maps = torch.empty(self.steps, views * batch_size, 2, 3, device=pixels.device)
        self.gain = torch.empty(self.steps, views * batch_size, device=pixels.device)

    def draw(self):
        """Order and views of the next pass, into the places from which a captured step reads."""
        device, shape = self.pixels.device, self.gain.shape
        order = torch.randperm(len(self.pixels), generator=self.generator, device=device)
        self.order.copy_(order[: self.order.numel()].view_as(self.order))
        maps, gain = view_maps(torch.rand(7, *shape, generator=self.generator, device=device), **self.settings)
        self.maps.copy_(maps)
        self.gain.copy_(gain)

    def batch(self, step):
        """Views (V, B, 1, size, size) and labels (B,) of the step whose number within the pass ``step`` (1,) holds."""
        place, maps, gain = (part.index_select(0, step)[0] for part in (self.order, self.maps, self.gain))
        ink = self.pixels[place].unsqueeze(1).float() / (255 * STD)  # (B, 1, H, W), paper is 0
        seen = resample(ink.repeat(self.views, 1, 1, 1), maps, gain, self.size) + BACKGROUND
        return seen.unflatten(0, (self.views, self.batch_size)), self.labels[place]


class FeatureStream:
    """Random batches of features (V, N, F) of V views of N images, drawn with replacement: for a layer alone."""

    def __init__(self, features, *, batch_size, steps, generator):
        self.features, self.steps, self.generator = features, steps, generator
        self.order = torch.empty(steps, batch_size, dtype=torch.int64, device=features.device)

    def draw(self):
        self.order.random_(self.features.shape[1], generator=self.generator)

    def batch(self, step):
        return (self.features[:, self.order.index_select(0, step)[0]],)


def fit_on_device(
    network,
    loss,
    stream,
    *,
    passes,
    lr,
    weight_decay=0.0,
    generator=None,
    autocast=None,
    capture=None,
    after_step=None,
):
    r"""Train ``network`` in place by AdamW with warm-up and cosine, as :func:`sigreg.lab.fit.fit` does, never waiting.

    Args:
        network: a module on the device that trains.
        loss: function of ``(network, batch, generator)``, a scalar tensor or a dictionary of them with ``"loss"``. It
            must not look at a value.
        stream: with ``steps`` a pass, ``draw()`` for the next pass, and ``batch(step)`` for a number on the device.
        passes: over the stream.
        lr: largest learning rate.
        weight_decay: of AdamW, on matrices and filters, not on biases and norms.
        generator: on the device, handed to ``loss``: for slices and noise.
        autocast: dtype in which convolutions and products run, such as ``torch.bfloat16``; None for none.
        capture: whether to replay the step as a CUDA graph; by default wherever there is CUDA. A step that cannot be
            captured is run eagerly, and standard error says why.
        after_step: function without arguments, called within each step: for a moving average, say.

    Returns:
        Dictionary of what the loss was at every step: tensors (T,) on the device, with at least the key ``"loss"``.

    Raises:
        ValueError: the loss became NaN or infinite, found at the end of the pass in which it did.

    Reference:
        Loshchilov and Hutter (2019), arXiv 1711.05101, for AdamW; (2017), arXiv 1608.03983, for the cosine.

    Example:
        >>> pixels = torch.randint(256, (64, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        >>> stream = ViewStream(pixels, torch.arange(64), batch_size=32, generator=torch.Generator().manual_seed(0))
        >>> network = torch.nn.Sequential(torch.nn.Flatten(0, 1), torch.nn.Flatten(), torch.nn.Linear(784, 2))
        >>> def size(network, batch, generator):
        ...     return network(batch[0]).square().mean()
        >>> history = fit_on_device(network, size, stream, passes=3, lr=1e-3)
        >>> history["loss"].shape, bool(history["loss"][-1] < history["loss"][0])
        (torch.Size([6]), True)
    """
    device = next(network.parameters()).device
    on_cuda = device.type == "cuda"
    capture = on_cuda if capture is None else capture and on_cuda
    total = passes * stream.steps
    table = torch.tensor([lr * _schedule(i, total) for i in range(total)], device=device)
    rate = table[0].clone()
    optimizer = _adamw(network, rate, weight_decay, on_cuda)
    done, within = (torch.zeros(1, dtype=torch.int64, device=device) for _ in range(2))  # steps in all, in this pass
    history = {}

    def step():
        optimizer.zero_grad(set_to_none=True)
        rate.copy_(table.index_select(0, done)[0])
        batch = stream.batch(within)  # places of pixels want float32
        with torch.autocast(device.type, enabled=autocast is not None, dtype=autocast, cache_enabled=False):
            found = loss(network, batch, generator)
        found = found if isinstance(found, dict) else {"loss": found}
        found["loss"].backward()
        optimizer.step()
        if after_step is not None:
            after_step()
        for name, value in found.items():
            if name not in history:  # in the first, eager step
                history[name] = torch.zeros(total, device=device)
            history[name].index_copy_(0, done, value.detach().float().view(1))
        done.add_(1)
        within.add_(1)

    network.train()
    run, taken, aside = step, 0, torch.cuda.Stream(device) if capture else None
    with torch.backends.cudnn.flags(enabled=True, benchmark=on_cuda):
        for _ in range(passes):
            stream.draw()
            within.zero_()
            for _ in range(stream.steps):
                if capture and taken < WARM_UP_STEPS:
                    _on(aside, step)
                else:
                    if capture:
                        optimizer.zero_grad(set_to_none=True)
                        run, capture = _captured(step, generator) or step, False
                    run()
                taken += 1
            _require_finite(history["loss"][:taken], lr)
    return history


def _adamw(network, rate, weight_decay, on_cuda):
    decayed = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in network.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    kind = {"fused": True, "capturable": True} if on_cuda else {"foreach": False}
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=rate, **kind)
    for group in optimizer.param_groups:
        group["lr"] = rate  # this very tensor, which each step overwrites
    return optimizer


def _on(stream, step):
    """One eager step on a side stream, as a capture wants its warm-up."""
    here = torch.cuda.current_stream(stream.device)
    stream.wait_stream(here)
    with torch.cuda.stream(stream):
        step()
    here.wait_stream(stream)


def _captured(step, generator):
    """The replay of a step, or None where it cannot be captured."""
    graph = torch.cuda.CUDAGraph()
    if generator is not None:
        before = generator.clone_state()
        graph.register_generator_state(generator)
    try:
        with torch.cuda.graph(graph):
            step()
    except RuntimeError as error:  # a loss that copies from the host, or looks at a value
        print(f"not captured, steps run eagerly: {str(error).splitlines()[0]}", file=sys.stderr, flush=True)
        if generator is not None:
            generator.graphsafe_set_state(before)  # a capture that failed leaves it waiting for its end
        torch.cuda.synchronize()
        return None
    return graph.replay


def _require_finite(losses, lr):
    bad = ~torch.isfinite(losses)
    if bad.any():
        raise ValueError(f"the loss became NaN or infinite at step {int(bad.nonzero()[0]) + 1}: lower lr={lr}")
