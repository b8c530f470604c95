"""One stage of an experiment: what it computes is kept as a checkpoint, and read where it is there."""

from collections.abc import Callable, Mapping
from typing import Any

from mcjax.core.tree import PyTree
from mcjax.experiments.stages.training import forget_partial
from mcjax.runs.checkpoint import exists, restore, save
from mcjax.runs.run import Run

Found = tuple[PyTree, Mapping[str, Any]]


def stage(run: Run, name: str, like: PyTree, compute: Callable[[], Found]) -> Found:
    """Computes a stage, or reads what an earlier call has computed.

    The checkpoint carries the run's `identity` of the stage; one of another run is refused.

    Args:
        run: The run, or a seed's part of it.
        name: The stage's, `run.part` included.
        like: A tree of the structure, shapes and dtypes of the result.
        compute: Makes the result, and what else to keep: JSON values by name.

    Returns:
        The result, and what else was kept.

    Raises:
        UserError: The checkpoint is damaged, or another run's; it can't be written.
    """
    if exists(run.checkpoint(name)):
        return restore(run.checkpoint(name), like, identity=run.identity(name))
    tree, metadata = compute()
    keep(run, name, tree, metadata)
    return tree, metadata


def keep(run: Run, name: str, tree: PyTree, metadata: Mapping[str, Any]) -> None:
    """Writes a stage's checkpoint, and forgets what was kept on the way there."""
    save(run.checkpoint(name), tree, **run.identity(name), **metadata)
    forget_partial(run, name)
