import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from slow import SLOW

from mcjax import models
from mcjax.core.errors import UserError
from mcjax.models.network import Network, from_apply, from_linen, in_bfloat16, normalised
from mcjax.training.losses import cross_entropy

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


@pytest.fixture(scope="module")
def both():
    """A network with batch normalisation, in float32 and in bfloat16, and its variables."""
    network = from_linen(models.create("resnet8", num_classes=4, width=4), (8, 8, 1))
    variables = network.init(jax.random.key(0))
    # Statistics that bfloat16 can't hold, of a network in use.
    stats = jax.tree.map(lambda v: v * 1.001 + 0.0003, variables["batch_stats"])
    return network, in_bfloat16(network), {**variables, "batch_stats": stats}


def near(actual, expected, tolerance):
    """Equal to a tolerance, relative to the largest number."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.dtype == expected.dtype == np.float32
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.accelerator
@SLOW
def test_bfloat16_logits_are_near_float32s_and_not_equal(both):
    # A rounding is 2^-9 = 0.002; some twenty of them in a row.
    network, half, variables = both
    x = jax.random.uniform(jax.random.key(2), (16, 8, 8, 1))
    exact, rounded = (jax.jit(n.apply)(variables, x) for n in (network, half))
    near(rounded, exact, 0.03)
    assert np.abs(rounded - exact).max() > 1e-4
    many = jax.tree.map(lambda v: jnp.stack([v, 2 * v]), variables)
    near(jax.jit(jax.vmap(half.apply, (0, None)))(many, x)[0], exact, 0.03)
    assert jax.jit(half.layer_outputs)(variables, x)["fc"].dtype == jnp.float32
    assert half[3:6] == network[3:6]  # what is said of the network


def test_every_convolution_and_product_is_in_bfloat16(both):
    _, half, variables = both
    text = jax.jit(half.apply).lower(variables, X).as_text()
    lines = [x for x in text.splitlines() if "convolution(" in x or "dot_general" in x]
    assert len(lines) > 8
    assert all("xf32>" not in line for line in lines)


@pytest.mark.accelerator
def test_bfloat16_leaves_statistics_in_float32(both):
    network, half, variables = both
    x = jax.random.uniform(jax.random.key(2), (16, 8, 8, 1))
    train = jax.jit(half.apply_train)
    logits, stats = train(jax.random.key(1), variables, x)
    expected, exact = jax.jit(network.apply_train)(jax.random.key(1), variables, x)
    near(logits, expected, 0.05)
    assert jax.tree.structure(stats) == jax.tree.structure(exact)
    jax.tree.map(lambda a, b: near(a, b, 0.03), stats, exact)
    # The old statistics pass through unrounded: new - 0.9 old is the batch's part alone.
    zero = {**variables, "batch_stats": jax.tree.map(jnp.zeros_like, variables["batch_stats"])}
    _, part = train(jax.random.key(1), zero, x)
    old = variables["batch_stats"]
    jax.tree.map(
        lambda n, o, p: np.testing.assert_allclose(n, 0.9 * o + p, rtol=1e-5, atol=1e-6),
        stats, old, part,
    )  # fmt: skip


@pytest.mark.accelerator
@SLOW
def test_gradients_through_bfloat16_are_float32_and_near(both):
    network, half, variables = both
    x, y = jax.random.uniform(jax.random.key(2), (16, 8, 8, 1)), jnp.arange(16) % 4

    def gradients(n):
        def loss(params, x):
            logits, _ = n.apply_train(jax.random.key(1), {**variables, "params": params}, x)
            return cross_entropy(logits, y).mean()

        return jax.jit(jax.grad(loss, (0, 1)))(variables["params"], x)

    (params, images), (params32, images32) = gradients(half), gradients(network)
    flat, flat32 = (jax.flatten_util.ravel_pytree(g)[0] for g in (params, params32))
    assert flat.dtype == images.dtype == jnp.float32
    for a, b in ((flat, flat32), (images.ravel(), images32.ravel())):
        assert np.isfinite(a).all()
        # Where a ReLU's input is near 0, its slope may come out otherwise: a few numbers are off.
        size, size32 = jnp.linalg.norm(a), jnp.linalg.norm(b)
        assert a @ b / (size * size32) > 0.97
        np.testing.assert_allclose(size, size32, rtol=0.03)


def test_variables_of_ones_own_keep_their_whole_numbers_in_bfloat16():
    network = in_bfloat16(from_apply(lambda w, x: x.reshape(len(x), -1)[:, w["pixels"]] * w["by"]))
    logits = network.apply(
        {"pixels": jnp.array([257, 3]), "by": jnp.float32(1.001)},
        X.reshape(1, 192, 1, 1).repeat(2, 1),
    )
    assert logits.dtype == jnp.float32
    near(logits, X.reshape(1, -1).repeat(2, 1)[:, [257, 3]], 0.01)


def test_a_normalised_network_sees_mean_zero_images():
    network = normalised(from_apply(lambda w, x: x.mean((1, 2)) @ w), (0.5, 0.25), (0.5, 0.1))
    x = jnp.stack([jnp.full([2, 3], 1.0), jnp.full([2, 3], 0.5)], -1)[None]
    np.testing.assert_allclose(network.apply(jnp.eye(2), x), [[1.0, 2.5]], rtol=1e-6)
    logits, _ = network.apply_train(jax.random.key(0), jnp.eye(2), x)
    np.testing.assert_allclose(logits, [[1.0, 2.5]], rtol=1e-6)


def test_a_normalised_networks_layers_see_what_the_network_sees():
    plain = from_linen(models.create("mlp", num_classes=2, hidden=(3,)), (2, 2, 1))
    variables = plain.init(jax.random.key(0))
    x = jnp.linspace(0, 1, 4).reshape(1, 2, 2, 1)
    outputs = normalised(plain, [0.5], [0.25]).layer_outputs(variables, x)
    expected = plain.layer_outputs(variables, (x - 0.5) / 0.25)
    np.testing.assert_allclose(outputs["fc1"], expected["fc1"], rtol=1e-6)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [([0.5], [0.0], "positive"), ([0.5, 0.5], [1.0], "positive"), ([0.5], [1.0], "1 means, but")],
)
def test_normalisations_that_do_not_fit(mean, std, message):
    with pytest.raises(UserError, match=message):
        normalised(from_apply(lambda w, x: x), mean, std).apply({}, jnp.zeros([1, 2, 2, 3]))
