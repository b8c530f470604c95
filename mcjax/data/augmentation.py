"""Random augmentation of training images, on the device and inside jit."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mcjax.errors import UserError


@functools.partial(jax.jit, static_argnames=("flip", "padding"))
def random_flip_crop(
    key: jax.Array, image: jax.Array, *, flip: bool = True, padding: int = 4
) -> jax.Array:
    """Random horizontal flip with probability 1/2, then a random crop after zero padding.

    Per image, with f in {0, 1} and offsets u, v uniform on -padding ... padding, the result is
    out[i, j] = in'[i + u, j + v], zero outside the image; in' is the flipped image if f is 1.

    Args:
        key: Random key.
        image: [B, H, W, C], of any dtype.
        flip: Whether to flip.
        padding: Width of the zero border in pixels; 0 for no crop.

    Returns:
        Images of the same shape and dtype.

    Example:
        >>> image = jnp.ones((2, 8, 8, 3), jnp.uint8)
        >>> random_flip_crop(jax.random.key(0), image).shape
        (2, 8, 8, 3)

    Source:
        Lee et al. 2015 (deeply-supervised nets), He et al. 2016.
    """
    batch, height, width, channels = image.shape
    flip_key, offset_key = jax.random.split(key)
    offset = jax.random.randint(offset_key, (batch, 2), -padding, padding + 1)
    row = offset[:, :1] + jnp.arange(height)[None]
    column = offset[:, 1:] + jnp.arange(width)[None]
    inside = _inside(row, height)[:, :, None] & _inside(column, width)[:, None, :]
    if flip:
        flipped = jax.random.bernoulli(flip_key, shape=(batch, 1))
        column = jnp.where(flipped, width - 1 - column, column)
    # One gather of whole pixels without a padded copy: of nine variants, the one that is fast on CPU
    # both alone and in a scan, for uint8 and floats (0.3 ms for 128 CIFAR images).
    pixel = row.clip(0, height - 1)[:, :, None] * width + column.clip(0, width - 1)[:, None, :]
    flat = image.reshape(batch, height * width, channels)
    cropped = jnp.take_along_axis(flat, pixel.reshape(batch, -1, 1), axis=1).reshape(image.shape)
    return jnp.where(inside[..., None], cropped, jnp.zeros((), image.dtype))


def _inside(position: jax.Array, size: int) -> jax.Array:
    return (position >= 0) & (position < size)


def _none(key: jax.Array, image: jax.Array) -> jax.Array:
    return image


AUGMENTATIONS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "none": _none,
    "flip_crop": random_flip_crop,
    "crop": functools.partial(random_flip_crop, flip=False),
    "flip_crop_2": functools.partial(random_flip_crop, padding=2),
    "crop_2": functools.partial(random_flip_crop, flip=False, padding=2),
}


def get(name: str) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Returns an augmentation by name.

    Args:
        name: "none", "flip_crop" (CIFAR), "crop" (if flipping changes the class), or "flip_crop_2"
            and "crop_2" (padding 2 instead of 4, for small images).

    Returns:
        A pure function (key, image [B, H, W, C]) -> image.

    Raises:
        UserError: The name is unknown.

    Example:
        >>> get("none")(jax.random.key(0), jnp.ones((1, 2, 2, 1))).shape
        (1, 2, 2, 1)
    """
    if name not in AUGMENTATIONS:
        raise UserError(f"unknown augmentation {name!r}; give one of {', '.join(AUGMENTATIONS)}")
    return AUGMENTATIONS[name]
