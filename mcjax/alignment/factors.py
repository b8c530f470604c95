"""Axes as products of tied factors: a union-find whose sets can be split.

An axis of an array is a list of factors, outermost first, whose sizes multiply to its length; the
axis of a flattened image [H * W * C] has three. Tied factors are permuted together, fixed factors
are not permuted. Factors of size 1 are omitted.
"""

import math
from collections.abc import Sequence

Axis = list["Factor"]


class Factor:
    """A set of indices that share one permutation.

    Args:
        size: Number of indices.
        fixed: Whether the indices must not be permuted.
    """

    def __init__(self, size: int, fixed: bool = False):
        self.size = size
        self.fixed = fixed
        self.same: Factor | None = None  # the representative of this factor
        self.parts: tuple[Factor, Factor] | None = None  # outer and inner, after a split


def axis(size: int, *, fixed: bool = False) -> Axis:
    """Makes an axis with one factor.

    Example:
        >>> axis(1), len(axis(3))
        ([], 1)
    """
    return [Factor(size, fixed)] if size != 1 else []


def leaves(factors: Sequence[Factor]) -> Axis:
    """The current factors: representatives, with splits applied.

    Example:
        >>> whole = axis(6)
        >>> tie(whole, [Factor(2), Factor(3)])
        >>> [f.size for f in leaves(whole)]
        [2, 3]
    """
    found: Axis = []
    for factor in factors:
        while factor.same is not None:
            factor = factor.same
        found += leaves(factor.parts) if factor.parts else [factor]
    return found


def fix(factors: Sequence[Factor]) -> None:
    """Marks factors as not permutable."""
    for factor in leaves(factors):
        factor.fixed = True


def tie(one: Sequence[Factor], other: Sequence[Factor]) -> None:
    """Ties two axes of equal length; if one has more factors, the other is split to match.

    Axes without common factors, e.g. of 4 * 6 and 3 * 8 indices, are fixed.

    Example:
        >>> a, b, c = axis(6), axis(6), axis(6)
        >>> tie(a, b), tie(b, c)
        (None, None)
        >>> leaves(a) == leaves(c)
        True
    """
    left, right = list(one), list(other)
    while left and right:
        left, right = leaves(left), leaves(right)  # splits and ties may have changed the rest
        x, y = left[0], right[0]
        if x is y:
            left, right = left[1:], right[1:]
        elif x.size == y.size:
            x.fixed |= y.fixed
            y.same = x
        elif x.size > y.size and x.size % y.size == 0:
            _split(x, y.size)
        elif y.size > x.size and y.size % x.size == 0:
            _split(y, x.size)
        else:
            fix([*left, *right])
            return


def regroup(factors: Sequence[Factor], shape: Sequence[int]) -> list[Axis] | None:
    """The axes of a reshaped array, in row-major order; None if the factors do not fit the shape.

    Args:
        factors: The factors of all axes of the array, in order.
        shape: The new shape.

    Example:
        >>> [[f.size for f in a] for a in regroup([Factor(2), Factor(12)], (2, 3, 4))]
        [[2], [3], [4]]
        >>> regroup([Factor(4), Factor(3)], (3, 4)), regroup([Factor(3), Factor(4)], (4, 3))
        (None, None)
    """
    rest, axes = leaves(factors), []
    for length in shape:
        taken: Axis = []
        while (size := math.prod(f.size for f in taken)) < length:
            if length % size:
                return None
            missing = length // size
            if rest[0].size > missing:
                if rest[0].size % missing:
                    return None
                _split(rest[0], missing)
                rest = leaves(rest)
            taken.append(rest.pop(0))
        if math.prod(f.size for f in taken) != length:
            return None
        axes.append(taken)
    return axes


def _split(factor: Factor, outer: int) -> None:
    factor.parts = tuple(Factor(n, factor.fixed) for n in (outer, factor.size // outer))  # type: ignore[assignment]
