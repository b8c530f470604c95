"""The state of `autoattack` between two rounds, to save and to resume from."""

from typing import NamedTuple

import numpy as np

from mcjax.core.errors import UserError


class AutoAttackState(NamedTuple):
    """What `autoattack` has found so far; any prefix of its rounds can be saved and resumed.

    Attributes:
        images: Adversarial images where found, else the originals, [B, H, W, C].
        fooled_by: 0: misclassified without an attack; k: by the k-th attack; -1: not yet. int [B].
        zero_gradient: Whether the gradient of the loss is zero at the original image, bool [B].
        num_done: Finished rounds (one target or one start of one attack).
        num_rounds: All rounds.
    """

    images: np.ndarray
    fooled_by: np.ndarray
    zero_gradient: np.ndarray
    num_done: int
    num_rounds: int


def resumed(state: AutoAttackState, shape: tuple[int, ...], num_rounds: int) -> AutoAttackState:
    """A saved state, with its arrays in numpy, if it is one of these images and rounds.

    Args:
        state: As `progress_fn` of `autoattack` was given it, perhaps by way of a file.
        shape: Of the images, [B, H, W, C].
        num_rounds: All rounds.

    Raises:
        UserError: It is of other images or settings.

    Example:
        >>> state = AutoAttackState([[[[0.5]]]], [-1], [False], 3, 20)
        >>> resumed(state, (1, 1, 1, 1), 20).num_done
        3
    """
    images, fooled_by, zero = (np.array(v) for v in state[:3])
    state = AutoAttackState(images, fooled_by, zero, int(state.num_done), int(state.num_rounds))
    if state.images.shape != shape or len(state.fooled_by) != shape[0]:
        raise UserError(
            f"state is of images {list(state.images.shape)}, but x has shape {list(shape)}; "
            "give the state of the same images"
        )
    if state.num_rounds != num_rounds or not 0 <= state.num_done <= state.num_rounds:
        raise UserError(
            f"state has {state.num_rounds} rounds, but these settings need {num_rounds}; "
            "resume with the same version, norm, attacks and network"
        )
    return state
