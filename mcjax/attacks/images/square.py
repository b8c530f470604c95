"""Square: random search with square windows, without gradients."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mcjax.attacks.checks import (
    check_choice,
    check_count,
    check_examples,
    check_logits,
    check_radius,
    check_sizes,
)
from mcjax.attacks.images.active_examples import of_active
from mcjax.attacks.images.attack_losses import margin
from mcjax.attacks.images.auto_pgd_search import image_keys
from mcjax.attacks.images.balls import BALLS, INSIDE
from mcjax.attacks.images.pgd import LogitsFn
from mcjax.attacks.images.square_windows import bump, tiles, window_sizes
from mcjax.core.keys import stream
from mcjax.core.tree import as_partial

QUERIES_AT_ONCE = 50  # between two selections of the images that go on


class _State(NamedTuple):
    """The search, per example."""

    best: jax.Array
    loss: jax.Array
    fooled: jax.Array


def square(
    key: jax.Array,
    logits_fn: LogitsFn,
    x: jax.Array,
    y: jax.Array,
    *,
    eps: float,
    norm: str = "linf",
    num_queries: int = 5000,
) -> jax.Array:
    """min_{|delta| <= eps} z_y - max_{j != y} z_j by random search over square windows.

    A proposal that lowers the loss replaces the image. In linf every pixel is at x + eps or x - eps: at
    first in vertical stripes; a proposal sets a window to one sign per channel. In l2 and l1 a
    proposal adds a bump to one window, with the norm of another window (which becomes x) and what is
    left of eps. The window covers p = 0.8 of the image, halved after 10, 50, 200, 500, 1000, 2000 and 4000
    queries.

    Args:
        key: Key of the search.
        logits_fn: `logits_fn(x) -> logits [b, classes]` for any number b of images; an example's
            logits must not depend on other examples (evaluation mode). It need not be
            differentiable.
        x: Images, [B, H, W, C], in [0, 1].
        y: Labels, [B].
        eps: Radius of the ball, in units of the images.
        norm: "linf", "l2" or "l1".
        num_queries: Evaluations of the network per image.

    Returns:
        Images, [B, H, W, C], within eps of x and within [0, 1]: misclassified if one was found, else
        that of the lowest loss.

    Raises:
        UserError: norm is unknown; eps is not a single number of at least 0; num_queries is less
            than 1; there are no images, or they are outside [0, 1]; labels are not valid classes;
            labels or logits have the wrong shape.

    Example:
        >>> x, y = jnp.full((1, 1, 1, 2), 0.5), jnp.array([0])
        >>> logits_fn = lambda x: x[:, 0, 0, :] + jnp.array([[0.4, 0.0]])
        >>> square(jax.random.key(0), logits_fn, x, y, eps=0.25, num_queries=50)[0, 0, 0]
        Array([0.25, 0.75], dtype=float32)

    Source: Andriushchenko et al. 2020, algorithms 1 to 3; for l1 Croce & Hein 2021, section 5.
    """
    check_choice("norm", norm, list(BALLS))
    check_sizes(eps=eps)
    check_count("num_queries", num_queries)
    logits_fn = as_partial(logits_fn)
    check_examples(logits_fn, x, y)
    check_radius(eps, norm, jnp.shape(x))
    return _square(key, logits_fn, x, y, eps, norm=norm, num_queries=num_queries)


@partial(jax.jit, static_argnames=("norm", "num_queries"))
def _square(
    key: jax.Array,
    logits_fn: LogitsFn,
    x: jax.Array,
    y: jax.Array,
    eps: Any,
    *,
    norm: str,
    num_queries: int,
) -> jax.Array:
    keys = image_keys(key, jnp.arange(len(x)))
    active = jnp.ones(len(x), bool)
    found = square_round(keys, logits_fn, x, y, eps, active, norm=norm, num_queries=num_queries)
    return lax.stop_gradient(found[0])


def square_round(
    keys: jax.Array,
    logits_fn: LogitsFn,
    x: jax.Array,
    y: jax.Array,
    eps: Any,
    active: jax.Array,
    *,
    norm: str,
    num_queries: int,
) -> tuple[jax.Array, jax.Array]:
    """`square` on the active images.

    Args:
        keys: A key per image, [B].
        logits_fn: See `square`.
        x: Images, [B, H, W, C].
        y: Labels, [B].
        eps: Radius of the ball.
        active: The images to attack, bool [B].
        norm: See `square`.
        num_queries: Likewise.

    Returns:
        The images, [B, H, W, C], and whether an active image is now misclassified, bool [B].
    """
    eps = jnp.asarray(eps, x.dtype)
    start, propose = (
        _linf(x, eps, num_queries)
        if norm == "linf"
        else _l2_or_l1(x, eps, num_queries, {"l2": 2, "l1": 1}[norm])
    )

    def look(z: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = check_logits(logits_fn(z), len(z))
        loss = -margin(logits, y).astype(z.dtype)
        return loss, (logits.argmax(-1) != y) & ~jnp.isnan(loss)

    def several(
        query: jax.Array, key_data: jax.Array, x: jax.Array, y: jax.Array, *state: Any
    ) -> Any:
        keys, first = _keys(key_data), query.max()
        last = jnp.minimum(first + QUERIES_AT_ONCE, num_queries)

        def unfinished(carry: tuple[jax.Array, _State]) -> jax.Array:
            return (carry[0] < last) & ~carry[1].fooled.all()

        def one(carry: tuple[jax.Array, _State]) -> tuple[jax.Array, _State]:
            i, s = carry

            def new(keys: jax.Array, x: jax.Array, best: jax.Array) -> jax.Array:
                return jax.vmap(propose, (0, None, 0, 0))(keys, i - 1, x, best)

            def first_one(keys: jax.Array, x: jax.Array, _: jax.Array) -> jax.Array:
                return jax.vmap(start)(keys, x)

            own = jax.vmap(lambda key: stream(key, "square", i))(keys)
            z = lax.cond(i == 0, first_one, new, own, x, s.best)
            loss, fooled = look(z, y)
            better = ((loss < s.loss) | fooled) & ~s.fooled
            new_state = _State(z, loss, s.fooled | fooled)
            return i + 1, jax.tree.map(partial(_where, better), new_state, s)

        return lax.while_loop(unfinished, one, (first, _State(*state)))[1]

    def more(carry: tuple[jax.Array, _State]) -> jax.Array:
        return (carry[0] < num_queries) & ~carry[1].fooled.all()

    def stretch(carry: tuple[jax.Array, _State]) -> tuple[jax.Array, _State]:
        i, s = carry
        query = jnp.broadcast_to(i, len(x))
        new = of_active(several, ~s.fooled, query, data, x, y, *s)
        return i + QUERIES_AT_ONCE, jax.tree.map(partial(_where, ~s.fooled), new, s)

    data = jax.random.key_data(keys)
    nothing = _State(x, jnp.full(len(x), jnp.inf, x.dtype), ~active)
    _, found = lax.while_loop(more, stretch, (jnp.asarray(0), nothing))
    return found.best, found.fooled & active


def _keys(data: jax.Array) -> jax.Array:
    return jax.random.wrap_key_data(data)


def _linf(x: jax.Array, eps: jax.Array, num_queries: int) -> tuple[Any, Any]:
    """The start and the proposals in linf, for one image [H, W, C]."""
    _, height, width, channels = x.shape
    sizes = jnp.asarray(window_sizes(num_queries, height, width, "linf"))
    rows, columns = jnp.arange(height)[:, None, None], jnp.arange(width)[None, :, None]

    def start(key: jax.Array, x: jax.Array) -> jax.Array:
        sign = jax.random.rademacher(key, (1, width, channels), x.dtype)
        return (x + eps * sign).clip(0, 1)

    def propose(key: jax.Array, i: jax.Array, x: jax.Array, best: jax.Array) -> jax.Array:
        size = sizes[i]
        where, which = jax.random.split(key)
        top, left = _corner(where, height, width, size)
        sign = jax.random.rademacher(which, (1, 1, channels), x.dtype)
        return jnp.where(
            _in_window(rows, columns, top, left, size), (x + eps * sign).clip(0, 1), best
        )

    return start, propose


def _l2_or_l1(x: jax.Array, eps: jax.Array, num_queries: int, order: int) -> tuple[Any, Any]:
    """The start and the proposals in l2 and l1, for one image [H, W, C]; order is that of the norm."""
    _, height, width, channels = x.shape
    sizes = window_sizes(num_queries, height, width, f"l{order}")
    different, which_size = np.unique(sizes, return_inverse=True)
    # Every bump at the centre of an empty canvas: a slice of it has the bump wherever it is wanted.
    canvas = np.zeros((len(different), 2 * height, 2 * width), np.float32)
    for i, s in enumerate(different):
        canvas[i, height : height + s, width : width + s] = bump(s, order)
    bumps = jnp.asarray(np.stack([canvas, _transposed(canvas, height, width)], 1), x.dtype)
    all_sizes, index = jnp.asarray(sizes), jnp.asarray(which_size, jnp.int32)
    rows, columns = jnp.arange(height)[:, None, None], jnp.arange(width)[None, :, None]
    radius = eps * INSIDE

    def power(v: jax.Array) -> jax.Array:
        return jnp.abs(v) if order == 1 else v * v

    def root(v: jax.Array) -> jax.Array:
        return v if order == 1 else jnp.sqrt(v)

    def within(x: jax.Array, delta: jax.Array) -> jax.Array:
        size = root(power(delta).sum())
        return (x + delta * jnp.minimum(1, radius / jnp.maximum(size, 1e-12))).clip(0, 1)

    def start(key: jax.Array, x: jax.Array) -> jax.Array:
        pattern, tile = tiles(height, width, order)
        sign = jax.random.rademacher(key, (int(tile.max()) + 1, channels), x.dtype)[tile]
        delta = jnp.asarray(pattern, x.dtype)[:, :, None] * sign
        return within(x, delta * (radius / root(power(delta).sum())))

    def propose(key: jax.Array, i: jax.Array, x: jax.Array, best: jax.Array) -> jax.Array:
        size = all_sizes[i]
        first, second, turn, signs = jax.random.split(key, 4)
        top, left = _corner(first, height, width, size)
        one = _in_window(rows, columns, top, left, size)
        other = _in_window(rows, columns, *_corner(second, height, width, size), size)
        delta = best - x
        mass = power(delta)

        def per_channel(v: jax.Array) -> jax.Array:
            return v.sum((0, 1), keepdims=True)

        unused = jnp.maximum(power(radius) - mass.sum(), 0)
        available = root(per_channel(jnp.where(one | other, mass, 0)) + unused / channels)
        turned = jax.random.bernoulli(turn).astype(jnp.int32)
        shape = lax.dynamic_slice(
            bumps, (index[i], turned, height - top, width - left), (1, 1, height, width)
        ).reshape(height, width, 1)
        sign = jax.random.rademacher(signs, (1, 1, channels), x.dtype)
        inside = jnp.where(one, mass, 0)
        old = jnp.where(one, delta, 0) / jnp.maximum(root(per_channel(inside)), 1e-12)
        new = shape * sign + old
        new = new * (available / jnp.maximum(root(per_channel(power(new))), 1e-12))
        return within(x, jnp.where(one, new, jnp.where(other, 0, delta)))

    return start, propose


def _transposed(canvas: np.ndarray, height: int, width: int) -> np.ndarray:
    """The same canvases with every bump transposed in its place."""
    turned = np.zeros_like(canvas)
    side = min(height, width)
    place = np.s_[:, height : height + side, width : width + side]
    turned[place] = canvas[place].transpose(0, 2, 1)
    return turned


def _corner(
    key: jax.Array, height: int, width: int, size: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The upper left corner of a window of that size, uniform over its places in the image."""
    u = jax.random.uniform(key, (2,))
    room = jnp.array([height, width], jnp.int32) - size
    return tuple(jnp.minimum((u * (room + 1)).astype(jnp.int32), room))


def _in_window(
    rows: jax.Array, columns: jax.Array, top: jax.Array, left: jax.Array, size: jax.Array
) -> jax.Array:
    in_rows = (rows >= top) & (rows < top + size)
    return in_rows & (columns >= left) & (columns < left + size)


def _where(condition: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.where(condition.reshape(-1, *[1] * (a.ndim - 1)), a, b)
