"""`python -m mcjax.cpu_convolution.self_test LIBRARY`: exit code 0 if a compiled direct.c is right here."""

import ctypes
import sys
from functools import partial

import jax
import numpy as np

from mcjax.cpu_convolution import build, direct

# batch, h, w, i, o, taps, stride, padding, groups: all branches of direct.c
CASES = (
    (3, 9, 8, 5, 7, 3, (1, 1), ((1, 1), (1, 1)), 1),
    (40, 8, 8, 32, 48, 3, (1, 1), ((1, 1), (1, 1)), 1),
    (2, 9, 10, 3, 33, 5, (2, 3), ((2, 1), (-1, 2)), 1),
    (5, 2, 2, 16, 16, 1, (1, 1), ((0, 0), (0, 0)), 1),
    (3, 7, 7, 12, 24, 3, (2, 2), ((1, 1), (0, 1)), 3),
    (3, 9, 9, 21, 21, 7, (1, 1), ((3, 3), (3, 3)), 21),
)


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
    build.register(ctypes.CDLL(sys.argv[1]))
    random = np.random.default_rng(0)
    for batch, h, width, i, o, k, stride, padding, groups in CASES:
        x = random.normal(size=(batch, h, width, i)).astype(np.float32)
        w = random.normal(size=(k, k, i // groups, o)).astype(np.float32)
        forward = partial(direct.forward, stride=stride, padding=padding, groups=groups)
        gradient = partial(
            direct.weight_gradient, taps=(k, k), stride=stride, padding=padding, groups=groups
        )
        y = jax.jit(forward)(x, w)
        g = random.normal(size=y.shape).astype(np.float32)
        dw = jax.jit(gradient)(x, g)
        for found, expected in zip((y, dw), exact(x, w, g, stride, padding, groups), strict=True):
            if not np.abs(found - expected).max() <= 4e-6 * np.abs(expected).max():
                sys.exit(f"wrong numbers for {batch, h, width, i, o, k, stride, padding, groups}")


if __name__ == "__main__":
    main()
