"""Losses whose gradient is made in the visit that makes their value, and what such visits have in common.

A visit is a function of codes (V, N, D) that returns (V,) values and, when asked, their gradients (V, N, D). Here it
becomes a differentiable function: by autograd.Function when called eagerly, by an opaque operation when compiled.
"""

import contextlib
import functools
import importlib
import os
import warnings

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad

# ---------------------------------------------------------------------------------------------------------
# Precision and block sizes
# ---------------------------------------------------------------------------------------------------------


def block_entries(like):
    """Entries of one buffer of a block: what a core's cache holds a thread, or a kernel worth its launch."""
    return 2**15 * torch.get_num_threads() if like.device.type == "cpu" else 2**21


def compute_dtype(z):
    return torch.float64 if z.dtype == torch.float64 else torch.float32


def has_no_data(z):
    """Whether ``z`` is a meta or fake tensor: of its result only the shape is asked."""
    return z.is_meta or isinstance(z, FakeTensor)


def full_precision(like):
    device = like.device.type
    if not torch.is_autocast_enabled(device):  # asking costs less than the context
        return contextlib.nullcontext()
    return torch.autocast(device, enabled=False)


def triton_module(name, device):
    """The module of Triton kernels where it serves: on a GPU, or anywhere under Triton's interpreter; else None."""
    return _load_if(name, device) if device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1" else None


@functools.cache
def _load_if(name, device):
    if device.type == "cuda" and torch.version.cuda and torch.cuda.get_device_capability(device) < (7, 0):
        return None
    try:
        module = importlib.import_module(name)
    except ImportError:
        return None
    try:
        if device.type == "cuda":
            _wake_triton()
    except Exception as error:  # of many kinds: no compiler, no headers of Python, no room for the cache
        warnings.warn(
            f"Triton is installed and cannot run ({error}), so SIGReg goes without its kernel, which is several times "
            "slower: install a C compiler, such as gcc, and Python's headers",
            stacklevel=2,
        )
        return None
    return module


def _wake_triton():
    """Triton's first use builds what launches need, by the C compiler of the machine. Many images have none."""
    importlib.import_module("triton.runtime").driver.active.get_current_target()


def refuse_nested_forward():
    """PyTorch does not differentiate a jvp rule by a second forward mode, and would return a wrong number."""
    stack = torch._C._functorch.get_interpreter_stack() or []
    if sum(level.key() == torch._C._functorch.TransformType.Jvp for level in stack) > 1:
        raise NotImplementedError(
            "forward mode over forward mode is not supported: use torch.func.hessian (jacfwd over jacrev)"
        )


# ---------------------------------------------------------------------------------------------------------
# Called eagerly
# ---------------------------------------------------------------------------------------------------------


def per_view(z, directions, fast, plain):
    apply = _PerView.apply
    if torch.compiler.is_compiling():  # across processes: not to be traced, the graph breaks here
        apply = torch.compiler.disable(apply)
    elif not torch._C._are_functorch_transforms_active():
        apply = _Eagerly.apply
    return apply(z, directions, fast, plain, wants_slope(z))[0]


def wants_slope(z):
    return torch.is_grad_enabled() and z.requires_grad


class _PerView(torch.autograd.Function):
    """(V,) statistics of ``z`` (V, N, D), whose gradients ``fast`` makes in the same visit.

    ``fast(z, directions, with_slope)`` returns values and slopes; ``plain(z, directions)`` is the differentiable
    formula, used for all other derivatives.
    """

    @staticmethod
    def forward(z, directions, fast, plain, with_slope):
        return fast(z, directions, with_slope)

    @staticmethod
    def setup_context(ctx, inputs, output):
        z, directions, ctx.fast, ctx.plain, ctx.with_slope = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)  # no zeros as large as the slope for the slope's own gradient
        ctx.save_for_backward(z, directions, output[1])
        ctx.save_for_forward(z, directions, output[1])

    @staticmethod
    def vmap(info, in_dims, z, directions, *settings):
        if in_dims[1] is not None:  # each its own directions: one after the other
            z = z.movedim(in_dims[0], 0) if in_dims[0] is not None else [z] * info.batch_size
            each = [_PerView.apply(*pair, *settings) for pair in zip(z, directions.movedim(in_dims[1], 0), strict=True)]
            return tuple(torch.stack(parts) for parts in zip(*each, strict=True)), (0, 0)
        z = z.movedim(in_dims[0], 0)  # a batch of views is more views
        statistic, slope = _PerView.apply(z.flatten(0, 1), directions, *settings)
        return (statistic.unflatten(0, z.shape[:2]), slope.unflatten(0, z.shape[:2])), (0, 0)

    @staticmethod
    def jvp(ctx, z_tangent, directions_tangent, *_):
        refuse_nested_forward()
        if ctx.plain is None:
            raise NotImplementedError("forward-mode derivatives are not shared across processes: use sync=False")
        z, directions, slope = ctx.saved_tensors
        tangent = 0
        if z_tangent is not None:
            ones = z.new_ones(len(z), dtype=compute_dtype(z))
            tangent = (_PerView.scaled_slope(ctx, ones, z, directions, slope) * z_tangent).sum((1, 2), dtype=ones.dtype)
        if directions_tangent is not None:
            tangent = tangent + torch.func.jvp(lambda a: ctx.plain(z, a), (directions,), (directions_tangent,))[1]
        return tangent, None

    @staticmethod
    def scaled_slope(ctx, scale, z, directions, slope):
        if not ctx.with_slope:  # the gradient was asked for after all, from within torch.func
            slope = _PerView.apply(z.detach(), directions, ctx.fast, ctx.plain, True)[1]
        elif not torch.is_grad_enabled() and forward_ad._current_level < 0:  # nobody differentiates further
            return (scale.view(-1, 1, 1) * slope).to(z.dtype)
        return _ScaleSlope.apply(scale, slope, ctx.plain, z, directions)

    @staticmethod
    def backward(ctx, grad, _):
        if grad is None:
            return None, None, None, None, None
        z, directions, slope = ctx.saved_tensors
        grad_z = grad_directions = None
        if ctx.needs_input_grad[0]:
            grad_z = _PerView.scaled_slope(ctx, grad, z, directions, slope)
        if ctx.needs_input_grad[1]:
            if ctx.plain is None:
                raise NotImplementedError("the gradient with respect to directions is not shared across processes")
            grad_directions = torch.func.vjp(lambda a: ctx.plain(z, a), directions)[1](grad)[0]
        return grad_z, grad_directions, None, None, None


