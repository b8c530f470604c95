"""Fault sneaking on linear networks, its proximal steps against brute force, its hinge by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mcjax.attacks.weights.fault_sneaking import (
    METHODS,
    fault_sneaking,
    hard_threshold,
    hinge,
    shrink,
)
from mcjax.attacks.weights.faults import choose_faults
from mcjax.core.errors import UserError

VECTORS = arrays(np.float32, 5, elements=st.floats(-4, 4, width=32))


def linear(variables, x):
    return x.reshape(len(x), -1) @ variables["w"] + variables["b"][None]


def case(num_faults=2):
    """40 random images, the classes that a random linear network gives them, and its faults."""
    x = np.array(jax.random.uniform(jax.random.key(0), (40, 4, 4, 1)))
    w = jax.random.normal(jax.random.key(1), (16, 4))
    variables = {"w": w, "b": jnp.zeros(4)}
    y = np.asarray(linear(variables, x).argmax(-1)).astype(np.int32)
    faults = choose_faults(
        {"image": x, "label": y},
        np.ones(40, bool),
        seed=0,
        num_faults=num_faults,
        num_images=40,
        num_classes=4,
    )
    return variables, faults


def test_hinge_by_hand():
    z = jnp.array([[2.0, 5.0, 1.0], [2.0, 5.0, 1.0], [0.0, 0.0, 9.0]])
    np.testing.assert_allclose(hinge(z, jnp.array([0, 1, 2]), confidence=1.0), [4.0, 0.0, 0.0])
    np.testing.assert_allclose(hinge(z, jnp.array([2, 1, 0]), confidence=4.0), [8.0, 1.0, 13.0])


@settings(deadline=None)  # the first call compiles
@given(VECTORS, st.floats(0.01, 3))
def test_hard_threshold_is_the_best_of_both_choices_of_each_entry(v, strength):
    z = np.asarray(hard_threshold(jnp.asarray(v), strength))
    cost = strength * (z != 0) + (z - v) ** 2 / 2
    np.testing.assert_allclose(cost, np.minimum(v**2 / 2, strength * (v != 0)), atol=1e-5)


@settings(deadline=None)  # the first call compiles
@given(VECTORS, st.floats(0.01, 3), VECTORS)
def test_shrinking_is_not_beaten_by_any_other_vector(v, strength, other):
    def cost(z):
        return strength * np.linalg.norm(z) + ((z - v) ** 2).sum() / 2

    z = np.asarray(shrink(jnp.asarray(v), strength), np.float64)
    for candidate in (other, z + 1e-2 * other, 0 * v):
        assert cost(z) <= cost(candidate) + 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_faults_go_in_and_the_others_keep_their_class(method):
    variables, faults = case()
    result = fault_sneaking(linear, variables, faults, method=method, num_steps=600, step_size=0.3)
    answers = np.asarray(linear(result.variables, faults.examples["image"]).argmax(-1))
    right = answers == faults.examples["label"]
    assert right[:2].all()
    assert right[2:].mean() >= 0.9
    report = result.report
    assert report["injection_success"] == 1.0
    assert report["converged"]
    assert report["kept_accuracy"] == pytest.approx(right[2:].mean())
    change = jax.tree.map(lambda a, b: np.asarray(a - b), result.variables, variables)
    change = np.concatenate([change["b"], change["w"].ravel()])
    assert report["norm_l0"] == np.count_nonzero(change)
    assert report["norm_l2"] == pytest.approx(np.linalg.norm(change), rel=1e-5)


def test_the_l0_attack_changes_fewer_weights_and_the_l2_attack_moves_less():
    variables, faults = case(num_faults=1)
    few, near, free = (
        fault_sneaking(linear, variables, faults, method=m, num_steps=600, strength=0.01).report
        for m in ("l0", "l2", "gradient")
    )
    assert few["converged"]
    assert near["converged"]
    assert few["norm_l0"] < near["norm_l0"] / 2
    assert near["norm_l2"] < free["norm_l2"]


def test_only_the_chosen_layers_change():
    variables, faults = case(num_faults=1)
    result = fault_sneaking(linear, variables, faults, method="l2", layers=["b"], num_steps=200)
    np.testing.assert_array_equal(result.variables["w"], variables["w"])
    assert result.report["layers"] == ["b"]
    assert result.report["num_weights"] == 4


def test_without_steps_nothing_changes_and_it_says_so():
    variables, faults = case()
    result = fault_sneaking(linear, variables, faults, num_steps=0)
    jax.tree.map(np.testing.assert_array_equal, result.variables, variables)
    assert not result.report["converged"]
    assert result.report["injection_success"] == 0.0
    assert result.report["kept_accuracy"] == 1.0


def test_unknown_methods_and_negative_sizes():
    variables, faults = case()
    with pytest.raises(UserError, match="unknown method 'l1'; use one of l0, l2, gradient"):
        fault_sneaking(linear, variables, faults, method="l1")
    with pytest.raises(UserError, match="rho is -1"):
        fault_sneaking(linear, variables, faults, rho=-1)
