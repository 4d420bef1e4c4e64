"""The Triton kernel against the formula: by Triton's interpreter on the CPU, and on a GPU where there is one."""

import os
import subprocess
import sys

import pytest
import torch
from torch.func import grad, jacfwd, vmap

from sigreg import (
    SIGReg,
    _per_view,
    _slice_free,
    _sliced,
    backward_in_parts,
    epps_pulley,
    epps_pulley_closed_form,
    random_directions,
    slice_free_sigreg,
    sliced_sigreg,
)
from sigreg._per_view import triton_module
from sigreg._slice_free import plain_slice_free
from sigreg.gaussian_regularization import plain_epps_pulley, plain_sliced_sigreg

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytest.importorskip("triton")
KERNELS = ("_sliced_triton", "_slice_free_triton")
kernel = pytest.mark.skipif(not INTERPRETED and not torch.cuda.is_available(), reason="neither GPU nor interpreter")


def gaussian(*shape, seed=0, dtype=torch.float64):
    z = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return z.to(device=DEVICE, dtype=dtype)


def directions_for(m, d, seed=1, dtype=torch.float64):
    return random_directions(m, d, generator=torch.Generator().manual_seed(seed), dtype=dtype).to(DEVICE)


def value_and_grad(loss, z):
    z = z.detach().clone().requires_grad_()
    value = loss(z)
    return value.detach(), torch.autograd.grad(value.sum(), z)[0]


def assert_is_the_formula(fast, plain, z, error=1e-5):
    value, slope = value_and_grad(fast, z)
    exact, exact_slope = value_and_grad(plain, z.double())
    assert value.dtype == (torch.float64 if z.dtype == torch.float64 else torch.float32) and slope.dtype == z.dtype
    assert (value - exact).abs().max() <= error * exact.abs().max()
    assert (slope - exact_slope).norm() <= error * exact_slope.norm()


@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter's run")
def test_the_interpreter_runs_every_kernel_on_the_cpu():
    outcome = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-m", "not cuda", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert outcome.returncode == 0, outcome.stdout[-4000:] + outcome.stderr[-4000:]


@pytest.mark.parametrize("columns", [1, 3, 33, 64, 65, 200, 5000])
def test_no_two_threads_hold_an_entry_that_is_overwritten(columns, monkeypatch):
    """A kernel reads and overwrites entries without a barrier: a second thread may find what the first has written."""
    launches = []

    class Launch:
        def __getitem__(self, grid):
            return lambda *_, **settings: launches.append(settings)

    sliced_kernel, free_kernel = (pytest.importorskip(f"sigreg.{name}", exc_type=ImportError) for name in KERNELS)
    for module in (sliced_kernel, free_kernel):
        monkeypatch.setattr(module, "_visit", Launch())
    rows = torch.zeros(2, columns, dtype=torch.float64)
    for dtype in (torch.float32, torch.float64):
        sliced_kernel.visit(rows.to(dtype), None, 17, 0.1, None, True, None)
        free_kernel.visit(rows, rows[:, 0], rows[0], 0, 2, 8, True, dtype)
    assert len(launches) == 4 and all(32 * launch.get("num_warps", 4) <= launch["BLOCK"] for launch in launches)


@pytest.mark.skipif(INTERPRETED, reason="nothing is built there")
@pytest.mark.parametrize("name", KERNELS)
def test_where_triton_cannot_run_the_plain_form_serves(name, monkeypatch):
    def no_compiler():
        raise RuntimeError("Failed to find C compiler")

    pytest.importorskip(f"sigreg.{name}", exc_type=ImportError)  # not every Triton has both
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(_per_view, "_wake_triton", lambda: None)
    assert _per_view._load_if.__wrapped__(f"sigreg.{name}", torch.device("cuda", 0)) is not None
    monkeypatch.setattr(_per_view, "_wake_triton", no_compiler)
    with pytest.warns(UserWarning, match="Failed to find C compiler.*install a C compiler"):
        assert _per_view._load_if.__wrapped__(f"sigreg.{name}", torch.device("cuda", 0)) is None


# --- the kernel, by the interpreter or on a GPU -----------------------------------------------------------


@pytest.mark.skipif(not INTERPRETED, reason="on a GPU: a cuda test")
def test_the_kernel_is_what_runs(monkeypatch):
    module = triton_module("sigreg._sliced_triton", torch.device(DEVICE))
    seen = []
    monkeypatch.setattr(module, "visit", lambda *a, visit=module.visit: seen.append(a) or visit(*a))
    sliced_sigreg(gaussian(5, 2), directions_for(4, 2))
    assert len(seen) == 1


