"""Means over seeds with their intervals, for the tables of one run or of many."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mcjax.evaluation.intervals import mean_interval

Row = dict[str, Any]
SEED = ("seed", "fold")  # means are taken over these columns


@dataclasses.dataclass(frozen=True)
class Mean:
    """A mean with its interval.

    Args:
        value: The mean.
        half: Half-width of its 95 % interval; of two numbers half their range, because Student's
            interval of two is wider than any accuracy; nan for a single number.
        num: How many numbers were averaged: one per seed, or per seed and fold.
        num_seeds: How many different seeds they have.
        both: The numbers themselves, if they are two.
    """

    value: float
    half: float
    num: int
    num_seeds: int
    both: tuple[float, float] | None = None

    def __str__(self) -> str:
        """The number; of two numbers both, and of more the mean with its interval.

        Example:
            >>> print(Mean(0.5, 0.25, 3, 3), "/", Mean(0.5, 0.25, 2, 2, (0.75, 0.25)))
            0.500 ± 0.250 / 0.750 and 0.250
        """
        if self.both is not None:
            return " and ".join(map(_number, self.both))
        return _number(self.value) + (f" ± {_number(self.half)}" if self.num > 1 else "")


def mean(rows: Sequence[Row], column: str) -> Mean | None:
    """The mean of a column over seeds and folds.

    Args:
        rows: One per seed (and fold); rows without a value ("" or None) are left out.
        column: The column.

    Returns:
        The mean; None if no row has a value.

    Example:
        >>> mean([{"seed": 0, "t": 0.5}, {"seed": 1, "t": 0.5}, {"seed": 2, "t": ""}], "t")
        Mean(value=0.5, half=0.0, num=2, num_seeds=2, both=(0.5, 0.5))
    """
    having = [row for row in rows if row.get(column) not in ("", None)]
    if not having:
        return None
    with np.errstate(invalid="ignore", over="ignore"):  # the mean of infinite losses is infinite
        values = [row[column] for row in having]
        value, half = mean_interval(values)
        both = None
        if len(values) == 2:
            half = float(np.ptp(np.asarray(values, np.float64)) / 2)
            both = float(values[0]), float(values[1])
    return Mean(value, half, len(having), len({row.get("seed") for row in having}), both)


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:.4g}"


def grouped(rows: Sequence[Row], by: Sequence[str]) -> dict[tuple[Any, ...], list[Row]]:
    """Groups rows with equal values in some columns, in the order of their first appearance."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(column) for column in by), []).append(row)
    return groups


def summarise(rows: Sequence[Row], measure: str) -> list[Row]:
    """Means over seeds and folds, with the half-width of their 95 % interval (or range, see `Mean`).

    Args:
        rows: The rows of table.csv.
        measure: The column of the success rate.

    Returns:
        One row per (method, bonafide), in the order of their first appearance.
    """
    summary = []
    for (method, bonafide), group in grouped(rows, ("method", "bonafide")).items():
        t = mean(group, "t")
        line: Row = {"method": method, "bonafide": bonafide, "num": len(group)}
        line["t"] = "" if t is None else t.value
        if any("setting" in row for row in rows):
            setting = mean(group, "setting")
            line["setting"] = "" if setting is None else setting.value
        for column in ("clean_accuracy", measure):
            found = mean(group, column)
            value, half = (found.value, found.half) if found else (math.nan, math.nan)
            line |= {column: value, f"{column}_interval": half}
        if any("acceptable" in row for row in rows):
            share = mean(group, "acceptable")
            line["acceptable"] = "" if share is None else share.value
        summary.append(line)
    return summary
