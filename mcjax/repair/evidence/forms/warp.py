"""A smooth warp of every image."""

import jax
import jax.numpy as jnp

from mcjax.attacks.poisoning.stamped import ImageShape
from mcjax.attacks.poisoning.warp import bilinear
from mcjax.core.tree import PyTree
from mcjax.repair.evidence.forms.form import Form, noise, norm
from mcjax.repair.evidence.forms.grid import enlarge

GRID = 4
"""Control points per side."""


def start(key: jax.Array, image_shape: ImageShape) -> PyTree:
    """Nearly no shift, on a coarse grid."""
    height, width, _ = image_shape
    return {"shift": noise(key, (min(GRID, height), min(GRID, width), 2), 1e-2)}


def stamp(q: PyTree, x: jax.Array) -> jax.Array:
    """x'[i, j] = x at (i, j) + enlarge(q.shift)[i, j], clipped to the image, by bilinear sampling.

    Source: the attack is Nguyen and Tran 2021 (WaNet).
    """
    height, width = x.shape[-3:-1]
    shift = enlarge(q["shift"], (height, width))
    place = jnp.meshgrid(jnp.arange(1.0 * height), jnp.arange(1.0 * width), indexing="ij")
    rows, columns = (
        (p + shift[..., side]).clip(0, n - 1)
        for side, (p, n) in enumerate(zip(place, (height, width), strict=True))
    )
    return bilinear(x, rows, columns)


def size(q: PyTree, x: jax.Array) -> jax.Array:
    """The root mean square of the shifts, in pixels."""
    shift = enlarge(q["shift"], x.shape[-3:-1])
    return norm(shift) / (shift.shape[0] * shift.shape[1]) ** 0.5


def natural(image_shape: ImageShape) -> float:
    """5 % of the image's side."""
    return 0.05 * (image_shape[0] * image_shape[1]) ** 0.5


FORM = Form(start, stamp, size, natural, learning_rate=0.1, threshold=3.5)
