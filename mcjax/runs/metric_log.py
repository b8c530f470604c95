"""metrics.jsonl: one JSON object per logging step."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mcjax.core.bucket import in_bucket
from mcjax.core.files import cannot_write, write
from mcjax.core.processes import once
from mcjax.runs.tensorboard import EventLog

SECONDS_BETWEEN_PUTS = 10.0  # in a bucket, where metrics.jsonl is always rewritten completely


class MetricLog:
    """metrics.jsonl: one JSON object per logging step.

    Args:
        path: The file.
        events: TensorBoard events to write as well, if any.
    """

    def __init__(self, path: Path, events: EventLog | None = None):
        self.path, self.events = path, events
        self._lines: list[str] | None = None  # lines of a file in a bucket; None if not read yet
        self._put_at = time.monotonic()

    def append(self, **row: Any) -> None:
        """Appends a line.

        Raises:
            UserError: The file can't be written.
        """
        once(lambda: self._append(row))

    def _append(self, row: Mapping[str, Any]) -> None:
        if self.events is not None:
            self.events.append(row)
        line = json.dumps(row)
        if in_bucket(self.path):
            self._in_memory().append(line)
            if time.monotonic() - self._put_at >= SECONDS_BETWEEN_PUTS:
                self.flush()
            return
        try:
            with self.path.open("a") as file:
                file.write(line + "\n")
        except OSError as error:
            raise cannot_write(self.path, error) from None

    def flush(self) -> None:
        """Writes pending lines to a file in a bucket; local files have none."""
        if in_bucket(self.path):
            once(lambda: self._put(self._in_memory()))

    def _in_memory(self) -> list[str]:
        if self._lines is None:
            text = self.path.read_bytes().decode(errors="replace") if self.path.exists() else ""
            self._lines = text.splitlines()
        return self._lines

    def _put(self, lines: list[str]) -> None:
        write(self.path, "".join(line + "\n" for line in lines))
        self._put_at = time.monotonic()

    def rewind(self, stage: str, step: int) -> None:
        """Drops a stage's lines after a step, because a resumed run writes them again."""
        once(lambda: self._rewind(stage, step))

    def _rewind(self, stage: str, step: int) -> None:
        lines = self._lines  # in a bucket
        if lines is None:
            if not self.path.exists():
                return
            lines = self.path.read_bytes().decode(errors="replace").splitlines()
        kept = []
        for line in lines:
            try:
                row = json.loads(line)
                if row.get("stage") != stage or row.get("step", 0) <= step:
                    kept.append(line)
            except (ValueError, AttributeError, TypeError, RecursionError):
                continue  # truncated or damaged
        if in_bucket(self.path):
            self._lines = kept
        self._put(kept)
        if self.events is not None:
            rows = map(json.loads, kept)
            self.events.rewrite(stage, [row for row in rows if row.get("stage") == stage])

    def close(self) -> None:
        """Closes the TensorBoard events."""
        if self.events is not None:
            self.events.close()
