"""The permutations found leave the function as it was, and are those that a reader would write down."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from slow import SLOW, all_but

from mcjax import models
from mcjax.alignment import permutation_spec, permute
from mcjax.core.errors import UserError
from mcjax.models import FAMILIES
from mcjax.models.network import from_linen, in_bfloat16

NETWORKS = [
    ("mlp", {"hidden": (5, 6)}, (4, 4, 1)),
    ("cnn", {"width": 3, "hidden": 7}, (8, 8, 1)),
    ("cnn", {"width": 3, "hidden": 7, "batch_norm": True}, (9, 9, 3)),
    ("convfc", {}, (12, 12, 3)),
    ("vgg16", {}, (8, 8, 3)),
    ("vgg16_bn", {"dropout_rate": 0.5}, (8, 8, 3)),
    ("vgg16_wide", {}, (4, 4, 3)),
    ("resnet8", {"width": 4}, (8, 8, 3)),
    ("preresnet20", {"width": 4}, (8, 8, 3)),
    ("preresnet", {"depth": 20, "block": "bottleneck", "width": 3}, (8, 8, 3)),
    ("wide_resnet", {"depth": 10, "width": 1, "dropout_rate": 0.3}, (8, 8, 3)),
    ("preactresnet18", {}, (8, 8, 3)),
    ("resnet18", {}, (16, 16, 3)),
]


def network_and_variables(name, options, shape):
    """A network whose every number is random, so that no channel is like another."""
    network = from_linen(models.create(name, num_classes=10, **options), shape)
    random = np.random.default_rng(0)

    def drawn(path, leaf):
        noise = random.standard_normal(leaf.shape).astype(leaf.dtype)
        if leaf.ndim == 1:
            return 1 + 0.2 * np.abs(noise)
        fan_in = np.prod(leaf.shape[:-1])
        return noise * np.float32(np.sqrt(2 / fan_in))

    shapes = jax.eval_shape(network.init, jax.random.key(0))
    return network, jax.tree.map_with_path(drawn, shapes)


BIG = ("vgg16", "vgg16_wide", "preactresnet18", "resnet18")


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [pytest.param(*case, marks=SLOW) if case[0] in BIG else case for case in NETWORKS],
    ids=lambda v: str(v),
)
def test_a_permuted_network_computes_the_same(name, options, shape):
    network, variables = network_and_variables(name, options, shape)
    spec = permutation_spec(network.apply, variables, shape)
    permuted = permute(spec, tuple(np.roll(np.arange(n), 1) for n in spec.sizes), variables)

    # Every leaf moves but for the bias of the logits.
    for (path, old), new in zip(
        jax.tree.leaves_with_path(variables), jax.tree.leaves(permuted), strict=True
    ):
        assert np.array_equal(old, new) == (old.shape == (10,)), path

    x = jax.random.uniform(jax.random.key(2), (3, *shape))
    apply = jax.jit(network.apply)
    before, after = apply(variables, x), apply(permuted, x)
    scale = float(jnp.abs(before).max())
    assert float(jnp.abs(before - after).max()) < 2e-5 * scale
    assert spec.not_understood == ()


# Deeper ones have the blocks of preresnet20, and of the bottleneck above.
DEEP = ("preresnet56", "preresnet110", "preresnet164")


@pytest.mark.parametrize("name", all_but(FAMILIES, [n for n in models.names() if n not in DEEP]))
def test_no_network_of_the_registry_has_an_operation_without_a_rule(name):
    network = from_linen(models.create(name, num_classes=10), (32, 32, 3))
    spec = permutation_spec(
        network.apply, jax.eval_shape(network.init, jax.random.key(0)), (32, 32, 3)
    )
    assert spec.not_understood == ()
    moved = {path for k in range(len(spec.sizes)) for path in spec.members(k)}
    # Of all leaves only the bias of the logits stays.
    assert len(spec.axes) - len(moved) == 1


def test_the_classes_of_an_mlp_by_hand():
    network = from_linen(models.create("mlp", num_classes=3, hidden=(5, 6)), (2, 2, 1))
    variables = jax.eval_shape(network.init, jax.random.key(0))
    spec = permutation_spec(network.apply, variables, (2, 2, 1))
    fc1, fc2, fc3 = (f"params/fc{i}" for i in (1, 2, 3))
    assert spec.sizes == (5, 6)
    assert spec.members(0) == {f"{fc1}/bias": (0,), f"{fc1}/kernel": (1,), f"{fc2}/kernel": (0,)}
    assert spec.members(1) == {f"{fc2}/bias": (0,), f"{fc2}/kernel": (1,), f"{fc3}/kernel": (0,)}


def test_the_dense_layer_behind_a_flattened_image_moves_in_blocks():
    network = from_linen(models.create("cnn", num_classes=10, width=2, hidden=5), (16, 16, 1))
    variables = jax.eval_shape(network.init, jax.random.key(0))
    spec = permutation_spec(network.apply, variables, (16, 16, 1))
    (pixels, channels) = spec.axes["params/fc1/kernel"][0][:2], spec.axes["params/fc1/kernel"][0][2]
    assert [k for _, k in pixels] == [None, None]
    assert channels[0] == 8
    assert channels[1] == spec.axes["params/conv3/bias"][0][0][1]


def test_a_residual_stream_shares_one_permutation_and_statistics_move_along():
    network = from_linen(models.create("preresnet", num_classes=10, depth=20, width=4), (8, 8, 3))
    variables = jax.eval_shape(network.init, jax.random.key(0))
    spec = permutation_spec(network.apply, variables, (8, 8, 3))
    # Three streams, and one class inside each of nine blocks.
    assert sorted(spec.sizes) == sorted([4, 8, 16] + 3 * [4, 8, 16])
    stream = spec.axes["params/conv1/kernel"][3][0][1]
    members = spec.members(stream)
    for block in range(3):
        assert members[f"params/layer1_{block}/conv2/kernel"] == (3,)
        assert members[f"params/layer1_{block}/conv1/kernel"] == (2,)
        for leaf in ("params/{}/bn1/scale", "batch_stats/{}/bn1/mean", "batch_stats/{}/bn1/var"):
            assert members[leaf.format(f"layer1_{block}")] == (0,)
    assert members["params/layer2_0/shortcut/kernel"] == (2,)


def test_bfloat16_passes_have_the_same_permutations():
    network = from_linen(models.create("cnn", num_classes=10, width=2), (8, 8, 1))
    variables = jax.eval_shape(network.init, jax.random.key(0))
    specs = [
        permutation_spec(n.apply, variables, (8, 8, 1)) for n in (network, in_bfloat16(network))
    ]
    assert specs[0] == specs[1]


def dense(v, x):
    return x.reshape(len(x), -1) @ v["in"]


WEIGHTS = {"in": jnp.zeros([4, 6]), "out": jnp.zeros([6, 3])}

FREE = {
    "gelu": lambda v, x: jax.nn.gelu(dense(v, x)) @ v["out"],
    "layer norm": lambda v, x: jax.nn.standardize(dense(v, x)) @ v["out"],
    "softmax inside": lambda v, x: jax.nn.softmax(dense(v, x)) @ v["out"],
    "einsum": lambda v, x: jnp.einsum("bi,io->bo", jax.nn.relu(dense(v, x)), v["out"]),
    "transposed": lambda v, x: (v["out"].T @ jax.nn.relu(dense(v, x)).T).T,
    "checkpoint": lambda v, x: jax.checkpoint(lambda v, x: jax.nn.relu(dense(v, x)) @ v["out"])(
        v, x
    ),
    "one and scalar": lambda v, x: jnp.where(dense(v, x) > 0, dense(v, x), 0.1) @ v["out"],
    "sliced elsewhere": lambda v, x: (jax.nn.relu(dense(v, x)) @ v["out"])[:, :2],
    "stacked": lambda v, x: jnp.concatenate([jax.nn.relu(dense(v, x)), dense(v, x)], 0) @ v["out"],
}

FIXED = {
    "a constant that differs": lambda v, x: (
        (dense(v, x) * jnp.array(np.arange(6.0)[None])) @ v["out"]
    ),
    "iota": lambda v, x: (dense(v, x) * jnp.arange(6.0)[None]) @ v["out"],
    "cumsum": lambda v, x: jnp.cumsum(dense(v, x), axis=1) @ v["out"],
    "sort": lambda v, x: jnp.sort(dense(v, x), axis=1) @ v["out"],
    "argmax": lambda v, x: (
        dense(v, x).argmax(1)[:, None] * jnp.ones([1, 3]) + dense(v, x) @ v["out"]
    ),
    "half of it": lambda v, x: dense(v, x)[:, :3] @ v["out"][:3],
    "reversed": lambda v, x: dense(v, x)[:, ::-1] @ v["out"],
    "padded": lambda v, x: jnp.pad(dense(v, x)[:, 1:], ((0, 0), (1, 0))) @ v["out"],
    "side by side": lambda v, x: jnp.concatenate([dense(v, x), x[:, 0, :, 0]], 1)[:, :6] @ v["out"],
    "scan": lambda v, x: jax.lax.scan(lambda c, w: (c, c * w), 1.0, dense(v, x))[1] @ v["out"],
    "neighbours": lambda v, x: (
        jax.lax.reduce_window(dense(v, x), -jnp.inf, jax.lax.max, (1, 3), (1, 1), "SAME") @ v["out"]
    ),
}


@pytest.mark.parametrize("name", FREE)
def test_operations_that_do_not_tell_channels_apart(name):
    spec = permutation_spec(FREE[name], WEIGHTS, (2, 2, 1))
    assert spec.sizes == (6,)
    assert spec.members(0) == {"in": (1,), "out": (0,)}
    random = np.random.default_rng(0)
    v = jax.tree.map(lambda w: random.standard_normal(w.shape).astype(np.float32), WEIGHTS)
    x = random.random((3, 2, 2, 1)).astype(np.float32)
    moved = permute(spec, (np.array([3, 1, 5, 0, 4, 2]),), v)
    np.testing.assert_allclose(FREE[name](moved, x), FREE[name](v, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FIXED)
def test_operations_that_do(name):
    with pytest.raises(UserError, match="no channels that can be permuted"):
        permutation_spec(FIXED[name], WEIGHTS, (2, 2, 1))


def test_an_operation_without_a_rule_is_named():
    with pytest.raises(UserError, match="it uses sort, which have no rule"):
        permutation_spec(FIXED["sort"], WEIGHTS, (2, 2, 1))


def test_groups_of_a_group_norm_keep_together():
    """Channels [6] seen as [2, 3]: groups may change places, and places within all groups alike."""

    def apply(v, x):
        h = dense(v, x).reshape(len(x), 2, 3)
        return (h / h.std(2, keepdims=True)).reshape(len(x), 6) @ v["out"]

    spec = permutation_spec(apply, WEIGHTS, (2, 2, 1))
    assert spec.sizes == (2, 3)
    random = np.random.default_rng(0)
    v = jax.tree.map(lambda w: random.standard_normal(w.shape).astype(np.float32), WEIGHTS)
    x = random.random((3, 2, 2, 1)).astype(np.float32)
    moved = permute(spec, (np.array([1, 0]), np.array([2, 0, 1])), v)
    assert not np.array_equal(moved["in"], v["in"])
    np.testing.assert_allclose(apply(moved, x), apply(v, x), rtol=1e-4, atol=1e-5)


def grouped(num_groups):
    """A network with a grouped convolution of 4 channels, and its weights."""

    def apply(v, x):
        h = jax.nn.relu(jax.lax.conv(x.transpose(0, 3, 1, 2), v["in"], (1, 1), "SAME"))
        h = jax.lax.conv_general_dilated(
            h, v["each"], (1, 1), "SAME", feature_group_count=num_groups
        )
        return h.mean((2, 3)) @ v["out"]

    shapes = {"in": [4, 1, 3, 3], "each": [4, 4 // num_groups, 3, 3], "out": [4, 3]}
    rng = np.random.default_rng(0)
    return apply, {k: jnp.asarray(rng.normal(size=s), jnp.float32) for k, s in shapes.items()}


def test_grouped_convolutions_are_left_alone():
    apply, weights = grouped(2)
    with pytest.raises(UserError, match="no channels"):
        permutation_spec(apply, weights, (5, 5, 1))


def test_depthwise_filters_are_permuted_with_their_channels():
    apply, weights = grouped(4)
    spec = permutation_spec(apply, weights, (5, 5, 1))
    assert tuple(spec.sizes) == (4,)
    permuted = permute(spec, (np.array([2, 0, 3, 1]),), weights)
    assert not np.allclose(permuted["each"], weights["each"])
    x = jnp.asarray(np.random.default_rng(1).random((2, 5, 5, 1)), jnp.float32)
    np.testing.assert_allclose(apply(permuted, x), apply(weights, x), rtol=1e-4)


def test_a_leaf_of_another_network_is_named():
    spec = permutation_spec(FREE["gelu"], WEIGHTS, (2, 2, 1))
    with pytest.raises(
        UserError, match=r"a different network: in has shape \(4, 7\), but \(4, 6\) in the spec"
    ):
        permute(spec, (np.arange(6),), {"in": np.zeros([4, 7]), "out": np.zeros([6, 3])})
