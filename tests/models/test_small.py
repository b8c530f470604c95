import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

from mcjax import models
from mcjax.models.network import from_linen


def count(name, image_shape, **options):
    network = from_linen(models.create(name, num_classes=10, **options), image_shape)
    variables = jax.eval_shape(network.init, jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def test_mlp_parameters():
    assert count("mlp", (8, 8, 1), hidden=(20, 30)) == 65 * 20 + 21 * 30 + 31 * 10
    assert count("mlp", (8, 8, 1), hidden=()) == 65 * 10


def test_cnn_parameters():
    convolutions = 10 * 32 + (9 * 32 + 1) * 64 + (9 * 64 + 1) * 128
    assert count("cnn", (28, 28, 1)) == convolutions + (3 * 3 * 128 + 1) * 128 + 129 * 10
    assert count("cnn", (8, 8, 1)) == convolutions + (128 + 1) * 128 + 129 * 10


def test_cnn_with_batch_norm_has_a_scale_and_a_bias_more_for_each_channel():
    plain, normalised = (count("cnn", (8, 8, 1), batch_norm=b) for b in (False, True))
    assert normalised - plain == 2 * (32 + 64 + 128)
    network = from_linen(models.create("cnn", num_classes=10, batch_norm=True), (8, 8, 1))
    assert network.has_batch_stats


def test_cnn_leaves_out_pools_on_the_smallest_images():
    assert count("cnn", (4, 4, 1)) == count("cnn", (8, 8, 1))


@pytest.mark.slow
def test_handwritten_digits_are_learnt_in_seconds():
    images, labels = load_digits(return_X_y=True)
    labels = labels.astype(np.int32)
    images = (images.reshape(-1, 8, 8, 1) / 16).astype(np.float32)
    network = from_linen(models.create("cnn", num_classes=10, width=8), (8, 8, 1))
    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(variables, state, x, y):
        def loss(variables):
            logits = network.apply(variables, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        updates, state = optimizer.update(jax.grad(loss)(variables), state)
        return optax.apply_updates(variables, updates), state

    rng = np.random.default_rng(0)
    order = rng.permutation(len(images))
    test, train = order[:360], order[360:]
    variables = network.init(jax.random.key(0))
    state = optimizer.init(variables)
    for _ in range(10):
        rng.shuffle(train)
        for batch in np.split(train[: len(train) // 64 * 64], len(train) // 64):
            variables, state = step(variables, state, images[batch], labels[batch])
    predicted = jnp.argmax(network.apply(variables, images[test]), axis=1)
    assert np.mean(predicted == labels[test]) > 0.96
