"""The noise has the standard deviation that it states, to what that many numbers can tell."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcjax.core.errors import UserError
from mcjax.curves.batch_stats import CurveWithStats
from mcjax.evaluation.path import evaluate_path
from mcjax.repair.methods.noise import Cloud, around, relative

KEY = jax.random.key(0)
N = 20_000  # the standard deviation of N numbers is known to 1 / sqrt(2 N) = 0.5 %


def pair():
    center = {"a": jnp.full(N, 2.0), "b": {"c": jnp.linspace(-1, 1, N)}}
    other = {"a": jnp.full(N, 2.5), "b": {"c": jnp.linspace(-1, 1, N).at[: N // 2].add(-3.0)}}
    return center, other


@pytest.mark.parametrize("scale", [1.0, 1.2])
def test_sigma_is_the_distance_number_by_number(scale):
    center, other = pair()
    w = around(KEY, center, other, scale=scale)
    z = (w["a"] - 2) / (0.5 * scale)
    assert abs(float(z.std()) - 1) < 0.03
    assert abs(float(z.mean())) < 0.03
    z = (w["b"]["c"] - center["b"]["c"])[: N // 2] / (3 * scale)
    assert abs(float(z.std()) - 1) < 0.03
    assert abs(float(z.mean())) < 0.04


def test_no_noise_where_the_networks_agree():
    center, other = pair()
    w = around(KEY, center, other)
    np.testing.assert_array_equal(w["b"]["c"][N // 2 :], center["b"]["c"][N // 2 :])


def test_every_number_leaf_and_draw_has_noise_of_its_own():
    zeros = {name: jnp.zeros(N) for name in "ab"}
    ones = jax.tree.map(jnp.ones_like, zeros)
    w = jax.vmap(Cloud(KEY, zeros, ones))(jnp.arange(3))
    rows = np.concatenate([np.asarray(w["a"]), np.asarray(w["b"])])
    np.testing.assert_allclose(np.corrcoef(rows), np.eye(6), atol=0.04)
    assert abs(np.corrcoef(rows[0, :-1], rows[0, 1:])[0, 1]) < 0.04


def test_a_cloud_is_a_path():
    """Spread over the devices, and with statistics as a whole network."""
    center, other = {"w": jnp.zeros(2)}, {"w": jnp.ones(2)}
    cloud = Cloud(KEY, center, other)
    batch = {"image": jnp.ones((2, 1, 1, 1)), "label": jnp.zeros(2, jnp.int32)}
    means = evaluate_path(
        lambda params, batch: {"w": params["w"][0] * batch["image"][:, 0, 0, 0]},
        cloud,
        np.arange(20),
        batch,
    )["w"]
    np.testing.assert_allclose(means, [cloud(i)["w"][0] for i in range(20)], rtol=1e-6)
    stats = {"mean": jnp.ones(1)}
    whole = CurveWithStats(cloud, stats, stats, None, lambda *_: None, keep_ends=False)
    np.testing.assert_array_equal(whole(jnp.float32(7))["params"]["w"], cloud(7)["w"])
    np.testing.assert_array_equal(whole(jnp.float32(7))["batch_stats"]["mean"], [1.0])


def test_relative_to_each_tensors_root_mean_square():
    params = {
        "large": jnp.full((100, 200), 10.0),
        "small": jnp.tile(jnp.array([0.1, -0.3]), N // 2),
    }
    w = relative(KEY, params, sigma=0.2)
    rms = {"large": 10.0, "small": np.sqrt((0.01 + 0.09) / 2)}
    for name, noisy in w.items():
        assert abs(float((noisy - params[name]).std()) / (0.2 * rms[name]) - 1) < 0.03
    zero = {"w": jnp.zeros(5)}
    np.testing.assert_array_equal(relative(KEY, zero, sigma=1.0)["w"], zero["w"])


def test_mistakes():
    with pytest.raises(UserError, match="center and other differ"):
        around(KEY, {"w": jnp.zeros(2)}, {"w": jnp.zeros(3)})
