"""Figures of images in rows and columns."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mcjax.report.figures import ORANGE, figure, in_style, label

Rows = Mapping[str, np.ndarray]
"""{label of the row: images [n, H, W, C], uint8 or in [0, 1]}."""


def write_image_grid(
    path: Path, rows: Rows, framed: Mapping[str, np.ndarray] | None = None
) -> None:
    """Writes a figure with one row of images per entry.

    Args:
        path: The PNG to write; the PDF is written next to it.
        rows: Images by the label of their row, each row with the same number.
        framed: Which images of a row have a frame, [n], by the row's label.
    """
    with figure(path, _size(rows)) as fig:
        _fill(fig, rows, framed or {})


def drawn_image_grid(rows: Rows) -> Figure:
    """The same figure for a notebook: drawn, and not written.

    Args:
        rows: Images by the label of their row.

    Example:
        >>> len(drawn_image_grid({"clean": np.zeros([3, 8, 8, 1])}).axes)
        3
    """
    with in_style(_size(rows)) as fig:
        _fill(fig, rows, {})
        fig.canvas.draw()  # lays it out while the style holds
    return fig


def difference(images: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, float]:
    """The difference of two sets of images, as images: grey is no difference.

    Args:
        images: [n, H, W, C] in [0, 1].
        other: The images to subtract.

    Returns:
        0.5 + factor (images - other) / 2, in [0, 1], and the factor, with which the largest
        difference becomes black or white; 1 if the images are equal.

    Example:
        >>> shown, factor = difference(np.array([0.5, 0.75, 0.25]), np.array([0.5, 0.5, 0.5]))
        >>> shown.tolist(), factor
        ([0.5, 1.0, 0.0], 4.0)
    """
    change = np.asarray(images, np.float64) - other
    largest = np.abs(change).max()
    factor = 1 / largest if largest else 1.0
    return 0.5 + factor * change / 2, float(factor)


def _size(rows: Rows) -> tuple[float, float]:
    number = max(map(len, rows.values()))
    return 0.75 * number + 1.0, 0.78 * len(rows) + 0.1


def _fill(fig: Figure, rows: Rows, framed: Mapping[str, np.ndarray]) -> None:
    grid = fig.subplots(len(rows), max(map(len, rows.values())), squeeze=False)
    for line, (name, images) in zip(grid, rows.items(), strict=True):
        frames = framed.get(name, np.zeros(len(images), bool))
        for axes, image, frame in zip(line, images, frames, strict=True):
            axes.imshow(_shown(image), cmap="gray", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
            axes.grid(False)
            axes.spines[:].set(visible=bool(frame), color=ORANGE, linewidth=2)
        line[0].set_ylabel(label(name, 16), rotation="horizontal", ha="right", va="center")


def _shown(image: np.ndarray) -> np.ndarray:
    """An image [H, W, C] in [0, 1]: in colour if it has three channels, else the mean of channels."""
    unit = image / 255 if image.dtype == np.uint8 else image
    return unit if image.shape[-1] == 3 else unit.mean(-1)
