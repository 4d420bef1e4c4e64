"""Which loss goes with which tool of torch: tried, and compared with the table of the page."""

import pathlib

import pytest
import torch
from loss_list import LOSSES

PAGE = pathlib.Path(__file__).parents[2] / "book" / "use_sigreg.md"


def pair():
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(32, 8, generator=generator)
    return a, a + 0.5 * torch.randn(32, 8, generator=generator)


def again(loss, *z):
    """With the same directions every time."""
    torch.manual_seed(0)
    return loss(*z)


class Loss(torch.nn.Module):
    def __init__(self, loss):
        super().__init__()
        self.loss = loss

    def forward(self, a, b):
        return self.loss(a, b)


def compiled(loss):
    torch.compiler.reset()
    whole = torch.compile(loss, fullgraph=True, backend="aot_eager")
    z = [part.requires_grad_() for part in pair()]
    value = again(whole, *z)
    value.backward()
    torch.testing.assert_close(value, again(loss, *pair()))


def exported(loss):
    program = torch.export.export(Loss(loss), pair())
    torch.testing.assert_close(again(program.module(), *pair()), again(loss, *pair()))


def mapped(loss):
    a, b = pair()
    many = again(torch.func.vmap(loss, randomness="same"), torch.stack([a, b]), torch.stack([b, a]))
    torch.testing.assert_close(many, torch.stack([again(loss, a, b), again(loss, b, a)]), rtol=1e-4, atol=1e-4)


def forward_mode(loss):
    z, direction = [part.double() for part in pair()], [part.double().cos() for part in pair()]
    slope = again(lambda *z: torch.func.jvp(loss, z, tuple(direction))[1], *z)
    step = 1e-5
    ends = [again(loss, *(p + sign * step * d for p, d in zip(z, direction, strict=True))) for sign in (1, -1)]
    torch.testing.assert_close(slope, (ends[0] - ends[1]) / (2 * step), rtol=1e-4, atol=1e-6)


def twice(loss):
    z = [part.double().requires_grad_() for part in pair()]
    direction = [part.detach().cos() for part in z]

    def slope(*z):
        return sum((g * d).sum() for g, d in zip(
            torch.autograd.grad(again(loss, *z), z, create_graph=True, materialize_grads=True), direction, strict=True))

    second = torch.autograd.grad(slope(*z), z, materialize_grads=True)
    found = sum((g * d).sum() for g, d in zip(second, direction, strict=True))
    step = 1e-5
    ends = [
        slope(*((p + sign * step * d).detach().requires_grad_() for p, d in zip(z, direction, strict=True)))
        for sign in (1, -1)
    ]
    torch.testing.assert_close(found, (ends[0] - ends[1]).detach() / (2 * step), rtol=1e-4, atol=1e-6)


def under_autocast(loss):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss(*pair()).dtype == torch.float32


def on_meta(loss):
    value = loss(*(part.to("meta") for part in pair()))
    assert value.is_meta and value.shape == ()


TRIALS = {
    "compile": compiled, "export": exported, "vmap": mapped, "jvp": forward_mode, "twice": twice,
    "autocast": under_autocast, "meta": on_meta,
}  # fmt: skip


def outcome(name, trial):
    try:
        TRIALS[trial](LOSSES[name])
    except Exception as error:
        return f"no: {type(error).__name__}: {str(error).strip().splitlines()[0][:90] if str(error).strip() else ''}"
    return "yes"


def shown():
    """{(function, trial): yes, or a number of a reason} of the page."""
    text = PAGE.read_text(encoding="utf-8").split("### What works with what", 1)[1].split("\n## ", 1)[0]
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines() if line[:1] == "|"]
    head, body = rows[0], rows[2:]
    return {(row[0].strip("`"), trial): cell for row in body for trial, cell in zip(head[1:], row[1:], strict=True)}


@pytest.mark.parametrize("name", LOSSES)
def test_the_matrix_of_the_page_is_this_one(name):
    table = shown()
    for trial in TRIALS:
        found = outcome(name, trial)
        assert (found == "yes") == (table[name, trial] == "yes"), f"{name}, {trial}: {found}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in LOSSES:
        print(name, {trial: outcome(name, trial) for trial in TRIALS}, flush=True)
