"""Ranks the methods of several backdoor runs by what they remove and what they cost, as Markdown.

    python -m mcjax.report.ranking runs/backdoor-square-HASH runs/backdoor-wanet-HASH

The score of a repair is (attack success removed) - (clean accuracy lost), both against the run's suspect. A method's
score is its mean over the attacks, an attack's the mean over its seeds (and folds). The first table ranks the methods
at every number of bonafide images. Then two tables per number of images: means over the attacks (with the highest attack
success of a run, the re-learning test where it was made, and the median seconds of training), and "clean accuracy / attack
success" per attack, means over seeds, with the highest attack success of a seed in brackets. Where all attacks have the
same seeds, means over attacks have the 95 % interval over them, of two seeds both values. Rows that somebody without
the trigger could not have chosen ("at the oracle's", fixed settings) are left out; the scores of the oracle's setting
and of the best one stand beside a method's own. Runs that are ranked together may differ in the trigger, the seeds, the
sizes and the methods only.

Runs that choose t by evidence get two more tables, on how right it was: the verdict on suspects and clean networks, and
the estimated attack success along the paths.
"""

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mcjax.core.errors import UserError
from mcjax.report import evidence_truth
from mcjax.report.repair_ranking import EXCESS, LEGEND, Row, ranking
from mcjax.runs.csv_text import unescape
from mcjax.runs.workdir import read_csv


def define_flags() -> None:
    """The command has no flags of its own."""


def main(*names: str) -> None:
    """Prints the tables of all runs together."""
    if not names:
        raise UserError("no run was given; add the folders of backdoor runs")
    folders = [Path(name) for name in names]
    check_comparable(folders)
    parts = [ranking([row for folder in folders for row in read_run(folder)]), LEGEND]
    if networks := [row for folder in folders for row in read_verdicts(folder)]:
        parts += [evidence_truth.verdicts(networks), evidence_truth.VERDICT_LEGEND]
    if paths := [row for folder in folders for row in read_estimates(folder)]:
        parts += [evidence_truth.estimates(paths), evidence_truth.ESTIMATE_LEGEND]
    print("\n\n".join(parts))


FREE = ("seed", "seeds", "attack.trigger", "repair.sizes", "repair.methods")
"""The fields of a config in which runs that are ranked together may differ."""


def check_comparable(folders: Sequence[Path]) -> None:
    """Refuses runs whose rates are not of the same question.

    Raises:
        UserError: A run is given twice, or two differ in a field other than `FREE`, which it names.
    """
    places = [folder.resolve() for folder in folders]
    for i, place in enumerate(places):
        if place in places[:i]:
            raise UserError(f"{folders[i]} is given twice; give each run once")
    first, *others = [(folder, _read_json(folder).get("hashed", {})) for folder in folders]
    for folder, fields in others:
        for name in sorted(set(fields) | set(first[1])):
            ours, theirs = first[1].get(name), fields.get(name)
            if name not in FREE and ours != theirs:
                raise UserError(
                    f"{first[0]} and {folder} differ in config.{name} ({ours}, {theirs}); rank runs together "
                    "that differ only in the trigger, the seeds, the sizes and the methods"
                )


def read_run(folder: Path) -> list[Row]:
    """The rows of a backdoor run, with what was removed and lost.

    Args:
        folder: The run's working directory.

    Returns:
        One row per (method, bonafide, seed): "attack", "method", "bonafide", "seed",
        "clean_accuracy", "attack_success_rate", "accuracy_lost", "score"; where known "acceptable", "seconds" of its
        training, after the re-learning test with M poisoned images "excess_M", and of methods with several
        settings "oracle_score" and "best_score".

    Raises:
        UserError: It is not a finished backdoor run.
    """
    try:
        attack = str(_config(folder)["attack"]["trigger"])
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
        add_other_settings(folder, rows)
        add_seconds(folder, rows)
        add_excess(folder, rows)
    except (OSError, ValueError, TypeError, KeyError, csv.Error):
        raise _not_finished(folder) from None
    return rows


