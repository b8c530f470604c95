"""Each operator computes what PyTorch's does, and so do its gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcjax.interop.exported.call import Call
from mcjax.interop.exported.graph import Dtype
from mcjax.interop.exported.operators import OPERATORS
from mcjax.interop.exported.run import functional
from mcjax.interop.exported.values import Value

torch = pytest.importorskip("torch")

IMAGES = (2, 6, 7, 8)
INF = float("inf")


def t(*shape, seed=0, low=-4.0, high=4.0):
    """An array of values that are not kinks, such as 0 or 3."""
    return np.random.default_rng(seed + sum(shape)).uniform(low, high, shape).astype(np.float32)


X, KERNEL = t(*IMAGES), t(4, 6, 3, 3, seed=1)
SEQUENCE = t(2, 6, 9)
POSITIVE = t(3, 5, low=0.1)
MATRIX = t(3, 5)
CASES = [
    *((f"{name}.default", {"self": X}) for name in ["relu", "relu6", "relu_", "silu", "sigmoid", "tanh", "gelu", "hardswish", "hardsigmoid", "mish", "abs", "neg", "exp", "square", "sin", "cos", "erf", "expm1", "floor", "ceil", "round", "sign", "selu", "celu", "elu", "leaky_relu", "log_sigmoid", "softplus", "hardtanh", "trunc", "zero_", "clone", "detach", "alias", "contiguous", "zeros_like", "ones_like", "atan", "sum", "mean"]),
    *((f"{name}.default", {"self": POSITIVE}) for name in ["log", "log1p", "sqrt", "rsqrt", "reciprocal"]),
    ("gelu.default", {"self": X, "approximate": "tanh"}),
    ("leaky_relu.default", {"self": X, "negative_slope": 0.3}),
    ("elu.default", {"self": X, "alpha": 0.7}),
    ("celu.default", {"self": X, "alpha": 0.7}),
    ("hardtanh.default", {"self": X, "min_val": -2.0, "max_val": 1.5}),
    ("softplus.default", {"self": 10 * X, "beta": 2, "threshold": 10}),
    ("threshold.default", {"self": X, "threshold": 0.5, "value": 2.0}),
    ("add.Tensor", {"self": X, "other": t(6, 1, 1), "alpha": 2}),
    ("add_.Tensor", {"self": X, "other": t(*IMAGES, seed=2)}),
    ("add.Tensor", {"self": X, "other": t(8)}),
    ("sub.Tensor", {"self": t(6, 1, 1), "other": X}),
    ("sub.Tensor", {"self": X, "other": t(1, 6, 1, 1), "alpha": 3}),
    ("rsub.Scalar", {"self": X, "other": 1.5}),
    ("mul.Tensor", {"self": X, "other": t(2, 6, 1, 1)}),
    ("mul.Tensor", {"self": X, "other": t(3, 2, 6, 7, 8)}),
    ("div.Tensor", {"self": X, "other": t(6, 1, 1, low=1)}),
    ("div.Tensor_mode", {"self": X, "other": t(8, low=1), "rounding_mode": "floor"}),
    ("div.Tensor_mode", {"self": X, "other": t(8, low=1), "rounding_mode": "trunc"}),
    ("pow.Tensor_Scalar", {"self": X, "exponent": 2}),
    ("pow.Tensor_Scalar", {"self": POSITIVE, "exponent": 1.5}),
    ("pow.Tensor_Tensor", {"self": POSITIVE, "exponent": MATRIX}),
    ("clamp.default", {"self": X, "min": -1.0, "max": 2.0}),
    ("clamp.default", {"self": X, "max": 2.0}),
    ("clamp_min.default", {"self": X, "min": 0.5}),
    ("maximum.default", {"self": X, "other": t(7, 8)}),
    ("remainder.Scalar", {"self": X, "other": 3}),
    ("floor_divide.default", {"self": np.arange(6), "other": 4}),
    ("masked_fill.Scalar", {"self": X, "mask": t(7, 8) > 0, "value": -INF}),
    ("where.self", {"condition": t(7, 8) > 0, "self": X, "other": t(6, 1, 1)}),
    ("eq.Scalar", {"self": np.arange(6), "other": 3}),
    ("lt.Tensor", {"self": X, "other": t(*IMAGES, seed=1)}),
    ("addcmul.default", {"self": X, "tensor1": t(7, 8), "tensor2": t(6, 1, 1), "value": 2}),
    ("lerp.Scalar", {"self": X, "end": t(*IMAGES, seed=1), "weight": 0.3}),
    ("copy_.default", {"self": X, "src": t(7, 8)}),
    ("fill_.Scalar", {"self": X, "value": 3}),
    ("conv2d.default", {"input": X, "weight": KERNEL, "bias": t(4), "stride": [2, 1], "padding": [1, 2]}),
    ("conv2d.default", {"input": X, "weight": KERNEL, "dilation": [2, 2], "padding": [2, 2]}),
    ("conv2d.default", {"input": X, "weight": t(6, 2, 3, 2), "groups": 3}),
    ("conv2d.default", {"input": X, "weight": t(12, 1, 3, 3), "groups": 6, "padding": [1, 1]}),
    ("conv2d.padding", {"input": X, "weight": t(4, 6, 4, 3), "padding": "same", "dilation": [1, 2]}),
    ("conv2d.padding", {"input": X, "weight": KERNEL, "padding": "valid"}),
    ("conv_transpose2d.input", {"input": X, "weight": t(6, 4, 3, 3), "bias": t(4), "stride": [2, 3],
        "padding": [1, 0], "output_padding": [1, 2]}),
    ("conv_transpose2d.input", {"input": X, "weight": t(6, 2, 3, 2), "groups": 3, "dilation": [2, 1]}),
    ("convolution.default", {"input": X, "weight": KERNEL, "bias": None, "stride": [1, 1],
        "padding": [0, 0], "dilation": [1, 1], "transposed": False, "output_padding": [0, 0], "groups": 1}),
    ("conv1d.default", {"input": SEQUENCE, "weight": t(4, 3, 3), "bias": t(4), "stride": [2],
        "padding": [1], "groups": 2}),
    ("im2col.default", {"self": X, "kernel_size": [3, 2], "dilation": [1, 2], "padding": [1, 0],
        "stride": [2, 1]}),
    ("max_pool2d.default", {"self": X, "kernel_size": [2, 2], "stride": [2, 2]}),
    ("max_pool2d.default", {"self": X, "kernel_size": [3, 3], "stride": [2, 2], "padding": [1, 1]}),
    ("max_pool2d.default", {"self": X, "kernel_size": [3, 3], "stride": [2, 2], "ceil_mode": True}),
    ("max_pool2d.default", {"self": X, "kernel_size": [3, 2], "stride": [1, 2], "dilation": [2, 1]}),
    ("max_pool2d.default", {"self": X, "kernel_size": [3]}),
    ("max_pool1d.default", {"self": SEQUENCE, "kernel_size": [2], "stride": [2]}),
    ("avg_pool2d.default", {"self": X, "kernel_size": [2, 3]}),
    ("avg_pool2d.default", {"self": X, "kernel_size": [3, 3], "stride": [2, 2], "padding": [1, 1]}),
    ("avg_pool2d.default", {"self": X, "kernel_size": [3, 3], "stride": [2, 2], "padding": [1, 1],
        "ceil_mode": True, "count_include_pad": False}),
    ("avg_pool2d.default", {"self": X, "kernel_size": [3, 3], "stride": [3, 3], "padding": [1, 1],
        "ceil_mode": True}),
    ("avg_pool2d.default", {"self": X, "kernel_size": [2, 2], "divisor_override": 3}),
    ("avg_pool1d.default", {"self": SEQUENCE, "kernel_size": [2], "stride": [2]}),
    ("adaptive_avg_pool2d.default", {"self": X, "output_size": [1, 1]}),
    ("adaptive_avg_pool2d.default", {"self": X, "output_size": [3, 5]}),
    ("adaptive_avg_pool2d.default", {"self": t(2, 6, 6, 8), "output_size": [3, 4]}),
    ("adaptive_avg_pool1d.default", {"self": SEQUENCE, "output_size": [4]}),
    ("adaptive_max_pool2d.default", {"self": X, "output_size": [3, 5]}),
    ("upsample_nearest2d.vec", {"input": X, "output_size": None, "scale_factors": [2.0, 1.5]}),
    ("upsample_nearest2d.default", {"self": X, "output_size": [10, 5]}),
    ("upsample_bilinear2d.vec", {"input": X, "output_size": [13, 5], "align_corners": False,
        "scale_factors": None}),
    ("upsample_bilinear2d.vec", {"input": X, "output_size": [13, 16], "align_corners": True,
        "scale_factors": None}),
    ("upsample_bilinear2d.vec", {"input": X, "output_size": None, "align_corners": False,
        "scale_factors": [1.7, 2.0]}),
    ("upsample_bicubic2d.default", {"self": X, "output_size": [12, 9], "align_corners": False}),
    ("upsample_bicubic2d.default", {"self": X, "output_size": [12, 9], "align_corners": True}),
    ("batch_norm.default", {"input": X, "weight": t(6), "bias": t(6, seed=1), "running_mean": t(6, seed=2),
        "running_var": t(6, low=1), "training": False, "momentum": 0.1, "eps": 1e-3, "cudnn_enabled": False}),
    ("batch_norm.default", {"input": MATRIX, "weight": None, "bias": None, "running_mean": t(5),
        "running_var": t(5, low=1), "training": False, "momentum": 0.1, "eps": 1e-5, "cudnn_enabled": False}),
    ("batch_norm.default", {"input": X, "weight": None, "bias": None, "running_mean": None,
        "running_var": None, "training": True, "momentum": 0.1, "eps": 1e-5, "cudnn_enabled": False}),
    ("layer_norm.default", {"input": X, "normalized_shape": [8], "weight": t(8), "bias": t(8, seed=1)}),
    ("layer_norm.default", {"input": X, "normalized_shape": [7, 8], "eps": 0.1}),
    ("group_norm.default", {"input": X, "num_groups": 3, "weight": t(6), "bias": t(6, seed=1)}),
    ("group_norm.default", {"input": SEQUENCE, "num_groups": 2}),
    ("instance_norm.default", {"input": X, "weight": t(6), "bias": t(6, seed=1), "running_mean": None,
        "running_var": None, "use_input_stats": True, "momentum": 0.1, "eps": 1e-5, "cudnn_enabled": False}),
    ("rms_norm.default", {"input": X, "normalized_shape": [8], "weight": t(8), "eps": 1e-6}),
    ("mean.dim", {"self": X, "dim": [2, 3]}),
    ("mean.dim", {"self": X, "dim": [-1, 1], "keepdim": True}),
    ("mean.dim", {"self": X, "dim": [2]}),
    ("sum.dim_IntList", {"self": X, "dim": [1]}),
    ("amax.default", {"self": X, "dim": [3], "keepdim": True}),
    ("amin.default", {"self": X, "dim": [1, 2]}),
    ("max.dim", {"self": X, "dim": 1}),
    ("max.default", {"self": X}),
    ("min.dim", {"self": X, "dim": -1, "keepdim": True}),
    ("var.correction", {"self": X, "dim": [1, 3], "correction": 0}),
    ("var.dim", {"self": X, "dim": [2], "unbiased": True, "keepdim": True}),
    ("std.correction", {"self": X, "dim": [0], "correction": 1}),
    ("linalg_vector_norm.default", {"self": X, "dim": [1], "keepdim": True}),
    ("linalg_vector_norm.default", {"self": X, "ord": 1, "dim": [-1]}),
    ("linalg_vector_norm.default", {"self": X, "ord": INF, "dim": [-1]}),
    ("prod.dim_int", {"self": MATRIX, "dim": 1}),
    ("argmax.default", {"self": X, "dim": 1}),
    ("cumsum.default", {"self": X, "dim": 2}),
    ("logsumexp.default", {"self": X, "dim": [1, 2]}),
    ("softmax.int", {"self": X, "dim": 1}),
    ("log_softmax.int", {"self": X, "dim": -1}),
    ("linear.default", {"input": X, "weight": t(5, 8), "bias": t(5)}),
    ("linear.default", {"input": MATRIX, "weight": t(4, 5)}),
    ("matmul.default", {"self": t(2, 3, 4, 5), "other": t(2, 3, 5, 6)}),
    ("matmul.default", {"self": t(2, 3, 4, 5), "other": t(5)}),
    ("bmm.default", {"self": t(3, 4, 5), "mat2": t(3, 5, 2)}),
    ("mm.default", {"self": t(4, 5), "mat2": t(5, 2)}),
    ("addmm.default", {"self": t(4), "mat1": t(3, 5), "mat2": t(5, 4), "beta": 0.5, "alpha": 2}),
    ("baddbmm.default", {"self": t(2, 3, 4), "batch1": t(2, 3, 5), "batch2": t(2, 5, 4), "alpha": 2}),
    ("einsum.default", {"equation": "bchw,cd->bdhw", "tensors": [X, t(6, 3)]}),
    ("scaled_dot_product_attention.default", {"query": t(2, 2, 5, 4), "key": t(2, 2, 6, 4),
        "value": t(2, 2, 6, 3), "attn_mask": t(5, 6)}),
    ("scaled_dot_product_attention.default", {"query": t(2, 2, 5, 4), "key": t(2, 2, 6, 4),
        "value": t(2, 2, 6, 3), "attn_mask": np.tri(5, 6) > 0, "scale": 0.3}),
    ("scaled_dot_product_attention.default", {"query": t(2, 2, 5, 4), "key": t(2, 2, 5, 4, seed=1),
        "value": t(2, 2, 5, 3), "is_causal": True}),
    ("embedding.default", {"weight": MATRIX, "indices": np.array([[2, 0], [1, 1]])}),
    ("view.default", {"self": X, "size": [2, 3, -1, 8]}),
    ("flatten.using_ints", {"self": X, "start_dim": 1}),
    ("flatten.using_ints", {"self": X, "start_dim": -2}),
    ("unflatten.int", {"self": X, "dim": 1, "sizes": [2, -1]}),
    ("permute.default", {"self": X, "dims": [0, 2, 3, 1]}),
    ("permute.default", {"self": X, "dims": [0, 3, 1, 2]}),
    ("transpose.int", {"self": X, "dim0": 1, "dim1": -1}),
    ("t.default", {"self": MATRIX}),
    ("unsqueeze.default", {"self": X, "dim": -2}),
    ("squeeze.dim", {"self": t(2, 1, 3), "dim": 1}),
    ("squeeze.default", {"self": t(2, 1, 3, 1)}),
    ("squeeze.dims", {"self": t(2, 1, 3, 1), "dim": [1, 2, 3]}),
    ("expand.default", {"self": t(2, 1, 5), "size": [2, 4, -1]}),
    ("expand.default", {"self": t(1, 5), "size": [3, 4, 5]}),
    ("expand_as.default", {"self": t(2, 6, 1, 1), "other": X}),
    ("repeat.default", {"self": MATRIX, "repeats": [2, 1, 3]}),
    ("repeat_interleave.self_int", {"self": X, "repeats": 2, "dim": 1}),
    ("cat.default", {"tensors": [X, t(2, 3, 7, 8)], "dim": 1}),
    ("cat.default", {"tensors": [X, t(2, 6, 7, 3)], "dim": -1}),
    ("stack.default", {"tensors": [X, t(*IMAGES, seed=1)], "dim": 2}),
    ("slice.Tensor", {"self": X, "dim": 1, "start": 1, "end": 5, "step": 2}),
    ("slice.Tensor", {"self": X, "dim": 3, "start": -3, "end": 9223372036854775807}),
    ("select.int", {"self": X, "dim": 1, "index": -1}),
    ("chunk.default", {"self": X, "chunks": 4, "dim": 1}),
    ("split.Tensor", {"self": X, "split_size": 4, "dim": 1}),
    ("split_with_sizes.default", {"self": X, "split_sizes": [1, 5], "dim": 1}),
    ("unbind.int", {"self": X, "dim": 1}),
    ("index.Tensor", {"self": X, "indices": [None, np.array([0, 2, 2])]}),
    ("index.Tensor", {"self": MATRIX, "indices": [np.array([[0], [2]]), np.array([1, 3])]}),
    ("index_select.default", {"self": X, "dim": 1, "index": np.array([3, 0])}),
    ("gather.default", {"self": MATRIX, "dim": 1, "index": np.array([[0, 4], [1, 1], [2, 3]])}),
    ("roll.default", {"self": X, "shifts": [-1, 2], "dims": [2, 3]}),
    ("flip.default", {"self": X, "dims": [1, -1]}),
    ("pad.default", {"self": X, "pad": [1, 2, 0, 3], "value": 0.5}),
    ("pad.default", {"self": X, "pad": [1, -1], "value": None}),
    ("pad.default", {"self": X, "pad": [1, 2, 3, 0], "mode": "reflect"}),
    ("pad.default", {"self": X, "pad": [1, 2, 3, 0], "mode": "replicate"}),
    ("pad.default", {"self": X, "pad": [1, 2, 3, 0], "mode": "circular"}),
    ("constant_pad_nd.default", {"self": X, "pad": [0, 0, 0, 0, 1, 2]}),
    ("pixel_shuffle.default", {"self": t(2, 8, 3, 4), "upscale_factor": 2}),
    ("pixel_unshuffle.default", {"self": t(2, 2, 4, 6), "downscale_factor": 2}),
    ("channel_shuffle.default", {"self": X, "groups": 3}),
    ("unfold.default", {"self": X, "dimension": 2, "size": 3, "step": 2}),
    ("movedim.int", {"self": X, "source": 1, "destination": -1}),
    ("tril.default", {"self": MATRIX, "diagonal": 1}),
    ("type_as.default", {"self": np.arange(4), "other": MATRIX}),
    ("to.dtype", {"self": X, "dtype": Dtype(5)}),
    ("to.dtype", {"self": np.arange(4), "dtype": Dtype(7)}),
    ("arange.start_step", {"start": 1, "end": 8, "step": 2}),
    ("arange.default", {"end": 4, "dtype": Dtype(7)}),
    ("linspace.default", {"start": -1, "end": 1, "steps": 5}),
    ("full.default", {"size": [2, 3], "fill_value": 1.5}),
    ("zeros.default", {"size": [2, 3]}),
    ("new_zeros.default", {"self": X, "size": [2, 3]}),
    ("eye.default", {"n": 3}),
    ("outer.default", {"self": t(3), "vec2": t(4)}),
]  # fmt: skip


def ours(name, arguments, *, last):
    """The results as a list of arrays in PyTorch's order; `last`: images are stored channels last."""

    def value(v):
        if isinstance(v, np.ndarray | jax.Array):
            images = last and v.ndim == 4
            v = jnp.asarray(v)
            return Value(v.transpose(0, 2, 3, 1) if images else v, images)
        if isinstance(v, list):
            return tuple(map(value, v))
        return v

    operator = OPERATORS["aten." + functional(name.partition(".")[0])]
    found = operator(Call(), {n: value(v) for n, v in arguments.items()})
    found = found if isinstance(found, tuple) else (found,)
    return [v.plain() for v in found if isinstance(v, Value)]


