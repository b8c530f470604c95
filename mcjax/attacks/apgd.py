"""Auto-PGD: projected gradient ascent with momentum and automatic step sizes."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mcjax.attacks.active import of_active
from mcjax.attacks.attack_losses import LABEL_LOSSES
from mcjax.attacks.balls import BALLS, ascent
from mcjax.attacks.checks import (
    check_choice,
    check_count,
    check_examples,
    check_logits,
    check_sizes,
)
from mcjax.attacks.pgd import LogitsFn
from mcjax.keys import stream
from mcjax.tree import as_partial

NORMS = ("linf", "l2")
LOSSES = ("cross_entropy", "dlr")
MOMENTUM = 0.75  # alpha
RHO = 0.75


class _Search(NamedTuple):
    """The search state of one start, per example; notation as in the paper."""

    x: jax.Array
    x_old: jax.Array
    f: jax.Array
    gradient: jax.Array
    x_max: jax.Array
    f_max: jax.Array
    gradient_max: jax.Array
    eta: jax.Array  # step size
    num_rises: jax.Array  # since the last checkpoint
    f_max_then: jax.Array  # f_max at the last checkpoint
    halved_then: jax.Array  # whether the step size was halved at the last checkpoint


class _Found(NamedTuple):
    """The best adversarial image of all starts so far."""

    x: jax.Array
    loss: jax.Array
    fooled: jax.Array


def apgd(
    key: jax.Array,
    logits_fn: LogitsFn,
    x: jax.Array,
    y: jax.Array,
    *,
    eps: float,
    norm: str = "linf",
    num_steps: int = 100,
    num_restarts: int = 1,
    loss: str = "cross_entropy",
    early_stop: bool = True,
) -> jax.Array:
    """max_{|delta| <= eps} loss(logits(x + delta), y) by Auto-PGD, without a step size to tune.

        z       = P(x_k + eta direction(grad f(x_k)))
        x_{k+1} = P(x_k + alpha (z - x_k) + (1 - alpha) (x_k - x_{k-1})),  alpha = 0.75

    The initial step size is eta = 2 eps. At the checkpoints w_j = ceil(p_j num_steps), p_0 = 0,
    p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06), an example halves its eta and returns
    to its best point if, since the last checkpoint, (1) fewer than 0.75 of its steps increased f, or
    (2) neither its eta nor its best f has changed. Each restart uses a new random start.

    Args:
        key: Key of the random starts.
        logits_fn: `logits_fn(x) -> logits [b, classes]` for any number b of images; an example's
            logits must not depend on other examples (evaluation mode).
        x: Images, [B, H, W, C], in [0, 1].
        y: Labels, [B].
        eps: Radius of the ball, in units of the images.
        norm: "linf" or "l2".
        num_steps: Steps per start.
        num_restarts: Number of starts.
        loss: "cross_entropy" (its logarithm is maximised, which does not stall where softmax
            saturates), or "dlr", the difference of logits ratio (three classes or more).
        early_stop: Stop an example at its first misclassified iterate; later steps process the
            other examples only. If False, return the misclassified iterate of highest loss. Robust
            accuracy is the same.

    Returns:
        Adversarial images, [B, H, W, C], within eps of x and within [0, 1]: misclassified if one
        was found, else the iterate of highest loss.

    Raises:
        UserError: norm or loss is unknown; eps is not a single number of at least 0; num_steps or
            num_restarts is less than 1; there are no images, or they are outside [0, 1]; labels are
            not valid classes; labels or logits have the wrong shape.

    Example:
        >>> x, y = jnp.full((1, 1, 1, 2), 0.5), jnp.array([0])
        >>> logits_fn = lambda x: x[:, 0, 0, :] + jnp.array([[0.4, 0.0]])
        >>> apgd(jax.random.key(0), logits_fn, x, y, eps=0.25, num_steps=10, early_stop=False)[0, 0, 0]
        Array([0.25, 0.75], dtype=float32)

    Source: Croce & Hein 2020, algorithm 1 and section 4.
    """
    check_choice("norm", norm, NORMS)
    check_choice("loss", loss, LOSSES)
    check_sizes(eps=eps)
    check_count("num_steps", num_steps)
    check_count("num_restarts", num_restarts)
    logits_fn = as_partial(logits_fn)
    check_examples(logits_fn, x, y, num_classes=3 if loss == "dlr" else 2)
    return _apgd(
        key, logits_fn, x, y, eps,
        norm=norm, num_steps=num_steps, num_restarts=num_restarts, loss=loss, early_stop=early_stop,
    )  # fmt: skip


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


@partial(jax.jit, static_argnames=("norm", "num_steps", "num_restarts", "loss", "early_stop"))
def _apgd(
    key: jax.Array,
    logits_fn: LogitsFn,
    x: jax.Array,
    y: jax.Array,
    eps: Any,
    *,
    norm: str,
    num_steps: int,
    num_restarts: int,
    loss: str,
    early_stop: bool,
) -> jax.Array:
    ball = BALLS[norm]
    eps = jnp.asarray(eps, x.dtype)
    ends = checkpoints(num_steps)
    is_checkpoint = jnp.zeros(num_steps, bool).at[ends - 1].set(True)
    # For each checkpoint, the number of steps since the previous one.
    length = (
        jnp.zeros(num_steps, jnp.int32).at[ends - 1].set(np.diff(ends, prepend=0).astype(np.int32))
    )

    def objective(x: jax.Array, y: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        logits = check_logits(logits_fn(x), len(x), at_least=3 if loss == "dlr" else 2)
        f = LABEL_LOSSES[loss](logits, y).astype(x.dtype)
        return f.sum(), (f, (logits.argmax(-1) != y) & ~jnp.isnan(f))

    def look(x: jax.Array, found: _Found) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        gradient_fn = jax.grad(objective, has_aux=True)
        # With early_stop, a misclassified example is finished.
        return of_active(gradient_fn, ~found.fooled, x, y) if early_stop else gradient_fn(x, y)

    def keep(found: _Found, x: jax.Array, f: jax.Array, fooled: jax.Array) -> _Found:
        better = (fooled & ~found.fooled) | ((fooled == found.fooled) & (f > found.loss))
        if early_stop:
            better &= ~found.fooled
        return _Found(
            _where(better, x, found.x),
            jnp.where(better, f, found.loss),
            found.fooled | fooled,
        )

    def step(state: tuple[jax.Array, _Search, _Found]) -> tuple[jax.Array, _Search, _Found]:
        k, s, found = state
        z = ball.project(x, s.x + s.eta * ascent(ball, s.gradient, s.x), eps)
        alpha = jnp.where(k == 0, 1.0, MOMENTUM).astype(x.dtype)
        x_new = ball.project(x, s.x + alpha * (z - s.x) + (1 - alpha) * (s.x - s.x_old), eps)
        gradient, (f, fooled) = look(x_new, found)
        found = keep(found, x_new, f, fooled)
        higher = f > s.f_max
        s = s._replace(
            x=x_new, x_old=s.x, f=f, gradient=gradient,
            x_max=_where(higher, x_new, s.x_max),
            f_max=jnp.where(higher, f, s.f_max),
            gradient_max=_where(higher, gradient, s.gradient_max),
            num_rises=s.num_rises + (f > s.f),
        )  # fmt: skip
        return k + 1, lax.cond(is_checkpoint[k], at_checkpoint, lambda _, s: s, length[k], s), found

    def at_checkpoint(num: jax.Array, s: _Search) -> _Search:
        oscillates = s.num_rises < RHO * num
        stuck = ~s.halved_then & (s.f_max <= s.f_max_then)
        halve = oscillates | stuck
        return s._replace(
            x=_where(halve, s.x_max, s.x),
            f=jnp.where(halve, s.f_max, s.f),
            gradient=_where(halve, s.gradient_max, s.gradient),
            eta=_where(halve, s.eta / 2, s.eta),
            num_rises=jnp.zeros_like(s.num_rises),
            f_max_then=s.f_max,
            halved_then=halve,
        )

    def unfinished(state: tuple[jax.Array, _Search, _Found]) -> jax.Array:
        k, _, found = state
        more = k < num_steps
        return more & ~found.fooled.all() if early_stop else more

    def attack(restart: Any, found: _Found) -> _Found:
        start = (x + ball.start(stream(key, "start", restart), x, eps)).clip(0, 1)
        gradient, (f, fooled) = look(start, found)
        eta = jnp.full((len(x), 1, 1, 1), 2 * eps, x.dtype)
        first = _Search(
            start, start, f, gradient, start, f, gradient, eta,
            num_rises=jnp.zeros(len(x), jnp.int32), f_max_then=f,
            halved_then=jnp.zeros(len(x), bool),
        )  # fmt: skip
        state = (jnp.asarray(0), first, keep(found, start, f, fooled))
        return lax.while_loop(unfinished, step, state)[2]

    nothing = _Found(x, jnp.full(len(x), -jnp.inf, x.dtype), jnp.zeros(len(x), bool))
    if num_restarts == 1:
        found = attack(0, nothing)
    else:
        found = lax.fori_loop(0, num_restarts, attack, nothing)
    return lax.stop_gradient(found.x)


def _where(condition: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.where(condition[:, None, None, None], a, b)
