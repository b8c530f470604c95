"""Weight matching beside brute force, a plain loop, and networks whose answer is known."""

import itertools

import jax
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from mcjax import models
from mcjax.alignment import (
    align,
    identity,
    permutation_spec,
    permute,
    random_permutations,
    weight_matching,
)
from mcjax.core.errors import UserError
from mcjax.core.keys import stream
from mcjax.models.network import from_linen

KEY = jax.random.key(0)


def drawn(network, seed):
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(network.init, KEY)
    return jax.tree.map(lambda w: random.standard_normal(w.shape).astype(np.float32), shapes)


def mlp(hidden):
    network = from_linen(models.create("mlp", num_classes=3, hidden=hidden), (2, 2, 1))
    a, b = drawn(network, 1), drawn(network, 2)
    return permutation_spec(network.apply, a, (2, 2, 1)), a, b


def product(a, b):
    leaves = zip(jax.tree.leaves(a["params"]), jax.tree.leaves(b["params"]), strict=True)
    return sum(float(np.vdot(x.astype(np.float64), y)) for x, y in leaves)


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        ("mlp", {"hidden": (32, 32, 32)}, (4, 4, 1)),
        ("cnn", {"width": 4}, (8, 8, 1)),
        ("cnn", {"width": 4, "batch_norm": True}, (8, 8, 1)),
        ("resnet8", {}, (8, 8, 3)),
        ("preresnet", {"depth": 20, "block": "bottleneck", "width": 4}, (8, 8, 3)),
        ("wide_resnet", {"depth": 10, "width": 1}, (8, 8, 3)),
    ],
    ids=lambda v: str(v),
)
def test_a_permuted_copy_is_recovered_bit_for_bit(name, options, shape):
    network = from_linen(models.create(name, num_classes=10, **options), shape)
    a = drawn(network, 0)
    spec = permutation_spec(network.apply, a, shape)
    permuted = permute(spec, random_permutations(jax.random.key(1), spec), a)
    assert product(a, permuted) < 0.9 * product(a, a)
    jax.tree.map(np.testing.assert_array_equal, align(KEY, spec, a, permuted), a)


def test_one_hidden_layer_is_solved_exactly():
    spec, a, b = mlp((5,))
    best = max(
        product(a, permute(spec, (np.array(p),), b)) for p in itertools.permutations(range(5))
    )
    matching = weight_matching(KEY, spec, a, b)
    assert matching.inner_products[-1] == pytest.approx(best, rel=1e-12)
    assert product(a, align(KEY, spec, a, b)) == pytest.approx(best, rel=1e-12)


def test_two_hidden_layers_beside_brute_force():
    """Coordinate ascent finds the best of all 36 pairs from some order, and never one above it."""
    spec, a, b = mlp((3, 3))
    pairs = itertools.product(itertools.permutations(range(3)), repeat=2)
    best = max(product(a, permute(spec, tuple(map(np.array, pair)), b)) for pair in pairs)
    found = [
        weight_matching(jax.random.key(seed), spec, a, b).inner_products[-1] for seed in range(8)
    ]
    assert max(found) == pytest.approx(best, rel=1e-12)


def test_no_single_class_can_be_bettered_at_the_end():
    spec, a, b = mlp((4, 4))
    permutations = weight_matching(KEY, spec, a, b).permutations
    reached = product(a, permute(spec, permutations, b))
    for k in range(2):
        for p in itertools.permutations(range(4)):
            other = list(permutations)
            other[k] = np.array(p)
            assert product(a, permute(spec, tuple(other), b)) <= reached + 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_the_inner_product_never_falls(seed):
    network = from_linen(models.create("resnet8", num_classes=10, width=4), (8, 8, 3))
    a, b = drawn(network, seed), drawn(network, seed + 10)
    spec = permutation_spec(network.apply, a, (8, 8, 3))
    products = weight_matching(KEY, spec, a, b).inner_products
    assert products[0] == pytest.approx(product(a, b), rel=1e-9)
    assert all(after >= before for before, after in itertools.pairwise(products))
    assert products[-1] > products[0]
    assert product(a, align(KEY, spec, a, b)) == pytest.approx(products[-1], rel=1e-9)


