"""The terms of the loss for few labels: closed forms, limits and invariances; and that no hidden label leaks."""

import math

import pytest
import torch
import torch.nn.functional as F

import sigreg.lab.experiments.semi_supervised as study
import sigreg.lab.experiments.semi_supervised_pretrained as started
from sigreg.evaluation import accuracy
from sigreg.gaussian_regularization import random_directions, slice_free_sigreg, sliced_sigreg
from sigreg.lab import reading
from sigreg.lab.batches import FewLabelBatches, balanced_draw
from sigreg.lab.fit import fit
from sigreg.lab.models import CodeClassifier, ConvEncoder, SharedBatchNorm, refresh_norms
from sigreg.lab.objectives import semi_supervised_objective
from sigreg.semi_supervised import class_sigreg, consistency_loss, sigreg_weight, standard_code_rate, variance_between


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def small_network(dim=5, read=None, seed=0):
    torch.manual_seed(seed)
    return CodeClassifier(ConvEncoder((4, 6), (4, 2)), latent_dim=dim, read=read, num_classes=3)


def small_batches(steps=2, labels=None, unlabelled=8, seed=0):
    kind = torch.arange(30) % 3
    images = normal(30, 1, 28, 28, dtype=torch.float32) + 3 * kind[:, None, None, None]  # a brightness for each class
    labels = kind if labels is None else labels
    sizes = {"labelled_batch": 6, "unlabelled_batch": unlabelled, "steps": steps}
    return FewLabelBatches(images, labels, torch.arange(9), seed=seed, **sizes)


# ---------------------------------------------------------------- the law of the codes


def test_rate_of_a_standard_code_is_that_of_the_gaussian_channel():
    sigma, dim = 0.3, 7
    mean = math.sqrt(1 - sigma**2) * torch.linalg.qr(normal(dim, dim))[0]  # W = A X + sigma noise has the law N(0, I)
    covariance = mean @ mean.T + sigma**2 * torch.eye(dim, dtype=torch.float64)
    torch.testing.assert_close(covariance, torch.eye(dim, dtype=torch.float64))
    rate = 0.5 * torch.logdet(covariance) - dim * math.log(sigma)
    assert standard_code_rate(dim, sigma) == pytest.approx(rate.item(), abs=1e-12)
    assert standard_code_rate(dim, 1.0) == 0


@pytest.mark.parametrize("dim", [1, 3, 16])
def test_weight_counts_small_errors_in_nats(dim):
    """Gaussian codes of scale s, or of mean m, in place of N(0, I): SIGReg by quadrature against the divergence."""
    t = torch.linspace(-9, 9, 4001, dtype=torch.float64)

    def integrate(gap):
        return torch.trapezoid(gap.abs().square() * torch.exp(-(t**2) / 2), t).item()

    def weighted(gap):
        return sigreg_weight(dim, 1) * integrate(gap)  # N = 1: the statistic over N

    target, e = torch.exp(-(t**2) / 2), 1e-3
    scale = weighted(torch.exp(-((t * (1 + e)) ** 2) / 2) - target)
    divergence = 0.5 * dim * ((1 + e) ** 2 - 1 - 2 * math.log1p(e))
    assert scale == pytest.approx(divergence, rel=5e-3)
    # the mean (e, 0, ..., 0) is seen by a direction a as a_1 e, and E a_1^2 = 1 / D
    shift = weighted((torch.exp(1j * t * e) - 1) * target) / dim
    assert shift == pytest.approx(2 * 0.5 * e**2, rel=5e-3)


def test_weight_falls_with_the_batch_and_grows_with_the_dimension():
    assert sigreg_weight(8, 100) == pytest.approx(2 * sigreg_weight(8, 200)) == pytest.approx(2 * sigreg_weight(4, 100))
    assert sigreg_weight(8, 100, nats=0.0) == 0


def test_class_sigreg_is_sigreg_of_the_residuals():
    w, labels = normal(60, 4), torch.arange(60) % 3
    directions = random_directions(16, 4, generator=torch.Generator().manual_seed(1), dtype=w.dtype)
    one_hot = F.one_hot(labels, 3).double()
    residual = torch.cat([w[labels == y] - w[labels == y].mean(0) for y in range(3)])
    expected = sliced_sigreg(residual / 0.7, directions)
    torch.testing.assert_close(class_sigreg(w, one_hot, 0.7, directions), expected)
    moved = w + 100 * normal(3, 4, seed=2)[labels]  # where the classes lie does not matter
    torch.testing.assert_close(class_sigreg(moved, one_hot, 0.7, directions), expected)


