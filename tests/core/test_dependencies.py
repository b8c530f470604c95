"""What outputs depend on, where programs are nested."""

import jax
import jax.numpy as jnp
import pytest

from mcjax.core.dependencies import dependencies

X, Y, Z = jnp.ones(3), jnp.ones(3), jnp.ones(3)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.checkpoint])
def test_through_wrappers(wrap):
    inner = wrap(lambda x, y: (x * y, jnp.sin(y)))
    found = dependencies(lambda x, y, z: (*inner(x, y), z, 1.0), X, Y, Z)
    assert found == [{0, 1}, {1}, {2}, set()]


def test_of_a_scan_the_carry_goes_round_and_each_output_has_its_own():
    """a takes in b only from the second step on, b is carried from y and scanned over z."""

    def fn(x, y, z, w):
        def body(carry, z):
            a, b, c = carry
            return (a + b[0], b * z, c), (z, a, 2.0 * w[0])

        (a, b, c), (zs, seen, twice) = jax.lax.scan(body, (x, y, w), z)
        return a, b, c, zs, seen, twice

    found = dependencies(fn, jnp.float32(1.0), Y, Z, Y)
    assert found == [{0, 1, 2}, {1, 2}, {3}, {2}, {0, 1, 2}, {3}]


def test_a_loop_and_a_branch_depend_on_all_they_are_given():
    found = dependencies(
        lambda x, y: jax.lax.while_loop(
            lambda s: s[0].sum() < 9, lambda s: (s[0] + 1, s[1] / 2), (x, y)
        ),
        X,
        Y,
    )
    assert found == [{0, 1}, {0, 1}]
    found = dependencies(lambda x, y: jax.lax.cond(x[0] > 0, lambda y: y, lambda y: -y, y), X, Y)
    assert found == [{0, 1}]


def test_a_tree_has_its_leaves_in_order():
    assert dependencies(lambda tree, x: {"b": tree["a"], "c": x}, {"a": X, "z": Y}, Z) == [{0}, {2}]
