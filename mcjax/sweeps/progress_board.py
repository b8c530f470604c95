"""Shows the progress of a sweep: a live table on a terminal, lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mcjax.extras import need
from mcjax.logs import say
from mcjax.sweeps.store import JobState, Status, count_statuses

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

SECONDS_BETWEEN_LINES = 30.0
MOST_ROWS = 20
COLOURS: dict[Status, str] = {  # of the statuses that the table lists, the most urgent first
    "running": "cyan",
    "failed": "red",
    "stopped": "yellow",
    "damaged": "red",
    "other config": "red",
}


class Board:
    """Shows the states of a sweep's jobs.

    Args:
        states: The states at the start.
        todo: How many jobs this call runs.
        live: The table on the terminal; None prints lines.
    """

    def __init__(self, states: Mapping[str, JobState], todo: int, live: "Live | None"):
        self.states, self.todo, self.live = dict(states), todo, live
        self._before = self._done()
        self._began = self._told = time.monotonic()

    def _done(self) -> int:
        return sum(state.status == "done" for state in self.states.values())

    def update(self, states: Mapping[str, JobState]) -> None:
        """Shows new states."""
        changed = [name for name, state in states.items() if state != self.states.get(name)]
        old, self.states = self.states, {**self.states, **states}
        if self.live is not None:
            self.live.update(self.table())
            return
        ended = [
            name
            for name in changed
            if states[name].status not in ("running", "missing")
            and states[name].status != old[name].status
        ]
        for name in ended:
            line = f": {states[name].line}" if states[name].line else ""
            say(f"{states[name].status:8} {name}{line}")
        if ended or time.monotonic() - self._told > SECONDS_BETWEEN_LINES:
            self._told = time.monotonic()
            say(self.summary())

    def summary(self) -> str:
        """One line: the number of jobs with each status, and the time left."""
        left = self.seconds_left()
        clock = f"; about {duration(left)} left" if left else ""
        return f"{len(self.states)} jobs: {count(self.states)}{clock}"

    def seconds_left(self) -> float | None:
        """The time left at the rate of this call so far; None before a job is done."""
        done = self._done() - self._before
        if not 0 < done < self.todo:
            return None
        return (time.monotonic() - self._began) / done * (self.todo - done)

    def table(self) -> "Table":
        """The running jobs, then those with problems, as many as fit."""
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=self.summary(), title_justify="left", box=None, padding=(0, 2, 0, 0))
        for column in ("job", "state", "attempts"):
            table.add_column(column, no_wrap=column != "job", overflow="ellipsis")
        table.add_column("last line of its log", no_wrap=True, overflow="ellipsis")
        shown = [
            (name, state)
            for status in COLOURS
            for name, state in self.states.items()
            if state.status == status
        ]
        for name, state in shown[:MOST_ROWS]:
            colour = COLOURS[state.status]
            table.add_row(
                name, f"[{colour}]{state.status}[/]", str(state.num_attempts), escape(state.line)
            )
        if len(shown) > MOST_ROWS:
            table.add_row(f"and {len(shown) - MOST_ROWS} more", "", "", "")
        return table


@contextlib.contextmanager
def board(states: Mapping[str, JobState], todo: int) -> Iterator[Board]:
    """A `Board` on standard error; closed at the end, also after an error."""
    if not sys.stderr.isatty():
        yield Board(states, todo, None)
        return
    need("rich.live", "sweeps", "a sweep's table on a terminal")
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    with Live(console=console, refresh_per_second=2) as live:
        yield Board(states, todo, live)


def count(states: Mapping[str, JobState]) -> str:
    """The number of jobs with each status: `3 done, 1 failed, 8 missing`."""
    return count_statuses(state.status for state in states.values())


def duration(seconds: float) -> str:
    """A readable time.

    Example:
        >>> duration(42), duration(4000)
        ('42 s', '1 h 7 min')
    """
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def failures(states: Mapping[str, JobState]) -> list[str]:
    """One line per job without a result, or without an acceptable answer."""
    lines = []
    for name, state in states.items():
        log = state.attempt / "log.txt" if state.attempt else Path("no attempt")
        if state.status in ("failed", "stopped"):
            lines.append(f"{state.status} {name}: {state.line or 'no output'} ({log})")
        elif state.status in ("damaged", "other config"):
            lines.append(f"{state.status} {name}: {state.line}")
        elif state.status == "missing" and state.line:  # its worker could not start
            lines.append(f"missing {name}: {state.line}")
        elif state.status == "done" and state.exit_code:
            lines.append(f"no acceptable answer {name}: {state.line} ({log})")
    return lines
