"""Few labels from the pretrained encoder: graph, spread of labels, start, and that no hidden label leaks."""

import torch
import torch.nn.functional as F
from toys import normal

import sigreg.lab.experiments.semi_supervised as study
import sigreg.lab.experiments.semi_supervised_pretrained as started
from sigreg.lab import reading
from sigreg.lab.batches import balanced_draw


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
