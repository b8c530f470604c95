"""Batch, layer, group, instance and RMS normalisation."""

import math
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from mcjax.interop.exported.call import Call
from mcjax.interop.exported.operators.kinds import array, plain, with_call
from mcjax.interop.exported.values import Value
from mcjax.models.batch_norm import batch_mean, batch_variance, scaled

CUMULATIVE = 0.1
"""The momentum of a BatchNorm with momentum=None, a cumulative average, whose program says 0."""


def batch_norm(
    call: Call,
    input: Value,
    weight=None,
    bias=None,
    running_mean=None,
    running_var=None,
    training=False,
    momentum=0.1,
    eps=1e-5,
    cudnn_enabled=False,
) -> tuple[Value, Any, Any]:
    """Normalises each channel by running statistics, in training mode by those of the batch.

        y = weight * (x - mean) / sqrt(var + eps) + bias
        running <- (1 - momentum) * running + momentum * batch

    The running variance takes the unbiased variance of the batch. Without running statistics those
    of the batch are used in evaluation mode, too.

    Returns:
        The result and the new running mean and variance.
    """
    mean, var = (array(v) for v in (running_mean, running_var))
    x, last = (input.array, True) if input.channels_last else (input.plain(), input.ndim == 2)
    axes = tuple(i for i in range(x.ndim) if i != (x.ndim - 1 if last else 1))
    shape = [1] * x.ndim
    shape[-1 if last else 1] = -1
    new_mean, new_var, own = mean, var, None
    if call.training or mean is None:
        x32 = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        own = batch_mean(x32, axes)
        spread = batch_variance(x32, own.reshape(shape), axes)
        if mean is not None:
            n = math.prod(x.shape[i] for i in axes)
            # Affine in the old statistics, on which mcjax.curves.batch_stats relies.
            add = momentum or CUMULATIVE
            new_mean = (1 - add) * mean + add * own
            new_var = (1 - add) * var + add * (n / max(n - 1, 1)) * spread
        mean, var = own, spread
    scale = lax.rsqrt(var + eps)
    scale = scale if weight is None else array(weight) * scale
    shift = jnp.zeros_like(scale) if bias is None else array(bias)
    scale_fn = scaled if mean is own else scaled.fun  # running statistics have no gradient
    y = scale_fn(x, *(v.reshape(shape) for v in (mean, scale, shift)))
    return Value(y.astype(x.dtype), input.channels_last), new_mean, new_var


def layer_norm(
    input, normalized_shape, weight=None, bias=None, eps=1e-5, cudnn_enable=False
) -> Array:
    """Normalises the last axes of each example."""
    axes = tuple(range(-len(normalized_shape), 0))
    y = _normalised(input, axes, eps or 1e-5)
    lead = (1,) * (input.ndim - len(normalized_shape))
    y = y if weight is None else y * weight.reshape(lead + weight.shape)
    return y if bias is None else y + bias.reshape(lead + bias.shape)


def group_norm(input: Value, num_groups, weight=None, bias=None, eps=1e-5, **_: Any) -> Value:
    """Normalises each group of channels of each example."""
    if input.channels_last:
        x = input.array
        grouped = x.reshape(*x.shape[:3], num_groups, -1)
        y = _normalised(grouped, (1, 2, 4), eps).reshape(x.shape)
        shape: tuple[int, ...] = (1, 1, 1, -1)
    else:
        x = input.plain()
        grouped = x.reshape(x.shape[0], num_groups, -1)
        y = _normalised(grouped, (2,), eps).reshape(x.shape)
        shape = (1, -1) + (1,) * (x.ndim - 2)
    y = y if weight is None else y * array(weight).reshape(shape)
    y = y if bias is None else y + array(bias).reshape(shape)
    return Value(y, input.channels_last)


def instance_norm(
    call: Call, input: Value, weight=None, bias=None, running_mean=None, running_var=None,
    use_input_stats=True, momentum=0.1, eps=1e-5, cudnn_enabled=False,
) -> Value:  # fmt: skip
    """Normalises each channel of each example."""
    if running_mean is not None:
        raise ValueError("instance_norm with running statistics has no rule; use batch_norm")
    return group_norm(input, input.shape[1], weight, bias, eps)


def rms_norm(input, normalized_shape, weight=None, eps=None) -> Array:
    """Divides the last axes of each example by their root mean square."""
    axes = tuple(range(-len(normalized_shape), 0))
    eps = jnp.finfo(input.dtype).eps if eps is None else eps
    y = input * lax.rsqrt(jnp.square(input).mean(axes, keepdims=True) + eps)
    lead = (1,) * (input.ndim - len(normalized_shape))
    return y if weight is None else y * weight.reshape(lead + weight.shape)


def _normalised(x: Array, axes: tuple[int, ...], eps: float) -> Array:
    centred = x - x.mean(axes, keepdims=True)
    return centred * lax.rsqrt(jnp.square(centred).mean(axes, keepdims=True) + eps)


def _in_evaluation(
    call, input, weight, bias, running_mean, running_var, momentum=0.1, eps=1e-5
) -> Any:
    y, mean, var = batch_norm(
        call, input, weight, bias, running_mean, running_var, momentum=momentum, eps=eps
    )
    return y, mean, var


def _native_layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5) -> Any:
    return layer_norm(input, normalized_shape, weight, bias, eps), None, None


def _native_group_norm(call, input, weight, bias, N, C, HxW, group, eps) -> Any:
    return group_norm(input, group, weight, bias, eps), None, None


OPERATORS = {
    "aten.batch_norm": with_call(batch_norm),
    "aten._native_batch_norm_legit_no_training": with_call(_in_evaluation),
    "aten.layer_norm": plain(layer_norm),
    "aten.native_layer_norm": plain(_native_layer_norm),
    "aten.group_norm": with_call(lambda call, input, *a, **k: group_norm(input, *a, **k)),
    "aten.native_group_norm": with_call(_native_group_norm),
    "aten.instance_norm": with_call(instance_norm),
    "aten.rms_norm": plain(rms_norm),
}
UPDATES = ("aten.batch_norm", "aten._native_batch_norm_legit_no_training")
"""Operators that return new running statistics after their result."""
