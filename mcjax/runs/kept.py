"""Finished steps of a command, kept until its output is complete."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mcjax.core.errors import UserError
from mcjax.core.files import delete
from mcjax.core.progress import say
from mcjax.core.tree import PyTree
from mcjax.runs.checkpoint import exists, restore, save
from mcjax.runs.output_folder import RESULT
from mcjax.runs.workdir import git_revision, version

HASH_LENGTH = 16


@dataclasses.dataclass(frozen=True)
class Kept:
    """The finished steps of one question, in the folder OUTPUT.unfinished/QUESTION.

    Args:
        output: The command's output folder.
        question: The result of `mcjax.runs.output_folder.asked`. Another question, or other code, does
            not read these steps.
    """

    output: Path
    question: Mapping[str, Any]

    def __call__(
        self, name: str, like: Callable[[], PyTree], compute: Callable[[], PyTree]
    ) -> PyTree:
        """Computes a step, or restores the result of an earlier call.

        Args:
            name: The step.
            like: Makes a tree of the result's structure, shapes and dtypes.
            compute: Makes the result.

        Returns:
            The result. One with an empty array is not kept, because no checkpoint can hold it.

        Raises:
            UserError: The folder can't be written, or a checkpoint in it is damaged.
        """
        path = self._folder / name.replace(" ", "_")
        if exists(path):
            say(f"{name}: kept from before the interruption")
            return restore(path, like())[0]
        found = compute()
        if all(np.size(leaf) for leaf in jax.tree.leaves(found)):
            save(path, found)
        return found

    @property
    def _parent(self) -> Path:
        return self.output.with_name(f"{self.output.name}.unfinished")

    @property
    def _folder(self) -> Path:
        code = [version("mcjax"), git_revision()]
        asked = json.dumps([self.question, code], sort_keys=True)
        return self._parent / hashlib.sha256(asked.encode()).hexdigest()[:HASH_LENGTH]

    def clear(self, written: Collection[str]) -> None:
        """Deletes an output that was interrupted while it was written, so that it can be written anew.

        A complete one stays, and one with a file that the command does not write.

        Args:
            written: The files that the command writes, by name without extension.

        Raises:
            UserError: There is a file where the steps would be kept.
        """
        if self._parent.exists() and not self._parent.is_dir():
            raise UserError(f"{self._parent} is a file; give another --out")
        if not self._folder.exists() or not self.output.is_dir():
            return
        names = {child.name for child in self.output.iterdir()}
        if RESULT not in names and {name.partition(".")[0] for name in names} <= set(written):
            delete(self.output)

    def forget(self) -> None:
        """Deletes all steps, also those of other questions for the same output, and nothing else."""
        for child in self._parent.glob("?" * HASH_LENGTH):
            if set(child.name) <= set("0123456789abcdef"):
                delete(child)
        with contextlib.suppress(OSError):  # a stranger's file is in it, or it is not there
            self._parent.rmdir()
