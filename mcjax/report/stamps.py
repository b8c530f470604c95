"""Grids of images: clean, with each trigger or after an attack, and the difference."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mcjax.attacks.poisoning.stamped import Trigger, stamp_examples
from mcjax.report.image_grid import difference, write_image_grid
from mcjax.report.panels import words


def stamps_figure(
    path: Path,
    examples: Mapping[str, np.ndarray],
    stamps: Mapping[str, Trigger],
    *,
    num_images: int = 8,
) -> None:
    """Draws a few images: clean in the first row, then two rows per trigger, the second the difference.

    Args:
        path: The PNG to write.
        examples: "image" [N, H, W, C] uint8 or in [0, 1], "label" [N]; the columns show the
            first image of each class, in the order of classes.
        stamps: The triggers, by the label of their row.
        num_images: The largest number of columns.
    """
    clean = one_per_class(examples, num_images)["image"]
    rows = {"clean": clean}
    for name, stamp in stamps.items():
        stamped = stamp_examples(stamp, clean)
        rows |= {words(name): stamped, **_change(words(name), stamped, clean)}
    write_image_grid(path, rows)


def adversarial_figure(
    path: Path, clean: np.ndarray, attacked: Mapping[float, tuple[np.ndarray, np.ndarray]]
) -> None:
    """Draws clean images, and per t the attacked ones and what the attack changed.

    Args:
        path: The PNG to write.
        clean: [N, H, W, C] in [0, 1].
        attacked: By t: the images after the attack [N, H, W, C], and whether the network at t
            misclassifies them [N], which a frame marks.
    """
    rows, framed = {"clean": clean}, {}
    for t, (images, wrong) in attacked.items():
        name = f"t = {t:g}"
        framed[name] = wrong
        rows |= {name: images, **_change(name, images, clean)}
    write_image_grid(path, rows, framed)


def one_per_class(examples: Mapping[str, np.ndarray], most: int = 8) -> dict[str, np.ndarray]:
    """The first example of each class, in the order of classes.

    Args:
        examples: Arrays with a leading axis [N], among them "label".
        most: Number of classes at most.
    """
    _, first = np.unique(examples["label"], return_index=True)
    return {name: values[first[:most]] for name, values in examples.items()}


def _change(name: str, images: np.ndarray, clean: np.ndarray) -> dict[str, np.ndarray]:
    shown, factor = difference(_unit(images), _unit(clean))
    return {f"{name}: difference x {factor:.2g}": shown}


def _unit(images: np.ndarray) -> np.ndarray:
    return images / 255 if images.dtype == np.uint8 else np.asarray(images)
