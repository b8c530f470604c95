"""Chooses one network of a family, the same way for every method, without knowing the trigger."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Pick:
    """A chosen network of a family.

    Args:
        index: Its index.
        acceptable: Whether its accuracy is within the tolerance of the suspect's.
        floor: The accuracy that it had to reach, a fraction.
    """

    index: int
    acceptable: bool
    floor: float


def strongest(
    accuracy: np.typing.ArrayLike,
    *,
    suspect_accuracy: float,
    num_images: int,
    tolerance: float = 0.02,
) -> Pick:
    """Chooses the strongest value whose accuracy is at least the suspect's minus the tolerance.

        max {i : a_i >= suspect_accuracy - tolerance}

    If no value is accurate enough, the strongest within one standard error of the most accurate:

        max {i : a_i >= a - sqrt(a (1 - a) / n)},    a = max_i a_i

    Args:
        accuracy: Accuracy a_i on the selection images at each value, from the gentlest to the
            strongest, [V], fractions.
        suspect_accuracy: The suspect's accuracy on the same images, a fraction.
        num_images: Number of selection images, n.
        tolerance: Accuracy that may be lost, a fraction.

    Returns:
        The choice.

    Example:
        >>> strongest([0.9, 0.89, 0.5], suspect_accuracy=0.9, num_images=100).index
        1
        >>> strongest([0.6, 0.7, 0.69, 0.5], suspect_accuracy=0.9, num_images=100).index
        2

    Source: mcjax's own, with the rule of one standard error of Breiman et al. 1984, "Classification and
        regression trees". `mcjax.repair.choose` is its counterpart for a path.
    """
    found = np.asarray(accuracy, np.float64)
    floor = suspect_accuracy - tolerance
    acceptable = bool(reaches(found, floor).any())
    if not acceptable:
        best = float(found.max())
        floor = best - float(np.sqrt(best * (1 - best) / num_images))
    return Pick(int(np.flatnonzero(reaches(found, floor))[-1]), acceptable, floor)


def reaches(accuracy: np.typing.ArrayLike, floor: float) -> np.ndarray:
    """Whether accuracies reach a floor, up to the rounding of float32 means.

    Example:
        >>> reaches([0.88, 0.87], 0.88).tolist()
        [True, False]
    """
    return np.asarray(accuracy, np.float64) >= floor - 1e-6
