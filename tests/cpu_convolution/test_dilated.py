"""Dilated convolutions against plain ones whose weights have zeros between the taps, by XLA in float64."""

from functools import partial

import jax
import numpy as np
import pytest
from jax import lax
from slow import SLOW

from mcjax import cpu_convolution


@pytest.fixture(autouse=True, scope="module", params=[True, pytest.param(False, marks=SLOW)])
def lowering(request):
    cpu_convolution.enable(compiled=request.param)
    yield
    cpu_convolution.disable()


def convolution(x, w, *, groups, padding, dilation=(1, 1)):
    return lax.conv_general_dilated(
        x, w, (1, 1), padding, rhs_dilation=dilation, feature_group_count=groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


def value_and_gradients(fn, x, w, g):
    y, back = jax.vjp(fn, x, w)
    return y, *back(g)


@pytest.mark.parametrize(
    ("shape", "taps", "dilation", "padding", "groups"),
    [
        ((2, 9, 8, 3, 5), (3, 3), (2, 2), ((2, 2), (2, 2)), 1),
        ((3, 7, 10, 6, 4), (2, 3), (1, 3), ((0, 1), (3, -1)), 2),
        ((2, 8, 6, 5, 5), (3, 3), (2, 3), ((2, 2), (3, 3)), 5),
        ((2, 3, 3, 4, 4), (3, 3), (4, 4), ((4, 4), (4, 4)), 1),  # wider than the images
    ],
)
def test_a_dilated_convolution_is_one_with_zeros_between_the_taps(
    shape, taps, dilation, padding, groups
):
    draw = np.random.default_rng(0).normal
    *images, i, o = shape
    x, w = draw(size=(*images, i)), draw(size=(*taps, i // groups, o))
    spread = [(k - 1) * d + 1 for k, d in zip(taps, dilation, strict=True)]
    wide = np.zeros((*spread, *w.shape[2:]))
    wide[:: dilation[0], :: dilation[1]] = w
    plain = partial(convolution, groups=groups, padding=padding)
    with jax.enable_x64(True):  # which the lowering leaves to XLA
        g = draw(size=jax.eval_shape(plain, x, wide).shape)
        y, dx, dw = map(np.asarray, jax.jit(partial(value_and_gradients, plain))(x, wide, g))
    fn = jax.jit(partial(value_and_gradients, partial(plain, dilation=dilation)))
    found = fn(*(np.float32(z) for z in (x, w, g)))
    for actual, expected in zip(found, (y, dx, dw[:: dilation[0], :: dilation[1]]), strict=True):
        assert actual.shape == expected.shape
        assert np.abs(actual - expected).max() <= 4e-6 * np.abs(expected).max()


def test_no_dilated_convolution_is_left_to_xla_but_one_with_a_stride():
    x, w = np.ones((2, 8, 8, 4), np.float32), np.ones((3, 3, 4, 4), np.float32)
    same = partial(convolution, groups=1, padding="SAME", dilation=(2, 2))
    gradients = jax.jit(partial(value_and_gradients, same))
    text = gradients.lower(x, w, x).as_text()
    assert "rhs_dilate = [2, 2]" not in text
    with cpu_convolution.disabled():
        assert "rhs_dilate = [2, 2]" in gradients.lower(x, w, x).as_text()
