"""The paths of runs that differ only in their seed, over each other."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mcjax.report.panels import (
    COLOURS,
    PERCENT_LIMITS,
    T_LIMITS,
    Chart,
    Line,
    Panel,
    percent_wrong,
    words,
)
from mcjax.runs.records import LARGEST_TABLE, Damaged, read_bytes
from mcjax.sweeps.gathered.groups import Group

CAPTION = (
    "The path of every seed: the first path of each run, as in its path.csv (of a repair that with the most "
    "bonafide images)."
)
LOSSES = {"test_loss": "cross-entropy, test (nats)", "robust_loss": "the same, attacked (nats)"}
ERRORS = {"test_accuracy": "test error (%)", "robust_accuracy": "error, attacked (%)"}
RATES = ("attack_success_rate", "injection_success")


def overlaid(name: str, group: Group) -> Chart | None:
    """The paths of a group, one line per seed.

    Args:
        name: The chart's name.
        group: Jobs that differ only in their seed.

    Returns:
        The chart; None with fewer than two seeds whose path.csv can be read.
    """
    tables = _paths(group)
    if len(tables) < 2:
        return None
    first = next(iter(tables.values()))
    shared = [column for column in first if all(column in table for table in tables.values())]
    panels = []
    for column in (*LOSSES, *ERRORS, *RATES):
        if column not in shared:
            continue
        ylabel = {**LOSSES, **ERRORS}.get(column, f"{words(column)} (%)")
        lines = [
            Line(seed, _drawn(table[column], column), COLOURS[i % len(COLOURS)])
            for i, (seed, table) in enumerate(tables.items())
        ]
        ylim = PERCENT_LIMITS if column in RATES else (0, None)
        panels.append(Panel(first["t"], lines, "t", ylabel, ylim=ylim, xlim=T_LIMITS))
    return Chart(name, panels, CAPTION, title=group.title) if panels else None


def _drawn(values: np.ndarray, column: str) -> np.ndarray:
    if column in LOSSES:
        return np.where(np.abs(values) < 1e100, values, np.nan)  # Matplotlib adds squares
    return percent_wrong(values) if column in ERRORS else 100 * values


def _paths(group: Group) -> dict[str, Mapping[str, np.ndarray]]:
    """path.csv of the first job of each seed that is done, by the seed in words."""
    found: dict[str, Mapping[str, np.ndarray]] = {}
    for job in group.jobs:
        seed = f"seed {job.config.get('seed')}"
        if job.status != "done" or seed in found:
            continue
        table = _read(job.folder / "path.csv")
        same = not found or np.array_equal(table.get("t", ()), next(iter(found.values()))["t"])
        if "t" in table and same:
            found[seed] = table
    return found


def _read(path: Path) -> dict[str, np.ndarray]:
    """A table of numbers by column; {} if it can't be read."""
    try:
        text = read_bytes(path, LARGEST_TABLE).decode()
        names, *lines = csv.reader(io.StringIO(text, newline=""), strict=True)
        columns = zip(*[map(float, line) for line in lines if line], strict=True)
        return dict(zip(names, map(np.array, columns), strict=True))
    except (Damaged, ValueError, csv.Error):
        return {}
