r"""VICReg, its two entropy variants and SIGReg at a longer budget, tuned at that budget, with paired seeds.

:mod:`sigreg.lab.experiments.vicreg_information` trains for one pass with weights that were tuned on a part of it. Here
:mod:`sigreg.lab.experiments.vicreg_information_family_trials` tries three weights of each method with three seeds at
the budget of the run, on held-out training images, and eight other seeds run with the best. Network and views are those
of :mod:`sigreg.lab.experiments.without_labels`; for one seed all methods start from the same weights. Features and
codes have the same reader, a probe whose ridge is chosen on held-out training images, standardised and whitened.

Derived in: Chapter 7, sections 7.5 and 7.6.
"""

import torch

from sigreg.joint_embedding import vicreg_logdet_loss, vicreg_loss, vicreg_pairdist_loss
from sigreg.lab.data import normalised
from sigreg.lab.experiments import without_labels
from sigreg.lab.experiments.without_labels import build, features_of, images_of, judged
from sigreg.lab.models import refresh_norms
from sigreg.lab.records import best_settings, table
from sigreg.lab.views import random_views
from sigreg.vicreg_information import information_steps

VERSION = 1
SEEDS = {"default": 8, "full": 8}
CHECK = {"method": "vicreg"}
LOOSE = without_labels.LOOSE

NAMES = {"vicreg": "VICReg", "logdet": "VICReg + LogDet", "pairdist": "VICReg + PairDist", "sigreg": "SIGReg"}
# The one weight of each, a factor of four apart: of the invariance, for SIGReg of the regularizer.
GRID = {
    "vicreg": (6.25, 25.0, 100.0),
    "logdet": (2.0, 8.0, 32.0),
    "pairdist": (0.03125, 0.125, 0.5),
    "sigreg": (0.1, 0.4, 1.6),
}
LARGE = {**without_labels.LARGE, "passes": 10, "lr": 1e-3}
SMALL = {**without_labels.SMALL, "passes": 10, "lr": 1e-3}
ASKED = 2000  # test images whose two views are compared for the information between them


def units(preset, seeds):
    """Seed by seed one unit a method, with the weight that the trials prefer."""
    size, best = LARGE if preset == "full" else SMALL, tuned(preset)
    return [{**size, "method": method, "setting": best[method], "seed": seed} for seed in seeds for method in GRID]


def tuned(preset):
    """The weight of each method with the best mean over the trials' seeds; the middle one where there is no record."""
    return best_settings("vicreg_information_family_trials", preset, GRID)


def tolerance(unit):
    """Relative rounding that training leaves: 3% of the guesses and of InfoNCE differ (AVX2 against AVX-512)."""
    return 0.06


def loss_of(unit):
    """The loss of a unit as :func:`sigreg.lab.loop.fit_on_device` wants it.

    >>> loss_of({"method": "logdet", "setting": 8.0}).__name__
    'loss'
    """
    losses = {"vicreg": vicreg_loss, "logdet": vicreg_logdet_loss, "pairdist": vicreg_pairdist_loss}
    if unit["method"] not in losses:
        return without_labels.loss_of(unit)

    def loss(pair, batch, generator):
        return losses[unit["method"]](*pair.online(*batch[0]).float(), invariance=unit["setting"])

    return loss


def run_unit(unit, device):
    """Train one network and judge its features and codes."""
    pixels, labels, test_pixels, test_labels = images_of(unit["whole"], device)
    pixels, labels = pixels[: unit["images"]], labels[: unit["images"]]
    pair = build(unit, device)
    history = without_labels.train(pair, unit, pixels, labels, loss_of(unit))
    refresh_norms(pair.online.encoder, normalised(pixels[:10_000]))
    known, asked = (features_of(pair.online, part) for part in (pixels, test_pixels))
    found = {"curve": without_labels.curve_of(history), **judged(known, labels, asked, test_labels, unit)}
    known, asked = (codes_of(pair.online, normalised(part)) for part in (pixels, test_pixels))
    found |= {f"code_{name}": value for name, value in judged(known, labels, asked, test_labels, unit).items()}
    generator = torch.Generator().manual_seed(unit["seed"])
    views = [codes_of(pair.online, random_views(normalised(test_pixels[:ASKED]), generator)) for _ in range(2)]
    return {**found, "steps": {name: round(value, 5) for name, value in vars(information_steps(*views)).items()}}


@torch.no_grad()
def codes_of(network, images):
    """Codes of images, one view each: (N, D)."""
    network.eval()
    found = torch.cat([network(part)[0].float() for part in images.split(1000)])
    network.train()
    return found


def summary(record):
    """The headline in plain words."""
    means = table(record).groupby("method", sort=False)[["accuracy", "code_white_accuracy"]].mean() * 100
    return "\n".join(
        f"{NAMES[m]}: features {row.accuracy:.2f}%, whitened codes {row.code_white_accuracy:.2f}%"
        for m, row in means.iterrows()
    )