def theirs(name, arguments):
    def value(v):
        if isinstance(v, np.ndarray):
            return torch.from_numpy(v.copy()).requires_grad_(v is floating(arguments))
        if isinstance(v, list):
            return [value(one) for one in v]
        if isinstance(v, Dtype):
            return {5: torch.int64, 7: torch.float32}[v.code]
        return v

    base, overload = name.split(".")
    given = {n: value(v) for n, v in arguments.items()}
    first = next((v for v in given.values() if getattr(v, "requires_grad", False)), None)
    given = {n: v.clone() if v is first and first is not None else v for n, v in given.items()}
    found = getattr(getattr(torch.ops.aten, base), overload)(**given)
    found = found if isinstance(found, tuple | list) else (found,)
    gradient = None
    if first is not None and found[0].requires_grad:
        (gradient,) = torch.autograd.grad(objective(torch, found[0]), first, allow_unused=True)
    return [v.detach().numpy() for v in found], gradient


def floating(arguments):
    """The first array of real numbers, by which results are differentiated."""
    return next(
        (v for v in arguments.values() if isinstance(v, np.ndarray) and v.dtype == np.float32), None
    )


def objective(library, y):
    weights = np.linspace(0.5, 1.5, int(np.prod(y.shape)), dtype=np.float32).reshape(y.shape)
    finite = library.where(abs(y) < INF, y, library.zeros_like(y))
    return (finite * (torch.from_numpy(weights) if library is torch else weights)).sum()


