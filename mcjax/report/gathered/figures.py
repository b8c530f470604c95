"""The figures of a sweep: what was measured, against what was varied, with intervals over seeds."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from mcjax.report import page
from mcjax.report.chart import chart
from mcjax.report.figures import TEXT, chart_figure, figure, label
from mcjax.report.gathered.groups import Group
from mcjax.report.means import Mean, Row, grouped, mean, summarise
from mcjax.report.panels import BLUE, ORANGE, Chart, Line, Panel
from mcjax.report.repair_figures import table_panels

# Settings; of more than that a figure says less than the table, and takes longer than all else.
MOST_GROUPS = 8
LARGEST = 1e100
TICK = 36  # letters of a name beside an axis

INTERVAL = "Means over seeds, bars their 95 % interval (none for one seed)."


def draw(folder: Path, groups: Sequence[Group]) -> list[Markup]:
    """Writes the figures of one experiment's groups.

    Args:
        folder: Where to.
        groups: The groups; those without a job that is done are in no figure.

    Returns:
        Each figure as HTML; none of more than MOST_GROUPS groups.
    """
    groups = [group for group in groups if group.rows]
    if not 0 < len(groups) <= MOST_GROUPS:
        return []
    if groups[0].measure is not None:
        charts = _repairs(groups, groups[0].measure)
        for one in charts:
            chart_figure(folder, one)
        return [chart(one) for one in charts]
    if any("path" in row for row in groups[0].rows):
        return [_barriers(folder, i, group) for i, group in enumerate(groups)]
    return [_connections(folder, groups)] if len(groups) > 1 else []


def _repairs(groups: Sequence[Group], measure: str) -> list[Chart]:
    """Every method against the bonafide size, a figure a group; and the path, a line a group."""
    charts = []
    name = groups[0].experiment
    for i, group in enumerate(groups):
        summary = summarise(group.rows, measure)
        if any(line["bonafide"] for line in summary):
            caption = f"{INTERVAL} Dotted: the suspect."
            panels = rates(summary, measure)
            charts.append(Chart(f"{name}_{i + 1}", panels, caption, title=group.title))
    if len(groups) > 1:
        lines: list[Row] = []
        for group in groups:
            path = [row for row in group.rows if row["method"] == "path"]
            lines += [{**line, "method": group.title} for line in summarise(path, measure)]
        if lines:
            caption = f"The path at its chosen t, a line a setting. {INTERVAL}"
            charts.insert(0, Chart(f"{name}_path", rates(lines, measure), caption))
    return charts


def rates(summary: Sequence[Row], measure: str) -> list[Panel]:
    """`table_panels` that end at 0 and 100 %, however far the intervals of few seeds reach."""
    panels = []
    for panel in table_panels(summary, measure, None):
        lines = [_drawable(line) for line in panel.lines]
        halves = [0 if line.half is None else np.nan_to_num(line.half) for line in lines]
        edges = zip(lines, halves, strict=True)
        low = min(np.nanmin(line.y - half, initial=np.inf) for line, half in edges)
        edges = zip(lines, halves, strict=True)
        high = max(np.nanmax(line.y + half, initial=-np.inf) for line, half in edges)
        ylim = (-2.0 if low < 0 else None, 102.0 if high > 100 else None)
        panels.append(dataclasses.replace(panel, lines=lines, ylim=ylim))
    return panels


def _drawable(line: Line) -> Line:
    """A line with gaps where its values are too large for Matplotlib, which squares and adds them."""
    half = None if line.half is None else _small(line.half)
    return dataclasses.replace(line, y=_small(line.y), half=half)


def _small(values: ArrayLike) -> np.ndarray:
    return np.where(np.abs(values) < LARGEST, values, np.nan)


def _barriers(folder: Path, i: int, group: Group) -> Markup:
    """Barriers of the clean and the robust loss, and their correlation with the eigenvalue."""
    path = folder / f"{group.experiment}_{i + 1}.png"
    paths = {str(name): rows for (name,), rows in grouped(group.rows, ("path",)).items()}
    with figure(path, (TEXT, 1.4 + 0.4 * len(paths))) as fig:
        barriers, correlations = fig.subplots(1, 2, sharey=True)
        for column, colour in (("clean_loss_barrier", BLUE), ("robust_loss_barrier", ORANGE)):
            found = [mean(rows, column) for rows in paths.values()]
            _dots(barriers, found, colour, column.removesuffix("_loss_barrier") + " loss")
        for column, colour in (("pearson", BLUE), ("spearman", ORANGE)):
            _dots(correlations, [mean(rows, column) for rows in paths.values()], colour, column)
        barriers.set_yticks(range(len(paths)), [label(name, TICK) for name in paths])
        barriers.invert_yaxis()
        barriers.set(xlabel="barrier (nats)")
        # Student's interval may leave what a correlation can be.
        correlations.set(xlabel="correlation with eigenvalue", xlim=(-1.05, 1.05))
        for axes in (barriers, correlations):
            _legend_above(axes)
    return page.picture(path, f"{group.title}. {INTERVAL}".removeprefix(". "))


def _connections(folder: Path, groups: Sequence[Group]) -> Markup:
    """The worst point of the curve and of the straight line, and their barriers, by setting."""
    path = folder / f"{groups[0].experiment}.png"
    with figure(path, (TEXT, 1.4 + 0.4 * len(groups))) as fig:
        panels = fig.subplots(1, 2, sharey=True)
        for axes, column, xlabel in zip(
            panels,
            ("worst_test_accuracy", "train_loss_barrier"),
            ("worst test accuracy", "barrier of the training loss (nats)"),
            strict=True,
        ):
            for of, colour in (("curve", BLUE), ("line", ORANGE)):
                found = [mean(group.rows, f"{of}_{column}") for group in groups]
                _dots(axes, found, colour, of)
            axes.set(xlabel=xlabel)
            _legend_above(axes)
        titles = [label(group.title or "all jobs", TICK) for group in groups]
        panels[0].set_yticks(range(len(groups)), titles)
        panels[0].invert_yaxis()
    return page.picture(path, INTERVAL)


def _dots(axes: Axes, means: Sequence[Mean | None], colour: str, column: str) -> None:
    """Means with their intervals, one a line; two colours stand a little apart."""
    apart = -0.12 if colour == BLUE else 0.12
    found = [(y + apart, one) for y, one in enumerate(means) if one is not None]
    axes.errorbar(
        _small([one.value for _, one in found]),
        [y for y, _ in found],
        xerr=np.nan_to_num(_small([one.half for _, one in found])),
        fmt="o",
        ms=5,
        capsize=2,
        color=colour,
        label=column.replace("_", " "),
    )


def _legend_above(axes: Axes) -> None:
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
