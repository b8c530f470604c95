"""What a figure of lines shows, as data: figures.py draws it for papers, chart.py for the page."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

# Okabe and Ito 2008: colour-blind readers can tell them apart.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000", GREY)
MARKS = "osD^v<>P"


@dataclasses.dataclass(frozen=True, eq=False)
class Line:
    """One line of a panel.

    Args:
        label: What the legend says: the quantity, and of how many images.
        y: Values, [N]; one that is not finite leaves a gap.
        colour: One of `COLOURS`.
        dotted: Dotted, not solid.
        mark: Matplotlib's mark at every point; "" for none.
        ends: Dots at the first and the last point.
        level: One value for every x: drawn from edge to edge.
        half: Half-widths of bars, [N].
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
        x: Places, [N], ascending.
        lines: The lines.
        xlabel: What x is, with its unit.
        ylabel: What y is, with its unit.
        title: What tells this panel from its neighbours.
        ylim: Lowest and highest y; None leaves it to the values.
        xlim: Likewise for x.
        chosen: Where the dashed upright line stands, if one does: the chosen t.
        log_x: A logarithmic x whose ticks are the places themselves.
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


@dataclasses.dataclass(frozen=True, eq=False)
class Chart:
    """A figure of panels, with what stands around it.

    Args:
        name: Of its files: figures/NAME.png and .pdf.
        panels: The panels.
        caption: What is seen, in sentences; "" where the chart before it has said so.
        title: Above all panels.
        columns: Panels in a row of the PNG and the PDF; at most three unless given.
    """

    name: str
    panels: Sequence[Panel]
    caption: str
    title: str = ""
    columns: int | None = None


def legend(panels: Iterable[Panel]) -> Iterator[Line]:
    """The lines of all panels, one a label, in the order of their first appearance."""
    return iter({line.label: line for panel in panels for line in panel.lines}.values())


def words(column: str) -> str:
    """A column's name as prose has it.

    Example:
        >>> words("attack_success_rate")
        'attack success rate'
    """
    return column.replace("_", " ")
