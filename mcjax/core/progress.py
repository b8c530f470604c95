"""Messages and progress bars on standard error."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from mcjax.core.processes import is_first

SECONDS_BETWEEN_LINES = 5.0


def say(message: str) -> None:
    """Prints one line on standard error, above the progress bar if there is one."""
    if not is_first():
        return
    tqdm.write(message, file=sys.stderr)
    sys.stderr.flush()


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
        self._first: int | None = None  # done when the rate begins to be measured
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
        rate = None  # the first units include compilation
        if self._first is None:
            self._first, self._start = self.done, now
        else:
            rate = (self.done - self._first) / max(now - self._start, 1e-9)
        if images and rate:
            shown["images/s"] = f"{images / units * rate:,.0f}"
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(units)
        if self._lines and now - self._last >= SECONDS_BETWEEN_LINES:
            left = [f"{_clock((self.total - self.done) / rate)} left"] if rate else []
            told = [f"{name} {value}" for name, value in shown.items()]
            say("  ".join([f"{self.name}: {self.unit} {self.done}/{self.total}", *told, *left]))
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
