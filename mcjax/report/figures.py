"""The figures of a run: one style, colours that colour-blind readers can tell apart."""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mcjax.workdir import write

# Okabe and Ito 2008.
BLUE, ORANGE = "#0072B2", "#D55E00"

STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


@contextmanager
def figure(path: Path, size: tuple[float, float]) -> Iterator[Figure]:
    """A figure in the common style, written as PNG at the end. No display, no global state.

    Args:
        path: Where to.
        size: Width and height in inches.
    """
    with mpl.rc_context(STYLE):
        fig = Figure(figsize=size, dpi=150)
        FigureCanvasAgg(fig)
        yield fig
        buffer = io.BytesIO()
        # No date and no version inside: equal numbers give equal files.
        fig.savefig(buffer, format="png", metadata={"Software": None})
    write(path, buffer.getvalue())


def path_figure(
    path: Path,
    ts: np.ndarray,
    curve: Mapping[str, np.ndarray],
    line: Mapping[str, np.ndarray],
) -> None:
    """Loss and error against t, on training and test images, with the straight line beside.

    Args:
        path: The PNG to write.
        ts: Points, [T].
        curve: Columns `train_loss`, `train_accuracy`, `test_loss`, `test_accuracy`, each [T].
        line: The same on the straight line between the ends.
    """
    with figure(path, (8, 3.6)) as fig:
        left, right = fig.subplots(1, 2)
        for axes, metric, name in (
            (left, "loss", "cross-entropy (nats)"),
            (right, "error", "error (%)"),
        ):
            for images, colour in (("train", BLUE), ("test", ORANGE)):
                values = [_values(table, images, metric) for table in (curve, line)]
                axes.plot(ts, values[0], color=colour, label=f"curve, {images}")
                axes.plot(ts, values[1], ":", color=colour, label=f"straight line, {images}")
                dots = "networks" if images == "train" else None
                axes.plot(ts[[0, -1]], values[0][[0, -1]], "o", color=colour, label=dots)
            axes.set(xlabel="t", ylabel=name, xlim=(-0.02, 1.02))
            axes.set_ylim(bottom=0)
        handles, labels = left.get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8)


def _values(table: Mapping[str, np.ndarray], images: str, metric: str) -> np.ndarray:
    if metric == "loss":
        return table[f"{images}_loss"]
    return 100 * (1 - table[f"{images}_accuracy"])


def plane_figure(path: Path, surface: Mapping[str, np.ndarray]) -> None:
    """Test loss on the plane through start, bend and end, with the curve and the straight line.

    Args:
        path: The PNG to write.
        surface: "x" and "y" [N], "test_loss" [N, N] by row of y, "trace" of the curve [M, 2],
            "points" the control points [K, 2].
    """
    with figure(path, (5.2, 4.2)) as fig:
        axes: Axes = fig.subplots()
        axes.grid(False)
        loss = np.nan_to_num(surface["test_loss"], nan=np.inf)
        low, high = loss.min(), np.quantile(loss[np.isfinite(loss)], 0.9)
        high = max(high, low * 1.01 + 1e-6)
        levels = low + (high - low) * np.linspace(0, 1, 16) ** 2
        colours = axes.contourf(
            surface["x"], surface["y"], np.clip(loss, low, high), levels, cmap="viridis_r"
        )
        fig.colorbar(colours, ax=axes, label="test cross-entropy (nats)", format="%.2f")
        trace, points = surface["trace"], surface["points"]
        axes.plot(trace[:, 0], trace[:, 1], color=ORANGE, label="curve")
        ends = points[[0, -1]]
        axes.plot(ends[:, 0], ends[:, 1], ":", color="black", label="straight line")
        axes.plot(ends[:, 0], ends[:, 1], "o", color="black")
        axes.plot(points[1:-1, 0], points[1:-1, 1], "x", color=ORANGE, label="bend")
        axes.set(xlabel="distance along start to end", ylabel="distance across")
        axes.legend(fontsize=8, loc="upper right", frameon=True)
