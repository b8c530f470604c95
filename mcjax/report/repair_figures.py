"""The figures of a repair: rates along the path, rates against the bonafide size, explanations."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mcjax.report.panels import (
    BLUE,
    COLOURS,
    GREY,
    MARKS,
    ORANGE,
    PERCENT_LIMITS,
    T_LIMITS,
    Line,
    Panel,
    percent_band,
    percent_wrong,
    words,
)
from mcjax.runs.workdir import read_csv


def path_panels(
    repairs: Mapping[str, Any], measure: str, num_images: Mapping[str, int]
) -> list[Panel]:
    """Clean error and success rate against t, with the chosen t marked.

    Args:
        repairs: Repairs with `.path`, `.t` and `.choice`, by the panel's title (a bonafide size, or
            an attack).
        measure: The column of the success rate.
        num_images: Number of "test" and "success" images of the rates.
    """
    panels = []
    for title, repair in repairs.items():
        table = repair.path
        chosen = repair.choice is not None and repair.choice.index is not None
        lines = [
            Line(
                f"error on {num_images['test']} test images",
                percent_wrong(table["test_accuracy"]),
                BLUE,
                band=percent_band(1 - table["test_accuracy"], num_images["test"]),
            ),
            Line(
                "error on the bonafide images",
                percent_wrong(table["train_accuracy"]),
                BLUE,
                dotted=True,
            ),
            Line(
                _rate(measure, num_images),
                100 * table[measure],
                ORANGE,
                band=percent_band(table[measure], num_images["success"]),
            ),
        ]
        estimate = 100 * table.get("estimated_attack_success", np.zeros(1))
        if estimate.any():  # without evidence it is 0 everywhere
            lines.append(Line("estimated attack success", estimate, ORANGE, dotted=True))
        panels.append(
            Panel(
                table["t"],
                lines,
                "t",
                "% of images",
                title=title,
                ylim=PERCENT_LIMITS,
                xlim=T_LIMITS,
                chosen=repair.t if chosen else None,
            )
        )
    return panels


def _rate(measure: str, num_images: Mapping[str, int]) -> str:
    return f"{words(measure)}, {num_images['success']} images"


def table_panels(
    summary: Sequence[Mapping[str, Any]], measure: str, num_images: Mapping[str, int] | None
) -> list[Panel]:
    """Clean accuracy and success rate of every trained method against the bonafide size.

    With one size, the methods stand side by side.

    Args:
        summary: The rows of summary.csv.
        measure: The column of the success rate.
        num_images: Number of "test" and "success" images of the rates; None if runs differ.
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
    for quantity, images, colour in (
        ("clean_accuracy", "test", BLUE),
        (measure, "success", ORANGE),
    ):
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
        x = np.array(sizes)
        if len(sizes) == 1:
            values, halves = (
                np.concatenate([getattr(line, part) for line in lines]) for part in ("y", "half")
            )
            lines = [Line(words(quantity), values, colour, mark="o", half=halves)]
            x = np.arange(len(values))
        if suspect is not None:
            lines.append(
                Line(
                    "suspect",
                    np.full(len(x), 100 * suspect[quantity]),
                    GREY,
                    dotted=True,
                    level=True,
                )
            )
        of = "" if num_images is None else f" of {num_images[images]}"
        ylabel = f"{words(quantity)} (%{of})"
        if len(sizes) == 1:
            shown = [words(name) for name in names]
            xlabel = f"{sizes[0]} bonafide images"
            panels.append(Panel(x, lines, xlabel, ylabel, names=shown))
        else:
            panels.append(Panel(x, lines, "bonafide images", ylabel, log_x=True))
    return panels


def explanations(folder: Path, measure: str) -> dict[str, list[Panel]]:
    """The figures of gradients.csv, noise.csv and relearning*.csv by name, for those that exist.

    Args:
        folder: The run's figures/ folder.
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
        found["noise"] = [
            Panel(table["strength"], lines, xlabel, "% of images", ylim=PERCENT_LIMITS)
        ]
    if (folder / "relearning.csv").exists():
        found["relearning"] = relearning_panels(_read(folder / "relearning.csv"), measure)
        found["relearning_methods"] = [
            methods_panel(_lines(folder / "relearning_methods.csv"), measure)
        ]
    return found


def relearning_panels(table: Mapping[str, np.ndarray], measure: str) -> list[Panel]:
    """Success before and after re-learning against t, a panel per number of poisoned images.

    Args:
        table: The columns of relearning.csv.
        measure: The column of the success rate.
    """
    panels = []
    for m in dict.fromkeys(table["m"]):
        here = {name: values[table["m"] == m] for name, values in table.items()}
        lines = [
            Line(f"{words(measure)} before", 100 * here[f"{measure}_before"], ORANGE, dotted=True),
            Line("after", 100 * here[f"{measure}_after"], ORANGE, mark="o"),
            Line("clean twin after", 100 * here["twin_after"], GREY, dotted=True, level=True),
            Line("clean accuracy after", 100 * here["clean_accuracy_after"], BLUE),
        ]
        title = f"{m:g} poisoned image{'s' if m > 1 else ''}"
        panels.append(Panel(here["t"], lines, "t", "% of images", title, PERCENT_LIMITS, T_LIMITS))
    return panels


def methods_panel(table: Sequence[Mapping[str, str]], measure: str) -> Panel:
    """Success after re-learning of each method's network against the number of poisoned images.

    Args:
        table: The rows of relearning_methods.csv, as text.
        measure: The column of the success rate.
    """
    numbers = sorted({int(row["m"]) for row in table})
    found = {(row["method"], int(row["m"])): float(row[f"{measure}_after"]) for row in table}
    lines = [
        Line(
            words(name),
            np.array([100 * found[name, m] for m in numbers]),
            COLOURS[i % len(COLOURS)],
            mark=MARKS[i % len(MARKS)],
        )
        for i, name in enumerate(dict.fromkeys(row["method"] for row in table))
    ]
    ylabel = f"{words(measure)} after (%)"
    return Panel(
        np.array(numbers), lines, "poisoned images", ylabel, ylim=PERCENT_LIMITS, log_x=True
    )


def _read(path: Path) -> dict[str, np.ndarray]:
    return {name: np.array(values) for name, values in read_csv(path).items()}


def _lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
