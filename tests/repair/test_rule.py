"""The rule on hand-worked accuracies, and its law for any accuracies."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcjax.repair.rule import Pick, strongest


@pytest.mark.parametrize(
    ("accuracy", "index", "acceptable"),
    [
        ([0.9, 0.89, 0.88, 0.87], 2, True),  # the floor, 0.88, is included
        ([0.9, 0.5, 0.9, 0.1], 2, True),  # a stronger value may recover
        ([0.9, 0.1, 0.1, 0.1], 0, True),
        ([0.5, 0.7, 0.7, 0.6], 1, False),  # none: the most accurate, the gentlest of equals
    ],
)
def test_by_hand(accuracy, index, acceptable):
    pick = strongest(accuracy, suspect_accuracy=0.9, tolerance=0.02)
    assert pick == Pick(index, acceptable, pytest.approx(0.88))


def test_float32_means_of_equal_counts_are_equal():
    """132 of 150 images, averaged in float32 in two orders, against 135 - 3."""
    accuracy = np.array([0.9, 0.88], np.float32)
    assert strongest(accuracy, suspect_accuracy=float(accuracy[0]), tolerance=0.02).index == 1


fractions = st.integers(0, 100).map(lambda k: k / 100)


@given(st.lists(fractions, min_size=1), fractions, fractions)
def test_never_below_the_floor_if_something_reaches_it(accuracy, suspect, tolerance):
    pick = strongest(accuracy, suspect_accuracy=suspect, tolerance=tolerance)
    enough = [i for i, a in enumerate(accuracy) if round(a - suspect + tolerance, 6) >= 0]
    assert pick.acceptable == bool(enough)
    if enough:
        assert pick.index == max(enough)
    else:
        assert accuracy[pick.index] == max(accuracy)
