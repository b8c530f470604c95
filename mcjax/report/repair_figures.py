"""The figures of a repair: error and success rate along the path, the table, the explanations."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mcjax.report.figures import BLUE, ORANGE, figure

# Okabe and Ito 2008, and marks, so that no method is told by colour alone.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#777777")
MARKS = "osD^v<>P"


def paths_figure(path: Path, repairs: Mapping[int, Any], measure: str) -> None:
    """Clean error and success rate against t, a panel a bonafide size, the chosen t marked.

    Args:
        path: The PNG to write.
        repairs: Rows of the path by bonafide size, with `.path`, `.t` and `.choice`.
        measure: The column of the success rate.
    """
    columns = min(3, len(repairs))
    lines = math.ceil(len(repairs) / columns)
    with figure(path, (3.4 * columns, 0.5 + 2.7 * lines)) as fig:
        panels = fig.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for axes, (size, repair) in zip(panels, repairs.items(), strict=False):
            table = repair.path
            ts = table["t"]
            axes.plot(ts, 100 * (1 - table["test_accuracy"]), color=BLUE, label="test error")
            axes.plot(
                ts, 100 * (1 - table["train_accuracy"]), ":", color=BLUE, label="bonafide error"
            )
            axes.plot(ts, 100 * table[measure], color=ORANGE, label=measure.replace("_", " "))
            if repair.choice is not None and repair.choice.index is not None:
                axes.axvline(repair.t, color="black", lw=1, ls="--", label="chosen t")
            axes.set(title=f"{size} bonafide images", xlabel="t", ylabel="%")
            axes.set(xlim=(-0.02, 1.02), ylim=(-2, 102))
            axes.label_outer()
        for axes in panels[len(repairs) :]:
            axes.axis("off")
        handles, labels = panels[0].get_legend_handles_labels()
        ncols = 2 if columns == 1 else 4
        fig.legend(handles, labels, loc="outside lower center", ncols=ncols, fontsize=8)


def table_figure(path: Path, summary: Sequence[Mapping[str, Any]], measure: str) -> None:
    """Clean accuracy and success rate of every trained method against the bonafide size.

    Args:
        path: The PNG to write.
        summary: summary.csv's rows.
        measure: The column of the success rate.
    """
    names = dict.fromkeys(
        line["method"] for line in summary if line["bonafide"] and " at " not in line["method"]
    )
    with figure(path, (8, 3.6)) as fig:
        panels = fig.subplots(1, 2)
        for axes, column in zip(panels, ("clean_accuracy", measure), strict=True):
            for i, name in enumerate(names):
                lines = [s for s in summary if s["method"] == name and s["bonafide"]]
                half = np.nan_to_num([100 * s[f"{column}_interval"] for s in lines])
                axes.errorbar(
                    [s["bonafide"] for s in lines],
                    [100 * s[column] for s in lines],
                    half,
                    color=COLOURS[i % len(COLOURS)],
                    marker=MARKS[i % len(MARKS)],
                    ms=4,
                    capsize=2,
                    label=name.replace("_", " "),
                )
            suspect = next(s for s in summary if s["method"] == "suspect")
            axes.axhline(100 * suspect[column], color="grey", lw=1, ls=":", label="suspect")
            axes.set(xscale="log", xlabel="bonafide images", ylabel=f"{_words(column)} (%)")
            sizes = sorted({s["bonafide"] for s in summary if s["bonafide"]})
            axes.set_xticks(sizes, [str(size) for size in sizes], minor=False)
            axes.minorticks_off()
        handles, labels = panels[0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8)


def explanations(folder: Path, measure: str) -> None:
    """gradients.png and noise.png, from the tables of the same names, where they are.

    Args:
        folder: The run's figures/.
        measure: The column of the success rate.
    """
    if (folder / "gradients.csv").exists():
        table = _read(folder / "gradients.csv")
        with figure(folder / "gradients.png", (4.2, 3)) as fig:
            axes = fig.subplots()
            axes.plot(table["t"], table["cosine"], color=BLUE)
            axes.set(xlabel="t", ylabel="cosine of input gradients")
    if (folder / "noise.csv").exists():
        table = _read(folder / "noise.csv")
        with figure(folder / "noise.png", (4.2, 3)) as fig:
            axes = fig.subplots()
            axes.plot(table["strength"], 100 * table["test_accuracy"], color=BLUE, marker="o")
            axes.plot(table["strength"], 100 * table[measure], color=ORANGE, marker="s")
            axes.legend(["clean accuracy", _words(measure)])
            axes.set(xlabel="strength of the noise", ylabel="%", ylim=(-2, 102))


def _words(column: str) -> str:
    return column.replace("_", " ")


def _read(path: Path) -> dict[str, np.ndarray]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
