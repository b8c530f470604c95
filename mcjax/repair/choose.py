"""Chooses the point of the path that repairs the network, without knowing the trigger."""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Choice:
    """A chosen point.

    Args:
        index: Index of the point; None if no point is acceptable.
        floor: The required accuracy, a fraction.
        distance: Its distance to the nearest suspect network, in the units of the weights.
        num_acceptable: Number of points that reach the floor, without the suspects themselves.
    """

    index: int | None
    floor: float
    distance: float
    num_acceptable: int


def choose(
    accuracy: np.typing.ArrayLike,
    distances: Sequence[np.typing.ArrayLike],
    *,
    suspect_accuracy: float,
    tolerance: float = 0.02,
) -> Choice:
    """Chooses the point farthest from its nearest suspect among those with sufficient accuracy.

        argmax_i min_s ||w_i - w_s||   over   accuracy_i >= suspect_accuracy - tolerance

    With one suspect this is the point farthest from it. With two, the point farthest from one would
    be the other, which is tampered too.

    Args:
        accuracy: Accuracy on the selection images at each point, [T].
        distances: For each suspect network, the points' distances to it, each [T].
        suspect_accuracy: The suspect's accuracy on the same images; with two suspects, the better
            one's.
        tolerance: Accuracy that may be lost, a fraction.

    Returns:
        The choice; its index is None if no point other than the suspects has sufficient accuracy.

    Example:
        >>> ends = [[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]]
        >>> choose([0.9, 0.89, 0.9], ends, suspect_accuracy=0.9).index
        1
        >>> choose([0.9, 0.5, 0.9], ends, suspect_accuracy=0.9).index is None
        True

    Source: for one suspect, the rule of Zhao et al.'s patent US11568282B2, claim 3; the extension to
        two is mcjax's own.
    """
    accuracy = np.asarray(accuracy, np.float64)
    nearest = np.min([np.asarray(d, np.float64) for d in distances], axis=0)
    floor = suspect_accuracy - tolerance
    # Accuracies are float32 means, which can differ in the last digits for equal counts.
    acceptable = (accuracy >= floor - 1e-6) & (nearest > 0)
    if not acceptable.any():
        return Choice(None, floor, 0.0, 0)
    index = int(np.where(acceptable, nearest, -1).argmax())
    return Choice(index, floor, float(nearest[index]), int(acceptable.sum()))


def oracle(
    accuracy: np.typing.ArrayLike, success: np.typing.ArrayLike, *, floor: float
) -> int | None:
    """The point with the lowest attack success among those with sufficient accuracy.

    It needs the trigger, which is unknown in a real repair; it shows how much better the choice could
    have been.

    Args:
        accuracy: Accuracy at each point, on the same images as in `choose`, [T].
        success: Attack success rate at each point, [T].
        floor: The required accuracy.

    Returns:
        Its index, the first of equals; None if no point has sufficient accuracy.

    Example:
        >>> oracle([0.9, 0.89, 0.9], [1.0, 0.2, 0.1], floor=0.88)
        2
    """
    acceptable = np.asarray(accuracy) >= floor - 1e-6
    if not acceptable.any():
        return None
    return int(np.where(acceptable, np.asarray(success), np.inf).argmin())
