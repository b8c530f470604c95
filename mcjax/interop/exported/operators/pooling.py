"""Pooling of images [B, H, W, C]."""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from mcjax.interop.exported.operators.convolution import pair
from mcjax.interop.exported.operators.kinds import images, plain
from mcjax.models.pooling import max_pool


def max_pool2d(input, kernel_size, stride=(), padding=0, dilation=1, ceil_mode=False) -> Array:
    """The maximum over each window; the first of several equal pixels takes the gradient."""
    window, spread = pair(kernel_size), pair(dilation)
    steps = pair(stride) if stride not in ((), None) else window
    pads = _pads(input.shape[1:3], window, steps, pair(padding), spread, ceil_mode)
    if any(n for pad in pads for n in pad):
        widths = [(0, 0, 0), *((*p, 0) for p in pads), (0, 0, 0)]
        input = lax.pad(input, jnp.array(-jnp.inf, input.dtype), widths)
    if window[0] == window[1] and steps[0] == steps[1] and spread == (1, 1):
        return max_pool(input, window[0], steps[0])
    taps = jnp.stack(_taps(input, window, steps, spread))
    return jnp.take_along_axis(taps, taps.argmax(0)[None], 0)[0]


def _taps(x: Array, window: Any, steps: Any, spread: Any) -> list[Array]:
    """Each pixel of all windows, in reading order."""
    (kh, kw), (sh, sw), (dh, dw) = window, steps, spread
    rows = (x.shape[1] - dh * (kh - 1) - 1) // sh + 1
    columns = (x.shape[2] - dw * (kw - 1) - 1) // sw + 1
    return [
        x[:, i * dh :: sh, j * dw :: sw][:, :rows, :columns] for i in range(kh) for j in range(kw)
    ]


def avg_pool2d(
    input,
    kernel_size,
    stride=(),
    padding=0,
    ceil_mode=False,
    count_include_pad=True,
    divisor_override=None,
) -> Array:
    """The mean over each window."""
    window, padded = pair(kernel_size), pair(padding)
    steps = pair(stride) if stride not in ((), None) else window
    pads = _pads(input.shape[1:3], window, steps, padded, (1, 1), ceil_mode)
    total = lax.reduce_window(
        input,
        np.zeros((), input.dtype)[()],  # a constant, which JAX can differentiate
        lax.add,
        (1, *window, 1),
        (1, *steps, 1),
        [(0, 0), *pads, (0, 0)],
    )
    if divisor_override:
        return total / divisor_override
    counts = [
        _counts(*each, include=count_include_pad)
        for each in zip(input.shape[1:3], total.shape[1:3], window, steps, padded, strict=True)
    ]
    sizes = np.multiply.outer(*counts)
    if (sizes == sizes.flat[0]).all():
        return total / int(sizes.flat[0])
    return total / jnp.asarray(sizes, input.dtype)[None, :, :, None]


def _pads(size: Any, window: Any, steps: Any, padding: Any, dilation: Any, ceil: bool) -> list[Any]:
    """Pixels in front and behind; with ceil_mode, also what completes the last window."""
    pads = []
    for n, k, s, p, d in zip(size, window, steps, padding, dilation, strict=True):
        span = d * (k - 1) + 1
        free = n + 2 * p - span
        number = (-(-free // s) if ceil else free // s) + 1
        if ceil and (number - 1) * s >= n + p:  # a window must start inside the image
            number -= 1
        pads.append((p, max(p, (number - 1) * s + span - n - p)))
    return pads


def _counts(n: int, number: int, window: int, step: int, padding: int, *, include: bool) -> Any:
    """Number of pixels by which the sum of each window is divided, along one axis."""
    start = np.arange(number) * step - padding
    end = np.minimum(start + window, n + padding)
    return end - start if include else np.minimum(end, n) - np.maximum(start, 0)


def adaptive_avg_pool2d(input, output_size) -> Array:
    """The mean over windows that divide the image as evenly as possible."""
    height, width = _sizes(output_size, input.shape[1:3])
    if (height, width) == (1, 1):
        return input.mean((1, 2), keepdims=True)
    if (height, width) == input.shape[1:3]:
        return input
    n, h, w, c = input.shape
    if h % height == 0 and w % width == 0:
        return input.reshape(n, height, h // height, width, w // width, c).mean((2, 4))
    return along_axes(input, _averages(h, height), _averages(w, width))


def adaptive_max_pool2d(input, output_size) -> tuple[Array, None]:
    """The maximum over windows that divide the image as evenly as possible."""
    height, width = _sizes(output_size, input.shape[1:3])
    rows = [input[:, a:b].max(1) for a, b in _windows(input.shape[1], height)]
    x = jnp.stack(rows, 1)
    columns = [x[:, :, a:b].max(2) for a, b in _windows(input.shape[2], width)]
    return jnp.stack(columns, 2), None


def along_axes(x: Array, rows: np.ndarray, columns: np.ndarray) -> Array:
    """Multiplies the height and the width of images by a matrix each, [out, in]."""
    return jnp.einsum(
        "ph,nhwc,qw->npqc", jnp.asarray(rows, x.dtype), x, jnp.asarray(columns, x.dtype)
    )


def _sizes(wanted: int | Sequence[Any], size: Sequence[int]) -> tuple[int, ...]:
    return tuple(m if n is None else n for n, m in zip(pair(wanted), size, strict=True))


def _windows(size: int, number: int) -> list[tuple[int, int]]:
    return [(i * size // number, -(-(i + 1) * size // number)) for i in range(number)]


def _averages(size: int, number: int) -> np.ndarray:
    matrix = np.zeros((number, size))
    for row, (a, b) in zip(matrix, _windows(size, number), strict=True):
        row[a:b] = 1 / (b - a)
    return matrix


def _indices_unused(*args: Any, **options: Any) -> tuple[Array, None]:
    return max_pool2d(*args, **options), None


def _on_sequences(fn: Any) -> Any:
    """The pooling of sequences [B, C, length], as images of one row."""

    def pooled(input, kernel_size, stride=(), padding=0, *rest: Any, **options: Any) -> Array:
        step = stride if stride not in ((), None) else kernel_size
        settings = [(1, *pair(kernel_size, 1)), (1, *pair(step, 1)), (0, *pair(padding, 1))]
        y = fn(input.transpose(0, 2, 1)[:, None], *settings, *rest, **options)
        return y[:, 0].transpose(0, 2, 1)

    return pooled


def _adaptive_avg_pool1d(input, output_size) -> Array:
    x = input.transpose(0, 2, 1)[:, None]
    return adaptive_avg_pool2d(x, (1, math.prod(pair(output_size, 1))))[:, 0].transpose(0, 2, 1)


OPERATORS = {
    "aten.max_pool2d": images(max_pool2d),
    "aten.max_pool2d_with_indices": images(_indices_unused),
    "aten.avg_pool2d": images(avg_pool2d),
    "aten.adaptive_avg_pool2d": images(adaptive_avg_pool2d),
    "aten._adaptive_avg_pool2d": images(adaptive_avg_pool2d),
    "aten.adaptive_max_pool2d": images(adaptive_max_pool2d),
    "aten.max_pool1d": plain(_on_sequences(max_pool2d)),
    "aten.avg_pool1d": plain(_on_sequences(avg_pool2d)),
    "aten.adaptive_avg_pool1d": plain(_adaptive_avg_pool1d),
}
