"""Tidy tables as CSV and parquet: one row per observation, one column per quantity."""

import contextlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcjax.csv_text import to_csv
from mcjax.extras import need
from mcjax.report.gathered.jobs import GatheredJob, differing
from mcjax.report.means import Row
from mcjax.workdir import write

if TYPE_CHECKING:
    import pyarrow as pa

WHERE = ("git_revision", "device_kind", "num_devices")


def write_both(stem: Path, rows: Sequence[Mapping[str, Any]], columns: Iterable[str] = ()) -> None:
    """Writes STEM.csv and STEM.parquet; equal rows give equal bytes.

    Args:
        stem: The files' path without the suffix.
        rows: The rows; a row may lack columns.
        columns: The first columns; they are written also without rows.
    """
    table = arrow(rows, columns)
    lines = zip(*(column.to_pylist() for column in table.columns), strict=True)
    write(stem.with_name(stem.name + ".csv"), to_csv(table.column_names, lines))
    sink = io.BytesIO()
    _pyarrow().parquet.write_table(table, sink)
    write(stem.with_name(stem.name + ".parquet"), sink.getvalue())


def arrow(rows: Sequence[Mapping[str, Any]], columns: Iterable[str] = ()) -> "pa.Table":
    """A table of rows; values that are neither numbers nor text, and mixed columns, become JSON text.

    Example:
        >>> arrow([{"a": 1, "b": [2, 3]}, {"a": 0.5}]).to_pylist()
        [{'a': 1.0, 'b': '[2, 3]'}, {'a': 0.5, 'b': None}]
    """
    names = dict.fromkeys([*columns, *(name for row in rows for name in row)])
    return _pyarrow().table({name: _column([row.get(name) for row in rows]) for name in names})


def _column(values: list[Any]) -> "pa.Array":
    pa = _pyarrow()
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} or (len(kinds) == 1 and kinds <= {bool, str}):
        with contextlib.suppress(OverflowError, pa.ArrowInvalid):  # beyond 64 bits
            return pa.array(values)
    text = [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
    return pa.array(text, pa.string())


def _pyarrow() -> Any:
    return need("pyarrow.parquet", "report", "a report of many runs")


def job_rows(jobs: Sequence[GatheredJob]) -> list[Row]:
    """jobs.csv: one row per declared job, whatever its status."""
    names = differing(jobs)
    rows = []
    for job in jobs:
        about = {
            "id": job.id,
            "state": job.status,
            "experiment": job.experiment,
            **fields_of(job, names),
            "seconds": job.seconds,
        }
        after = {name: job.where.get(name) for name in WHERE} | {"note": job.note}
        rows.append({**about, **_others(job.metrics, {**about, **after}), **after})
    return rows


def table_rows(jobs: Sequence[GatheredJob]) -> list[Row]:
    """rows.csv: every row of every table.csv, with its job's id and fields."""
    names = differing(jobs)
    rows = []
    for job in jobs:
        about = {"id": job.id, **fields_of(job, names)}
        rows += [{**about, **_others(row, about)} for row in job.rows]
    return rows


def _others(numbers: Mapping[str, Any], taken: Mapping[str, Any]) -> Row:
    """The numbers whose names are not taken: a metric called "state" is not the job's state."""
    return {name: value for name, value in numbers.items() if name not in taken}


def fields_of(job: GatheredJob, names: Sequence[str]) -> Row:
    """Some fields of a job, in columns named like the options of the command line."""
    return {f"config.{name}": job.config.get(name) for name in names}
