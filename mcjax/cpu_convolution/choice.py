"""Chooses the fastest method for each shape, from measurements.

The thresholds come from timing the methods on single layers of VGG16, PreResNet-26 and ConvFC, 128
images, on two otherwise idle cores with AVX2 and with AVX-512 (`python -m benchmarks.ways`). They may
not be optimal on other machines; `--write` keeps what is fastest on one's own (`measured`). Where there
are compiled convolutions, Winograd's are the fastest wherever they fit, from 16 channels on, direct ones
elsewhere, with two exceptions: a product of patches on images of a few pixels, and on AVX-512 XLA's own
to 3 channels by 5x5 taps. Without a compiler, XLA's NHWC forward convolution is good for images larger
than 2x2, and Winograd in JAX is faster above about 32 * 64 pairs. Weight gradients never use XLA, which
is many times slower for them in a loop.
"""

from functools import partial

import jax.numpy as jnp
from jax import Array, lax

from mcjax.cpu_convolution import blocked, build, direct, few, fused, measured, seen, winograd
from mcjax.cpu_convolution.blocked import Pads, Pair

NHWC = ("NHWC", "HWIO", "NHWC")


def forward_way(
    x: Pair, w: Pair, *, stride: Pair, size: Pair, groups: int = 1, compiled: bool = False
) -> str:
    """The method for images and weights of these shapes, with an output of `size` (h, w) pixels.

    Args:
        x: Shape of the images [B, h, w, groups * i].
        w: Shape of the weights [kh, kw, i, groups * o].
        stride: Of the convolution.
        size: Output pixels (h, w).
        groups: Of channels; only "direct" and "fused" have them.
        compiled: Whether these two may be chosen.

    Returns:
        "product", "direct", "fused", "dense", "blocked", "wide", "winograd" or "xla".
    """
    kh, kw, i, o = w
    batch, pixels, plain = x[0], size[0] * size[1], tuple(stride) == (1, 1)
    pays = compiled and pays_for_transforms((i, o // groups), batch * pixels)
    fits = pays and fused.fits((kh, kw), (groups * i, o), stride=stride, groups=groups)
    if groups > 1:
        return "fused" if fits else "direct"
    if kh == kw == 1:
        return "product"
    if plain and pixels <= 4 and x[1] * x[2] <= 4 and batch >= 512:
        # The dense matrix holds pixels**2 * i * o numbers: only a large batch pays for it.
        return "dense"
    if compiled:
        known = measured.ways().get(measured.key("forward", tuple(size), tuple(w), tuple(stride)))
        if known:
            return known
        if fits and pixels > 1:
            return "fused"
        if plain and build.lanes() == 16 and kh == 5 and i >= 32 and o <= 4:
            return "xla"  # three of sixteen lanes would be used
        # Few pixels leave the tiles short, each of which reads all weights.
        return "blocked" if pixels == 1 or (pixels <= 4 and i * o >= 8192) else "direct"
    if plain and i <= 4 and kh * kw * i <= 128 and (o <= 32 or kh >= 5):
        return "wide"
    many = (min(i, o) >= 32 and i * o >= 2048) or (kh == 3 and i >= 64 and o <= 4)
    if plain and kh == kw and kh in (3, 5) and many and min(size) >= 2:
        return "winograd"
    return "blocked" if pixels <= 4 else "xla"


def forward(
    x: Array,
    w: Array,
    *,
    stride: Pair,
    padding: Pads,
    groups: int = 1,
    compiled: bool = False,
    way: str | None = None,
) -> Array:
    """Convolves x (batch, h, w, i) with w (kh, kw, i, o), by the fastest or a given method."""
    size = blocked.output_size(x.shape[1:3], w.shape[:2], padding=padding, stride=stride)
    cut, padding = seen.of(x.shape[1:3], w.shape[:2], size, stride=stride, padding=padding)
    w = seen.only(w, cut)
    way = way or forward_way(
        x.shape, w.shape, stride=stride, size=size, groups=groups, compiled=compiled
    )
    if x.dtype == jnp.bfloat16 and not (way == "direct" and direct.sums_pairs(x.shape[3], groups)):
        x, w = x.astype(jnp.float32), w.astype(jnp.float32)
    if way == "direct":
        return direct.forward(x, w, stride=stride, padding=padding, groups=groups)
    if way == "fused":
        return fused.forward(x, w, padding=padding, groups=groups)
    if way == "dense":
        return few.dense(x, w, stride=stride, padding=padding)
    if way in ("product", "blocked"):
        images = x.shape[0] if way == "product" else _images(4096, size)
        return blocked.forward(x, w, stride=stride, padding=padding, images=images)
    if way == "wide":
        return few.wide(x, w, padding=padding, t=2, product=_xla)
    if way == "winograd":
        # More tiles a block need more cache, fewer make the products short.
        rows = 1024 if w.shape[2] * w.shape[3] <= 2**14 else 512
        images = _images(rows, [-(-n // 2) for n in size])
        return winograd.forward(x, w, padding=padding, tile=2, images=images)
    if min(min(p) for p in padding) < 0:  # XLA reads out of bounds
        x, padding = blocked.pad(x, padding), [(0, 0), (0, 0)]
    return _xla(x, w, stride=stride, padding=padding)


def weight_gradient_way(
    x: Pair, g: Pair, *, taps: Pair, stride: Pair, groups: int = 1, compiled: bool = False
) -> str:
    """The method for images and output gradients of these shapes; arguments as of `forward_way`.

    Returns:
        "direct", "fused", "winograd4" or "winograd2" (tiles of 4 or 2 pixels), "crossed", "wide" or
        "blocked".
    """
    i, (size, o) = x[-1], (g[1:3], g[3])
    kh, kw = taps
    if compiled and groups == 1:
        known = measured.ways().get(measured.key("dw", tuple(size), (kh, kw, i, o), tuple(stride)))
        if known:
            return known
    pays = compiled and pays_for_transforms((i // groups, o // groups), g[0] * size[0] * size[1])
    fits = pays and fused.fits(taps, (i, o), stride=stride, groups=groups)
    if groups > 1:
        return "fused" if fits else "direct"
    if fits and size[0] * size[1] > 1:
        return "fused"
    if compiled and kh * kw > 1:
        # A direct sum is loaded and stored for every image, which few pixels do not pay for.
        short = size[0] * size[1] <= 16 and kh * kw * i * o > 2**17
        return "blocked" if short or min(size) < 2 else "direct"
    if tuple(stride) != (1, 1) or kh != kw or kh not in (3, 5):
        return "blocked"
    if min(i, o) >= 32 and min(size) >= 2:
        return "winograd4" if kh == 3 and min(size) >= 4 else "winograd2"
    if min(size) >= 8 and (min(i, o) >= 16 or (kh == 3 and i <= 4 and o <= 32)):
        return "crossed"
    return "wide" if kh == 5 and i <= 4 and size[1] >= 8 else "blocked"


def weight_gradient(
    x: Array,
    g: Array,
    *,
    taps: Pair,
    stride: Pair,
    padding: Pads,
    groups: int = 1,
    compiled: bool = False,
    way: str | None = None,
) -> Array:
    """The gradient (kh, kw, i, o) of the convolution's weights, by the fastest or a given method."""
    x, g = x.astype(jnp.float32), g.astype(jnp.float32)
    cut, padding = seen.of(x.shape[1:3], taps, g.shape[1:3], stride=stride, padding=padding)
    taps = [k - sum(ends) for k, ends in zip(taps, cut, strict=True)]
    way = way or weight_gradient_way(
        x.shape, g.shape, taps=taps, stride=stride, groups=groups, compiled=compiled
    )
    dw = _weight_gradient(x, g, taps=taps, stride=stride, padding=padding, groups=groups, way=way)
    return seen.with_zeros(dw, cut)


def _weight_gradient(
    x: Array, g: Array, *, taps: Pair, stride: Pair, padding: Pads, groups: int, way: str
) -> Array:
    if way == "direct":
        return direct.weight_gradient(
            x, g, taps=taps, stride=stride, padding=padding, groups=groups
        )
    if way == "fused":
        return fused.weight_gradient(x, g, taps=taps[0], padding=padding, groups=groups)
    if way in ("winograd2", "winograd4"):
        tile = int(way[-1])
        rows = 256 if taps[0] == 3 else 1024
        images = _images(rows, [-(-n // tile) for n in g.shape[1:3]])
        return winograd.weight_gradient(
            x, g, taps=taps[0], padding=padding, tile=tile, images=images
        )
    if way == "crossed":
        images = _images(8192, g.shape[1:3])
        return blocked.crossed_weight_gradient(x, g, taps=taps, padding=padding, images=images)
    if way == "wide":
        product = partial(_blocked_weight_gradient, taps=None)
        return few.wide_weight_gradient(x, g, taps=taps, padding=padding, t=4, product=product)
    return _blocked_weight_gradient(x, g, taps=taps, stride=stride, padding=padding)


def _blocked_weight_gradient(
    x: Array,
    g: Array,
    *,
    taps: Pair | None,
    stride: Pair = (1, 1),
    padding: Pads = ((0, 0), (0, 0)),
) -> Array:
    """Without taps: their number follows from the shapes of unpadded x and g."""
    if taps is None:
        taps = [n - m + 1 for n, m in zip(x.shape[1:3], g.shape[1:3], strict=True)]
    images = _images(4096 if x.shape[-1] <= 32 else 1024, g.shape[1:3])
    return blocked.weight_gradient(x, g, taps=taps, stride=stride, padding=padding, images=images)


def pays_for_transforms(channels: Pair, outputs: int) -> bool:
    """Whether Winograd saves more than it spends on a group's channels and on so many outputs.

    Its weights are transformed once a call, which costs as much as some 25 outputs.
    """
    return min(channels) >= 16 and outputs >= 64


def _images(rows: int, size: Pair) -> int:
    """The number of images per block with this many rows."""
    return max(1, rows // (size[0] * size[1]))


def _xla(x: Array, w: Array, *, stride: Pair = (1, 1), padding: Pads = ((0, 0), (0, 0))) -> Array:
    return lax.conv_general_dilated(x, w, stride, padding, dimension_numbers=NHWC)
