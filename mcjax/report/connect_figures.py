"""The figures of a connection: loss and error along the path, and loss on the plane through it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from mcjax.report.figures import COLUMN, figure
from mcjax.report.panels import (
    BAND,
    BLUE,
    ORANGE,
    T_LIMITS,
    Line,
    Panel,
    percent_band,
    percent_wrong,
)

PATH_CAPTION = (
    "Loss and error along the path. Solid: the trained curve. Dotted: the straight line between "
    f"the same two networks. Dots: the two networks. {BAND}"
)


def path_panels(
    ts: np.ndarray,
    curve: Mapping[str, np.ndarray],
    line: Mapping[str, np.ndarray],
    num_images: Mapping[str, int],
) -> list[Panel]:
    """Loss and error against t, on training and test images, for the curve and the straight line.

    Args:
        ts: Points, [T].
        curve: Columns `train_loss`, `train_accuracy`, `test_loss`, `test_accuracy`, each [T].
        line: The same columns on the straight line between the networks.
        num_images: Number of "train" and "test" images of these means.
    """
    panels = []
    for metric, ylabel in (("loss", "cross-entropy (nats)"), ("error", "error (%)")):
        lines = []
        for images, colour in (("train", BLUE), ("test", ORANGE)):
            for name, table in (("curve", curve), ("straight line", line)):
                lines.append(
                    Line(
                        f"{name}, {num_images[images]} {_FULL[images]} images",
                        _values(table, images, metric),
                        colour,
                        dotted=name != "curve",
                        ends=name == "curve",
                        band=_band(table, num_images[images])
                        if (name, images, metric) == ("curve", "test", "error")
                        else None,
                    )
                )
        panels.append(Panel(ts, lines, "t", ylabel, ylim=(0, None), xlim=T_LIMITS))
    return panels


def _band(table: Mapping[str, np.ndarray], num_images: int) -> tuple[np.ndarray, np.ndarray]:
    """The band of the test error."""
    return percent_band(1 - table["test_accuracy"], num_images)


_FULL = {"train": "training", "test": "test"}


def _values(table: Mapping[str, np.ndarray], images: str, metric: str) -> np.ndarray:
    if metric == "loss":
        return table[f"{images}_loss"]
    return percent_wrong(table[f"{images}_accuracy"])


def plane_figure(path: Path, surface: Mapping[str, np.ndarray]) -> None:
    """Draws test loss on the plane through start, bend and end, with the curve and the straight line.

    Args:
        path: The PNG to write.
        surface: "x" and "y" [N], "test_loss" [N, N] with one row per y, "trace" of the curve
            [M, 2], "points" [K, 2], the control points.
    """
    with figure(path, (COLUMN, 3.3)) as fig:
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
        axes.plot(ends[:, 0], ends[:, 1], "o", color="black", label="networks")
        axes.plot(points[1:-1, 0], points[1:-1, 1], "x", color=ORANGE, label="bend")
        axes.set(xlabel="weight distance along start to end", ylabel="weight distance across")
        fig.legend(loc="outside lower center", ncols=2)
