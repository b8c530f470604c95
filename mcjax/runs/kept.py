"""Finished steps of a command, kept until its output is complete."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mcjax.core.files import delete
from mcjax.core.progress import say
from mcjax.core.tree import PyTree
from mcjax.runs.checkpoint import exists, restore, save
from mcjax.runs.output_folder import RESULT
from mcjax.runs.workdir import git_revision, version


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
    def _folder(self) -> Path:
        code = [version("mcjax"), git_revision()]
        asked = json.dumps([self.question, code], sort_keys=True)
        name = hashlib.sha256(asked.encode()).hexdigest()[:16]
        return self.output.with_name(f"{self.output.name}.unfinished") / name

    def clear(self) -> None:
        """Deletes an output that was interrupted while it was written; a complete one, and a stranger's, stays."""
        if self._folder.exists() and not (self.output / RESULT).exists():
            delete(self.output)

    def forget(self) -> None:
        """Deletes all steps, those of other questions for the same output, too."""
        delete(self._folder.parent)
