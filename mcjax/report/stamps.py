"""The figure of stamped images, which shows each trigger."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mcjax.attacks.poisoning.stamped import Trigger, stamp_examples
from mcjax.report.figures import figure


def stamps_figure(
    path: Path,
    examples: Mapping[str, np.ndarray],
    stamps: Mapping[str, Trigger],
    *,
    num_images: int = 8,
) -> None:
    """Draws a few images: clean in the first row, then one row per trigger.

    Args:
        path: The PNG to write.
        examples: "image" [N, H, W, C] uint8 or in [0, 1], "label" [N]; the columns show the
            first image of each class, in the order of classes.
        stamps: The triggers, by the label of their row.
        num_images: The largest number of columns.
    """
    _, first = np.unique(examples["label"], return_index=True)
    clean = examples["image"][first[:num_images]]
    rows = {"clean": clean, **{name: stamp_examples(s, clean) for name, s in stamps.items()}}
    size = (0.75 * len(clean) + 1.0, 0.78 * len(rows) + 0.1)
    with figure(path, size) as fig:
        grid = fig.subplots(len(rows), len(clean), squeeze=False)
        for line, (name, images) in zip(grid, rows.items(), strict=True):
            for axes, image in zip(line, images, strict=True):
                axes.imshow(_shown(image), cmap="gray", vmin=0, vmax=1)
                axes.set(xticks=[], yticks=[])
                axes.grid(False)
                axes.spines[:].set_visible(False)
            line[0].set_ylabel(
                name.replace("_", " "), rotation="horizontal", ha="right", va="center"
            )


def _shown(image: np.ndarray) -> np.ndarray:
    """An image [H, W, C] in [0, 1]: in colour if it has three channels, else the mean of channels."""
    unit = image / 255 if image.dtype == np.uint8 else image
    return unit if image.shape[-1] == 3 else unit.mean(-1)
