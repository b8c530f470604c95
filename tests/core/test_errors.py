"""Messages name a value without printing its numbers."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

import mcjax
from mcjax.core.errors import UserError, shown
from mcjax.curves import Bezier
from mcjax.data.given import given_examples

X, Y = np.zeros((64, 8, 8, 1), np.float32), np.arange(64)


class Pair(NamedTuple):
    a: int
    b: int


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (X, "ndarray float32 [64, 8, 8, 1]"),
        ((X, Y), "(ndarray float32 [64, 8, 8, 1], ndarray int64 [64])"),
        ({"image": [jnp.ones(9)]}, "{'image': [Array float32 [9]]}"),
        (np.array([1, 2]), "array([1, 2])"),
        (np.float32(0.5), "np.float32(0.5)"),
        (np.ndarray, "<class 'numpy.ndarray'>"),
        (Pair(1, 2), "Pair(a=1, b=2)"),
        (list(range(1000)), str(list(range(1000)))[:77] + "..."),
    ],
    ids=lambda v: str(v)[:20],
)
def test_arrays_are_shown_by_type_and_shape(value, text):
    assert shown(value) == text


@pytest.mark.parametrize(
    "call",
    [
        lambda pair: given_examples("bonafide", pair),
        lambda pair: mcjax.pgd(0, lambda x: x, pair, Y, eps=0.1),
        lambda pair: mcjax.pgd(0, lambda x: x, X, pair, eps=0.1),
        lambda pair: mcjax.pgd(0, lambda x: x, X, Y, eps=0.1, norm=pair),
        lambda pair: Bezier.connect(jnp.ones(2), jnp.ones(2), pair),
        lambda pair: mcjax.from_linen(mcjax.models.create("mlp", num_classes=2), pair),
    ],
)
def test_a_pair_of_arrays_in_the_place_of_something_else(call):
    with pytest.raises(UserError, match=r"\(ndarray float32 \[64, 8, 8, 1\], ndarray int64 ") as e:
        call((X, Y))
    assert "\n" not in str(e.value)
    assert len(str(e.value)) < 200
