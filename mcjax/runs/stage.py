"""A stage of an experiment: its result is saved as a checkpoint, and restored the next time."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from mcjax.core.files import delete
from mcjax.core.processes import once
from mcjax.core.tree import PyTree
from mcjax.runs.checkpoint import exists, restore, save
from mcjax.runs.run import Run

Found = tuple[PyTree, Mapping[str, Any]]
"""A stage's result, and what else its checkpoint keeps: JSON values by name."""


def stage(run: Run, name: str, like: PyTree, compute: Callable[[], Found]) -> Found:
    """Computes a stage, or restores the result of an earlier call.

    The checkpoint carries the run's `identity` of the stage; one of another run is refused.

    Args:
        run: The run, or a seed's part of it.
        name: The stage, `run.part` included.
        like: A tree of the structure, shapes and dtypes of the result.
        compute: Makes the result, and what else to keep.

    Returns:
        The result, and what else was kept.

    Raises:
        UserError: The checkpoint is damaged, belongs to another run, or can't be written.
    """
    found = finished(run, name, like)
    if found is None:
        found = compute()
        keep(run, name, *found)
    return found


def finished(run: Run, name: str, like: PyTree) -> Found | None:
    """The result of a finished stage; None if it is not finished.

    Raises:
        UserError: The checkpoint is damaged or belongs to another run.
    """
    if not exists(run.checkpoint(name)):
        return None
    return restore(run.checkpoint(name), like, identity=run.identity(name))


def keep(run: Run, name: str, tree: PyTree, metadata: Mapping[str, Any]) -> None:
    """Saves a stage's checkpoint and deletes its partial ones."""
    save(run.checkpoint(name), tree, **run.identity(name), **metadata)
    forget_partial(run, name)


def forget_partial(run: Run, name: str) -> None:
    """Deletes a stage's partial checkpoints."""
    delete(run.partial(name))


def due(since: float, seconds: float) -> bool:
    """Whether so many seconds have passed, on the first process's clock."""
    return once(lambda: time.monotonic() - since >= seconds)
