"""How right inverted triggers were over several runs whose attack is known, as Markdown tables."""

from collections.abc import Sequence

import numpy as np

from mcjax.evaluation.correlation import rank_correlation
from mcjax.report.markdown_table import markdown_table
from mcjax.report.means import Row, grouped

VERDICT_LEGEND = (
    "Verdict: how many suspects and clean networks have evidence of a backdoor, and for how many suspects it is of the "
    "attacker's class. Margin: the anomaly divided by its threshold. From 1 on it is evidence. Shown are the least margin "
    "of a suspect and the largest of a clean network."
)

ESTIMATE_LEGEND = (
    "Estimate, along each path with evidence. Spearman: the rank correlation of estimated and true attack success; a path "
    "where one is constant has none. Estimate less truth: the mean over t. Both are means over the paths, with the least "
    "and the largest."
)


def verdicts(rows: Sequence[Row]) -> str:
    """How many suspects and clean networks gave an alarm, per number of bonafide images.

    Args:
        rows: One per network: "bonafide", "network", "same" (equal for rows that are of one network and
            one search), "evident" (a bool), "right" (whether the class is the attacker's; None if he has
            several), and "margin" (anomaly over threshold).

    Returns:
        Markdown.

    Example:
        >>> row = {"bonafide": 100, "network": "suspect", "same": 1, "evident": True, "right": True}
        >>> print(verdicts([{**row, "margin": 2.0}]).splitlines()[2])
        | 100 | 1 of 1 | 1 | 2.00 |  |  |
    """
    different = {(row["bonafide"], row["network"], row["same"]): row for row in rows}.values()
    lines = []
    for (size,), group in sorted(grouped(list(different), ("bonafide",)).items(), reverse=True):
        suspects = [row for row in group if row["network"] == "suspect"]
        clean = [row for row in group if row["network"] != "suspect"]
        right = [row["right"] for row in suspects if row["right"] is not None]
        lines.append(
            [
                str(size),
                _alarms(suspects),
                str(sum(right)) if right else "",
                f"{min(row['margin'] for row in suspects):.2f}" if suspects else "",
                _alarms(clean),
                f"{max(row['margin'] for row in clean):.2f}" if clean else "",
            ]
        )
    head = ["images", "suspects with evidence", "of the attacker's class", "least margin"]
    return markdown_table([*head, "clean networks with evidence", "largest margin"], lines)


def _alarms(rows: Sequence[Row]) -> str:
    return f"{sum(row['evident'] for row in rows)} of {len(rows)}" if rows else ""


def along(truth: np.typing.ArrayLike, estimated: np.typing.ArrayLike) -> dict[str, float]:
    """How well the estimate ranks the points of one path, and how far it is off.

    Args:
        truth: True attack success at each t, [T].
        estimated: Estimated attack success, [T].

    Returns:
        "spearman" (nan if one of them is constant) and "bias", the mean of estimate less truth.

    Example:
        >>> along([1.0, 0.5, 0.0], [0.75, 0.5, 0.25])
        {'spearman': 1.0, 'bias': 0.0}
    """
    truth, estimated = np.asarray(truth, np.float64), np.asarray(estimated, np.float64)
    rho = rank_correlation(truth, estimated)
    return {"spearman": rho, "bias": float(np.mean(estimated - truth))}


def estimates(rows: Sequence[Row]) -> str:
    """How right the estimate was along the paths of each method, per number of bonafide images.

    Args:
        rows: One per path: "method", "bonafide", "spearman" and "bias", of `along`.

    Returns:
        Markdown.

    Example:
        >>> row = {"method": "path", "bonafide": 100, "spearman": 0.5, "bias": 0.25}
        >>> print(estimates([row, {**row, "spearman": 1.0}]).splitlines()[2])
        | path, 100 images | 2 | 0.75 (0.50 to 1.00) | +0.25 (+0.25 to +0.25) |
    """
    lines = [
        [
            method.replace("_", " ") + (f", {size} images" if size else ""),
            str(len(group)),
            _range([row["spearman"] for row in group], ""),
            _range([row["bias"] for row in group], "+"),
        ]
        for (method, size), group in grouped(rows, ("method", "bonafide")).items()
    ]
    return markdown_table(["path", "paths", "Spearman", "estimate less truth"], lines)


def _range(values: Sequence[float], sign: str) -> str:
    known = [value for value in values if np.isfinite(value)]
    if not known:
        return ""
    mean, low, high = (f"{value:{sign}.2f}" for value in (np.mean(known), min(known), max(known)))
    return f"{mean} ({low} to {high})"
