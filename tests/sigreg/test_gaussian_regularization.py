"""SIGReg against its formula, its closed forms, its limits, independent libraries, and two processes."""

import itertools
import math
import os
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest
import torch
from codes import GRIDS, directions_for, gaussian, value_and_grad
from torch._subclasses.fake_tensor import FakeTensorMode

import sigreg.gaussian_regularization as gr
from sigreg import _kummer, _sliced
from sigreg.gaussian_regularization import (
    SIGReg,
    backward_in_parts,
    epps_pulley,
    epps_pulley_closed_form,
    plain_sliced_sigreg,
    random_directions,
    sigreg_collapse_value,
    sigreg_null_mean,
    slice_free_sigreg,
    sliced_sigreg,
)


def test_formula_against_quadrature_of_the_integral():
    x = gaussian(12, 1)
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(60))
    t = 1.5 * (nodes + 1)  # [0, 3]
    phi = torch.exp(1j * t * x).mean(0)
    integrand = (phi - torch.exp(-t.square() / 2)).abs().square() * torch.exp(-t.square() / 2)
    expected = 12 * 2 * 1.5 * (weights @ integrand)
    errors = [abs(epps_pulley(x, knots=k).item() - expected.item()) for k in (129, 257, 513)]
    assert errors[-1] < 1e-5 * expected
    for coarse, fine in itertools.pairwise(errors):  # the trapezoid rule: a quarter with each halving
        assert fine == pytest.approx(coarse / 4, rel=0.01)


def test_views_are_scored_apart_and_averaged():
    z, a = gaussian(4, 30, 6), directions_for(20, 6)
    for loss in (lambda z: sliced_sigreg(z, a), slice_free_sigreg):
        each = torch.stack([loss(view) for view in z])
        torch.testing.assert_close(loss(z), each.mean())
    torch.testing.assert_close(plain_sliced_sigreg(z, a), sliced_sigreg(z, a))


# --- closed forms ----------------------------------------------------------------------------------------


