"""Factors of axes: tied, split and regrouped as row-major arrays are."""

import numpy as np
import pytest

from mcjax.alignment.factors import Factor, axis, fix, leaves, regroup, tie


def sizes(factors):
    return [f.size for f in leaves(factors)]


def test_what_is_tied_and_split_later_stays_one():
    a, b, c = axis(12), axis(12), axis(12)
    tie(a, b)
    tie(b, [Factor(3), Factor(4)])
    tie(c, a)
    assert leaves(a) == leaves(b) == leaves(c)
    assert sizes(c) == [3, 4]


def test_fixing_one_fixes_all_that_are_tied_to_it_before_and_after():
    a, b, c = axis(6), axis(6), axis(6)
    tie(a, b)
    fix(b)
    tie(c, a)
    assert all(f.fixed for f in leaves(a) + leaves(c))


def test_the_fixed_part_of_a_split_axis_leaves_the_other_free():
    whole, pixels, channels = axis(12), axis(4, fixed=True), axis(3)
    tie(whole, [*pixels, *channels])
    assert [f.fixed for f in leaves(whole)] == [True, False]


def test_axes_without_common_factors_are_fixed():
    a, b = [Factor(4), Factor(6)], [Factor(3), Factor(8)]
    tie(a, b)
    assert all(f.fixed for f in a + b)


def test_an_axis_tied_to_itself_twice_over_ends():
    a = axis(4)
    square = [*a, *a]
    tie(square, [Factor(2), Factor(8)])
    assert np.prod(sizes(square)) == 16


@pytest.mark.parametrize(
    ("before", "shape", "after"),
    [
        ((2, 3, 4), (24,), [[2, 3, 4]]),
        ((24,), (2, 3, 4), [[2], [3], [4]]),
        ((6, 4), (3, 8), [[3], [2, 4]]),
        ((4, 3), (3, 4), None),
        ((4, 6), (2, 12), [[2], [2, 6]]),
        ((5,), (1, 5, 1), [[], [5], []]),
    ],
)
def test_regroup(before, shape, after):
    axes = regroup([Factor(n) for n in before], shape)
    assert (axes if axes is None else [sizes(a) for a in axes]) == after


def test_regrouped_factors_follow_the_elements():
    """A permutation of one factor moves the same elements before and after a reshape."""
    w = np.arange(24).reshape(4, 6)
    outer, inner = Factor(4), Factor(6)
    ((first,), (second, third)) = (leaves(a) for a in regroup([outer, inner], (2, 12)))
    assert leaves([outer]) == [first, second]
    assert leaves([inner]) == [third]
    order = [3, 1, 2, 0, 5, 4]
    moved = w[:, order].reshape(2, 12)
    assert (moved == w.reshape(2, 2, 6)[:, :, order].reshape(2, 12)).all()
