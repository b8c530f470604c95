"""What Auto-PGD's searches share: what they look with, and the best images that they have found."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Look = Callable[[Any, jax.Array, "Found"], tuple[jax.Array, tuple[jax.Array, jax.Array]]]
"""`look(step, images, found) -> gradient, (loss [B], fooled [B])`; see `search`."""


class Found(NamedTuple):
    """The best adversarial images of all starts so far.

    Attributes:
        x: Images, [B, H, W, C].
        loss: Their losses, [B].
        fooled: Whether they are misclassified, bool [B].
    """

    x: jax.Array
    loss: jax.Array
    fooled: jax.Array


def nothing_found(x: jax.Array, active: jax.Array | None = None) -> Found:
    """A `Found` before the first search; images that are not active count as fooled already."""
    none = jnp.zeros(len(x), bool)
    return Found(x, jnp.full(len(x), -jnp.inf, x.dtype), none if active is None else ~active)


def keep(found: Found, x: jax.Array, f: jax.Array, fooled: jax.Array, early_stop: bool) -> Found:
    """Keeps images x that are better than those found: misclassified first, then of larger loss f.

    With early_stop images that fool the network already stay as they are.
    """
    better = (fooled & ~found.fooled) | ((fooled == found.fooled) & (f > found.loss))
    if early_stop:
        better &= ~found.fooled
    return Found(
        where_image(better, x, found.x),
        jnp.where(better, f, found.loss),
        found.fooled | fooled,
    )


def unfinished(num_looks: int, early_stop: bool) -> Callable[[Any], jax.Array]:
    """The condition of a loop of looks whose state is (look, ..., found)."""

    def goes_on(state: tuple[jax.Array, Any, Found]) -> jax.Array:
        k, _, found = state
        more = k < num_looks
        return more & ~found.fooled.all() if early_stop else more

    return goes_on


def where_image(condition: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """Whole images of a or b, by a condition per image, [B]."""
    return jnp.where(condition[:, None, None, None], a, b)
