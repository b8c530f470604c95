"""What inverted triggers say of the suspect, and of its clean references as a control."""

from collections.abc import Sequence

from mcjax.experiments.repair_study.study import Study
from mcjax.repair.evidence.verdict import findings
from mcjax.report.means import Row


def alarms(study: Study, size: int) -> list[Row]:
    """The rows of evidence.csv: one per network and form of triggers.

    Of each network the form with the largest anomaly over its threshold comes first.

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
            "attacked_class": "" if study.tampered.target is None else study.tampered.target,
            "anomaly": one.anomaly,
            "threshold": one.threshold,
            "success": one.success,
            "evident": int(one.evident),
        }
        for name, inverted in networks.items()
        for one in findings(inverted)
    ]


def sentences(rows: Sequence[Row]) -> list[str]:
    """For how many networks inverted triggers speak for a backdoor, and of which class.

    Example:
        >>> row = {"network": "suspect", "bonafide": 50, "seed": 0, "class": 1, "attacked_class": 1}
        >>> sentences([{**row, "form": "patch", "evident": 1}, {**row, "form": "warp", "evident": 0}])
        ['With 50 bonafide images, inverted triggers speak for a backdoor in 1 of 1 suspects (class 1).']
    """
    lines = []
    for size in dict.fromkeys(row["bonafide"] for row in rows):
        counts = [
            _count(name, [row for row in rows if (row["bonafide"], row["network"]) == (size, name)])
            for name in dict.fromkeys(row["network"] for row in rows)
        ]
        lines.append(
            f"With {size} bonafide images, inverted triggers speak for a backdoor in {' and '.join(counts)}."
        )
    return lines


def _count(name: str, rows: Sequence[Row]) -> str:
    # The first row of a seed and fold is of the form that says most.
    firsts = {(row["seed"], row.get("fold")): row for row in reversed(rows)}.values()
    found = sorted({row["class"] for row in firsts if row["evident"]})
    attacked = {row["attacked_class"] for row in firsts}
    named = f" (class {', '.join(map(str, found))}" if found else ""
    if found and name == "suspect" and attacked not in ({""}, set(found)):
        named += f"; the attacker's is {', '.join(map(str, sorted(attacked)))}"
    named += ")" if found else ""
    what = f"folds with the {name}" if "fold" in rows[0] else f"{name}s"
    return f"{sum(row['evident'] for row in firsts)} of {len(firsts)} {what}{named}"
