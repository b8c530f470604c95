"""Networks side by side as a path."""

import jax
import jax.numpy as jnp
import numpy as np

from mcjax.evaluation.networks_as_path import Stacked
from mcjax.evaluation.path import evaluate_path


def test_evaluated_like_each_by_itself():
    trees = [{"w": jnp.float32(i)} for i in (3.0, 5.0, 7.0)]
    batch = {"image": jnp.ones((2, 1, 1, 1)), "label": jnp.zeros(2, jnp.int32)}

    def metric_fn(tree, batch):
        return {"w": tree["w"] * batch["image"][:, 0, 0, 0]}

    values = evaluate_path(metric_fn, Stacked.of(trees), np.arange(3), batch)["w"]
    np.testing.assert_array_equal(values, [3.0, 5.0, 7.0])
    assert float(jax.jit(Stacked.of(trees))(2.0)["w"]) == 7.0