@pytest.mark.parametrize(("name", "arguments"), CASES, ids=[name for name, _ in CASES])
def test_as_in_pytorch(name, arguments):
    expected, gradient = theirs(name, arguments)
    images = any(getattr(v, "ndim", 0) == 4 for v in arguments.values())
    x = floating(arguments)
    place = next((n for n, v in arguments.items() if v is x), "")

    def of(x, *, last):
        return ours(name, arguments if x is None else {**arguments, place: x}, last=last)

    for last in (True, False) if images else (False,):
        found = jax.jit(partial(of, last=last))(x)  # one program, not one for each step
        for one, other in zip(found, expected, strict=False):
            assert one.shape == other.shape
            assert np.issubdtype(one.dtype, np.floating) == np.issubdtype(other.dtype, np.floating)
            np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-5)
    if x is None or not jnp.issubdtype(found[0].dtype, jnp.floating):
        return
    own = jax.jit(jax.grad(lambda x: objective(jnp, of(x, last=images)[0])))(x)
    wanted = np.zeros_like(x) if gradient is None else gradient.numpy()
    np.testing.assert_allclose(own, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["relu", "relu6", "hardtanh", "hardswish", "hardsigmoid", "clamp"])
def test_gradients_at_kinks(name):
    x = np.array([-3.0, -1.0, 0.0, 1.0, 3.0, 6.0], np.float32)
    arguments = {"self": x, **({"min": -1.0, "max": 1.0} if name == "clamp" else {})}
    _, gradient = theirs(f"{name}.default", arguments)

    def of(x):
        return objective(jnp, ours(name, {**arguments, "self": x}, last=False)[0])

    np.testing.assert_allclose(jax.grad(of)(x), gradient.numpy(), atol=1e-6)


