"""The forms of triggers that are looked for: a patch, a faint pattern, a smooth one, a warp.

A form is a family of maps of images with parameters q, and a size: the smaller a trigger that sends
all images to one class, the less natural it is.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mcjax.attacks.poisoning.stamped import ImageShape
from mcjax.attacks.poisoning.warp import bilinear
from mcjax.core.errors import UserError
from mcjax.core.tree import PyTree

GRID = 7
"""Control points per side of the smooth pattern."""

WARP_GRID = 4
"""Control points per side of the warp."""


@dataclasses.dataclass(frozen=True)
class Form:
    """A family of triggers.

    Args:
        start: `start(key, image_shape) -> q`, the parameters before the inversion.
        stamp: `stamp(q, x) -> x'`, images [..., H, W, C] in [0, 1]; differentiable in q.
        size: `size(q, image_shape) -> scalar`, in the form's own unit; differentiable.
        natural: `natural(image_shape) -> float`, the size at which a trigger costs one nat: about
            a third of what triggers of clean networks need.
        learning_rate: Of the inversion's Adam, before its decay.
    """

    start: Callable[[jax.Array, ImageShape], PyTree]
    stamp: Callable[[PyTree, jax.Array], jax.Array]
    size: Callable[[PyTree, ImageShape], jax.Array]
    natural: Callable[[ImageShape], float]
    learning_rate: float


def _noise(key: jax.Array, shape: tuple[int, ...], scale: float) -> jax.Array:
    return scale * jax.random.normal(key, shape)


def patch_start(key: jax.Array, image_shape: ImageShape) -> PyTree:
    """A faint mask (5 %) and a grey pattern, both with a little noise."""
    height, width, channels = image_shape
    mask, pattern = jax.random.split(key)
    return {
        "mask": -3 + _noise(mask, (height, width, 1), 0.1),
        "pattern": _noise(pattern, (height, width, channels), 0.1),
    }


def patch_stamp(q: PyTree, x: jax.Array) -> jax.Array:
    """Mixes a pattern in: x' = (1 - m) x + m p, m = sigmoid(q.mask), p = sigmoid(q.pattern).

    Source: Wang et al. 2019 (Neural Cleanse), equation 2.
    """
    m, p = (_over(x, jax.nn.sigmoid(q[name])) for name in ("mask", "pattern"))
    return (1 - m) * x + m * p


def patch_size(q: PyTree, image_shape: ImageShape) -> jax.Array:
    """The mask's sum, in pixels."""
    return jax.nn.sigmoid(q["mask"]).sum()


def patch_natural(image_shape: ImageShape) -> float:
    """5 % of the pixels."""
    return 0.05 * image_shape[0] * image_shape[1]


def pattern_start(key: jax.Array, image_shape: ImageShape) -> PyTree:
    """Nearly no pattern."""
    return {"pattern": _noise(key, image_shape, 1e-3)}


def pattern_stamp(q: PyTree, x: jax.Array) -> jax.Array:
    """Adds a pattern: x' = clip(x + q.pattern, 0, 1)."""
    return (x + _over(x, q["pattern"])).clip(0, 1)


def pattern_size(q: PyTree, image_shape: ImageShape) -> jax.Array:
    """The pattern's l2 norm, images in [0, 1]."""
    return _norm(q["pattern"])


def pattern_natural(image_shape: ImageShape) -> float:
    """A root mean square of 0.05 over the values of an image."""
    return 0.05 * math.prod(image_shape) ** 0.5


def smooth_start(key: jax.Array, image_shape: ImageShape) -> PyTree:
    """Nearly no pattern, on a coarse grid."""
    height, width, channels = image_shape
    return {"grid": _noise(key, (min(GRID, height), min(GRID, width), channels), 1e-3)}


def smooth_stamp(q: PyTree, x: jax.Array) -> jax.Array:
    """Adds a coarse pattern, enlarged by bicubic interpolation: x' = clip(x + g, 0, 1)."""
    return (x + _over(x, enlarge(q["grid"], x.shape[-3:-1]))).clip(0, 1)


def smooth_size(q: PyTree, image_shape: ImageShape) -> jax.Array:
    """The enlarged pattern's l2 norm, images in [0, 1]."""
    return _norm(enlarge(q["grid"], image_shape[:2]))


def smooth_natural(image_shape: ImageShape) -> float:
    """A root mean square of 0.1 over the values of an image."""
    return 0.1 * math.prod(image_shape) ** 0.5


def warp_start(key: jax.Array, image_shape: ImageShape) -> PyTree:
    """Nearly no shift, on a coarse grid."""
    height, width, _ = image_shape
    return {"shift": _noise(key, (min(WARP_GRID, height), min(WARP_GRID, width), 2), 1e-2)}


def warp_stamp(q: PyTree, x: jax.Array) -> jax.Array:
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


def warp_size(q: PyTree, image_shape: ImageShape) -> jax.Array:
    """The root mean square of the shifts, in pixels."""
    shift = enlarge(q["shift"], image_shape[:2])
    return _norm(shift) / (shift.shape[0] * shift.shape[1]) ** 0.5


def warp_natural(image_shape: ImageShape) -> float:
    """5 % of the image's side."""
    return 0.05 * (image_shape[0] * image_shape[1]) ** 0.5


def enlarge(grid: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """A coarse grid [g, h, C], interpolated to [H, W, C]."""
    return jax.image.resize(grid, (*shape, grid.shape[-1]), "cubic")


def _over(x: jax.Array, v: jax.Array) -> jax.Array:
    """An array [H, W, C] with as many axes as images [..., H, W, C]."""
    return v.reshape((1,) * (x.ndim - 3) + v.shape)


def _norm(v: jax.Array) -> jax.Array:
    return jnp.sqrt((v**2).sum() + 1e-12)  # differentiable at 0


FORMS: dict[str, Form] = {
    "patch": Form(patch_start, patch_stamp, patch_size, patch_natural, 0.2),
    "pattern": Form(pattern_start, pattern_stamp, pattern_size, pattern_natural, 0.02),
    "smooth": Form(smooth_start, smooth_stamp, smooth_size, smooth_natural, 0.02),
    "warp": Form(warp_start, warp_stamp, warp_size, warp_natural, 0.1),
}
"""By name: a new form is four functions and a line here."""


def get(name: str) -> Form:
    """A form by name.

    Raises:
        UserError: There is no form of that name.

    Example:
        >>> get("patch").learning_rate
        0.2
    """
    if name not in FORMS:
        raise UserError(f"unknown form of triggers {name!r}; use {', '.join(FORMS)}")
    return FORMS[name]
