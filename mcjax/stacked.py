"""Presents a list of networks as a path, so that `evaluate_path` can evaluate them."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mcjax.tree import PyTree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Stacked:
    """Trees with the same structure, stacked along a new first axis.

    Args:
        trees: Leaves [N, ...].
    """

    trees: PyTree

    @classmethod
    def of(cls, trees: Sequence[PyTree]) -> "Stacked":
        """Stacks trees with the same structure.

        Example:
            >>> Stacked.of([{"w": jnp.zeros(2)}, {"w": jnp.ones(2)}])(1)
            {'w': Array([1., 1.], dtype=float32)}
        """
        return cls(jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees))

    def __call__(self, i: jax.typing.ArrayLike) -> PyTree:
        """The tree at index i; i may be traced, and an integer or a float."""
        place = jnp.asarray(i).astype(jnp.int32)
        return jax.tree.map(lambda leaf: leaf[place], self.trees)
