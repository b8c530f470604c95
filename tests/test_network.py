import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mcjax import models
from mcjax.errors import UserError
from mcjax.network import Network, from_apply, from_linen

X = jnp.linspace(0, 1, 3 * 8 * 8).reshape(3, 8, 8, 1)


def test_from_linen_describes_the_module():
    network = from_linen(models.create("resnet8", num_classes=4, width=2), (8, 8, 1))
    assert network.has_batch_stats
    assert network.num_classes == 4
    assert network.piecewise_linear
    variables = jax.eval_shape(network.init, jax.random.key(0))
    assert set(variables) == {"params", "batch_stats"}


def test_the_key_makes_the_start():
    network = from_linen(models.create("mlp", num_classes=4), (8, 8, 1))
    one, again, other = (network.init(jax.random.key(seed)) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, one, again)
    assert np.any(one["params"]["fc1"]["kernel"] != other["params"]["fc1"]["kernel"])


def test_init_is_one_program_and_composes_with_transformations():
    network = from_linen(models.create("mlp", num_classes=4, hidden=()), (2, 2, 1))
    keys = jax.random.split(jax.random.key(0), 3)
    (program,) = jax.make_jaxpr(network.init)(keys[0]).eqns
    assert program.primitive.name == "jit"

    each = [network.init(key) for key in keys]
    for mapped in (jax.vmap(network.init)(keys), jax.jit(jax.vmap(network.init))(keys)):
        jax.tree.map(
            lambda together, *each: np.testing.assert_allclose(together, np.stack(each), rtol=1e-5),
            mapped,
            *each,
        )


def test_apply_train_gives_the_new_statistics_and_leaves_the_old():
    network = from_linen(models.create("resnet8", num_classes=4, width=2), (8, 8, 1))
    variables = network.init(jax.random.key(0))
    logits, stats = jax.jit(network.apply_train)(jax.random.key(1), variables, X)
    assert logits.shape == (3, 4)
    assert np.any(stats["bn"]["mean"] != variables["batch_stats"]["bn"]["mean"])
    np.testing.assert_array_equal(variables["batch_stats"]["bn"]["mean"], np.zeros(8))
    assert jax.tree.structure(stats) == jax.tree.structure(variables["batch_stats"])


def test_a_module_that_says_nothing_is_not_taken_for_piecewise_linear():
    class Smooth(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return nn.Dense(2)(nn.gelu(x.reshape(len(x), -1)))

    network = from_linen(Smooth(), (8, 8, 1))
    assert not network.piecewise_linear
    assert not network.has_batch_stats
    logits, stats = network.apply_train(jax.random.key(1), network.init(jax.random.key(0)), X)
    assert logits.shape == (3, 2)
    assert stats == {}


@pytest.mark.parametrize("image_shape", [(8, 8), (8, 8, 0), (8, 8, "1")])
def test_image_shape_must_be_height_width_channels(image_shape):
    with pytest.raises(UserError, match="height, width, channels"):
        from_linen(models.create("mlp", num_classes=4), image_shape)


def test_an_nnx_model_through_split_and_merge():
    class Classifier(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(1, 4, (3, 3), rngs=rngs)
            self.dense = nnx.Linear(8 * 8 * 4, 3, rngs=rngs)

        def __call__(self, x):
            x = nnx.relu(self.conv(x))
            return self.dense(x.reshape(len(x), -1))

    graph, start = nnx.split(Classifier(nnx.Rngs(0)))
    _, end = nnx.split(Classifier(nnx.Rngs(1)))
    network = from_apply(lambda variables, x: nnx.merge(graph, variables)(x), num_classes=3)

    middle = jax.tree.map(lambda a, b: 0.5 * (a + b), start, end)
    logits = jax.jit(network.apply)(middle, X)
    assert logits.shape == (3, 3)
    assert jax.tree.structure(middle) == jax.tree.structure(start)
    kernels = [np.asarray(tree["conv"]["kernel"]) for tree in (start, middle, end)]
    np.testing.assert_allclose(kernels[1], (kernels[0] + kernels[2]) / 2, rtol=1e-6)
    assert np.any(logits != network.apply(start, X))

    same, stats = network.apply_train(jax.random.key(0), middle, X)
    np.testing.assert_allclose(same, logits, rtol=1e-5, atol=1e-6)
    assert stats == {}


def test_from_apply_without_init_says_so_when_asked():
    network = from_apply(lambda w, x: x.reshape(len(x), -1) @ w)
    assert isinstance(network, Network)
    with pytest.raises(UserError, match="init"):
        network.init(jax.random.key(0))


def test_from_apply_with_init():
    network = from_apply(
        lambda w, x: x.reshape(len(x), -1) @ w,
        init=lambda key: jax.random.normal(key, (64, 2)),
        num_classes=2,
        piecewise_linear=True,
    )
    assert network.apply(network.init(jax.random.key(0)), X).shape == (3, 2)
    assert network.piecewise_linear
