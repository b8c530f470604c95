import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcjax import models
from mcjax.core.errors import UserError
from mcjax.models.vgg_torchvision import adaptive_mean_pool


@pytest.mark.parametrize(
    ("options", "published"),  # torchvision's table of parameters, ImageNet
    [
        ({"depth": 11}, 132_863_336),
        ({"depth": 16}, 138_357_544),
        ({"depth": 16, "batch_norm": True}, 138_365_992),
        ({"depth": 19}, 143_667_240),
    ],
)
def test_parameter_counts_as_published(options, published):
    module = models.create("vgg_torchvision", num_classes=1000, **options)
    x = jnp.zeros([1, 224, 224, 3])
    params = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == published


@pytest.mark.parametrize(("height", "width", "size"), [(5, 3, 2), (1, 2, 7), (14, 9, 7), (7, 7, 7)])
def test_adaptive_mean_pool_against_a_plain_loop(height, width, size):
    x = np.random.default_rng(0).uniform(size=(2, height, width, 3)).astype(np.float32)
    expected = np.empty((2, size, size, 3))
    for i in range(size):
        for j in range(size):
            rows = [
                h
                for h in range(height)
                if i * height < (h + 1) * size and h * size < (i + 1) * height
            ]
            columns = [
                w for w in range(width) if j * width < (w + 1) * size and w * size < (j + 1) * width
            ]
            expected[:, i, j] = x[:, rows][:, :, columns].mean((1, 2))
    np.testing.assert_allclose(adaptive_mean_pool(jnp.asarray(x), size), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "options", [{"depth": 12}, {"width": 0}, {"hidden": 0}, {"dropout_rate": 1.0}]
)
def test_mistakes(options):
    with pytest.raises(UserError, match="vgg_torchvision"):
        models.create("vgg_torchvision", num_classes=10, **options)
