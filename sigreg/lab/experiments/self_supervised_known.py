r"""Known answers: would the whole pipeline say yes, no and equal where these are the truth?

Inputs are 64 Gaussian coordinates behind one rotation: four of content, sixty of nuisance. A view keeps the content and
draws the nuisance anew. Three questions whose answers need no experiment go through the pipeline of Chapter 6: train
without labels, choose settings on held-out inputs, probe with a hundred labels, judge over seeds.

* ``content``: the label is a function of the content. Codes of four dimensions with SIGReg and views have one optimum,
  a rotation of the content (no rate, the law N(0, I)); inputs bury it among sixty others. Training must **help**.
* ``nuisance``: the label is a function of the nuisance. At the optimum the code is independent of it. Training must
  **harm**, whatever is chosen.
* ``twins``: slice-free SIGReg against the sketched one, label of the content. Both have the same optimum: **equal**.

Every trained arm has the same trials. A tenth of all labels is drawn at random.

Derived in: Chapter 6, section 6.10; that the optimum is the content follows from Proposition 6.2.
"""

from functools import cache, lru_cache

import torch
from torch import nn

from sigreg.evaluation import linear_probe
from sigreg.lab.fit import fit
from sigreg.lab.judging import pack
from sigreg.lab.objectives import lejepa_objective
from sigreg.lab.records import table

VERSION = 1
SEEDS = {"default": 2, "full": 5}
CHECK = {"arm": "inputs"}

CONTENT, NUISANCE, CODE = 4, 60, 4
LABELLED, UNLABELLED, HELD_OUT, TEST = 100, 4000, 2000, 10_000
WRONG = 0.1  # share of labels drawn at random among the classes
QUESTIONS = {"content": ("sketched", "inputs"), "nuisance": ("sketched", "inputs"), "twins": ("slice-free", "sketched")}
TRIALS = [{"weight": 0.1, "lr": 2e-2}, {"weight": 0.3, "lr": 2e-2}]
SLICES = 32
RIDGES = (1e-3, 1e-2, 1e-1, 1.0)


def units(preset, seeds):
    """For each question, arm and seed one unit, which chooses among its trials."""
    size = {"steps": 300 if preset == "full" else 150, "batch_size": 128}
    return [
        {"question": question, "arm": arm, "seed": seed, "trials": TRIALS, **size}
        for seed in seeds
        for question, arms in QUESTIONS.items()
        for arm in arms
    ]


def run_unit(unit, device):
    """Train one arm with the settings of each trial, choose on held-out inputs, and ask the test inputs."""
    known, held_out, test = (world(unit, part, device) for part in ("labelled", "held out", "test"))
    if unit["arm"] == "inputs":
        probe = judged(nn.Identity(), known, test)
        return answer(probe)
    tried = []
    for trial in unit["trials"]:
        network = trained(unit["arm"], unit["seed"], unit["steps"], unit["batch_size"], **trial, device=device)
        tried.append((judged(network.map, known, held_out).accuracy, network, trial))
    best = max(range(len(tried)), key=lambda k: tried[k][0])
    _, network, chosen = tried[best]
    found = answer(judged(network.map, known, test))
    return {**found, "chosen": chosen, "held_out": [round(score, 4) for score, *_ in tried]}


def answer(probe):
    return {"accuracy": round(probe.accuracy, 5), "ridge": probe.ridge, "right": pack(probe.right.cpu())}


@torch.no_grad()
def judged(code, known, asked):
    """The probe with a hundred labels, its ridge chosen among them."""
    return linear_probe(code(known[0]), known[1], code(asked[0]), asked[1], ridge=RIDGES, max_iter=60)


def world(unit, part, device):
    """Inputs and labels of a part: the test set is one for all seeds, the rest is drawn anew for each."""
    place = ["labelled", "held out", "test"].index(part)
    count = (LABELLED, HELD_OUT, TEST)[place]
    generator = torch.Generator().manual_seed(10**6 + place if part == "test" else 10 * unit["seed"] + place)
    content, nuisance = (
        torch.randn(count, CONTENT, generator=generator),
        torch.randn(count, NUISANCE, generator=generator),
    )
    told = (nuisance if unit["question"] == "nuisance" else content)[:, :2] > 0
    labels = 2 * told[:, 0].long() + told[:, 1].long()
    wrong = torch.rand(count, generator=generator) < WRONG
    labels = torch.where(wrong, torch.randint(4, (count,), generator=generator), labels)
    return mixed(content, nuisance).to(device), labels.to(device)


def mixed(content, nuisance):
    """What is seen: all coordinates behind one rotation, the same in every world."""
    return torch.cat([content, nuisance], 1) @ rotation()


@cache
def rotation():
    generator = torch.Generator().manual_seed(64)
    return torch.linalg.qr(torch.randn(CONTENT + NUISANCE, CONTENT + NUISANCE, generator=generator)).Q


class Codes(nn.Module):
    """A linear encoder: codes of several views, (V, B, D)."""

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(CONTENT + NUISANCE, CODE)

    def forward(self, *views):
        return torch.stack([self.map(view) for view in views])


class Views:
    """Two views of inputs without labels, the same whenever they are iterated."""

    def __init__(self, seed, steps, batch_size, device):
        self.seed, self.steps, self.batch_size, self.device = seed, steps, batch_size, device

    def __len__(self):
        return self.steps

    def __iter__(self):
        generator = torch.Generator().manual_seed(10 * self.seed + 7)
        content = torch.randn(UNLABELLED, CONTENT, generator=generator)
        for step in range(self.steps):
            index = torch.randint(UNLABELLED, (self.batch_size,), generator=generator)
            pair = [mixed(content[index], torch.randn(len(index), NUISANCE, generator=generator)) for _ in range(2)]
            yield *(view.to(self.device) for view in pair), index, torch.full_like(index, step)


@lru_cache(maxsize=2 * len(TRIALS))
def trained(arm, seed, steps, batch_size, *, weight, lr, device):
    """One encoder with the loss of Chapter 6. No label enters, so that the questions of one seed share it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Codes().to(device)
    slices = None if arm == "slice-free" else SLICES
    loss = lejepa_objective(weight=weight, sigma=1.0, num_slices=slices, noise=False, seed=seed)
    fit(network, loss, Views(seed, steps, batch_size, device), lr=lr)
    return network


def summary(record):
    """Mean accuracies in plain words."""
    means = 100 * table(record).groupby(["question", "arm"], sort=False).accuracy.mean()
    return "\n".join(f"{question}, {arm}: {mean:.2f}%" for (question, arm), mean in means.items())
