"""The searches of Auto-PGD from one start: linf and l2 by momentum, l1 by sparse steps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mcjax.attacks.images.balls import BALLS, Ball, ascent, project_l1, sparse_direction
from mcjax.core.keys import stream

MOMENTUM = 0.75  # alpha
RHO = 0.75

RADII = (3.0, 2.0, 1.0)  # of the l1 search's stages, in units of eps
SHARES = (0.3, 0.3)  # of the steps, for the first two stages
SPARSER = 1.5  # the factor by which steps get sparser or shorter
STILL_DENSE = 0.95  # below this share of the earlier support the step size is reset
SHORTEST = 0.1  # the least step size, in units of the largest

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


class _Search(NamedTuple):
    """The state of the linf and l2 search, per example; notation as in the paper."""

    point: jax.Array  # to look at next
    x: jax.Array
    f: jax.Array
    x_max: jax.Array
    f_max: jax.Array
    gradient_max: jax.Array
    eta: jax.Array  # step size
    num_rises: jax.Array  # since the last checkpoint
    f_max_then: jax.Array  # f_max at the last checkpoint
    halved_then: jax.Array  # whether the step size was halved at the last checkpoint


class _SparseSearch(NamedTuple):
    """The state of the l1 search, per example."""

    point: jax.Array  # to look at next
    x_max: jax.Array
    f_max: jax.Array
    gradient_max: jax.Array
    eta: jax.Array
    num_moved: jax.Array  # entries that a step moves
    support: jax.Array  # changed entries of x_max at the last checkpoint


def nothing_found(x: jax.Array, active: jax.Array | None = None) -> Found:
    """A `Found` before the first search; images that are not active count as fooled already."""
    none = jnp.zeros(len(x), bool)
    return Found(x, jnp.full(len(x), -jnp.inf, x.dtype), none if active is None else ~active)


def random_start(key: jax.Array, x: jax.Array, eps: Any, norm: str) -> jax.Array:
    """The start of a search: a uniform point of the ball, in l1 a sparse one of three times its radius.

    Args:
        key: A key.
        x: Images, [B, H, W, C].
        eps: Radius of the ball.
        norm: "linf", "l2" or "l1".

    Returns:
        Images, [B, H, W, C], in [0, 1].
    """
    if norm == "l1":
        return project_l1(x, x + jax.random.normal(key, x.shape, x.dtype), RADII[0] * eps)
    return (x + BALLS[norm].start(key, x, eps)).clip(0, 1)


def random_starts(keys: jax.Array, x: jax.Array, eps: Any, norm: str) -> jax.Array:
    """As `random_start`, with a key per image, so that no start depends on other images.

    Args:
        keys: Keys, [B].
        x: Images, [B, H, W, C].
        eps: Radius of the ball.
        norm: "linf", "l2" or "l1".

    Returns:
        Images, [B, H, W, C], in [0, 1].
    """
    return jax.vmap(lambda key, one: random_start(key, one[None], eps, norm)[0])(keys, x)


def image_keys(key: jax.Array, indices: jax.Array) -> jax.Array:
    """A key per image, from its index, [B]."""
    return jax.vmap(lambda i: stream(key, "image", i))(indices)


def search(
    look: Look,
    x: jax.Array,
    start: jax.Array,
    eps: Any,
    found: Found,
    *,
    norm: str,
    num_steps: int,
    early_stop: bool = True,
) -> Found:
    """One start of Auto-PGD.

    Args:
        look: `look(step, images, found)` returns the gradient of the loss, [B, H, W, C], and per
            image the loss and whether it is misclassified; of images that found has as fooled it
            may return anything if early_stop is set.
        x: Images, [B, H, W, C].
        start: Where the search begins, [B, H, W, C]; see `random_start`.
        eps: Radius of the ball.
        found: The best images of earlier starts.
        norm: "linf", "l2" or "l1".
        num_steps: Steps.
        early_stop: Leave an image alone once it is misclassified.

    Returns:
        The best images of this start and of the earlier ones.

    Source: Croce & Hein 2020, algorithm 1; for l1 Croce & Hein 2021, sections 3 and 4.
    """
    eps = jnp.asarray(eps, x.dtype)
    if norm == "l1":
        return _search_l1(look, x, start, eps, found, num_steps, early_stop)
    return _search(look, x, start, eps, found, BALLS[norm], num_steps, early_stop)


def checkpoints(num_steps: int) -> np.ndarray:
    """The steps w_1, w_2, ... after which step sizes can be halved.

    Args:
        num_steps: Total number of steps.

    Returns:
        Ascending integers in [1, num_steps].

    Example:
        >>> checkpoints(100).tolist()
        [22, 41, 57, 70, 80, 87, 93, 99]

    Source: Croce & Hein 2020, section 4.1.
    """
    percents, gap = [22], 22  # integer percent, for exact arithmetic
    while (following := percents[-1] + max(gap - 3, 6)) <= 100:
        gap = following - percents[-1]
        percents.append(following)
    return np.unique([-(-p * num_steps // 100) for p in percents])


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


def _keep(found: Found, x: jax.Array, f: jax.Array, fooled: jax.Array, early_stop: bool) -> Found:
    better = (fooled & ~found.fooled) | ((fooled == found.fooled) & (f > found.loss))
    if early_stop:
        better &= ~found.fooled
    return Found(
        _where(better, x, found.x),
        jnp.where(better, f, found.loss),
        found.fooled | fooled,
    )


def _search(
    look: Look,
    x: jax.Array,
    start: jax.Array,
    eps: jax.Array,
    found: Found,
    ball: Ball,
    num_steps: int,
    early_stop: bool,
) -> Found:
    ends = checkpoints(num_steps)
    is_checkpoint = jnp.zeros(num_steps + 1, bool).at[ends].set(True)
    # For each checkpoint, the number of steps since the previous one.
    length = (
        jnp.zeros(num_steps + 1, jnp.int32).at[ends].set(np.diff(ends, prepend=0).astype(np.int32))
    )

    def body(state: tuple[jax.Array, _Search, Found]) -> tuple[jax.Array, _Search, Found]:
        """Looks at a point, which the loop's first pass does at the start, and finds the next."""
        k, s, found = state
        first = k == 0
        gradient, (f, fooled) = look(k, s.point, found)
        found = _keep(found, s.point, f, fooled, early_stop)
        higher = f > s.f_max
        x_old = jnp.where(first, s.point, s.x)
        s = s._replace(
            x=s.point, f=f,
            x_max=_where(higher, s.point, s.x_max),
            f_max=jnp.where(higher, f, s.f_max),
            gradient_max=_where(higher, gradient, s.gradient_max),
            num_rises=s.num_rises + ((f > s.f) & ~first),
        )  # fmt: skip
        s = s._replace(f_max_then=jnp.where(first, s.f_max, s.f_max_then))
        s, gradient = lax.cond(
            is_checkpoint[k], at_checkpoint, lambda _, s, g: (s, g), length[k], s, gradient
        )
        z = ball.project(x, s.x + s.eta * ascent(ball, gradient, s.x), eps)
        alpha = jnp.where(first, 1.0, MOMENTUM).astype(x.dtype)
        point = ball.project(x, s.x + alpha * (z - s.x) + (1 - alpha) * (s.x - x_old), eps)
        return k + 1, s._replace(point=point), found

    def at_checkpoint(num: jax.Array, s: _Search, gradient: jax.Array) -> tuple[_Search, jax.Array]:
        oscillates = s.num_rises < RHO * num
        stuck = ~s.halved_then & (s.f_max <= s.f_max_then)
        halve = oscillates | stuck
        halved = s._replace(
            x=_where(halve, s.x_max, s.x),
            f=jnp.where(halve, s.f_max, s.f),
            eta=_where(halve, s.eta / 2, s.eta),
            num_rises=jnp.zeros_like(s.num_rises),
            f_max_then=s.f_max,
            halved_then=halve,
        )
        return halved, _where(halve, s.gradient_max, gradient)

    lowest = jnp.full(len(x), -jnp.inf, x.dtype)
    begin = _Search(
        start, start, lowest, start, lowest, jnp.zeros_like(x),
        eta=jnp.full((len(x), 1, 1, 1), 2 * eps, x.dtype),
        num_rises=jnp.zeros(len(x), jnp.int32), f_max_then=lowest,
        halved_then=jnp.zeros(len(x), bool),
    )  # fmt: skip
    state = (jnp.asarray(0), begin, found)
    return lax.while_loop(_unfinished(num_steps + 1, early_stop), body, state)[2]


