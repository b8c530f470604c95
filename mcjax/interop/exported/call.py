"""What an operator is told about the call it computes: training mode, random keys, batch size."""

import dataclasses
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import jax

from mcjax.core.keys import stream
from mcjax.interop.exported.values import Value

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """One call of an operator.

    Args:
        training: Whether the network is in training mode.
        key: A random key of the network's pass; None if there is none.
        index: The call's place in the program.
        given: Shape of the first argument in the exported example; None for a constant input.
        result: Shape of the (first) result in the exported example.
        num_images: (number of images in the example, number now).
        any_batch: Whether the program's sizes are already those of this batch.
    """

    training: bool = False
    key: jax.Array | None = None
    index: int = 0
    given: Shape | None = None
    result: Shape | None = None
    num_images: tuple[int, int] = (1, 1)
    any_batch: bool = False

    def random_key(self) -> jax.Array:
        """The key of this call.

        Raises:
            ValueError: There is none.
        """
        if self.key is None:
            raise ValueError("dropout needs a random key")
        return stream(self.key, "operator", self.index)

    def shape_of(self, x: Value, sizes: Sequence[int]) -> Shape:
        """The shape to give to a reshaped array.

        A program has the example's batch size in its sizes. If x has another size along an axis than
        in the example, that axis holds the images, and the result has one that is scaled likewise.

        Args:
            x: The array.
            sizes: The sizes in the program.
        """
        if self.any_batch or self.given is None or self.result is None:
            return resolved(x.shape, sizes)
        return rescaled(x.shape, self.given, self.result, self.num_images[0])

    def new_shape(self, sizes: Sequence[int]) -> Shape:
        """The shape of a new array; a first axis as long as the example's batch is the batch's.

        Args:
            sizes: The sizes in the program.
        """
        before, now = self.num_images
        sizes = tuple(int(n) for n in sizes)
        if self.any_batch or before == 1 or not sizes or sizes[0] != before:
            return sizes
        return (now, *sizes[1:])


def resolved(shape: Shape, sizes: Sequence[int]) -> Shape:
    """Replaces the -1 in sizes.

    Example:
        >>> resolved((2, 6), (4, -1))
        (4, 3)
    """
    known = math.prod(n for n in sizes if n != -1)
    return tuple(math.prod(shape) // max(known, 1) if n == -1 else int(n) for n in sizes)


def rescaled(shape: Shape, before: Shape, after: Shape, num_images: int) -> Shape:
    """The shape after a reshape, for a batch of another size than the example's.

    The images' axis has the same number of elements in front of it before and after.

    Args:
        shape: The shape now.
        before: The shape in the example.
        after: The shape after the reshape in the example.
        num_images: The example's number of images.

    Returns:
        `after`, with one axis scaled.

    Example:
        >>> rescaled((6, 8, 4), (2, 8, 4), (2, 32), 2)  # two images in the example, six now
        (6, 32)
        >>> rescaled((8, 12, 4), (8, 4, 4), (8, 2, 2, 4), 2)  # the second axis is 2 heads * images
        (8, 6, 2, 4)
    """
    changed = [i for i, (n, m) in enumerate(zip(shape, before, strict=True)) if n != m]
    if not changed:
        return after
    axis = changed[0]
    scale = Fraction(shape[axis], before[axis])
    in_front = math.prod(before[:axis])

    def fits(i: int, *, exactly: bool) -> bool:
        outer = math.prod(after[:i])
        starts = outer == in_front if exactly else outer <= in_front and in_front % outer == 0
        return starts and outer * after[i] % (in_front * num_images) == 0

    places = [i for e in (True, False) for i in range(len(after)) if fits(i, exactly=e)]
    if len(changed) > 1 or not places or (scale * after[places[0]]).denominator != 1:
        raise ValueError(
            f"{list(before)} is reshaped to {list(after)} in a way that depends on the number of "
            "images; export the program with dynamic_shapes={0: torch.export.Dim('batch')}"
        )
    i = places[0]
    return (*after[:i], int(scale * after[i]), *after[i + 1 :])


