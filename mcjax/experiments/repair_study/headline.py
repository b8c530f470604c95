"""The conclusions of a study of repairs, in sentences: the path, the best method, a better t."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mcjax.repair.methods import METHODS
from mcjax.repair.paths import PATHS, shown_path
from mcjax.report.panels import words

Row = Mapping[str, Any]

FAR = 0.1
"""The difference in score from which another t is said to be far better."""


WORKS = 0.5
"""The suspect's success rate from which there is an attack to repair."""


def answer(
    summary: Sequence[Row], measure: str, paths: Mapping[int, Any] | None = None
) -> list[str]:
    """The conclusions: the suspect, and per bonafide size the path's point and the best method.

    The score of a repair is (success removed) - (clean accuracy lost), both against the suspect.

    Args:
        summary: The rows of summary.csv.
        measure: The column of the success rate.
        paths: Repairs by the shown path, by bonafide size, with `.path` and `.t`.

    Returns:
        One sentence or more per line.
    """
    name = words(measure)
    suspect = next(line for line in summary if line["method"] == "suspect")

    def score(line: Row) -> float:
        return suspect[measure] - line[measure] - suspect["clean_accuracy"] + line["clean_accuracy"]

    def rates(line: Row) -> str:
        return f"clean accuracy {line['clean_accuracy']:.3f} and {name} {line[measure]:.3f}"

    lines = [f"The suspect has {rates(suspect)}."]
    if not suspect[measure] >= WORKS:
        lines[0] += " The attack hardly works, so how much of it a repair removes says little."
    methods = [line for line in summary if line["method"] in METHODS and np.isfinite(score(line))]
    main = shown_path(line["method"] for line in summary)
    for line in (one for one in summary if one["method"] in PATHS):
        size = line["bonafide"]
        text = (
            f"With {size} bonafide images the chosen point of the {words(line['method'])} has "
            f"{rates(line)}{_below(line)}."
        )
        if line["method"] == main:
            # A method that uses no images has one row, which counts at every size.
            rivals = [one for one in methods if one["bonafide"] in (size, 0)]
            text += _best(line, rivals, score, rates)
            text += _better_t((paths or {}).get(size), line, measure, score, rates)
        lines.append(text)
    return lines


def _best(path: Row, rivals: Sequence[Row], score: Any, rates: Any) -> str:
    others = [line for line in rivals if line["method"] != path["method"]]
    if not others:
        return ""
    best = max(others, key=score)
    ahead = score(best) - score(path)
    if ahead == 0:
        return (
            f" No other of {len(others) + 1} methods is better by success removed less accuracy lost; "
            f"{words(best['method'])} is as good{_below(best)}."
        )
    if ahead < 0 or not np.isfinite(ahead):
        return (
            f" It is the best of {len(others) + 1} methods by success removed less accuracy lost; next is "
            f"{words(best['method'])}{_below(best)}."
        )
    return (
        f" The best method by success removed less accuracy lost is {words(best['method'])}, with "
        f"{rates(best)}{_below(best)}."
    )


def _below(line: Row) -> str:
    """In how many rows a method's own choice misses the tolerance, on the selection images."""
    share = line.get("acceptable", "")
    if share in ("", 1):
        return ""
    num = line["num"]
    where = f"{round((1 - share) * num)} of {num} times " if num > 1 else ""
    if METHODS[line["method"]].kind == "path":
        return f"; {where}no point was accurate enough on the selection images, so the suspect was kept"
    return f"; {where}it was less accurate on the selection images than the tolerance allows"


def _better_t(repair: Any, chosen: Row, measure: str, score: Any, rates: Any) -> str:
    """The best t of the path, if it is far better than the chosen one."""
    if repair is None or repair.path is None:
        return ""
    table = repair.path
    points = [
        {"t": t, "clean_accuracy": clean, measure: success}
        for t, clean, success in zip(
            table["t"], table["test_accuracy"], table[measure], strict=True
        )
    ]
    at = chosen if repair.t is None else min(points, key=lambda one: abs(one["t"] - repair.t))
    best = max(points, key=score)
    if not score(best) - score(at) > FAR:
        return ""
    return (
        f" Another point of this path is far better, t = {best['t']:.2f} with {rates(best)}; finding it "
        "takes stamped images."
    )
