"""AutoAttack along a path, on linear networks where every robust accuracy is known."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from mcjax.core.sharding import make_mesh
from mcjax.curves import Bezier
from mcjax.data.batches import stack_batches
from mcjax.evaluation.autoattack_metrics import autoattack_metrics
from mcjax.evaluation.path import examples_along_path
from mcjax.models.network import from_apply

LINEAR = from_apply(lambda w, x: (x.reshape(len(x), -1) - 0.5) @ w, num_classes=3)
EPS = 0.05


def test_at_every_t_of_a_path_what_is_robust_there():
    """The last batch is padded; the robust images of a linear network have a closed form."""
    w = jax.random.normal(jax.random.key(0), (2, 12, 3))
    line = Bezier.connect(*w)
    x = 0.5 + 0.1 * np.asarray(jax.random.normal(jax.random.key(1), (30, 2, 2, 3)).clip(-2, 2))
    label = np.asarray(LINEAR.apply(w[0], jnp.asarray(x)).argmax(1))
    batches = stack_batches({"image": x, "label": label}, 16)
    metric_fn = autoattack_metrics(
        LINEAR,
        seed=0,
        eps=EPS,
        num_steps=10,
        num_queries=30,
        pgd_step_size=EPS / 4,
        pgd_num_steps=10,
    )
    ts = np.array([0.0, 0.3, 1.0])
    found = examples_along_path(metric_fn, line, ts, batches, mesh=make_mesh(jax.devices()[:2]))
    for i, t in enumerate(ts):
        weights = np.asarray(line(t), np.float64)
        z = (x.reshape(30, -1) - 0.5) @ weights
        gaps = np.array(
            [[np.inf if k == y else (z[j, y] - z[j, k]) / np.abs(weights[:, y] - weights[:, k]).sum()
              for k in range(3)] for j, y in enumerate(label)]
        ).min(1)  # fmt: skip
        sure = np.abs(gaps - EPS) > 1e-3
        np.testing.assert_array_equal(found["autoattack_accuracy"][i][sure], (gaps > EPS)[sure])
        np.testing.assert_array_equal(found["accuracy"][i], gaps > 0)
    order = [found[k] for k in ("accuracy", "after_apgd_ce", "after_apgd_targeted", "after_fab")]
    order.append(found["after_square"])
    for more, fewer in itertools.pairwise(order):
        assert (fewer <= more).all()
    np.testing.assert_array_equal(found["after_square"], found["autoattack_accuracy"])
    assert (found["autoattack_accuracy"] <= found["pgd_accuracy"]).all()
    assert not found["zero_gradient"].any()