def test_dropout_only_in_training():
    x = Value(jnp.ones((2, 50, 60, 8)), channels_last=True)
    arguments = {"input": x, "p": 0.25, "train": False}
    assert OPERATORS["aten.dropout"](Call(), arguments) is x
    training = Call(training=True, key=jax.random.key(0))
    y = OPERATORS["aten.dropout"](training, arguments).array
    assert abs(float((y == 0).mean()) - 0.25) < 0.01
    assert set(np.unique(y)) == {0, np.float32(1 / 0.75)}
    y = OPERATORS["aten.feature_dropout"](training, arguments).array
    assert (y == y[:, :1, :1]).all()
    assert (y == 0).any()
    other = Call(training=True, key=jax.random.key(0), index=1)
    assert (OPERATORS["aten.dropout"](other, arguments).array != 0).any()


def test_batch_norm_in_training():
    """Running statistics as in PyTorch, with its unbiased variance."""
    mean, var = t(6), t(6, low=1)
    arguments = {"input": X, "weight": t(6), "bias": t(6, seed=1), "running_mean": mean,
        "running_var": var, "training": True, "momentum": 0.3, "eps": 1e-3, "cudnn_enabled": False}  # fmt: skip
    given = {n: torch.tensor(v) if isinstance(v, np.ndarray) else v for n, v in arguments.items()}
    expected = torch.ops.aten.batch_norm.default(**given)
    values = {
        n: Value(jnp.asarray(v)) if isinstance(v, np.ndarray) else v for n, v in arguments.items()
    }
    y, new_mean, new_var = OPERATORS["aten.batch_norm"](Call(training=True), values)
    np.testing.assert_allclose(y.plain(), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(new_mean.array, given["running_mean"], rtol=1e-5)
    np.testing.assert_allclose(new_var.array, given["running_var"], rtol=1e-5)
