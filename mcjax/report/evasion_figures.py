"""The figures of an evasion run: the paper's figure 4 for every path, and the transfer matrices."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mcjax.report.figures import BLUE, ORANGE, figure

GREEN = "#009E73"


def path_figure(
    path: Path, name: str, table: Mapping[str, np.ndarray], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Loss, error and eigenvalue against t, with the correlation in the title.

    Args:
        path: The PNG to write.
        name: The path's.
        table: Columns of path.csv, each [T].
        rows: Rows of table.csv of this path, one a seed; the first is drawn.
    """
    row, ts = rows[0], table["t"]
    with figure(path, (10, 3.4)) as fig:
        loss, error, curvature = fig.subplots(1, 3)
        loss.plot(ts, table["train_loss"], ":", color=BLUE, label="training")
        loss.plot(ts, table["test_loss"], color=BLUE, label="test")
        loss.plot(ts, table["robust_loss"], color=ORANGE, label="test, attacked")
        loss.set(xlabel="t", ylabel="cross-entropy (nats)", ylim=(0, None))
        error.plot(ts, 100 * (1 - table["train_accuracy"]), ":", color=BLUE, label="training")
        error.plot(ts, 100 * (1 - table["test_accuracy"]), color=BLUE, label="test")
        error.plot(ts, 100 * (1 - table["robust_accuracy"]), color=ORANGE, label="test, attacked")
        error.set(xlabel="t", ylabel="error (%)", ylim=(-2, 102))
        low, middle, high = (v for k, v in table.items() if "quantile" in k)
        curvature.plot(ts, table["input_hessian_eigenvalue"], color=GREEN, label="mean")
        curvature.plot(ts, middle, ":", color=GREEN, label="median, 10 to 90 % shaded")
        curvature.fill_between(ts, low, high, color=GREEN, alpha=0.15, lw=0)
        curvature.set(xlabel="t", ylabel="largest input-Hessian eigenvalue", ylim=(0, None))
        for axes in (loss, error, curvature):
            axes.legend(fontsize=8)
        fig.suptitle(
            f"{name}: correlation of robust loss and eigenvalue {row['pearson']:.3f} "
            f"[{row['pearson_low']:.3f}, {row['pearson_high']:.3f}]",
            fontsize=10,
        )


def transfer_figure(path: Path, matrices: Mapping[str, Any]) -> None:
    """Accuracy at t' on images made against t, a panel a path.

    Args:
        path: The PNG to write.
        matrices: By path: "t" and "matrix", rows the attacked points.
    """
    if not matrices:
        return
    with figure(path, (2.6 * len(matrices) + 0.8, 2.9)) as fig:
        panels = fig.subplots(1, len(matrices), squeeze=False)[0]
        for axes, (name, found) in zip(panels, matrices.items(), strict=True):
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
            axes.set_title(name.replace(" (", "\n("), fontsize=8)
            axes.set(xlabel="tried at t", ylabel="made against t")
        fig.colorbar(image, ax=list(panels), label="accuracy (%)")
