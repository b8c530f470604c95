"""Describes charts as data: figures.py draws them for papers, chart.py draws them on pages."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from mcjax.evaluation.intervals import rate_interval

# Okabe and Ito 2008: colour-blind readers can distinguish them.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000", GREY)
MARKS = "osD^v<>P"
T_LIMITS = (-0.02, 1.02)  # of t, with room for marks at the ends
PERCENT_LIMITS = (-2.0, 102.0)


@dataclasses.dataclass(frozen=True, eq=False)
class Line:
    """One line of a panel.

    Args:
        label: Its name in the legend: the quantity, and the number of images.
        y: Values, [N]; values that are not finite leave gaps.
        colour: One of `COLOURS`.
        dotted: Dotted, not solid.
        mark: Matplotlib's mark at every point; "" for none.
        ends: Whether the first and the last point have dots.
        level: Whether `y` is constant and drawn from edge to edge.
        half: Half-widths of error bars, [N].
        band: Lower and upper edge of a shaded band, [N] each.
    """

    label: str
    y: np.ndarray
    colour: str = BLUE
    dotted: bool = False
    mark: str = ""
    ends: bool = False
    level: bool = False
    half: np.ndarray | None = None
    band: tuple[np.ndarray, np.ndarray] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Panel:
    """Lines over the same x.

    Args:
        x: Positions, [N], ascending.
        lines: The lines.
        xlabel: The name of x, with its unit.
        ylabel: The name of y, with its unit.
        title: What distinguishes this panel from its neighbours.
        ylim: Lowest and highest y; None takes the limit from the values.
        xlim: The same for x.
        chosen: The chosen t, marked by a dashed vertical line; None for no line.
        log_x: Whether x is logarithmic, with ticks at the positions.
        names: Names of the positions, shown in place of numbers; points are then not joined. [N] or
            none.
    """

    x: np.ndarray
    lines: Sequence[Line]
    xlabel: str
    ylabel: str
    title: str = ""
    ylim: tuple[float | None, float | None] = (None, None)
    xlim: tuple[float | None, float | None] = (None, None)
    chosen: float | None = None
    log_x: bool = False
    names: Sequence[str] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Chart:
    """A figure of panels, with its title and caption.

    Args:
        name: The name of its files: figures/NAME.png and .pdf.
        panels: The panels.
        caption: What the figure shows, in sentences; "" if the caption of the chart before it serves.
        title: The title above all panels.
        columns: Panels per row in the PNG and the PDF; at most three unless given.
    """

    name: str
    panels: Sequence[Panel]
    caption: str
    title: str = ""
    columns: int | None = None


def legend(panels: Iterable[Panel]) -> Iterator[Line]:
    """One line per label, over all panels, in the order of their first appearance."""
    return iter({line.label: line for panel in panels for line in panel.lines}.values())


def words(column: str) -> str:
    """A column's name as words.

    Example:
        >>> words("attack_success_rate")
        'attack success rate'
    """
    return column.replace("_", " ")


def percent_wrong(accuracy: np.ndarray) -> np.ndarray:
    """The error in percent."""
    return 100 * (1 - accuracy)


def percent_band(rate: np.ndarray, num_images: int) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % interval of a rate over so many images, in percent, as a line's band."""
    low, high = rate_interval(rate, num_images)
    return 100 * low, 100 * high


BAND = "Shaded: 95 % interval for the choice of the images (Wilson)."
"""What the bands of `percent_band` are, for captions."""
