import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcjax import models
from mcjax.models.network import from_linen
from mcjax.models.wide_resnet import WideBlock


def test_28x10_has_36_million_parameters():
    module = models.create("wide_resnet28x10", num_classes=10)
    variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros([1, 32, 32, 3]))
    expected, inputs = (9 * 3 + 1) * 16, 16
    for features in (160, 320, 640):
        for _ in range(4):
            expected += 2 * inputs + (9 * inputs + 1) * features
            expected += 2 * features + (9 * features + 1) * features
            expected += (inputs + 1) * features if inputs != features else 0
            inputs = features
    expected += 2 * 640 + 641 * 10
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == expected
    assert expected / 1e6 == pytest.approx(36.5, abs=0.05)


def test_convolutions_start_as_torch_does_by_default():
    block = WideBlock(features=16, stride=1, dropout_rate=0.0)
    variables = jax.jit(block.init, static_argnums=2)(
        jax.random.key(0), jnp.zeros([1, 8, 8, 16]), False
    )
    layer = variables["params"]["conv2"]
    bound = 1 / np.sqrt(9 * 16)
    for name in ("kernel", "bias"):
        largest = np.max(np.abs(layer[name]))
        assert 0.8 * bound < largest <= bound


def test_drops_out_only_in_training():
    module = models.create("wide_resnet", num_classes=3, depth=10, width=1, dropout_rate=0.5)
    network = from_linen(module, (8, 8, 1))
    variables = jax.eval_shape(network.init, jax.random.key(0))
    x = jnp.zeros([2, 8, 8, 1])
    train = jax.make_jaxpr(network.apply_train)(jax.random.key(0), variables, x)
    assert str(train).count("name=_bernoulli") == 3  # once a block
    assert "random_bits" not in str(jax.make_jaxpr(network.apply)(variables, x))
