"""The figure of stamped images, which shows each trigger."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mcjax.attacks.poisoning.stamped import Trigger, stamp_examples
from mcjax.report.image_grid import write_image_grid


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
    stamped = {name.replace("_", " "): stamp_examples(s, clean) for name, s in stamps.items()}
    write_image_grid(path, {"clean": clean, **stamped})
