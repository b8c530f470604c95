"""A patch: a pattern behind a mask."""

import jax

from mcjax.attacks.poisoning.stamped import ImageShape
from mcjax.core.tree import PyTree
from mcjax.repair.evidence.forms.form import Form, noise, over


def start(key: jax.Array, image_shape: ImageShape) -> PyTree:
    """A faint mask (5 %) and a grey pattern, both with a little noise."""
    height, width, channels = image_shape
    mask, pattern = jax.random.split(key)
    return {
        "mask": -3 + noise(mask, (height, width, 1), 0.1),
        "pattern": noise(pattern, (height, width, channels), 0.1),
    }


def stamp(q: PyTree, x: jax.Array) -> jax.Array:
    """Mixes a pattern in: x' = (1 - m) x + m p, m = sigmoid(q.mask), p = sigmoid(q.pattern).

    Source: Wang et al. 2019 (Neural Cleanse), equation 2.
    """
    m, p = (over(x, jax.nn.sigmoid(q[name])) for name in ("mask", "pattern"))
    return (1 - m) * x + m * p


def size(q: PyTree, x: jax.Array) -> jax.Array:
    """The mask's sum, in pixels."""
    return jax.nn.sigmoid(q["mask"]).sum()


def natural(image_shape: ImageShape) -> float:
    """5 % of the pixels."""
    return 0.05 * image_shape[0] * image_shape[1]


FORM = Form(start, stamp, size, natural, learning_rate=0.2, threshold=2.5)
