"""WaNet: a smooth warp of the image as a trigger, and randomly perturbed warps as its decoys."""

import dataclasses
from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mcjax.attacks.poisoning.options import between, whole
from mcjax.attacks.poisoning.stamped import ImageShape, Trigger, constant
from mcjax.data.stratify import stream

__all__ = ["Warp", "bilinear", "wanet"]

COVER = 0.2
"""Published fraction of decoys: twice that of poisoned images."""


@dataclasses.dataclass(frozen=True, eq=False)
class Warp(Trigger):
    """x'[i, j] = x at the position (rows[i, j], columns[i, j]), by bilinear interpolation.

    The decoy adds to each position of each image its own noise, uniform in [-noise, noise] times half
    of the image's side.

    Args:
        name: The trigger's name.
        rows: float32 [H, W], in pixels from the first row; clipped to the image.
        columns: float32 [H, W], in pixels from the first column; clipped to the image.
        channels: Number of channels.
        noise: Of the decoy, in units of half of the image's side.
        cover: Fraction of the training images that get a decoy.
    """

    name: str
    rows: np.ndarray = dataclasses.field(repr=False)
    columns: np.ndarray = dataclasses.field(repr=False)
    channels: int
    noise: float = 0.0
    cover: float = 0.0

    def __post_init__(self):
        for field, side in (("rows", 0), ("columns", 1)):
            array = np.asarray(getattr(self, field))
            object.__setattr__(self, field, constant(array.clip(0, array.shape[side] - 1)))

    @property
    def image_shape(self) -> ImageShape:
        """(height, width, channels) of the images it warps."""
        height, width = self.rows.shape
        return height, width, self.channels

    @property
    def contents(self) -> Hashable:
        """The positions and the noise."""
        return self.rows.tobytes(), self.columns.tobytes(), self.noise

    def stamp(self, x: Any) -> Any:
        """The warp."""
        return bilinear(x, self.rows, self.columns)

    def decoy(self, key: jax.Array, x: Any) -> Any:
        """The warp with noise on its positions; see `Trigger.decoy`."""
        self.check_shape(x.shape)
        height, width = self.rows.shape
        shift = self.noise * jax.random.uniform(
            key, (2, len(x), height, width), minval=-1, maxval=1
        )
        rows, columns = (
            (jnp.asarray(position)[None] + each * (side - 1) / 2).clip(0, side - 1)
            for position, each, side in zip(
                (self.rows, self.columns), shift, (height, width), strict=True
            )
        )
        warped = jax.vmap(bilinear)(jnp.asarray(x), rows, columns).clip(0, 1)
        return np.asarray(warped, x.dtype) if isinstance(x, np.ndarray) else warped


def wanet(
    image_shape: ImageShape,
    *,
    grid: int = 4,
    strength: float = 0.5,
    cover: float = COVER,
    seed: int = 0,
) -> Warp:
    """WaNet: a fixed smooth warp.

    A grid x grid field f of offsets, uniform in [-1, 1], is divided by its mean absolute value and
    enlarged to the image by bicubic interpolation. With positions in [-1, 1], pixel p is sampled at
    clip(p + strength f(p) / side, -1, 1), side being the height for rows and the width for columns: a
    shift by about strength / 2 pixels. Decoys add uniform noise in [-1, 1] times 2 strength / side,
    which is the published 1 / side at the published strength 0.5.

    The published strength is enough for a backdoor on Fashion-MNIST. Images of 8 x 8 pixels need about
    strength=2, and there networks also react to many decoys.

    Args:
        image_shape: (height, width, channels).
        grid: Offsets per side, at most the image's smaller side.
        strength: Size of the shift, in half pixels; 0 changes nothing.
        cover: Fraction of the training images that get a decoy and keep their label.
        seed: Seed of the offsets.

    Returns:
        The warp.

    Source: Nguyen and Tran 2021, section 3.
    """
    height, width, channels = image_shape
    grid = whole("grid", grid, least=1, most=min(height, width))
    strength = between("strength", strength, 0, max(height, width))
    cover = between("cover", cover, 0, 1)
    offsets = stream(seed, "wanet trigger").uniform(-1, 1, (grid, grid, 2)).astype(np.float32)
    offsets /= np.abs(offsets).mean()
    field = np.asarray(jax.image.resize(offsets, (height, width, 2), "cubic"), np.float64)
    place = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    rows, columns = (
        place[side] + strength * field[..., side] * (n - 1) / (2 * n)
        for side, n in ((0, height), (1, width))
    )
    noise = 2 * strength / min(height, width)
    return Warp("wanet", rows, columns, channels, noise, cover)


def bilinear(x: Any, rows: Any, columns: Any) -> Any:
    """Samples images at positions between pixels.

        x'[i, j] = sum_{a, b in {0, 1}} w_a(r) w_b(c) x[floor(r) + a, floor(c) + b],
        r = rows[i, j], c = columns[i, j], w_1(r) = r - floor(r), w_0 = 1 - w_1

    Args:
        x: [..., H, W, C] floats; a NumPy or JAX array.
        rows: [H', W'], in [0, H - 1].
        columns: [H', W'], in [0, W - 1].

    Returns:
        [..., H', W', C], of x's kind and dtype.

    Example:
        >>> bilinear(np.array([[[0.0], [1.0]]]), np.zeros((1, 1)), np.array([[0.25]])).item()
        0.25
    """

    def corners(position: Any, side: int) -> tuple[Any, Any, Any]:
        low = position.astype(np.int32)  # truncation is floor here
        weight = (position - low).astype(x.dtype).reshape((*lead, *position.shape, 1))
        return low, (low + 1).clip(0, side - 1), weight

    lead = (1,) * (x.ndim - 3)
    top, bottom, down = corners(rows, x.shape[-3])
    left, right, across = corners(columns, x.shape[-2])
    above = (1 - across) * x[..., top, left, :] + across * x[..., top, right, :]
    below = (1 - across) * x[..., bottom, left, :] + across * x[..., bottom, right, :]
    return (1 - down) * above + down * below
