"""The l1 search of Auto-PGD: sparse steps in balls of decreasing radius."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mcjax.attacks.images.auto_pgd_found import Found, Look, keep, unfinished, where_image
from mcjax.attacks.images.balls import project_l1, sparse_direction

RADII = (3.0, 2.0, 1.0)  # of the l1 search's stages, in units of eps
SHARES = (0.3, 0.3)  # of the steps, for the first two stages
SPARSER = 1.5  # the factor by which steps get sparser or shorter
STILL_DENSE = 0.95  # below this share of the earlier support the step size is reset
SHORTEST = 0.1  # the least step size, in units of the largest


class _SparseSearch(NamedTuple):
    """The state of the l1 search, per example."""

    point: jax.Array  # to look at next
    x_max: jax.Array
    f_max: jax.Array
    gradient_max: jax.Array
    eta: jax.Array
    num_moved: jax.Array  # entries that a step moves
    support: jax.Array  # changed entries of x_max at the last checkpoint


def stages(num_steps: int) -> list[tuple[float, int]]:
    """The stages of an l1 search: the radius in units of eps, and the number of steps.

    Example:
        >>> stages(100), stages(2)
        ([(3.0, 30), (2.0, 30), (1.0, 40)], [(1.0, 2)])

    Source: Croce & Hein 2021, section 4 (multi-eps).
    """
    counts = [int(share * num_steps) for share in SHARES]
    counts.append(num_steps - sum(counts))
    return [(radius, n) for radius, n in zip(RADII, counts, strict=True) if n]


def search_l1(
    look: Look,
    x: jax.Array,
    start: jax.Array,
    eps: jax.Array,
    found: Found,
    num_steps: int,
    early_stop: bool,
) -> Found:
    """Stages in balls of decreasing radius; each begins at the best point of the one before.

    A step moves num_moved entries. Every 4 % of a stage's steps, num_moved becomes `num_entries` of the best
    point's support; where that support shrank by more than 5 %, the step size is reset to the radius and
    the search returns to its best point, elsewhere the step size is divided by 1.5.
    """
    plan = stages(num_steps)
    # Per look: the radius, whether it is a checkpoint, and whether the stage ends with it.
    radii = jnp.asarray(np.concatenate([[r] * (n + 1) for r, n in plan]), x.dtype) * eps
    steps = [np.arange(n + 1) for _, n in plan]
    every = [max(int(0.04 * n), 1) for _, n in plan]
    is_checkpoint = jnp.asarray(
        np.concatenate([(k > 0) & (k % m == 0) for k, m in zip(steps, every, strict=True)])
    )
    ends = jnp.asarray(np.concatenate([k == k[-1] for k in steps]))
    total = len(radii)
    inside = radii == radii[-1]  # earlier stages leave the ball

    def support_of(z: jax.Array) -> jax.Array:
        return (z != x).sum((1, 2, 3))

    def body(state: tuple[jax.Array, _SparseSearch, Found]) -> Any:
        """Looks at a point, which a stage's first pass does at its start, and finds the next."""
        i, s, found = state
        gradient, (f, fooled) = look(i, s.point, found)
        gradient = jnp.nan_to_num(gradient)
        kept = keep(found, s.point, f, fooled, early_stop)
        found = jax.tree.map(lambda new, old: jnp.where(inside[i], new, old), kept, found)
        higher = f > s.f_max
        s = s._replace(
            x_max=where_image(higher, s.point, s.x_max),
            f_max=jnp.where(higher, f, s.f_max),
            gradient_max=where_image(higher, gradient, s.gradient_max),
        )
        z, gradient, s = lax.cond(
            is_checkpoint[i], at_checkpoint, lambda _, z, g, s: (z, g, s),
            radii[i], s.point, gradient, s,
        )  # fmt: skip
        moved = z + s.eta * sparse_direction(gradient, z, s.num_moved)
        following = jnp.minimum(i + 1, total - 1)
        point = project_l1(x, jnp.where(ends[i], s.x_max, moved), radii[following])
        return i + 1, next_state(ends[i], point, radii[following], s), found

    def next_state(
        is_new_stage: jax.Array, point: jax.Array, radius: jax.Array, s: _SparseSearch
    ) -> _SparseSearch:
        support = support_of(point)
        fresh = s._replace(
            x_max=point,
            f_max=jnp.full_like(s.f_max, -jnp.inf),
            eta=jnp.full_like(s.eta, radius),
            num_moved=num_entries(support),
            support=support,
        )
        s = jax.tree.map(lambda new, old: jnp.where(is_new_stage, new, old), fresh, s)
        return s._replace(point=point)

    def at_checkpoint(
        radius: jax.Array, z: jax.Array, gradient: jax.Array, s: _SparseSearch
    ) -> Any:
        support = support_of(s.x_max)
        sparser = support < STILL_DENSE * s.support
        eta = where_image(sparser, jnp.full_like(s.eta, radius), s.eta / SPARSER)
        s = s._replace(
            eta=jnp.maximum(eta, SHORTEST * radius), num_moved=num_entries(support), support=support
        )
        return where_image(sparser, s.x_max, z), where_image(sparser, s.gradient_max, gradient), s

    start = project_l1(x, start, radii[0])
    support = support_of(start)
    begin = _SparseSearch(
        start, start, jnp.full(len(x), -jnp.inf, x.dtype), jnp.zeros_like(x),
        jnp.full((len(x), 1, 1, 1), radii[0], x.dtype), num_entries(support), support,
    )  # fmt: skip
    return lax.while_loop(unfinished(total, early_stop), body, (jnp.asarray(0), begin, found))[2]


def num_entries(support: jax.Array) -> jax.Array:
    """How many entries a step in l1 moves: a support divided by 1.5, rounded down, at least 1.

    Rounded up, as by the published code, a support of 2 would never become 1; on 64 pixels about 5 % more
    images withstand then (`benchmarks.sparse_steps`).

    Args:
        support: Number of entries in which the best point differs from the image, int [B].

    Returns:
        int32 [B].

    Example:
        >>> num_entries(jnp.arange(1, 8)).tolist()
        [1, 1, 2, 2, 3, 4, 4]
    """
    return jnp.maximum((support / SPARSER).astype(jnp.int32), 1)
