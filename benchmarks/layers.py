"""The distinct convolutions of a network, read from its own program."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
from jax import lax

from benchmarks import inputs
from mcjax.core.jaxprs import inside
from mcjax.cpu_convolution.choice import NHWC


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution without its batch: image (h, w, i), weights (kh, kw, i, o)."""

    image: tuple[int, int, int]
    weights: tuple[int, int, int, int]
    stride: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]

    def __str__(self) -> str:
        """Such as "32x32, 3 -> 64, 3x3", and "/2" with stride 2."""
        (h, w, _), (kh, kw, i, o) = self.image, self.weights
        stride = f" /{self.stride[0]}" if self.stride != (1, 1) else ""
        return f"{h}x{w}, {i} -> {o}, {kh}x{kw}{stride}"

    def __call__(self, x: jax.Array, w: jax.Array) -> jax.Array:
        """The convolution of images [B, h, w, i]."""
        return lax.conv_general_dilated(x, w, self.stride, self.padding, dimension_numbers=NHWC)

    def operations(self, batch_size: int) -> float:
        """Of the direct method, 2 a multiply-add."""
        kh, kw, i, o = self.weights
        _, h, w, _ = self.output(batch_size)
        return 2.0 * batch_size * h * w * kh * kw * i * o

    def output(self, batch_size: int) -> tuple[int, ...]:
        """Shape of the output."""
        x = jax.ShapeDtypeStruct((batch_size, *self.image), jnp.float32)
        return jax.eval_shape(self, x, jax.ShapeDtypeStruct(self.weights, jnp.float32)).shape


def layers(name: str) -> dict[Layer, int]:
    """The distinct convolutions of a network, in order, and how often it has each.

    Args:
        name: A network of `inputs.NETWORKS`.

    Returns:
        {layer: number of times}.

    Example:
        >>> {str(layer): number for layer, number in layers("convfc").items()}
        {'32x32, 3 -> 32, 5x5': 1, '15x15, 32 -> 64, 5x5': 1, '7x7, 64 -> 128, 5x5': 1}
    """
    net = inputs.network(name)
    variables = jax.eval_shape(net.init, jax.random.key(0))
    x = jax.ShapeDtypeStruct((1, *inputs.IMAGE_SHAPE), jnp.float32)
    found: dict[Layer, int] = {}
    for layer in _convolutions(jax.make_jaxpr(net.apply)(variables, x).jaxpr):
        found[layer] = found.get(layer, 0) + 1
    return found


def distinct(networks: list[str]) -> dict[Layer, list[str]]:
    """The distinct convolutions of several networks, and the networks that have each."""
    found: dict[Layer, list[str]] = {}
    for name in networks:
        for layer in layers(name):
            found.setdefault(layer, []).append(name)
    return found


def _convolutions(jaxpr: jax.extend.core.Jaxpr) -> Iterator[Layer]:
    for equation in jaxpr.eqns:
        for inner in inside(equation):
            yield from _convolutions(inner)
        if equation.primitive.name == "conv_general_dilated":
            x, w = (v.aval.shape for v in equation.invars)  # type: ignore[attr-defined]
            padding: Any = tuple(map(tuple, equation.params["padding"]))
            yield Layer(x[1:], w, tuple(equation.params["window_strides"]), padding)
