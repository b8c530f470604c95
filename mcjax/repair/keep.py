"""Lets a caller keep the results of a repair's long steps, so that an interrupted repair goes on after them."""

from collections.abc import Callable
from typing import Protocol

import jax

from mcjax.core.tree import PyTree
from mcjax.training.fit import Training
from mcjax.training.network import fit_with_progress


class KeepFn(Protocol):
    """Computes a step, or takes its result from an earlier call."""

    def __call__(
        self, name: str, like: Callable[[], PyTree], compute: Callable[[], PyTree]
    ) -> PyTree:
        """The result of a step.

        Args:
            name: The step; the same for the same key, data and options.
            like: Makes a tree of the result's structure, shapes and dtypes.
            compute: Makes the result.

        Returns:
            The result.
        """


def keep_nothing(name: str, like: Callable[[], PyTree], compute: Callable[[], PyTree]) -> PyTree:
    """Computes every step: the `KeepFn` that keeps none.

    Args:
        name: The step.
        like: Not used.
        compute: Makes the result.

    Returns:
        The result.
    """
    return compute()


def kept_fit(
    key: jax.Array, training: Training, *, name: str, verbose: bool, keep: KeepFn
) -> dict[str, PyTree]:
    """Runs a training, or takes its result from an earlier call.

    Args:
        key: Random key.
        training: The training; its `part` is part of the step's name.
        name: What messages call it.
        verbose: Show progress on standard error.
        keep: Keeps the result.

    Returns:
        {"params", "batch_stats"} after the last step.

    Raises:
        Diverged: The loss is not finite.
    """
    return keep(
        f"{name}_{training.part}" if training.part else name,
        lambda: {"params": training.params, "batch_stats": training.batch_stats},
        lambda: fit_with_progress(key, training, name=name, verbose=verbose),
    )
