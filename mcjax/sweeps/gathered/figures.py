"""The figures of a sweep: means with intervals over seeds, against what was varied."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike

from mcjax.report import page
from mcjax.report.chart import chart
from mcjax.report.figures import TEXT, chart_figure, figure, label
from mcjax.report.means import Mean, Row, grouped, mean, summarise
from mcjax.report.panels import BLUE, ORANGE, PERCENT_LIMITS, Chart, Line, Panel
from mcjax.report.repair_figures import table_panels
from mcjax.sweeps.gathered.groups import Group
from mcjax.sweeps.gathered.overlaid import overlaid

# With more settings, a figure shows less than the table and takes most of the time.
MOST_GROUPS = 8
LARGEST = 1e100
TICK = 30  # letters per line of a tick's label

INTERVAL = "Means over seeds; bars are 95 % intervals (of two seeds the range, of one none)."


def draw(folder: Path, groups: Sequence[Group]) -> list[Markup]:
    """Writes the figures of one experiment's groups.

    Args:
        folder: The output folder.
        groups: The groups; those without a job that is done are left out.

    Returns:
        Each figure as HTML; no figure for more than MOST_GROUPS groups.
    """
    groups = [group for group in groups if group.rows]
    if not 0 < len(groups) <= MOST_GROUPS:
        return []
    return [*_of_means(folder, groups), *_of_seeds(folder, groups)]


def _of_seeds(folder: Path, groups: Sequence[Group]) -> list[Markup]:
    """The paths of every seed, one figure per group with several seeds."""
    named = [(f"{group.experiment}_{i}_seeds", group) for i, group in enumerate(groups, start=1)]
    charts = [one for name, group in named if (one := overlaid(name, group)) is not None]
    for one in charts:
        chart_figure(folder, one)
    return [chart(one) for one in charts]


def _of_means(folder: Path, groups: Sequence[Group]) -> list[Markup]:
    if groups[0].measure is not None:
        charts = _repairs(groups, groups[0].measure)
        for one in charts:
            chart_figure(folder, one)
        return [chart(one) for one in charts]
    if any("path" in row for row in groups[0].rows):
        return [_barriers(folder, i, group) for i, group in enumerate(groups)]
    return [_connections(folder, groups)] if len(groups) > 1 else []


def _repairs(groups: Sequence[Group], measure: str) -> list[Chart]:
    """All methods against the bonafide size, one figure per group; and the path, one line per group."""
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
            of_path = summarise(group.path_rows, measure)
            lines += [{**line, "method": group.title} for line in of_path]
        if lines:
            caption = f"The path at its chosen t, one line per setting. {INTERVAL}"
            charts.insert(0, Chart(f"{name}_path", rates(lines, measure), caption))
    return charts


def rates(summary: Sequence[Row], measure: str) -> list[Panel]:
    """`table_panels` with limits at 0 and 100 %, however wide the intervals are."""
    panels = []
    for panel in table_panels(summary, measure, None):
        lines = [_drawable(line) for line in panel.lines]
        halves = [0 if line.half is None else np.nan_to_num(line.half) for line in lines]
        edges = zip(lines, halves, strict=True)
        low = min(np.nanmin(line.y - half, initial=np.inf) for line, half in edges)
        edges = zip(lines, halves, strict=True)
        high = max(np.nanmax(line.y + half, initial=-np.inf) for line, half in edges)
        bottom, top = PERCENT_LIMITS
        ylim = (bottom if low < 0 else None, top if high > 100 else None)
        panels.append(dataclasses.replace(panel, lines=lines, ylim=ylim))
    return panels


def _drawable(line: Line) -> Line:
    """A line with gaps for values that are too large for Matplotlib, which adds their squares."""
    half = None if line.half is None else _small(line.half)
    return dataclasses.replace(line, y=_small(line.y), half=half)


def _small(values: ArrayLike) -> np.ndarray:
    return np.where(np.abs(values) < LARGEST, values, np.nan)


def _barriers(folder: Path, i: int, group: Group) -> Markup:
    """Barriers of the clean and the robust loss, and their correlation with the eigenvalue."""
    path = folder / f"{group.experiment}_{i + 1}.png"
    paths = {str(name): rows for (name,), rows in grouped(group.rows, ("path",)).items()}
    dots = [
        Dots(
            "barrier (nats)",
            {
                f"{loss} loss": [mean(rows, f"{loss}_loss_barrier") for rows in paths.values()]
                for loss in ("clean", "robust")
            },
        ),
        # Student's interval may exceed the range of correlations.
        Dots(
            "correlation with eigenvalue",
            {
                kind: [mean(rows, kind) for rows in paths.values()]
                for kind in ("pearson", "spearman")
            },
            xlim=(-1.05, 1.05),
        ),
    ]
    _dots_figure(path, list(paths), dots)
    return page.picture(path, f"{group.title}. {INTERVAL}".removeprefix(". "))


def _connections(folder: Path, groups: Sequence[Group]) -> Markup:
    """The worst point of the curve and of the straight line, and their barriers, by setting."""
    path = folder / f"{groups[0].experiment}.png"
    dots = [
        Dots(
            xlabel,
            {
                of: [mean(group.rows, f"{of}_{column}") for group in groups]
                for of in ("curve", "line")
            },
        )
        for column, xlabel in (
            ("worst_test_accuracy", "worst test accuracy"),
            ("train_loss_barrier", "barrier of the training loss (nats)"),
        )
    ]
    _dots_figure(path, [group.title or "all jobs" for group in groups], dots)
    return page.picture(path, INTERVAL)


class Dots(NamedTuple):
    """A panel of means, one line per label of the figure.

    Attributes:
        xlabel: The name of the quantity, with its unit.
        series: Two lists of means by their name in the legend.
        xlim: The limits of x; None takes them from the values.
    """

    xlabel: str
    series: Mapping[str, Sequence[Mean | None]]
    xlim: tuple[float, float] | None = None


def _dots_figure(path: Path, labels: Sequence[str], panels: Sequence[Dots]) -> None:
    """Draws panels of means with their intervals, side by side, with shared labels on the left."""
    ticks = [label(name, TICK) for name in labels]
    # Two dots fit a line and a half of text.
    height = 0.17 * sum(max(2, 1 + tick.count("\n") + 1) for tick in ticks)
    with figure(path, (TEXT, 1.3 + height)) as fig:
        grid = fig.subplots(1, len(panels), sharey=True)
        for axes, panel in zip(grid, panels, strict=True):
            # The two series are a little apart.
            for (name, means), colour, apart in zip(
                panel.series.items(), (BLUE, ORANGE), (-0.12, 0.12), strict=True
            ):
                found = [(y + apart, one) for y, one in enumerate(means) if one is not None]
                axes.errorbar(
                    _small([one.value for _, one in found]),
                    [y for y, _ in found],
                    xerr=np.nan_to_num(_small([one.half for _, one in found])),
                    fmt="o",
                    ms=5,
                    capsize=2,
                    color=colour,
                    label=name,
                )
            axes.set(xlabel=panel.xlabel)
            if panel.xlim is not None:
                axes.set(xlim=panel.xlim)
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        grid[0].set_yticks(range(len(ticks)), ticks)
        grid[0].set_ylim(-0.6, len(ticks) - 0.4)
        grid[0].invert_yaxis()
