"""Projected gradient descent on images, jit-compiled, in l_inf and l2 balls."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mcjax.errors import UserError
from mcjax.losses import cross_entropy


class Ball(NamedTuple):
    """The three things an attack needs of a norm.

    Attributes:
        start: `start(key, shape, eps)`, a random point of the ball.
        direction: `direction(gradient)`, the steepest ascent of unit norm, an example at a time.
        project: `project(delta, eps)`, the nearest point of the ball.
    """

    start: Callable[[jax.Array, tuple[int, ...], Any], jax.Array]
    direction: Callable[[jax.Array], jax.Array]
    project: Callable[[jax.Array, Any], jax.Array]


def _norm(x: jax.Array) -> jax.Array:
    return jnp.sqrt((x**2).sum(range(1, x.ndim), keepdims=True))


def _unit(x: jax.Array) -> jax.Array:
    norm = _norm(x)
    return jnp.where(norm > 0, x / jnp.where(norm > 0, norm, 1), 0)


def _start_l2(key: jax.Array, shape: tuple[int, ...], eps: Any) -> jax.Array:
    direction, radius = jax.random.split(key)
    dimension = shape[1] * shape[2] * shape[3]
    r = jax.random.uniform(radius, (shape[0], 1, 1, 1)) ** (1 / dimension)
    return eps * r * _unit(jax.random.normal(direction, shape))


BALLS = {
    "linf": Ball(
        start=lambda key, shape, eps: jax.random.uniform(key, shape, minval=-eps, maxval=eps),
        direction=jnp.sign,
        project=lambda delta, eps: delta.clip(-eps, eps),
    ),
    "l2": Ball(
        start=_start_l2,
        direction=_unit,
        project=lambda delta, eps: delta * jnp.minimum(1, eps / jnp.maximum(_norm(delta), 1e-12)),
    ),
}


def pgd(
    key: jax.Array,
    logits_fn: Callable[[jax.Array], jax.Array],
    x: jax.Array,
    y: jax.Array,
    eps: float = 8 / 255,
    step_size: float = 2 / 255,
    num_steps: int = 10,
    norm: str = "linf",
    random_start: bool = True,
) -> jax.Array:
    """max_{|delta| <= eps} CE(logits(x + delta), y) by projected gradient ascent.

    delta <- P_eps(delta + step_size * direction(grad)), then x + delta is clipped to [0, 1]. The best
    point met is kept for each example: of all iterates the one of highest loss.

    Args:
        key: Key of the random start.
        logits_fn: `logits_fn(x) -> logits [B, classes]`; an example's logits must not depend on
            the others (evaluation mode).
        x: Images, [B, H, W, C], in [0, 1].
        y: Labels, [B].
        eps: Radius of the ball, in units of the images.
        step_size: Length of a step, in the same units and norm.
        num_steps: Number of steps; 0 gives the start.
        norm: "linf" or "l2".
        random_start: Start at a random point of the ball; else at x.

    Returns:
        Adversarial images, [B, H, W, C], within eps of x and within [0, 1].

    Raises:
        UserError: Unknown norm, negative eps, step_size or num_steps.

    Example:
        >>> x, y = jnp.full((1, 1, 1, 2), 0.5), jnp.array([0])
        >>> logits_fn = lambda x: x[:, 0, 0, :]
        >>> pgd(jax.random.key(0), logits_fn, x, y, eps=0.25, step_size=0.125)[0, 0, 0]
        Array([0.25, 0.75], dtype=float32)

    Source: Madry et al. 2018, section 2.1.
    """
    if norm not in BALLS:
        raise UserError(f"unknown norm {norm!r}; use one of {', '.join(BALLS)}")
    for name, value in (("eps", eps), ("step_size", step_size), ("num_steps", num_steps)):
        if not isinstance(value, jax.core.Tracer) and value < 0:
            raise UserError(f"{name} is {value}; it must not be negative")
    return _pgd(
        key, jax.tree_util.Partial(logits_fn), x, y, eps, step_size, num_steps, norm, random_start
    )


@partial(jax.jit, static_argnames=("norm", "random_start"))
def _pgd(
    key: jax.Array,
    logits_fn: Callable[[jax.Array], jax.Array],
    x: jax.Array,
    y: jax.Array,
    eps: Any,
    step_size: Any,
    num_steps: Any,
    norm: str,
    random_start: bool,
) -> jax.Array:
    ball = BALLS[norm]

    def losses(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        loss = cross_entropy(logits_fn(x), y)
        return loss.sum(), loss  # examples do not mix, so the gradient of the sum is each one's own

    def keep_better(best: jax.Array, best_loss: jax.Array, x: jax.Array, loss: jax.Array) -> Any:
        better = loss > best_loss
        return jnp.where(better[:, None, None, None], x, best), jnp.where(better, loss, best_loss)

    def step(_: jax.Array, carry: tuple[jax.Array, jax.Array, jax.Array]) -> Any:
        x_adv, best, best_loss = carry
        gradient, loss = jax.grad(losses, has_aux=True)(x_adv)
        best, best_loss = keep_better(best, best_loss, x_adv, loss)
        delta = ball.project(x_adv + step_size * ball.direction(gradient) - x, eps)
        return (x + delta).clip(0, 1), best, best_loss

    start = (x + ball.start(key, x.shape, eps)).clip(0, 1) if random_start else x
    first = (start, start, jnp.full(len(x), -jnp.inf))
    x_adv, best, best_loss = lax.fori_loop(0, num_steps, step, first)
    return lax.stop_gradient(keep_better(best, best_loss, x_adv, losses(x_adv)[1])[0])
