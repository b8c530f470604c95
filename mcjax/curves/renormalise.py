"""Renormalises the hidden layers at each point of a curve (REPAIR), for networks without BatchNorm.

Between two networks the pre-activations of a point often vary less than those of both ends, which
costs accuracy. At each t every channel is rescaled and shifted to the mean and deviation that lie
between those of the ends. Networks with BatchNorm recompute their statistics instead (`batch_stats`).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mcjax.core.bound_functions import FewPrograms
from mcjax.core.dependencies import dependencies
from mcjax.core.errors import UserError
from mcjax.core.tree import PyTree, by_name, path_name
from mcjax.data.batches import to_unit
from mcjax.models.network import Network

Moments = dict[str, tuple[jax.Array, jax.Array]]
"""{layer: (mean [C], standard deviation [C])} of each channel's pre-activation."""

LayerOutputs = Callable[[PyTree, jax.Array], dict[str, jax.Array]]

CONSTANT = 1e-6
"""A channel whose deviation is this small, compared with its mean and its target, is constant."""


def check(network: Network) -> None:
    """Refuses networks that can't be renormalised.

    Args:
        network: Any network.

    Raises:
        UserError: It has BatchNorm, or its layers' outputs are not accessible.
    """
    if network.has_batch_stats:
        raise UserError(
            "the network has BatchNorm, whose statistics are recomputed at each t instead; "
            "do not renormalise it"
        )
    if network.layer_outputs is None:
        raise UserError(
            "the network has no layer_outputs, which renormalising needs; make it with "
            "mcjax.models.network.from_linen"
        )


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["curve", "start", "end", "images"],
    meta_fields=["layer_outputs", "layers", "batch_size"],
)
@dataclasses.dataclass(frozen=True, eq=False)
class Renormalised:
    """A curve whose points have every hidden layer's means and deviations corrected.

    Per channel of each convolution and dense layer, in forward order, with (mu_0, s_0) and (mu_1, s_1)
    the mean and deviation of the pre-activation at the ends and (mu_t, s_t) those of the point, whose
    earlier layers are already corrected:

        mu = (1 - t) mu_0 + t mu_1,  s = (1 - t) s_0 + t s_1
        W <- W s / s_t,              b <- (b - mu_t) s / s_t + mu

    The ends stay as they are, and so does the last layer, which gives the logits. A layer without
    bias is only scaled, because it can't absorb a mean. A channel whose pre-activation is constant
    is only shifted. In a residual network each layer is corrected by its own output, before the sum.
    Make it by `of`, which measures the ends.

    Args:
        curve: The variables at t, {"params": ...}: a `CurveWithStats` or any callable pytree.
        start: Moments at t = 0, by layer.
        end: Moments at t = 1.
        images: Clean images to measure on, [N, H, W, C], uint8 or in [0, 1].
        layer_outputs: Of the network; see `mcjax.models.network.Network`.
        layers: Names of the layers to correct, in forward order.
        batch_size: Images per batch of the measurement.

    Source: Jordan et al. 2022 (REPAIR), here folded into the weights.
    """

    curve: Callable[[jax.Array], PyTree]
    start: Moments
    end: Moments
    images: jax.Array
    layer_outputs: LayerOutputs
    layers: tuple[str, ...]
    batch_size: int = 128

    @classmethod
    def of(
        cls,
        network: Network,
        curve: Callable[[jax.Array], PyTree],
        images: jax.Array | np.ndarray,
        *,
        batch_size: int = 128,
    ) -> "Renormalised":
        """Measures the ends of a curve.

        Args:
            network: The network, without BatchNorm.
            curve: The variables at t, {"params": ...}.
            images: Clean images to measure on, [N, H, W, C], uint8 or in [0, 1].
            batch_size: Images per batch of the measurement.

        Returns:
            The renormalised curve.

        Raises:
            UserError: The network has BatchNorm or no layer_outputs; there are no images.

        Example:
            >>> from mcjax import models
            >>> from mcjax.curves import Bezier
            >>> from mcjax.models.network import from_linen
            >>> network = from_linen(models.create("mlp", num_classes=3, hidden=(5,)), (2, 2, 1))
            >>> a, b = (network.init(jax.random.key(i)) for i in (0, 1))
            >>> images = jax.random.uniform(jax.random.key(2), (20, 2, 2, 1))
            >>> curve = Renormalised.of(network, Bezier.connect(a, b), images)
            >>> curve.layers
            ('fc1',)
            >>> pre = network.layer_outputs(curve(0.5), images)["fc1"]
            >>> between = (curve.start["fc1"][1] + curve.end["fc1"][1]) / 2
            >>> bool(jnp.allclose(pre.std(0), between, rtol=1e-4))
            True
        """
        check(network)
        if not len(images):
            raise UserError("there are no images to renormalise with; give at least one")
        if jax.tree.leaves(curve) == [curve]:  # a plain function, not a pytree
            curve = jax.tree_util.Partial(curve)
        layer_outputs: LayerOutputs = network.layer_outputs  # type: ignore[assignment]
        images = jnp.asarray(images)
        variables = jax.eval_shape(curve, jnp.float32(0))
        layers = hidden_layers(layer_outputs, variables, jax.eval_shape(to_unit, images[:1]))
        options = {"layer_outputs": layer_outputs, "layers": layers, "batch_size": batch_size}
        start, end = (_at(curve, jnp.float32(t), images, **options) for t in (0, 1))
        return cls(curve, start, end, images, **options)  # type: ignore[arg-type]

    def __call__(self, t: jax.typing.ArrayLike) -> PyTree:
        """The variables at t, corrected."""
        t = jnp.asarray(t)
        given = self.curve(t)
        variables = given
        for name in self.layers:
            # Only this layer's output is used, so the passes end here.
            own = moments(self.layer_outputs, variables, self.images, (name,), self.batch_size)
            target = jax.tree.map(
                lambda a, b: (1 - t) * a + t * b, self.start[name], self.end[name]
            )
            params = fold(variables["params"], name, own[name], target)
            variables = {**variables, "params": params}
        at_end = (t == 0) | (t == 1)
        return jax.tree.map(lambda w, c: jnp.where(at_end, w, c), given, variables)


