"""What is given networks as functions is compiled once for all networks of a kind, and answers for each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcjax import input_hessian_eigenvalue, pgd, weight_hessian_eigenvalue
from mcjax.attacks.images.apgd import apgd
from mcjax.curvature import quadratic_model

SHAPE = (2, 3, 1)
X = jnp.asarray(np.random.default_rng(0).random((4, *SHAPE)), jnp.float32)
Y = jnp.arange(4) % 3
KEY = jax.random.key(0)
DELTA = jnp.full_like(X, 0.1)
TAKERS = {
    "pgd": lambda fn: pgd(KEY, fn, X, Y, 0.2, 0.1, 3),
    "apgd": lambda fn: apgd(KEY, fn, X, Y, eps=0.2, num_steps=5, early_stop=False),
    "input Hessian": lambda fn: input_hessian_eigenvalue(fn, X, Y).eigenvalue,
    "quadratic model": lambda fn: quadratic_model(fn, X, Y, DELTA, DELTA).gradient_term,
    "weight Hessian": lambda fn: weight_hessian_eigenvalue(lambda_of(fn), {"w": X}).eigenvalue,
}


def lambda_of(fn):
    """The same network's squared logits as a function of a tree, a Partial of the same weights."""
    return jax.tree_util.Partial(squares, fn)


def squares(fn, tree):
    return (fn(tree["w"]) ** 2).sum()


def logits(traces, w, x):
    traces.append(x.shape)
    return jnp.tanh(x.reshape(len(x), -1)) @ w


@pytest.mark.parametrize("name", TAKERS)
def test_a_partials_weights_are_an_argument(name):
    traces = []

    def given(seed):
        w = np.random.default_rng(seed).normal(size=(6, 3)).astype(np.float32)
        return jax.tree_util.Partial(traced, jnp.asarray(w))

    def traced(w, x):
        return logits(traces, w, x)

    first = TAKERS[name](given(1))
    num_traces = len(traces)
    second = TAKERS[name](given(2))
    assert num_traces > 0
    assert len(traces) == num_traces
    assert not np.allclose(first, second)

    w = given(2).args[0]
    constant = jax.tree_util.Partial(lambda x: logits([], w, x))
    np.testing.assert_allclose(second, TAKERS[name](constant), rtol=1e-5)