def test_class_sigreg_with_one_class_is_sigreg_without_the_mean():
    w, directions = normal(50, 3), torch.eye(3, dtype=torch.float64)
    value = class_sigreg(w, torch.ones(50, 1, dtype=torch.float64), 1.0, directions)
    torch.testing.assert_close(value, sliced_sigreg(w - w.mean(0), directions))


def test_mixture_pays_what_one_gaussian_forbids():
    labels = torch.arange(400) % 2
    w = 0.3 * normal(400, 2) + 8.0 * labels[:, None]
    directions = torch.eye(2, dtype=torch.float64)
    assert class_sigreg(w, F.one_hot(labels, 2).double(), 0.3, directions) < 3
    assert sliced_sigreg((w - w.mean(0)) / w.std(0), directions) > 20


def test_class_sigreg_sends_no_gradient_through_beliefs():
    w = normal(20, 3).requires_grad_()
    scores = normal(20, 2, seed=1).requires_grad_()
    generator = torch.Generator().manual_seed(0)
    class_sigreg(w, scores.softmax(1), 1.0, torch.eye(3, dtype=torch.float64), generator).backward()
    assert scores.grad is None and w.grad.abs().max() > 0


def test_consistency_is_cross_entropy_where_sure():
    weak, strong = 4 * normal(50, 5), normal(50, 5, seed=1)
    sure, label = weak.softmax(1).max(1)
    terms = -strong.log_softmax(1)[torch.arange(50), label]
    for threshold in (0.0, 0.5, 0.99):
        expected = terms[sure > threshold].sum() / 50
        torch.testing.assert_close(consistency_loss(weak, strong, threshold), expected)
    weak.requires_grad_()
    strong.requires_grad_()
    consistency_loss(weak, strong).backward()
    assert weak.grad is None and strong.grad is not None


def test_variance_between_does_not_see_rotation_scale_or_shift():
    w, labels = normal(90, 4) + 2 * torch.eye(4, dtype=torch.float64)[torch.arange(90) % 3], torch.arange(90) % 3
    share = variance_between(w, labels)
    rotation = torch.linalg.qr(normal(4, 4, seed=1))[0]
    assert variance_between(3 * w @ rotation - 5, labels) == pytest.approx(share, abs=1e-12)
    assert variance_between(torch.eye(3)[labels], labels) == pytest.approx(1.0)
    centred = torch.cat([w[labels == y] - w[labels == y].mean(0) for y in range(3)])
    assert variance_between(centred, torch.arange(3).repeat_interleave(30)) == pytest.approx(0.0, abs=1e-12)
    within = sum((w[labels == y] - w[labels == y].mean(0)).square().sum() for y in range(3))
    total = (w - w.mean(0)).square().sum()
    assert share == pytest.approx(1 - (within / total).item(), abs=1e-12)


# ---------------------------------------------------------------- data and network


def test_balanced_draw():
    labels = torch.randint(3, (200,), generator=torch.Generator().manual_seed(0))
    places = balanced_draw(labels, 30, torch.Generator().manual_seed(1))
    assert len(set(places.tolist())) == 30 and labels[places].bincount().tolist() == [10, 10, 10]
    assert torch.equal(places, balanced_draw(labels, 30, torch.Generator().manual_seed(1)))
    assert not torch.equal(places, balanced_draw(labels, 30, torch.Generator().manual_seed(2)))


