"""Logging of a run: metrics.jsonl, and progress on the terminal."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mcjax.bucket import in_bucket
from mcjax.processes import is_first, once
from mcjax.tensorboard import EventLog
from mcjax.workdir import cannot_write, write

SECONDS_BETWEEN_LINES = 5.0
SECONDS_BETWEEN_PUTS = 10.0  # in a bucket, where metrics.jsonl is always rewritten completely


def say(message: str) -> None:
    """Prints one line on standard error, above the progress bar if there is one."""
    if not is_first():
        return
    tqdm.write(message, file=sys.stderr)
    sys.stderr.flush()


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


class Progress:
    """Shows progress: a bar on a terminal, else a line every few seconds.

    Args:
        name: Name of the task.
        total: Total number of units.
        done: Units already done.
        unit: Name of a unit: "step", "point".
    """

    def __init__(self, name: str, total: int, done: int = 0, *, unit: str):
        self.name, self.total, self.done, self.unit = name, total, done, unit
        self._first = done
        self._start = self._last = time.monotonic()
        on_terminal = sys.stderr.isatty() and is_first()
        self._bar = tqdm(
            total=total, initial=done, desc=name, unit=unit, disable=not on_terminal, leave=True
        )
        self._lines = not on_terminal

    def advance(self, units: int, *, images: int = 0, **values: float) -> None:
        """Counts units as done and updates the display.

        Args:
            units: Units done since the last call.
            images: Images processed in them, for images/s.
            **values: Values to show, such as loss.
        """
        self.done += units
        shown = {name: f"{value:.4g}" for name, value in values.items()}
        now = time.monotonic()
        elapsed = max(now - self._start, 1e-9)
        if images:
            per_unit = images / units
            shown["images/s"] = f"{per_unit * (self.done - self._first) / elapsed:,.0f}"
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(units)
        if self._lines and now - self._last >= SECONDS_BETWEEN_LINES:
            left = elapsed / (self.done - self._first) * (self.total - self.done)
            text = "  ".join(f"{name} {value}" for name, value in shown.items())
            say(f"{self.name}: {self.unit} {self.done}/{self.total}  {text}  {_clock(left)} left")
            self._last = now

    def close(self) -> None:
        """Closes the bar."""
        self._bar.close()


@contextmanager
def progress(name: str, total: int, done: int = 0, *, unit: str) -> Iterator[Progress]:
    """A `Progress` that is closed on exit, also after errors."""
    bar = Progress(name, total, done, unit=unit)
    try:
        yield bar
    finally:
        bar.close()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