def test_closed_form_is_the_limit_of_long_fine_grids():
    x = 1.3 * gaussian(40, 5) - 0.2
    value, (slope,) = value_and_grad(lambda x: epps_pulley(x, knots=129, t_max=10.0), x)
    closed, (closed_slope,) = value_and_grad(epps_pulley_closed_form, x)
    torch.testing.assert_close(value, closed, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(slope, closed_slope, rtol=1e-10, atol=1e-11)


def test_null_mean_for_every_batch_size():
    for n in (1, 2, 64):
        t = epps_pulley(gaussian(n, 200_000 // n, seed=n, dtype=torch.float32))
        error = (t.std() / math.sqrt(len(t))).item()
        assert abs(t.mean().item() - sigreg_null_mean()) < 4 * error
    assert sigreg_null_mean() == pytest.approx(1.0525, abs=5e-5)
    assert sigreg_null_mean(t_max=math.inf) == pytest.approx(1.0594, abs=5e-5)
    assert sigreg_null_mean(knots=200, t_max=10.0) == pytest.approx(sigreg_null_mean(t_max=math.inf), rel=1e-12)


def test_collapse_value():
    for knots, t_max in GRIDS:
        expected = epps_pulley(torch.zeros(6, 1, dtype=torch.float64), knots=knots, t_max=t_max).item() / 6
        assert sigreg_collapse_value(knots, t_max) == pytest.approx(expected, rel=1e-12)
    assert sigreg_collapse_value() == pytest.approx(0.4020, abs=5e-5)
    assert sigreg_collapse_value(t_max=math.inf) == pytest.approx(0.4089, abs=5e-5)
    assert (slice_free_sigreg(torch.zeros(6, 4)) / 6).item() == pytest.approx(sigreg_collapse_value(t_max=math.inf))


def test_gradient_vanishes_at_exact_collapse_only():
    z, a = torch.zeros(32, 8), directions_for(16, 8, dtype=torch.float32)
    assert value_and_grad(lambda z: sliced_sigreg(z, a), z)[1][0].abs().max() == 0
    assert value_and_grad(lambda z: sliced_sigreg(z, a), z + 1e-3 * gaussian(32, 8).float())[1][0].abs().max() > 1e-6


def test_equally_spaced_knots_alias():
    x, period = gaussian(100, 1), 2 * math.pi * 16 / 3
    torch.testing.assert_close(epps_pulley(x + period), epps_pulley(x))
    assert epps_pulley_closed_form(x + period) > 10 * epps_pulley_closed_form(x)


# --- derivatives and transforms --------------------------------------------------------------------------


def test_import_leaves_the_compiler_alone():
    """torch._dynamo takes seconds to import; only torch.compile should pay for it."""
    loaded = "'torch._dynamo' in sys.modules"
    code = f"import sys, torch; before = {loaded}; import sigreg; print(before, {loaded})"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert out[0] == out[1]


# --- precision and odd input -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "value_error", "grad_error"),
    [(torch.float32, 1e-6, 1e-5), (torch.bfloat16, 5e-3, 2e-2), (torch.float16, 1e-3, 3e-3)],
)
def test_lower_precision(dtype, value_error, grad_error):
    z, a = gaussian(256, 16).to(dtype), directions_for(64, 16)
    value, (slope,) = value_and_grad(lambda z: sliced_sigreg(z, a.float()), z)
    exact, (exact_slope,) = value_and_grad(lambda z: plain_sliced_sigreg(z, a), z.double())
    assert value.dtype == torch.float32 and slope.dtype == dtype
    assert abs(value - exact) < value_error * exact
    assert (slope - exact_slope).abs().max() < grad_error * exact_slope.abs().max()
    free, (free_slope,) = value_and_grad(slice_free_sigreg, z)
    assert free.dtype == torch.float32 and free_slope.dtype == dtype
    exact, (exact_slope,) = value_and_grad(slice_free_sigreg, z.double())
    assert abs(free - exact) < 1e-7 * len(z) * exact  # the terms of the value cancel; those of the slope do not
    assert (free_slope - exact_slope).abs().max() < grad_error * exact_slope.abs().max()


def test_autocast_changes_nothing():
    z, a = gaussian(256, 16).float(), directions_for(64, 16).float()
    exact, (exact_slope,) = value_and_grad(lambda z: sliced_sigreg(z, a), z)
    free = slice_free_sigreg(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, (slope,) = value_and_grad(lambda z: sliced_sigreg(z, a), z)
        torch.testing.assert_close(slice_free_sigreg(z), free, rtol=0, atol=0)
        assert SIGReg(16)(z.bfloat16()).dtype == torch.float32
    assert value.dtype == slope.dtype == torch.float32
    torch.testing.assert_close((value, slope), (exact, exact_slope), rtol=0, atol=0)


def test_huge_and_tiny_codes():
    a = directions_for(32, 8)
    for scale in (1e-30, 1e-6, 1e3, 1e8):
        z = scale * gaussian(64, 8)
        torch.testing.assert_close(sliced_sigreg(z, a), plain_sliced_sigreg(z, a), rtol=1e-6, atol=0)
        value, (slope,) = value_and_grad(lambda z: sliced_sigreg(z, a.float()), z.float())
        assert value.isfinite() and slope.isfinite().all()
        value, (slope,) = value_and_grad(slice_free_sigreg, z.float())
        assert value.isfinite() and slope.isfinite().all()
    # relative precision of a tiny slope: it is linear in a tiny z
    tiny = value_and_grad(lambda z: sliced_sigreg(z, a.float()), 1e-20 * gaussian(64, 8).float())[1][0].double()
    small = value_and_grad(lambda z: sliced_sigreg(z, a), 1e-6 * gaussian(64, 8))[1][0]
    torch.testing.assert_close(tiny * 1e14, small, rtol=1e-3, atol=1e-3 * small.abs().max().item())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_never_dropped(bad):
    z, a = gaussian(2, 16, 4), directions_for(8, 4)
    z[1, 3, 2] = bad
    for loss in (lambda z: sliced_sigreg(z, a), slice_free_sigreg):
        value, (slope,) = value_and_grad(loss, z)
        assert value.isnan()
        assert slope[1].isnan().all() and slope[0].isfinite().all()
    assert epps_pulley(z[1]).isnan().tolist() == [False, False, True, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [1e-4, 1e-2, 1.0, 1e2, 1e4])
def test_every_precision_is_computed_in_single_at_least(dtype, scale):
    z, a = (scale * gaussian(64, 16)).to(dtype), directions_for(32, 16)
    for loss in (lambda z: sliced_sigreg(z, a), slice_free_sigreg):
        value, (slope,) = value_and_grad(loss, z)
        exact, (exact_slope,) = value_and_grad(loss, z.double())
        assert value.dtype == torch.float32 and slope.dtype == dtype and slope.isfinite().all()
        torch.testing.assert_close(value, exact.float(), rtol=1e-4 if scale > 100 else 2e-5, atol=0)
        if scale <= 100:  # far out, single precision no longer knows the phase of an angle
            rounding = max(2e-4, torch.finfo(dtype).eps)
            smallest = torch.finfo(dtype).smallest_normal
            torch.testing.assert_close(
                slope.double(), exact_slope, rtol=0, atol=rounding * exact_slope.abs().max().item() + smallest
            )


def test_leading_axes_are_batches_of_their_own():
    z, a = gaussian(2, 3, 20, 4), directions_for(8, 4)
    for loss in (lambda z: sliced_sigreg(z, a), slice_free_sigreg):
        each = torch.stack([loss(batch) for time in z for batch in time])
        torch.testing.assert_close(loss(z), each.mean())
    assert value_and_grad(lambda z: sliced_sigreg(z, a), z)[1][0].shape == z.shape


def test_more_views_than_samples_warn_once(monkeypatch):
    monkeypatch.setattr(gr, "_warned", [])
    with pytest.warns(UserWarning, match="transpose"):
        SIGReg(4)(torch.randn(64, 3, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SIGReg(4)(torch.randn(64, 3, 2))


def test_meta_and_fake_tensors_give_shapes_and_poison_nothing():
    for cached in (_sliced.grid_constants, _kummer._chebyshev_coefficients, _kummer._log_factorials):
        cached.cache_clear()
    z = torch.empty(2, 16, 5, device="meta", requires_grad=True)
    for loss in (SIGReg(8), slice_free_sigreg):
        value = loss(z)
        assert value.is_meta and value.shape == () and value.dtype == torch.float32
        assert torch.autograd.grad(value, z)[0].shape == z.shape
        with FakeTensorMode():
            fake = torch.randn(16, 5, requires_grad=True)
            loss(fake).backward()
            assert fake.grad.shape == fake.shape
        with torch.device("meta"):
            sigreg_null_mean()
            loss(torch.randn(16, 5))
        real = gaussian(16, 5)
        assert loss(real).isfinite()


def test_compiled_module_takes_other_widths_and_dynamic_shapes():
    torch._dynamo.reset()
    for dynamic in (None, True):
        compiled = torch.compile(SIGReg(8), backend="aot_eager", fullgraph=True, dynamic=dynamic)
        for shape in ((64, 8), (64, 16), (40, 12)):
            z = torch.randn(shape, requires_grad=True)
            compiled(z).backward()
            assert z.grad.isfinite().all() and z.grad.abs().max() > 0
    torch._dynamo.reset()


def test_numpy_numbers_are_numbers():
    module = SIGReg(np.int64(8), knots=np.int32(9), t_max=np.float32(2))
    assert repr(module) == repr(SIGReg(8, 9, 2.0)) and type(module.num_slices) is int


def test_parts_of_a_batch_have_the_value_and_gradient_of_the_whole():
    x, a = gaussian(50, 6), directions_for(16, 4)
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4)).double()
    whole = sliced_sigreg(net(x), a)
    expected = torch.autograd.grad(whole, list(net.parameters()))
    value = backward_in_parts(net, x.split(16), lambda z: sliced_sigreg(z, a))  # 16, 16, 16, 2
    torch.testing.assert_close(value, whole.detach())
    for p, e in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, e)
    views = x.view(2, 25, 6)
    torch.testing.assert_close(
        backward_in_parts(net, views.split(10, 1), lambda z: sliced_sigreg(z, a)), sliced_sigreg(net(views), a).detach()
    )


def test_parts_of_a_batch_see_the_same_dropout_twice():
    net = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Dropout(0.5)).double()
    seen = []
    net.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    backward_in_parts(net, gaussian(40, 6).split(10), slice_free_sigreg)
    torch.testing.assert_close(seen[:4], seen[4:], rtol=0, atol=0)
    assert not torch.equal(seen[0] == 0, seen[1] == 0)


# --- directions and the module ---------------------------------------------------------------------------


def test_directions_are_uniform_unit_and_the_same_in_every_precision():
    a = directions_for(20_000, 3)
    torch.testing.assert_close(a.norm(dim=1), torch.ones(20_000, dtype=torch.float64))
    # Archimedes: each coordinate of a uniform point on the sphere in three dimensions is uniform on [-1, 1].
    ranks = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    for coordinate in a.T:
        assert ((coordinate.sort()[0] + 1) / 2 - ranks).abs().max() < 1.95 / math.sqrt(20_000)  # Kolmogorov, 0.1%
    torch.testing.assert_close(directions_for(7, 5, dtype=torch.float32), directions_for(7, 5).float())
    assert random_directions(3, 2).dtype == torch.get_default_dtype()
    assert random_directions(4, 1).abs().tolist() == [[1.0]] * 4


def test_module_draws_afresh_and_only_from_the_generator():
    z, module = gaussian(64, 8), SIGReg(num_slices=16)
    assert module(z) != module(z)
    assert not list(module.parameters()) and not module.state_dict()
    values = set()
    for mode in (True, False, False):
        module.train(mode)
        values.add(module(z, torch.Generator().manual_seed(7)).item())
    assert len(values) == 1
    expected = plain_sliced_sigreg(z, directions_for(16, 8, seed=7))
    torch.testing.assert_close(torch.tensor(values.pop(), dtype=torch.float64), expected)
    before = torch.get_rng_state()
    module(z, torch.Generator().manual_seed(7))
    assert torch.equal(before, torch.get_rng_state())
    assert repr(module) == "SIGReg(num_slices=16, knots=17, t_max=3.0)"


def test_module_trains_codes_to_a_standard_gaussian():
    generator = torch.Generator().manual_seed(0)
    z = (torch.randn(256, 2, generator=generator) * torch.tensor([0.3, 1.8]) + 0.5).requires_grad_()
    optimizer, loss = torch.optim.Adam([z], lr=0.02), SIGReg(64)
    assert loss(z, generator) > 20 * sigreg_null_mean()
    for _ in range(300):
        optimizer.zero_grad()
        loss(z, generator).backward()
        optimizer.step()
    z = z.detach()
    assert slice_free_sigreg(z) < sigreg_null_mean()  # moved one by one, codes fit better than a random sample
    median, deviation = z.median(0).values, z.sub(z.median(0).values).abs().median(0).values
    torch.testing.assert_close(median, torch.zeros(2), atol=0.15, rtol=0)
    torch.testing.assert_close(deviation / 0.6745, torch.ones(2), atol=0.15, rtol=0)


# --- other implementations -------------------------------------------------------------------------------


def test_parity_with_lightly(monkeypatch):
    """lightly's loss has our conventions: [0, 3] doubled, times N, mean over slices; it handles float32 only."""
    loss = pytest.importorskip("lightly.loss")
    if not hasattr(loss, "SIGReg"):
        pytest.skip("lightly before 1.6 has no SIGReg")
    theirs, z, a = loss.SIGReg(num_vectors=32), gaussian(128, 16).float(), directions_for(32, 16).float()
    monkeypatch.setattr(theirs, "_generate_unit_vectors", lambda *args, **kwargs: a.T)
    torch.testing.assert_close(
        value_and_grad(theirs, z), value_and_grad(lambda z: sliced_sigreg(z, a), z), rtol=1e-5, atol=1e-7
    )


# --- errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (TypeError, "z must be a torch.Tensor", lambda: SIGReg()([[1.0]])),
        (TypeError, "z must have a floating dtype", lambda: SIGReg()(torch.ones(3, 2, dtype=torch.int64))),
        (ValueError, r"z must have shape \(..., N, D\)", lambda: SIGReg()(torch.ones(3))),
        (ValueError, "N must be at least 3", lambda: SIGReg()(torch.ones(2, 3))),
        (ValueError, "batch-first", lambda: slice_free_sigreg(torch.ones(64, 2, 3))),
        (ValueError, "z is empty", lambda: SIGReg(sync=False)(torch.ones(0, 5, 3))),
        (TypeError, "dense", lambda: SIGReg()(torch.ones(5, 3).to_sparse())),
        (
            ValueError,
            "directions are on meta",
            lambda: sliced_sigreg(torch.ones(5, 3), torch.ones(4, 3).to("meta")),
        ),
        (ValueError, "parts is empty", lambda: backward_in_parts(torch.nn.Identity(), [], SIGReg())),
        (ValueError, "z is empty", lambda: SIGReg()(torch.ones(0, 3))),
        (ValueError, "z must have shape", lambda: slice_free_sigreg(torch.ones(3))),
        (TypeError, "z must have a floating dtype", lambda: slice_free_sigreg(torch.ones(3, 2, dtype=torch.bool))),
        (ValueError, "D = 2", lambda: sliced_sigreg(torch.ones(3, 2), torch.ones(4, 3))),
        (ValueError, "directions must have shape", lambda: sliced_sigreg(torch.ones(3, 2), torch.ones(2))),
        (TypeError, "directions must have a floating", lambda: sliced_sigreg(torch.ones(3, 2), torch.ones(4, 2).int())),
        (ValueError, "x must have shape", lambda: epps_pulley(torch.ones(3))),
        (ValueError, "x must have shape", lambda: epps_pulley_closed_form(torch.ones(3))),
        (ValueError, "knots must be at least 2, got 1", lambda: epps_pulley(torch.ones(3, 1), knots=1)),
        (TypeError, "knots must be an int, got float", lambda: SIGReg(knots=17.0)),
        (ValueError, "t_max must be positive and finite, got 0", lambda: SIGReg(t_max=0)),
        (ValueError, "t_max must be positive", lambda: sigreg_null_mean(t_max=-1.0)),
        (ValueError, "t_max must be positive", lambda: sigreg_collapse_value(t_max=math.nan)),
        (TypeError, "t_max must be a number", lambda: SIGReg(t_max="3")),
        (ValueError, "num_slices must be at least 1, got 0", lambda: SIGReg(num_slices=0)),
        (TypeError, "num_slices must be an int, got bool", lambda: SIGReg(num_slices=True)),
        (ValueError, "dim must be at least 1", lambda: random_directions(3, 0)),
    ],
)
def test_errors_name_the_argument(error, message, call):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("name", "wrong", "right"),
    [
        ("num_slices", -3, 5),
        ("num_slices", 2.5, np.int64(5)),
        ("knots", 1, 9),
        ("t_max", math.inf, 5),
        ("sync", None, False),
        ("group", "world", None),
    ],
)
def test_a_setting_changed_later_is_checked_and_used(name, wrong, right):
    loss, z = SIGReg(16, sync=False), gaussian(32, 3)
    with pytest.raises((TypeError, ValueError), match=name):
        setattr(loss, name, wrong)
    before = loss(z, torch.Generator().manual_seed(0))
    setattr(loss, name, right)
    after, fresh = (m(z, torch.Generator().manual_seed(0)) for m in (loss, SIGReg(**{"num_slices": 16, name: right})))
    torch.testing.assert_close(after, fresh)
    assert name in ("sync", "group") or before != after