def test_batches_repeat_and_never_look_at_hidden_labels():
    batches = small_batches(steps=3)
    first, second = list(batches), list(batches)
    assert len(batches) == len(first) == 3
    hidden = torch.arange(30) % 3
    hidden[9:] = torch.randint(3, (21,), generator=torch.Generator().manual_seed(5))
    for a, b, c in zip(first, second, small_batches(steps=3, labels=hidden), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
        assert all(torch.equal(x, y) for x, y in zip(a, c, strict=True))
    assert not torch.equal(first[0][0], first[1][0]) and first[2][-1].tolist() == [2] * 6


def test_batches_without_unlabelled_images():
    _, _, weak, strong, _ = next(iter(small_batches(unlabelled=0)))
    assert weak.shape == strong.shape == (0, 1, 28, 28)


def test_decoder_does_not_see_free_dimensions():
    network, images = small_network(dim=6, read=2), normal(4, 1, 28, 28, dtype=torch.float32)
    network.eval()
    noise = torch.zeros(4, 6)
    noise[:, 2:] = 5.0
    torch.testing.assert_close(network(images, noise).logits, network(images).logits)
    assert not torch.allclose(network(images, noise).w, network(images).mean)


def test_refreshed_norms_are_the_moments_of_the_images():
    images = normal(12, 1, 28, 28, dtype=torch.float32)
    network = small_network()
    before = [p.clone() for p in network.parameters()]
    refresh_norms(network, images, batch_size=12)
    layer = next(m for m in network.modules() if isinstance(m, SharedBatchNorm))
    maps = network.encoder.network[0](images)
    torch.testing.assert_close(layer.running_mean, maps.mean((0, 2, 3)))
    torch.testing.assert_close(layer.running_var, maps.var((0, 2, 3)))
    assert layer.momentum == 0.1 and network.training
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_accuracy_counts():
    network, images = small_network(), normal(25, 1, 28, 28, dtype=torch.float32)
    network.eval()
    guess = network(images).logits.argmax(1)
    assert accuracy(network, images, guess, batch_size=7) == 1
    assert accuracy(network, images, (guess + 1) % 3) == 0


# ---------------------------------------------------------------- the loss


def test_loss_is_the_weighted_sum_of_its_terms():
    weights = {"labelled": 0.7, "rate": 0.2, "sigreg": 0.3, "views": 0.4, "consistency": 0.5}
    objective = semi_supervised_objective(sigma=0.5, threshold=0.0, **weights)
    found = objective(small_network(), next(iter(small_batches())))
    names = {"labelled": "cross_entropy"}
    total = sum(weight * found[names.get(name, name)] for name, weight in weights.items())
    torch.testing.assert_close(found["loss"], total)
    assert min(value.item() for value in found.values()) > 0


def test_unlabelled_images_enter_through_their_terms_only():
    """Without such a term and without batch norm's shared moments, nothing unlabelled reaches the loss."""
    network, batch = small_network(), list(next(iter(small_batches())))
    network.eval()
    other = [*batch[:2], batch[2] + 1, batch[3] - 1, batch[4]]
    for settings, same in (
        ({}, True),
        ({"rate": 1.0}, True),
        ({"sigreg": 1.0, "scored": "labelled"}, True),
        ({"sigreg": 1.0, "scored": "unlabelled"}, False),
        ({"sigreg": 1.0}, False),
        ({"views": 1.0}, False),
        ({"sigreg": 1.0, "class_scale": 0.5}, False),
    ):
        objective = semi_supervised_objective(**settings)
        one, two = (objective(network, tuple(b))["loss"].item() for b in (batch, other))
        assert (abs(one - two) < 1e-6) == same, settings


def test_value_of_sigreg_is_that_of_the_codes():
    """Many slices, tiny noise: the slice-free value of the means of the scored codes."""
    network, batch = small_network(dim=3), next(iter(small_batches()))
    network.eval()
    objective = semi_supervised_objective(sigma=1e-4, sigreg=1.0, scored="unlabelled", num_slices=20000)
    w = network(torch.cat(batch[2:4])).mean.view(2, 8, 3)
    value = objective(network, batch)["sigreg"].item()
    assert value == pytest.approx(slice_free_sigreg(w.detach()).item(), rel=0.05)  # the usual grid stops at t = 3


def test_training_is_reproducible_and_learns():
    histories = []
    for _ in range(2):
        network = small_network(seed=1)
        objective = semi_supervised_objective(sigreg=0.05, views=0.01, seed=3)
        histories.append(fit(network, objective, small_batches(steps=60), lr=1e-2))
    assert histories[0] == histories[1]
    assert histories[0][-1]["cross_entropy"] < 0.5 * histories[0][0]["cross_entropy"]


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: standard_code_rate(0, 0.5), "dim"),
        (lambda: standard_code_rate(3, 1.5), "sigma"),
        (lambda: sigreg_weight(3, 0), "count"),
        (lambda: sigreg_weight(3, 10, -1.0), "nats"),
        (lambda: class_sigreg(torch.zeros(3, 2), torch.ones(4, 1), 1.0, torch.eye(2)), "responsibilities"),
        (lambda: class_sigreg(torch.zeros(3, 2), torch.ones(3, 1), 0.0, torch.eye(2)), "scale"),
        (lambda: consistency_loss(torch.zeros(3, 2), torch.zeros(2, 2)), "shape"),
        (lambda: consistency_loss(torch.zeros(3, 2), torch.zeros(3, 2), 1.0), "threshold"),
        (lambda: variance_between(torch.ones(4, 2), torch.arange(4)), "variance"),
        (lambda: balanced_draw(torch.arange(10) % 3, 4, torch.Generator()), "multiple"),
        (lambda: balanced_draw(torch.arange(9) % 3, 12, torch.Generator()), "asks for"),
        (lambda: small_batches(steps=0), "steps"),
        (lambda: small_network(dim=3, read=4), "read"),
        (lambda: semi_supervised_objective(sigma=0.0), "sigma"),
        (lambda: semi_supervised_objective(views=-1.0), "views"),
        (lambda: semi_supervised_objective(scored="some"), "scored"),
        (
            lambda: semi_supervised_objective(views=1.0)(small_network(), next(iter(small_batches(unlabelled=0)))),
            "unlabelled",
        ),
    ],
)
def test_bad_values_are_named(call, word):
    with pytest.raises(ValueError, match=word):
        call()


