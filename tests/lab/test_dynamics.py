"""The two laboratories of Chapter 8: ascent on a channel, and linear prediction, against the theorems."""

import pytest
import torch
from toys import seeded

from sigreg import information_maximization as im
from sigreg.lab import dynamics
from sigreg.rate_distortion import mutual_information

F64 = torch.float64


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=F64)


def test_ring_channel_is_symmetric_and_positive():
    joint = dynamics.ring_channel(12, 3.0)
    torch.testing.assert_close(joint, joint.T)
    torch.testing.assert_close(joint.sum(0), torch.full((12,), 1 / 12, dtype=F64))
    assert torch.linalg.eigvalsh(joint).min() > -1e-15
    with pytest.raises(ValueError, match="size must be at least 2"):
        dynamics.ring_channel(1, 1.0)


def test_alternation_rises_and_stays_below_the_information(generator):
    joint = dynamics.ring_channel(10, 3.0)
    f, g = 0.3 * normal(generator, 2, 10, 3)
    run = dynamics.ascend(joint, f, g, mode="alternating", lr=1.0, steps=200)
    assert (run.exact.diff() > 0).all() and run.exact[-1] < mutual_information(joint)
    assert run.estimate is None


def test_a_stop_gradient_on_one_shared_table_is_half_the_step(generator):
    joint, f = dynamics.ring_channel(8, 3.0), 0.3 * normal(generator, 8, 3)
    whole = dynamics.ascend(joint, f, f, mode="shared", lr=1.0, steps=30)
    stopped = dynamics.ascend(joint, f, f, mode="shared_stopped", lr=2.0, steps=30)
    torch.testing.assert_close(whole.exact, stopped.exact)
    torch.testing.assert_close(whole.f, stopped.f)


def test_first_step_of_ascent_is_the_gradient_by_finite_differences(generator):
    joint = dynamics.ring_channel(5, 2.0)
    f, g = normal(generator, 2, 5, 2)
    lr, small = 1e-3, 1e-5
    run = dynamics.ascend(joint, f, g, mode="joint", lr=lr, steps=1)
    bump = torch.zeros_like(f)
    bump[2, 1] = small
    up, down = (im.donsker_varadhan((f + s * bump) @ g.T, joint).bound for s in (1, -1))
    assert (run.f - f)[2, 1] / lr == pytest.approx(float(up - down) / (2 * small), rel=1e-6)


def test_minibatch_ascent_is_reproducible_and_needs_a_generator(generator):
    joint, f = dynamics.ring_channel(6, 2.0), 0.3 * normal(generator, 6, 2)
    runs = [
        dynamics.ascend(joint, f, f, mode="shared", lr=0.3, steps=5, batch=16, generator=seeded(1)) for _ in range(2)
    ]
    assert torch.equal(runs[0].estimate, runs[1].estimate) and runs[0].estimate.shape == (5,)
    with pytest.raises(ValueError, match="generator is needed"):
        dynamics.ascend(joint, f, f, mode="shared", lr=0.3, steps=5, batch=16)
    with pytest.raises(ValueError, match="mode must be one of"):
        dynamics.ascend(joint, f, f, mode="sideways", lr=0.3, steps=5)
    with pytest.raises(ValueError, match="f and g must have shapes"):
        dynamics.ascend(joint, f, f[:3], mode="joint", lr=0.3, steps=5)
    with pytest.raises(ValueError, match="lower lr"):
        dynamics.ascend(joint, f, f, mode="shared", lr=1e4, steps=50)


def views(generator, correlations, count):
    x = normal(generator, count, len(correlations))
    return x, correlations * x + (1 - correlations**2).sqrt() * normal(generator, count, len(correlations))


RHO = torch.tensor([0.9, 0.6, 0.3, 0.0], dtype=F64)


def test_prediction_loss_is_the_mean_over_samples(generator):
    a, p = normal(generator, 2, 4), normal(generator, 2, 2)
    x, other = views(generator, RHO, 200_000)
    errors = ((x @ a.T @ p.T - other @ a.T).square().sum(1)) / 2
    found = dynamics.linear_prediction_loss(a, a, p, RHO)
    assert found == pytest.approx(errors.mean().item(), abs=4 * errors.std().item() / 200_000**0.5)
    with pytest.raises(ValueError, match="encoder and target"):
        dynamics.linear_prediction_loss(a, a[:, :3], p, RHO)


def test_best_predictor_is_least_squares(generator):
    a = normal(generator, 2, 4)
    p = dynamics.best_predictor(a, RHO).requires_grad_()
    (slope,) = torch.autograd.grad(dynamics.linear_prediction_loss(a, a, p, RHO), p)
    assert slope.abs().max() < 1e-12


