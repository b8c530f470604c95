"""Draws figures with Matplotlib in one style, as PNG and PDF.

Sizes are those of print: a column is 3.4 inches wide, a page's text 6.9; letters are 8 to 9 points.
"""

import io
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mcjax.core.files import write
from mcjax.report.panels import BLUE, ORANGE, Chart, Line, Panel, legend

__all__ = ["BLUE", "ORANGE", "chart_figure", "figure", "panels_figure"]

COLUMN, TEXT, DPI = 3.4, 6.9, 180
AXIS = 50  # letters per line of an axis label or a panel's title
NAME = 26  # letters per line of a position's name

STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "figure.titlesize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "pdf.fonttype": 42,  # whole letters: publishers reject type 3 fonts
    "text.parse_math": False,  # a $ in a name stays a $
}


class Shown(Figure):
    """A figure that a notebook shows as a picture, whether pyplot was imported or not."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()


@contextmanager
def in_style(size: tuple[float, float]) -> Iterator[Figure]:
    """A figure in the common style. Uses no display and no global state.

    Args:
        size: Width and height in inches.
    """
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # Names may be in any script; letters that the font lacks are drawn as boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        fig = Shown(figsize=size, dpi=DPI)
        FigureCanvasAgg(fig)
        yield fig


@contextmanager
def figure(path: Path, size: tuple[float, float], *, pdf: bool = True) -> Iterator[Figure]:
    """A figure in the common style, written at the end.

    Args:
        path: The PNG to write.
        size: Width and height in inches.
        pdf: Whether to write a PDF next to it, for papers.
    """
    with in_style(size) as fig:
        yield fig
        # Without date and version, equal numbers give equal files.
        _save(fig, path, {"Software": None})
        if pdf:
            unnamed = {"Creator": None, "Producer": None, "CreationDate": None}
            _save(fig, path.with_suffix(".pdf"), unnamed)


def _save(fig: Figure, path: Path, metadata: dict[str, None]) -> None:
    buffer = io.BytesIO()
    fig.savefig(buffer, format=path.suffix[1:], metadata=metadata)
    write(path, buffer.getvalue())


def chart_figure(folder: Path, chart: Chart) -> None:
    """Writes NAME.png and NAME.pdf of a chart into a folder."""
    path = folder / f"{chart.name}.png"
    panels_figure(path, chart.panels, columns=chart.columns, title=chart.title)


def panels_figure(
    path: Path, panels: Sequence[Panel], *, columns: int | None = None, title: str = ""
) -> None:
    """Draws panels in rows, with one legend below all of them.

    Args:
        path: The PNG to write; the PDF is written next to it.
        panels: At least one.
        columns: Panels per row; at most three unless given.
        title: The title of the figure.
    """
    columns = columns or min(3, len(panels))
    with figure(path, _size(panels, columns, title)) as fig:
        _fill(fig, panels, columns, title)


def drawn(panels: Sequence[Panel]) -> Figure:
    """The figure of panels, for a notebook: drawn, and not written."""
    columns = min(3, len(panels))
    with in_style(_size(panels, columns)) as fig:
        _fill(fig, panels, columns)
        fig.canvas.draw()  # lays it out while the style holds
    return fig


def _size(panels: Sequence[Panel], columns: int, title: str = "") -> tuple[float, float]:
    rows = -(-len(panels) // columns)
    names = 0.7 if any(panel.names for panel in panels) else 0  # they slant
    height = ((2.6 if columns < 3 else 2.1) + names) * rows + (0.25 if title else 0)
    return COLUMN if columns == 1 else TEXT, height


def _fill(fig: Figure, panels: Sequence[Panel], columns: int, title: str = "") -> None:
    shown = [_sample(line) for line in legend(panels) if line.label]
    if any(panel.chosen is not None for panel in panels):
        shown.append(Line2D([], [], color="black", lw=1, ls="--", label="chosen t"))
    _legend_below(fig, shown)
    grid = fig.subplots(-(-len(panels) // columns), columns, squeeze=False).ravel()
    for axes, panel in zip(grid, panels, strict=False):
        draw(axes, panel)
    for axes in grid[len(panels) :]:
        axes.axis("off")
    if title:
        fig.suptitle(label(title))


def _legend_below(fig: Figure, shown: Sequence[Line2D]) -> None:
    """A legend with as few rows as fit the width; the figure grows by its height."""
    if not shown:
        return
    width, height = fig.get_size_inches()
    for ncols in range(len(shown), 0, -1):
        legend = fig.legend(handles=shown, loc="outside lower center", ncols=ncols)
        size = legend.get_window_extent()
        if size.width <= fig.bbox.width or ncols == 1:
            break
        legend.remove()
    fig.set_size_inches(width, height + size.height / fig.dpi)


def draw(axes: Axes, panel: Panel) -> None:
    """Draws a panel on Matplotlib's axes, without a legend."""
    x = np.asarray(panel.x, float)
    for line in panel.lines:
        y, style = np.asarray(line.y, float), ":" if line.dotted else "-"
        if panel.names and not line.level:
            style = "none"
        if line.band is not None:
            axes.fill_between(x, *line.band, color=line.colour, alpha=0.15, lw=0)
        if line.level:
            axes.axhline(y[0], ls=style, color=line.colour)
        elif line.half is not None:
            half = np.nan_to_num(line.half)
            axes.errorbar(
                x, y, half, color=line.colour, marker=line.mark or None, ls=style, capsize=2
            )
        else:
            axes.plot(x, y, ls=style, color=line.colour, marker=line.mark or None)
        if line.ends:
            axes.plot(x[[0, -1]], y[[0, -1]], "o", color=line.colour)
    if panel.chosen is not None:
        axes.axvline(panel.chosen, color="black", lw=1, ls="--")
    if panel.log_x:
        axes.set_xscale("log")
        axes.set_xticks(x, [f"{value:g}" for value in x])
        axes.minorticks_off()
    if panel.names:
        short = [label(name, NAME) for name in panel.names]
        axes.set_xticks(x, short, rotation=50, ha="right", rotation_mode="anchor")
    axes.set(xlabel=label(panel.xlabel), ylabel=label(panel.ylabel, AXIS))
    axes.set(ylim=panel.ylim)
    if panel.xlim != (None, None):
        axes.set(xlim=panel.xlim)
    axes.set_title(label(panel.title, AXIS))


def _sample(line: Line) -> Line2D:
    return Line2D(
        [],
        [],
        color=line.colour,
        ls=":" if line.dotted else "-",
        marker=line.mark or ("o" if line.ends else None),
        label=label(line.label),
    )


def label(text: str, width: int = 100) -> str:
    r"""Text that Matplotlib can draw and that fits a figure: at most three short lines.

    A name can be the value of a setting, so any text must work.

    Args:
        text: A name or a title.
        width: Letters per line.

    Example:
        >>> label("a\nb"), label("long " * 9, 20)
        ('a b', 'long long long long\nlong long long long\nlong')
    """
    text = "".join(c if c.isprintable() else " " for c in text)
    lines = textwrap.wrap(" ".join(text.split()), width, max_lines=3, placeholder=" ...")
    short = "\n".join(lines)
    return f" {short}" if short.startswith("_") else short  # legends skip labels that start with _
