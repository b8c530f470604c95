"""Networks side by side as a path: t is a network's place, so that a path's evaluation serves."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mcjax.core.tree import PyTree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Stacked:
    """Trees of one structure, stacked along a new first axis.

    Args:
        trees: Leaves [N, ...].
    """

    trees: PyTree

    @classmethod
    def of(cls, trees: Sequence[PyTree]) -> "Stacked":
        """Stacks trees of one structure.

        Example:
            >>> Stacked.of([{"w": jnp.zeros(2)}, {"w": jnp.ones(2)}])(1)
            {'w': Array([1., 1.], dtype=float32)}
        """
        return cls(jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees))

    def __call__(self, i: jax.typing.ArrayLike) -> PyTree:
        """The tree at place i, a whole number of any type, traced or not."""
        place = jnp.asarray(i).astype(jnp.int32)
        return jax.tree.map(lambda leaf: leaf[place], self.trees)
