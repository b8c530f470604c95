"""Which point of the path repairs the network: chosen without knowing the trigger."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mcjax.curves import Curve
from mcjax.curves.geometry import distances


@dataclasses.dataclass(frozen=True)
class Choice:
    """A chosen point.

    Args:
        index: Its place among the points, None where no point is acceptable.
        floor: The accuracy that was asked for, a fraction.
        distance: Its distance to the nearest suspect network, in the units of the weights.
        num_acceptable: How many points meet the floor, the suspects themselves not counted.
        suspect_accuracy: What the floor is measured from, a fraction.
    """

    index: int | None
    floor: float
    distance: float
    num_acceptable: int
    suspect_accuracy: float


def choose(
    accuracy: np.typing.ArrayLike,
    distances: Sequence[np.typing.ArrayLike],
    *,
    suspect_accuracy: float,
    tolerance: float = 0.02,
) -> Choice:
    """The point farthest from its nearest suspect among those that are accurate enough.

        argmax_i min_s ||w_i - w_s||   over   accuracy_i >= suspect_accuracy - tolerance

    With one suspect it is the point farthest from it. With two, the farthest from one would be
    the other, which is tampered with as well.

    Args:
        accuracy: On the selection images at each point, [T].
        distances: For each suspect network, the points' distances to it, each [T].
        suspect_accuracy: The suspect's own on the same images; of two, the better one's, which
            is what a repair has to be compared with.
        tolerance: How much accuracy may be given up, a fraction.

    Returns:
        The choice; its index is None if no point but the suspects themselves is accurate enough.

    Example:
        >>> ends = [[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]]
        >>> choose([0.9, 0.89, 0.9], ends, suspect_accuracy=0.9).index
        1
        >>> choose([0.9, 0.5, 0.9], ends, suspect_accuracy=0.9).index is None
        True

    Source: for one suspect, the rule of Zhao et al.'s patent US11568282B2, claim 3; the
        nearest of two is mcjax's own.
    """
    accuracy = np.asarray(accuracy, np.float64)
    nearest = np.min([np.asarray(d, np.float64) for d in distances], axis=0)
    floor = suspect_accuracy - tolerance
    # Accuracies are means in float32: equal counts of images may differ in the last digits.
    acceptable = (accuracy >= floor - 1e-6) & (nearest > 0)
    if not acceptable.any():
        return Choice(None, floor, 0.0, 0, suspect_accuracy)
    index = int(np.where(acceptable, nearest, -1).argmax())
    return Choice(index, floor, float(nearest[index]), int(acceptable.sum()), suspect_accuracy)


def choose_on_curve(
    curve: Curve,
    ts: np.typing.ArrayLike,
    accuracy: np.typing.ArrayLike,
    *,
    suspects: Sequence[int],
    tolerance: float = 0.02,
) -> Choice:
    """`choose` for the points of a curve, whose ends may be suspect.

    Args:
        curve: The curve.
        ts: Points, [T], the ends of the curve included.
        accuracy: On the selection images at each point, [T].
        suspects: The control points that may be tampered with: 0 the start, -1 the end.
        tolerance: See `choose`.

    Returns:
        The choice.

    Example:
        >>> from mcjax.curves import Bezier
        >>> curve = Bezier.connect(np.zeros(2), np.ones(2), num_bends=0)
        >>> choose_on_curve(curve, [0, 0.5, 1], [0.9, 0.9, 0.9], suspects=(0, -1)).index
        1
    """
    accuracy, ts = np.asarray(accuracy), np.asarray(ts)
    return choose(
        accuracy,
        [np.asarray(distances(curve, ts, s)) for s in suspects],
        suspect_accuracy=float(max(accuracy[s] for s in suspects)),
        tolerance=tolerance,
    )


def oracle(
    accuracy: np.typing.ArrayLike, success: np.typing.ArrayLike, *, floor: float
) -> int | None:
    """The point of lowest attack success among those that are accurate enough.

    Nobody who repairs a network knows it: it tells how much better a choice could have been.

    Args:
        accuracy: At each point, on the same images as in `choose`, [T].
        success: Attack success rate at each point, [T].
        floor: The accuracy asked for.

    Returns:
        Its place, the first of equals; None if no point is accurate enough.

    Example:
        >>> oracle([0.9, 0.89, 0.9], [1.0, 0.2, 0.1], floor=0.88)
        2
    """
    acceptable = np.asarray(accuracy) >= floor - 1e-6
    if not acceptable.any():
        return None
    return int(np.where(acceptable, np.asarray(success), np.inf).argmin())
