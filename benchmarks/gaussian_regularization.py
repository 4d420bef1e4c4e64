r"""Time and memory of SIGReg, forward and backward with the slices drawn, beside other ways to compute it.

    python benchmarks/gaussian_regularization.py                 # the default allocator
    python benchmarks/gaussian_regularization.py --keep-pages    # a heap that keeps its pages: no page faults
    python benchmarks/gaussian_regularization.py --write         # results of both -> benchmarks/results/

Compared in one process, interleaved, so that a slow moment of the machine hits all alike:

* ``lightly``: the loss of lightly (PyPI; benchmarks/requirements.txt);
* ``plain``: the formula as it reads, differentiated by autograd (sigreg.plain_sliced_sigreg);
* ``compiled``: the same under torch.compile;
* ``sigreg``: this package (sigreg.SIGReg);
* ``fused`` (on a GPU only): the product form written without buffers, under torch.compile;
* ``floor``: the two matrix products that no method avoids (projection, and slopes back to codes), nothing else;
* ``lightly captured``, ``sigreg captured`` (on a GPU only): the whole step replayed from a CUDA graph, without the
  launches. A method whose step cannot be captured has none.

Three ratios belong together, because they answer different questions: against lightly with the default
allocator (what a user sees), against lightly with a heap that keeps its pages (without the page faults of fresh
buffers), and against the compiled formula (what a compiler makes of it). Each is the median over rounds of the
ratio within a round, with its quartiles.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

import torch

import sigreg.gaussian_regularization as ours
from sigreg._sliced import grid_constants

RESULTS = pathlib.Path(__file__).parent / "results"
KEEP_PAGES = {  # glibc: never hand memory back, so that no buffer is made of fresh pages
    "MALLOC_MMAP_THRESHOLD_": "8589934592",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
}
CASES = {
    "cpu": [(256, 64, 256), (512, 128, 1024), (1024, 512, 1024), (4096, 512, 1024)],
    "cuda": [(256, 64, 256), (512, 128, 1024), (1024, 512, 1024), (4096, 1024, 4096), (16384, 512, 1024)],
}
SWEEP = [  # on a GPU with --sweep: is it anywhere slower than another?
    (64, 8, 64), (64, 2048, 1024), (512, 32, 256), (2048, 256, 512), (4096, 2048, 1024), (8192, 64, 1024),
    (65536, 8, 64), (65536, 64, 256), (65536, 512, 512),
]  # fmt: skip


def methods(n, d, m, device, names):
    """A dictionary from name to a function that runs one whole step."""
    z = torch.randn(n, d, generator=torch.Generator().manual_seed(0)).to(device).requires_grad_()

    def step(loss):
        def run():
            z.grad = None
            loss(z).backward()

        return run

    def plain(z, formula=ours.plain_sliced_sigreg):
        return formula(z, ours.random_directions(m, d, device=device))

    directions = ours.random_directions(m, d, device=device)
    projection, back = torch.empty(m, n, device=device), torch.empty(n, d, device=device)

    def floor():
        with torch.no_grad():
            torch.mm(directions, z.T, out=projection)
            torch.mm(projection.T, directions, out=back)

    def lightly():
        from lightly.loss import SIGReg

        return step(SIGReg(num_vectors=m).to(device))

    makers = {
        "lightly": lightly,
        "plain": lambda: step(plain),
        "compiled": lambda: step(lambda z: plain(z, torch.compile(ours.plain_sliced_sigreg))),
        "sigreg": lambda: step(ours.SIGReg(m)),
        "fused": lambda: step(lambda z: plain(z, torch.compile(product_form))),
        "floor": lambda: floor,
    }
    found = {name: makers[name]() for name in names if not name.endswith(" captured")}
    for name in names:
        if name.endswith(" captured"):
            replay = captured(makers[name.removesuffix(" captured")](), z)
            found |= {name: replay} if replay else {}
    return found


def captured(run, z, warmup=3):
    """The step as a CUDA graph; None where it synchronises or does something else that a graph cannot hold."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(warmup):
            run()
    torch.cuda.current_stream().wait_stream(side)
    z.grad = None
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            run()
    except RuntimeError as error:
        print(f"not captured: {str(error).splitlines()[0]}", file=sys.stderr)
        torch.cuda.synchronize()
        return None
    return graph.replay


def product_form(z, directions, knots=17, t_max=3.0):
    """SIGReg by the package's product form, without buffers or blocks, for a compiler to fuse."""
    grid = [torch.from_numpy(array).to(z) for array in grid_constants(knots, t_max)]
    return _product_form(z, directions, t_max / (knots - 1), *grid)


def _product_form(z, directions, step, multiples, target, weight, combine, _):
    angle = (directions @ z.T) * step  # (M, N)
    one = torch.ones_like(angle).unsqueeze(1)
    c, s = angle.cos().unsqueeze(1), angle.sin().unsqueeze(1)
    baby = torch.cat([one, c, s, c * s, s * s], 1)  # (M, 5, N)
    far = angle.unsqueeze(1) * multiples.squeeze(-1)
    c, s = far.cos(), far.sin()
    giant = torch.cat([one, c, s, c * s, s * s, c * s * s, s * s * s], 1)  # (M, giants, N)
    residual = (giant @ baby.mT).flatten(1) @ combine / len(z) - target
    return len(z) * (residual.square() @ weight).mean()


def wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


def measure(steps, device, rounds, warmup):
    """Seconds of each step in each round, rounds interleaved."""
    for _ in range(warmup):
        for run in steps.values():
            run()
    times = {name: [] for name in steps}
    for _ in range(rounds):
        for name, run in steps.items():
            wait(device)
            start = time.perf_counter()
            run()
            wait(device)
            times[name].append(time.perf_counter() - start)
    return times


