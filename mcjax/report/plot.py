"""Matplotlib figures for a notebook: what was measured along a path, and images."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mcjax.core.errors import UserError, shown
from mcjax.repair.repaired import Repaired
from mcjax.report.evidence_page import trigger_rows
from mcjax.report.figures import drawn
from mcjax.report.image_grid import drawn_image_grid
from mcjax.report.panels import COLOURS, Line, Panel, words
from mcjax.report.repaired_page import path_panels


def plot(report: Any, ts: Any = None) -> Figure:
    """Draws a result of `evaluate_path` or `repair_model` against t.

    Args:
        report: {metric: [T]} as `evaluate_path` returns it, or {name: {metric: [T]}} to compare
            several paths, or what `repair_model` returns.
        ts: The points, [T]; not for `repair_model`, whose result has them.

    Returns:
        A figure, a panel per metric; a notebook shows it, `figure.savefig("path.png")` writes it.

    Raises:
        UserError: ts is missing or has another length than the values, or there is nothing to draw.

    Example:
        >>> figure = plot({"line": {"accuracy": [0.9, 0.5, 0.9]}}, ts=[0, 0.5, 1])
        >>> len(figure.axes), figure.axes[0].get_ylabel()
        (1, 'accuracy')
    """
    if isinstance(report, Repaired):
        return drawn(path_panels(report))
    if not isinstance(report, Mapping) or not report:
        raise UserError(
            f"report is {shown(report)}; give what evaluate_path or repair_model returns"
        )
    tables = report if all(isinstance(v, Mapping) for v in report.values()) else {"": report}
    if ts is None:
        raise UserError("ts is missing; give the points that were evaluated")
    x = np.asarray(ts, float)
    panels = []
    for metric in dict.fromkeys(name for table in tables.values() for name in table):
        lines = []
        for i, (name, table) in enumerate(tables.items()):
            if metric not in table:
                continue
            y = np.asarray(table[metric], float)
            if y.shape != x.shape:
                raise UserError(
                    f"{metric} has shape {y.shape}, but ts {x.shape}; give the ts of this report"
                )
            lines.append(Line(words(name), y, COLOURS[i % len(COLOURS)]))
        panels.append(Panel(x, lines, "t", words(metric)))
    return drawn(panels)


def plot_images(rows: Any) -> Figure:
    """Draws images in rows, or the inverted triggers of `repair_model`.

    Args:
        rows: {label of the row: images [n, H, W, C], uint8 or in [0, 1]}, or what `repair_model`
            or `find_evidence` returns: clean images, and for each form that is evidence of a backdoor the images with
            its trigger and the difference.

    Returns:
        A figure; a notebook shows it, `figure.savefig("images.png")` writes it.

    Raises:
        UserError: There are no images, rows have different numbers of images, or one is not
            [n, H, W, C].

    Example:
        >>> figure = plot_images({"black": np.zeros([3, 8, 8, 1]), "white": np.ones([3, 8, 8, 1])})
        >>> len(figure.axes)
        6
    """
    report = rows.report if isinstance(rows, Repaired) else rows
    if isinstance(report, Mapping) and {"findings", "pictures"} <= report.keys():
        return drawn_image_grid(trigger_rows(report))
    if not isinstance(rows, Mapping) or not rows:
        raise UserError(
            f"rows is {shown(rows)}; give {{label: images}}, or what repair_model returns"
        )
    images = {str(name): np.asarray(row) for name, row in rows.items()}
    shapes = {name: row.shape for name, row in images.items()}
    numbers = {shape[0] if len(shape) == 4 else 0 for shape in shapes.values()}
    if 0 in numbers or len(numbers) > 1:
        raise UserError(f"rows have shapes {shapes}; give the same number of images [n, H, W, C]")
    return drawn_image_grid(images)
