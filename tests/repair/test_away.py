"""Training away from a network: the loss by hand, where it starts, and the norm that it keeps."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcjax.core.errors import UserError
from mcjax.models.given import as_network
from mcjax.models.network import from_apply, from_linen
from mcjax.repair import away

KEY = jax.random.key(1)


def test_the_start_is_uniform_with_the_suspects_norm():
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(200, 50)), jnp.float32)
    new = np.asarray(away.distant_start(KEY, kernel), np.float64)
    norm = np.linalg.norm(kernel)
    assert np.linalg.norm(new) == pytest.approx(norm, rel=1e-5)
    # Uniform in [-a, a] has norm a sqrt(n / 3).
    limit = norm / np.sqrt(new.size / 3)
    assert np.abs(new).max() == pytest.approx(limit, rel=0.01)
    np.testing.assert_allclose(
        np.quantile(new / limit, [0.25, 0.5, 0.75]), [-0.5, 0, 0.5], atol=0.03
    )


def test_the_loss_by_hand():
    """Logits are x w: two images, of which one is below the floor."""

    def apply(variables, x):
        return x.reshape(len(x), -1) @ variables["params"]["fc"]["kernel"]

    x, y = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 0])
    w, w0 = np.array([[4.0, 0.0], [1.0, 2.0]]), np.array([[1.0, 0.0], [1.0, -2.0]])
    losses = np.log(np.exp(x @ w).sum(1)) - (x @ w)[:, 0]  # 0.018 and 1.31
    expected = 0.5 * np.maximum(losses - 0.1, 0).mean() - np.linalg.norm(w - w0)
    loss_fn = away.distance_loss(from_apply(apply), "fc/kernel", weight=0.5, eps=0.1)
    batch = {"image": jnp.float32(x).reshape(2, 1, 1, 2), "label": jnp.asarray(y)}
    params = {"fc": {"kernel": jnp.float32(w)}}
    loss, (_, metrics) = loss_fn(KEY, jnp.int32(0), params, {}, jnp.float32(w0), batch)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert float(metrics.cross_entropy) == pytest.approx(losses.mean(), rel=1e-5)


def test_the_last_kernel_is_that_of_the_layer_called_last():
    """Not the last in the order of names, which JAX sorts."""

    class Named(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            x = nn.Dense(3, name="z")(x.reshape(len(x), -1))
            return nn.Dense(3, name="a")(nn.relu(x))

    network = from_linen(Named(), (2, 2, 1))
    variables = network.init(KEY)
    image = jnp.zeros((1, 2, 2, 1))
    assert away.last_kernel(network, variables, image) == "a/kernel"


def test_without_layers_the_last_kernel_has_an_axis_of_the_classes():
    def apply(v, x):
        return jnp.tanh(x.reshape(len(x), -1) @ v["hidden"]) @ v["out"].T

    image = jnp.zeros((1, 2, 2, 1))
    for width, expected in ((7, "out"), (3, None)):
        params = {"hidden": jnp.ones((4, width)), "out": jnp.ones((3, width))}
        network, _ = as_network(apply, params)
        variables = {"params": params, "batch_stats": {}}
        if expected:
            assert away.last_kernel(network, variables, image) == expected
        else:
            with pytest.raises(UserError, match="hidden, out could be it"):
                away.last_kernel(network, variables, image)
    with pytest.raises(UserError, match="no dense layer"):
        away.kernels({"conv": jnp.ones((3, 3, 1, 2))})