def peak_extra_memory(run, device):
    """Bytes that one step holds at its worst beyond what was there before, by the allocator's own count."""
    run()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profile:
        run()
    held = worst = 0
    memory = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(memory, key=lambda e: e.start_ns()):
        held += event.nbytes()
        worst = max(worst, held)
    return worst


def summary(values):
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": middle, "quartiles": [low, high]}


def run_case(case, device, names, rounds, warmup):
    n, d, m = case
    torch.manual_seed(0)
    steps = methods(n, d, m, device, names)
    times = measure(steps, device, rounds, warmup)
    record = {"N": n, "D": d, "M": m, "milliseconds": {}, "ratio_to_sigreg": {}, "peak_extra_megabytes": {}}
    for name, seconds in times.items():
        record["milliseconds"][name] = summary([1e3 * s for s in seconds])
        own_name = "sigreg captured" if name.endswith(" captured") and "sigreg captured" in times else "sigreg"
        ratios = [s / own for s, own in zip(seconds, times[own_name], strict=True)]
        record["ratio_to_sigreg"][name] = summary(ratios)
    for name, run in steps.items():
        if name != "floor" and not name.endswith(" captured"):
            record["peak_extra_megabytes"][name] = peak_extra_memory(run, device) / 2**20
    return record


def environment(device):
    import lightly

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightly": lightly.__version__,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "simd": torch.backends.cpu.get_cpu_capability(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=sorted(CASES), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--keep-pages", action="store_true", help="run again with an allocator that keeps its pages")
    parser.add_argument("--sweep", action="store_true", help="many shapes, on a GPU: where is another faster?")
    parser.add_argument("--case", type=int, help="run only this case (its place in the list, from 0)")
    parser.add_argument("--methods", help="comma-separated names, by default all; sigreg is always among them")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="store the results, and the tables made from them")
    options = parser.parse_args()
    if options.keep_pages and any(os.environ.get(k) != v for k, v in KEEP_PAGES.items()):
        sys.exit(subprocess.run([sys.executable, *sys.argv], env={**os.environ, **KEEP_PAGES}).returncode)

    default = ["lightly", "plain", "compiled", "sigreg", "floor"] + (
        ["fused", "lightly captured", "sigreg captured"] if options.device == "cuda" else []
    )
    names = options.methods.split(",") if options.methods else default
    names = names if "sigreg" in names else [*names, "sigreg"]
    cases = SWEEP if options.sweep else CASES[options.device]
    for place in range(len(cases)) if options.case is None else [options.case]:
        record = run_case(cases[place], options.device, names, options.rounds, options.warmup)
        record["rounds"] = options.rounds
        record["allocator"] = "keeps pages" if options.keep_pages else "default"
        print(table([record]), flush=True)
        if options.write:
            store(record, options.device)


def store(record, device):
    """Put a record in the place of the one it repeats, and make the page anew."""
    path = RESULTS / "gaussian_regularization.json"
    everything = json.loads(path.read_text()) if path.exists() else {"environment": {}, "records": []}
    found = environment(device)
    everything["environment"][found["device"]] = found  # a card's name, so that several stand side by side
    record = {"device": found["device"], **record}

    def key(r):
        return [r["device"], r["allocator"], r["N"], r["D"], r["M"]]

    kept = [r for r in everything["records"] if key(r) != key(record)]
    everything["records"] = sorted([*kept, record], key=key)
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(everything, indent=1) + "\n")
    path.with_suffix(".md").write_text(page(everything))


def table(records):
    order = ("lightly", "plain", "compiled", "fused", "sigreg", "floor", "lightly captured", "sigreg captured")
    names = [n for n in order if any(n in r["milliseconds"] for r in records)]
    against = [n for n in names if n not in ("sigreg", "sigreg captured")]
    head = ["N, D, M", *[f"{n}, ms" for n in names]]
    head += ["sigreg / floor" if n == "floor" else f"{n} / sigreg" for n in against]
    weighed = [n for n in names if n != "floor" and not n.endswith(" captured")]
    head += [f"{n}, MB" for n in weighed]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for r in records:
        cells = [f"{r['N']}, {r['D']}, {r['M']}"]
        cells += [f"{r['milliseconds'][n]['median']:.3g}" if n in r["milliseconds"] else "-" for n in names]
        for n in against:
            if n not in r["ratio_to_sigreg"]:
                cells.append("-")
                continue
            ratio, (low, high) = r["ratio_to_sigreg"][n]["median"], r["ratio_to_sigreg"][n]["quartiles"]
            if n == "floor":
                ratio, low, high = 1 / ratio, 1 / high, 1 / low
            cells.append(f"{ratio:.3g} ({low:.3g}-{high:.3g})")
        cells += [f"{r['peak_extra_megabytes'][n]:.3g}" if n in r["peak_extra_megabytes"] else "-" for n in weighed]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def page(everything):
    parts = [
        "# SIGReg: forward and backward, slices drawn\n",
        "Medians over interleaved rounds in one process; ratios are medians of the ratios within a round, with their"
        " quartiles; memory is the peak beyond what stood before the step. Made by"
        " `benchmarks/gaussian_regularization.py`, which says what each column is.\n",
    ]
    for device, versions in everything["environment"].items():
        parts.append(f"## {device}\n\n" + ", ".join(f"{k} {v}" for k, v in versions.items()) + ".\n")
        for allocator in ("default", "keeps pages"):
            records = [r for r in everything["records"] if (r["device"], r["allocator"]) == (device, allocator)]
            if records:
                parts.append(f"### Allocator: {allocator}\n\n{table(records)}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    main()
