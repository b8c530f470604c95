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
    polynomials, scaled (by rows of G) to keep its entries small whole numbers.
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


# -1/2 beside 2, rather than -2, keeps the rounding error of six points near 2e-6.
FORMS = {
    (2, 3): toom_cook(2, 3, (0, 1, -1)),
    (4, 3): toom_cook(4, 3, (0, 1, -1, 2, -0.5)),
    (2, 5): toom_cook(2, 5, (0, 1, -1, 2, -0.5)),
}


def forward(x: Array, w: Array, *, padding: Pads, tile: int, images: int) -> Array:
    """The convolution of x (batch, h, w, i) with w (r, r, i, o) at stride 1."""
    r, o = w.shape[0], w.shape[-1]
    form = FORMS[tile, r]
    a = len(form.Bt)
    h, wd = (n + sum(p) - r + 1 for n, p in zip(x.shape[1:3], padding, strict=True))
    th, tw = -(-h // tile), -(-wd // tile)
    u = _filters(w, form)

    def block(x: Array) -> Array:
        v = _inputs(_pad_to(x, padding, (th, tw), tile, r), form, (th, tw), tile)
        m = [[v[p][q] @ u[p, q] for q in range(a)] for p in range(a)]
        half = [combine(form.At, [m[p][q] for p in range(a)]) for q in range(a)]
        rows = [combine(form.At, [half[q][k] for q in range(a)]) for k in range(tile)]
        y = jnp.stack([jnp.stack(row, 1) for row in rows], 1).reshape(-1, th, tw, tile, tile, o)
        y = y.transpose(0, 1, 3, 2, 4, 5).reshape(-1, th * tile, tw * tile, o)
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
        v = _inputs(_pad_to(x, padding, (th, tw), tile, taps), form, (th, tw), tile)
        g = pad(g, [(0, th * tile - h), (0, tw * tile - wd)])
        s = _gradients(g, form, tile)
        products = [
            lax.dot_general(v[p][q], s[p][q], (((0,), (0,)), ((), ())))
            for p in range(a)
            for q in range(a)
        ]
        return jnp.stack(products)

    m = sum_blocks(block, x, g, images).reshape(a, a, -1, o)
    G = form.G
    rows = combine(G.T, list(m))
    return jnp.stack([jnp.stack(combine(G.T, list(row))) for row in rows])


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


def _filters(w: Array, form: Form) -> Array:
    """G w G^T, as (a, a, i, o)."""
    rows = combine(form.G, list(w))
    return jnp.stack([jnp.stack(combine(form.G, list(row))) for row in rows])


def _pad_to(x: Array, padding: Pads, tiles: tuple[int, int], m: int, r: int) -> Array:
    """Pad x as the convolution asks, and further until whole tiles cover it."""
    whole = [
        (low, t * m + r - 1 - n - low)
        for n, (low, _), t in zip(x.shape[1:3], padding, tiles, strict=True)
    ]
    return pad(x, whole)


def _inputs(x: Array, form: Form, tiles: tuple[int, int], m: int) -> list[list[Array]]:
    """B^T x B of every tile: a * a arrays (rows, i)."""
    (th, tw), a, i = tiles, len(form.Bt), x.shape[-1]
    rows = combine(form.Bt, [x[:, k : k + m * (th - 1) + 1 : m] for k in range(a)])
    return [
        [
            z.reshape(-1, i)
            for z in combine(form.Bt, [row[:, :, k : k + m * (tw - 1) + 1 : m] for k in range(a)])
        ]
        for row in rows
    ]


def _gradients(g: Array, form: Form, m: int) -> list[list[Array]]:
    """A g A^T of every tile: a * a arrays (rows, o)."""
    o = g.shape[-1]
    rows = combine(form.At.T, [g[:, k::m] for k in range(m)])
    return [
        [z.reshape(-1, o) for z in combine(form.At.T, [row[:, :, k::m] for k in range(m)])]
        for row in rows
    ]
