"""Finds the permutations that leave a network's function unchanged, from its forward pass.

The pass is traced once, and every axis of every array is followed: an addition ties the axes of its
operands, a matrix product the axes that it contracts, a convolution the channel axes. Axes of images
and logits are fixed, and so are axes that go through an operation without a rule here; such
operations can only reduce the number of permutations found, not make them wrong.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from mcjax.alignment.factors import Axis, axis, fix, leaves, regroup, tie
from mcjax.alignment.permutation import PermutationSpec, Tap
from mcjax.core.errors import Unsuitable
from mcjax.core.foreign import refuse_torch
from mcjax.core.tree import PyTree, by_name

Axes = list[Axis]
Rule = Callable[[Any, list[Axes]], list[Axes]]


def permutation_spec(
    apply_fn: Callable[[PyTree, jax.Array], jax.Array],
    variables: PyTree,
    image_shape: Sequence[int],
) -> PermutationSpec:
    """Finds which axes of a network's variables can be permuted together.

    Swapping two hidden channels in the layer that computes them, its normalisation and the layers
    that read them does not change the logits. Channels of layers whose outputs are added, as in a
    residual stream, must be permuted together.

    Args:
        apply_fn: `apply_fn(variables, x) -> logits`, in evaluation mode; traced, not executed.
        variables: Arrays or their shapes.
        image_shape: (height, width, channels) of one image.

    Returns:
        The classes of axes, in the order of their first leaf.

    Raises:
        Unsuitable: No hidden channels are known to be interchangeable.

    Example:
        >>> spec = permutation_spec(
        ...     lambda v, x: jax.nn.relu(x.reshape(len(x), -1) @ v["in"]) @ v["out"],
        ...     {"in": jnp.zeros([4, 8]), "out": jnp.zeros([8, 3])},
        ...     (2, 2, 1),
        ... )
        >>> spec.sizes, spec.members(0)
        ((8,), {'in': (1,), 'out': (0,)})
    """
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    refuse_torch("apply_fn", apply_fn)
    traced = jax.make_jaxpr(apply_fn)(variables, images)
    inputs = [_new(_shape(v)) for v in traced.jaxpr.invars]
    unknown: dict[str, None] = {}
    products: list[Axes] = []
    logits = _follow(traced, inputs, unknown, products)
    for array in (inputs[-1], *logits):
        _fix(array)

    classes: dict[int, int] = {}
    sizes: list[int] = []
    axes = {}
    for path, array in zip(by_name(variables), inputs[:-1], strict=True):
        described = []
        for one in array:
            factors: list[tuple[int, int | None]] = []
            for factor in leaves(one):
                if not factor.fixed and id(factor) not in classes:
                    classes[id(factor)] = len(sizes)
                    sizes.append(factor.size)
                factors.append((factor.size, classes.get(id(factor))))
            described.append(tuple(factors))
        axes[path] = tuple(described)
    if not sizes:
        why = f": it uses {', '.join(unknown)}, which have no rule" if unknown else ""
        raise Unsuitable(f"this network has no channels that can be permuted{why}")
    taps: list[Tap | None] = [None] * len(sizes)
    for place, array in enumerate(products):
        for i, one in enumerate(array):
            found = [classes.get(id(factor)) for factor in leaves(one)]
            if len(found) == 1 and found[0] is not None and taps[found[0]] is None:
                taps[found[0]] = Tap(place, i)
    return PermutationSpec(tuple(sizes), axes, tuple(unknown), tuple(taps))


def _new(shape: Sequence[int], *, fixed: bool = False) -> Axes:
    return [axis(n, fixed=fixed) for n in shape]


def _fix(array: Axes) -> None:
    for one in array:
        fix(one)


def _follow(
    closed: Any, inputs: list[Axes], unknown: dict[str, None], products: list[Axes]
) -> list[Axes]:
    """The axes of a jaxpr's results, given those of its arguments.

    `unknown` collects operations without a rule, and `products` the axes of the outputs of
    convolutions and matrix products.
    """
    jaxpr = getattr(closed, "jaxpr", closed)
    known: dict[Any, Axes] = dict(zip(jaxpr.invars, inputs, strict=True))
    # A constant array may be different for each channel.
    known |= {v: _new(_shape(v), fixed=True) for v in jaxpr.constvars}

    def axes_of(v: Any) -> Axes:
        return _new(_shape(v), fixed=True) if isinstance(v, Literal) else known[v]

    for equation in jaxpr.eqns:
        operands, name = [axes_of(v) for v in equation.invars], equation.primitive.name
        if (inner := inner_jaxpr(equation)) is not None:
            results = _follow(inner, operands, unknown, products)
        elif name in _RULES:
            results = _RULES[name](equation, operands)
        else:
            unknown[name] = None
            results = _leave_alone(equation, operands)
        if name in PRODUCTS:
            products.append(results[0])
        known.update(zip(equation.outvars, results, strict=True))
    return [axes_of(v) for v in jaxpr.outvars]


# Primitives that call another jaxpr, and the parameter that holds it.
_CALLS = """
    jit pjit closed_call core_call checkpoint remat2
    custom_jvp_call custom_vjp_call custom_vjp_call_jaxpr
