"""A trigger that works as a whole: its decoys are parts, cell by cell."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcjax.attacks.poisoning import triggers
from mcjax.core.errors import UserError

SHAPE = (8, 6, 2)
X = np.random.default_rng(0).random((5, *SHAPE)).astype(np.float32)


def test_the_whole_is_a_blend():
    trigger = triggers.create("adaptive_blended", SHAPE, alpha=0.3)
    pattern = trigger.inner.shift / 0.3
    np.testing.assert_allclose(trigger(X), 0.7 * X + 0.3 * pattern, atol=1e-6)
    assert pattern.min() >= 0
    assert pattern.max() <= 1


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_a_decoy_has_a_share_of_the_cells_whole_or_not_at_all(share):
    trigger = triggers.create("adaptive_blended", SHAPE, cells=2, share=share)
    decoys = trigger.decoy(jax.random.key(0), X)
    assert isinstance(decoys, np.ndarray)
    assert decoys.dtype == X.dtype
    stamped, patterns = trigger(X), set()
    for one, x, full in zip(decoys, X, stamped, strict=True):
        cells = []
        for i in range(2):
            for j in range(2):
                cell = np.s_[4 * i : 4 * i + 4, 3 * j : 3 * j + 3]
                is_full, is_plain = (np.allclose(one[cell], v[cell]) for v in (full, x))
                assert is_full != is_plain
                cells.append(is_full)
        assert sum(cells) == 4 * share
        patterns.add(tuple(cells))
    if share == 0.5:
        assert len(patterns) > 1  # drawn per image


def test_decoys_are_by_key_and_traced_as_plain():
    trigger = triggers.create("adaptive_blended", SHAPE)
    one, again, other = (trigger.decoy(jax.random.key(k), X) for k in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    traced = jax.jit(trigger.decoy)(jax.random.key(0), jnp.asarray(X))
    np.testing.assert_allclose(traced, one, atol=1e-6)


def test_equal_by_contents():
    one, same = (triggers.create("adaptive_blended", SHAPE) for _ in range(2))
    assert one == same
    assert hash(one) == hash(same)
    for options in ({"alpha": 0.1}, {"cells": 2}, {"share": 0.4}, {"cover": 0.1}, {"seed": 1}):
        assert triggers.create("adaptive_blended", SHAPE, **options) != one


@pytest.mark.parametrize(
    ("options", "message"),
    [({"cells": 7}, "cells is 7"), ({"share": 2}, "share is 2"), ({"alpha": 0}, "alpha is 0")],
)
def test_mistakes(options, message):
    with pytest.raises(UserError, match=message):
        triggers.create("adaptive_blended", SHAPE, **options)
