r"""Networks trained a second: a plain loop, ``sigreg.training.train_stack``, and stacking by hand.

Run ``python benchmarks/ensembles.py``; it uses the best device there is (``SIGREG_DEVICE`` chooses another) and,
on a CPU, as many threads as ``OMP_NUM_THREADS`` says. All three take the same steps on the same batches: G networks
of one shape, each with its own beta, with the minibatch CEB loss; what is counted is G networks times the steps of
one sweep (5 epochs of whole FashionMNIST, batch 256), extrapolated from a timed stretch. The ways take turns, round by
round; a ratio is the median of the ratios within a round, with quartiles. ``--write`` keeps the numbers.

``loop``: one network after the other, one Adam each. ``together``: ``torch.func.vmap`` over stacked parameters, as in
the package. ``by hand``: batched matrix products written out, the first layer of all networks as a single product.
"""

import argparse
import json
import time
from datetime import date
from pathlib import Path
from statistics import median, quantiles

import torch
import torch.nn.functional as F
from torch.func import vmap

from sigreg.conditional_bottleneck import pairwise_rate
from sigreg.lab.batches import Minibatches
from sigreg.lab.device import default_device
from sigreg.lab.models import LOG_STD_LIMIT, BottleneckClassifier
from sigreg.lab.objectives import bottleneck_objective
from sigreg.lab.stack import NetworkStack, train_stack

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
    train_stack(nets, bottleneck_objective("pairwise"), batches, betas)


def by_hand(nets, batches, betas):
    params = NetworkStack(nets).params
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


def measure(hidden, size, batches, device, rounds):
    """Networks a minute of each way, and how many times the loop, over interleaved rounds in one process."""
    nets = networks(size, hidden, device)
    betas = torch.linspace(0.01, 1, size).to(device)
    ways = (loop, together, by_hand)
    for way in ways:
        way(nets, batches[:2], betas)
    taken = [[seconds(way, nets, batches, betas, device) for way in ways] for _ in range(rounds)]
    found = {"hidden": list(hidden), "networks": size, "rounds": rounds}
    for k, way in enumerate(ways):
        a_minute = [60 * size / (row[k] / len(batches) * STEPS_OF_A_SWEEP) for row in taken]
        times = quantiles([row[0] / row[k] for row in taken], n=4)
        found[way.__name__] = {
            "networks a minute": round(median(a_minute), 3),
            "times the loop": dict(zip(("low", "median", "high"), (round(t, 3) for t in times), strict=True)),
        }
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", help="numbers of networks (default: 1 6 24; on a GPU also 96)")
    parser.add_argument("--steps", type=int, default=8, help="timed steps (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved repetitions (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help="keep the numbers in benchmarks/results/ensembles.json")
    options = parser.parse_args()
    device = default_device()
    sizes = options.sizes or ([1, 6, 24] if device.type == "cpu" else [1, 6, 24, 96])
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(256 * options.steps, 784, generator=generator).to(device)
    labels = torch.randint(10, (len(images),), generator=generator).to(device)
    batches = list(Minibatches(images, labels, batch_size=256, epochs=1, noise_dim=8, seed=0))
    threads = torch.get_num_threads() if device.type == "cpu" else None
    name = "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)
    print(f"torch {torch.__version__} on {name}; networks trained a minute, and times the loop (quartiles)")
    kept = []
    for hidden in ((512, 256), (128, 64), (64, 32)):
        for size in sizes:
            found = measure(hidden, size, batches, device, options.rounds)
            kept.append(found)
            shown = "; ".join(
                f"{way} {v['networks a minute']:.3g} ({v['times the loop']['median']:.2f}x, "
                f"{v['times the loop']['low']:.2f}-{v['times the loop']['high']:.2f})"
                for way, v in found.items()
                if isinstance(v, dict)
            )
            print(f"784-{'-'.join(map(str, hidden))}, {size:3d} networks: {shown}", flush=True)
    if options.write:
        path = Path(__file__).parent / "results" / "ensembles.json"
        environment = {"torch": torch.__version__, "device": name, "threads": threads}
        results = {"environment": environment, "date": str(date.today()), "runs": kept}
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