"""
_INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr")

PRODUCTS = ("conv_general_dilated", "dot_general")
"""Primitives whose outputs can be taps."""


def inner_jaxpr(equation: Any) -> Any:
    """The jaxpr that an equation calls; None if it computes something itself."""
    if equation.primitive.name not in _CALLS.split():
        return None
    return next(equation.params[p] for p in _INNER if p in equation.params)


def _shape(v: Any) -> tuple[int, ...]:
    return v.aval.shape


def _leave_alone(equation: Any, operands: list[Axes]) -> list[Axes]:
    for array in operands:
        _fix(array)
    return [_new(_shape(v), fixed=True) for v in equation.outvars]


def _elementwise(equation: Any, operands: list[Axes]) -> list[Axes]:
    """Ties axes of equal length; axes of length 1 and scalars are broadcast."""
    shape = _shape(equation.outvars[0])
    result = _new(shape)
    for array in operands:
        if array:
            for one, other in zip(result, array, strict=True):
                if other:
                    tie(one, other)
    return [result for _ in equation.outvars]


def _broadcast(equation: Any, operands: list[Axes]) -> list[Axes]:
    result = _new(_shape(equation.outvars[0]))
    places = equation.params["broadcast_dimensions"]
    for place, one in zip(places, operands[0], strict=True):
        if one:
            result[place] = one
    return [result]


def _reshape(equation: Any, operands: list[Axes]) -> list[Axes]:
    axes = regroup([factor for one in operands[0] for factor in one], _shape(equation.outvars[0]))
    return _leave_alone(equation, operands) if axes is None else [axes]


def _squeeze(equation: Any, operands: list[Axes]) -> list[Axes]:
    gone = equation.params["dimensions"]
    return [[one for i, one in enumerate(operands[0]) if i not in gone]]


def _transpose(equation: Any, operands: list[Axes]) -> list[Axes]:
    return [[operands[0][i] for i in equation.params["permutation"]]]


def _reduce(equation: Any, operands: list[Axes]) -> list[Axes]:
    """A sum or a maximum does not depend on the order of the reduced elements."""
    gone = equation.params["axes"]
    return [[one for i, one in enumerate(operands[0]) if i not in gone]]


def _dot(equation: Any, operands: list[Axes]) -> list[Axes]:
    (summed, batched), (a, b) = equation.params["dimension_numbers"], operands
    for i, j in (*zip(*summed, strict=True), *zip(*batched, strict=True)):
        tie(a[i], b[j])
    rest = [
        [one for i, one in enumerate(array) if i not in (*summed[side], *batched[side])]
        for side, array in enumerate((a, b))
    ]
    return [[*(a[i] for i in batched[0]), *rest[0], *rest[1]]]


def _convolution(equation: Any, operands: list[Axes]) -> list[Axes]:
    """Ties contracted channels; spatial axes and grouped channels are fixed.

    In a depthwise convolution each channel has its own filter: the two are permuted together.
    """
    numbers, (x, kernel) = equation.params["dimension_numbers"], operands
    (n, c, *pixels), (o, i, *taps), out = numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec
    groups = equation.params["feature_group_count"]
    channels, filters = (_shape(v)[d] for v, d in zip(equation.invars, (c, o), strict=True))
    depthwise = groups == channels == filters > 1
    if (groups > 1 and not depthwise) or equation.params["batch_group_count"] > 1:
        return _leave_alone(equation, operands)
    tie(x[c], kernel[o] if depthwise else kernel[i])
    for array, places in ((x, pixels), (kernel, taps)):
        for place in places:
            fix(array[place])
    result = _new(_shape(equation.outvars[0]), fixed=True)
    result[out[0]], result[out[1]] = x[n], kernel[o]
    return [result]


def _window(equation: Any, operands: list[Axes]) -> list[Axes]:
    """Axes with a window size of 1 pass through; the others are fixed."""
    p = equation.params
    return _some_through(
        equation,
        operands,
        [
            settings == (1, 1, (0, 0), 1, 1)
            for settings in zip(
                p["window_dimensions"],
                p["window_strides"],
                map(tuple, p["padding"]),
                p.get("base_dilation") or (1,) * len(p["padding"]),
                p.get("window_dilation") or (1,) * len(p["padding"]),
                strict=True,
            )
        ],
    )


def _pad(equation: Any, operands: list[Axes]) -> list[Axes]:
    through = [tuple(c) == (0, 0, 0) for c in equation.params["padding_config"]]
    return _some_through(equation, operands, through)


def _slice(equation: Any, operands: list[Axes]) -> list[Axes]:
    before, after = (_shape(v) for v in (equation.invars[0], equation.outvars[0]))
    return _some_through(equation, operands, [m == n for m, n in zip(before, after, strict=True)])


def _concatenate(equation: Any, operands: list[Axes]) -> list[Axes]:
    along = equation.params["dimension"]
    for array in operands:
        fix(array[along])
        for place, one in enumerate(array):
            if place != along:
                tie(operands[0][place], one)
    result = list(operands[0])
    result[along] = axis(_shape(equation.outvars[0])[along], fixed=True)
    return [result]


def _some_through(equation: Any, operands: list[Axes], through: list[bool]) -> list[Axes]:
    """The first operand's axes: some pass through, the others are fixed."""
    result = []
    for one, n, passes in zip(operands[0], _shape(equation.outvars[0]), through, strict=True):
        if not passes:
            fix(one)
        result.append(one if passes else axis(n, fixed=True))
    return [result]


_ELEMENTWISE = """
    abs add and cbrt ceil clamp convert_element_type copy copy_p cos cosh div eq erf erf_inv erfc exp
    exp2 expm1 floor ge gt integer_pow is_finite le log log1p logistic lt max min mul ne neg not or
    pow reduce_precision rem round rsqrt select_n sign sin sinh sqrt square stop_gradient sub tan
    tanh xor
"""

_RULES: dict[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE.split(), _elementwise),
    **dict.fromkeys(
        ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or"),
        _reduce,
    ),
    **dict.fromkeys(("reduce_window", "reduce_window_max", "reduce_window_sum"), _window),
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "dot_general": _dot,
    "pad": _pad,
    "reshape": _reshape,
    "slice": _slice,
    "squeeze": _squeeze,
    "transpose": _transpose,
}
