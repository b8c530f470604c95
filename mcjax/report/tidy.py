"""Tidy tables as CSV and as parquet: one row a thing, one column a quantity."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from mcjax.report.jobs import Job, differing
from mcjax.report.means import Row
from mcjax.workdir import write


def write_both(stem: Path, rows: Sequence[Mapping[str, Any]], columns: Iterable[str] = ()) -> None:
    """Writes STEM.csv and STEM.parquet; equal rows give equal bytes.

    Args:
        stem: The files' name without its end.
        rows: The rows; one may lack columns.
        columns: Columns that come first, there even without rows.
    """
    table = arrow(rows, columns)
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(table.column_names)
    lines.writerows(zip(*(column.to_pylist() for column in table.columns), strict=True))
    write(stem.with_name(stem.name + ".csv"), text.getvalue())
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink)
    write(stem.with_name(stem.name + ".parquet"), sink.getvalue())


def arrow(rows: Sequence[Mapping[str, Any]], columns: Iterable[str] = ()) -> pa.Table:
    """A table of rows; what is neither number nor text, and a column of both, is JSON text.

    Example:
        >>> arrow([{"a": 1, "b": [2, 3]}, {"a": 0.5}]).to_pylist()
        [{'a': 1.0, 'b': '[2, 3]'}, {'a': 0.5, 'b': None}]
    """
    names = dict.fromkeys([*columns, *(name for row in rows for name in row)])
    return pa.table({name: _column([row.get(name) for row in rows]) for name in names})


def _column(values: list[Any]) -> pa.Array:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} or (len(kinds) == 1 and kinds <= {bool, str}):
        return pa.array(values)
    text = [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
    return pa.array(text, pa.string())


def job_rows(jobs: Sequence[Job]) -> list[Row]:
    """jobs.csv: a row each declared job, whatever has become of it."""
    names = differing(jobs)
    return [
        {
            "id": job.id,
            "state": job.state,
            "experiment": job.experiment,
            **fields_of(job, names),
            "seconds": job.result.get("seconds"),
            **job.result.get("metrics", {}),
            "git_revision": job.where.get("git_revision"),
            "device_kind": job.where.get("device_kind"),
            "num_devices": job.where.get("num_devices"),
            "note": job.note,
        }
        for job in jobs
    ]


def table_rows(jobs: Sequence[Job]) -> list[Row]:
    """rows.csv: every row of every table.csv, with its job's id and fields."""
    names = differing(jobs)
    return [{"id": job.id, **fields_of(job, names), **row} for job in jobs for row in job.rows]


def fields_of(job: Job, names: Sequence[str]) -> Row:
    """A job's fields of some names, as columns called like the command line's options."""
    return {f"config.{name}": job.config.get(name) for name in names}
