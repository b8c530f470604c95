"""The figures of a repair: error and success rate along the path, the table, the explanations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mcjax.report.panels import BLUE, COLOURS, GREY, MARKS, ORANGE, Line, Panel, words
from mcjax.runs.workdir import read_csv


def path_panels(
    repairs: Mapping[str, Any], measure: str, num_images: Mapping[str, int]
) -> list[Panel]:
    """Clean error and success rate against t, the chosen t marked.

    Args:
        repairs: Rows of the path by the panel's title (a bonafide size, or an attack), with
            `.path`, `.t` and `.choice`.
        measure: The column of the success rate.
        num_images: Images of "test" and "success" that the rates are of.
    """
    panels = []
    for title, repair in repairs.items():
        table = repair.path
        chosen = repair.choice is not None and repair.choice.index is not None
        lines = (
            Line(
                f"error on {num_images['test']} test images", _error(table["test_accuracy"]), BLUE
            ),
            Line(
                "error on the bonafide images", _error(table["train_accuracy"]), BLUE, dotted=True
            ),
            Line(_rate(measure, num_images), 100 * table[measure], ORANGE),
        )
        panels.append(
            Panel(
                table["t"],
                lines,
                "t",
                "% of images",
                title=title,
                ylim=(-2, 102),
                xlim=(-0.02, 1.02),
                chosen=repair.t if chosen else None,
            )
        )
    return panels


def _error(accuracy: np.ndarray) -> np.ndarray:
    return 100 * (1 - accuracy)


def _rate(measure: str, num_images: Mapping[str, int]) -> str:
    return f"{words(measure)}, {num_images['success']} images"


def table_panels(
    summary: Sequence[Mapping[str, Any]], measure: str, num_images: Mapping[str, int] | None
) -> list[Panel]:
    """Clean accuracy and success rate of every trained method against the bonafide size.

    Args:
        summary: summary.csv's rows.
        measure: The column of the success rate.
        num_images: Images of "test" and "success" that the rates are of; None where runs differ.
    """
    names = dict.fromkeys(
        line["method"] for line in summary if line["bonafide"] and " at " not in line["method"]
    )
    sizes = sorted({line["bonafide"] for line in summary if line["bonafide"]})
    found = {(line["method"], line["bonafide"]): line for line in summary}
    suspect = next((line for line in summary if line["method"] == "suspect"), None)

    def column(name: str, quantity: str) -> np.ndarray:
        return np.array([found.get((name, size), {}).get(quantity, np.nan) for size in sizes])

    panels = []
    for quantity, images in (("clean_accuracy", "test"), (measure, "success")):
        lines = [
            Line(
                words(name),
                100 * column(name, quantity),
                COLOURS[i % len(COLOURS)],
                mark=MARKS[i % len(MARKS)],
                half=100 * column(name, f"{quantity}_interval"),
            )
            for i, name in enumerate(names)
        ]
        if suspect is not None:
            lines.append(
                Line(
                    "suspect",
                    np.full(len(sizes), 100 * suspect[quantity]),
                    GREY,
                    dotted=True,
                    level=True,
                )
            )
        of = "" if num_images is None else f" of {num_images[images]}"
        ylabel = f"{words(quantity)} (%{of})"
        panels.append(Panel(np.array(sizes), lines, "bonafide images", ylabel, log_x=True))
    return panels


def explanations(folder: Path, measure: str) -> dict[str, list[Panel]]:
    """The figures of gradients.csv and noise.csv, where they are, by name.

    Args:
        folder: The run's figures/.
        measure: The column of the success rate.
    """
    found = {}
    if (folder / "gradients.csv").exists():
        table = _read(folder / "gradients.csv")
        line = Line("clean and stamped images", table["cosine"], BLUE)
        found["gradients"] = [Panel(table["t"], [line], "t", "cosine of input gradients")]
    if (folder / "noise.csv").exists():
        table = _read(folder / "noise.csv")
        lines = [
            Line("clean accuracy", 100 * table["test_accuracy"], BLUE, mark="o"),
            Line(words(measure), 100 * table[measure], ORANGE, mark="s"),
        ]
        xlabel = "noise (root mean squares of each tensor)"
        found["noise"] = [Panel(table["strength"], lines, xlabel, "% of images", ylim=(-2, 102))]
    return found


def _read(path: Path) -> dict[str, np.ndarray]:
    return {name: np.array(values) for name, values in read_csv(path).items()}