def add_other_settings(folder: Path, rows: Sequence[Row]) -> None:
    """Adds the scores of the oracle's setting and of the best one: a row "METHOD at ...", or a point of a path."""
    chosen = {(row["method"], row["bonafide"], row["seed"]): row for row in rows}
    for row in rows:
        name, at, setting = row["method"].partition(" at ")
        mine = chosen.get((name, row["bonafide"], row["seed"]))
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


def add_seconds(folder: Path, rows: Sequence[Row]) -> None:
    """Adds the seconds of training, where the run has them."""
    known = {
        (unescape(line["method"]), int(line["bonafide"]), _seed(line)): line
        for line in _lines_if_any(folder / "figures" / "seconds.csv")
    }
    for row in rows:
        if line := known.get((row["method"], row["bonafide"], row["seed"])):
            row["seconds"] = float(line["seconds"])


def add_excess(folder: Path, rows: Sequence[Row]) -> None:
    """Adds the excess of the re-learning test, which is of the largest size and the first seed."""
    excess: dict[str, dict[str, float]] = {}
    for line in _lines_if_any(folder / "figures" / "relearning_methods.csv"):
        found = {f"{EXCESS}{int(line['m'])}": float(line["excess"])}
        excess.setdefault(unescape(line["method"]), {}).update(found)
    size, first = max(row["bonafide"] for row in rows), rows[0]["seed"]
    for row in rows:
        if row["seed"] == first and row["bonafide"] in (0, size):
            row.update(excess.get(row["method"], {}))


PLACES = ("dir", "verify")
"""Fields of `config.data` that say where the images come from, not which they are."""


def read_verdicts(folder: Path) -> list[Row]:
    """What inverted triggers said of each network of a run: see `mcjax.report.evidence_truth.verdicts`.

    Args:
        folder: The working directory of a finished backdoor run.

    Returns:
        One row per network, number of images, seed and fold; none if t was not chosen by evidence.

    Raises:
        UserError: The table is damaged.
    """
    rows: dict[Any, Row] = {}
    try:
        lines = _lines_if_any(folder / "evidence.csv")
        config = _config(folder) if lines else {"repair": {}, "data": {}}
        # The clean networks of two attacks, and the searches on them, are the same where these are.
        setting = json.dumps([config.get(name) for name in ("model", "endpoint")])
        setting += json.dumps([config["repair"].get(name) for name in ("evidence", "sizes")])
        setting += json.dumps({k: v for k, v in config["data"].items() if k not in PLACES})
        for line in lines:
            suspect = line["network"] == "suspect"
            attacked = line["attacked_class"]
            row = {
                "bonafide": int(line["bonafide"]),
                "network": line["network"],
                "same": (setting, _seed(line), str(folder) if suspect else ""),
                "evident": line["evident"] == "1",
                "right": (line["class"] == attacked and line["evident"] == "1")
                if attacked
                else None,
                "margin": float(line["anomaly"]) / float(line["threshold"]),
            }
            # The first of a network is of the form that says most.
            rows.setdefault((row["network"], row["bonafide"], _seed(line)), row)
    except (OSError, ValueError, TypeError, KeyError, ZeroDivisionError, csv.Error):
        raise _not_finished(folder) from None
    return list(rows.values())


PATH_FILE = re.compile(r"(.+?)(?:_(\d+))?")


def read_estimates(folder: Path) -> list[Row]:
    """How right the estimate was along each path: see `mcjax.report.evidence_truth.estimates`.

    Args:
        folder: The working directory of a finished backdoor run.

    Returns:
        One row per path along which some trigger is evidence.

    Raises:
        UserError: A table is damaged.
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


def _config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = _read_json(folder)["config"]
    return config


def _read_json(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        raise _not_finished(folder) from None
    return found


def _seed(line: dict[str, str]) -> tuple[str, str]:
    return line["seed"], line.get("fold", "")


def _lines(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(file.read_text(), newline=""), strict=True))


def _lines_if_any(file: Path) -> list[dict[str, str]]:
    """The rows of a table that not every run has."""
    return _lines(file) if file.exists() else []


def _not_finished(folder: Path) -> UserError:
    return UserError(
        f"{folder} is not a finished backdoor run; give folders that mcjax.train wrote, and run an unfinished "
        "one again"
    )
