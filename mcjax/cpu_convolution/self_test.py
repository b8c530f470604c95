"""`python -m mcjax.cpu_convolution.self_test LIBRARY`: exit code 0 if the compiled functions are right here."""

import ctypes
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mcjax.cpu_convolution import build, direct, fused, pooling

# batch, h, w, i, o, taps, stride, padding, groups: all branches of direct.c
CASES = (
    (3, 9, 8, 5, 7, 3, (1, 1), ((1, 1), (1, 1)), 1),
    (40, 8, 8, 32, 48, 3, (1, 1), ((1, 1), (1, 1)), 1),
    (2, 9, 10, 3, 33, 5, (2, 3), ((2, 1), (-1, 2)), 1),
    (5, 2, 2, 16, 16, 1, (1, 1), ((0, 0), (0, 0)), 1),
    (3, 7, 7, 12, 24, 3, (2, 2), ((1, 1), (0, 1)), 3),
    (3, 9, 9, 21, 21, 7, (1, 1), ((3, 3), (3, 3)), 21),
)

# batch, h, w, i, o, taps, padding, groups, tile: all branches of winograd.c; channels are vectors
FUSED = (
    (3, 9, 7, 1, 2, 3, ((1, 1), (1, 1)), 1, 4),
    (2, 5, 6, 6, 9, 3, ((2, 0), (-1, 1)), 1, 2),
    (2, 10, 9, 4, 3, 5, ((2, 2), (2, 2)), 1, 2),
    (3, 8, 8, 2, 4, 3, ((0, 0), (1, 1)), 2, 4),
)

# batch, h, w, channels, window, stride
POOLS = ((2, 7, 9, 21, 3, 2), (3, 6, 6, 16, 2, 2), (1, 5, 4, 3, 4, 1))


def exact_pool(x, t, g, window, stride):
    """The maximum over windows, t where it is, and g spread to there, window by window."""
    y, taken, dx = np.zeros(g.shape, x.dtype), np.zeros(g.shape, t.dtype), np.zeros(x.shape)
    for n, p, q, c in np.ndindex(*g.shape):
        rows = slice(p * stride[0], p * stride[0] + window[0])
        columns = slice(q * stride[1], q * stride[1] + window[1])
        seen = x[n, rows, columns, c]
        place = np.unravel_index(seen.argmax(), seen.shape)
        y[n, p, q, c], taken[n, p, q, c] = seen[place], t[n, rows, columns, c][place]
        dx[n, rows, columns, c][place] += g[n, p, q, c]
    return y, taken, dx


def pools(window, stride):
    """The three functions of pool.c: of x, of (t, x), of (g, x)."""
    options = {
        "window_dimensions": (1, *window, 1),
        "window_strides": (1, *stride, 1),
        "padding": ((0, 0),) * 4,
    }

    def compiled(primitive):
        def call(*operands):
            return pooling.recognise(primitive, *operands, **options)(*operands)

        return jax.jit(call)

    gather, scatter = lax.select_and_gather_add_p, lax.select_and_scatter_add_p
    return [compiled(one) for one in (lax.reduce_window_max_p, gather, scatter)]


def exact(x, w, g, stride, padding, groups):
    """The convolution and the gradient of its weights, summed in float64 tap by tap."""
    (kh, kw, i, o), (_, p, q, _) = w.shape, g.shape
    low = [max(-pair[0], 0) for pair in padding]
    x = np.pad(
        x.astype(np.float64), ((0, 0), *((max(a, 0), max(b, 0)) for a, b in padding), (0, 0))
    )
    y, dw = np.zeros(g.shape), np.zeros(w.shape)
    for a in range(kh):
        for b in range(kw):
            rows = slice(a + low[0], a + low[0] + (p - 1) * stride[0] + 1, stride[0])
            columns = slice(b + low[1], b + low[1] + (q - 1) * stride[1] + 1, stride[1])
            seen = x[:, rows, columns]
            for k in range(groups):
                ins, outs = slice(k * i, (k + 1) * i), slice(k * o // groups, (k + 1) * o // groups)
                y[..., outs] += seen[..., ins] @ w[a, b, :, outs]
                dw[a, b, :, outs] = np.tensordot(
                    seen[..., ins], g[..., outs], ([0, 1, 2], [0, 1, 2])
                )
    return y, dw


def main() -> None:
    """Compares all cases."""
    library = ctypes.CDLL(sys.argv[1])
    build.register(library)
    random = np.random.default_rng(0)
    for batch, h, width, i, o, k, stride, padding, groups in CASES:
        x = random.normal(size=(batch, h, width, i)).astype(np.float32)
        w = random.normal(size=(k, k, i // groups, o)).astype(np.float32)
        forward = partial(direct.forward, stride=stride, padding=padding, groups=groups)
        gradient = partial(
            direct.weight_gradient, taps=(k, k), stride=stride, padding=padding, groups=groups
        )
        y = jax.jit(forward)(x, w)
        if groups == 1 and i % 2 == 0 and library.mcjax_sums_pairs():
            x2, w2 = x.astype(jnp.bfloat16), w.astype(jnp.bfloat16)
            wide = x2.astype(np.float32), w2.astype(np.float32)
            expected, _ = exact(wide[0], wide[1], y, stride, padding, groups)
            if (
                not np.abs(jax.jit(forward)(x2, w2) - expected).max()
                <= 4e-6 * np.abs(expected).max()
            ):
                sys.exit(
                    f"wrong numbers of bfloat16 for {batch, h, width, i, o, k, stride, padding}"
                )
        g = random.normal(size=y.shape).astype(np.float32)
        dw = jax.jit(gradient)(x, g)
        for found, expected in zip((y, dw), exact(x, w, g, stride, padding, groups), strict=True):
            if not np.abs(found - expected).max() <= 4e-6 * np.abs(expected).max():
                sys.exit(f"wrong numbers for {batch, h, width, i, o, k, stride, padding, groups}")
    for batch, h, width, i, o, k, padding, groups, tile in FUSED:
        i, o = i * library.mcjax_lanes(), o * library.mcjax_lanes()
        x = random.normal(size=(batch, h, width, i)).astype(np.float32)
        w = random.normal(size=(k, k, i // groups, o)).astype(np.float32)
        forward = partial(fused.forward, padding=padding, groups=groups, tile_size=tile)
        gradient = partial(
            fused.weight_gradient, taps=k, padding=padding, groups=groups, tile_size=tile
        )
        y = jax.jit(forward)(x, w)
        g = random.normal(size=y.shape).astype(np.float32)
        dw = jax.jit(gradient)(x, g)
        pairs = zip((y, dw), exact(x, w, g, (1, 1), padding, groups), strict=True)
        if not all(np.abs(a - b).max() <= 4e-6 * np.abs(b).max() for a, b in pairs):
            sys.exit(f"wrong numbers of Winograd for {batch, h, width, i, o, k, padding, groups}")
    for *shape, k, s in POOLS:
        x, t = random.normal(size=(2, *shape)).astype(np.float32)
        size, step = (k, k), (s, s)
        largest, taken, spread = pools(size, step)
        y = largest(x)
        g = random.normal(size=y.shape).astype(np.float32)
        for found, expected in zip(
            (y, taken(t, x), spread(g, x)), exact_pool(x, t, g, size, step), strict=True
        ):
            if not np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max():
                sys.exit(f"wrong numbers for pools of {*shape, k, s}")


if __name__ == "__main__":
    main()
