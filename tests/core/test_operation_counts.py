"""Counting a program's operations, against the formulas."""

import jax
import jax.numpy as jnp
from jax import lax

from mcjax import models
from mcjax.core.operation_counts import count
from mcjax.models.network import from_linen


def shape(*dims):
    return jax.ShapeDtypeStruct(dims, jnp.float32)


def convolve(x, w):
    return lax.conv_general_dilated(
        x, w, (2, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def test_a_convolution_and_its_weight_gradient():
    x, w = shape(5, 8, 6, 3), shape(3, 3, 3, 7)
    forward = count(convolve, x, w)
    outputs = 5 * 4 * 6 * 7
    assert forward == (2 * outputs * 9 * 3, outputs)
    gradient = count(jax.grad(lambda w, x: convolve(x, w).sum()), w, x)
    assert gradient.operations == 2 * forward.operations  # the output, then as much for the weights


def test_batched_products_and_loops():
    a, b = shape(4, 2, 3), shape(4, 3, 5)
    assert count(jax.vmap(jnp.matmul), a, b).operations == 4 * 2 * 2 * 3 * 5

    def often(a, b):
        return lax.fori_loop(0, 6, lambda i, c: c + a[0] @ b[0], jnp.zeros((2, 5)))

    assert count(jax.jit(often), a, b).operations == 6 * 2 * 2 * 3 * 5


def test_vgg16_layer_by_layer():
    """Simonyan and Zisserman's configuration D on 32x32 images, and mcjax's classifier."""
    layers = [(3, 64, 32), (64, 64, 32), (64, 128, 16), (128, 128, 16), (128, 256, 8)]
    layers += [(256, 256, 8)] * 2 + [(256, 512, 4)] + [(512, 512, 4)] * 2 + [(512, 512, 2)] * 3
    dense = [(512, 512), (512, 512), (512, 10)]
    network = from_linen(models.create("vgg16", num_classes=10), (32, 32, 3))
    found = count(
        network.apply, jax.eval_shape(network.init, jax.random.key(0)), shape(1, 32, 32, 3)
    )
    assert found.operations == sum(2 * 9 * i * o * n * n for i, o, n in layers) + sum(
        2 * i * o for i, o in dense
    )
    assert found.outputs == sum(o * n * n for _, o, n in layers) + sum(o for _, o in dense)
