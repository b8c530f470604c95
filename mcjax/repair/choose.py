"""Chooses the point of the path that repairs the network, without knowing the trigger."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mcjax.curves import Curve
from mcjax.curves.geometry import distances


@dataclasses.dataclass(frozen=True)
class Choice:
    """A chosen point.

    Args:
        index: Index of the point; None if no point is acceptable.
        floor: The required accuracy, a fraction.
        distance: Its distance to the nearest suspect network, in the units of the weights.
        num_acceptable: Number of points that reach the floor, without the suspects themselves.
        suspect_accuracy: The suspect's accuracy, from which the floor is measured, a fraction.
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
        return Choice(None, floor, 0.0, 0, suspect_accuracy)
    index = int(np.where(acceptable, nearest, -1).argmax())
    return Choice(index, floor, float(nearest[index]), int(acceptable.sum()), suspect_accuracy)


def choose_by_evidence(
    accuracy: np.typing.ArrayLike,
    estimated: np.typing.ArrayLike,
    distances: Sequence[np.typing.ArrayLike],
    *,
    suspect_accuracy: float,
    num_images: int,
    tolerance: float = 0.02,
) -> Choice:
    """Chooses the point with the lowest estimated attack success among those with sufficient accuracy.

        argmax_i min_s ||w_i - w_s||   over   accuracy_i >= suspect_accuracy - tolerance,
                                              e_i <= e + sqrt(max(e (1 - e), 1 / n) / n)

    with e_i the estimate at point i and e the lowest of the accurate points. Estimates within one
    standard error of the lowest count as equal, and the point farthest from its nearest suspect wins.
    Where all estimates are equal, this is `choose`.

    Args:
        accuracy: Accuracy on the selection images at each point, [T].
        estimated: Estimated attack success at each point, fractions, [T]
            (`mcjax.repair.evidence.estimate.suspicious_success`).
        distances: As in `choose`.
        suspect_accuracy: Likewise.
        num_images: Number of images, n, that each estimate is a mean over
            (`mcjax.repair.evidence.estimate.num_judged`); with none, distance decides alone.
        tolerance: As in `choose`.

    Returns:
        The choice; its index is None if no point other than the suspects has sufficient accuracy.

    Example:
        >>> ends = [[0.0, 1.0, 2.0, 3.0], [3.0, 2.0, 1.0, 0.0]]
        >>> choose_by_evidence(
        ...     [0.9, 0.9, 0.9, 0.9], [0.9, 0.0, 0.5, 0.9], ends, suspect_accuracy=0.9, num_images=100
        ... ).index
        1
    """
    found = np.asarray(accuracy, np.float64)
    nearest = np.min([np.asarray(d, np.float64) for d in distances], axis=0)
    acceptable = (found >= suspect_accuracy - tolerance - 1e-6) & (nearest > 0)
    if acceptable.any() and num_images:
        e = np.asarray(estimated, np.float64)
        least = float(e[acceptable].min())
        error = np.sqrt(max(least * (1 - least), 1 / num_images) / num_images)
        # Points that are not accepted cannot be chosen whatever their accuracy was.
        # Estimates are float32 means: one image more than none is exactly one error.
        found = np.where(acceptable & (e <= least + error + 1e-6), found, -np.inf)
    choice = choose(found, distances, suspect_accuracy=suspect_accuracy, tolerance=tolerance)
    return dataclasses.replace(choice, num_acceptable=int(acceptable.sum()))


def choose_on_curve(
    curve: Curve,
    ts: np.typing.ArrayLike,
    accuracy: np.typing.ArrayLike,
    *,
    suspects: Sequence[int],
    tolerance: float = 0.02,
    estimated: np.typing.ArrayLike | None = None,
    num_images: int = 0,
) -> Choice:
    """`choose`, or `choose_by_evidence`, for the points of a curve whose ends may be suspect.

    Args:
        curve: The curve.
        ts: Points, [T]; t = 0 and 1 are among them.
        accuracy: On the selection images at each point, [T].
        suspects: The control points that may be tampered with: 0 the start, -1 the end.
        tolerance: See `choose`.
        estimated: Estimated attack success at each point; None chooses by distance alone.
        num_images: See `choose_by_evidence`.

    Returns:
        The choice.

    Example:
        >>> from mcjax.curves import Bezier
        >>> curve = Bezier.connect(np.zeros(2), np.ones(2), num_bends=0)
        >>> choose_on_curve(curve, [0, 0.5, 1], [0.9, 0.9, 0.9], suspects=(0, -1)).index
        1
    """
    accuracy, ts = np.asarray(accuracy), np.asarray(ts)
    away = [np.asarray(distances(curve, ts, s)) for s in suspects]
    ends = [int(np.abs(ts - (0 if s == 0 else 1)).argmin()) for s in suspects]
    best = float(max(accuracy[i] for i in ends))
    if estimated is None:
        return choose(accuracy, away, suspect_accuracy=best, tolerance=tolerance)
    return choose_by_evidence(
        accuracy,
        estimated,
        away,
        suspect_accuracy=best,
        num_images=num_images,
        tolerance=tolerance,
    )


def path_ts(num_points: int, extrapolate: float = 0.0) -> np.ndarray:
    """The t's of a path that are evaluated: equally spaced in [0, 1], and beyond at the same spacing.

    Args:
        num_points: Points in [0, 1], the ends included, at least 2.
        extrapolate: How far t goes below 0 and above 1, rounded down to the spacing.

    Returns:
        float64, ascending; 0 and 1 are among them.

    Example:
        >>> path_ts(3, 0.6).tolist()
        [-0.5, 0.0, 0.5, 1.0, 1.5]
    """
    extra = int(extrapolate * (num_points - 1) + 1e-9)
    inside = np.linspace(0, 1, num_points)
    step = 1 / (num_points - 1)
    beyond = step * np.arange(1, extra + 1)
    return np.concatenate([-beyond[::-1], inside, 1 + beyond])


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