@kernel
@pytest.mark.parametrize("shape", [(3, 1, 1), (33, 4, 5), (70, 3, 9), (2100, 2, 2)])  # one and more blocks
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kernel_value_and_gradient(shape, dtype):
    n, d, m = shape
    a, error = directions_for(m, d), 1e-6 if dtype == torch.float32 else 1e-11
    z = (1.5 * gaussian(n, d) + 0.3).to(dtype)
    assert_is_the_formula(lambda z: sliced_sigreg(z, a), lambda z: plain_sliced_sigreg(z, a), z, error)


@kernel
@pytest.mark.parametrize("grid", [(2, 1.0), (3, 0.5), (17, 5.0), (18, 3.0), (64, 8.0)])
def test_kernel_takes_any_knots(grid):
    knots, t_max = grid
    a, z = directions_for(6, 3), 1.2 * gaussian(40, 3, dtype=torch.float32)
    settings = {"knots": knots, "t_max": t_max}
    assert_is_the_formula(
        lambda z: sliced_sigreg(z, a, **settings), lambda z: plain_sliced_sigreg(z, a, **settings), z, 3e-6
    )


@kernel
def test_kernel_takes_views_and_columns():
    a, z = directions_for(4, 4), gaussian(3, 20, 4, dtype=torch.float32)
    assert_is_the_formula(lambda z: sliced_sigreg(z, a), lambda z: plain_sliced_sigreg(z, a), z, 1e-6)
    x = 2 * gaussian(1, 5, dtype=torch.float32)
    assert_is_the_formula(epps_pulley, plain_epps_pulley, x, 1e-6)
    assert_is_the_formula(epps_pulley, plain_epps_pulley, 2 * gaussian(30, 5, dtype=torch.float32), 1e-6)


@kernel
def test_kernel_in_parts_of_the_directions(monkeypatch):
    a, z = directions_for(5, 4), gaussian(2, 20, 4)
    whole = value_and_grad(lambda z: sliced_sigreg(z, a), z)
    monkeypatch.setattr(_sliced, "_KERNEL_ENTRIES", 2 * 20 * 3)
    torch.testing.assert_close(value_and_grad(lambda z: sliced_sigreg(z, a), z), whole)


@kernel
def test_kernel_divides_the_lengths_of_drawn_directions_out():
    a, z = 3 * gaussian(3, 130, seed=1), gaussian(2, 20, 130)
    unit = a / a.norm(dim=1, keepdim=True)

    def drawn(z):
        return _sliced.sliced(z, a, 17, 3.0, None, None, drawn=True).mean()

    assert_is_the_formula(drawn, lambda z: plain_sliced_sigreg(z, unit), z, 1e-11)


@kernel
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e2, 1e4])
def test_kernel_at_any_angle(scale):
    a, z = torch.ones(1, 1, dtype=torch.float32, device=DEVICE), scale * gaussian(128, 1, dtype=torch.float32)
    settings = {"knots": 2, "t_max": 1.0}
    value, slope = value_and_grad(lambda z: sliced_sigreg(z, a, **settings), z)
    exact, exact_slope = value_and_grad(lambda z: plain_sliced_sigreg(z, a.double(), **settings), z.double())
    error = 1e-6 * max(1, scale)  # what single precision leaves of the angle itself
    assert (value - exact).abs() <= error * exact.abs() + error and (slope - exact_slope).norm() <= error


@kernel
def test_kernel_without_gradient_leaves_the_value():
    a, z = directions_for(4, 4), gaussian(20, 4)
    torch.testing.assert_close(sliced_sigreg(z, a), plain_sliced_sigreg(z, a))


@kernel
def test_kernel_split_where_processes_share_is_the_whole_kernel(tmp_path, monkeypatch):
    dist = torch.distributed
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        z, a = gaussian(2, 30, 4), directions_for(3, 4)
        together = _sliced._sliced_and_slope(z, a, True, drawn=False, knots=17, t_max=3.0, group=dist.group.WORLD)
        alone = _sliced._sliced_and_slope(z, a, True, drawn=False, knots=17, t_max=3.0, group=None)
        torch.testing.assert_close(together, alone)
        # An empty batch here, 30 samples elsewhere.
        monkeypatch.setattr(_sliced, "count_shared", lambda n, group, like: like.new_full((), 30))
        empty = _sliced._sliced_and_slope(z[:, :0], a, True, drawn=False, knots=17, t_max=3.0, group=dist.group.WORLD)
        assert empty[1].shape == (2, 0, 4)
    finally:
        dist.destroy_process_group()


@kernel
def test_kernel_never_drops_nan():
    z, a = gaussian(2, 16, 4, dtype=torch.float32), directions_for(8, 4)
    z[1, 3, 2] = torch.nan
    value, slope = value_and_grad(lambda z: sliced_sigreg(z, a), z)
    assert value.isnan() and slope[1].isnan().all() and slope[0].isfinite().all()


