"""Ranks the methods of several backdoor runs by what they remove and what they cost, as Markdown.

    python -m mcjax.report.ranking runs/backdoor-square-HASH runs/backdoor-wanet-HASH

The score of a repair is (attack success removed) - (clean accuracy lost), both against the run's suspect. A method's
score is its mean over the attacks, an attack's the mean over its seeds (and folds). The first table ranks the methods
at every number of bonafide images; where all attacks have the same seeds it has the 95 % interval over them, of two seeds
both scores. Then two tables per number of images: means over the attacks (the highest attack success of a run, the
median seconds of training, and the excess of the re-learning test, where it was made), and "clean accuracy / attack
success" per attack, means over seeds, with the highest attack success of a seed in brackets. Rows that somebody without
the trigger could not have chosen ("at the oracle's", fixed t) are left out.
"""

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mcjax.core.errors import UserError
from mcjax.report.means import grouped, mean
from mcjax.runs.csv_text import unescape

Row = dict[str, Any]

LEGEND = (
    "Score: attack success removed minus clean accuracy lost, both against the suspect; the mean over the attacks, "
    "with its 95 % interval over seeds. Worst: the highest attack success of a run. Seconds: the median, of training. "
    "Re-learned excess: attack success after fine-tuning with (m) poisoned images, minus the clean twin's. "
    "Per attack: clean accuracy / attack success (highest of a seed)."
)


def define_flags() -> None:
    """The command has no flags of its own."""


def main(*names: str) -> None:
    """Prints the tables of all runs together."""
    if not names:
        raise UserError("no run was given; add the folders of backdoor runs")
    print(ranking([row for name in names for row in read_run(Path(name))]))
    print(f"\n{LEGEND}")


