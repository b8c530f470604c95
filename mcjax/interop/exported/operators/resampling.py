"""Interpolation of images [B, H, W, C]: nearest, bilinear and bicubic."""

import math
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array

from mcjax.interop.exported.operators.kinds import images
from mcjax.interop.exported.operators.pooling import along_axes


def nearest(input, output_size=None, scales_h=None, scales_w=None, **options) -> Array:
    """The pixel at floor(i * scale) for each new pixel i."""
    sizes, scales = _sizes(input.shape[1:3], output_size, scales_h, scales_w, **options)
    for axis, (n, m, scale) in enumerate(zip(input.shape[1:3], sizes, scales, strict=True), 1):
        step = 1 / scale if scale else n / m
        place = np.minimum(np.floor(np.arange(m) * np.float32(step)).astype(int), n - 1)
        input = jnp.take(input, place, axis)
    return input


def _weighted(kernel: Callable[[np.ndarray], np.ndarray], reach: int) -> Callable[..., Array]:
    def resample(
        input, output_size=None, align_corners=False, scales_h=None, scales_w=None, **options
    ) -> Array:
        sizes, scales = _sizes(input.shape[1:3], output_size, scales_h, scales_w, **options)
        matrices = [
            _matrix(n, m, scale, align_corners, kernel, reach)
            for n, m, scale in zip(input.shape[1:3], sizes, scales, strict=True)
        ]
        return along_axes(input, *matrices)

    return resample


def _sizes(
    size: Sequence[int], output_size=None, scales_h=None, scales_w=None, scale_factors=None
) -> tuple[tuple[int, ...], tuple[float | None, ...]]:
    if scale_factors is not None:
        return (
            tuple(math.floor(n * s) for n, s in zip(size, scale_factors, strict=True)),
            tuple(scale_factors),
        )
    return tuple(output_size), (scales_h, scales_w)


def _matrix(
    n: int,
    m: int,
    scale: float | None,
    align_corners: bool,
    kernel: Callable[[np.ndarray], np.ndarray],
    reach: int,
) -> np.ndarray:
    """The weight of each old pixel in each new one, [m, n]; pixels beyond the edge repeat it."""
    i = np.arange(m)
    if align_corners:
        at = i * ((n - 1) / (m - 1) if m > 1 else 0.0)
    else:
        at = (i + 0.5) * (1 / scale if scale else n / m) - 0.5
        at = np.maximum(at, 0) if reach == 1 else at
    matrix = np.zeros((m, n))
    low = np.floor(at).astype(int)
    for k in range(1 - reach, reach + 1):
        np.add.at(matrix, (i, np.clip(low + k, 0, n - 1)), kernel(np.abs(at - (low + k))))
    return matrix


def _linear(distance: np.ndarray) -> np.ndarray:
    return np.maximum(0, 1 - distance)


def _cubic(x: np.ndarray, a: float = -0.75) -> np.ndarray:
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


OPERATORS = {
    "aten.upsample_nearest2d": images(nearest),
    "aten.upsample_bilinear2d": images(_weighted(_linear, 1)),
    "aten.upsample_bicubic2d": images(_weighted(_cubic, 2)),
}
