import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcjax import apgd, pgd
from mcjax.attacks.images.active_examples import of_active


@settings(max_examples=25, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=23), st.integers(1, 9))
def test_active_examples_get_fn_and_the_others_zero(active, block):
    active = np.array(active)
    x = np.arange(1, len(active) + 1, dtype=np.float32)
    y = np.stack([x, -x], 1)
    found = of_active(lambda x, y: {"a": x + 1, "b": y * 2}, jnp.asarray(active), x, y, block=block)
    if len(active) > block:
        y, expected = np.where(active[:, None], y, 0), np.where(active, x + 1, 0)
    else:
        expected = x + 1
    np.testing.assert_array_equal(found["a"], expected)
    np.testing.assert_array_equal(found["b"], 2 * y)


@pytest.mark.parametrize(("num_active", "blocks"), [(0, 0), (1, 1), (4, 1), (5, 2), (12, 3)])
def test_only_blocks_with_active_examples_are_worked_on(num_active, blocks):
    calls = []

    def fn(x):
        jax.debug.callback(lambda: calls.append(len(x)))
        return x

    active = np.random.default_rng(0).permutation(np.arange(12) < num_active)
    jax.block_until_ready(
        jax.jit(lambda a, x: of_active(fn, a, x, block=4))(active, np.ones(12, np.float32))
    )
    jax.effects_barrier()
    assert calls == [4] * blocks


@pytest.mark.parametrize("attack", [apgd, pgd])
def test_attacks_find_the_same_in_blocks_as_one_by_one(attack):
    w = jax.random.normal(jax.random.key(1), (12, 3))
    x = jax.random.uniform(jax.random.key(2), (80, 2, 2, 3))

    def logits_fn(x):
        return jnp.tanh(x.reshape(len(x), -1)) @ w

    y = logits_fn(x).argmax(-1)
    options = {"eps": 0.05, "num_steps": 12, "early_stop": True}
    if attack is pgd:
        options |= {"random_start": False, "step_size": 0.01}
    together = attack(jax.random.key(0), logits_fn, x, y, **options)
    fooled = logits_fn(together).argmax(-1) != y
    assert 0 < fooled.sum() < len(x)
    if attack is pgd:  # without random starts an image's attack is its own
        alone = [
            attack(jax.random.key(0), logits_fn, x[i : i + 1], y[i : i + 1], **options)
            for i in range(0, 80, 9)
        ]
        np.testing.assert_allclose(together[::9], jnp.concatenate(alone), atol=1e-6)
    to_the_end = attack(jax.random.key(0), logits_fn, x, y, **{**options, "early_stop": False})
    if attack is apgd:  # the same successes as without stopping
        np.testing.assert_array_equal(logits_fn(to_the_end).argmax(-1) != y, fooled)
