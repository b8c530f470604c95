"""The l1 search of Auto-PGD against the paper's algorithm as a plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcjax.attacks.images.apgd import apgd
from mcjax.attacks.images.attack_losses import LABEL_LOSSES
from mcjax.attacks.images.auto_pgd_search import checkpoints, random_start, random_starts
from mcjax.attacks.images.balls import BALLS, project_l1, sparse_direction
from mcjax.attacks.images.sparse_search import stages
from mcjax.core.keys import stream

W = jax.random.normal(jax.random.key(0), (12, 8))
U = jax.random.normal(jax.random.key(1), (8, 4))
project = jax.jit(project_l1)


def network(x):
    return jnp.sin(2 * x.reshape(len(x), -1) @ W) @ U


def images(n=10):
    x = jax.random.uniform(jax.random.key(2), (n, 2, 3, 2))
    return x, network(x).argmax(1)


def plain_l1(key, x, y, eps, num_steps):
    """One image at a time, in Python; early success not looked at. Returns the last stage's f_max."""
    starts = random_start(stream(key, "start", 0), x, eps, "l1")
    value_and_grad = jax.jit(
        jax.value_and_grad(lambda x, y: LABEL_LOSSES["cross_entropy"](network(x), y)[0])
    )
    highest = []
    for i in range(len(x)):
        own, label = x[i : i + 1], y[i : i + 1]
        z = starts[i : i + 1]
        for radius, n in stages(num_steps):
            z = project(own, z, radius * eps)
            f, g = value_and_grad(z, label)
            best, f_best, g_best = z, float(f), g
            support = int((z != own).sum())
            count, eta = max(1, int(support / 1.5)), radius * eps
            for k in range(n):
                free = np.where(np.asarray(g) > 0, np.asarray(z) < 1, np.asarray(z) > 0).ravel()
                size = np.where(free, np.abs(np.asarray(g)).ravel(), 0)
                largest = np.argsort(-size)[:count]
                step = np.zeros(12, np.float32)
                step[largest] = np.sign(np.asarray(g).ravel()[largest]) * (size[largest] > 0)
                step /= max(1, np.abs(step).sum())
                z = project(own, z + eta * step.reshape(z.shape), radius * eps)
                f, g = value_and_grad(z, label)
                if float(f) > f_best:
                    best, f_best, g_best = z, float(f), g
                if (k + 1) % max(1, int(0.04 * n)) == 0:
                    now = int((best != own).sum())
                    if now < 0.95 * support:
                        eta, z, g = radius * eps, best, g_best
                    else:
                        eta = max(eta / 1.5, radius * eps / 10)
                    count, support = max(1, int(now / 1.5)), now
            z = best
        highest.append(f_best)
    return np.array(highest)


def test_the_l1_search_against_the_algorithm_as_a_plain_loop():
    x, y = images(6)
    eps, key = 0.15, jax.random.key(3)
    f_max = plain_l1(key, x, y, eps, 20)
    ours = apgd(key, network, x, y, eps=eps, norm="l1", num_steps=20, early_stop=False)
    f = np.asarray(LABEL_LOSSES["cross_entropy"](network(ours), y))
    unfooled = np.asarray(network(ours).argmax(1) == y)
    assert unfooled.sum() >= 3
    np.testing.assert_allclose(f[unfooled], f_max[unfooled], rtol=1e-2, atol=1e-2)


def test_stages_have_all_steps_and_end_within_eps():
    for n in (1, 2, 3, 4, 10, 33, 100):
        assert sum(count for _, count in stages(n)) == n
        assert stages(n)[-1][0] == 1
        assert all(count > 0 for _, count in stages(n))


@pytest.mark.parametrize("count", [1, 3, 7, 24])
def test_the_sparse_direction_moves_the_largest_free_entries(count):
    x = (
        jax.random.uniform(jax.random.key(0), (6, 2, 4, 3))
        .at[:, 0, 0]
        .set(1.0)
        .at[:, 0, 1]
        .set(0.0)
    )
    g = jax.random.normal(jax.random.key(1), x.shape)
    for scale in (1e-30, 1.0, 1e30):
        d = np.asarray(sparse_direction(scale * g, x, jnp.full(6, count))).reshape(6, -1)
        for i in range(6):
            own = np.asarray(g[i]).ravel()
            free = np.where(own > 0, np.asarray(x[i]).ravel() < 1, np.asarray(x[i]).ravel() > 0)
            order = [j for j in np.argsort(-np.abs(own)) if free[j]][:count]
            expected = np.zeros(24)
            expected[order] = np.sign(own[order]) / len(order)
            np.testing.assert_allclose(d[i], expected, rtol=1e-6)
    assert not np.asarray(sparse_direction(0 * g, x, jnp.full(6, count))).any()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_start_does_not_depend_on_other_images(norm):
    x, _ = images()
    keys = jax.vmap(lambda i: stream(jax.random.key(0), "image", i))(jnp.arange(len(x)))
    together = random_starts(keys, x, 0.2, norm)
    np.testing.assert_array_equal(random_starts(keys[3:4], x[3:4], 0.2, norm), together[3:4])
    radius = 0.6 if norm == "l1" else 0.2
    delta = np.asarray(together - x, np.float64).reshape(len(x), -1)
    size = np.linalg.norm(delta, {"linf": np.inf, "l2": 2, "l1": 1}[norm], axis=1)
    assert (size <= radius + 1e-6).all()
    assert (size > 0).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("dimension", [3, 3072])
def test_projections_respect_the_radius_to_1e_6(norm, dimension):
    x = jax.random.uniform(jax.random.key(0), (16, 1, 1, dimension))
    z = x + 3 * jax.random.normal(jax.random.key(1), x.shape)
    for eps in (1e-3, 0.5, 12.0):
        delta = np.asarray(BALLS[norm].project(x, z, eps), np.float64) - np.asarray(x, np.float64)
        size = np.linalg.norm(
            delta.reshape(16, -1), {"linf": np.inf, "l2": 2, "l1": 1}[norm], axis=1
        )
        assert (size <= eps + 1e-6).all()
        assert (delta + np.asarray(x) >= 0).all()


def test_checkpoints_of_the_paper():
    assert checkpoints(100).tolist() == [22, 41, 57, 70, 80, 87, 93, 99]
