"""Networks as pure functions of their variables, the model interface of mcjax."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp

from mcjax.core.bound_functions import Bound, FewPrograms
from mcjax.core.errors import UserError, shown
from mcjax.core.foreign import refuse_torch
from mcjax.core.tree import PyTree
from mcjax.data.transforms import Normalisation

MOST_PARAMETERS = 10**11  # 400 GB


class Network(NamedTuple):
    """Pure functions of a classifier of images [B, H, W, C] in [0, 1].

    `variables` is a tree of arrays. Networks of `from_linen` have {"params": ...} and, with batch
    normalisation, {"params": ..., "batch_stats": ...}.

    Args:
        init: `init(key) -> variables`, a random initialisation.
        apply: `apply(variables, x) -> logits [B, num_classes]` in evaluation mode.
        apply_train: `apply_train(key, variables, x) -> (logits, batch_stats)` in training mode;
            the key is for dropout; batch_stats are the updated running statistics, or {}.
        has_batch_stats: Whether the network has running statistics.
        num_classes: Number of logits; None if unknown.
        piecewise_linear: Whether the logits are piecewise linear in the images (ReLU and
            max-pool), so that the input Hessian has a closed form.
        layer_outputs: `layer_outputs(variables, x) -> {path: output}` in evaluation mode, in call
            order; the path is the layer's in the parameters ("layer1_0/conv2"). None if the layers
            are not accessible.
    """

    init: Callable[[jax.Array], PyTree]
    apply: Callable[[PyTree, jax.Array], jax.Array]
    apply_train: Callable[[jax.Array, PyTree, jax.Array], tuple[jax.Array, PyTree]]
    has_batch_stats: bool = False
    num_classes: int | None = None
    piecewise_linear: bool = False
    layer_outputs: Callable[[PyTree, jax.Array], dict[str, jax.Array]] | None = None


def from_linen(module: nn.Module, image_shape: tuple[int, int, int]) -> Network:
    """Makes a network from a linen module that is called as `module(x, train=...)`.

    `piecewise_linear` is read from the module's attribute of that name (default False). Networks of
    equal modules are equal, so they share compiled programs.

    Args:
        module: The module, e.g. from `mcjax.models.create`.
        image_shape: (height, width, channels) of one image.

    Returns:
        The network.

    Raises:
        UserError: module is not a linen module, image_shape is not three positive integers, or the
            network has more parameters than fit in memory, or needs collections other than "params" and "batch_stats".

    Example:
        >>> from mcjax import models
        >>> network = from_linen(models.create("mlp", num_classes=10), (8, 8, 1))
        >>> variables = network.init(jax.random.key(0))
        >>> network.apply(variables, jnp.zeros([2, 8, 8, 1])).shape
        (2, 10)
    """
    refuse_torch("module", module)
    if not isinstance(module, nn.Module):
        raise UserError(
            f"module is {shown(module)}; give a linen module, or use from_apply for a function"
        )
    if len(image_shape) != 3 or not all(isinstance(n, int) and n > 0 for n in image_shape):
        raise UserError(f"image_shape is {shown(image_shape)}; give (height, width, channels)")

    init = Bound(_start_quickly, Bound(_init_linen, module, tuple(image_shape)))
    apply = Bound(_apply_linen, module)
    variables = jax.eval_shape(init, jax.random.key(0))
    size = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables))
    if size > MOST_PARAMETERS:
        raise UserError(
            f"the network has {size:.3g} parameters, more than {MOST_PARAMETERS:g}; give smaller "
            "widths or images"
        )
    known = {name: v for name, v in variables.items() if name in ("params", "batch_stats")}
    try:
        logits = jax.eval_shape(apply, known, jnp.zeros([1, *image_shape]))
    except flax.errors.FlaxError:
        if len(known) == len(variables):
            raise
        raise UserError(
            f"the network needs the collections {', '.join(sorted(variables))}; mcjax supports params "
            "and batch_stats only, as others cannot be interpolated between two networks"
        ) from None
    return Network(
        init=init,
        apply=apply,
        apply_train=Bound(_apply_linen_train, module),
        has_batch_stats="batch_stats" in variables,
        num_classes=logits.shape[-1],
        piecewise_linear=getattr(module, "piecewise_linear", False),
        layer_outputs=Bound(_linen_layer_outputs, module),
    )


def _init_linen(module: nn.Module, image_shape: tuple[int, int, int], key: jax.Array) -> PyTree:
    return module.init(key, jnp.zeros([1, *image_shape]), train=False)


def _apply_linen(module: nn.Module, variables: PyTree, x: jax.Array) -> jax.Array:
    return cast(jax.Array, module.apply(variables, x, train=False))


def _apply_linen_train(
    module: nn.Module, key: jax.Array, variables: PyTree, x: jax.Array
) -> tuple[jax.Array, PyTree]:
    logits, updates = module.apply(
        variables, x, train=True, rngs={"dropout": key}, mutable=["batch_stats"]
    )
    return logits, updates.get("batch_stats", {})


def _linen_layer_outputs(
    module: nn.Module, variables: PyTree, x: jax.Array
) -> dict[str, jax.Array]:
    outputs: dict[str, jax.Array] = {}

    def record(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        output = call(*args, **kwargs)
        if context.method_name == "__call__" and context.module.path:
            outputs["/".join(context.module.path)] = output
        return output

    with nn.intercept_methods(record):
        module.apply(variables, x, train=False)
    return outputs


def from_apply(
    apply: Callable[[PyTree, jax.Array], jax.Array],
    *,
    init: Callable[[jax.Array], PyTree] | None = None,
    num_classes: int | None = None,
    piecewise_linear: bool = False,
) -> Network:
    """Makes a network from a forward pass: Flax NNX, Haiku, Equinox or a plain function.

    Training mode equals evaluation mode. For dropout or running statistics, create a `Network` with
    an `apply_train` directly.

    Args:
        apply: `apply(variables, x) -> logits [B, num_classes]`; variables may be any tree.
        init: `init(key) -> variables`; needed only for random initialisations.
        num_classes: Number of logits.
        piecewise_linear: Whether the logits are piecewise linear in x; not checked.

    Returns:
        The network.

    Raises:
        UserError: apply is a PyTorch module.

    Example:
        >>> network = from_apply(lambda w, x: x.reshape(len(x), -1) @ w)
        >>> network.apply(jnp.ones([4, 3]), jnp.ones([5, 2, 2, 1])).shape
        (5, 3)
    """
    refuse_torch("apply", apply)
    return Network(
        init=init or _no_init,
        apply=apply,
        apply_train=Bound(_apply_as_in_evaluation, apply),
        num_classes=num_classes,
        piecewise_linear=piecewise_linear,
    )


def _no_init(key: jax.Array) -> Any:
    raise UserError("this network has no init function; pass init to from_apply")


def _apply_as_in_evaluation(
    apply: Callable[[PyTree, jax.Array], jax.Array], key: jax.Array, variables: PyTree, x: jax.Array
) -> tuple[jax.Array, PyTree]:
    return apply(variables, x), {}


def normalised(network: Network, mean: Sequence[float], std: Sequence[float]) -> Network:
    """Adds input normalisation to a network that was trained on (image - mean) / std.

    The variables do not change, and attacks still work on images in [0, 1].

    Args:
        network: Any network.
        mean: Per channel, [C].
        std: Per channel, [C], positive.

    Returns:
        The network applied to (x - mean) / std.

    Raises:
        UserError: mean and std differ in length, or a std is not positive.

    Example:
        >>> network = normalised(from_apply(lambda w, x: x[:, 0, 0]), [0.5], [0.25])
        >>> network.apply({}, jnp.ones([1, 1, 1, 1]))
        Array([[2.]], dtype=float32)
    """
    if len(mean) != len(std) or not all(s > 0 for s in std):
        raise UserError(
            f"normalisation by mean {mean} and std {std}; give one mean and one positive std per channel"
        )

    def on_scaled(fn: Callable[..., Any]) -> Bound:
        return Bound(_on_scaled, fn, tuple(mean), tuple(std))

    return network._replace(
        apply=on_scaled(network.apply),
        apply_train=on_scaled(network.apply_train),
        layer_outputs=network.layer_outputs and on_scaled(network.layer_outputs),
    )


def normalisation_of(network: Network) -> Normalisation | None:
    """What a network of `normalised` does to images; None for other networks.

    Example:
        >>> plain = from_apply(lambda w, x: x[:, 0, 0])
        >>> normalisation_of(plain), str(normalisation_of(normalised(plain, [0.5], [0.25])))
        (None, '0.5/0.25')
    """
    fn = network.apply
    if isinstance(fn, Bound) and fn.fn is _on_rounded:
        fn = fn.args[0]
    if not (isinstance(fn, Bound) and fn.fn is _on_scaled):
        return None
    return Normalisation(*fn.args[1:])


def _on_scaled(
    fn: Callable[..., Any], mean: tuple[float, ...], std: tuple[float, ...], *args: Any
) -> Any:
    *before, x = args
    if x.shape[-1] != len(mean):
        raise UserError(
            f"normalisation has {len(mean)} means, but images have {x.shape[-1]} channels; give one "
            "mean and std per channel"
        )
    m, s = (jnp.asarray(v, x.dtype).reshape((1,) * (x.ndim - 1) + (-1,)) for v in (mean, std))
    return fn(*before, (x - m) / s)


def in_bfloat16(network: Network) -> Network:
    """Computes a network's passes in bfloat16, which halves memory traffic on accelerators.

    Parameters and images are cast to bfloat16 (8 bits of precision, the range of float32) at the
    start of each pass and logits are cast back, so losses, gradients, the optimizer and checkpoints
    stay in float32. Running statistics, variables["batch_stats"], keep their dtype; mcjax's
    BatchNorm computes batch statistics in float32 too. Logits differ from those in float32 by about
    1 %.

    Intended for accelerators; on CPU `mcjax.cpu_convolution` sums in float32 and rounds at the end.

    Args:
        network: Any network; a tree of variables without "batch_stats" is cast completely.

    Returns:
        The network; `init` still returns float32.

    Example:
        >>> network = in_bfloat16(from_apply(lambda w, x: x.reshape(len(x), -1) @ w))
        >>> w, x = jnp.full([4, 2], 1.001), jnp.ones([1, 2, 2, 1])
        >>> network.apply(w, x)  # 1.001 is rounded to 1
        Array([[4., 4.]], dtype=float32)
        >>> jax.grad(lambda w: network.apply(w, x).sum())(w).dtype
        dtype('float32')

    Source: Micikevicius et al. 2018, Mixed Precision Training, section 3.1.
    """
    return network._replace(
        apply=Bound(_on_rounded, network.apply),
        apply_train=Bound(_on_rounded, network.apply_train),
        layer_outputs=network.layer_outputs and Bound(_on_rounded, network.layer_outputs),
    )


def _on_rounded(fn: Callable[..., Any], *args: Any) -> Any:
    *key, variables, x = args
    return _widened(fn(*key, _rounded(variables), _rounded(x)))


def _rounded(tree: PyTree) -> PyTree:
    """Casts floating-point leaves to bfloat16, except running statistics."""

    def leaf(path: Any, v: Any) -> Any:
        kept = path and getattr(path[0], "key", None) == "batch_stats"
        floating = jnp.issubdtype(jnp.result_type(v), jnp.floating)
        return jnp.asarray(v, jnp.bfloat16) if floating and not kept else v

    return jax.tree.map_with_path(leaf, tree)


def _widened(tree: PyTree) -> PyTree:
    """Casts bfloat16 leaves to float32."""
    return jax.tree.map(lambda v: v.astype(jnp.float32) if v.dtype == jnp.bfloat16 else v, tree)


def _start(key: jax.Array, *, random_start: Callable[[jax.Array], PyTree]) -> PyTree:
    return random_start(key)


_compiled_start = FewPrograms(_start, static=("random_start",))
_unoptimised_start = FewPrograms(
    _start, static=("random_start",), compiler_options={"xla_backend_optimization_level": 0}
)


def _start_quickly(random_start: Callable[[jax.Array], PyTree], key: jax.Array) -> PyTree:
    """Compiles a random initialisation as one program.

    On CPU it is compiled without optimisation: it runs once, for milliseconds, and optimising its
    many random generators takes six times as long (7 s for a resnet8).
    """
    # Inside another transformation the outermost jit sets the options.
    optimised = isinstance(key, jax.core.Tracer) or jax.default_backend() != "cpu"
    return (_compiled_start if optimised else _unoptimised_start)(key, random_start=random_start)
