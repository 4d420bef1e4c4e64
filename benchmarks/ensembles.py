r"""Networks trained a second: a plain loop, ``sigreg.training.train_together``, and stacking by hand.

Run ``python benchmarks/ensembles.py``; it uses the best device there is (``SIGREG_DEVICE`` chooses another) and,
on a CPU, as many threads as ``OMP_NUM_THREADS`` says. All three take the same steps on the same batches: G networks
of one shape, each with its own beta, with the minibatch CEB loss; what is counted is G networks times the steps of
one sweep (5 epochs of whole FashionMNIST, batch 256), extrapolated from a timed stretch.

``loop``: one network after the other, one Adam each. ``together``: ``torch.func.vmap`` over stacked parameters, as in
the package. ``by hand``: batched matrix products written out, the first layer of all networks as a single product.
"""

import argparse
import time

import torch
import torch.nn.functional as F
from torch.func import vmap

from sigreg.conditional_bottleneck import pairwise_rate
from sigreg.device import default_device
from sigreg.models import LOG_STD_LIMIT, BottleneckClassifier
from sigreg.training import Minibatches, Together, bottleneck_objective, train_together

STEPS_OF_A_SWEEP = 5 * (60_000 // 256)


def networks(count, hidden, device):
    torch.manual_seed(0)
    return [BottleneckClassifier(hidden=hidden).to(device) for _ in range(count)]


def loop(nets, batches, betas):
    loss = bottleneck_objective("pairwise")
    for net, beta in zip(nets, betas, strict=True):
        optimizer = torch.optim.Adam(net.parameters())
        params = dict(net.named_parameters())
        for batch in batches:
            optimizer.zero_grad()
            loss(net, params, batch, beta).backward()
            optimizer.step()


def together(nets, batches, betas):
    train_together(nets, bottleneck_objective("pairwise"), batches, betas)


def by_hand(nets, batches, betas):
    params = Together(nets).params
    optimizer = torch.optim.Adam(params.values())
    rate = vmap(pairwise_rate, in_dims=(0, 0, None))
    names = [name[:-7] for name in params if name.startswith("encoder") and name.endswith(".weight")]

    def linear(h, name):
        return torch.baddbmm(params[f"{name}.bias"][:, None], h, params[f"{name}.weight"].transpose(1, 2))

    for images, labels, noise in batches:
        first, bias = params[f"{names[0]}.weight"], params[f"{names[0]}.bias"]
        h = F.linear(images.flatten(1), first.flatten(0, 1), bias.flatten())
        h = h.view(len(images), len(nets), -1).transpose(0, 1)
        for name in names[1:]:
            h = linear(h.relu(), name)
        mean, raw = h.chunk(2, -1)
        log_std = LOG_STD_LIMIT * torch.tanh(raw / LOG_STD_LIMIT)
        logits = linear(mean + log_std.exp() * noise, "decoder")
        fit = F.cross_entropy(logits.flatten(0, 1), labels.repeat(len(nets))) * len(nets)
        optimizer.zero_grad()
        (fit + (betas * rate(mean, log_std, labels)).sum()).backward()
        optimizer.step()


def seconds(function, nets, batches, betas, device):
    def wait():
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    wait()
    start = time.perf_counter()
    function(nets, batches, betas)
    wait()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", help="numbers of networks (default: 1 6 24; on a GPU also 96)")
    parser.add_argument("--steps", type=int, default=8, help="timed steps (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="the best of these counts (default: %(default)s)")
    options = parser.parse_args()
    device = default_device()
    sizes = options.sizes or ([1, 6, 24] if device.type == "cpu" else [1, 6, 24, 96])
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(256 * options.steps, 784, generator=generator).to(device)
    labels = torch.randint(10, (len(images),), generator=generator).to(device)
    batches = list(Minibatches(images, labels, batch_size=256, epochs=1, noise_dim=8, seed=0))
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    print(f"torch {torch.__version__} on {device}{threads}; networks trained a minute, and times the loop")
    for hidden in ((512, 256), (64, 32)):
        for size in sizes:
            nets = networks(size, hidden, device)
            betas = torch.linspace(0.01, 1, size).to(device)
            rates = {}
            for function in (loop, together, by_hand):
                function(nets, batches[:2], betas)
                best = min(seconds(function, nets, batches, betas, device) for _ in range(options.repeats))
                rates[function.__name__] = 60 * size / (best / options.steps * STEPS_OF_A_SWEEP)
            shown = ", ".join(f"{name} {rate:.3g} ({rate / rates['loop']:.2f}x)" for name, rate in rates.items())
            print(f"784-{'-'.join(map(str, hidden))}, {size:3d} networks: {shown}", flush=True)


if __name__ == "__main__":
    main()
