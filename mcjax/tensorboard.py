"""Writes metrics.jsonl as TensorBoard events, without TensorFlow; each stage is a run."""

import contextlib
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mcjax.bucket import in_bucket
from mcjax.errors import UserError
from mcjax.workdir import cannot_write


class EventLog:
    """A copy of metrics.jsonl as TensorBoard events, in single precision.

    Existing events are rewritten from metrics.jsonl, so both agree after an interruption, or if
    events are enabled during a run.

    Args:
        folder: Folder of the events.
        metrics: The metrics.jsonl.

    Raises:
        UserError: tensorboardX is not installed, or the folder is in a bucket or not writable.
    """

    def __init__(self, folder: Path, metrics: Path):
        if in_bucket(folder):
            raise UserError(
                "config.run.tensorboard needs a local workdir, but this one is in a bucket; set it to "
                "False: metrics.jsonl has the same values"
            )
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise UserError(
                "config.run.tensorboard needs tensorboardX; pip install 'mcjax[tensorboard]', or set "
                "it to False: metrics.jsonl has the same values"
            ) from None
        self._open_writer = SummaryWriter
        self._writer: Any = None
        self._folder, self._stage = folder, ""
        shutil.rmtree(folder, ignore_errors=True)
        for row in rows(metrics):
            self.append(row)

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds the values of one line of metrics.jsonl, at its step.

        Raises:
            UserError: The events can't be written.
        """
        stage, step = row.get("stage", ""), row.get("step", 0)
        try:
            if self._writer is None or stage != self._stage:
                self.close()
                self._writer, self._stage = self._open_writer(str(self._folder / stage)), stage
            for name, value in row.items():
                if name not in ("stage", "step") and isinstance(value, int | float):
                    self._writer.add_scalar(name, float(value), step)
            self._writer.flush()
        except OSError as error:
            raise cannot_write(self._folder, error) from None

    def rewrite(self, stage: str, kept: Iterable[Mapping[str, Any]]) -> None:
        """Rewrites a stage with these lines only."""
        self.close()
        for file in (self._folder / stage).glob("events.*"):
            with contextlib.suppress(OSError):
                file.unlink()
        for row in kept:
            self.append(row)

    def close(self) -> None:
        """Closes the files; another line reopens them."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def rows(metrics: Path) -> list[dict[str, Any]]:
    """The valid lines of a metrics.jsonl; truncated and unknown lines are skipped."""
    found = []
    text = metrics.read_text(errors="replace") if metrics.exists() else ""
    for line in text.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
            if _is_row(row):
                found.append(row)
    return found


def _is_row(row: Any) -> bool:
    """Whether a row is an object of numbers whose stage is a valid folder name."""
    if not isinstance(row, dict):
        return False
    stage, step = row.get("stage", ""), row.get("step", 0)
    numbers = [value for name, value in row.items() if name != "stage"]
    return (
        isinstance(stage, str)
        and stage.isprintable()
        and not stage.startswith("/")
        and ".." not in stage.split("/")
        and isinstance(step, int)
        and all(isinstance(v, float) or (isinstance(v, int) and abs(v) < 2**63) for v in numbers)
    )
