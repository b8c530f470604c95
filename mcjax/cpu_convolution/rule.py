"""The lowering rule for convolutions, and the forms that it recognises.

When a program is lowered, differentiation and batching have turned each convolution of a network into
one of a few forms:

* forward: the batch comes before the channels in memory;
* d/dx: the same, with reversed weights, and the stride becomes lhs_dilation;
* d/dw: channels and batch are swapped, stride and rhs_dilation exchanged;
* vmap over weights and images: n groups of features (or, after differentiation, of the batch).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.interpreters import mlir

from mcjax.cpu_convolution import blocked, build, choice, dilated, direct
from mcjax.cpu_convolution.hook import CONVOLUTION, ORIGINAL


def with_direct(ctx: mlir.LoweringRuleContext, lhs: Any, rhs: Any, **params: Any) -> Any:
    """The rule with compiled direct convolutions, where they can be had."""
    return _rule(ctx, lhs, rhs, compiled=build.load(), **params)


def in_jax(ctx: mlir.LoweringRuleContext, lhs: Any, rhs: Any, **params: Any) -> Any:
    """The rule without them."""
    return _rule(ctx, lhs, rhs, compiled=False, **params)


def _rule(
    ctx: mlir.LoweringRuleContext, lhs: Any, rhs: Any, *, compiled: bool, **params: Any
) -> Any:
    """Lowers one convolution by the fastest known method or by the original rule."""
    fn = recognise(*ctx.avals_in, compiled=compiled, **params)
    if fn is None or partitioned(ctx):
        return ORIGINAL[CONVOLUTION](ctx, lhs, rhs, **params)
    return mlir.lower_fun(fn, multiple_results=False)(ctx, lhs, rhs)


def partitioned(ctx: mlir.LoweringRuleContext) -> bool:
    """Whether XLA partitions the program, in which case blocks of a sharded batch would be gathered."""
    context = ctx.module_context.axis_context
    return isinstance(context, mlir.ShardingContext) and context.num_devices > 1


def recognise(x: Any, w: Any, *, compiled: bool = False, **params: Any) -> Any:
    """The function of (lhs, rhs) to lower instead, or None to leave it to the original rule.

    Args:
        x: Shape and type of the left operand.
        w: Those of the right one.
        compiled: Whether compiled direct convolutions are there.
        **params: Of `lax.conv_general_dilated_p`.
    """
    if x.dtype == w.dtype == jnp.bfloat16:
        return _of_halves(x, w, compiled=compiled, **params)
    spec = params["dimension_numbers"]
    stride, rhs_dilation = params["window_strides"], params["rhs_dilation"]
    lhs_dilation = params["lhs_dilation"]
    groups = params["feature_group_count"], params["batch_group_count"]
    plain = (1, 1)
    depthwise = max(groups) > 1 and w.shape[spec.rhs_spec[0]] == max(groups)
    if not (
        x.dtype == w.dtype == jnp.float32
        and len(x.shape) == len(w.shape) == 4
        and params["preferred_element_type"] in (None, jnp.float32)
        and not (depthwise and not compiled)
        and all(isinstance(n, int) and n > 0 for n in (*x.shape, *w.shape))
    ):
        return None
    if spec.lhs_spec[0] > spec.lhs_spec[1]:
        if lhs_dilation != plain or plain not in (stride, rhs_dilation):
            return None
        one = partial(
            _weight_gradient,
            stride=rhs_dilation,
            dilation=stride,
            padding=params["padding"],
            compiled=compiled,
        )
        return partial(_weight_gradient_form, spec=spec, groups=groups, one=one, grouped=compiled)
    if (stride, lhs_dilation, rhs_dilation).count(plain) < 2:
        return None
    taps = tuple(w.shape[d] for d in spec.rhs_spec[2:])
    size = tuple(x.shape[d] for d in spec.lhs_spec[2:])
    out = blocked.output_size(
        size,
        taps,
        padding=params["padding"],
        stride=stride,
        dilation=rhs_dilation,
        spread=lhs_dilation,
    )
    if min(out) <= 0:
        return None
    one = partial(
        _forward,
        stride=stride,
        padding=params["padding"],
        spread=lhs_dilation,
        dilation=rhs_dilation,
        size=out,
        compiled=compiled,
    )
    canonical = tuple(map(tuple, spec)) == ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
    if (
        canonical
        and groups == lhs_dilation == rhs_dilation == plain
        and min(min(p) for p in params["padding"]) >= 0  # XLA reads out of bounds where negative
        and choice.forward_way(x.shape, w.shape, stride=stride, size=out, compiled=compiled)
        == "xla"
    ):
        return None  # also inside our methods that use XLA's convolution
    return partial(_forward_form, spec=spec, groups=groups, one=one, grouped=compiled)


def _of_halves(x: Any, w: Any, *, preferred_element_type: Any, **params: Any) -> Any:
    """The same for bfloat16: sums in float32, rounded at the end. XLA's own take the slow forms."""
    wider = [jax.ShapeDtypeStruct(one.shape, jnp.float32) for one in (x, w)]
    fn = recognise(*wider, preferred_element_type=jnp.float32, **params)
    result = preferred_element_type or jnp.bfloat16
    if fn is not None:
        return lambda lhs, rhs: fn(lhs, rhs).astype(result)
    params = {k: v for k, v in params.items() if k != "compiled"}

    def in_float32(lhs: Array, rhs: Array) -> Array:
        wide = lhs.astype(jnp.float32), rhs.astype(jnp.float32)
        y = CONVOLUTION.bind(*wide, preferred_element_type=jnp.float32, **params)
        return y.astype(result)

    return in_float32