def hidden_layers(layer_outputs: LayerOutputs, variables: PyTree, x: Any) -> tuple[str, ...]:
    """The convolutions and dense layers of a network in forward order, without the last.

    A layer's output depends on the kernels of all layers before it and on its own, so the order is
    that of the number of kernels, found by tracing.

    Args:
        layer_outputs: See `mcjax.models.network.Network`.
        variables: {"params": ...}; only shapes and dtypes are used, here and for x.
        x: Images, [B, H, W, C].

    Returns:
        Names: "conv1", "layer1_0/conv2", ...
    """
    leaves = by_name(variables["params"])
    outputs = jax.eval_shape(layer_outputs, variables, x)

    def is_layer(name: str) -> bool:
        kernel, bias = leaves.get(f"{name}/kernel"), leaves.get(f"{name}/bias")
        if kernel is None or not hasattr(outputs[name], "shape"):
            return False
        channels = kernel.shape[-1:]
        return outputs[name].shape[-1:] == channels and (bias is None or bias.shape == channels)

    names = [name for name in outputs if is_layer(name)]
    place = {leaf: i for i, leaf in enumerate(leaves)}
    kernels = {place[f"{name}/kernel"] for name in names}

    def pre_activations(params: PyTree, x: jax.Array) -> list[jax.Array]:
        found = layer_outputs({**variables, "params": params}, x)
        return [found[name] for name in names]

    inputs = dependencies(pre_activations, variables["params"], x)
    depth = {name: len(of & kernels) for name, of in zip(names, inputs, strict=True)}
    return tuple(sorted(names, key=depth.__getitem__)[:-1])