@kernel
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_kernel_under_transforms():
    z, a = gaussian(2, 12, 3), directions_for(3, 3)
    each = torch.stack([grad(lambda z: plain_sliced_sigreg(z, a))(view) for view in z])
    torch.testing.assert_close(vmap(grad(lambda z: sliced_sigreg(z, a)))(z), each)
    torch.testing.assert_close(jacfwd(lambda z: sliced_sigreg(z, a))(z[0]), each[0])


# The slice-free form's kernel.


@kernel
@pytest.mark.parametrize("shape", [(1, 7, 1), (2, 9, 3), (1, 5, 200)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_slice_free_kernel_value_and_gradient(shape, dtype, monkeypatch):
    monkeypatch.setattr(_slice_free, "_KERNEL_ENTRIES", 4 * shape[1])  # several blocks of rows
    assert_is_the_formula(
        slice_free_sigreg, lambda z: plain_slice_free(z).mean(), (gaussian(*shape) + 1).to(dtype), 2e-6
    )


@kernel
def test_slice_free_kernel_keeps_tight_distant_clusters():
    z = 1e-2 * gaussian(12, 4, dtype=torch.float32)
    z[6:] += 1000
    assert_is_the_formula(slice_free_sigreg, lambda z: plain_slice_free(z.unsqueeze(0)).mean(), z, 2e-6)


@kernel
def test_slice_free_kernel_never_drops_nan():
    z = gaussian(2, 5, 3, dtype=torch.float32)
    z[1, 3, 2] = torch.nan
    value, slope = value_and_grad(slice_free_sigreg, z)
    assert value.isnan() and slope[1].isnan().all() and slope[0].isfinite().all()


@kernel
def test_kernel_under_compile_and_export():
    torch._dynamo.reset()
    z, a = gaussian(2, 16, 4, dtype=torch.float32), directions_for(3, 4, dtype=torch.float32)

    def loss(z):
        return 2 * sliced_sigreg(z.tanh(), a)

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(value_and_grad(compiled, z), value_and_grad(loss, z))
    torch._dynamo.reset()


# --- on a GPU ---------------------------------------------------------------------------------------------

cuda = pytest.mark.cuda
SIZES = [(64, 8, 16), (512, 128, 256), (4096, 64, 128)]


@cuda
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_cuda_value_and_gradient(size, dtype):
    n, d, m = size
    a, z = directions_for(m, d), (1.5 * gaussian(n, d) + 0.3).to(dtype)
    error = {torch.float64: 1e-10, torch.float32: 1e-5}.get(dtype, torch.finfo(dtype).eps)
    assert_is_the_formula(lambda z: sliced_sigreg(z, a), lambda z: plain_sliced_sigreg(z, a), z, error)


@cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_cuda_slice_free_is_the_cpu_value(dtype):
    z = gaussian(2, 300, 16).to(dtype)
    value, slope = value_and_grad(slice_free_sigreg, z)
    expected, expected_slope = value_and_grad(slice_free_sigreg, z.cpu().double())
    assert abs(value.cpu() - expected) <= 2e-5 * expected and value.is_cuda
    assert (slope.cpu() - expected_slope).norm() <= max(1e-5, torch.finfo(dtype).eps) * expected_slope.norm()


@cuda
@pytest.mark.parametrize("loss", [epps_pulley, epps_pulley_closed_form])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cuda_columns_are_the_cpu_values(loss, dtype):
    x = gaussian(200, 9).to(dtype)
    torch.testing.assert_close(loss(x).cpu(), loss(x.cpu()), rtol=1e-5, atol=1e-5)
    assert loss(x).is_cuda and loss(x).dtype == dtype


@cuda
def test_cuda_kernel_and_fallback_agree(monkeypatch):
    z, a = gaussian(2, 300, 16, dtype=torch.float32), directions_for(128, 16)
    fast = value_and_grad(lambda z: sliced_sigreg(z, a), z)
    assert triton_module("sigreg._sliced_triton", z.device) is not None
    monkeypatch.setattr(_sliced, "triton_module", lambda name, device: None)
    torch.testing.assert_close(value_and_grad(lambda z: sliced_sigreg(z, a), z), fast, rtol=1e-4, atol=1e-6)


@cuda
def test_cuda_many_rows():
    a, z = directions_for(2100, 2), gaussian(10, 2, dtype=torch.float32)
    assert_is_the_formula(lambda z: sliced_sigreg(z, a), lambda z: plain_sliced_sigreg(z, a), z, 1e-6)


@cuda
def test_cuda_generators():
    on_cpu = random_directions(8, 4, generator=torch.Generator().manual_seed(3), device="cuda")
    assert on_cpu.is_cuda
    torch.testing.assert_close(on_cpu.cpu(), random_directions(8, 4, generator=torch.Generator().manual_seed(3)))
    there = [random_directions(8, 4, generator=torch.Generator("cuda").manual_seed(3)) for _ in range(2)]
    assert there[0].is_cuda and torch.equal(*there)
    torch.testing.assert_close(there[0].norm(dim=1), torch.ones(8, device="cuda"))


@cuda
def test_cuda_module_does_not_wait_for_the_host():
    z, module = gaussian(512, 64, dtype=torch.float32).requires_grad_(), SIGReg(128)
    module(z).backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        module(z).backward()
        slice_free_sigreg(z).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@cuda
def test_cuda_step_in_a_captured_graph():
    z, a = gaussian(512, 64, dtype=torch.float32).requires_grad_(), directions_for(128, 64, dtype=torch.float32)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            z.grad = None
            sliced_sigreg(z, a).backward()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    z.grad = None
    with torch.cuda.graph(graph):
        value = sliced_sigreg(z, a)
        value.backward()
    with torch.no_grad():
        z.copy_(2 * gaussian(512, 64, seed=5))
    graph.replay()
    expected, slope = value_and_grad(lambda z: plain_sliced_sigreg(z, a), z)
    torch.testing.assert_close(value.detach(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(z.grad, slope, rtol=1e-4, atol=1e-6)


@cuda
def test_cuda_captured_module_draws_afresh():
    z, module = gaussian(512, 64, dtype=torch.float32), SIGReg(16)
    with torch.cuda.stream(torch.cuda.Stream()):
        module(z)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value = module(z)
    values = set()
    for _ in range(3):
        graph.replay()
        values.add(value.item())
    assert len(values) == 3


@cuda
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_cuda_compile_in_one_graph(mode):
    torch._dynamo.reset()
    z, a = gaussian(2, 64, 16, dtype=torch.float32), directions_for(32, 16, dtype=torch.float32)
    for loss in (lambda z: 2 * sliced_sigreg(z.tanh(), a), lambda z: 2 * slice_free_sigreg(z.tanh())):
        compiled = torch.compile(loss, fullgraph=True, mode=mode)
        for _ in range(3):
            torch.testing.assert_close(value_and_grad(compiled, z), value_and_grad(loss, z), rtol=1e-4, atol=1e-6)
    torch._dynamo.reset()


@cuda
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_cuda_autocast_changes_nothing(dtype):
    z, a = gaussian(256, 32, dtype=torch.float32), directions_for(64, 32, dtype=torch.float32)
    for loss in (lambda z: sliced_sigreg(z, a), slice_free_sigreg):
        expected = value_and_grad(loss, z)
        with torch.autocast("cuda", dtype=dtype):
            torch.testing.assert_close(value_and_grad(loss, z), expected, rtol=1e-6, atol=1e-7)


@cuda
def test_cuda_export():
    class Loss(torch.nn.Module):
        def forward(self, z, a):
            return sliced_sigreg(z, a)

    z, a = gaussian(64, 8, dtype=torch.float32), directions_for(16, 8, dtype=torch.float32)
    exported = torch.export.export(Loss(), (z, a))
    torch.testing.assert_close(exported.module()(z, a), sliced_sigreg(z, a))


@cuda
def test_cuda_vmap_and_second_derivatives():
    z, a = gaussian(3, 10, 4), directions_for(6, 4)
    each = torch.stack([plain_sliced_sigreg(view, a) for view in z])
    torch.testing.assert_close(vmap(lambda z: sliced_sigreg(z, a))(z), each)
    assert torch.autograd.gradgradcheck(lambda z: sliced_sigreg(z, a), (z[0].clone().requires_grad_(),))


@cuda
def test_cuda_parts_of_a_batch():
    net, x, a = torch.nn.Linear(6, 4).double().cuda(), gaussian(50, 6), directions_for(16, 4)
    expected = torch.autograd.grad(sliced_sigreg(net(x), a), list(net.parameters()))
    backward_in_parts(torch.nn.Sequential(net, torch.nn.Dropout(0.0)), x.split(16), lambda z: sliced_sigreg(z, a))
    for p, e in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, e)


@cuda
def test_cuda_holds_little_memory():
    n, d, m = 4096, 64, 1024
    z = gaussian(n, d, dtype=torch.float32).requires_grad_()
    module = SIGReg(m)
    module(z).backward()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    module(z).backward()
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_allocated() - before < 1.5 * n * m * 4  # the angles; never times the knots


@cuda
def test_cuda_deterministic():
    z, a = gaussian(4096, 64, dtype=torch.float32), directions_for(256, 64, dtype=torch.float32)
    first, second = (value_and_grad(lambda z: sliced_sigreg(z, a), z) for _ in range(2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