def test_beside_a_plain_loop():
    """Git Re-Basin's update of an mlp, written out with its own matrices."""
    spec, a, b = mlp((7, 6))
    A, B = (
        {k: {n: w.astype(np.float64) for n, w in v.items()} for k, v in one["params"].items()}
        for one in (a, b)
    )
    p = [np.arange(7), np.arange(6)]
    for sweep in range(100):
        before = [q.copy() for q in p]
        for k in np.asarray(jax.random.permutation(stream(KEY, "sweep", sweep), 2)):
            if k == 0:
                into = A["fc1"]["kernel"].T @ B["fc1"]["kernel"]
                out = A["fc2"]["kernel"] @ B["fc2"]["kernel"][:, p[1]].T
                bias = np.outer(A["fc1"]["bias"], B["fc1"]["bias"])
            else:
                into = A["fc2"]["kernel"].T @ B["fc2"]["kernel"][p[0]]
                out = A["fc3"]["kernel"] @ B["fc3"]["kernel"].T
                bias = np.outer(A["fc2"]["bias"], B["fc2"]["bias"])
            p[k] = linear_sum_assignment(into + out + bias, maximize=True)[1]
        if all(np.array_equal(x, y) for x, y in zip(p, before, strict=True)):
            break
    found = weight_matching(KEY, spec, a, b).permutations
    jax.tree.map(np.testing.assert_array_equal, found, tuple(p))


def test_a_leaf_with_the_class_on_two_axes_is_matched_too():
    """A residual layer without a hidden one, x + W x: its kernel has the stream on both axes."""

    def apply(v, x):
        h = x.reshape(len(x), -1) @ v["in"]
        return (h + jax.nn.relu(h) @ v["square"]) @ v["out"]

    random = np.random.default_rng(0)
    shapes = {"in": (4, 6), "square": (6, 6), "out": (6, 3)}
    a, b = ({k: random.standard_normal(s) for k, s in shapes.items()} for _ in range(2))
    spec = permutation_spec(apply, a, (2, 2, 1))
    assert spec.sizes == (6,)
    assert spec.members(0)["square"] == (0, 1)
    products = weight_matching(KEY, spec, a, b).inner_products
    assert all(after >= before for before, after in itertools.pairwise(products))
    moved = permute(spec, random_permutations(KEY, spec), a)
    jax.tree.map(np.testing.assert_array_equal, align(KEY, spec, a, moved), a)


def test_running_statistics_move_but_do_not_count():
    network = from_linen(models.create("cnn", num_classes=3, width=2, batch_norm=True), (8, 8, 1))
    a, b = drawn(network, 0), drawn(network, 1)
    spec = permutation_spec(network.apply, a, (8, 8, 1))
    other = {**b, "batch_stats": jax.tree.map(lambda v: 100 * v + 3, b["batch_stats"])}
    one, two = (weight_matching(KEY, spec, a, v) for v in (b, other))
    jax.tree.map(np.testing.assert_array_equal, one.permutations, two.permutations)
    k = spec.axes["batch_stats/bn1/mean"][0][0][1]
    moved = align(KEY, spec, a, b)["batch_stats"]["bn1"]["mean"]
    np.testing.assert_array_equal(moved, b["batch_stats"]["bn1"]["mean"][one.permutations[k]])


def test_equal_networks_stay():
    spec, a, _ = mlp((4, 4))
    matching = weight_matching(KEY, spec, a, a)
    jax.tree.map(np.testing.assert_array_equal, matching.permutations, identity(spec))
    assert len(matching.inner_products) == 2


def test_types_are_kept():
    spec, a, b = mlp((4,))
    half = jax.tree.map(lambda w: w.astype(np.float16), (a, b))
    assert {w.dtype for w in jax.tree.leaves(align(KEY, spec, *half))} == {np.dtype(np.float16)}


def test_mistakes():
    spec, a, b = mlp((4,))
    with pytest.raises(UserError, match="differ"):
        weight_matching(KEY, spec, a, mlp((5,))[1])
    b["params"]["fc1"]["bias"][0] = np.nan
    with pytest.raises(UserError, match="not finite"):
        weight_matching(KEY, spec, a, b)
