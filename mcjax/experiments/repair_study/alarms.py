"""What inverted triggers say of the suspect, and of its clean references as a control."""

from collections.abc import Sequence

from mcjax.experiments.repair_study.study import Study
from mcjax.repair.evidence.judge import findings
from mcjax.report.means import Row


def alarms(study: Study, size: int) -> list[Row]:
    """The rows of evidence.csv: one per network and form of triggers, the most anomalous first.

    Args:
        study: The study, whose config chooses t by evidence.
        size: Number of bonafide images that the triggers are inverted with.
    """
    networks = {"suspect": study.evidence(size), **study.evidence_of_references(size)}
    return [
        {
            "network": name,
            "bonafide": size,
            "seed": study.run.config.seed,
            **({} if study.fold is None else {"fold": study.fold}),
            "form": one.form,
            "class": one.target,
            "anomaly": one.anomaly,
            "threshold": one.threshold,
            "success": one.success,
            "evident": int(one.evident),
        }
        for name, inverted in networks.items()
        for one in findings(inverted)
    ]


def sentences(rows: Sequence[Row]) -> list[str]:
    """In how many networks a trigger is evidence of a backdoor, and of which class.

    Example:
        >>> row = {"network": "suspect", "bonafide": 50, "seed": 0, "form": "patch", "class": 1}
        >>> sentences([{**row, "evident": 1}, {**row, "form": "warp", "evident": 0}])
        ['Triggers inverted with 50 bonafide images are evidence of a backdoor in 1 of 1 suspects (class 1).']
    """
    lines = []
    for size in dict.fromkeys(row["bonafide"] for row in rows):
        counts = [
            _count(name, [row for row in rows if (row["bonafide"], row["network"]) == (size, name)])
            for name in dict.fromkeys(row["network"] for row in rows)
        ]
        lines.append(
            f"Triggers inverted with {size} bonafide images are evidence of a backdoor in "
            f"{' and '.join(counts)}."
        )
    return lines


def _count(name: str, rows: Sequence[Row]) -> str:
    # The first row of a seed and fold is of the form that says most.
    firsts = {(row["seed"], row.get("fold")): row for row in reversed(rows)}
    classes = sorted({row["class"] for row in firsts.values() if row["evident"]})
    named = f" (class {', '.join(map(str, classes))})" if classes else ""
    return f"{sum(row['evident'] for row in firsts.values())} of {len(firsts)} {name}s{named}"
