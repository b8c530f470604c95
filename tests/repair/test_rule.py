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
        # None: one standard error of 0.7 with 100 images is 0.046.
        ([0.5, 0.7, 0.66, 0.65], 2, False),
        ([0.5, 0.7, 0.65, 0.7], 3, False),
    ],
)
def test_by_hand(accuracy, index, acceptable):
    pick = strongest(accuracy, suspect_accuracy=0.9, num_images=100, tolerance=0.02)
    floor = 0.88 if acceptable else 0.7 - (0.7 * 0.3 / 100) ** 0.5
    assert pick == Pick(index, acceptable, pytest.approx(floor))


def test_float32_means_of_equal_counts_are_equal():
    """132 of 150 images, averaged in float32 in two orders, against 135 - 3."""
    accuracy = np.array([0.9, 0.88], np.float32)
    suspect = float(accuracy[0])
    assert strongest(accuracy, suspect_accuracy=suspect, num_images=150, tolerance=0.02).index == 1


fractions = st.integers(0, 100).map(lambda k: k / 100)


@given(st.lists(fractions, min_size=1), fractions, fractions)
def test_never_below_the_floor_if_something_reaches_it(accuracy, suspect, tolerance):
    pick = strongest(accuracy, suspect_accuracy=suspect, num_images=50, tolerance=tolerance)
    enough = [i for i, a in enumerate(accuracy) if round(a - suspect + tolerance, 6) >= 0]
    assert pick.acceptable == bool(enough)
    if enough:
        assert pick.index == max(enough)
    else:
        best = max(accuracy)
        lowest = best - (best * (1 - best) / 50) ** 0.5
        assert accuracy[pick.index] >= lowest - 1e-6
        assert all(a < lowest for a in accuracy[pick.index + 1 :])
