"""What a ranking needs of a finished backdoor run: read from its folder, or kept in a file of many runs.

A file has what all its runs share once, and one line per run. It is small (some kilobytes per run), so that a study
can be published, extended later and on other machines, and compared with new runs.
"""

import csv
import dataclasses
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mcjax.core.errors import UserError
from mcjax.core.files import write
from mcjax.report import evidence_truth
from mcjax.report.means import Row
from mcjax.report.repair_ranking import EXCESS, LEGEND, REFERENCES, ranking
from mcjax.runs.csv_text import unescape
from mcjax.runs.workdir import read_csv

FREE = ("seed", "seeds", "attack.trigger", "repair.sizes", "repair.methods")
"""The fields of a config in which runs that are ranked together may differ."""


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """A backdoor run as a ranking sees it.

    Args:
        name: What messages call it: its folder, or its place in a file.
        fields: The fields of its config that its results depend on.
        rows: Of its repairs: see `read_repairs`.
        networks: What inverted triggers said of its networks: see `read_networks`.
        paths: How right the estimate was along its paths: see `read_paths`.
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
        mine = {_place(row) for row in record.rows if row["method"] not in REFERENCES}
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


def _place(row: Row) -> tuple[str, str, int, tuple[str, str]]:
    return row["attack"], row["method"], row["bonafide"], row["seed"]


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


def read_repairs(folder: Path, attack: str) -> list[Row]:
    """The repairs of a run, with what each removed and lost.

    Args:
        folder: The run's working directory.
        attack: What to call its attack.

    Returns:
        One row per (method, bonafide, seed): "attack", "method", "bonafide", "seed" (and fold),
        "clean_accuracy", "attack_success_rate", "accuracy_lost", "score"; where known "acceptable", "seconds" of its
        training, after the re-learning test with M poisoned images "excess_M", and of methods with several
        settings "oracle_score" and "best_score".
    """
    rows: list[Row] = [
        {
            "attack": attack,
            "method": unescape(line["method"]),
            "bonafide": int(line["bonafide"]),
            "seed": _seed(line),
            "clean_accuracy": float(line["clean_accuracy"]),
            "attack_success_rate": float(line["attack_success_rate"]),
            **({"acceptable": line["acceptable"] == "1"} if line.get("acceptable") else {}),
        }
        for line in _lines(folder / "table.csv")
    ]
    suspects = {row["seed"]: row for row in rows if row["method"] == "suspect"}
    for row in rows:
        suspect = suspects[row["seed"]]
        row["accuracy_lost"] = suspect["clean_accuracy"] - row["clean_accuracy"]
        removed = suspect["attack_success_rate"] - row["attack_success_rate"]
        row["score"] = removed - row["accuracy_lost"]
    _add_other_settings(folder, rows)
    _add_seconds(folder, rows)
    _add_excess(folder, rows)
    return rows


def _add_other_settings(folder: Path, rows: Sequence[Row]) -> None:
    """Adds the scores of the oracle's setting and of the best one: a row "METHOD at ...", or a point of a path."""
    chosen = {_place(row): row for row in rows}
    for row in rows:
        name, at, setting = row["method"].partition(" at ")
        mine = chosen.get(_place({**row, "method": name}))
        if at and mine:
            mine["best_score"] = max(row["score"], mine.get("best_score", mine["score"]))
            if setting.startswith("the oracle's "):
                mine["oracle_score"] = row["score"]
    for row in rows:
        seed, fold = row["seed"]
        place = folder / "paths" / f"seed_{seed}" / (f"fold_{fold}" if fold else "")
        size = f"_{row['bonafide']}" if row["bonafide"] else ""
        if (file := place / f"{row['method']}{size}.csv").exists():
            table = read_csv(file)
            rates = zip(table["attack_success_rate"], table["test_accuracy"], strict=True)
            suspects = row["score"] + row["attack_success_rate"] - row["clean_accuracy"]
            row["best_score"] = max(suspects - success + accuracy for success, accuracy in rates)


def _add_seconds(folder: Path, rows: Sequence[Row]) -> None:
    """Adds the seconds of training, where the run has them."""
    known = {
        (unescape(line["method"]), int(line["bonafide"]), _seed(line)): line
        for line in _lines_if_any(folder / "figures" / "seconds.csv")
    }
    for row in rows:
        if line := known.get((row["method"], row["bonafide"], row["seed"])):
            row["seconds"] = float(line["seconds"])


def _add_excess(folder: Path, rows: Sequence[Row]) -> None:
    """Adds the excess of the re-learning test, which is of the largest size and the first seed."""
    excess: dict[str, dict[str, float]] = {}
    for line in _lines_if_any(folder / "figures" / "relearning_methods.csv"):
        found = {f"{EXCESS}{int(line['m'])}": float(line["excess"])}
        excess.setdefault(unescape(line["method"]), {}).update(found)
    size, first = max(row["bonafide"] for row in rows), rows[0]["seed"]
    for row in rows:
        if row["seed"] == first and row["bonafide"] in (0, size):
            row.update(excess.get(row["method"], {}))


def read_networks(folder: Path) -> list[Row]:
    """What inverted triggers said of each network of a run: see `mcjax.report.evidence_truth.verdicts`.

    Args:
        folder: The run's working directory.

    Returns:
        One row per network, number of images, seed and fold; none if t was not chosen by evidence.
    """
    rows: dict[Any, Row] = {}
    for line in _lines_if_any(folder / "evidence.csv"):
        attacked, evident = line["attacked_class"], line["evident"] == "1"
        row = {
            "bonafide": int(line["bonafide"]),
            "network": line["network"],
            "seed": _seed(line),
            "evident": evident,
            "right": (evident and line["class"] == attacked) if attacked else None,
            "threshold": float(line["threshold"]),
            "margin": float(line["anomaly"]) / float(line["threshold"]),
        }
        # The first of a network is of the form that says most.
        rows.setdefault((row["network"], row["bonafide"], row["seed"]), row)
    return list(rows.values())


PATH_FILE = re.compile(r"(.+?)(?:_(\d+))?")


def read_paths(folder: Path) -> list[Row]:
    """How right the estimate was along each path: see `mcjax.report.evidence_truth.estimates`.

    Args:
        folder: The run's working directory.

    Returns:
        One row per path along which some trigger is evidence.
    """
    rows = []
    for file in sorted((folder / "paths").rglob("*.csv")):
        table = read_csv(file)
        estimated = table.get("estimated_attack_success")
        if estimated is None or not any(estimated):
            continue
        if (name := PATH_FILE.fullmatch(file.stem)) and "attack_success_rate" in table:
            row = {"method": name[1], "bonafide": int(name[2] or 0)}
            rows.append(row | evidence_truth.along(table["attack_success_rate"], estimated))
    return rows


def _seed(line: Mapping[str, str]) -> tuple[str, str]:
    return line["seed"], line.get("fold", "")


def _lines(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(file.read_text(), newline=""), strict=True))


def _lines_if_any(file: Path) -> list[dict[str, str]]:
    """The rows of a table that not every run has."""
    return _lines(file) if file.exists() else []
