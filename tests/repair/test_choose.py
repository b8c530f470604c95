"""The choice of t, on curves made for it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcjax.curves import Bezier
from mcjax.repair.choose import choose, choose_by_evidence, choose_on_curve, oracle, path_ts

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


def test_the_ends_are_found_on_a_path_that_goes_beyond_them():
    curve = Bezier.connect(np.zeros(2), np.ones(2), num_bends=0)
    ts = path_ts(3, 0.5)
    assert ts.tolist() == [-0.5, 0, 0.5, 1, 1.5]
    # The better suspect has 0.9; outside the ends accuracy is higher, which is no suspect's.
    accuracy = [0.95, 0.9, 0.5, 0.85, 0.91]
    choice = choose_on_curve(curve, ts, accuracy, suspects=(0, -1))
    assert choice.suspect_accuracy == 0.9
    assert choice.index in (0, 4)  # both half a length from their end
    assert choice.num_acceptable == 2
    alone = choose_on_curve(curve, ts, accuracy, suspects=(0,))
    assert alone.index == 4


@given(st.integers(2, 70), st.floats(0, 3))
def test_points_beyond_the_ends_keep_the_spacing(num_points, extrapolate):
    ts = path_ts(num_points, extrapolate)
    assert {0.0, 1.0} <= set(ts.tolist())
    np.testing.assert_allclose(np.diff(ts), 1 / (num_points - 1), rtol=1e-6)
    assert -extrapolate - 1e-6 <= ts[0] <= 0
    assert ts[0] + ts[-1] == pytest.approx(1)
    np.testing.assert_array_equal(path_ts(num_points), np.linspace(0, 1, num_points))


def by_evidence(accuracy, estimated, **options):
    return choose_by_evidence(
        accuracy, estimated, FAR, suspect_accuracy=0.9, num_images=400, **options
    )


def test_evidence_prefers_the_lowest_estimate_among_accurate_points():
    accurate = [0.9] * 5
    assert by_evidence(accurate, [1.0, 0.02, 0.3, 0.5, 1.0]).index == 1
    # The lowest of all is not accurate enough.
    assert by_evidence([0.9, 0.9, 0.5, 0.9, 0.9], [1.0, 0.2, 0.0, 0.1, 1.0]).index == 3


def test_estimates_within_one_standard_error_are_equal_and_distance_decides():
    error = np.sqrt(0.1 * 0.9 / 400)
    near, far = [1.0, 0.1, 0.1 + 0.9 * error, 0.3, 1.0], [1.0, 0.1, 0.1 + 1.1 * error, 0.3, 1.0]
    assert by_evidence([0.9] * 5, near).index == 2
    assert by_evidence([0.9] * 5, far).index == 1
    # At 0 the error is that of one image.
    assert by_evidence([0.9] * 5, [1.0, 0.0, 1 / 400, 0.3, 1.0]).index == 2
    assert by_evidence([0.9] * 5, [1.0, 0.0, 2 / 400, 0.3, 1.0]).index == 1


@given(st.lists(st.floats(0, 1, width=32), min_size=5, max_size=5))
def test_without_any_evidence_distance_decides_alone(accuracy):
    one = by_evidence(accuracy, [0.0] * 5)
    assert one == choose(accuracy, FAR, suspect_accuracy=0.9)


@given(
    st.lists(st.floats(0, 1, width=32), min_size=5, max_size=5),
    st.lists(st.floats(0, 1, width=32), min_size=5, max_size=5),
)
def test_evidence_never_gives_accuracy_away(accuracy, estimated):
    choice = by_evidence(accuracy, estimated, tolerance=0.1)
    acceptable = [i for i in (1, 2, 3) if accuracy[i] >= 0.8 - 1e-6]
    assert choice.num_acceptable == len(acceptable)
    assert (choice.index is None) == (not acceptable)
    if acceptable:
        assert choice.index in acceptable
        least = min(estimated[i] for i in acceptable)
        assert estimated[choice.index] <= least + 0.5 / np.sqrt(400) + 1e-6


@pytest.mark.parametrize("num_images", range(90, 140))
def test_one_image_more_than_none_is_equal_in_float32(num_images):
    """The estimate is a float32 mean, which may lie above the error, a float64."""
    estimated = np.float32([1.0, 0.0, 1 / num_images, 0.3, 1.0])
    choice = choose_by_evidence(
        [0.9] * 5, estimated, FAR, suspect_accuracy=0.9, num_images=num_images
    )
    assert choice.index == 2


def test_an_estimate_over_no_images_decides_nothing():
    ends = [[0.0, 1.0, 2.0]]
    chosen = choose_by_evidence([0.9] * 3, [np.nan] * 3, ends, suspect_accuracy=0.9, num_images=0)
    assert chosen == choose([0.9] * 3, ends, suspect_accuracy=0.9)
    assert chosen.index == 2
