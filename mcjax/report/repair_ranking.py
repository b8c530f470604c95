"""Methods of repair over several attacks, ranked by what they remove and what they cost, as Markdown.

The score of a repair is (attack success removed) - (clean accuracy lost), both against the run's suspect.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mcjax.report.markdown_table import markdown_table
from mcjax.report.means import Mean, Row, grouped, mean

REFERENCES = ("suspect", "second network", "clean twin")

COLUMNS = {
    "score": "score",
    "oracle_score": "oracle's",
    "best_score": "best",
    "accuracy_lost": "accuracy lost",
    "attack_success_rate": "attack success",
}
"""The columns that are means over the attacks, with the words for them."""

LEGEND = (
    "Score: attack success removed minus clean accuracy lost, both against the suspect; the best mean over all sizes comes "
    "first. Means are over the attacks, with the 95 % interval over seeds, or both values of two seeds, where all attacks have the same seeds; a method that has not met every attack has none. Oracle's: the score "
    "of the setting (t, threshold, strength, ...) that somebody with the trigger would choose among the accurate ones. Best: "
    "the highest score of all settings, which somebody with the test images could choose. Acceptable: the runs in which the "
    "method's own choice is within the tolerance of the suspect's accuracy. Worst: the highest attack success of a seed. "
    "Re-learned excess: attack success after fine-tuning with (m) poisoned images, minus the clean twin's, of each run's "
    "first seed. Seconds: the median, of training and its compilation, of a tuned method all its trainings. "
    "Per attack: clean accuracy / attack success (highest of a seed)."
)


@dataclasses.dataclass(frozen=True)
class Ranked:
    """The repairs of several runs, and their methods in the order of their scores.

    Args:
        repairs: The rows of methods that can be chosen without the trigger.
        suspects: The rows of the suspects.
        attacks: The attacks.
        sizes: Numbers of bonafide images, the largest first.
        methods: The methods, the best first. One that has not met every attack at every size comes last.
    """

    repairs: Sequence[Row]
    suspects: Sequence[Row]
    attacks: Sequence[str]
    sizes: Sequence[int]
    methods: Sequence[str]

    def of(self, method: str, size: int) -> list[list[Row]]:
        """The rows of a method, one list per attack that it has met."""
        rows = [r for r in self.repairs if (r["method"], r["bonafide"]) == (method, size)]
        groups = grouped(rows, ("attack",))
        return [groups[(attack,)] for attack in self.attacks if (attack,) in groups]


def rank(rows: Sequence[Row]) -> Ranked:
    """Orders the methods by their mean score over attacks and sizes.

    Args:
        rows: What `mcjax.report.run_tables.read_repairs` returns, of several runs.

    Returns:
        The ranking.
    """
    chosen = [
        row for row in rows if row["method"] not in REFERENCES and " at " not in row["method"]
    ]
    sizes = sorted({row["bonafide"] for row in chosen if row["bonafide"]}, reverse=True)
    # A method that uses no images has one row, which counts at every size.
    repairs = [
        {**row, "bonafide": size}
        for row in chosen
        for size in ([row["bonafide"]] if row["bonafide"] else sizes)
    ]
    attacks = list(dict.fromkeys(row["attack"] for row in rows))
    names = dict.fromkeys(row["method"] for row in repairs)
    suspects = [row for row in rows if row["method"] == "suspect"]
    unordered = Ranked(repairs, suspects, attacks, sizes, tuple(names))

    def place(name: str) -> float:
        scores = [over_attacks(unordered.of(name, size), "score") for size in sizes]
        known = [one.value for one in scores if one is not None]
        all_met = all(len(unordered.of(name, size)) == len(attacks) for size in sizes)
        return -float(np.mean(known)) if all_met else np.inf

    return dataclasses.replace(unordered, methods=sorted(names, key=place))


def over_attacks(by_attack: Sequence[Sequence[Row]], column: str) -> Mean | None:
    """The mean over attacks of the means over their seeds, with its interval over seeds.

    Args:
        by_attack: The rows of each attack.
        column: The column; rows without it are left out.

    Returns:
        The mean; without an interval where the attacks have different seeds. None: an attack has no value.

    Example:
        >>> square = [{"seed": 0, "score": 0.5}, {"seed": 1, "score": 0.75}]
        >>> warp = [{"seed": 0, "score": 1.0}, {"seed": 1, "score": 0.75}]
        >>> print(over_attacks([square, warp], "score"), "/", over_attacks([square, warp[:1]], "score"))
        0.750 and 0.750 / 0.812
    """
    having = [[row for row in rows if column in row] for rows in by_attack]
    if not having or not all(having):
        return None
    seeds = [{row["seed"] for row in rows} for rows in having]
    if any(other != seeds[0] for other in seeds):
        value = float(np.mean([np.mean([row[column] for row in rows]) for rows in having]))
        return Mean(value, float("nan"), 1, 1)
    per_seed = [
        {
            "seed": seed,
            column: float(
                np.mean(
                    [np.mean([r[column] for r in rows if r["seed"] == seed]) for rows in having]
                )
            ),
        }
        for seed in dict.fromkeys(row["seed"] for row in having[0])
    ]
    return mean(per_seed, column)


def ranking(rows: Sequence[Row]) -> str:
    """The tables: scores at every size, then per size the means over the attacks and the rates of each.

    Args:
        rows: As for `rank`.

    Returns:
        Markdown.

    Example:
        >>> row = {"attack": "square", "bonafide": 100, "seed": 0, "clean_accuracy": 0.88}
        >>> row |= {"attack_success_rate": 0.01, "accuracy_lost": 0.02}
        >>> print(ranking([{**row, "method": "path", "score": 0.97}]).splitlines()[2])
        | path | 0.970 |
    """
    ranked = rank(rows)

    def score(name: str, size: int) -> str:
        met = ranked.of(name, size)
        return str(over_attacks(met, "score")) if len(met) == len(ranked.attacks) else ""

    first = [[name, *(score(name, size) for size in ranked.sizes)] for name in ranked.methods]
    tables = [_named(["method", *map(str, ranked.sizes)], first)]
    for size in ranked.sizes:
        tables += [_means(ranked, size), _rates(ranked, size)]
    return "\n\n".join(tables)


def _means(ranked: Ranked, size: int) -> str:
    """One row per method: means over its attacks, the worst, the re-learning test, seconds."""
    rows = [row for row in ranked.repairs if row["bonafide"] == size]
    tested = sorted({name for row in rows for name in row if name.startswith(EXCESS)}, key=_m)
    head = [*COLUMNS.values(), "worst", "acceptable"]
    head += [f"re-learned excess ({_m(name)})" for name in tested] + ["seconds"]
    lines = []
    for name in ranked.methods:
        by_attack = ranked.of(name, size)
        if len(by_attack) < len(ranked.attacks):  # a mean over fewer attacks does not compare
            by_attack = []
        every = [row for rows in by_attack for row in rows]
        worst = f"{max(row['attack_success_rate'] for row in every):.3f}" if every else ""
        judged = [row["acceptable"] for row in every if "acceptable" in row]
        seconds = [row["seconds"] for row in every if "seconds" in row]
        lines.append(
            [
                name,
                *(_shown(over_attacks(by_attack, column)) for column in COLUMNS),
                worst,
                f"{sum(judged)} of {len(judged)}" if judged else "",
                *(_shown(over_attacks(by_attack, column)) for column in tested),
                f"{np.median(seconds):.0f}" if seconds else "",
            ]
        )
    return _named([f"{size} images", *head], lines)


EXCESS = "excess_"
"""How the columns of the re-learning test begin; the number of poisoned images follows."""


def _m(column: str) -> int:
    return int(column.removeprefix(EXCESS))


def _shown(found: Mean | None) -> str:
    return "" if found is None else str(found)


def _rates(ranked: Ranked, size: int) -> str:
    """One row per method: the rates under each attack."""
    suspects = grouped(ranked.suspects, ("attack",))
    lines = [["suspect", *(_pair(suspects.get((attack,), [])) for attack in ranked.attacks)]]
    for name in ranked.methods:
        met = {rows[0]["attack"]: rows for rows in ranked.of(name, size)}
        lines.append([name, *(_pair(met.get(attack, [])) for attack in ranked.attacks)])
    return _named([f"{size} images", *ranked.attacks], lines)


def _pair(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    clean, success = (
        np.mean([row[column] for row in rows])
        for column in ("clean_accuracy", "attack_success_rate")
    )
    worst = max(row["attack_success_rate"] for row in rows)
    return f"{clean:.3f} / {success:.3f}" + (f" ({worst:.3f})" if len(rows) > 1 else "")


def _named(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table whose rows begin with a method's name."""
    return markdown_table(head, [[line[0].replace("_", " "), *line[1:]] for line in lines])
