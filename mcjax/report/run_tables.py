"""What a ranking needs of the folder of a finished backdoor run."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mcjax.report import evidence_truth
from mcjax.report.means import Row
from mcjax.report.repair_ranking import EXCESS
from mcjax.runs.csv_text import unescape
from mcjax.runs.workdir import read_csv


def place_of(row: Row) -> tuple[str, str, int, tuple[str, str]]:
    """What a repair is of: the attack, the method, the number of images, the seed and fold."""
    return row["attack"], row["method"], row["bonafide"], row["seed"]


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
    chosen = {place_of(row): row for row in rows}
    for row in rows:
        name, at, setting = row["method"].partition(" at ")
        mine = chosen.get(place_of({**row, "method": name}))
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
