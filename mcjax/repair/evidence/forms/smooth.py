"""A smooth pattern, added to every image."""

import math

import jax

from mcjax.attacks.poisoning.stamped import ImageShape
from mcjax.core.tree import PyTree
from mcjax.repair.evidence.forms.form import Form, noise, norm, over
from mcjax.repair.evidence.forms.grid import enlarge

GRID = 7
"""Control points per side."""


def start(key: jax.Array, image_shape: ImageShape) -> PyTree:
    """Nearly no pattern, on a coarse grid."""
    height, width, channels = image_shape
    return {"grid": noise(key, (min(GRID, height), min(GRID, width), channels), 1e-3)}


def stamp(q: PyTree, x: jax.Array) -> jax.Array:
    """Adds a coarse pattern, enlarged: x' = clip(x + enlarge(q.grid), 0, 1)."""
    return (x + over(x, enlarge(q["grid"], x.shape[-3:-1]))).clip(0, 1)


def size(q: PyTree, x: jax.Array) -> jax.Array:
    """The enlarged pattern's l2 norm, images in [0, 1]."""
    return norm(enlarge(q["grid"], x.shape[-3:-1]))


def natural(image_shape: ImageShape) -> float:
    """A root mean square of 0.1 over the values of an image."""
    return 0.1 * math.prod(image_shape) ** 0.5


FORM = Form(start, stamp, size, natural, learning_rate=0.02, threshold=2.5)
