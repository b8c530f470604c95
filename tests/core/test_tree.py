"""Digests tell bit-equal trees from others."""

import numpy as np
import pytest

from mcjax.core.tree import digest


@pytest.mark.parametrize(
    "other",
    [
        {"a": np.float32([1, 2, 4])},
        {"b": np.float32([1, 2, 3])},
        {"a": np.float32([[1, 2, 3]])},
        {"a": np.float64([1, 2, 3])},
        {"a": np.float32([1, 2, 3]), "b": np.float32([])},
    ],
)
def test_digest_differs(other):
    assert digest(other) != digest({"a": np.float32([1, 2, 3])})


def test_digest_does_not_depend_on_memory_layout():
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert digest({"a": a}) == digest({"a": np.asfortranarray(a)})
