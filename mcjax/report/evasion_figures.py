"""The figures of an evasion run: the paper's figure 4 for each path, and the transfer matrices."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mcjax.report.figures import COLUMN, TEXT, figure
from mcjax.report.panels import (
    BLUE,
    GREEN,
    ORANGE,
    PERCENT_LIMITS,
    T_LIMITS,
    Line,
    Panel,
    percent_band,
    percent_wrong,
)


def path_panels(table: Mapping[str, np.ndarray], num_images: Mapping[str, int]) -> list[Panel]:
    """Loss, error and eigenvalue against t.

    Args:
        table: Columns of path.csv, each [T].
        num_images: Number of "train", "test" and "robust" (attacked test) images.
    """
    ts = table["t"]
    labels = {
        "train": f"{num_images['train']} training images",
        "test": f"{num_images['test']} test images",
        "robust": f"{num_images['robust']} test images, attacked",
    }
    style = {"train": (BLUE, True), "test": (BLUE, False), "robust": (ORANGE, False)}

    def lines(values: Mapping[str, np.ndarray], bands: Mapping[str, Any]) -> list[Line]:
        return [
            Line(labels[name], y, style[name][0], dotted=style[name][1], band=bands.get(name))
            for name, y in values.items()
        ]

    losses = {name: table[f"{name}_loss"] for name in labels}
    errors = {name: percent_wrong(table[f"{name}_accuracy"]) for name in labels}
    bands = {
        name: percent_band(1 - table[f"{name}_accuracy"], num_images[name])
        for name in ("test", "robust")
    }
    low, middle, high = (v for k, v in table.items() if "eigenvalue_quantile" in k)
    curvature = [
        Line("eigenvalue, mean", table["input_hessian_eigenvalue"], GREEN),
        Line("its median; shaded 10 to 90 %", middle, GREEN, dotted=True, band=(low, high)),
    ]
    return [
        Panel(ts, lines(losses, {}), "t", "cross-entropy (nats)", ylim=(0, None), xlim=T_LIMITS),
        Panel(ts, lines(errors, bands), "t", "error (%)", ylim=PERCENT_LIMITS, xlim=T_LIMITS),
        Panel(ts, curvature, "t", "input-Hessian eigenvalue", ylim=(0, None), xlim=T_LIMITS),
    ]


def path_title(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """A path's name and its correlation, as the title of its figure.

    Args:
        name: The path's name.
        rows: Rows of table.csv of this path, one per seed; the figure shows the first seed.
    """
    row = rows[0]
    return (
        f"{name}: correlation of robust loss and eigenvalue {row['pearson']:.3f} "
        f"[{row['pearson_low']:.3f}, {row['pearson_high']:.3f}]"
    )


def transfer_figure(path: Path, matrices: Mapping[str, Any]) -> None:
    """Draws accuracy at t' on images made against t, one panel per path.

    Args:
        path: The PNG to write.
        matrices: "t" and "matrix" by path; a matrix has one row per attacked point.
    """
    if not matrices:
        return
    columns = min(3, len(matrices))
    rows = -(-len(matrices) // columns)
    width = COLUMN if columns == 1 else TEXT
    with figure(path, (width, 2.4 * rows)) as fig:
        grid = fig.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for axes in grid.ravel()[len(matrices) :]:
            axes.axis("off")
        for axes, (name, found) in zip(grid.ravel(), matrices.items(), strict=False):
            ts = np.array(found["t"])
            edge = (ts[1] - ts[0]) / 2
            image = axes.imshow(
                100 * np.array(found["matrix"]),
                origin="lower",
                extent=(-edge, 1 + edge, -edge, 1 + edge),
                vmin=0,
                vmax=100,
                cmap="viridis",
            )
            axes.grid(False)
            axes.set_title(name.replace(" (", "\n("))
            axes.set(xlabel="tried at t", ylabel="made against t")
            axes.label_outer()
        fig.colorbar(image, ax=grid, label="accuracy (%)")
