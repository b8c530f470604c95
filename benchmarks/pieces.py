"""What benchmarks on single programs share: their timing, and results that are kept in pieces."""

import datetime
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

Row = dict[str, Any]


def machine() -> Row:
    """What a timing depends on."""
    model = "unknown"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        model = lines[0].split(":")[1].strip() if lines else model
    versions = {"python": platform.python_version()}
    for name in ("jax", "torch", "numpy"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # only some benchmarks need torch
            continue
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": f"{model}, {os.cpu_count()} cores, {platform.machine()}",
        "device": jax.devices()[0].device_kind,
        "versions": versions,
    }


def seconds(calls: Sequence[Callable[[], Any]], repeats: int) -> list[float]:
    """Medians of the seconds of several calls, in turn; each is called once before, untimed.

    Args:
        calls: Functions without arguments; what they return is waited for.
        repeats: Timed calls of each.

    Returns:
        One median a function, in seconds.
    """
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        jax.block_until_ready(call())
    for _ in range(repeats):
        for call, kept in zip(calls, times, strict=True):
            began = time.perf_counter()
            jax.block_until_ready(call())
            kept.append(time.perf_counter() - began)
    return [float(np.median(kept)) for kept in times]


class Pieces:
    """Rows by name in a JSON file, written after every one: a benchmark can be run in parts.

    Args:
        file: The JSON file; what is there is kept, and rows of the same name are replaced.
    """

    def __init__(self, file: Path):
        self.file = file
        self.rows: dict[str, Row] = json.loads(file.read_text()) if file.exists() else {}

    def keep(self, name: str, row: Row) -> None:
        """Adds a row, with the machine, the versions and the date."""
        self.rows[name] = {**row, **machine()}
        self.file.write_text(json.dumps(self.rows, indent=1) + "\n")

    def write(self, title: str, text: str, table: Callable[[list[Row]], list[str]]) -> None:
        """Writes the rows beside the JSON file as .md, a section a machine and day.

        Args:
            title: Of the page.
            text: What was measured, and how.
            table: Rows to lines.
        """
        sections: dict[str, list[Row]] = {}
        for row in self.rows.values():
            versions = ", ".join(f"{k} {v}" for k, v in row["versions"].items())
            device = "" if row["device"] == "cpu" else f"{row['device']}; "
            sections.setdefault(f"{device}{row['cpu']}; {versions}; {row['date']}.", []).append(row)
        lines = [f"# {title}", "", text]
        for where, rows in sections.items():
            lines += ["", where, "", *table(rows)]
        self.file.with_suffix(".md").write_text("\n".join(lines) + "\n")


def rows_of(cells: Sequence[Sequence[Any]]) -> list[str]:
    """A Markdown table; the first row is its head.

    Example:
        >>> rows_of([["a", "b"], [1, 2]])
        ['| a | b |', '|---|---|', '| 1 | 2 |']
    """
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in cells]
    return [lines[0], "|" + "---|" * len(cells[0]), *lines[1:]]
