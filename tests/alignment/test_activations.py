"""Activation matching beside layers' own outputs, NumPy's correlations and a known answer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from slow import all_but

from mcjax import models
from mcjax.alignment import (
    activation_matching,
    permutation_spec,
    permute,
    random_permutations,
)
from mcjax.alignment.activations import product_outputs
from mcjax.core.errors import UserError
from mcjax.models.network import from_linen

SHAPE = (8, 8, 1)
NETWORKS = {
    "cnn": ("cnn", {"width": 4}),
    "cnn with BatchNorm": ("cnn", {"width": 4, "batch_norm": True}),
    "resnet8": ("resnet8", {}),
}


def images(number, seed=0):
    draws = np.random.default_rng(seed).random((number, *SHAPE))
    return jnp.asarray(draws, jnp.float32)


def created(name):
    network = from_linen(
        models.create(NETWORKS[name][0], num_classes=10, **NETWORKS[name][1]), SHAPE
    )
    variables = jax.device_get(network.init(jax.random.key(0)))
    return network, variables, permutation_spec(network.apply, variables, SHAPE)


@pytest.mark.parametrize("name", all_but(set(NETWORKS) - {"resnet8"}, NETWORKS))
def test_taps_are_the_outputs_of_convolutions_and_dense_layers(name):
    network, variables, spec = created(name)
    layers = network.layer_outputs(variables, images(3))
    found = product_outputs(network.apply, variables, images(3))
    kernels = {
        path.rsplit("/", 1)[0].removeprefix("params/") for path in spec.axes if "kernel" in path
    }
    expected = [v for path, v in layers.items() if path in kernels]
    assert len(found) == len(expected) == len(kernels)
    for one, layer in zip(found, expected, strict=True):
        # A dense layer's output has its bias added, which no correlation sees.
        difference = np.asarray(layer - one)
        np.testing.assert_allclose(difference - difference[:1], 0, atol=1e-5)
    assert None not in spec.taps
    assert all(
        found[tap.place].shape[tap.axis] == n for tap, n in zip(spec.taps, spec.sizes, strict=True)
    )


@pytest.mark.parametrize("name", all_but(set(NETWORKS) - {"resnet8"}, NETWORKS))
def test_a_permuted_copy_is_recovered(name):
    network, a, spec = created(name)
    moved = permute(spec, random_permutations(jax.random.key(1), spec), a)
    found = activation_matching(spec, network.apply, a, moved, [images(16), images(16, 1)])
    jax.tree.map(np.testing.assert_array_equal, permute(spec, found, moved), a)


def test_the_least_alike_channels_are_those_of_numpys_correlations():
    network = from_linen(models.create("mlp", num_classes=3, hidden=(6,)), (2, 2, 1))
    a, b = (jax.device_get(network.init(jax.random.key(i))) for i in range(2))
    spec = permutation_spec(network.apply, a, (2, 2, 1))
    x = jnp.asarray(np.random.default_rng(0).random((40, 2, 2, 1)), jnp.float32)
    # Batches of different sizes: moments are weighted by their images.
    found = activation_matching(spec, network.apply, a, b, [x[:30], x[30:]], away=True)
    u, v = (np.asarray(x).reshape(40, 4) @ one["params"]["fc1"]["kernel"] for one in (a, b))
    deviations = np.outer(u.std(0), v.std(0))
    correlation = np.corrcoef(u.T, v.T)[:6, 6:] * deviations / (deviations + 1e-4)
    np.testing.assert_array_equal(found[0], linear_sum_assignment(correlation)[1])


def test_without_images_or_with_nan_one_line_says_so():
    network, a, spec = created("cnn")
    with pytest.raises(UserError, match="no images to compare activations on"):
        activation_matching(spec, network.apply, a, a, [])
    with pytest.raises(UserError, match="activations are not finite"):
        activation_matching(spec, network.apply, a, a, [images(2) * np.nan])
