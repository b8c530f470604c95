"""Convolutions, on images [B, H, W, C] and PyTorch's kernels [out, in / groups, height, width]."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from mcjax.interop.exported.operators.kinds import images, plain

AXES = ("NHWC", "OIHW", "NHWC")


def pair(value: int | Sequence[int], number: int = 2) -> tuple[int, ...]:
    """One number per spatial axis."""
    if isinstance(value, int):
        return (value,) * number
    return tuple(value) * (number if len(value) == 1 else 1)


def conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Array:
    """Cross-correlates images [B, H, W, C] with a kernel [out, C / groups, height, width]."""
    y = lax.conv_general_dilated(
        input,
        weight,
        pair(stride),
        _padding(padding, weight.shape[2:], pair(dilation)),
        rhs_dilation=pair(dilation),
        dimension_numbers=AXES,
        feature_group_count=groups,
    )
    return y if bias is None else y + bias.reshape(1, 1, 1, -1)


def _padding(padding: Any, taps: Sequence[int], dilation: Sequence[int]) -> list[tuple[int, int]]:
    """Pixels in front and behind; "same" puts the odd pixel behind."""
    if padding == "valid":
        return [(0, 0)] * len(taps)
    if padding == "same":
        totals = [d * (k - 1) for k, d in zip(taps, dilation, strict=True)]
        return [(n // 2, n - n // 2) for n in totals]
    return [(p, p) for p in pair(padding, len(taps))]


def conv_transpose2d(
    input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1
) -> Array:
    """The gradient of a convolution: a kernel [C, out / groups, height, width], stride between inputs."""
    inputs, per_group, *taps = weight.shape
    kernel = weight.reshape(groups, inputs // groups, per_group, *taps)
    kernel = kernel.transpose(0, 2, 1, 3, 4).reshape(groups * per_group, inputs // groups, *taps)
    spread = [d * (k - 1) for k, d in zip(taps, pair(dilation), strict=True)]
    y = lax.conv_general_dilated(
        input,
        kernel[:, :, ::-1, ::-1],
        (1, 1),
        [
            (n - p, n - p + more)
            for n, p, more in zip(spread, pair(padding), pair(output_padding), strict=True)
        ],
        lhs_dilation=pair(stride),
        rhs_dilation=pair(dilation),
        dimension_numbers=AXES,
        feature_group_count=groups,
    )
    return y if bias is None else y + bias.reshape(1, 1, 1, -1)


def convolution(
    input, weight, bias, stride, padding, dilation, transposed, output_padding, groups
) -> Array:
    """Either of the two, as decomposed programs call it."""
    if transposed:
        return conv_transpose2d(
            input, weight, bias, stride, padding, output_padding, groups, dilation
        )
    return conv2d(input, weight, bias, stride, padding, dilation, groups)


def conv1d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Array:
    """A convolution of sequences [B, C, length]."""
    (step,), (spread,) = pair(stride, 1), pair(dilation, 1)
    y = lax.conv_general_dilated(
        input,
        weight,
        (step,),
        _padding(padding, weight.shape[2:], (spread,)),
        rhs_dilation=(spread,),
        dimension_numbers=("NCH", "OIH", "NCH"),
        feature_group_count=groups,
    )
    return y if bias is None else y + bias.reshape(1, -1, 1)


def im2col(input, kernel_size, dilation, padding, stride) -> Array:
    """The patches of images [B, C, H, W], [B, C * height * width, patches]."""
    (kh, kw), (dh, dw) = pair(kernel_size), pair(dilation)
    (ph, pw), (sh, sw) = pair(padding), pair(stride)
    x = jnp.pad(input, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    rows = (x.shape[2] - dh * (kh - 1) - 1) // sh + 1
    columns = (x.shape[3] - dw * (kw - 1) - 1) // sw + 1
    taps = [
        x[:, :, i * dh : i * dh + sh * rows : sh, j * dw : j * dw + sw * columns : sw][
            :, :, :rows, :columns
        ]
        for i in range(kh)
        for j in range(kw)
    ]
    return jnp.stack(taps, 2).reshape(x.shape[0], -1, rows * columns)


OPERATORS = {
    "aten.conv2d": images(conv2d),
    "aten.conv_transpose2d": images(conv_transpose2d),
    "aten.convolution": images(convolution),
    "aten.conv1d": plain(conv1d),
    "aten.im2col": plain(im2col),
}
