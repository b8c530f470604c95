"""The searches of Auto-PGD from one start: linf and l2 by momentum here, l1 in `sparse_search`."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mcjax.attacks.images.auto_pgd_found import Found, Look, keep, unfinished, where_image
from mcjax.attacks.images.balls import BALLS, Ball, ascent, project_l1
from mcjax.attacks.images.sparse_search import RADII, search_l1
from mcjax.core.keys import stream

MOMENTUM = 0.75  # alpha
RHO = 0.75


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
        return search_l1(look, x, start, eps, found, num_steps, early_stop)
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
        found = keep(found, s.point, f, fooled, early_stop)
        higher = f > s.f_max
        x_old = jnp.where(first, s.point, s.x)
        s = s._replace(
            x=s.point, f=f,
            x_max=where_image(higher, s.point, s.x_max),
            f_max=jnp.where(higher, f, s.f_max),
            gradient_max=where_image(higher, gradient, s.gradient_max),
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
            x=where_image(halve, s.x_max, s.x),
            f=jnp.where(halve, s.f_max, s.f),
            eta=where_image(halve, s.eta / 2, s.eta),
            num_rises=jnp.zeros_like(s.num_rises),
            f_max_then=s.f_max,
            halved_then=halve,
        )
        return halved, where_image(halve, s.gradient_max, gradient)

    lowest = jnp.full(len(x), -jnp.inf, x.dtype)
    begin = _Search(
        start, start, lowest, start, lowest, jnp.zeros_like(x),
        eta=jnp.full((len(x), 1, 1, 1), 2 * eps, x.dtype),
        num_rises=jnp.zeros(len(x), jnp.int32), f_max_then=lowest,
        halved_then=jnp.zeros(len(x), bool),
    )  # fmt: skip
    state = (jnp.asarray(0), begin, found)
    return lax.while_loop(unfinished(num_steps + 1, early_stop), body, state)[2]
