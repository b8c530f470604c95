"""Convolutions in blocks of images: gather the shifted slices, then one matrix product.

The patches of a block fit in the processor's cache. Only slices, concatenations and matrix products
are used, which XLA runs as fast inside a loop as outside.

Shapes: images x (batch, height, width, i); weights w (kh, kw, i, o); output gradients
g (batch, h, w, o); padding ((low, high), (low, high)), which may be negative.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax

Pads = Sequence[tuple[int, int]]
Pair = Sequence[int]


def output_size(
    size: Pair,
    taps: Pair,
    *,
    padding: Pads,
    stride: Pair = (1, 1),
    dilation: Pair = (1, 1),
    spread: Pair = (1, 1),
) -> list[int]:
    """Pixels of the output per axis: floor((s' (n - 1) + low + high - d (k - 1)) / s) + 1.

    Args:
        size: n, pixels of the images.
        taps: k.
        padding: (low, high).
        stride: s.
        dilation: d, between taps.
        spread: s', between pixels.

    Example:
        >>> output_size((28, 28), (3, 5), padding=((1, 1), (0, 0)), stride=(2, 1))
        [14, 24]
    """
    axes = zip(size, taps, padding, stride, dilation, spread, strict=True)
    return [(f * (n - 1) + sum(p) - d * (k - 1)) // s + 1 for n, k, p, s, d, f in axes]


def by_blocks(f: Callable[[Array], Array], x: Array, images: int) -> Array:
    """Applies f, which keeps the batch axis, to blocks of at most `images` images."""
    batch = x.shape[0]
    blocks = math.ceil(batch / images)
    if blocks == 1:
        return f(x)
    size = math.ceil(batch / blocks)
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, blocks * size - batch, 0)] + [(0, 0, 0)] * 3)
    y = lax.map(f, x.reshape(blocks, size, *x.shape[1:]))
    return y.reshape(blocks * size, *y.shape[2:])[:batch]


def pad(x: Array, padding: Pads) -> Array:
    """Pads the two middle axes with zeros, or crops them if the padding is negative."""
    if all(p == 0 for pair in padding for p in pair):
        return x
    spatial = [(low, high, 0) for low, high in padding]
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *spatial, (0, 0, 0)])


def shifted(x: Array, taps: Pair, size: Pair, *, stride: Pair) -> list[Array]:
    """The slice of x for each tap of the window: kh * kw arrays (batch, h, w, i)."""
    (h, w), (sh, sw) = size, stride
    return [
        x[:, a : a + (h - 1) * sh + 1 : sh, b : b + (w - 1) * sw + 1 : sw]
        for a in range(taps[0])
        for b in range(taps[1])
    ]


def forward(x: Array, w: Array, *, stride: Pair, padding: Pads, images: int) -> Array:
    """y[n, p, q, o] = sum over a, b, i of x[n, p*s + a, q*s + b, i] w[a, b, i, o]."""
    kh, kw, i, o = w.shape
    size = output_size(x.shape[1:3], (kh, kw), padding=padding, stride=stride)

    def block(x: Array) -> Array:
        patches = jnp.concatenate(shifted(pad(x, padding), (kh, kw), size, stride=stride), -1)
        return (patches.reshape(-1, kh * kw * i) @ w.reshape(-1, o)).reshape(-1, *size, o)

    return by_blocks(block, x, images)


def weight_gradient(
    x: Array, g: Array, *, taps: Pair, stride: Pair, padding: Pads, images: int
) -> Array:
    """dw[a, b, i, o] = sum over n, p, q of x[n, p*s + a, q*s + b, i] g[n, p, q, o]."""
    (_batch, *size, o), i = g.shape, x.shape[-1]

    def block(x: Array, g: Array) -> Array:
        patches = jnp.concatenate(shifted(pad(x, padding), taps, size, stride=stride), -1)
        patches = patches.reshape(-1, math.prod(taps) * i)
        return lax.dot_general(patches, g.reshape(-1, o), (((0,), (0,)), ((), ())))

    return sum_blocks(block, x, g, images).reshape(*taps, i, o)


def crossed_weight_gradient(x: Array, g: Array, *, taps: Pair, padding: Pads, images: int) -> Array:
    """The same at stride 1, with x shifted along the width only and g along the height.

    One product of kw * i by kh * o covers all taps: kw + kh copies of the pixels instead of kw * kh,
    and a squarer product, at the cost of a few more rows.
    """
    (kh, kw), (_batch, h, w, o), i = taps, g.shape, x.shape[-1]
    rows = h + kh - 1

    def block(x: Array, g: Array) -> Array:
        x, g = pad(x, padding), pad(g, [(kh - 1, kh - 1), (0, 0)])
        columns = jnp.concatenate([x[:, :, b : b + w] for b in range(kw)], -1)
        shifts = [g[:, kh - 1 - a : kh - 1 - a + rows] for a in range(kh)]
        z = jnp.concatenate(shifts, -1).reshape(-1, kh * o)
        return lax.dot_general(columns.reshape(-1, kw * i), z, (((0,), (0,)), ((), ())))

    dw = sum_blocks(block, x, g, images).reshape(kw, i, kh, o)
    return dw.transpose(2, 0, 1, 3)


def sum_blocks(f: Callable[[Array, Array], Array], x: Array, g: Array, images: int) -> Array:
    """Sums f over blocks of at most `images` images of x and g together."""
    batch = x.shape[0]
    blocks = math.ceil(batch / images)
    if blocks == 1:
        return f(x, g)
    size = batch // blocks
    whole = size * blocks

    def split(z: Array) -> Array:
        return z[:whole].reshape(blocks, size, *z.shape[1:])

    def add(k: Array, total: Array) -> Array:
        take = lambda z: lax.dynamic_index_in_dim(z, k, keepdims=False)  # noqa: E731
        return total + f(take(xs), take(gs))

    # Under shard_map the sum varies over the mesh axes that x and g vary over: so must this zero.
    unequal = (x[0, 0, 0, 0] != x[0, 0, 0, 0]) | (g[0, 0, 0, 0] != g[0, 0, 0, 0])
    zero = jnp.where(unequal, 0.0, 0.0).astype(x.dtype)
    shape = jax.eval_shape(f, x[:size], g[:size]).shape
    xs, gs = split(x), split(g)
    total = lax.fori_loop(0, blocks, add, jnp.broadcast_to(zero, shape))
    return total + f(x[whole:], g[whole:]) if whole < batch else total


def input_gradient_strided(
    x: Array, w: Array, *, dilation: Pair, size: Pair, low: Pair, product: Callable[..., Array]
) -> Array:
    """Convolves x, dilated with zeros (dilation - 1 between pixels), without processing the zeros.

    Output pixels p, p + s, p + 2s, ... of a phase p < s depend on the taps of one residue modulo s:
    s * s small convolutions at stride 1, whose outputs are interleaved.
    """
    phases = []
    for ph in range(dilation[0]):
        for pw in range(dilation[1]):
            taps, padding, cut = [], [], []
            for axis, p in enumerate((ph, pw)):
                s, n, k = dilation[axis], x.shape[1 + axis], w.shape[axis]
                first = (low[axis] - p) % s
                count = max(0, -(-(k - first) // s))
                out = -(-(size[axis] - p) // s)
                start = (low[axis] - p - first) // s
                taps.append((first, count))
                padding.append((start, out - 1 + count - n - start))
                cut.append(out)
            if min(c for _, c in taps) == 0 or min(cut) <= 0:
                continue
            (a, _), (b, _) = taps
            y = product(x, w[a :: dilation[0], b :: dilation[1]], padding=padding)
            spread = [
                (p, t - p - ((m - 1) * s + 1), s - 1)
                for p, t, m, s in zip((ph, pw), size, cut, dilation, strict=True)
            ]
            zero = jnp.zeros((), y.dtype)
            phases.append(lax.pad(y, zero, [(0, 0, 0), *spread, (0, 0, 0)]))
    if not phases:
        return jnp.zeros((x.shape[0], *size, w.shape[-1]), x.dtype)
    return sum(phases[1:], phases[0])
