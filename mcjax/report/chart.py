"""Draws charts on pages: every panel as SVG, with the numbers under the pointer (chart.js).

Without the script, as on paper or in a mail, the drawing remains.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from mcjax.report.html import render
from mcjax.report.panels import COLOURS, Chart, Line, Panel

LEFT, TOP, BOTTOM = 52, 10, 188
LETTER = 3.4  # how much a letter of a slanting name reaches down, in pixels


class Area(NamedTuple):
    """The size of a panel and of its axes, in pixels of the drawing.

    Attributes:
        width: Of the panel.
        height: Of the panel.
        right: Where the x axis ends.
    """

    width: int = 360
    height: int = 230
    right: int = 350
    left: int = LEFT
    top: int = TOP
    bottom: int = BOTTOM


WIDE = Area(width=800, right=790)  # a single panel has the whole width of the page


def chart(chart: Chart) -> Markup:
    """A chart as HTML: its panels, each with its legend, and the caption.

    Args:
        chart: The chart.
    """
    area = Area() if len(chart.panels) > 1 else WIDE
    drawn = [_panel(panel, area) for panel in chart.panels]
    return render(
        "chart.html",
        chart=chart,
        panels=[drawing for drawing, _ in drawn],
        numbers=[numbers for _, numbers in drawn],
    )


def _panel(panel: Panel, area: Area) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the template draws, and what the script needs: positions in pixels, and values."""
    x = np.asarray(panel.x, float)
    px = _scale(np.log(x) if panel.log_x else x, *_x_range(panel, x), LEFT, area.right)
    low, high = _y_range(panel)
    py = [_scale(line.y, low, high, BOTTOM, TOP) for line in panel.lines]
    labels = ", ".join(line.label for line in panel.lines)
    chosen = panel.chosen
    names = [shortened(name) for name in panel.names]
    if names:
        area = area._replace(height=area.height + round(LETTER * max(map(len, names))))
    drawing = {
        "area": area,
        "title": panel.title,
        "xlabel": panel.xlabel,
        "ylabel": panel.ylabel,
        "aria_label": f"{panel.title} {panel.ylabel} against {panel.xlabel}: {labels}".strip(),
        "names": list(zip(names, px, strict=False)),
        "x_ticks": [] if names else _x_ticks(panel, x, px, area),
        "y_ticks": _y_ticks(low, high),
        "lines": [
            _line(line, px, y, low, high, area, joined=not names)
            for line, y in zip(panel.lines, py, strict=True)
        ],
        "chosen": None if chosen is None else {"t": chosen, "x": np.interp(chosen, x, px)},
    }
    numbers = {
        "name": panel.xlabel,
        "x": [_number(value) for value in x],
        "names": names,
        "px": [round(float(value), 1) for value in px],
        "y": [[_number(value) for value in line.y] for line in panel.lines],
        "py": [[_pixel(value) for value in y] for y in py],
    }
    return drawing, numbers


def _x_range(panel: Panel, x: np.ndarray) -> tuple[float, float]:
    if panel.log_x:
        edge = 0.05 * math.log(x[-1] / x[0]) if x[-1] > x[0] else 0.1
        return math.log(x[0]) - edge, math.log(x[-1]) + edge
    low, high = (x[0], x[-1]) if x[-1] > x[0] else (x[0] - 0.5, x[0] + 0.5)
    given = (low - 0.5, high + 0.5) if panel.names else panel.xlim
    return (low if given[0] is None else given[0]), (high if given[1] is None else given[1])


def _y_range(panel: Panel) -> tuple[float, float]:
    """The given limits, else those of all finite values, with a small margin."""
    edges: list[Any] = []
    for line in panel.lines:
        half = 0 if line.half is None else np.nan_to_num(line.half)
        edges += [line.y - half, line.y + half, *(line.band or ())]
    values = np.concatenate([np.asarray(edge, float).ravel() for edge in edges])
    values = values[np.isfinite(values)]
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    margin = 0.05 * (high - low) or 0.5
    given_low, given_high = panel.ylim
    low = low - margin if given_low is None else given_low
    high = high + margin if given_high is None else given_high
    return float(low), float(high if high > low else low + 1)


def _scale(v: ArrayLike, low: float, high: float, start: float, end: float) -> np.ndarray:
    """Values as pixels: values beyond the limits are moved to the edge, those not finite become NaN."""
    v = np.where(np.isfinite(v), v, np.nan)
    return start + np.clip((v - low) / (high - low), 0, 1) * (end - start)


def _ticks(low: float, high: float) -> np.ndarray:
    ticks = np.asarray(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))
    return ticks[(ticks >= low) & (ticks <= high)]


def shortened(name: str, most: int = 26) -> str:
    """A name of at most so many letters."""
    return name if len(name) <= most else f"{name[: most - 3]}..."


def _x_ticks(panel: Panel, x: np.ndarray, px: np.ndarray, area: Area) -> list[tuple[float, float]]:
    """Values and positions of the ticks on the x axis."""
    if not panel.log_x:
        left, right = _x_range(panel, x)
        x = _ticks(left, right)
        px = _scale(x, left, right, LEFT, area.right)
    return list(zip(x, px, strict=True))


def _y_ticks(low: float, high: float) -> list[tuple[float, float]]:
    """Values and positions of the ticks on the y axis."""
    ticks = _ticks(low, high)
    return list(zip(ticks, _scale(ticks, low, high, BOTTOM, TOP), strict=True))


def _line(
    line: Line,
    px: np.ndarray,
    py: np.ndarray,
    low: float,
    high: float,
    area: Area,
    *,
    joined: bool,
) -> dict[str, Any]:
    """A line with its band, bars and marks, in pixels."""
    there = np.isfinite(py)
    bars = []
    if line.half is not None:
        half = np.nan_to_num(line.half) * (BOTTOM - TOP) / (high - low)
        bars = [
            (x, max(y - h, TOP), min(y + h, BOTTOM))
            for x, y, h in zip(px[there], py[there], half[there], strict=True)
            if h > 0
        ]
    marked = range(len(px)) if line.mark else (0, len(px) - 1) if line.ends else ()
    path = _path(zip(px, py, strict=True)) if joined else ""
    if line.level:
        path = f"M{LEFT},{py[0]:.1f}H{area.right}"
    return {
        "label": line.label,
        "colour": f"c{COLOURS.index(line.colour)}",
        "dotted": line.dotted,
        "has_marks": bool(line.mark or line.ends),
        "path": path,
        "joined": joined or line.level,
        "band": "" if line.band is None else _band(line.band, px, low, high),
        "bars": bars,
        "marks": [(px[i], py[i]) for i in marked if there[i]],
    }


def _path(points: Iterable[tuple[float, float]]) -> str:
    """An SVG path through points, with gaps at values that are not finite."""
    path, pen = "", "M"
    for x, y in points:
        if np.isfinite(y):
            path += f"{pen}{x:.1f},{y:.1f}"
        pen = "L" if np.isfinite(y) else "M"
    return path


def _band(edges: tuple[ArrayLike, ArrayLike], px: np.ndarray, low: float, high: float) -> str:
    """The corners of a shaded band."""
    below, above = (_scale(edge, low, high, BOTTOM, TOP) for edge in edges)
    there = np.isfinite(below) & np.isfinite(above)
    corners = [
        *zip(px[there], below[there], strict=True),
        *zip(px[there][::-1], above[there][::-1], strict=True),
    ]
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)


def _number(value: float) -> float | None:
    """Six digits, or null: JSON has no NaN."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _pixel(value: float) -> float | None:
    return round(float(value), 1) if math.isfinite(value) else None
