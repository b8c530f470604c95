"""Synthetic images with the shape of a real data set, to try any experiment in seconds."""

import numpy as np

from mcjax.data.dataset import Dataset
from mcjax.data.stratify import stream

NUM_TRAIN = 800
NUM_TEST = 400


def make(
    name: str,
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    dtype: type = np.uint8,
) -> Dataset:
    """Makes a small, easy data set: one pattern of blobs per class, plus noise.

    An image of class k is clip(p_k + 0.1 z), z ~ N(0, 1), where p_k is a sum of coloured Gaussian
    blobs at random positions drawn for the class. Classes are balanced in both parts.

    Args:
        name: The real data set's name; it also seeds the draw.
        image_shape: (height, width, channels).
        num_classes: Number of classes.
        dtype: uint8, or float32 for images in [0, 1].

    Returns:
        `NUM_TRAIN` + `NUM_TEST` images, named "fake:" + name; deterministic.

    Example:
        >>> make("cifar10", image_shape=(32, 32, 3), num_classes=10).train["image"].shape
        (800, 32, 32, 3)
    """
    rng = stream(0, f"fake:{name}")
    patterns = _patterns(rng, image_shape, num_classes)

    def part(size: int) -> dict[str, np.ndarray]:
        label = rng.permutation(np.arange(size) % num_classes).astype(np.int32)
        noise = rng.standard_normal((size, *image_shape), np.float32)
        image = np.clip(patterns[label] + 0.1 * noise, 0, 1)
        image = np.rint(image * 255).astype(np.uint8) if dtype == np.uint8 else image
        return {"image": image, "label": label}

    # At least two training images and one test image per class.
    return Dataset(
        name=f"fake:{name}",
        train=part(max(NUM_TRAIN, 2 * num_classes)),
        test=part(max(NUM_TEST, num_classes)),
        num_classes=num_classes,
        source=f"synthetic images with the shape of {name}",
    )


def _patterns(
    rng: np.random.Generator,
    image_shape: tuple[int, int, int],
    num_classes: int,
    num_blobs: int = 4,
) -> np.ndarray:
    """float32 [num_classes, H, W, C] in [0, 1]."""
    height, width, channels = image_shape
    y, x = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    centre = rng.uniform(0.1, 0.9, (num_classes, num_blobs, 2))
    colour = rng.uniform(-0.7, 0.7, (num_classes, num_blobs, channels))
    distance = np.square(y - centre[..., 0, None, None]) + np.square(x - centre[..., 1, None, None])
    blobs = np.exp(-distance / (2 * 0.15**2))
    pattern = 0.5 + np.einsum("kbhw,kbc->khwc", blobs, colour)
    return np.clip(pattern, 0, 1).astype(np.float32)
