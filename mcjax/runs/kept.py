"""Finished steps of a command, kept until its output is complete."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mcjax.core.files import delete
from mcjax.core.progress import say
from mcjax.core.tree import PyTree
from mcjax.runs.checkpoint import exists, restore, save


@dataclasses.dataclass(frozen=True)
class Kept:
    """The finished steps of one question, in a folder beside the command's output.

    Args:
        folder: The folder; those of other questions in it stay unread.
        question: The result of `mcjax.runs.output_folder.asked`.
    """

    folder: Path
    question: Mapping[str, Any]

    @classmethod
    def beside(cls, output: Path, question: Mapping[str, Any]) -> "Kept":
        """The steps of the command that writes to a folder."""
        return cls(output.with_name(f"{output.name}.unfinished"), question)

    def __call__(
        self, name: str, like: Callable[[], PyTree], compute: Callable[[], PyTree]
    ) -> PyTree:
        """Computes a step, or restores the result of an earlier call; see `mcjax.repair.keep`.

        Raises:
            UserError: The folder can't be written, or a checkpoint in it is damaged.
        """
        path = self.folder / self._name / name.replace(" ", "_")
        if exists(path):
            say(f"{name}: kept from before the interruption")
            return restore(path, like())[0]
        found = compute()
        save(path, found)
        return found

    @property
    def _name(self) -> str:
        asked = json.dumps([self.question, version("mcjax")], sort_keys=True)
        return hashlib.sha256(asked.encode()).hexdigest()[:16]

    def forget(self) -> None:
        """Deletes all steps."""
        delete(self.folder)
