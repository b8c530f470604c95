"""The output of `python -m mcjax.path`: path.csv, a figure, a page, result.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mcjax.report import page
from mcjax.report.chart import chart
from mcjax.report.figures import chart_figure
from mcjax.report.panels import (
    BAND,
    BLUE,
    ORANGE,
    T_LIMITS,
    Chart,
    Line,
    Panel,
    percent_band,
)
from mcjax.runs.output_folder import finish
from mcjax.runs.workdir import write_csv

Table = Mapping[str, np.ndarray]
"""{column: values [T]} of one path."""

QUESTION = "How do two networks differ, and what lies between them?"

NAMES = {"line": "straight line", "curve": "trained curve"}

PANELS = (
    ("accuracy", "accuracy (%)", 100.0),
    ("loss", "cross-entropy (nats)", 1.0),
    ("robust_accuracy", "robust accuracy (%)", 100.0),
    ("eigenvalue", "largest input-Hessian eigenvalue", 1.0),
)

COLUMNS = {
    "path": "line: the straight line; curve: the trained curve",
    "t": "position on the path: 0 at the first network, 1 at the second",
    "accuracy, loss": "on the images held out; the loss is the mean cross-entropy in nats",
    "train_accuracy, train_loss": "on the images that the curve was trained on",
    "robust_accuracy, robust_loss": "on held-out images attacked against the network at this t",
    "zero_gradient": "attacked images that are correct and whose gradient is exactly zero before the attack, a fraction: gradient attacks fail on them for a wrong reason",
    "eigenvalue": "largest eigenvalue of the loss's Hessian at a held-out image, mean over images",
    "eigenvalue_residual": "relative residual of the eigenpairs, mean",
}


def write_look(
    folder: Path,
    ts: np.ndarray,
    tables: Mapping[str, Table],
    numbers: Mapping[str, Any],
    settings: Mapping[str, Any],
    question: Mapping[str, Any] | None = None,
) -> list[str]:
    """Writes path.csv, path.png, report.html and, last, result.json.

    Args:
        folder: The output folder.
        ts: Points, [T].
        tables: Columns by path: "line", and "curve" if one was trained.
        numbers: Numbers of images, and other facts.
        settings: The command's settings by name.
        question: See `mcjax.runs.output_folder.finish`.

    Returns:
        What was found, in sentences.
    """
    columns = ["path", "t", *tables["line"]]
    rows = [
        {"path": name, "t": float(t), **{k: float(v[i]) for k, v in table.items()}}
        for name, table in tables.items()
        for i, t in enumerate(ts)
    ]
    write_csv(folder / "path.csv", columns, rows)
    figure = Chart("path", path_panels(ts, tables, numbers), caption(tables), columns=2)
    chart_figure(folder, figure)
    metrics = {**summary(ts, tables), **numbers}
    sentences = what_was_found(metrics, tables)
    page.write_document(
        folder / "report.html",
        "look.html",
        title="Between two networks",
        question=QUESTION,
        answer=sentences,
        path=chart(figure),
        numbers=page.numbers(metrics),
        definitions=page.definitions(COLUMNS.items()),
        settings=page.table(
            ("setting", "value"), settings.items(), caption="Settings of the command"
        ),
    )
    result = {"status": "complete", "settings": dict(settings), "metrics": metrics}
    finish(folder, result, question)
    return sentences


def path_panels(
    ts: np.ndarray, tables: Mapping[str, Table], numbers: Mapping[str, Any]
) -> list[Panel]:
    """Each quantity against t, one line per path; training images dotted.

    Args:
        ts: Points, [T].
        tables: Columns by path.
        numbers: Numbers of images.
    """
    counts = {"robust_accuracy": "num_attacked", "eigenvalue": "num_hessian"}
    colours = {"line": ORANGE, "curve": BLUE}
    panels = []
    for metric, ylabel, scale in PANELS:
        if metric not in tables["line"]:
            continue
        number = numbers[counts.get(metric, "num_held_out")]
        lines = []
        for name, table in tables.items():
            band = percent_band(table[metric], number) if metric.endswith("accuracy") else None
            y = scale * table[metric]
            lines.append(Line(NAMES[name], y, colours[name], ends=True, band=band))
            if f"train_{metric}" in table:
                label = f"{NAMES[name]}, on {numbers['num_train']} images trained on"
                y = scale * table[f"train_{metric}"]
                lines.append(Line(label, y, colours[name], dotted=True))
        title = f"{number} images held out"
        panels.append(Panel(ts, lines, "t", ylabel, title, ylim=(0, None), xlim=T_LIMITS))
    return panels


def caption(tables: Mapping[str, Table]) -> str:
    """What the figure shows."""
    paths = " and ".join(f"the {NAMES[name]}" for name in tables)
    return (
        f"Networks along {paths} between the two (dots). Dotted: on the images trained on. {BAND}"
    )


def summary(ts: np.ndarray, tables: Mapping[str, Table]) -> dict[str, float]:
    """The ends, and the worst point of each path.

    Args:
        ts: Points, [T].
        tables: Columns by path.

    Example:
        >>> line = {"accuracy": np.array([0.9, 0.5, 0.8]), "loss": np.array([1.0, 4.0, 2.0])}
        >>> found = summary(np.array([0.0, 0.5, 1.0]), {"line": line})
        >>> found["line_worst_accuracy"], found["line_worst_t"], found["line_loss_barrier"]
        (0.5, 0.5, 2.0)
    """
    line = tables["line"]
    found: dict[str, float] = {}
    for metric in ("accuracy", "robust_accuracy"):
        if metric in line:
            found |= {
                f"{end}_held_out_{metric}": float(line[metric][i])
                for end, i in (("start", 0), ("end", -1))
            }
    for name, table in tables.items():
        found[f"{name}_worst_accuracy"] = float(table["accuracy"].min())
        found[f"{name}_worst_t"] = float(ts[table["accuracy"].argmin()])
        ends = max(table["loss"][0], table["loss"][-1])
        found[f"{name}_loss_barrier"] = float(table["loss"].max() - ends)
        if "robust_accuracy" in table:
            found[f"{name}_worst_robust_accuracy"] = float(table["robust_accuracy"].min())
        if "eigenvalue" in table:
            found[f"{name}_largest_eigenvalue"] = float(table["eigenvalue"].max())
    return found


def what_was_found(metrics: Mapping[str, Any], tables: Mapping[str, Table]) -> list[str]:
    """The summary in sentences."""
    first, last = metrics["start_held_out_accuracy"], metrics["end_held_out_accuracy"]
    found = [
        f"The networks have accuracy {first:.4f} and {last:.4f} on {metrics['num_held_out']} images "
        "held out."
    ]
    for name in tables:
        found.append(
            f"On the {NAMES[name]} the lowest accuracy is {metrics[f'{name}_worst_accuracy']:.4f}, at "
            f"t = {metrics[f'{name}_worst_t']:.4f}; the loss barrier is "
            f"{metrics[f'{name}_loss_barrier']:.4g} nats."
        )
    if "line_worst_robust_accuracy" in metrics:
        lowest = [
            f"{metrics[f'{name}_worst_robust_accuracy']:.4f} on the {NAMES[name]}"
            for name in tables
        ]
        found.append(
            f"Under attack they have accuracy {metrics['start_held_out_robust_accuracy']:.4f} and "
            f"{metrics['end_held_out_robust_accuracy']:.4f} on {metrics['num_attacked']} images; the "
            f"lowest is {', '.join(lowest)}."
        )
    return found
