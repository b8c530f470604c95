"""Stamping images by an affine map per pixel, x' = clip(scale * x + shift, 0, 1).

(scale, shift) is (0, colour) for a patch, (1 - alpha, alpha * pattern) for blending and (1, signal)
for an additive signal.
"""

import dataclasses
import functools
from typing import Any

import numpy as np

from mcjax.errors import UserError

ImageShape = tuple[int, int, int]

_CHUNK = 4096  # images that `stamp_examples` converts to float at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Stamp:
    """x' = clip(scale * x + shift, 0, 1), a pure function of images, made by `triggers.create`.

    Stamps with equal contents are equal and have equal hashes, so a stamp can be a static argument of
    jit.

    Args:
        name: The trigger's name.
        scale: float32 [H, W, C].
        shift: float32 [H, W, C].
    """

    name: str
    scale: np.ndarray = dataclasses.field(repr=False)
    shift: np.ndarray = dataclasses.field(repr=False)

    def __post_init__(self):
        for field in ("scale", "shift"):
            array = np.array(getattr(self, field), np.float32)
            array.setflags(write=False)
            object.__setattr__(self, field, array)

    def __call__(self, x: Any) -> Any:
        """Stamps images.

        Args:
            x: [..., H, W, C] floats in [0, 1]; a NumPy or JAX array, traced or not.

        Returns:
            The stamped images, of the same kind, shape and dtype.

        Raises:
            UserError: The images have a different height, width or number of channels.
            TypeError: The images are not floats; for uint8 see `stamp_examples`.
        """
        self._check_shape(x.shape)
        if np.issubdtype(x.dtype, np.integer):
            raise TypeError(f"images are {x.dtype}; give floats in [0, 1], or use stamp_examples")
        lead = (1,) * (x.ndim - 3)
        scale, shift = (
            array.reshape(*lead, *array.shape).astype(x.dtype) for array in (self.scale, self.shift)
        )
        return (scale * x + shift).clip(0, 1)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stamp) and self._contents == other._contents

    def __hash__(self) -> int:
        return hash(self._contents)

    @property
    def image_shape(self) -> ImageShape:
        """(height, width, channels) of the images it stamps."""
        height, width, channels = self.scale.shape
        return height, width, channels

    @functools.cached_property
    def _contents(self) -> tuple[str, tuple[int, ...], bytes, bytes]:
        return self.name, self.scale.shape, self.scale.tobytes(), self.shift.tobytes()

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if tuple(shape[-3:]) != self.image_shape:
            raise UserError(
                f"trigger {self.name!r} is for images {list(self.image_shape)}, but these are "
                f"{list(shape[-3:])}; create it with their shape"
            )


def stamp_examples(stamp: Stamp, image: np.ndarray) -> np.ndarray:
    """Stamps uint8 or float images on the host.

    Args:
        stamp: The trigger.
        image: [N, H, W, C] or [H, W, C], uint8, or float in [0, 1].

    Returns:
        A new array of the same shape and dtype; uint8 values are rounded.

    Raises:
        UserError: The images have a different shape or are outside [0, 1].
        TypeError: The images are neither uint8 nor float.

    Example:
        >>> from mcjax.attacks.triggers import create
        >>> stamp = create("blended", (1, 1, 1), alpha=0.25, pattern=np.ones((1, 1)))
        >>> stamp_examples(stamp, np.array([[[[100]]]], np.uint8)).item()  # 0.75 * 100 + 0.25 * 255
        139
    """
    stamp._check_shape(image.shape)
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
        raise TypeError(f"images are {image.dtype}; give uint8, or floats in [0, 1]")
    # NaN fails too.
    if image.size and image.dtype != np.uint8 and not (image.min() >= 0 and image.max() <= 1):
        raise UserError(
            f"images lie in [{image.min()}, {image.max()}]; scale them to [0, 1], without NaN or inf"
        )
    flat = image.reshape(-1, *stamp.image_shape)
    out = np.empty_like(flat)
    for i in range(0, len(flat), _CHUNK):
        part = flat[i : i + _CHUNK]
        if image.dtype == np.uint8:
            out[i : i + _CHUNK] = np.rint(255 * stamp(part.astype(np.float32) / 255))
        else:
            out[i : i + _CHUNK] = stamp(part)
    return out.reshape(image.shape)
