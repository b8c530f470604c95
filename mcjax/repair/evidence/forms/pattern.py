"""A faint pattern, added to every image."""

import math

import jax

from mcjax.attacks.poisoning.stamped import ImageShape
from mcjax.core.tree import PyTree
from mcjax.repair.evidence.forms.form import Form, noise, norm, over


def start(key: jax.Array, image_shape: ImageShape) -> PyTree:
    """Nearly no pattern."""
    return {"pattern": noise(key, image_shape, 1e-3)}


def stamp(q: PyTree, x: jax.Array) -> jax.Array:
    """Adds a pattern: x' = clip(x + q.pattern, 0, 1)."""
    return (x + over(x, q["pattern"])).clip(0, 1)


def size(q: PyTree, x: jax.Array) -> jax.Array:
    """The pattern's l2 norm, images in [0, 1]."""
    return norm(q["pattern"])


def natural(image_shape: ImageShape) -> float:
    """A root mean square of 0.05 over the values of an image."""
    return 0.05 * math.prod(image_shape) ** 0.5


FORM = Form(start, stamp, size, natural, learning_rate=0.02, threshold=2.5)
