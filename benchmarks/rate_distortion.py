"""Time and accuracy of the information bottleneck solver beside other packages', in one process.

Run from the repository's root, on an otherwise idle machine: ``python benchmarks/rate_distortion.py``. It prints
Markdown tables, and with ``--write`` keeps the numbers in ``benchmarks/results/rate_distortion.json``. Some minutes,
nearly all of it embo's and of the long searches for the best known value.

embo 1.1.0 computes divergences in bits and exponentiates with e, so its beta is ours times log 2: curves are compared
at the converted beta, in bits. It is run with its default settings on its default range of beta, 50 points.
"""

import argparse
import json
import math
import os
import platform
import statistics
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from sigreg.lab.data import fashion_mnist_tensors
from sigreg.rate_distortion import information_bottleneck, rate_and_relevance

BITS = 1 / math.log(2)


def random_joint(n_x, n_y, concentration, seed=0):
    """Rows p(y|x) from a symmetric Dirichlet law: the smaller the concentration, the nearer to deterministic."""
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.full(n_y, concentration), n_x)
    return torch.tensor(rows * rng.dirichlet(np.full(n_x, 5.0))[:, None])


def timed(function, *args, **kwargs):
    start = time.perf_counter()
    answer = function(*args, **kwargs)
    return time.perf_counter() - start, answer


def embo_curve(joint):
    """embo's curve in bits with the beta it means, from a copy: it normalises its argument in place."""
    import embo

    solver = embo.InformationBottleneck(pxy=joint.numpy().copy(), numbeta=50, ensure_monotonic_bound=False)
    rate, relevance, _, beta = (torch.tensor(np.array(v)) for v in solver.get_bottleneck())
    return beta * BITS, rate, relevance


def best_known(joint, betas, restarts):
    """The lowest Lagrangian in bits of long searches with other generators and of plain restarts from random codes."""
    values = []
    for seed in range(2):
        generator = torch.Generator().manual_seed(100 + seed)
        curve = information_bottleneck(joint, betas, generator=generator, tolerance=1e-8, max_rounds=100)
        values.append(curve.lagrangian * BITS)
    generator = torch.Generator().manual_seed(0)
    px, p = joint.sum(1), joint / joint.sum(1, keepdim=True)
    negentropy = torch.special.xlogy(p, p).sum(1)
    for _ in range(restarts):
        encoder = torch.rand(len(betas), len(p), 32, generator=generator, dtype=joint.dtype) ** 8
        for _ in range(300):
            encoder = encoder / encoder.sum(2, keepdim=True)
            marginal = (px @ encoder).clamp_min(1e-300)
            q = (encoder.transpose(1, 2) * px) @ p / marginal[:, :, None]
            distortion = negentropy[:, None] - p @ q.clamp_min(1e-300).log().transpose(1, 2)
            logits = marginal.log()[:, None, :] - betas[:, None, None] * distortion
            encoder = logits.softmax(2)
        rate, relevance = rate_and_relevance(joint, encoder)
        values.append((rate - betas * relevance) * BITS)
    return torch.stack(values).amin(0)


def beside_embo(inputs, concentration, repeats, restarts):
    joint = random_joint(inputs, 16, concentration)
    theirs, ours = [], []
    for _ in range(repeats):
        seconds, (betas, rate, relevance) = timed(embo_curve, joint)
        theirs.append(seconds)
        for _ in range(3):
            seconds, curve = timed(information_bottleneck, joint, betas)
            ours.append(seconds)
    embo_value = rate - betas * relevance
    value = curve.lagrangian * BITS
    best = torch.minimum(torch.minimum(best_known(joint, betas, restarts), value), embo_value)
    ratios = [t / o for t, group in zip(theirs, zip(*[iter(ours)] * 3, strict=True), strict=True) for o in group]
    return {
        "inputs": inputs, "concentration": concentration,
        "embo seconds": theirs,
        "ours seconds": ours,
        "ratio": [statistics.median(ratios), min(ratios), max(ratios)],
        "embo worst gap, bits": (embo_value - best).max().item(),
        "embo betas off by more than 1e-3 bits": int((embo_value - best > 1e-3).sum()),
        "ours worst gap, bits": (value - best).max().item(),
        "ours certified gap, bits": curve.gap.max().item() * BITS,
        "most codewords": int((curve.marginal > 1e-6).sum(1).max()),
    }


def many_inputs():
    """Seconds, gaps and the loss against W = X for 1000 inputs, 10 targets and five betas."""
    generator = torch.Generator().manual_seed(0)
    rows = (-torch.rand(1000, 10, generator=generator, dtype=torch.float64).log()) ** 2
    joint = rows / rows.sum(1, keepdim=True) / 1000
    betas = torch.tensor([2.0, 5.0, 15.0, 50.0, 200.0], dtype=torch.float64)
    start = time.process_time()
    curve = information_bottleneck(joint, betas)
    rate, relevance = rate_and_relevance(joint, torch.eye(1000, dtype=torch.float64))
    return {
        "cpu seconds": time.process_time() - start, "betas": betas.tolist(), "gap": curve.gap.tolist(),
        "converged": curve.converged.tolist(), "codewords": (curve.marginal > 1e-9).sum(1).tolist(),
        "Lagrangian above that of W = X, nats": (curve.lagrangian - rate + betas * relevance).tolist(),
    }