def moments(
    layer_outputs: LayerOutputs,
    variables: PyTree,
    images: jax.Array,
    layers: tuple[str, ...],
    batch_size: int,
) -> Moments:
    """Mean and deviation of each channel of layers' outputs, over images and positions.

    Batches are combined by their means and variances, so a large mean costs no precision.

    Args:
        layer_outputs: See `mcjax.models.network.Network`.
        variables: The network.
        images: [N, H, W, C], uint8 or in [0, 1].
        layers: The layers to measure.
        batch_size: Images per batch; the last may be smaller.

    Returns:
        (mean [C], standard deviation [C]) per layer; the variance is over all N * positions values.

    Source: Chan et al. 1983 (the combination of two samples' variances).
    """

    def of_batch(x: jax.Array) -> Moments:
        outputs = layer_outputs(variables, to_unit(x))
        axes = {name: tuple(range(outputs[name].ndim - 1)) for name in layers}
        return {
            name: (outputs[name].mean(axes[name]), outputs[name].var(axes[name])) for name in layers
        }

    def add(
        total: tuple[jax.Array, Moments], x: jax.Array
    ) -> tuple[tuple[jax.Array, Moments], None]:
        seen, before = total
        here = of_batch(x)
        share = len(x) / (seen + len(x))

        def joined(name: str) -> tuple[jax.Array, jax.Array]:
            (m0, v0), (m1, v1) = before[name], here[name]
            d = m1 - m0
            return m0 + share * d, (1 - share) * v0 + share * v1 + share * (1 - share) * d**2

        return (seen + len(x), {name: joined(name) for name in layers}), None

    shapes = jax.eval_shape(of_batch, images[:1])
    total = (jnp.float32(0), jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes))
    num_full, rest = divmod(len(images), batch_size)
    if num_full:
        full = images[: num_full * batch_size]
        total, _ = lax.scan(add, total, full.reshape(num_full, batch_size, *images.shape[1:]))
    if rest:
        total, _ = add(total, images[-rest:])
    return {name: (mean, jnp.sqrt(variance)) for name, (mean, variance) in total[1].items()}


def fold(
    params: PyTree,
    layer: str,
    own: tuple[jax.Array, jax.Array],
    target: tuple[jax.Array, jax.Array],
) -> PyTree:
    """Changes a layer's kernel and bias so that its output has other means and deviations.

    W <- W s / s_t, b <- (b - mu_t) s / s_t + mu; s / s_t = 1 where a channel is constant.

    Args:
        params: The network's parameters.
        layer: The layer's path in them; its kernel has the output channels last.
        own: (mu_t [C], s_t [C]) of the layer's output.
        target: (mu [C], s [C]).

    Returns:
        New parameters. Without a bias only the kernel changes.

    Example:
        >>> params = {"fc": {"kernel": jnp.ones((1, 1)), "bias": jnp.zeros(1)}}
        >>> one = jnp.ones(1)
        >>> fold(params, "fc", (0 * one, one), (3 * one, 2 * one))
        {'fc': {'bias': Array([3.], dtype=float32), 'kernel': Array([[2.]], dtype=float32)}}
    """
    (mu_t, s_t), (mu, s) = own, target
    varies = s_t > CONSTANT * (jnp.abs(mu_t) + s)
    ratio = jnp.where(varies, s / jnp.where(varies, s_t, 1), 1)

    def changed(path: jax.tree_util.KeyPath, w: jax.Array) -> jax.Array:
        name = path_name(path)
        if name == f"{layer}/kernel":
            return w * ratio.reshape((1,) * (w.ndim - 1) + (-1,))
        return (w - mu_t) * ratio + mu if name == f"{layer}/bias" else w

    return jax.tree.map_with_path(changed, params)


def _measured_at(
    curve: Callable[[jax.Array], PyTree],
    t: jax.Array,
    images: jax.Array,
    *,
    layer_outputs: LayerOutputs,
    layers: tuple[str, ...],
    batch_size: int,
) -> Moments:
    return moments(layer_outputs, curve(t), images, layers, batch_size)


_at = FewPrograms(_measured_at, static=("layer_outputs", "layers", "batch_size"))