def _search_l1(
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
        kept = _keep(found, s.point, f, fooled, early_stop)
        found = jax.tree.map(lambda new, old: jnp.where(inside[i], new, old), kept, found)
        higher = f > s.f_max
        s = s._replace(
            x_max=_where(higher, s.point, s.x_max),
            f_max=jnp.where(higher, f, s.f_max),
            gradient_max=_where(higher, gradient, s.gradient_max),
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
        eta = _where(sparser, jnp.full_like(s.eta, radius), s.eta / SPARSER)
        s = s._replace(
            eta=jnp.maximum(eta, SHORTEST * radius), num_moved=num_entries(support), support=support
        )
        return _where(sparser, s.x_max, z), _where(sparser, s.gradient_max, gradient), s

    start = project_l1(x, start, radii[0])
    support = support_of(start)
    begin = _SparseSearch(
        start, start, jnp.full(len(x), -jnp.inf, x.dtype), jnp.zeros_like(x),
        jnp.full((len(x), 1, 1, 1), radii[0], x.dtype), num_entries(support), support,
    )  # fmt: skip
    return lax.while_loop(_unfinished(total, early_stop), body, (jnp.asarray(0), begin, found))[2]


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


def _unfinished(num_looks: int, early_stop: bool) -> Callable[[Any], jax.Array]:
    def unfinished(state: tuple[jax.Array, Any, Found]) -> jax.Array:
        k, _, found = state
        more = k < num_looks
        return more & ~found.fooled.all() if early_stop else more

    return unfinished


def _where(condition: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.where(condition[:, None, None, None], a, b)