def test_wrong_types_are_named():
    with pytest.raises(TypeError, match="w must"):
        class_sigreg([[1.0]], torch.ones(1, 1), 1.0, torch.eye(1))
    with pytest.raises(TypeError, match="labels"):
        balanced_draw(torch.zeros(4), 2, torch.Generator())
    with pytest.raises(TypeError, match="images"):
        refresh_norms(small_network(), torch.zeros(2, 1, 28, 28, dtype=torch.long))


# ---------------------------------------------------------------- the study


def fake(name, labels, seed, accuracy, **terms):
    unit = {"part": "joint", "name": name, "labels": labels, "seed": seed, "steps": 9, "terms": terms}
    return {"unit": unit, "result": {"labels": labels, "accuracy": accuracy, "validation": 0.5}}


def test_gains_are_paired_by_draw():
    record = {"units": [fake("labels", 100, s, 0.6 + 0.05 * s) for s in range(4)]}
    record["units"] += [fake("sigreg", 100, s, 0.61 + 0.05 * s, nats=0.1) for s in range(3)]
    record["units"] += [fake("sigreg", 100, s, 0.1, nats=1.0) for s in range(3)]
    found = reading.few_label_runs(record)
    sigreg, labels = {"name": "sigreg", "nats": 0.1}, {"name": "labels", "labels": 100}
    assert reading.paired(found, sigreg, labels) == pytest.approx([0.01] * 3)
    assert reading.by_seed(found, name="sigreg", nats=1.0).to_dict() == {0: 0.1, 1: 0.1, 2: 0.1}
    with pytest.raises(ValueError, match="say more"):
        reading.by_seed(found, name="sigreg")
    with pytest.raises(ValueError, match="no run"):
        reading.by_seed(found, name="views")
    assert "100 labels, joint, 9 steps, sigreg, 0.1 nats: 66.00% (3 draws)" in study.summary(record)


def test_units_are_distinct_and_complete():
    full = study.units("full", range(5))
    assert len({str(unit) for unit in full}) == len(full)
    short = study.SHORT["steps"]
    terms = [unit["terms"] for unit in full if unit["seed"] == 0 and unit["part"] == "joint" and unit["steps"] == short]
    for expected in (*study.METHODS.values(), *study.CAUSES.values()):
        assert expected in terms
    assert all(not unit["whole"] for unit in study.units("default", range(2)))


@pytest.mark.parametrize("name", ["views+mixture", "views+sigreg+consistency"])
def test_a_unit_is_reproducible_whatever_was_drawn_before(name):
    size = {"whole": False, "lr": 3e-3, **study.LIVE, "steps": 2}
    unit = study.joint(name, study.METHODS[name], 100, 0, size)
    one = study.run_unit(unit, torch.device("cpu"))
    torch.randn(7)  # the global generator must not matter
    assert study.run_unit(unit, torch.device("cpu")) == one
    assert 0 <= one["accuracy"] <= 1 and one["sigreg"] > 0


def test_first_stage_keeps_the_encoder_and_collapses_without_sigreg():
    """Views alone send every image to one code; the scale of the codes tells."""
    data = study.load(False, torch.device("cpu"))
    stage = {"whole": False, "first_steps": 25, "first_batch": 32, "dim": 8, "seed": 0, "lr": 3e-3}
    scale = {nats: study.pretrain({**stage, "nats": nats}, data)[1]["scale"] for nats in (0.0, 1.0)}
    assert scale[0.0] < 0.5 * scale[1.0]


# ---------------------------------------------------------------- from the pretrained encoder


def test_graph_is_symmetric_without_loops_and_does_not_expand():
    points = F.normalize(normal(40, 5), dim=1)
    graph = started.similarity_graph(points, neighbours=4).to_dense()
    torch.testing.assert_close(graph, graph.T)
    assert graph.diagonal().abs().max() == 0
    assert (graph > 0).sum(1).min() >= 4
    torch.testing.assert_close(torch.linalg.eigvalsh(graph).max(), torch.tensor(1.0, dtype=torch.float64))


