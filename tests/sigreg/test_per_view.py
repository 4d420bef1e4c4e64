"""A value and its slope from one visit, as a function of torch: autograd, torch.func, forward mode, the compiler."""

import pytest
import torch
from codes import directions_for, gaussian, value_and_grad
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

import sigreg.gaussian_regularization as gr
from sigreg import _per_view, _slice_free, _sliced
from sigreg.gaussian_regularization import (
    epps_pulley,
    plain_epps_pulley,
    plain_sliced_sigreg,
    slice_free_sigreg,
    sliced_sigreg,
)


def test_gradcheck():
    z, a = gaussian(6, 3).requires_grad_(), directions_for(5, 3).requires_grad_()
    for loss, inputs in ((sliced_sigreg, (z, a)), (slice_free_sigreg, (z,)), (epps_pulley, (z,))):
        assert torch.autograd.gradcheck(loss, inputs)
        assert torch.autograd.gradgradcheck(loss, inputs)
    assert torch.autograd.gradcheck(lambda z: sliced_sigreg(z.view(2, 3, 3), a.detach()), (z,))


def test_func_transforms():
    z, a = gaussian(5, 12, 4), directions_for(9, 4)
    pairs = [
        (lambda z: sliced_sigreg(z, a), lambda z: plain_sliced_sigreg(z, a)),
        (slice_free_sigreg, lambda z: _slice_free.plain_slice_free(z[None])[0]),
    ]
    for fast, plain in pairs:
        torch.testing.assert_close(vmap(fast)(z), torch.stack([plain(view) for view in z]))
        torch.testing.assert_close(vmap(fast, in_dims=1)(z.movedim(0, 1)), vmap(fast)(z))
        each = torch.stack([grad(plain)(view) for view in z])
        torch.testing.assert_close(vmap(grad(fast))(z), each)
        torch.testing.assert_close(grad(lambda z, fast=fast: vmap(fast)(z).sum())(z), each)
        second = jacrev(grad(plain))(z[0])
        torch.testing.assert_close(jacrev(grad(fast))(z[0]), second)
        torch.testing.assert_close(jacrev(jacrev(fast))(z[0]), second)
    torch.testing.assert_close(jacrev(epps_pulley)(z[0]), jacrev(plain_epps_pulley)(z[0]))
    many = torch.stack([directions_for(9, 4, seed=s) for s in range(5)])
    expected = torch.stack([plain_sliced_sigreg(*pair) for pair in zip(z, many, strict=True)])
    torch.testing.assert_close(vmap(sliced_sigreg)(z, many), expected)
    expected = torch.stack([plain_sliced_sigreg(z[0], a) for a in many])
    torch.testing.assert_close(vmap(sliced_sigreg, in_dims=(None, 0))(z[0], many), expected)


def test_upstream_gradient_is_applied_once_and_backward_repeats():
    z = gaussian(20, 4).requires_grad_()
    loss = 3 * sliced_sigreg(z, directions_for(8, 4))
    (first,) = torch.autograd.grad(loss, z, retain_graph=True)
    (second,) = torch.autograd.grad(loss, z)
    torch.testing.assert_close(first, second)
    torch.testing.assert_close(first, 3 * value_and_grad(lambda z: sliced_sigreg(z, directions_for(8, 4)), z)[1][0])


def test_compile_keeps_one_graph():
    torch._dynamo.reset()
    z, a = gaussian(2, 16, 4).float(), directions_for(8, 4).float()
    for loss in (lambda z: 2 * sliced_sigreg(z.tanh(), a), lambda z: 2 * slice_free_sigreg(z.tanh())):
        compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(value_and_grad(compiled, z), value_and_grad(loss, z))
        with torch.no_grad():
            torch.testing.assert_close(compiled(z), loss(z))
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # Dynamo, looking at an inner tensor
def test_compile_breaks_its_graph_where_processes_share(tmp_path, monkeypatch):
    dist = torch.distributed
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    monkeypatch.setattr(gr, "shared_group", lambda sync, group: dist.group.WORLD)
    torch._dynamo.reset()
    try:
        z, a = gaussian(16, 4), directions_for(8, 4)
        for loss in (lambda z: 2 * sliced_sigreg(z, a), lambda z: 2 * slice_free_sigreg(z)):
            compiled = torch.compile(loss, backend="aot_eager")
            torch.testing.assert_close(value_and_grad(compiled, z), value_and_grad(loss, z))
    finally:
        dist.destroy_process_group()
        torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # opcheck, looking at its own copies
@pytest.mark.skipif(not hasattr(torch.library, "opcheck"), reason="torch is older than the operations checked")
def test_compiled_operations_keep_their_promises():
    for z in (gaussian(2, 5, 4).requires_grad_(), gaussian(1, 5, 4).bfloat16()):
        torch.library.opcheck(_sliced.compiled_sliced, (z, z.requires_grad, directions_for(3, 4), False, 17, 3.0))
        torch.library.opcheck(_slice_free.compiled_slice_free, (z, z.requires_grad))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch, on its first forward mode
def test_forward_mode_is_reverse_mode():
    z, a = gaussian(5, 3), directions_for(4, 3)
    for loss, plain in (
        (lambda z: sliced_sigreg(z, a), lambda z: plain_sliced_sigreg(z, a)),
        (slice_free_sigreg, lambda z: _slice_free.plain_slice_free(z[None])[0]),
    ):
        torch.testing.assert_close(jacfwd(loss)(z), grad(plain)(z))
        torch.testing.assert_close(hessian(loss)(z), jacrev(grad(plain))(z))
        with pytest.raises(NotImplementedError, match="forward mode over forward mode"):
            jacfwd(jacfwd(loss))(z)
        _, tangent = jvp(loss, (z,), (torch.ones_like(z),))
        torch.testing.assert_close(tangent, grad(plain)(z).sum())
    torch.testing.assert_close(jacfwd(lambda a: sliced_sigreg(z, a))(a), jacrev(lambda a: plain_sliced_sigreg(z, a))(a))


def test_meta_and_fake_tensors_alike_have_no_data():
    real = torch.zeros(3, 2)
    assert _per_view.has_no_data(real.to("meta")) and not _per_view.has_no_data(real)
    with FakeTensorMode() as mode:
        assert _per_view.has_no_data(mode.from_tensor(real))
