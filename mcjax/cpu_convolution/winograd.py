"""Convolutions at stride 1 with fewer multiplications: Winograd's F(m x m, r x r).

An r-tap filter over m outputs is a bilinear form of rank a = m + r - 1:
y = A^T [(G w) * (B^T x)], and in two dimensions each matrix acts on rows and on columns. With
channels, the elementwise product becomes a * a matrix products over them: for F(2x2, 3x3) sixteen
in place of thirty-six. The weight gradient is the same form read the other way:
dw = G^T [(B^T x) * (A g)].

Source: Winograd (1980), Arithmetic Complexity of Computations; Lavin and Gray (2016), Fast
Algorithms for Convolutional Neural Networks.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from mcjax.cpu_convolution.blocked import Pads, by_blocks, pad, sum_blocks


class Form(NamedTuple):
    """B^T (a, a), G (a, r) and A^T (m, a) of F(m, r)."""

    Bt: np.ndarray
    G: np.ndarray
    At: np.ndarray


def toom_cook(m: int, r: int, points: tuple[float, ...]) -> Form:
    """F(m, r) by evaluation at a - 1 points and at infinity.

    The columns of A^T and the rows of G are powers of the points; B^T then holds Lagrange's
    polynomials, scaled by rows of G.
    """
    a = m + r - 1
    p = np.array(points, np.float64)
    powers = lambda n: np.vstack([p[:, None] ** np.arange(n), np.eye(n)[-1:]])  # noqa: E731
    # Row j of B^T: the coefficients of the product of (z - p_k) over k != j; last: over all k.
    Bt = np.zeros((a, a))
    G = powers(r)
    for j in range(a - 1):
        others = np.delete(p, j)
        Bt[j, : a - 1] = np.poly(others)[::-1]
        G[j] /= np.prod(p[j] - others)
    Bt[-1] = np.poly(p)[::-1]
    return Form(Bt.astype(np.float32), G.astype(np.float32), powers(m).T.astype(np.float32))


# The rounding error of these six points is 1e-6 to 3e-6 (512 channels), half as large as with 1, -1, 2 and -1/2; the
# first two matrices have no rounding of their own. winograd.c has the same points.
POINTS = (0, 0.75, -0.75, 1.5, -1.5)
FORMS = {
    (2, 3): toom_cook(2, 3, (0, 1, -1)),
    (4, 3): toom_cook(4, 3, POINTS),
    (2, 5): toom_cook(2, 5, POINTS),
}


def forward(x: Array, w: Array, *, padding: Pads, tile: int, images: int) -> Array:
    """The convolution of x (batch, h, w, i) with w (r, r, i, o) at stride 1."""
    r, o = w.shape[0], w.shape[-1]
    form = FORMS[tile, r]
    a = len(form.Bt)
    h, wd = (n + sum(p) - r + 1 for n, p in zip(x.shape[1:3], padding, strict=True))
    th, tw = -(-h // tile), -(-wd // tile)
    u = sandwich(form.G, w).reshape(a * a, -1, o)

    def block(x: Array) -> Array:
        v = transform(form.Bt, _pad_to(x, padding, (th, tw), tile, r), (th, tw), tile)
        m = lax.dot_general(v, u, (((2,), (1,)), ((0,), (0,))))
        y = sandwich(form.At, m.reshape(a, a, -1, o)).reshape(tile, tile, -1, th, tw, o)
        y = y.transpose(2, 3, 0, 4, 1, 5).reshape(-1, th * tile, tw * tile, o)
        return y[:, :h, :wd]

    return by_blocks(block, x, images)


def weight_gradient(
    x: Array, g: Array, *, taps: int, padding: Pads, tile: int, images: int
) -> Array:
    """The gradient (r, r, i, o) of that convolution's weights, given the output's g."""
    form = FORMS[tile, taps]
    a, (h, wd, o) = len(form.Bt), g.shape[1:]
    th, tw = -(-h // tile), -(-wd // tile)

    def block(x: Array, g: Array) -> Array:
        v = transform(form.Bt, _pad_to(x, padding, (th, tw), tile, taps), (th, tw), tile)
        g = pad(g, [(0, th * tile - h), (0, tw * tile - wd)])
        s = transform(form.At.T, g, (th, tw), tile)
        return lax.dot_general(v, s, (((1,), (1,)), ((0,), (0,))))

    return sandwich(form.G.T, sum_blocks(block, x, g, images).reshape(a, a, -1, o))


def combine(matrix: np.ndarray, parts: list[Array]) -> list[Array]:
    """A small constant matrix times a column of arrays, without multiplying by 0, 1 and -1."""
    rows = []
    for coefficients in matrix:
        total: Array | None = None
        for c, part in zip(coefficients, parts, strict=True):
            if c == 0:
                continue
            term = part if abs(c) == 1 else part * np.float32(abs(c))
            if total is None:
                total = term if c > 0 else -term
            else:
                total = total + term if c > 0 else total - term
        assert total is not None
        rows.append(total)
    return rows


def sandwich(matrix: np.ndarray, z: Array) -> Array:
    """M z M^T over the first two axes."""
    n = matrix.shape[1]
    rows = jnp.stack(combine(matrix, [z[k] for k in range(n)]))
    return jnp.stack(combine(matrix, [rows[:, k] for k in range(n)]), 1)


def transform(matrix: np.ndarray, x: Array, tiles: tuple[int, int], m: int) -> Array:
    """M z M^T for each tile z of the images, with tiles m pixels apart: (entries, tiles, channels)."""
    n = matrix.shape[1]
    ends = [m * (t - 1) + 1 for t in tiles]
    rows = jnp.stack(combine(matrix, [x[:, k : k + ends[0] : m] for k in range(n)]))
    both = jnp.stack(combine(matrix, [rows[:, :, :, k : k + ends[1] : m] for k in range(n)]), 1)
    return both.reshape(len(matrix) ** 2, -1, x.shape[-1])


def _pad_to(x: Array, padding: Pads, tiles: tuple[int, int], m: int, r: int) -> Array:
    """Pads x for the convolution, and further so that full tiles cover it."""
    whole = [
        (low, t * m + r - 1 - n - low)
        for n, (low, _), t in zip(x.shape[1:3], padding, tiles, strict=True)
    ]
    return pad(x, whole)
