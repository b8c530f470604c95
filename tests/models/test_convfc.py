import jax
import jax.numpy as jnp
import pytest

from mcjax import models


@pytest.mark.parametrize(
    ("image_shape", "flat"),
    # 32 -> 15 -> 7 -> 3; 28 -> 13 -> 6 -> 2; 8 -> 3 -> 1, and no third pool
    [((32, 32, 3), 3 * 3 * 128), ((28, 28, 1), 2 * 2 * 128), ((8, 8, 1), 128)],
)
def test_shapes(image_shape, flat):
    module = models.create("convfc", num_classes=10)
    variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros([1, *image_shape]))
    shapes = jax.tree.map(lambda leaf: leaf.shape, variables["params"])
    assert shapes == {
        "conv1": {"kernel": (5, 5, image_shape[-1], 32), "bias": (32,)},
        "conv2": {"kernel": (5, 5, 32, 64), "bias": (64,)},
        "conv3": {"kernel": (5, 5, 64, 128), "bias": (128,)},
        "fc1": {"kernel": (flat, 1000), "bias": (1000,)},
        "fc2": {"kernel": (1000, 1000), "bias": (1000,)},
        "fc3": {"kernel": (1000, 10), "bias": (10,)},
    }
