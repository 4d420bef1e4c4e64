"""The study of known answers: its worlds are what they say, its units are paired, its rules turn with the numbers."""

import torch

import sigreg.lab.experiments.self_supervised_known as experiment
from sigreg.evaluation import linear_probe
from sigreg.lab import rules, verdicts
from sigreg.lab.judging import unpack

CPU = torch.device("cpu")
SMALL = {"steps": 150, "batch_size": 128, "seed": 0, "trials": experiment.TRIALS[:1]}


def test_labels_are_told_by_what_the_question_names():
    """The content, unmixed, gives away the label of the content up to the wrong ones, and nothing of the other."""
    back = experiment.rotation().T
    for question, part, told in (("content", slice(0, 4), True), ("nuisance", slice(0, 4), False)):
        x, y = experiment.world({"question": question, "seed": 3}, "test", CPU)
        content = (x @ back)[:, part]
        read = linear_probe(content[:5000], y[:5000], content[5000:], y[5000:]).accuracy
        assert (0.90 < read < 0.945) if told else (0.22 < read < 0.29)
    again = experiment.world({"question": question, "seed": 4}, "test", CPU)
    assert torch.equal(again[0], x)  # one test set for all seeds


def test_views_share_the_content_and_nothing_else():
    first, second, index, step = next(iter(experiment.Views(0, 1, 128, CPU)))
    back = experiment.rotation().T
    a, b = first @ back, second @ back
    torch.testing.assert_close(a[:, :4], b[:, :4], atol=1e-5, rtol=0)
    assert (a[:, 4:] * b[:, 4:]).mean().abs() < 0.05 and len(index) == len(step) == 128


def test_a_small_run_finds_the_content_and_says_whom_it_guessed_right():
    codes, inputs = (
        experiment.run_unit({**SMALL, "question": "content", "arm": arm}, CPU) for arm in ("sketched", "inputs")
    )
    assert codes["accuracy"] > inputs["accuracy"] + 0.15
    assert abs(unpack(codes["right"], 10_000).mean() - codes["accuracy"]) < 1e-4
    assert codes["chosen"] == SMALL["trials"][0]


def test_units_pair_the_arms():
    units = experiment.units("full", range(3))
    assert len(units) == 3 * 3 * 2
    for question, arms in experiment.QUESTIONS.items():
        assert {u["arm"] for u in units if u["question"] == question} == set(arms)


def test_every_known_answer_comes_out():
    answers = rules.load_claims()["answers"]
    assert {answer["truth"] for answer in answers} == {"confirmed", "not confirmed"}
    for answer in answers:
        judged = verdicts.judge(answer)
        assert judged.word == answer["truth"], (answer["id"], judged)
        assert judged.state == "before"
