"""A pattern that a small network makes for each image: triggers that differ from image to image."""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from mcjax.attacks.poisoning.stamped import ImageShape
from mcjax.core.tree import PyTree
from mcjax.repair.evidence.forms.form import Form, norm

WIDTH = 8
"""Channels of the network's hidden layers."""


class Generator(nn.Module):
    """Maps images [B, H, W, C] to patterns in [-1, 1] of their shape, by three convolutions.

    It sees 15 x 15 pixels around each, at half the resolution.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Makes the patterns of images in [0, 1]."""
        conv = partial(nn.Conv, kernel_init=nn.initializers.he_normal())
        half = nn.relu(conv(WIDTH, (5, 5), strides=2, name="down")(x))
        y = nn.relu(conv(WIDTH, (3, 3), name="middle")(half))
        y = jax.image.resize(y, (*x.shape[:3], WIDTH), "bilinear")
        faint = nn.initializers.variance_scaling(0.005, "fan_in", "normal")
        return jnp.tanh(conv(x.shape[-1], (3, 3), kernel_init=faint, name="up")(y))


def start(key: jax.Array, image_shape: ImageShape) -> PyTree:
    """A random network that makes faint patterns."""
    return Generator().init(key, jnp.zeros((1, *image_shape)))["params"]


def stamp(q: PyTree, x: jax.Array) -> jax.Array:
    """Adds each image's own pattern: x' = clip(x + g(x), 0, 1), g the network.

    Source: the attack is Nguyen and Tran 2020 (input-aware); its generator is another network.
    """
    return (x + pattern(q, x)).clip(0, 1)


def pattern(q: PyTree, x: jax.Array) -> jax.Array:
    """g(x), [..., H, W, C]."""
    flat = x.reshape(-1, *x.shape[-3:])
    made: jax.Array = Generator().apply({"params": q}, flat)  # type: ignore[assignment]
    return made.reshape(x.shape)


def size(q: PyTree, x: jax.Array) -> jax.Array:
    """The mean l2 norm of the patterns of x, images in [0, 1]."""
    return norm(pattern(q, x), axis=(-3, -2, -1)).mean()


def natural(image_shape: ImageShape) -> float:
    """A root mean square of 0.05 over the values of an image."""
    return 0.05 * math.prod(image_shape) ** 0.5


FORM = Form(start, stamp, size, natural, learning_rate=0.005, threshold=3.0)
