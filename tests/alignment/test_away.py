"""Un-aligned copies: the same function, and as unlike as brute force finds."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from slow import SLOW

from mcjax import models
from mcjax.alignment import (
    away_permutations,
    permutation_spec,
    permute,
    unaligned_copy,
    weight_matching,
)
from mcjax.core.errors import UserError
from mcjax.models.network import from_linen

KEY = jax.random.key(0)


def created(name, shape, **options):
    network = from_linen(models.create(name, num_classes=3, **options), shape)
    variables = jax.device_get(network.init(jax.random.key(1)))
    random = np.random.default_rng(0)
    # Statistics and scales that differ by channel, so that a wrong order shows.
    variables = jax.tree.map(lambda w: w + random.random(w.shape).astype(w.dtype) / 2, variables)
    return network, variables, permutation_spec(network.apply, variables, shape)


def product(a, b):
    pairs = zip(jax.tree.leaves(a["params"]), jax.tree.leaves(b["params"]), strict=True)
    return sum(float(np.vdot(np.float64(x), np.float64(y))) for x, y in pairs)


@pytest.mark.parametrize("by", ["weights", "activations", "random"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cnn", {"width": 4}),
        ("cnn", {"width": 4, "batch_norm": True}),
        pytest.param("resnet8", {}, marks=SLOW),
    ],
    ids=lambda v: str(v),
)
def test_a_copy_computes_the_same_and_lies_far_away(name, options, by):
    network, variables, spec = created(name, (8, 8, 1), **options)
    x = jnp.asarray(np.random.default_rng(1).random((4, 8, 8, 1)), jnp.float32)
    copy = unaligned_copy(KEY, spec, network.apply, variables, by=by, images=[x])
    np.testing.assert_allclose(
        network.apply(copy, x), network.apply(variables, x), rtol=1e-4, atol=1e-4
    )
    assert product(variables, copy) < 0.8 * product(variables, variables)
    assert jax.tree.structure(copy) == jax.tree.structure(variables)


def test_the_inner_product_is_brute_forces_least():
    network, variables, spec = created("mlp", (2, 2, 1), hidden=(5,))
    matching = weight_matching(KEY, spec, variables, variables, away=True)
    least = min(
        product(variables, permute(spec, (np.array(p),), variables))
        for p in itertools.permutations(range(5))
    )
    assert matching.inner_products[-1] == pytest.approx(least, rel=1e-9)
    copy = unaligned_copy(KEY, spec, network.apply, variables)
    assert product(variables, copy) == pytest.approx(least, rel=1e-9)


def test_each_sweep_brings_the_copy_farther_away():
    _, variables, spec = created("cnn", (8, 8, 1), width=4)
    products = weight_matching(KEY, spec, variables, variables, away=True).inner_products
    assert products[0] == pytest.approx(product(variables, variables), rel=1e-9)
    assert (np.diff(products) <= 0).all()
    assert products[-1] < 0.5 * products[0]


def test_an_unknown_way_is_refused():
    network, variables, spec = created("mlp", (2, 2, 1), hidden=(5,))
    with pytest.raises(UserError, match="use weights, activations or random"):
        away_permutations(KEY, spec, network.apply, variables, by="wieghts")