class _Eagerly(_PerView):
    """The same outside torch.func: setup_context costs a look at forward's signature, as long as several launches."""

    setup_context = staticmethod(torch.autograd.Function.setup_context)

    @staticmethod
    def forward(ctx, z, directions, fast, plain, with_slope):
        output = fast(z, directions, with_slope)
        _PerView.setup_context(ctx, (z, directions, fast, plain, with_slope), output)
        return output


class _ScaleSlope(torch.autograd.Function):
    """The first derivative, slope times upstream gradient, which the plain formula differentiates further."""

    generate_vmap_rule = True

    @staticmethod
    def forward(grad, slope, plain, z, directions):
        return (grad.view(-1, 1, 1) * slope).to(z.dtype)

    @staticmethod
    def setup_context(ctx, inputs, output):
        grad, slope, ctx.plain, z, directions = inputs
        ctx.save_for_backward(grad, slope, z, directions)  # the same as below: the generated vmap keeps one list
        ctx.save_for_forward(grad, slope, z, directions)

    @staticmethod
    def jvp(ctx, grad_tangent, slope_tangent, _, z_tangent, directions_tangent):
        refuse_nested_forward()
        grad, slope, z, directions = ctx.saved_tensors
        tangent = torch.zeros_like(z)
        if grad_tangent is not None:
            tangent = tangent + (grad_tangent.view(-1, 1, 1) * slope).to(z.dtype)
        if z_tangent is not None:
            tangent = tangent + torch.func.jvp(lambda z: _first(ctx.plain, grad, z, directions), (z,), (z_tangent,))[1]
        if directions_tangent is not None:
            along = torch.func.jvp(lambda a: _first(ctx.plain, grad, z, a), (directions,), (directions_tangent,))
            tangent = tangent + along[1]
        return tangent

    @staticmethod
    def backward(ctx, upstream):
        if ctx.plain is None:
            raise NotImplementedError("second derivatives of SIGReg are not shared across processes: use sync=False")
        grad, _, z, directions = ctx.saved_tensors

        def first_derivative(grad, z, directions):
            return _first(ctx.plain, grad, z, directions)

        if directions is None:
            pull = torch.func.vjp(lambda grad, z: first_derivative(grad, z, None), grad, z)[1]
            return pull(upstream)[0], None, None, pull(upstream)[1], None
        in_grad, in_z, in_directions = torch.func.vjp(first_derivative, grad, z, directions)[1](upstream)
        return in_grad, None, None, in_z, in_directions


def _first(plain, grad, z, directions):
    return torch.func.vjp(lambda z: plain(z, directions), z)[1](grad)[0]


# ---------------------------------------------------------------------------------------------------------
# Compiled
# ---------------------------------------------------------------------------------------------------------
#
# The same visits go as opaque operations, which leave the graph whole. They know one derivative.


def register(operation):
    """Teach an operation (z, with_slope, ...) -> (values, slopes) its shapes and its derivative in ``z``."""
    operation.register_fake(_shapes)
    operation.register_autograd(_scale_slope, setup_context=_keep_slope)
    return operation


def _shapes(z, with_slope, *_):
    v, n, d = z.shape
    statistic = z.new_empty(v, dtype=compute_dtype(z))
    return statistic, statistic.new_empty(v, n if with_slope else 0, d)


def _keep_slope(ctx, inputs, output):
    ctx.dtype, ctx.inputs = inputs[0].dtype, len(inputs)
    ctx.save_for_backward(output[1])


def _scale_slope(ctx, grad, _):
    if any(ctx.needs_input_grad[1:]):
        raise NotImplementedError("the gradient with respect to directions is not compiled: call it eagerly")
    (slope,) = ctx.saved_tensors
    return (grad.view(-1, 1, 1) * slope).to(ctx.dtype), *[None] * (ctx.inputs - 1)