def try_dit():
    """What dit's solver answers on a binary symmetric channel, beside ours at each way its beta may be meant."""
    joint = torch.tensor([[0.45, 0.05], [0.05, 0.45]], dtype=torch.float64)
    ours = information_bottleneck(joint, torch.tensor([4 / BITS, 4.0, 4 * BITS], dtype=torch.float64)).rate * BITS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from dit.rate_distortion.blahut_arimoto import blahut_arimoto_ib

            result, _ = blahut_arimoto_ib(joint.numpy(), 4.0, restarts=50)
    except Exception as error:
        return f"dit {version('dit')} does not run: {type(error).__name__}: {error}"
    span = f"{ours.min():.3f} to {ours.max():.3f} bits, depending on how its beta is meant"
    verdict = "in" if ours.min() - 1e-3 <= result.rate <= ours.max() + 1e-3 else "**not in**"
    return f"dit {version('dit')} at beta = 4 answers a rate of {result.rate:.3g} bits, {verdict} the range {span}"


def class_posteriors(n, generator):
    """p(y|x) of a linear softmax model on FashionMNIST pixels, fitted for a few steps: rows of realistic shape."""
    images, labels = fashion_mnist_tensors(True)
    images = images.flatten(1)
    model = torch.nn.Linear(images.shape[1], 10)
    with torch.no_grad():
        model.weight.zero_(), model.bias.zero_()
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(200):
        batch = torch.randint(len(images), (256,), generator=generator)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimiser.step()
    with torch.no_grad():
        picks = torch.randint(len(images), (n,), generator=generator)
        noise = 0.3 * torch.randn(n, images.shape[1], generator=generator)  # more inputs than the subset has
        return model(images[picks] + noise).double().softmax(1) / n


def growth(sizes, codewords):
    """Seconds for three betas against the number of inputs and of codewords."""
    rows, generator = [], torch.Generator().manual_seed(0)
    joint = class_posteriors(max(sizes), generator)
    betas = torch.tensor([2.0, 5.0, 15.0], dtype=torch.float64)
    for n in sizes:
        for k in codewords if n == sizes[1] else codewords[:1]:
            seconds, curve = timed(information_bottleneck, joint[:n] * (len(joint) / n), betas, k)
            rows.append({"inputs": n, "codewords": k, "seconds": seconds, "relevance": curve.relevance.tolist()})
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one repeat and fewer restarts")
    parser.add_argument("--write", action="store_true", help="keep the results in benchmarks/results/")
    arguments = parser.parse_args()
    quick = arguments.quick
    results = {
        "versions": {name: version(name) for name in ("torch", "numpy", "embo", "dit")} | {
            "python": platform.python_version()},
        "date": time.strftime("%Y-%m-%d"),
        "threads": torch.get_num_threads(), "cores": os.cpu_count(),
        "problem": "|Y| = 16, 50 betas",
        "beside embo": [
            beside_embo(x, c, 1 if quick else n, 1 if quick else 4)
            for x, c, n in ((256, 0.5, 2), (256, 1.0, 1), (256, 0.1, 1), (512, 0.1, 1), (1024, 0.1, 1))
            if not (quick and x > 256)
        ],
        "many inputs": many_inputs(),
        "dit": try_dit(),
        "growth": growth([256, 1000, 4000, 16000], [10, 20, 50]),
    }
    print(f"{results['problem']}; {results['threads']} thread(s); versions {results['versions']}\n")
    print("| inputs | rows p(y given x) | embo, s | ours, s | ratio (range) | embo's gap, bits (betas off) ", end="")
    print("| our gap, bits | certified, bits |")
    print("|---|---|---|---|---|---|---|---|")
    for r in results["beside embo"]:
        m, low, high = r["ratio"]
        print(f"| {r['inputs']} | Dirichlet({r['concentration']}) | {statistics.median(r['embo seconds']):.1f} "
              f"| {statistics.median(r['ours seconds']):.2f} | {m:.1f} ({low:.1f} to {high:.1f}) "
              f"| {r['embo worst gap, bits']:.1e} ({r['embo betas off by more than 1e-3 bits']} of 50) "
              f"| {r['ours worst gap, bits']:.1e} | {r['ours certified gap, bits']:.1e} |")
    many = results["many inputs"]
    print(f"\n1000 inputs, 10 targets, 5 betas: {many['cpu seconds']:.1f} s, largest gap {max(many['gap']):.1e} nats")
    print(f"\n{results['dit']}\n\n| inputs | codewords | seconds for 3 betas |\n|---|---|---|")
    for r in results["growth"]:
        print(f"| {r['inputs']} | {r['codewords']} | {r['seconds']:.2f} |")
    if arguments.write:
        folder = Path(__file__).parent / "results"
        folder.mkdir(exist_ok=True)
        (folder / "rate_distortion.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
