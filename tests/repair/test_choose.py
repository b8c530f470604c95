"""The choice of t, on curves made for it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcjax.repair.choose import choose, oracle

FAR = [[0.0, 1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0, 0.0]]


def test_two_suspects_the_middle_is_farthest_from_the_nearest():
    choice = choose([0.9] * 5, FAR, suspect_accuracy=0.9)
    assert (choice.index, choice.distance, choice.num_acceptable) == (2, 2.0, 3)


def test_one_suspect_the_other_end_is_farthest():
    assert choose([0.9] * 5, FAR[:1], suspect_accuracy=0.9).index == 4


def test_a_point_below_the_floor_is_not_taken():
    choice = choose([0.9, 0.885, 0.7, 0.882, 0.9], FAR, suspect_accuracy=0.9, tolerance=0.02)
    assert choice.index == 1
    assert choice.floor == pytest.approx(0.88)


def test_the_floor_itself_is_accurate_enough_in_float32():
    accuracy = np.float32([0.9, 0.88, 0.1, 0.1, 0.9])
    assert choose(accuracy, FAR, suspect_accuracy=0.9, tolerance=0.02).index == 1


def test_nothing_but_the_suspects_is_no_repair():
    choice = choose([0.9, 0.5, 0.5, 0.5, 0.9], FAR, suspect_accuracy=0.9)
    assert choice.index is None
    assert choice.num_acceptable == 0


@given(st.lists(st.floats(0, 1), min_size=3, max_size=9), st.floats(0, 0.5))
def test_no_acceptable_point_is_farther(accuracy, tolerance):
    far = np.linspace(0, 1, len(accuracy))
    suspects = [far, far[::-1]]
    choice = choose(accuracy, suspects, suspect_accuracy=accuracy[0], tolerance=tolerance)
    nearest = np.minimum(*suspects)
    for i, value in enumerate(accuracy):
        if value >= accuracy[0] - tolerance and nearest[i] > 0:
            assert choice.index is not None
            assert nearest[choice.index] >= nearest[i]


def test_oracle_is_the_lowest_success_that_is_accurate_enough():
    assert oracle([0.9, 0.9, 0.2], [1.0, 0.3, 0.0], floor=0.5) == 1
    assert oracle([0.2, 0.2], [0.0, 0.0], floor=0.5) is None
