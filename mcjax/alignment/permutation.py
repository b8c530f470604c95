"""Permutations of a network's hidden channels, and the axes they apply to."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from mcjax.core.errors import UserError
from mcjax.core.keys import stream
from mcjax.core.tree import PyTree, path_name

Permutations = tuple[np.ndarray, ...]
"""One per class of a spec, int [n]: channel i of the permuted network is channel p[i] of the old."""

Axis = tuple[tuple[int, int | None], ...]
"""(size, class or None) of each factor of an axis, outermost first; None is not permuted."""


class Tap(NamedTuple):
    """Where a class's channels can be read: in the output of a convolution or a matrix product.

    Args:
        place: Index of that operation among the network's convolutions and matrix products, in
            the order of execution.
        axis: The axis of its output, [B, ...], whose entries are the channels.
    """

    place: int
    axis: int


class PermutationSpec(NamedTuple):
    """The axes that can be permuted together without changing a network's function.

    Args:
        sizes: Number of channels of each class; a class is a set of axes that share a permutation.
        axes: The axes of each leaf, by its path ("params/conv1/kernel").
        not_understood: Operations without a rule, whose axes are fixed.
        taps: Per class, the first operation whose output has its channels; None if there is none.
    """

    sizes: tuple[int, ...]
    axes: dict[str, tuple[Axis, ...]]
    not_understood: tuple[str, ...] = ()
    taps: tuple[Tap | None, ...] = ()

    def members(self, which: int) -> dict[str, tuple[int, ...]]:
        """The leaves that a class permutes, with the permuted axes of each.

        Args:
            which: The class, from 0.
        """
        found = {
            path: tuple(i for i, axis in enumerate(axes) if any(k == which for _, k in axis))
            for path, axes in self.axes.items()
        }
        return {path: axes for path, axes in found.items() if axes}


def identity(spec: PermutationSpec) -> Permutations:
    """The identity permutation of each class."""
    return tuple(np.arange(n) for n in spec.sizes)


def random_permutations(key: jax.Array, spec: PermutationSpec) -> Permutations:
    """A random permutation of each class."""
    return tuple(
        np.asarray(jax.random.permutation(stream(key, "permutation", i), n))
        for i, n in enumerate(spec.sizes)
    )


def permute(spec: PermutationSpec, permutations: Permutations, variables: PyTree) -> PyTree:
    """Permutes a network's hidden channels; its function does not change.

    Args:
        spec: The network's spec, from `permutation_spec`.
        permutations: One per class of the spec.
        variables: The network's variables, including running statistics.

    Returns:
        A tree like `variables`, of numpy arrays.

    Raises:
        UserError: The spec does not fit the network.

    Example:
        >>> spec = PermutationSpec((2,), {"w": (((3, None),), ((2, 0),))})
        >>> permute(spec, (np.array([1, 0]),), {"w": np.arange(6).reshape(3, 2)})["w"]
        array([[1, 0],
               [3, 2],
               [5, 4]])
    """

    def leaf(path: jax.tree_util.KeyPath, w: np.ndarray) -> np.ndarray:
        shape = np.shape(w)
        factored, classes = factors(spec, path, w)
        return reorder(factored, classes, permutations).reshape(shape)

    return jax.tree.map_with_path(leaf, variables)


def factors(
    spec: PermutationSpec, path: jax.tree_util.KeyPath, w: np.ndarray
) -> tuple[np.ndarray, tuple[int | None, ...]]:
    """Reshapes a leaf to one axis per factor; also returns the class of each axis.

    Raises:
        UserError: The leaf does not fit the spec.
    """
    name = path_name(path)
    axes = spec.axes.get(name, ())
    lengths = tuple(int(np.prod([n for n, _ in axis], dtype=int)) for axis in axes)
    if name not in spec.axes or lengths != np.shape(w):
        raise UserError(
            f"the permutations are for a different network: {name} has shape {np.shape(w)}, but "
            f"{lengths if name in spec.axes else 'is missing'} in the spec"
        )
    flat = [factor for axis in axes for factor in axis]
    return np.asarray(w).reshape([n for n, _ in flat]), tuple(k for _, k in flat)


def reorder(
    w: np.ndarray, classes: Sequence[int | None], permutations: Sequence[np.ndarray | None]
) -> np.ndarray:
    """Permutes each axis of a leaf with one axis per factor by its class (None: unchanged)."""
    for axis, k in enumerate(classes):
        order = None if k is None else permutations[k]
        if order is not None:
            w = np.take(w, order, axis)
    return w