def read_run(folder: Path) -> list[Row]:
    """The rows of a backdoor run, with what was removed and lost.

    Args:
        folder: The run's working directory.

    Returns:
        One row per (method, bonafide, seed): "attack", "method", "bonafide", "seed",
        "clean_accuracy", "attack_success_rate", "suspect_accuracy", "suspect_success", "score"; where
        known "seconds" of its training, and "excess" after the re-learning test, by its number of
        poisoned images.

    Raises:
        UserError: It is not a finished backdoor run.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
        attack = str(config["config"]["attack"]["trigger"])
        text = (folder / "table.csv").read_text()
        rows: list[Row] = [
            {
                "attack": attack,
                "method": unescape(line["method"]),
                "bonafide": int(line["bonafide"]),
                "seed": (line["seed"], line.get("fold", "")),
                "clean_accuracy": float(line["clean_accuracy"]),
                "attack_success_rate": float(line["attack_success_rate"]),
            }
            for line in csv.DictReader(io.StringIO(text, newline=""), strict=True)
        ]
        suspects = {row["seed"]: row for row in rows if row["method"] == "suspect"}
        for row in rows:
            suspect = suspects[row["seed"]]
            row["suspect_accuracy"] = suspect["clean_accuracy"]
            row["suspect_success"] = suspect["attack_success_rate"]
            row["score"] = (
                row["suspect_success"]
                - row["attack_success_rate"]
                - (row["suspect_accuracy"] - row["clean_accuracy"])
            )
        add_seconds(folder, rows)
        add_excess(folder, rows)
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, csv.Error):
        raise UserError(
            f"{folder} is not a finished backdoor run; give folders that mcjax.train wrote"
        ) from None
    return rows


def add_seconds(folder: Path, rows: Sequence[Row]) -> None:
    """Adds the seconds of training, where the run has them."""
    known = {
        (
            unescape(line["method"]),
            int(line["bonafide"]),
            (line["seed"], line.get("fold", "")),
        ): line
        for line in _lines(folder / "figures" / "seconds.csv")
    }
    for row in rows:
        if line := known.get((row["method"], row["bonafide"], row["seed"])):
            row["seconds"] = float(line["seconds"])


def add_excess(folder: Path, rows: Sequence[Row]) -> None:
    """Adds the excess of the re-learning test, which is of the largest size and the first seed."""
    excess: dict[str, dict[int, float]] = {}
    for line in _lines(folder / "figures" / "relearning_methods.csv"):
        excess.setdefault(unescape(line["method"]), {})[int(line["m"])] = float(line["excess"])
    size, first = max(row["bonafide"] for row in rows), rows[0]["seed"]
    for row in rows:
        if row["seed"] == first and row["bonafide"] in (0, size) and row["method"] in excess:
            row["excess"] = excess[row["method"]]


def _lines(file: Path) -> list[dict[str, str]]:
    """The rows of a table that not every run has."""
    if not file.exists():
        return []
    return list(csv.DictReader(io.StringIO(file.read_text(), newline=""), strict=True))


def ranking(rows: Sequence[Row]) -> str:
    """The tables.

    Args:
        rows: What `read_run` returns, of several runs.

    Returns:
        Markdown.

    Example:
        >>> row = {"attack": "square", "bonafide": 100, "seed": 0, "clean_accuracy": 0.88}
        >>> row |= {"attack_success_rate": 0.01, "suspect_accuracy": 0.9, "suspect_success": 1.0}
        >>> print(ranking([{**row, "method": "path", "score": 0.97}]).splitlines()[2])
        | path | 0.970 |
    """
    repairs = [row for row in rows if row["bonafide"] and " at " not in row["method"]]
    # Methods that use no images have one row, which counts at every size.
    sizes = sorted({row["bonafide"] for row in repairs}, reverse=True)
    references = ("suspect", "second network", "clean twin")
    free = [
        {**row, "bonafide": size}
        for row in rows
        if not row["bonafide"] and row["method"] not in references and " at " not in row["method"]
        for size in sizes
    ]
    repairs = [*repairs, *free]
    attacks = list(dict.fromkeys(row["attack"] for row in rows))
    names = list(dict.fromkeys(row["method"] for row in repairs))
    cells = grouped(repairs, ("method", "bonafide", "attack"))

    def score(name: str, size: int) -> float:
        found = [
            np.mean([row["score"] for row in cells[name, size, attack]])
            for attack in attacks
            if (name, size, attack) in cells
        ]
        return float(np.mean(found)) if len(found) == len(attacks) else float("nan")

    def place(name: str) -> float:
        return -float(np.nan_to_num(np.mean([score(name, size) for size in sizes]), nan=-9))

    best = sorted(names, key=place)

    def shown(name: str, size: int) -> str:
        if not np.isfinite(value := score(name, size)):
            return ""
        seeds = [
            list(dict.fromkeys(row["seed"] for row in cells[name, size, attack]))
            for attack in attacks
        ]
        if any(set(other) != set(seeds[0]) for other in seeds):
            return f"{value:.3f}"
        scores = [{"seed": seed, "score": of_seed(name, size, seed)} for seed in seeds[0]]
        return str(mean(scores, "score"))

    def of_seed(name: str, size: int, seed: Any) -> float:
        found = [
            np.mean([row["score"] for row in cells[name, size, attack] if row["seed"] == seed])
            for attack in attacks
        ]
        return float(np.mean(found))

    first = [[name, *(shown(name, size) for size in sizes)] for name in best]
    tables = [_table(["method", *map(str, sizes)], first)]
    suspects = grouped([row for row in rows if row["method"] == "suspect"], ("attack",))
    for size in sizes:
        means = [
            [name, *_means([cells[name, size, a] for a in attacks if (name, size, a) in cells])]
            for name in best
        ]
        head = ["score", "accuracy lost", "attack success", "worst", "seconds", "re-learned excess"]
        tables.append(_table([f"{size} images", *head], means))
        second = [["suspect", *(_rates(suspects.get((attack,), [])) for attack in attacks)]]
        second += [
            [name, *(_rates(cells.get((name, size, attack), [])) for attack in attacks)]
            for name in best
        ]
        tables.append(_table([f"{size} images", *attacks], second))
    return "\n\n".join(tables)


def _means(by_attack: Sequence[Sequence[Row]]) -> list[str]:
    """Score, accuracy lost, attack success, means over the attacks; the worst, seconds, excess."""
    if not by_attack:
        return [""] * 6
    every = [row for rows in by_attack for row in rows]

    def over_attacks(value: Callable[[Row], float]) -> str:
        return f"{np.mean([np.mean([value(row) for row in rows]) for rows in by_attack]):.3f}"

    seconds = [row["seconds"] for row in every if "seconds" in row]
    excess = [row["excess"] for row in every if "excess" in row]
    return [
        over_attacks(lambda row: row["score"]),
        over_attacks(lambda row: row["suspect_accuracy"] - row["clean_accuracy"]),
        over_attacks(lambda row: row["attack_success_rate"]),
        f"{max(row['attack_success_rate'] for row in every):.3f}",
        f"{np.median(seconds):.0f}" if seconds else "",
        ", ".join(
            f"{np.mean([one[m] for one in excess]):.3f} ({m})"
            for m in (excess[0] if excess else ())
        ),
    ]


def _rates(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    clean, attack = (
        np.mean([row[column] for row in rows])
        for column in ("clean_accuracy", "attack_success_rate")
    )
    worst = max(row["attack_success_rate"] for row in rows)
    return f"{clean:.3f} / {attack:.3f}" + (f" ({worst:.3f})" if len(rows) > 1 else "")


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    named = [[line[0].replace("_", " "), *line[1:]] for line in lines]
    rows = ["| " + " | ".join(line) + " |" for line in [head, *named]]
    return "\n".join([rows[0], "|" + "---|" * len(head), *rows[1:]])
