"""What a ranking needs of a finished backdoor run: read from its folder, or kept in a file of many runs.

A file of records has what all its runs share once, and one line per run. It is small (some kilobytes per run), so that
a study can be published, extended later and on other machines, and compared with new runs.
"""

import csv
import dataclasses
import json
import math
import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mcjax.core.errors import UserError
from mcjax.core.files import write
from mcjax.repair.evidence.control import THRESHOLDS
from mcjax.repair.evidence.forms import FORMS
from mcjax.report import evidence_truth
from mcjax.report.means import Row
from mcjax.report.repair_ranking import LEGEND, ranking
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
        UserError: The place is neither.
    """
    if place.suffix == ".json" and not place.exists():
        raise UserError(f"{place} does not exist; give a file that --keep wrote, or a run's folder")
    return load(place) if place.is_file() else [of_folder(place)]


def of_folder(folder: Path) -> RunRecord:
    """The record of a finished backdoor run.

    Args:
        folder: Its working directory.

    Raises:
        UserError: The folder is not that of a finished backdoor run, or a table is damaged.
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
    """Refuses runs that cannot be compared.

    A field that only one of two runs has is of a method that the other does not know, or of another version, and
    does not count.

    Raises:
        UserError: A run is given twice, or two runs differ in a field other than `FREE` or have verdicts of different
            versions of mcjax; the message names them.
    """
    names: set[str] = set()
    asked: dict[str, tuple[Any, str]] = {}
    for record in records:
        if record.name in names:
            raise UserError(f"{record.name} is given twice; give each run once")
        names.add(record.name)
        for name in sorted({*record.fields} - set(FREE)):
            theirs = record.fields[name]
            ours, whose = asked.setdefault(name, (theirs, record.name))
            if ours != theirs:
                raise UserError(
                    f"{whose} and {record.name} differ in config.{name} ({ours}, {theirs}); rank runs together "
                    "that differ only in the trigger, the seeds, the sizes and the methods"
                )
    _check_one_version(records)


def each_once(records: Sequence[RunRecord]) -> tuple[list[RunRecord], list[str]]:
    """The records without repairs that an earlier one has, so that each counts once.

    A run of a new method repeats the suspect, and often a method of the study that it is compared with.

    Args:
        records: Of comparable runs.

    Returns:
        The records; and per record which methods of it do not count, as a sentence.
    """
    seen: set[Any] = set()
    kept, notes = [], []
    for record in records:
        rows = [row for row in record.rows if _chosen(row) not in seen]
        again = [row for row in record.rows if row["bonafide"] and _chosen(row) in seen]
        mine, theirs = (
            dict.fromkeys((row["method"], row["bonafide"]) for row in some)
            for some in (rows, again)
        )
        paths = [
            row
            for row in record.paths
            if (place := (row["method"], row["bonafide"])) in mine or place not in theirs
        ]
        if named := dict.fromkeys(method for method, _ in theirs if " at " not in method):
            notes.append(
                f"{record.name}: {', '.join(named)} does not count; an earlier run has the same repair"
            )
        seen |= set(map(place_of, rows))
        if rows:
            kept.append(dataclasses.replace(record, rows=rows, paths=paths))
    return kept, notes


def _chosen(row: Row) -> tuple[str, str, int, tuple[str, str]]:
    """What a repair, or one at a fixed setting, is of."""
    return place_of({**row, "method": row["method"].partition(" at ")[0]})


def _check_one_version(records: Sequence[RunRecord]) -> None:
    """A threshold that this version does not have shows that the anomaly was another one, too."""
    today = {*THRESHOLDS.values(), *(form.threshold for form in FORMS.values())}
    known, unknown = (
        [
            (record, row)
            for record in records
            for row in record.networks
            if (row["threshold"] in today) == wanted
        ]
        for wanted in (True, False)
    )
    if known and unknown:
        raise UserError(
            f"the verdicts of {unknown[0][0].name} have a threshold of {unknown[0][1]['threshold']:g}, those of "
            f"{known[0][0].name} of {known[0][1]['threshold']:g}, so they are of different versions of mcjax; repair "
            "the suspects of the older runs again"
        )


def tables(records: Sequence[RunRecord]) -> str:
    """The tables of all runs together, as Markdown: the ranking, the verdicts, the estimates.

    Args:
        records: Of comparable runs, each repair once.
    """
    parts = [ranking([row for record in records for row in record.rows]), LEGEND]
    # Clean networks do not depend on the attack.
    networks = [
        {**row, "same": (attack if row["network"] == "suspect" else "", row["seed"], sizes)}
        for record in records
        for attack, sizes in [map(str, map(record.fields.get, ("attack.trigger", "repair.sizes")))]
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
    first, *others = records
    shared = {
        k: v
        for k, v in first.fields.items()
        if k not in FREE and all(k in other.fields for other in others)
    }
    lines = [
        json.dumps(
            {
                "fields": {k: v for k, v in record.fields.items() if k not in shared},
                "rows": [_finite(row) for row in record.rows if " at " not in row["method"]],
                "networks": [_finite(row) for row in record.networks],
                "paths": [_finite(row) for row in record.paths],
            },
            allow_nan=False,
        )
        for record in records
    ]
    runs = ",\n".join(lines)
    write(file, f'{{"fields": {json.dumps(shared)},\n"runs": [\n{runs}\n]}}\n')


RATES = ("clean_accuracy", "attack_success_rate", "accuracy_lost", "score")
WORDS, COUNTS = ("attack", "method", "network"), ("bonafide",)
ANSWERS = ("acceptable", "evident", "right")
NEEDED = {
    "rows": ("attack", "method", "bonafide", "seed", *RATES),
    "networks": ("network", "bonafide", "seed", "evident", "right", "threshold", "margin"),
    "paths": ("method", "bonafide", "spearman", "bias"),
}
"""What each row of a file must have."""


def load(file: Path) -> list[RunRecord]:
    """The records in a file.

    Raises:
        UserError: `save` did not write it, or it can't be read.
    """
    try:
        content = json.loads(file.read_text())
        records = []
        for number, run in enumerate(content["runs"], 1):
            parts = [[_row(row, NEEDED[part]) for row in run[part]] for part in NEEDED]
            fields = {**content["fields"], **run["fields"]}
            records.append(RunRecord(f"run {number} of {file}", fields, *parts))
        if not all(record.rows for record in records) or not records:
            raise ValueError
        return records
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise UserError(
            f"{file} is damaged, or neither a run's folder nor a file that --keep wrote; give one of these"
        ) from None


def _finite(row: Row) -> Row:
    """JSON has no nan."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def _row(row: Row, needed: Sequence[str]) -> Row:
    """A row of a file, with nan for what JSON does not have, and its seed and fold as a pair."""
    if missing := set(needed) - set(row):
        raise KeyError(*missing)
    found: Row = {}
    for name, value in row.items():
        if name in WORDS:
            found[name] = str(value)
        elif name == "seed":
            seed, fold = value
            found[name] = (str(seed), str(fold))
        elif name in COUNTS:
            found[name] = operator.index(value)
        elif name in ANSWERS:
            found[name] = None if value is None else bool(operator.index(value))
        else:
            found[name] = math.nan if value is None else float(value)
    return found
