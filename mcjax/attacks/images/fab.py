"""Targeted FAB: a search for the nearest misclassified image."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mcjax.attacks.checks import (
    check_choice,
    check_count,
    check_examples,
    check_logits,
    check_radius,
    check_sizes,
    count_targets,
)
from mcjax.attacks.images.active_examples import of_active
from mcjax.attacks.images.attack_losses import likely_class, margin, targeted_margin
from mcjax.attacks.images.balls import BALLS, INSIDE, size_in
from mcjax.attacks.images.hyperplane import step_to_hyperplane
from mcjax.attacks.images.pgd import LogitsFn
from mcjax.core.keys import stream
from mcjax.core.tree import as_partial

ETA = 1.05  # overshoot
BETA = 0.9  # how far a success moves back towards the image
ALPHA_MAX = 0.1  # the largest weight of the step from the image
FINAL_STEPS = 3
FINAL_SHARE = 0.99  # of a final step towards the linear estimate of the boundary, to stay beyond it
STEPS_AT_ONCE = 10  # between two selections of the images that go on


class _State(NamedTuple):
    """The search, per example."""

    z: jax.Array  # iterate
    best: jax.Array  # nearest misclassified image
    distance: jax.Array  # of best; inf if there is none
    done: jax.Array


def fab(
    key: jax.Array,
    logits_fn: LogitsFn,
    x: jax.Array,
    y: jax.Array,
    *,
    eps: float | None = None,
    norm: str = "linf",
    num_steps: int = 100,
    num_targets: int | None = None,
    num_restarts: int = 1,
) -> jax.Array:
    """The smallest delta such that x + delta is misclassified, by FAB for each likely class t.

    Linearising z_t - z_y at x_k gives a hyperplane. With d_k the smallest step from x_k to it, and d
    that from x, both within the box,

        x_{k+1} = clip((1 - a) (x_k + 1.05 d_k) + a (x + 1.05 d)),  a = min(|d_k| / (|d_k| + |d|), 0.1).

    A misclassified x_{k+1} is kept if it is the nearest so far, and moved towards x:
    x_{k+1} <- 0.1 x + 0.9 x_{k+1}. Three final steps look for the boundary on the line from x to the nearest.
    The targets are those of `apgd_targeted`.

    Args:
        key: Key of the random starts; the first restart begins at x.
        logits_fn: `logits_fn(x) -> logits [b, classes]` for any number b of images; an example's
            logits must not depend on other examples (evaluation mode).
        x: Images, [B, H, W, C], in [0, 1].
        y: Labels, [B].
        eps: Radius of the ball, in units of the images. If given, an image is finished once it is
            misclassified within eps.
        norm: "linf", "l2" or "l1".
        num_steps: Steps per target.
        num_targets: Number of targets. Default: 9, or all other classes if there are fewer.
        num_restarts: Number of starts per target. Later ones begin at a random point at most half
            as far as the nearest misclassified image.

    Returns:
        The nearest misclassified images found, [B, H, W, C], within [0, 1]. Unchanged: images that
        are misclassified already, those for which none was found, and with eps those for which none
        was found within eps.

    Raises:
        UserError: norm is unknown; eps is not a single number of at least 0; num_steps, num_targets
            or num_restarts is less than 1; num_targets exceeds the number of other classes; there are no
            images, or they are outside [0, 1]; labels are not valid classes; labels or logits have
            the wrong shape.

    Example:
        >>> x, y = jnp.full((1, 1, 1, 2), 0.5), jnp.array([0])
        >>> logits_fn = lambda x: x[:, 0, 0, :] + jnp.array([[0.2, 0.0]])
        >>> fab(jax.random.key(0), logits_fn, x, y)[0, 0, 0].round(3)
        Array([0.4, 0.6], dtype=float32)

    Source: Croce & Hein 2020 (FAB), algorithm 1; with targets, Croce & Hein 2020 (AutoAttack), section 5.
    """
    check_choice("norm", norm, list(BALLS))
    if eps is not None:
        check_sizes(eps=eps)
    check_count("num_steps", num_steps)
    check_count("num_restarts", num_restarts)
    logits_fn = as_partial(logits_fn)
    num_targets = count_targets(num_targets, check_examples(logits_fn, x, y))
    if eps is not None:
        check_radius(eps, norm, jnp.shape(x))
    return _fab(
        key, logits_fn, x, y, eps,
        norm=norm, num_steps=num_steps, num_targets=num_targets, num_restarts=num_restarts,
    )  # fmt: skip


def fab_round(
    logits_fn: LogitsFn,
    x: jax.Array,
    y: jax.Array,
    eps: Any,
    active: jax.Array,
    rank: jax.typing.ArrayLike,
    *,
    norm: str,
    num_steps: int,
) -> tuple[jax.Array, jax.Array]:
    """The search of `fab` for one target, from the active images themselves.

    Args:
        logits_fn: See `fab`.
        x: Images, [B, H, W, C].
        y: Labels, [B].
        eps: Radius of the ball.
        active: The images to attack, bool [B].
        rank: 0 for the most likely other class, 1 for the next, ...
        norm: See `fab`.
        num_steps: Likewise.

    Returns:
        The images, [B, H, W, C], and whether an active image is now misclassified within eps, bool
        [B].
    """
    logits = _logits(logits_fn, x, active)
    state = _State(x, x, jnp.full(len(x), jnp.inf, x.dtype), ~active)
    target = likely_class(logits, y, rank)
    near = _near_enough(eps, norm, x)
    state = _search(logits_fn, x, y, target, near, state, norm, num_steps)
    state = _final_search(logits_fn, x, y, near, state, norm)
    fooled = active & (state.distance <= near)
    return jnp.where(fooled[:, None, None, None], state.best, x), fooled


@partial(jax.jit, static_argnames=("norm", "num_steps", "num_targets", "num_restarts"))
def _fab(
    key: jax.Array,
    logits_fn: LogitsFn,
    x: jax.Array,
    y: jax.Array,
    eps: Any,
    *,
    norm: str,
    num_steps: int,
    num_targets: int,
    num_restarts: int,
) -> jax.Array:
    logits = check_logits(logits_fn(x), len(x))
    near = jnp.asarray(-1.0, x.dtype) if eps is None else _near_enough(eps, norm, x)
    wrong = _fooled(logits, y)
    distance = jnp.where(wrong, 0, jnp.inf).astype(x.dtype)
    first = _State(x, x, distance, wrong)

    def attack(i: jax.Array, s: _State) -> _State:
        restart, rank = i // num_targets, i % num_targets
        radius = jnp.where(jnp.isfinite(s.distance) & (restart > 0), s.distance / 2, 0)
        away = BALLS[norm].start(stream(key, "start", i), x, 1.0)
        z = (x + radius[:, None, None, None] * away).clip(0, 1)
        target = likely_class(logits, y, rank)
        return _search(logits_fn, x, y, target, near, s._replace(z=z), norm, num_steps)

    state = lax.fori_loop(0, num_restarts * num_targets, attack, first)
    state = _final_search(logits_fn, x, y, near, state, norm)
    enough = jnp.isfinite(state.distance) if eps is None else state.distance <= near
    return lax.stop_gradient(jnp.where(enough[:, None, None, None], state.best, x))


def _near_enough(eps: Any, norm: str, x: jax.Array) -> jax.Array:
    return jnp.asarray(eps, x.dtype) * (1 if norm == "linf" else INSIDE)


def _logits(logits_fn: LogitsFn, x: jax.Array, active: jax.Array) -> jax.Array:
    return of_active(lambda x: check_logits(logits_fn(x), len(x)), active, x)


def _fooled(logits: jax.Array, y: jax.Array) -> jax.Array:
    return (logits.argmax(-1) != y) & ~jnp.isnan(logits).any(-1)


def _search(
    logits_fn: LogitsFn,
    x: jax.Array,
    y: jax.Array,
    target: jax.Array,
    near: jax.Array,
    state: _State,
    norm: str,
    num_steps: int,
) -> _State:
    """num_steps steps towards one target; blocks of images that go on take several steps at once."""

    def gap(z: jax.Array, y: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
        each = targeted_margin(logits_fn(z), y, target).astype(z.dtype)
        return each.sum(), each

    def step(x: jax.Array, y: jax.Array, target: jax.Array, s: _State) -> _State:
        w, behind = jax.grad(gap, has_aux=True)(s.z, y, target)
        w = jnp.nan_to_num(w)
        back = (w * (s.z - x)).sum((1, 2, 3))
        d_z = step_to_hyperplane(w, -behind, s.z, norm)
        d_x = step_to_hyperplane(w, back - behind, x, norm)
        size_z, size_x = size_in(norm, d_z), size_in(norm, d_x)
        a = jnp.minimum(size_z / jnp.maximum(size_z + size_x, 1e-30), ALPHA_MAX)
        a = a[:, None, None, None]
        z = ((1 - a) * (s.z + ETA * d_z) + a * (x + ETA * d_x)).clip(0, 1)
        fooled = _fooled(logits_fn(z), y)
        distance = size_in(norm, z - x)
        nearer = fooled & (distance < s.distance) & ~s.done
        distance = jnp.where(nearer, distance, s.distance)
        return _State(
            _where(fooled, (1 - BETA) * x + BETA * z, z),
            _where(nearer, z, s.best),
            distance,
            s.done | (distance <= near),
        )

    def several(
        count: jax.Array, x: jax.Array, y: jax.Array, target: jax.Array, *state: Any
    ) -> Any:
        def unfinished(carry: tuple[jax.Array, _State]) -> jax.Array:
            k, s = carry
            return (k < count.max()) & ~s.done.all()

        def one(carry: tuple[jax.Array, _State]) -> tuple[jax.Array, _State]:
            return carry[0] + 1, step(x, y, target, carry[1])

        return lax.while_loop(unfinished, one, (jnp.asarray(0), _State(*state)))[1]

    def more(carry: tuple[jax.Array, _State]) -> jax.Array:
        k, s = carry
        return (k < num_steps) & ~s.done.all()

    def stretch(carry: tuple[jax.Array, _State]) -> tuple[jax.Array, _State]:
        k, s = carry
        count = jnp.broadcast_to(jnp.minimum(num_steps - k, STEPS_AT_ONCE), len(x))
        new = of_active(several, ~s.done, count, x, y, target, *s)
        return k + STEPS_AT_ONCE, jax.tree.map(partial(_where, ~s.done), new, s)

    return lax.while_loop(more, stretch, (jnp.asarray(0), state))[1]


def _final_search(
    logits_fn: LogitsFn, x: jax.Array, y: jax.Array, near: jax.Array, state: _State, norm: str
) -> _State:
    """Moves the nearest images along the line to x, to where a linear margin would change its sign."""
    active = jnp.isfinite(state.distance) & ~state.done

    def margin_of(z: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = logits_fn(z)
        return margin(logits, y).astype(z.dtype), _fooled(logits, y)

    def rows(x: jax.Array, y: jax.Array, best: jax.Array) -> jax.Array:
        def step(i: Any, s: Any) -> Any:
            """Looks at x, then at best, then at points between the two."""
            inner, outer, inside, outside = s
            share = (FINAL_SHARE * outside / jnp.maximum(outside - inside, 1e-30)).clip(0, 1)
            between = outer + share[:, None, None, None] * (inner - outer)
            z = jnp.where(i == 0, x, jnp.where(i == 1, best, between))
            value, fooled = margin_of(z, y)
            out, is_in = (i > 0) & (fooled | (i == 1)), (i != 1) & ~fooled
            return (
                _where(is_in, z, inner), _where(out, z, outer),
                jnp.where(is_in, value, inside), jnp.where(out, value, outside),
            )  # fmt: skip

        zero = jnp.zeros(len(x), x.dtype)
        return lax.fori_loop(0, FINAL_STEPS + 2, step, (x, best, zero, zero))[1]

    best = _where(active, of_active(rows, active, x, y, state.best), state.best)
    distance = jnp.where(active, size_in(norm, best - x), state.distance)
    return state._replace(best=best, distance=distance, done=state.done | (distance <= near))


def _where(condition: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.where(condition.reshape(-1, *[1] * (a.ndim - 1)), a, b)
