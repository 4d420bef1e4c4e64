r"""Four learning rates for every loss of Chapter 3's comparison, judged on training images that no trial trains on.

Both batch sizes, two draws of weights, batches and noise that are none of those judged later, the whole grid of beta.
The last sixth of the training images is held out. A learning rate is as good as the accuracy of one code there, at the
conditional rates that all four of a loss reach (:func:`sigreg.lab.experiments.conditional_bottleneck.tuned`). The
test images are not read.

Derived in: Chapter 3, section 3.7.
"""

from sigreg.lab.data import fashion_mnist_tensors
from sigreg.lab.experiments import conditional_bottleneck as study
from sigreg.lab.experiments import conditional_bottleneck_batch as large

VERSION = 1
SEEDS = {"default": 1, "full": 2}
CHECK = {"method": "variational_ceb"}  # the quickest
PARTS = {256: study, 1024: large}  # the two studies by batch size

tolerance = study.tolerance


def units(preset, seeds):
    """Every loss at its second learning rate, then at the others; draw by draw."""
    common = {"part": "trial", "betas": list(study.BETAS)}
    return [
        {**part.budget(preset), **common, "method": method, "seed": 1000 + seed, "lr": study.LRS[size][k]}
        for seed in seeds
        for k in (1, 0, 2, 3)
        for size, part in PARTS.items()
        for method in part.METHODS
    ]


def run_unit(unit, device):
    """Train without the last sixth and judge every network on it."""
    images, labels = (t.to(device) for t in fashion_mnist_tensors(True, whole=unit["whole"]))
    kept = len(images) - len(images) // 6
    try:
        trained = study.train_sweep(unit, images[:kept], labels[:kept])
    except ValueError as error:  # a trial may diverge: it loses
        return {"networks": [], "failed": str(error)}
    judged = [
        study.evaluate(trained.network(g), images[kept:], labels[kept:], unit["seed"]) for g in range(trained.size)
    ]
    return {"networks": [{"beta": beta, **found} for beta, found in zip(unit["betas"], judged, strict=True)]}


def summary(record):
    """The learning rate that each loss is given."""
    lines = []
    for size, part in PARTS.items():
        chosen = study.tuned(size, part.METHODS, record["provenance"]["preset"], record["units"])
        lines.append(f"batch {size}: " + ", ".join(f"{method} {lr:g}" for method, lr in chosen.items()))
    return "\n".join(lines)
