"""Dilated taps at stride 1, as plain convolutions of every d-th pixel.

Taps that are d rows apart only meet the rows of one residue modulo d. So an image is taken apart into
d * e smaller ones (phases), one for each residue of rows and columns, which all go into one batch.
"""

from collections.abc import Callable

from jax import Array

from mcjax.cpu_convolution.blocked import Pads, Pair, output_size, pad

NONE = ((0, 0), (0, 0))


def forward(
    x: Array, w: Array, *, dilation: Pair, padding: Pads, product: Callable[..., Array]
) -> Array:
    """y[n, p, q, o] = sum over a, b, i of x[n, p + a*d, q + b*e, i] w[a, b, i, o].

    Args:
        x: Images.
        w: Weights.
        dilation: (d, e).
        padding: Of the images.
        product: (images, weights, padding=) -> outputs, without dilation.
    """
    out = output_size(x.shape[1:3], w.shape[:2], padding=padding, dilation=dilation)
    y = product(_images(x, out, w.shape[:2], dilation, padding), w, padding=NONE)
    return _together(y, dilation)[:, : out[0], : out[1]]


def weight_gradient(
    x: Array,
    g: Array,
    *,
    taps: Pair,
    dilation: Pair,
    padding: Pads,
    product: Callable[..., Array],
) -> Array:
    """dw[a, b, i, o] = sum over n, p, q of x[n, p + a*d, q + b*e, i] g[n, p, q, o].

    Args:
        x: Images.
        g: Gradients of the outputs.
        taps: Of the weights.
        dilation: (d, e).
        padding: Of the images.
        product: (images, gradients, padding=) -> the same without dilation.
    """
    out = g.shape[1:3]
    x = _images(x, out, taps, dilation, padding)
    whole = [(0, -m % d) for m, d in zip(out, dilation, strict=True)]
    return product(x, _phases(pad(g, whole), dilation), padding=NONE)


def _images(x: Array, out: Pair, taps: Pair, dilation: Pair, padding: Pads) -> Array:
    """The phases of the padded images, each as long as the longest needs."""
    whole = [
        (low, m + -m % d + (k - 1) * d - n - low)
        for n, m, k, d, (low, _) in zip(x.shape[1:3], out, taps, dilation, padding, strict=True)
    ]
    return _phases(pad(x, whole), dilation)


def _phases(x: Array, dilation: Pair) -> Array:
    """[B, h*d, w*e, c] as [d*e*B, h, w, c]."""
    (batch, h, w, c), (d, e) = x.shape, dilation
    x = x.reshape(batch, h // d, d, w // e, e, c)
    return x.transpose(2, 4, 0, 1, 3, 5).reshape(-1, h // d, w // e, c)


def _together(y: Array, dilation: Pair) -> Array:
    """Inverts _phases."""
    (_, h, w, c), (d, e) = y.shape, dilation
    y = y.reshape(d, e, -1, h, w, c).transpose(2, 3, 0, 4, 1, 5)
    return y.reshape(-1, h * d, w * e, c)
