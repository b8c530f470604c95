"""Triggers as pure functions of images, and stamping images on the host.

`Trigger` is the interface. `Stamp` is an affine map per pixel, x' = clip(scale * x + shift, 0, 1):
(scale, shift) is (0, colour) for a patch, (1 - alpha, alpha * pattern) for blending and (1, signal)
for an additive signal.
"""

import abc
import dataclasses
import functools
import itertools
from collections.abc import Callable, Hashable
from typing import Any

import jax
import numpy as np

from mcjax.core.errors import UserError
from mcjax.core.keys import stream

ImageShape = tuple[int, int, int]

_CHUNK = 4096  # images that are converted to float at a time


class Trigger(abc.ABC):
    """A pure function of images, made by `triggers.create`.

    Triggers with equal contents are equal and have equal hashes, so a trigger can be a static
    argument of jit. A subclass has a `name` and an `image_shape`, and defines `stamp` and `contents`;
    one with `cover` > 0 also defines `decoy`.
    """

    name: str
    """The trigger's name."""

    cover: float = 0.0
    """Fraction of the training images that the attack stamps with a decoy; `poison` uses it."""

    @property
    @abc.abstractmethod
    def image_shape(self) -> ImageShape:
        """(height, width, channels) of the images it stamps."""

    @property
    @abc.abstractmethod
    def contents(self) -> Hashable:
        """All that the function depends on."""

    @abc.abstractmethod
    def stamp(self, x: Any) -> Any:
        """Stamps floats of the right shape; `__call__` checks them and clips the result to [0, 1]."""

    def decoy(self, key: jax.Array, x: Any) -> Any:
        """Stamps images with something like the trigger, which the network must not react to.

        Args:
            key: Random key.
            x: [N, H, W, C] floats in [0, 1]; a NumPy or JAX array, traced or not.

        Returns:
            The images, of the same shape and dtype.

        Raises:
            UserError: The trigger has no decoy.
        """
        raise UserError(f"trigger {self.name!r} has no decoy; use cover=0")

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
        self.check_shape(x.shape)
        if np.issubdtype(x.dtype, np.integer):
            raise TypeError(f"images are {x.dtype}; give floats in [0, 1], or use stamp_examples")
        return self.stamp(x).clip(0, 1)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @functools.cached_property
    def _key(self) -> Hashable:
        return self.name, self.image_shape, self.cover, self.contents

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Checks the shape of images.

        Raises:
            UserError: They have a different height, width or number of channels.
        """
        if tuple(shape[-3:]) != self.image_shape:
            raise UserError(
                f"trigger {self.name!r} is for images {list(self.image_shape)}, but these are "
                f"{list(shape[-3:])}; create it with their shape"
            )


@dataclasses.dataclass(frozen=True, eq=False)
class Stamp(Trigger):
    """x' = clip(scale * x + shift, 0, 1).

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
            object.__setattr__(self, field, constant(getattr(self, field)))

    @property
    def image_shape(self) -> ImageShape:
        """(height, width, channels) of the images it stamps."""
        height, width, channels = self.scale.shape
        return height, width, channels

    @property
    def contents(self) -> Hashable:
        """The two arrays."""
        return self.scale.tobytes(), self.shift.tobytes()

    def stamp(self, x: Any) -> Any:
        """The affine map."""
        lead = (1,) * (x.ndim - 3)
        scale, shift = (
            array.reshape(*lead, *array.shape).astype(x.dtype) for array in (self.scale, self.shift)
        )
        return scale * x + shift


def constant(array: Any) -> np.ndarray:
    """A float32 copy of an array that can't be changed."""
    array = np.array(array, np.float32)
    array.setflags(write=False)
    return array


def stamp_examples(trigger: Trigger, image: np.ndarray) -> np.ndarray:
    """Stamps uint8 or float images on the host.

    Args:
        trigger: The trigger.
        image: [N, H, W, C] or [H, W, C], uint8, or float in [0, 1].

    Returns:
        A new array of the same shape and dtype; uint8 values are rounded.

    Raises:
        UserError: The images have a different shape or are outside [0, 1].
        TypeError: The images are neither uint8 nor float.

    Example:
        >>> from mcjax.attacks.poisoning.triggers import create
        >>> stamp = create("blended", (1, 1, 1), alpha=0.25, pattern=np.ones((1, 1)))
        >>> stamp_examples(stamp, np.array([[[[100]]]], np.uint8)).item()  # 0.75 * 100 + 0.25 * 255
        139
    """
    return _on_host(trigger, image, lambda i, x: trigger(x))


def decoy_examples(trigger: Trigger, key: jax.Array, image: np.ndarray) -> np.ndarray:
    """Stamps uint8 or float images with the trigger's decoy on the host.

    Args:
        trigger: A trigger with a decoy.
        key: Random key.
        image: [N, H, W, C], uint8, or float in [0, 1].

    Returns:
        A new array of the same shape and dtype; uint8 values are rounded.

    Raises:
        UserError: The trigger has no decoy; the images have a different shape or are outside [0, 1].
        TypeError: The images are neither uint8 nor float.

    Example:
        >>> from mcjax.attacks.poisoning.triggers import create
        >>> image = np.arange(128, dtype=np.uint8).reshape(2, 8, 8, 1)
        >>> decoys = decoy_examples(create("wanet", (8, 8, 1)), jax.random.key(0), image)
        >>> decoys.shape, bool((decoys != image).any())
        ((2, 8, 8, 1), True)
    """
    return _on_host(trigger, image, lambda i, x: trigger.decoy(stream(key, "chunk", i), x))


def _on_host(
    trigger: Trigger, image: np.ndarray, fn: Callable[[int, np.ndarray], Any]
) -> np.ndarray:
    """Applies `fn(i, x)` to chunk i of the images as floats, and gives back their dtype."""
    trigger.check_shape(image.shape)
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
        raise TypeError(f"images are {image.dtype}; give uint8, or floats in [0, 1]")
    # NaN fails too.
    if image.size and image.dtype != np.uint8 and not (image.min() >= 0 and image.max() <= 1):
        raise UserError(
            f"images lie in [{image.min()}, {image.max()}]; scale them to [0, 1], without NaN or inf"
        )
    flat = image.reshape(-1, *trigger.image_shape)
    out = np.empty_like(flat)
    # Chunks of equal size: a decoy may need two images.
    limits = np.linspace(0, len(flat), -(-len(flat) // _CHUNK) + 1).astype(int)
    for i, (start, end) in enumerate(itertools.pairwise(limits)):
        part = flat[start:end]
        if image.dtype == np.uint8:
            out[start:end] = np.rint(255 * fn(i, part.astype(np.float32) / 255))
        else:
            out[start:end] = fn(i, part)
    return out.reshape(image.shape)
