"""Images and labels that a user gives: checked, and as arrays."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mcjax.core.errors import UserError, shown
from mcjax.data import objects
from mcjax.data.dataset import check_channels_last
from mcjax.data.pictures import Reading
from mcjax.data.transforms import Normalisation

Examples = dict[str, np.ndarray]


def given_examples(
    name: str, examples: Any, normalisation: Normalisation | None = None
) -> Examples:
    """Checks and converts images and labels that a user gives.

    Args:
        name: What messages call them.
        examples: "image" [N, H, W, C] (or [N, H, W]) uint8 or in [0, 1], "label" [N]; or a data set of
            torchvision, PyTorch or Hugging Face (`mcjax.data.objects`).
        normalisation: What the network does to images in [0, 1]; a data set whose transform
            normalises otherwise is refused.

    Returns:
        "image", uint8 or float32, and "label", integers of the given type.

    Raises:
        UserError: One of them is missing, a shape or dtype is wrong, images are outside [0, 1], or a
            data set can't be read.

    Example:
        >>> given_examples("my", {"x": np.zeros((2, 8, 8)), "label": [0, 1]})
        Traceback (most recent call last):
        mcjax.core.errors.UserError: my images have no image (they have x, label); ...
    """
    if objects.fits(examples):
        found = objects.read(f"{name} images", examples, Reading())
        channels = found.examples["image"].shape[-1]
        own, networks = (
            n and n.per_channel(channels) for n in (found.normalisation, normalisation)
        )
        if own not in (None, networks):
            raise UserError(
                f"{name} images have a transform that normalises by {found.normalisation}, the network by "
                f"{normalisation or 'nothing'}; give the network the same: "
                "mcjax.from_torch(..., transform=...) or mcjax.models.network.normalised"
            )
        examples = found.examples
    if not isinstance(examples, Mapping):
        raise UserError(
            f"{name} images are {shown(examples)}; give a dict "
            '{"image": images, "label": labels}, or a data set'
        )
    missing = [key for key in ("image", "label") if key not in examples]
    if missing:
        raise UserError(
            f"{name} images have no {' and no '.join(missing)} (they have "
            f'{", ".join(map(str, examples)) or "nothing"}); give "image" [N, H, W, C] and "label" [N]'
        )
    try:
        image, label = np.asarray(examples["image"]), np.asarray(examples["label"])
    except ValueError as error:  # ragged lists
        raise UserError(
            f"{name} images or labels are not an array ({error}); give arrays"
        ) from None
    if image.ndim == 3:
        image = image[..., None]
    if image.ndim != 4 or len(image) == 0 or label.shape != image.shape[:1]:
        raise UserError(
            f"{name} images have shape {image.shape} and labels {label.shape}; give [N, H, W, C] "
            "and [N] (label.reshape(-1))"
        )
    check_channels_last(f"{name} images", image.shape)
    if not np.issubdtype(label.dtype, np.integer):
        raise UserError(f"{name} labels are {label.dtype}; give integers")
    if image.dtype != np.uint8:
        if not np.issubdtype(image.dtype, np.floating):
            raise UserError(f"{name} images are {image.dtype}; give uint8, or floats in [0, 1]")
        image = image.astype(np.float32)
        if np.isnan(image).any():
            raise UserError(f"{name} images contain NaN; remove those images")
        if not (image.min() >= 0 and image.max() <= 1):
            bytes_as_floats = image.min() >= 0 and image.max() <= 255
            raise UserError(
                f"{name} images lie in [{image.min():g}, {image.max():g}]; give uint8, or floats "
                f"in [0, 1]{' (divide by 255)' if bytes_as_floats else ''}"
            )
    return {"image": image, "label": label}


def given_labels(name: str, label: np.ndarray, num_classes: int) -> np.ndarray:
    """Labels as int32.

    Args:
        name: What messages call them.
        label: Integers, [N].
        num_classes: Number of the network's classes.

    Raises:
        UserError: A label is no class of the network.
    """
    if label.min() < 0 or label.max() >= num_classes:
        from_one = label.min() == 1 and label.max() == num_classes
        raise UserError(
            f"{name} labels lie in [{label.min()}, {label.max()}], but the network has "
            f"{num_classes} classes; give 0 to {num_classes - 1}{' (subtract 1)' if from_one else ''}"
        )
    return label.astype(np.int32)  # after the check: 2^32 would become class 0