def test_propagation_ends_at_the_solution_of_its_equation():
    graph = started.similarity_graph(F.normalize(normal(30, 4), dim=1), neighbours=3)
    given = torch.zeros(30, 3, dtype=torch.float64)
    given[torch.arange(6), torch.arange(6) % 3] = 1
    beliefs = started.propagate(graph, given, 0.8, rounds=200)
    exact = 0.2 * torch.linalg.solve(torch.eye(30, dtype=torch.float64) - 0.8 * graph.to_dense(), given)
    torch.testing.assert_close(beliefs, exact)


def test_balanced_beliefs_favour_no_class():
    beliefs = started.sinkhorn(torch.rand(60, 4, generator=torch.Generator().manual_seed(0)).double() ** 3, rounds=200)
    torch.testing.assert_close(beliefs.sum(1), torch.ones(60, dtype=torch.float64))
    torch.testing.assert_close(beliefs.sum(0), torch.full((4,), 15.0, dtype=torch.float64))


def test_carried_beliefs_are_those_of_the_images_themselves_where_they_agree():
    points = F.normalize(torch.eye(3).repeat_interleave(10, 0) + 0.01 * normal(30, 3).float(), dim=1)
    beliefs = torch.eye(3).repeat_interleave(10, 0)
    assert torch.equal(started.nearest_beliefs(points, beliefs, points).argmax(1), beliefs.argmax(1))


def test_whitened_axes_have_equal_variances():
    data = study.load(False, torch.device("cpu"))
    axes = started.principal_axes(False, torch.device("cpu"))
    some = data[0][0][:600]  # those that the axes come from
    white = started.project(some, *axes, 1.0)
    torch.testing.assert_close(white.T @ white / len(some), torch.eye(started.DIRECTIONS), atol=1e-3, rtol=0)
    plain = started.project(some, *axes, 0.0)
    torch.testing.assert_close(plain.square().mean(0), axes[-1], rtol=1e-3, atol=0)


def test_propagated_labels_do_not_depend_on_hidden_ones():
    data = study.load(False, torch.device("cpu"))
    truth = data[0][1]
    known = balanced_draw(truth, 100, torch.Generator().manual_seed(0))
    hidden = truth[torch.randperm(len(truth), generator=torch.Generator().manual_seed(1))]
    hidden[known] = truth[known]
    points, _, _, graph = started.neighbourhood(False, 1.0, torch.device("cpu"))
    beliefs = []
    for labels in (truth, hidden):
        given = torch.zeros(len(points), 10)
        given[known] = F.one_hot(labels[known], 10).float()
        beliefs.append(started.propagate(graph, given, 0.99))
    assert torch.equal(*beliefs)
    found, scores = started.spread_labels({"whole": False, "seed": 0}, 100, 1.0, data)
    assert torch.equal(found, started.sinkhorn(beliefs[0])) and scores["unlabelled"] > 0.5


def test_start_is_the_pretrained_encoder_except_for_fresh():
    """Nearly no step: the weights are still those of the start."""
    data = study.load(False, torch.device("cpu"))
    size = {"whole": False, **started.LIVE, "steps": 1, "lr": 1e-9}
    kept = dict(started.start(torch.device("cpu")).named_parameters())
    for name, same in (("labels", True), ("neighbours", True), ("fresh", False)):
        network, _ = started.train(started.joint(name, {}, 100, 0, size), data)
        close = [torch.allclose(p, kept[key], atol=1e-6) for key, p in network.encoder.named_parameters()]
        assert all(close) == same


def test_started_units_are_distinct_and_complete_and_repeat():
    full = started.units("full", range(5))
    assert len({str(unit) for unit in full}) == len(full)
    assert {u["name"] for u in full if u["part"] == "joint" and u["labels"] == 100} == set(started.METHODS)
    assert all(not unit["whole"] for unit in started.units("default", range(2)))
    size = {"whole": False, **started.LIVE, "steps": 2}
    unit = started.joint("consistency+sigreg", started.METHODS["consistency+sigreg"], 100, 0, size)
    unit["encoder"] = full[0]["encoder"]
    one = started.run_unit(unit, torch.device("cpu"))
    torch.randn(7)  # the global generator must not matter
    assert started.run_unit(unit, torch.device("cpu")) == one
    frozen = {"name": "probe", "labels": 100, "accuracy": 0.7, "validation": 0.7}
    record = {"units": [{"unit": {"part": "frozen", "seed": 3}, "result": {"runs": [frozen]}}]}
    record["units"].append({"unit": unit, "result": one})
    assert reading.few_label_runs(record).name.tolist() == ["probe", "consistency+sigreg"]
    assert "100 labels, probe : 70.00% (1 draws)" in started.summary(record)
