"""Prints the tables of one or more summary.csv files as Markdown.

    python -m mcjax.report.markdown runs/backdoor_digits-HASH/summary.csv

The first table has the rows that use no bonafide images (the networks, the straight line, noise), the second has one
row per method and one column per number of bonafide images. A cell is "clean accuracy / success of the attack", each
as `mean ± half-width` of the 95 % interval over seeds (and folds), as their range where there are two, or as one
number where there is one seed.
"""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from mcjax.core.errors import UserError
from mcjax.report.markdown_table import markdown_table
from mcjax.report.means import Row
from mcjax.runs.csv_text import unescape
from mcjax.sweeps.gathered.groups import SUCCESS
from mcjax.sweeps.gathered.markdown import plain
from mcjax.sweeps.gathered.tables import BOTH


def define_flags() -> None:
    """The command has no flags of its own."""


def main(*names: str) -> None:
    """Prints the tables of every file."""
    if not names:
        raise UserError("no file was given; add the summary.csv of a run")
    print("\n\n".join(markdown(read_summary(Path(name))) for name in names))


def read_summary(path: Path) -> list[Row]:
    """The rows of a summary.csv.

    Args:
        path: The file.

    Returns:
        One row per (method, number of bonafide images): "method", "bonafide", "num" (of the numbers
        that were averaged), and the means and half-widths as floats, NaN where there is no interval.

    Raises:
        UserError: The file cannot be read, or is not a summary.csv.
    """
    try:
        lines = list(csv.DictReader(io.StringIO(path.read_text(), newline=""), strict=True))
        measure = next(name for name in SUCCESS if lines and name in lines[0])
        numbers = [f"{c}{end}" for c in ("clean_accuracy", measure) for end in ("", "_interval")]
        return [
            {
                "method": unescape(line["method"]),
                "bonafide": int(line["bonafide"]),
                "num": int(line.get("num") or 0),
                **{name: float(line[name]) for name in numbers},
            }
            for line in lines
        ]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, StopIteration, csv.Error):
        raise UserError(
            f"{path} is not the summary.csv of a backdoor or injection run; give one that "
            "mcjax.train wrote"
        ) from None


def markdown(rows: Sequence[Row]) -> str:
    """The tables of a summary.csv.

    Args:
        rows: What `read_summary` returns.

    Returns:
        Markdown: the rows without bonafide images, then method by number of bonafide images.

    Example:
        >>> row = {"clean_accuracy": 0.976, "clean_accuracy_interval": 0.004}
        >>> row |= {"attack_success_rate": 0.1, "attack_success_rate_interval": float("nan")}
        >>> print(markdown([{"method": "fine_tune", "bonafide": 400, **row}]))
        | method | 400 |
        |---|---|
        | fine-tune | 0.976 ± 0.004 / 0.100 |
    """
    sizes = sorted({row["bonafide"] for row in rows if row["bonafide"]}, reverse=True)
    cells = {(row["method"], row["bonafide"]): _cell(row) for row in rows}
    networks = [[name, cell] for (name, size), cell in cells.items() if not size]
    methods = [
        [name, *(cells.get((name, size), "") for size in sizes)]
        for name in dict.fromkeys(row["method"] for row in rows if row["bonafide"])
    ]
    tables = [(["network", BOTH], networks), (["method", *map(str, sizes)], methods)]
    return "\n\n".join(_table(head, lines) for head, lines in tables if lines)


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    named = [[line[0].replace("_", "-"), *line[1:]] for line in lines]
    return markdown_table([*map(plain, head)], [[*map(plain, line)] for line in named])


def _cell(row: Row) -> str:
    measure = next(name for name in SUCCESS if name in row)
    num = row.get("num", 0)
    means = ((row[c], row[f"{c}_interval"]) for c in ("clean_accuracy", measure))
    return " / ".join(_mean(value, half, num) for value, half in means)


def _mean(value: float, half: float, num: float) -> str:
    if math.isnan(half):
        return f"{value:.3f}"
    if num == 2:  # the interval is half their range
        return f"{value - half:.3f} to {value + half:.3f}"
    return f"{value:.3f} ± {half:.3f}"
