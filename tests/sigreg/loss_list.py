"""The losses of the package as functions of two codes (32, 8): what test_precision and test_matrix go through."""

import torch

from sigreg import conditional_bottleneck as cb
from sigreg import information_maximization as im
from sigreg import joint_embedding as je
from sigreg import self_supervised, semi_supervised
from sigreg.gaussian_regularization import (
    SIGReg,
    epps_pulley,
    epps_pulley_closed_form,
    radial_sigreg,
    random_directions,
    slice_free_sigreg,
    sliced_sigreg,
)
from sigreg.vicreg_information import slice_free_moments, sliced_moments

DIRECTIONS = random_directions(32, 8, generator=torch.Generator().manual_seed(5))
LABELS = torch.arange(32) % 4


def seeded():
    return torch.Generator().manual_seed(0)


def gaussians(a, b):
    return a, a + 0.1 * b.tanh(), 0.1 * b.tanh() + 0.5


LOSSES = {  # of two codes (32, 8); some draw from the global generator: seed it before each call
    "SIGReg": lambda a, b: SIGReg(32)(torch.stack([a, b])),
    "sliced_sigreg": lambda a, b: sliced_sigreg(torch.stack([a, b]), DIRECTIONS.to(a)),
    "slice_free_sigreg": lambda a, b: slice_free_sigreg(torch.stack([a, b])),
    "radial_sigreg": lambda a, b: radial_sigreg(torch.stack([a, b])),
    "epps_pulley": lambda a, b: epps_pulley(a).mean(),
    "epps_pulley_closed_form": lambda a, b: epps_pulley_closed_form(a).mean(),
    "vicreg_loss": je.vicreg_loss,
    "vicreg_logdet_loss": je.vicreg_logdet_loss,
    "vicreg_pairdist_loss": je.vicreg_pairdist_loss,
    "barlow_twins_loss": je.barlow_twins_loss,
    "nt_xent_loss": je.nt_xent_loss,
    "moco_loss": lambda a, b: je.moco_loss(a, DIRECTIONS.flip(0).to(a), DIRECTIONS.to(a)),
    "negative_cosine": je.negative_cosine,
    "simsiam_loss": lambda a, b: je.simsiam_loss(a, b, a.sin(), b.cos(), stop_gradient=False),
    "byol_loss": lambda a, b: je.byol_loss(a, b, a.sin(), b.cos(), stop_gradient=False),
    "logdet_entropy": lambda a, b: je.logdet_entropy(a),
    "pairwise_entropy": lambda a, b: je.pairwise_entropy(a),
    "minibatch_rate": lambda a, b: cb.minibatch_rate(*gaussians(a, b), LABELS.to(a.device)),
    "defensive_rate": lambda a, b: cb.defensive_rate(*gaussians(a, b), LABELS.to(a.device)),
    "pairwise_rate": lambda a, b: cb.pairwise_rate(*gaussians(a, b)[1:], LABELS.to(a.device)),
    "vib_rate": lambda a, b: cb.vib_rate(*gaussians(a, b)[1:]),
    "variational_ceb_rate": lambda a, b: cb.variational_ceb_rate(
        *gaussians(a, b)[1:], LABELS.to(a.device), a[:4], 0 * b[:4]
    ),
    "minibatch_relevance": lambda a, b: cb.minibatch_relevance(*gaussians(a, b), LABELS.to(a.device)),
    "bottleneck_loss": lambda a, b: cb.bottleneck_loss(a, LABELS.to(a.device), cb.vib_rate(*gaussians(a, b)[1:]), 0.1),
    "view_prediction_rate": lambda a, b: self_supervised.view_prediction_rate(torch.stack([a, b])),
    "view_prediction_loss": lambda a, b: self_supervised.view_prediction_loss(
        torch.stack([a, b]), weight=0.1, num_slices=32
    )["loss"],
    "lejepa_loss": lambda a, b: self_supervised.lejepa_loss(torch.stack([a, b]), num_slices=32)["loss"],
    "class_sigreg": lambda a, b: semi_supervised.class_sigreg(
        a, torch.eye(4).to(a)[LABELS.to(a.device)], 0.5, DIRECTIONS.to(a), seeded()
    ),
    "donsker_varadhan": lambda a, b: im.donsker_varadhan(a[:8]).bound,
    "second_order_bound": lambda a, b: im.second_order_bound(a[:8]).bound,
    "info_nce_bound": lambda a, b: im.info_nce_bound(a[:8]),
    "sliced_moments": lambda a, b: sliced_moments(a, DIRECTIONS.to(a)),
    "slice_free_moments": lambda a, b: slice_free_moments(a),
}
