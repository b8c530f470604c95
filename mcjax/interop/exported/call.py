"""What an operator is told about the call it computes: training mode, random keys, batch size."""

import dataclasses
import math
from collections.abc import Sequence
from fractions import Fraction

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

    def shape_of(self, x: Value, sizes: Sequence[int]) -> tuple[Shape, int]:
        """The shape to give to a reshaped array.

        A program has the example's batch size in its sizes. If x has another size along an axis than
        in the example, that axis holds the images, and the result has one that is scaled likewise.

        Args:
            x: The array.
            sizes: The sizes in the program.

        Returns:
            The shape, and `Value.inner` of the result.
        """
        if self.any_batch or self.given is None or self.result is None:
            return resolved(x.shape, sizes), 1
        return rescaled(x.shape, self.given, self.result, self.num_images[0], x.inner)

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


def rescaled(
    shape: Shape, before: Shape, after: Shape, num_images: int, inner: int = 1
) -> tuple[Shape, int]:
    """The shape after a reshape, for a batch of another size than the example's.

    The images have the same number of elements in front of them before and after.

    Args:
        shape: The shape now.
        before: The shape in the example.
        after: The shape after the reshape in the example.
        num_images: The example's number of images.
        inner: `Value.inner` before.

    Returns:
        `after`, with one axis scaled, and `Value.inner` after.

    Raises:
        ValueError: There is no such axis.

    Example:
        >>> rescaled((6, 8, 4), (2, 8, 4), (2, 32), 2)  # two images in the example, six now
        ((6, 32), 1)
        >>> rescaled((8, 6, 4), (8, 2, 4), (16, 4), 2)  # the images are behind the 8
        ((48, 4), 8)
    """
    changed = [i for i, (n, m) in enumerate(zip(shape, before, strict=True)) if n != m]
    if not changed:
        return after, 1
    axis = changed[0]
    scale = Fraction(shape[axis], before[axis])
    front = math.prod(before[:axis]) * inner

    def fits(i: int, *, exactly: bool) -> bool:
        outer = math.prod(after[:i])
        starts = outer == front if exactly else outer <= front and front % outer == 0
        return starts and outer * after[i] % (front * num_images) == 0

    places = [i for e in (True, False) for i in range(len(after)) if fits(i, exactly=e)]
    if before[axis] == 1 and len(after) < len(before) and 1 not in after:
        # One image in the example, whose axis is gone. Either neighbour could hold it; networks
        # merge it with the axis in front of it, as in [length * B, C].
        places = [i for i in range(len(after)) if math.prod(after[: i + 1]) == front] or places
    if len(changed) > 1 or not places or (scale * after[places[0]]).denominator != 1:
        raise ValueError(
            f"{list(before)} is reshaped to {list(after)} in a way that depends on the number of "
            "images; export the program with dynamic_shapes=({0: torch.export.Dim('batch')},)"
        )
    i = places[0]
    return (*after[:i], int(scale * after[i]), *after[i + 1 :]), front // math.prod(after[:i])
