"""Lines on a page: a drawing (SVG) of every panel, with numbers under the pointer (chart.js).

The drawing is there without the script, too: on paper, in a mail, in a browser that runs none.
"""

import math
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from mcjax.report.markup import Markup, joined, script_data
from mcjax.report.panels import COLOURS, Chart, Line, Panel

WIDTH, HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 350, 10, 188
DASHES = Markup(' stroke-dasharray="2 3"')


def chart(chart: Chart) -> Markup:
    """A chart as HTML: its panels, each with its legend, and the caption.

    Args:
        chart: What it shows.
    """
    drawn = [_panel(panel) for panel in chart.panels]
    caption = Markup("<figcaption>{}</figcaption>").format(chart.caption) if chart.caption else ""
    title = Markup('<p class="title">{}</p>').format(chart.title) if chart.title else ""
    return Markup(
        '<figure class="chart" id="{}">{}<div class="panels">{}</div>'
        '<p class="hint">Point, tap or use the arrow keys for the numbers at every place.</p>'
        '{}<script type="application/json">{}</script></figure>'
    ).format(
        chart.name,
        title,
        joined(drawing for drawing, _ in drawn),
        caption,
        script_data([numbers for _, numbers in drawn]),
    )


def _panel(panel: Panel) -> tuple[Markup, dict[str, Any]]:
    """A panel's HTML, and what the script needs: places and values, in pixels and in numbers."""
    x = np.asarray(panel.x, float)
    px = _scale(np.log(x) if panel.log_x else x, *_x_range(panel, x), LEFT, RIGHT)
    low, high = _y_range(panel)
    py = [_scale(line.y, low, high, BOTTOM, TOP) for line in panel.lines]
    parts = [_axes(panel, x, px, low, high)]
    for line, y in zip(panel.lines, py, strict=True):
        if line.band is not None:
            edges = [_scale(edge, low, high, BOTTOM, TOP) for edge in line.band]
            parts.append(_band(line, px, *edges))
        parts.append(_line(line, px, y, low, high))
    if panel.chosen is not None:
        at = np.interp(panel.chosen, x, px)
        parts.append(Markup('<path class="chosen" d="M{:.1f},{}V{}"/>').format(at, TOP, BOTTOM))
    dots = joined(
        Markup('<circle r="3.5" class="{}"/>').format(_colour(line)) for line in panel.lines
    )
    cursor = Markup('<g class="cursor" visibility="hidden"><path d="M0,{}V{}"/>{}</g>').format(
        TOP, BOTTOM, dots
    )
    labels = ", ".join(line.label for line in panel.lines)
    text = f"{panel.title} {panel.ylabel} against {panel.xlabel}: {labels}".strip()
    drawing = Markup(
        '<div class="panel"><p>{} <output></output></p>'
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}</svg><ul>{}{}</ul></div>'
    ).format(
        panel.title,
        WIDTH,
        HEIGHT,
        text,
        joined(parts),
        cursor,
        joined(map(_legend, panel.lines)),
        "" if panel.chosen is None else _CHOSEN.format(panel.chosen),
    )
    numbers = {
        "name": panel.xlabel,
        "x": [_number(value) for value in x],
        "px": [round(float(value), 1) for value in px],
        "y": [[_number(value) for value in line.y] for line in panel.lines],
        "py": [[_pixel(value) for value in y] for y in py],
    }
    return drawing, numbers


_CHOSEN = Markup(
    '<li><svg viewBox="0 0 24 8"><path class="chosen" d="M0,4H24"/></svg>'
    '<span>chosen t</span><span class="value">{:.4g}</span></li>'
)


def _x_range(panel: Panel, x: np.ndarray) -> tuple[float, float]:
    if panel.log_x:
        edge = 0.05 * math.log(x[-1] / x[0]) if x[-1] > x[0] else 0.1
        return math.log(x[0]) - edge, math.log(x[-1]) + edge
    low, high = (x[0], x[-1]) if x[-1] > x[0] else (x[0] - 0.5, x[0] + 0.5)
    given = panel.xlim
    return (low if given[0] is None else given[0]), (high if given[1] is None else given[1])


def _y_range(panel: Panel) -> tuple[float, float]:
    """The given limits, else those of all finite values with a small margin."""
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
    """Pixels of values; one beyond the limits stands at the edge, one that is not finite nowhere."""
    v = np.where(np.isfinite(v), v, np.nan)
    return start + np.clip((v - low) / (high - low), 0, 1) * (end - start)