def test_linear_information_is_that_of_the_joint_covariance(generator):
    a, noise = normal(generator, 2, 4), 0.3
    own = a @ a.T + noise**2 * torch.eye(2, dtype=F64)
    cross = (a * RHO) @ a.T
    whole = torch.cat([torch.cat([own, cross], 1), torch.cat([cross.T, own], 1)])
    expected = torch.logdet(own) - torch.logdet(whole) / 2
    torch.testing.assert_close(dynamics.linear_information(a, RHO, noise), expected)
    assert dynamics.linear_information(0 * a, RHO, noise) == 0
    with pytest.raises(ValueError, match="noise must be positive"):
        dynamics.linear_information(a, RHO, 0.0)


@pytest.mark.parametrize("stop_gradient", [True, False])
def test_what_one_small_step_does_to_the_gram_matrix(generator, stop_gradient):
    """With the best predictor: nothing under a stop-gradient, a loss of 2 lr E|Pz - z'|^2 in the trace without."""
    a, lr = normal(generator, 3, 4), 1e-5
    run = dynamics.train_linear(
        a, RHO, stop_gradient=stop_gradient, predictor="best", regularizer=False, lr=lr, steps=1
    )
    change = (run.encoder @ run.encoder.T - a @ a.T) / lr
    if stop_gradient:
        assert change.abs().max() < 1e-3
    else:
        residual = 2 * dynamics.linear_prediction_loss(a, a, dynamics.best_predictor(a, RHO), RHO)
        assert change.trace() == pytest.approx(-2 * residual.item(), rel=1e-3)


def test_stop_gradient_without_predictor_halves_the_gradient(generator):
    a = normal(generator, 2, 4)
    settings = {"predictor": None, "regularizer": False, "steps": 40}
    whole = dynamics.train_linear(a, RHO, stop_gradient=False, lr=0.05, **settings)
    half = dynamics.train_linear(a, RHO, stop_gradient=True, lr=0.1, **settings)
    torch.testing.assert_close(whole.encoder, half.encoder)


def test_a_learned_predictor_keeps_gram_less_its_own_over_speed(generator):
    a, speed = 0.7 * normal(generator, 2, 4), 3.0
    settings = {"stop_gradient": True, "predictor": "learned", "regularizer": False, "speed": speed}
    run = dynamics.train_linear(torch.linalg.qr(a.T).Q.T, RHO, lr=0.02, steps=1500, **settings)
    expected = torch.tensor([1 - (1 - r**2) / speed for r in (0.9, 0.6)], dtype=F64)
    torch.testing.assert_close(run.spectrum[-1], expected, atol=0.03, rtol=0)


def test_whitened_flow_raises_the_sum_of_squared_correlations(generator):
    a = torch.linalg.qr(normal(generator, 4, 2)).Q.T
    run = dynamics.train_linear(a, RHO, stop_gradient=True, predictor="best", regularizer=False, lr=0.1, steps=800)
    assert (run.information.diff() > -1e-12).all()
    torch.testing.assert_close(run.spectrum[-1], torch.ones(2, dtype=F64), atol=0.02, rtol=0)
    found = torch.linalg.eigvalsh((run.encoder * RHO) @ run.encoder.T).flip(0)
    torch.testing.assert_close(found, torch.tensor([0.9, 0.6], dtype=F64), atol=0.02, rtol=0)
    with pytest.raises(ValueError, match="predictor must be None"):
        dynamics.train_linear(a, RHO, stop_gradient=True, predictor="guess", regularizer=False)


@pytest.mark.parametrize("predictor", [None, "learned"])
def test_decay_shrinks_what_the_loss_leaves_alone(predictor):
    """With views that know nothing of each other and codes of almost no size, the decay alone is at work."""
    a, none = 1e-6 * torch.eye(2, 3, dtype=F64), torch.zeros(3, dtype=F64)
    settings = {"stop_gradient": True, "regularizer": False, "lr": 0.1, "steps": 20}
    run = dynamics.train_linear(a, none, predictor=predictor, decay=0.5, **settings)
    if predictor is None:  # z - z' pulls as well: by rho - 1 = -1
        torch.testing.assert_close(run.encoder, (1 - 0.1 * 1.5) ** 20 * a)
    else:  # the pull is p^T p, with p = (1 - lr speed decay)^k: gone after two steps
        kept = torch.tensor([1 - 0.1 * (0.5 + (1 - 0.5) ** (2 * k)) for k in range(20)], dtype=F64).prod()
        torch.testing.assert_close(run.encoder, kept * a, rtol=1e-6, atol=0)
