import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from mcjax.models.batch_norm import BatchNorm

STATS = {"mean": jnp.array([0.3, -0.2, 0.0]), "var": jnp.array([2.0, 0.5, 1.0])}
PARAMS = {"scale": jnp.array([1.5, 0.5, -1.0]), "bias": jnp.array([0.1, 0.0, -0.4])}


@pytest.fixture
def x():
    return jnp.asarray(np.random.default_rng(0).normal(2, 3, (4, 5, 2, 3)), jnp.float32)


def apply_train(x, stats=STATS, **fields):
    variables = {"params": PARAMS, "batch_stats": stats}
    y, updates = BatchNorm(**fields).apply(variables, x, train=True, mutable=["batch_stats"])
    return y, updates["batch_stats"]


def test_starts_as_the_identity_of_a_standard_normal(x):
    variables = BatchNorm().init(jax.random.key(0), x, train=True)
    assert set(variables) == {"params", "batch_stats"}
    np.testing.assert_array_equal(variables["params"]["scale"], np.ones(3))
    np.testing.assert_array_equal(variables["params"]["bias"], np.zeros(3))
    np.testing.assert_array_equal(variables["batch_stats"]["mean"], np.zeros(3))
    np.testing.assert_array_equal(variables["batch_stats"]["var"], np.ones(3))


def test_training_divides_by_the_biased_variance_and_stores_the_unbiased(x):
    y, stats = apply_train(x)
    rows = np.asarray(x, np.float64).reshape(-1, 3)
    z = (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)
    expected = z * np.asarray(PARAMS["scale"]) + np.asarray(PARAMS["bias"])
    np.testing.assert_allclose(y.reshape(-1, 3), expected, rtol=1e-4, atol=1e-5)
    old_mean, old_var = np.asarray(STATS["mean"]), np.asarray(STATS["var"])
    np.testing.assert_allclose(stats["mean"], 0.9 * old_mean + 0.1 * rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 * old_var + 0.1 * rows.var(0, ddof=1), rtol=1e-5)


def test_evaluation_uses_the_running_statistics(x):
    y = BatchNorm().apply({"params": PARAMS, "batch_stats": STATS}, x)
    mean, var = np.asarray(STATS["mean"]), np.asarray(STATS["var"])
    z = (np.asarray(x) - mean) / np.sqrt(var + 1e-5)
    expected = z * np.asarray(PARAMS["scale"]) + np.asarray(PARAMS["bias"])
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_same_numbers_as_torch(x):
    torch = pytest.importorskip("torch")
    norm = torch.nn.BatchNorm2d(3)
    for name, value in {"weight": "scale", "bias": "bias"}.items():
        getattr(norm, name).data = torch.tensor(np.asarray(PARAMS[value]))
    norm.running_mean = torch.tensor(np.asarray(STATS["mean"]))
    norm.running_var = torch.tensor(np.asarray(STATS["var"]))
    images = torch.tensor(np.asarray(x).transpose(0, 3, 1, 2))

    in_training = norm(images).detach().permute(0, 2, 3, 1)
    y, stats = apply_train(x)
    np.testing.assert_allclose(y, in_training, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(stats["mean"], norm.running_mean, rtol=1e-5)
    np.testing.assert_allclose(stats["var"], norm.running_var, rtol=1e-5)

    in_evaluation = norm.eval()(images).detach().permute(0, 2, 3, 1)
    y = BatchNorm().apply({"params": PARAMS, "batch_stats": stats}, x)
    np.testing.assert_allclose(y, in_evaluation, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("momentum", [0.9, 0.5, 0.0])
def test_update_is_affine_in_the_old_statistics_with_slope_momentum(x, momentum):
    ones = jax.tree.map(jnp.ones_like, STATS)
    _, slope = jax.jvp(lambda old: apply_train(x, old, momentum=momentum)[1], (STATS,), (ones,))
    np.testing.assert_allclose(slope["mean"], np.full(3, momentum), rtol=1e-6)
    np.testing.assert_allclose(slope["var"], np.full(3, momentum), rtol=1e-6)


def test_one_value_a_channel_is_no_division_by_zero():
    y, stats = apply_train(jnp.ones([1, 1, 1, 3]))
    assert np.isfinite(y).all()
    np.testing.assert_allclose(stats["var"], 0.9 * np.asarray(STATS["var"]), rtol=1e-6)


def test_batch_spread_over_devices_is_one_batch(x):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    spread = jax.shard_map(
        lambda x: apply_train(x, axis_name="data"),
        mesh=mesh,
        in_specs=PartitionSpec("data"),
        out_specs=(PartitionSpec("data"), PartitionSpec()),
    )
    y, stats = jax.jit(spread)(x)
    y_one, stats_one = apply_train(x)
    np.testing.assert_allclose(y, y_one, rtol=1e-4, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), stats, stats_one)


def plain(x, scale, bias):
    """Batch normalisation as JAX differentiates it by itself."""
    mean = x.mean((0, 1, 2), keepdims=True)
    var = ((x - mean) ** 2).mean((0, 1, 2), keepdims=True)
    scale, bias = (v.reshape(1, 1, 1, 3) for v in (scale, bias))
    return (x - mean) * (scale * jax.lax.rsqrt(var + 1e-5)) + bias


def normalised(x, scale, bias):
    variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": STATS}
    return BatchNorm().apply(variables, x, train=True, mutable=["batch_stats"])[0]


def test_derivatives_of_both_orders_equal_jaxs_own(x):
    values = (x, PARAMS["scale"], PARAMS["bias"])
    random = np.random.default_rng(1)
    direction = [jnp.asarray(random.normal(size=v.shape), jnp.float32) for v in values]

    def of(fn):
        gradient = jax.grad(lambda *v: jnp.sum(jnp.sin(fn(*v)) ** 2), (0, 1, 2))
        return jax.jvp(lambda *v: (gradient(*v), fn(*v)), values, tuple(direction))

    found, expected = of(normalised), of(plain)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-4), found, expected
    )


def test_a_gradient_adds_up_an_image_twice_in_each_direction(x):
    """Mean and variance forward, the output's gradient and its product with x back; JAX alone: six sums."""

    def sums(fn):
        gradient = jax.grad(lambda *v: jnp.sum(jnp.sin(fn(*v))), (0, 1, 2))
        text = jax.jit(gradient).lower(x, PARAMS["scale"], PARAMS["bias"]).as_text()
        return sum("stablehlo.reduce(" in line and "4x5x2x3" in line for line in text.splitlines())

    assert (sums(normalised), sums(plain)) == (4, 6)