# --- several processes -----------------------------------------------------------------------------------

WORKER = """
    import sys, torch, torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel
    from sigreg.gaussian_regularization import (
        SIGReg,
        random_directions,
        slice_free_sigreg,
        sliced_sigreg,
        plain_sliced_sigreg,
    )
    from sigreg._distributed import shared_group

    torch.set_num_threads(1)
    rank, world, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=world)
    seeded = torch.Generator().manual_seed(0)
    x = torch.randn(2, 150, 6, generator=seeded, dtype=torch.float64)  # two views of the whole batch
    a = random_directions(130, 4, generator=seeded, dtype=torch.float64)
    cut = [0, 37, 150]  # uneven batches
    mine = x[:, cut[rank]:cut[rank + 1]]

    def check(loss_here, loss_alone):
        net = torch.nn.Linear(6, 4).double()
        with torch.no_grad():
            for p in net.parameters():
                p.copy_(torch.linspace(-1, 1, p.numel()).view_as(p))
        alone = loss_alone(net(x))
        expected = torch.autograd.grad(alone, list(net.parameters()))
        parallel = DistributedDataParallel(net)
        value = loss_here(parallel(mine))
        value.backward()
        torch.testing.assert_close(value, alone, rtol=1e-10, atol=1e-12)
        for p, e in zip(net.parameters(), expected):
            torch.testing.assert_close(p.grad, e, rtol=1e-9, atol=1e-11)

    check(lambda z: sliced_sigreg(z, a), lambda z: plain_sliced_sigreg(z, a))
    check(slice_free_sigreg, lambda z: slice_free_sigreg(z, sync=False))
    check(lambda z: sliced_sigreg(z[0], a, group=dist.group.WORLD), lambda z: plain_sliced_sigreg(z[0], a))

    # Generators that disagree: the directions are those of the first process.
    own = SIGReg(50)(mine @ torch.ones(6, 4).double(), torch.Generator().manual_seed(rank))
    first = random_directions(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(own, plain_sliced_sigreg(x @ torch.ones(6, 4).double(), first))

    # Alone on request, and second derivatives refused.
    z = mine[0, :, :4].clone().requires_grad_()
    torch.testing.assert_close(sliced_sigreg(z, a, sync=False), plain_sliced_sigreg(z, a))
    (slope,) = torch.autograd.grad(sliced_sigreg(z, a), z, create_graph=True)
    try:
        slope.sum().backward()
    except NotImplementedError as error:
        assert "second derivatives" in str(error)
    else:
        raise AssertionError("a second derivative across processes went through")
    only_me = [dist.new_group([r]) for r in range(world)][rank]
    assert shared_group(True, only_me) is None
    torch.testing.assert_close(slice_free_sigreg(z, group=only_me), slice_free_sigreg(z, sync=False))
    dist.destroy_process_group()
    print("rank", rank, "done")
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without torch.distributed")
def test_two_processes_score_the_batch_of_both(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(textwrap.dedent(WORKER))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    workers = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), "2", str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    try:
        outputs = [worker.communicate(timeout=300)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    for rank, (worker, output) in enumerate(zip(workers, outputs, strict=True)):
        assert worker.returncode == 0 and f"rank {rank} done" in output, output


def test_a_batch_in_parts_says_what_it_cannot_do():
    parts, net = gaussian(16, 3).split(8), torch.nn.Linear(3, 2).double()
    for encode, loss, says in (
        (net.requires_grad_(False), SIGReg(4), "no parameter has a part in"),
        (lambda part: 3.0, SIGReg(4), r"encode\(part\) must be a torch.Tensor"),
        (net, lambda z: {"loss": z.mean()}, "loss must return a scalar tensor"),
        (net, lambda z: z.detach().mean().requires_grad_(), "loss must depend on the codes"),
    ):
        with pytest.raises((TypeError, ValueError), match=says):
            backward_in_parts(encode, parts, loss)
    with pytest.raises(ValueError, match="device must name a device"):
        random_directions(4, 3, device="many")


@pytest.mark.parametrize("device", [0, 1.5, ("cpu",)])
def test_a_device_is_named_or_a_device(device):
    with pytest.raises(TypeError, match=r"device must be a torch\.device, a string or None"):
        random_directions(3, 2, device=device)
