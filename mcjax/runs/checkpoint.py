"""Checkpoints of trees and metadata, written atomically by Orbax and verified when read.

A folder that exists is complete: Orbax writes to a temporary name and renames it (in a bucket, which
has no renames, it writes a completion marker last). The tree's digest is stored too, so damaged files
raise an error.

With several processes, process 0 saves and restores, and sends what it read to the others; all have
the whole tree.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import serialization

from mcjax.core.bucket import in_bucket
from mcjax.core.errors import UserError
from mcjax.core.files import as_path, cannot_write, delete, first_line
from mcjax.core.processes import once, several
from mcjax.core.tree import PyTree, check_same_structure, digest

COMMITTED = "commit_success.txt"  # Orbax's completion marker in a bucket


def _checkpointer() -> ocp.Checkpointer:
    # By default Orbax waits for the other processes at each step of a save.
    alone = (
        ocp.options.MultiprocessingOptions(
            primary_host=0, active_processes={0}, barrier_sync_key_prefix="mcjax"
        )
        if several()
        else ocp.options.MultiprocessingOptions()
    )
    return ocp.Checkpointer(
        ocp.CompositeCheckpointHandler(
            composite_options=ocp.CompositeOptions(multiprocessing_options=alone)
        ),
        multiprocessing_options=alone,
    )


def exists(path: Path) -> bool:
    """Whether a complete checkpoint exists."""
    return once(lambda: _whole(path))


def _whole(path: Path) -> bool:
    return path.is_dir() and (not in_bucket(path) or (path / COMMITTED).exists())


def save(path: Path, tree: PyTree, **metadata: Any) -> None:
    """Writes a tree to a new folder.

    Args:
        path: The folder; replaced if it exists.
        tree: Any tree that flax can serialise: dicts, tuples, optimizer states.
        **metadata: JSON values to store with it: step, config_hash, ...

    Raises:
        UserError: The folder can't be written.
    """
    tree = jax.tree.map(np.asarray, serialization.to_state_dict(jax.device_get(tree)))
    once(lambda: _save(path, tree, {**metadata, "digest": digest(tree)}))


def _save(path: Path, tree: PyTree, metadata: dict[str, Any]) -> None:
    arguments = ocp.args.Composite(
        tree=ocp.args.StandardSave(tree), metadata=ocp.args.JsonSave(metadata)
    )
    try:
        with _checkpointer() as checkpointer:
            checkpointer.save(as_path(path), args=arguments, force=True)
    except Exception as error:  # Orbax and TensorStore raise many types for a full disk
        full = "No space left on device"
        raise cannot_write(path, full if full in str(error) else first_line(error)) from None


def restore(
    path: Path, like: PyTree | None = None, *, identity: Mapping[str, str] | None = None
) -> tuple[PyTree, dict[str, Any]]:
    """Reads a tree and its metadata.

    Args:
        path: The folder.
        like: A tree with the expected structure, shapes and dtypes; None accepts any, as nested
            dicts.
        identity: Expected metadata that identify the run; None accepts any run.

    Returns:
        The tree of numpy arrays, and the metadata.

    Raises:
        UserError: The checkpoint is missing or damaged, or has a different structure or identity.
    """
    return once(lambda: _checked(path, like, identity or {}))


def _checked(
    path: Path, like: PyTree | None, identity: Mapping[str, str]
) -> tuple[PyTree, dict[str, Any]]:
    if not _whole(path):
        raise UserError(
            f"there is no checkpoint {path}; give a checkpoint's folder, or run the training first"
        )
    if not in_bucket(path) and not any((path / name).exists() for name in ("tree", "metadata")):
        raise UserError(
            f"{path} is not a checkpoint; give a checkpoint's folder, e.g. RUN/checkpoints/endpoint_a"
        )
    arguments = ocp.args.Composite(tree=ocp.args.StandardRestore(), metadata=ocp.args.JsonRestore())
    try:
        with _checkpointer() as checkpointer:
            item = checkpointer.restore(as_path(path), args=arguments)
        tree = jax.tree.map(np.asarray, item.tree)
        metadata = dict(item.metadata)
        intact = metadata.get("digest") == digest(tree)
    except Exception as error:  # many types for a damaged file
        raise _damaged(path, first_line(error)) from None
    if not intact:
        raise _damaged(path, "its contents do not match their checksum")
    check_identity(path, metadata, identity)
    if like is None:
        return tree, metadata
    expected = serialization.to_state_dict(like)
    check_same_structure(expected, tree, ("this network", f"checkpoint {path}"))
    return serialization.from_state_dict(like, tree), metadata


def check_identity(path: Path, found: Mapping[str, Any], expected: Mapping[str, str]) -> None:
    """Checks that a file was computed by this run.

    Args:
        path: The file.
        found: Its metadata.
        expected: The expected metadata; see `mcjax.runs.run.Run.identity`.

    Raises:
        UserError: The metadata differ; the message names the first difference.
    """
    for name, value in expected.items():
        if found.get(name) != value:
            raise UserError(
                f"{path} was computed by another run ({name} {found.get(name)}, this one's is "
                f"{value}); delete it and run again, or give another workdir"
            )


def restore_network(path: Path) -> tuple[dict[str, PyTree], dict[str, Any]]:
    """Reads a network's variables and their metadata.

    Args:
        path: The folder.

    Returns:
        {"params", and "batch_stats" if it has them}, and the metadata.

    Raises:
        UserError: As `restore`; the checkpoint is that of a curve or of a training state.
    """
    tree, metadata = restore(path)
    if "params" not in tree:
        raise UserError(f"{path} holds no network (no params); give a network's checkpoint")
    return {name: tree[name] for name in ("params", "batch_stats") if tree.get(name)}, metadata


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"checkpoint {path} is damaged ({reason}); delete it and run again")


def save_partial(folder: Path, tree: PyTree, *, step: int, **metadata: Any) -> None:
    """Saves the newest state of a running training in a folder named by step; deletes older ones."""
    save(folder / str(step), tree, step=step, **metadata)

    def forget_older() -> None:
        for old in _steps(folder):
            if old < step:
                delete(folder / str(old))

    once(forget_older)


def restore_partial(
    folder: Path, like: PyTree, *, identity: Mapping[str, str] | None = None
) -> PyTree | None:
    """The newest state saved by `save_partial`, or None."""
    steps = once(lambda: _steps(folder))
    return restore(folder / str(steps[-1]), like, identity=identity)[0] if steps else None


def _steps(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    steps = [child for child in folder.iterdir() if child.name.isdigit()]
    return sorted(int(child.name) for child in steps if _whole(child))
