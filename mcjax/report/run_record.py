"""What a ranking needs of a finished backdoor run: read from its folder, or kept in a file of many runs.

A file of records has what all its runs share once, and one line per run. It is small (some kilobytes per run), so that
a study can be published, extended later and on other machines, and compared with new runs.
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

    Raises:
        UserError: Two runs differ in a field other than `FREE`, have the same repair, or have verdicts of different
            versions of mcjax; the message names them.
    """
    first, *others = records
    for other in others:
        for name in sorted({*first.fields, *other.fields} - set(FREE)):
            ours, theirs = first.fields.get(name), other.fields.get(name)
            if ours != theirs:
                raise UserError(
                    f"{first.name} and {other.name} differ in config.{name} ({ours}, {theirs}); rank runs together "
                    "that differ only in the trigger, the seeds, the sizes and the methods"
                )
    _check_each_once(records)
    _check_one_version(records)


def _check_each_once(records: Sequence[RunRecord]) -> None:
    """A repair counts once; what uses no images is in every run of a suspect."""
    owners: dict[Any, str] = {}
    for record in records:
        mine = [place_of(row) for row in record.rows if row["bonafide"]]
        if twice := sorted(set(mine) & set(owners)):
            attack, method, size, (seed, fold) = twice[0]
            whose = f"{attack}, seed {seed}" + (f", fold {fold}" if fold else "")
            raise UserError(
                f"{owners[twice[0]]} is given twice; give each run once"
                if owners[twice[0]] == record.name
                else f"{owners[twice[0]]} and {record.name} both have {method} with {size} images ({whose}); leave "
                "one of the runs out"
            )
        owners |= dict.fromkeys(mine, record.name)


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
        records: Of comparable runs.
    """
    rows: dict[Any, Row] = {}
    for record in records:
        for row in record.rows:
            rows.setdefault(place_of(row), row)  # several runs may be of one suspect
    parts = [ranking(list(rows.values())), LEGEND]
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
    shared = {k: v for k, v in records[0].fields.items() if k not in FREE}
    lines = [
        json.dumps(
            {
                "fields": {k: record.fields[k] for k in FREE if k in record.fields},
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
NUMBERS = (*RATES, "threshold", "margin", "spearman", "bias")
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
        if not records:
            raise ValueError
        return records
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise UserError(
            f"{file} is neither a run's folder nor a file that --keep wrote; give one of these"
        ) from None


def _finite(row: Row) -> Row:
    """JSON has no nan."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def _row(row: Row, needed: Sequence[str]) -> Row:
    """A row of a file, with nan for what JSON does not have, and its seed and fold as a pair."""
    found: Row = {k: math.nan if v is None and k != "right" else v for k, v in row.items()}
    for name in needed:
        if name in NUMBERS:
            found[name] = float(found[name])
        if name == "seed":
            seed, fold = found[name]
            found[name] = (seed, fold)
        if name not in found:
            raise KeyError(name)
    return found