def _ticks(low: float, high: float) -> np.ndarray:
    ticks = np.asarray(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))
    return ticks[(ticks >= low) & (ticks <= high)]


def _axes(panel: Panel, x: np.ndarray, px: np.ndarray, low: float, high: float) -> Markup:
    parts = []
    ticks = _ticks(low, high)
    for value, y in zip(ticks, _scale(ticks, low, high, BOTTOM, TOP), strict=True):
        parts.append(Markup('<path class="grid" d="M{},{:.1f}H{}"/>').format(LEFT, y, RIGHT))
        parts.append(
            Markup('<text x="{}" y="{:.1f}" text-anchor="end">{:.4g}</text>').format(
                LEFT - 5, y + 4, value
            )
        )
    if not panel.log_x:
        left, right = _x_range(panel, x)
        x = _ticks(left, right)
        px = _scale(x, left, right, LEFT, RIGHT)
    for value, at in zip(x, px, strict=True):
        parts.append(Markup('<path class="grid" d="M{:.1f},{}V{}"/>').format(at, TOP, BOTTOM))
        parts.append(
            Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{:.4g}</text>').format(
                at, BOTTOM + 15, value
            )
        )
    middle = (TOP + BOTTOM) / 2
    parts.append(
        Markup(
            '<text x="{}" y="{}" text-anchor="middle">{}</text>'
            '<text transform="translate(12,{}) rotate(-90)" text-anchor="middle">{}</text>'
        ).format((LEFT + RIGHT) / 2, HEIGHT - 8, panel.xlabel, middle, panel.ylabel)
    )
    return joined(parts)


def _line(line: Line, px: np.ndarray, py: np.ndarray, low: float, high: float) -> Markup:
    """The line in pieces between values that are no numbers, its bars, marks and ends."""
    pieces, piece = [], ""
    for at, y in zip(px, py, strict=True):
        if np.isfinite(y):
            piece += f"{'L' if piece else 'M'}{at:.1f},{y:.1f}"
        elif piece:
            pieces.append(piece)
            piece = ""
    path = "".join([*pieces, piece])
    if line.level:
        path = f"M{LEFT},{py[0]:.1f}H{RIGHT}"
    dashes = DASHES if line.dotted else ""
    drawn = [Markup('<path class="line" d="{}"{}/>').format(path, dashes)]
    if line.half is not None:
        half = np.nan_to_num(line.half) * (BOTTOM - TOP) / (high - low)
        drawn += (
            Markup('<path class="bar" d="M{:.1f},{:.1f}V{:.1f}"/>').format(
                at, max(y - h, TOP), min(y + h, BOTTOM)
            )
            for at, y, h in zip(px, py, half, strict=True)
            if np.isfinite(y) and h > 0
        )
    marked = range(len(px)) if line.mark else (0, len(px) - 1) if line.ends else ()
    drawn += (
        Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3"/>').format(px[i], py[i])
        for i in marked
        if np.isfinite(py[i])
    )
    return Markup('<g class="{}">{}</g>').format(_colour(line), joined(drawn))


def _band(line: Line, px: np.ndarray, low: np.ndarray, high: np.ndarray) -> Markup:
    there = np.isfinite(low) & np.isfinite(high)
    down = list(zip(px[there], low[there], strict=True))
    up = list(zip(px[there], high[there], strict=True))[::-1]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in down + up)
    return Markup('<polygon class="band {}" points="{}"/>').format(_colour(line), points)


def _legend(line: Line) -> Markup:
    dashes = DASHES if line.dotted else ""
    mark = Markup('<circle cx="12" cy="4" r="3"/>') if line.mark or line.ends else ""
    return Markup(
        '<li><svg viewBox="0 0 24 8" class="{}" aria-hidden="true">'
        '<path class="line" d="M0,4H24"{}/>{}</svg>'
        '<span>{}</span><span class="value"></span></li>'
    ).format(_colour(line), dashes, mark, line.label)


def _colour(line: Line) -> str:
    return f"c{COLOURS.index(line.colour)}"


def _number(value: float) -> float | None:
    """Six digits, or null: JSON has no NaN."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _pixel(value: float) -> float | None:
    return round(float(value), 1) if math.isfinite(value) else None
