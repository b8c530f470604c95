"""What a ranking needs of a finished backdoor run: read from its folder, or kept in a file of many runs.

A file has what all its runs share once, and one line per run. It is small (some kilobytes per run), so that a study
can be published, extended later and on other machines, and compared with new runs.
"""

import csv
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mcjax.core.errors import UserError
from mcjax.core.files import write
from mcjax.report import evidence_truth
from mcjax.report.means import Row
from mcjax.report.repair_ranking import LEGEND, REFERENCES, ranking
from mcjax.report.run_tables import place_of, read_networks, read_paths, read_repairs

FREE = ("seed", "seeds", "attack.trigger", "repair.sizes", "repair.methods")
"""The fields of a config in which runs that are ranked together may differ."""


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """A backdoor run as a ranking sees it.

    Args:
        name: What messages call it: its folder, or its place in a file.
        fields: The fields of its config that its results depend on.
        rows: Of its repairs: see `mcjax.report.run_tables.read_repairs`.
        networks: What inverted triggers said of its networks: see `mcjax.report.run_tables.read_networks`.
        paths: How right the estimate was along its paths: see `mcjax.report.run_tables.read_paths`.
    """

    name: str
    fields: Mapping[str, Any]
    rows: Sequence[Row]
    networks: Sequence[Row]
    paths: Sequence[Row]


def read(place: Path) -> list[RunRecord]:
    """The runs of a place: one of a folder, all of a file.

    Args:
        place: The working directory of a finished backdoor run, or a file that `save` wrote.

    Raises:
        UserError: It is neither.
    """
    return load(place) if place.is_file() else [of_folder(place)]


def of_folder(folder: Path) -> RunRecord:
    """The record of a finished backdoor run.

    Args:
        folder: Its working directory.

    Raises:
        UserError: It is none, or a table is damaged.
    """
    try:
        fields = json.loads((folder / "config.json").read_text())["hashed"]
        return RunRecord(
            str(folder),
            fields,
            read_repairs(folder, str(fields["attack.trigger"])),
            read_networks(folder),
            read_paths(folder),
        )
    except (OSError, ValueError, TypeError, KeyError, ZeroDivisionError, csv.Error):
        raise UserError(
            f"{folder} is not a finished backdoor run; give folders that mcjax.train wrote, and run an "
            "unfinished one again"
        ) from None


def check_comparable(records: Sequence[RunRecord]) -> None:
    """Refuses runs whose rates are not of the same question.

    Raises:
        UserError: Two runs have the same repair, or differ in a field other than `FREE` or in the threshold of
            their verdicts; it names them.
    """
    owners: dict[Any, str] = {}
    for record in records:
        mine = {place_of(row) for row in record.rows if row["method"] not in REFERENCES}
        if twice := sorted(mine & set(owners)):
            attack, method, size, (seed, _) = twice[0]
            if owners[twice[0]] == record.name:
                raise UserError(f"{record.name} is given twice; give each run once")
            raise UserError(
                f"{owners[twice[0]]} and {record.name} both have {method} with {size} images for {attack}, "
                f"seed {seed}; give each run once"
            )
        owners |= dict.fromkeys(mine, record.name)
    first, *others = records
    for other in others:
        for name in sorted({*first.fields, *other.fields} - set(FREE)):
            ours, theirs = first.fields.get(name), other.fields.get(name)
            if ours != theirs:
                raise UserError(
                    f"{first.name} and {other.name} differ in config.{name} ({ours}, {theirs}); rank runs together "
                    "that differ only in the trigger, the seeds, the sizes and the methods"
                )
    limits: dict[float, str] = {}
    for record in records:
        for row in record.networks:
            limits.setdefault(row["threshold"], record.name)
    if len(limits) > 1:
        (low, old), *_, (high, new) = sorted(limits.items())
        raise UserError(
            f"the verdicts of {old} and {new} have different thresholds ({low:g}, {high:g}), so they are of "
            "different versions of mcjax; repair these suspects again with one version"
        )


def tables(records: Sequence[RunRecord]) -> str:
    """The tables of all runs together, as Markdown: the ranking, the verdicts, the estimates.

    Args:
        records: Of comparable runs.
    """
    parts = [ranking([row for record in records for row in record.rows]), LEGEND]
    # Clean networks do not depend on the attack: those of several runs are the same.
    networks = [
        {**row, "same": (record.name if row["network"] == "suspect" else "", row["seed"], sizes)}
        for record in records
        for sizes in [str(record.fields.get("repair.sizes"))]
        for row in record.networks
    ]
    if networks:
        parts += [evidence_truth.verdicts(networks), evidence_truth.VERDICT_LEGEND]
    if paths := [row for record in records for row in record.paths]:
        parts += [evidence_truth.estimates(paths), evidence_truth.ESTIMATE_LEGEND]
    return "\n\n".join(parts)


def save(file: Path, records: Sequence[RunRecord]) -> None:
    """Writes the records of comparable runs, for `load`.

    Methods at settings that nobody without the trigger would choose are left out; their scores stand in the rows of
    the methods.

    Raises:
        UserError: The file can't be written.
    """
    shared = {k: v for k, v in records[0].fields.items() if k not in FREE}
    lines = [
        json.dumps(
            {
                "fields": {k: record.fields[k] for k in FREE if k in record.fields},
                "rows": [row for row in record.rows if " at " not in row["method"]],
                "networks": record.networks,
                "paths": [_finite(row) for row in record.paths],
            }
        )
        for record in records
    ]
    runs = ",\n".join(lines)
    write(file, f'{{"fields": {json.dumps(shared)},\n"runs": [\n{runs}\n]}}\n')


def load(file: Path) -> list[RunRecord]:
    """The records in a file.

    Raises:
        UserError: `save` did not write it, or it can't be read.
    """
    try:
        content = json.loads(file.read_text())
        return [
            RunRecord(
                f"run {number} of {file}",
                content["fields"] | run["fields"],
                [_with_seed(row) for row in run["rows"]],
                [_with_seed(row) for row in run["networks"]],
                [{k: math.nan if v is None else v for k, v in row.items()} for row in run["paths"]],
            )
            for number, run in enumerate(content["runs"], 1)
        ]
    except (OSError, ValueError, TypeError, KeyError):
        raise UserError(
            f"{file} is neither a run's folder nor a file that --keep wrote; give one of these"
        ) from None


def _finite(row: Row) -> Row:
    """JSON has no nan."""
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}


def _with_seed(row: Row) -> Row:
    seed, fold = row["seed"]
    return {**row, "seed": (seed, fold)}
