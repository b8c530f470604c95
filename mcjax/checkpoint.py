"""Checkpoints: a tree and what belongs to it, written whole by Orbax, checked when read.

A folder is complete when it exists: Orbax writes under another name and renames. The tree's
digest is stored beside it, so a damaged file is an error and never a wrong number.
"""

import logging
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import serialization

from mcjax.errors import UserError
from mcjax.tree import PyTree, check_same_structure, digest
from mcjax.workdir import cannot_write

logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax reports every step of a save


def _checkpointer() -> ocp.Checkpointer:
    return ocp.Checkpointer(ocp.CompositeCheckpointHandler())


def save(path: Path, tree: PyTree, **metadata: Any) -> None:
    """Writes a tree to a new folder.

    Args:
        path: The folder; replaced if it exists.
        tree: Any tree that flax can serialise: dicts, tuples, optimizer states.
        **metadata: What else to keep, JSON values: step, config_hash, ...

    Raises:
        UserError: It can't be written.
    """
    tree = jax.tree.map(np.asarray, serialization.to_state_dict(jax.device_get(tree)))
    metadata["digest"] = digest(tree)
    arguments = ocp.args.Composite(
        tree=ocp.args.StandardSave(tree), metadata=ocp.args.JsonSave(metadata)
    )
    try:
        with _checkpointer() as checkpointer:
            checkpointer.save(path.absolute(), args=arguments, force=True)
    except Exception as error:  # Orbax and TensorStore raise many kinds for a full disk
        raise cannot_write(path, _first_line(error)) from None


def restore(path: Path, like: PyTree | None = None) -> tuple[PyTree, dict[str, Any]]:
    """Reads a tree and its metadata.

    Args:
        path: The folder.
        like: A tree of the structure, shapes and dtypes to expect; None takes what is there, as
            nested dicts.

    Returns:
        The tree, of numpy arrays, and the metadata.

    Raises:
        UserError: It is missing, damaged, or of another structure.
    """
    if not path.is_dir():
        raise UserError(f"there is no checkpoint {path}; run the training first")
    arguments = ocp.args.Composite(tree=ocp.args.StandardRestore(), metadata=ocp.args.JsonRestore())
    try:
        item = _restore(path.absolute(), arguments)
        tree = jax.tree.map(np.asarray, item.tree)
        metadata = dict(item.metadata)
        intact = metadata.get("digest") == digest(tree)
    except Exception as error:  # as many kinds for a damaged file
        raise _damaged(path, _first_line(error)) from None
    if not intact:
        raise _damaged(path, "its contents do not match their checksum")
    if like is None:
        return tree, metadata
    expected = serialization.to_state_dict(like)
    check_same_structure(expected, tree, ("this network", f"checkpoint {path}"))
    return serialization.from_state_dict(like, tree), metadata


def _restore(path: Path, arguments: Any) -> Any:
    # Where one array fails, threads that read the others raise a moment later, heard by nobody
    # but this hook, which would print a traceback for each.
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        with _checkpointer() as checkpointer:
            return checkpointer.restore(path, args=arguments)
    except Exception:
        time.sleep(0.5)
        raise
    finally:
        sys.unraisablehook = hook


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"checkpoint {path} is damaged ({reason}); delete it and run again")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def save_partial(folder: Path, tree: PyTree, *, step: int, **metadata: Any) -> None:
    """Keeps the newest state of a training that goes on: a folder a step, older ones deleted."""
    save(folder / str(step), tree, step=step, **metadata)
    for old in _steps(folder):
        if old < step:
            shutil.rmtree(folder / str(old), ignore_errors=True)


def restore_partial(folder: Path, like: PyTree) -> PyTree | None:
    """The newest state kept by `save_partial`, or None."""
    steps = _steps(folder)
    return restore(folder / str(steps[-1]), like)[0] if steps else None


def _steps(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    return sorted(int(child.name) for child in folder.iterdir() if child.name.isdigit())
