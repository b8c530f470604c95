"""Chooses one network of a family, the same way for every method, without knowing the trigger."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Pick:
    """A chosen network of a family.

    Args:
        index: Its index.
        acceptable: Whether its accuracy reaches the floor.
        floor: The required accuracy, a fraction.
    """

    index: int
    acceptable: bool
    floor: float


def strongest(
    accuracy: np.typing.ArrayLike, *, suspect_accuracy: float, tolerance: float = 0.02
) -> Pick:
    """Chooses the strongest value whose accuracy is at least the suspect's minus the tolerance.

        max {i : accuracy_i >= suspect_accuracy - tolerance}

    If no value is accurate enough, the most accurate one is chosen: the gentlest of equals.

    Args:
        accuracy: Accuracy on the selection images at each value, from the gentlest to the
            strongest, [V], fractions.
        suspect_accuracy: The suspect's accuracy on the same images, a fraction.
        tolerance: Accuracy that may be lost, a fraction.

    Returns:
        The choice.

    Example:
        >>> strongest([0.9, 0.89, 0.5], suspect_accuracy=0.9).index
        1
        >>> strongest([0.6, 0.7, 0.5], suspect_accuracy=0.9)
        Pick(index=1, acceptable=False, floor=0.88)

    Source: mcjax's own; `mcjax.repair.choose` is its counterpart for a path.
    """
    found = np.asarray(accuracy, np.float64)
    floor = suspect_accuracy - tolerance
    enough = np.flatnonzero(reaches(found, floor))
    if len(enough):
        return Pick(int(enough[-1]), True, floor)
    return Pick(int(found.argmax()), False, floor)


def reaches(accuracy: np.typing.ArrayLike, floor: float) -> np.ndarray:
    """Whether accuracies reach a floor, up to the rounding of float32 means.

    Example:
        >>> reaches([0.88, 0.87], 0.88).tolist()
        [True, False]
    """
    return np.asarray(accuracy, np.float64) >= floor - 1e-6