def _forward_form(
    lhs: Array, rhs: Array, *, spec: Any, groups: tuple[int, int], one: Any, grouped: bool
) -> Array:
    """Converts any layout and grouping to NHWC images and HWIO weights, and back.

    Args:
        lhs: Images.
        rhs: Weights.
        spec: The layouts.
        groups: Of features and of the batch.
        one: (images, weights) -> outputs.
        grouped: Whether `one` takes groups of features; else it is called for each.
    """
    (n, c, *hw), (o, i, *khw), _ = spec
    x = lhs.transpose(n, *hw, c)
    w = rhs.transpose(*khw, i, o)
    features, batches = groups
    if features > 1 and grouped:
        y = one(x, w, groups=features)
    elif features > 1:
        xs, ws = _split(x, 3, features), _split(w, 3, features)
        y = _join(lax.map(lambda z: one(*z), (xs, ws)), 3)
    elif batches > 1:
        xs, ws = _split(x, 0, batches), _split(w, 3, batches)
        y = _join(lax.map(lambda z: one(*z), (xs, ws)), 3)
    else:
        y = one(x, w)
    return y.transpose(np.argsort(_nhwc(spec.out_spec)))


def _weight_gradient_form(
    lhs: Array, rhs: Array, *, spec: Any, groups: tuple[int, int], one: Any, grouped: bool
) -> Array:
    """The same for weight gradients, where the images' channels are the batch axis."""
    (c, n, *hw), (o, m, *ghw), _ = spec
    x = lhs.transpose(n, *hw, c)
    g = rhs.transpose(m, *ghw, o)
    features, batches = groups
    if features > 1:
        xs, gs = _split(x, 0, features), _split(g, 3, features)
        dw = _join(lax.map(lambda z: one(*z), (xs, gs)), 3)
    elif batches > 1 and grouped:
        dw = one(x, g, groups=batches)
    elif batches > 1:
        xs, gs = _split(x, 3, batches), _split(g, 3, batches)
        dw = _join(lax.map(lambda z: one(*z), (xs, gs)), 3)
    else:
        dw = one(x, g)
    out = spec.out_spec  # (i, o, kh, kw) of dw
    return dw.transpose(np.argsort((out[2], out[3], out[0], out[1])))


def _nhwc(spec: Any) -> tuple[int, ...]:
    n, c, h, w = spec
    return (n, h, w, c)


def _split(x: Array, axis: int, n: int) -> Array:
    """Splits an axis into n groups, and moves the groups to the front."""
    shape = (*x.shape[:axis], n, x.shape[axis] // n, *x.shape[axis + 1 :])
    return jnp.moveaxis(x.reshape(shape), axis, 0)


def _join(y: Array, axis: int) -> Array:
    """Inverts _split: the leading group axis becomes the major part of an axis."""
    y = jnp.moveaxis(y, 0, axis)
    return y.reshape(*y.shape[:axis], -1, *y.shape[axis + 2 :])


def _forward(
    x: Array,
    w: Array,
    *,
    stride: Any,
    padding: Any,
    spread: Any,
    dilation: Any,
    size: Any,
    compiled: bool,
    groups: int = 1,
) -> Array:
    """Of stride, spread (zeros between pixels) and dilation (between taps) only one is not (1, 1)."""
    product = partial(choice.forward, stride=stride, groups=groups, compiled=compiled)
    if dilation != (1, 1):
        if direct.depthwise((x.shape[3], w.shape[3]), groups):
            x, w = x.astype(jnp.float32), w.astype(jnp.float32)
            return direct.forward(
                x, w, stride=stride, padding=padding, groups=groups, dilation=dilation
            )
        return dilated.forward(x, w, dilation=dilation, padding=padding, product=product)
    if spread == (1, 1):
        return product(x, w, padding=padding)
    low = [p[0] for p in padding]
    return blocked.input_gradient_strided(
        x, w, dilation=spread, size=size, low=low, product=product
    )


def _weight_gradient(
    x: Array, g: Array, *, stride: Any, dilation: Any, padding: Any, compiled: bool, groups: int = 1
) -> Array:
    taps = tuple(
        (n + sum(p) - (m - 1) * s - 1) // d + 1
        for n, p, m, s, d in zip(x.shape[1:3], padding, g.shape[1:3], stride, dilation, strict=True)
    )
    product = partial(
        choice.weight_gradient, taps=taps, stride=stride, groups=groups, compiled=compiled
    )
    if dilation != (1, 1):
        if direct.depthwise((x.shape[3], g.shape[3]), groups):
            x, g = x.astype(jnp.float32), g.astype(jnp.float32)
            return direct.weight_gradient(
                x, g, taps=taps, stride=stride, padding=padding, groups=groups, dilation=dilation
            )
        return dilated.weight_gradient(
            x, g, taps=taps, dilation=dilation, padding=padding, product=product
        )
    return product(x, g, padding=padding)
