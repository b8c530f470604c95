"""Values of a running program: arrays that may be stored channels last.

PyTorch's images are [B, C, H, W], but convolutions are faster on [B, H, W, C]. A `Value` has
PyTorch's shape, and says how its array is stored.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

TO_LAST = (0, 2, 3, 1)
TO_FIRST = (0, 3, 1, 2)


@dataclasses.dataclass(frozen=True, slots=True)
class Value:
    """An array of a program.

    Args:
        array: The array, [B, H, W, C] if `channels_last`, else of PyTorch's shape.
        channels_last: Whether it is stored so; only arrays of rank 4 can be.
        inner: Where images and something else share an axis, [17 * B, C] say, how many of the other
            are in front of the images: 17; else 1.

    Example:
        >>> image = Value(jnp.zeros([2, 8, 9, 3]), channels_last=True)
        >>> image.shape, image.plain().shape
        ((2, 3, 8, 9), (2, 3, 8, 9))
    """

    array: jax.Array
    channels_last: bool = False
    inner: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """PyTorch's shape."""
        shape = self.array.shape
        return tuple(shape[i] for i in TO_FIRST) if self.channels_last else tuple(shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.array.ndim

    def plain(self) -> jax.Array:
        """The array in PyTorch's order of axes."""
        return self.array.transpose(TO_FIRST) if self.channels_last else self.array

    def images(self) -> jax.Array:
        """The array [B, H, W, C] of images [B, C, H, W]."""
        if self.ndim != 4:
            raise ValueError(f"{self.ndim} axes where images [B, C, H, W] are expected")
        return self.array if self.channels_last else self.array.transpose(TO_LAST)


def common(values: list[Any]) -> tuple[list[Any], bool]:
    """Arrays of one rank, for an elementwise operation.

    Shorter shapes are extended by axes of length 1 on the left, as in PyTorch. If one value is
    stored channels last, so are all.

    Args:
        values: `Value`s and Python numbers, which are returned unchanged.

    Returns:
        The arrays, and whether they are stored channels last.

    Example:
        >>> image, scale = Value(jnp.ones([2, 8, 9, 3]), True), Value(jnp.ones([3, 1, 1]))
        >>> (_, one), last = common([image, scale])
        >>> one.shape, last
        ((1, 1, 1, 3), True)
    """
    rank = max((v.ndim for v in values if isinstance(v, Value)), default=0)
    last = rank == 4 and any(isinstance(v, Value) and v.channels_last for v in values)
    return [_widened(v, rank, last) if isinstance(v, Value) else v for v in values], last


def _widened(value: Value, rank: int, last: bool) -> jax.Array:
    if value.ndim == 0 or (value.ndim == rank and value.channels_last == last):
        return value.array
    array = value.plain()
    array = array.reshape((1,) * (rank - array.ndim) + array.shape)
    return array.transpose(TO_LAST) if last else array


def unwrapped(value: Any) -> Any:
    """A value's array in PyTorch's order; also of the values in lists."""
    if isinstance(value, Value):
        return value.plain()
    if isinstance(value, tuple | list):
        return tuple(map(unwrapped, value))
    return value


def wrapped(result: Any, *, channels_last: bool = False) -> Any:
    """The opposite: results of an operator as values."""
    if isinstance(result, tuple | list):
        return tuple(wrapped(r, channels_last=channels_last) for r in result)
    if isinstance(result, Value | int | float) or result is None:
        return result
    array = jnp.asarray(result)
    return Value(array, channels_last and array.ndim == 4)
