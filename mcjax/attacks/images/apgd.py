"""Auto-PGD: projected gradient ascent with automatic step sizes."""

from functools import partial
from typing import Any

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
)
from mcjax.attacks.images.active_examples import of_active
from mcjax.attacks.images.attack_losses import LABEL_LOSSES
from mcjax.attacks.images.auto_pgd_found import Found, Look, nothing_found
from mcjax.attacks.images.auto_pgd_search import random_start, random_starts, search
from mcjax.attacks.images.balls import BALLS
from mcjax.attacks.images.pgd import LogitsFn
from mcjax.core.keys import stream
from mcjax.core.tree import as_partial

LOSSES = ("cross_entropy", "dlr")


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

    In l1 the steps have no momentum and move only the entries of largest gradient that the box does not
    block: as many as the best point has changed, divided by 1.5 and rounded down, at least one. eta starts
    at eps and is divided by 1.5 every 4 % of the steps, or reset where the best point has become sparser by
    more than 5 %. 30 % of the steps search the ball of radius 3 eps, 30 % that of 2 eps and the rest that of
    eps.

    Args:
        key: Key of the random starts.
        logits_fn: `logits_fn(x) -> logits [b, classes]` for any number b of images; an example's
            logits must not depend on other examples (evaluation mode).
        x: Images, [B, H, W, C], in [0, 1].
        y: Labels, [B].
        eps: Radius of the ball, in units of the images.
        norm: "linf", "l2" or "l1".
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

    Source: Croce & Hein 2020, algorithm 1 and section 4; for l1 Croce & Hein 2021, sections 3 and 4.
    """
    check_choice("norm", norm, list(BALLS))
    check_choice("loss", loss, LOSSES)
    check_sizes(eps=eps)
    check_count("num_steps", num_steps)
    check_count("num_restarts", num_restarts)
    logits_fn = as_partial(logits_fn)
    check_examples(logits_fn, x, y, num_classes=3 if loss == "dlr" else 2)
    check_radius(eps, norm, jnp.shape(x))
    return _apgd(
        key, logits_fn, x, y, eps,
        norm=norm, num_steps=num_steps, num_restarts=num_restarts, loss=loss, early_stop=early_stop,
    )  # fmt: skip


def apgd_round(
    keys: jax.Array,
    logits_fn: LogitsFn,
    x: jax.Array,
    y: jax.Array,
    eps: Any,
    active: jax.Array,
    *,
    norm: str,
    num_steps: int,
    loss: str,
) -> tuple[jax.Array, jax.Array]:
    """One start of `apgd` with early_stop on the active images.

    Args:
        keys: A key per image, [B].
        logits_fn: See `apgd`.
        x: Images, [B, H, W, C].
        y: Labels, [B].
        eps: Radius of the ball.
        active: The images to attack, bool [B].
        norm: See `apgd`.
        num_steps: Likewise.
        loss: One of `LABEL_LOSSES`.

    Returns:
        The images, [B, H, W, C], and whether an active image is now misclassified, bool [B].
    """
    look = _look(logits_fn, y, loss, early_stop=True)
    start = random_starts(keys, x, eps, norm)
    nothing = nothing_found(x, active)
    found = search(look, x, start, eps, nothing, norm=norm, num_steps=num_steps)
    return found.x, found.fooled & active


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
    look = _look(logits_fn, y, loss, early_stop)

    def attack(restart: Any, found: Found) -> Found:
        start = random_start(stream(key, "start", restart), x, jnp.asarray(eps, x.dtype), norm)
        return search(
            look, x, start, eps, found, norm=norm, num_steps=num_steps, early_stop=early_stop
        )

    found = nothing_found(x)
    found = attack(0, found) if num_restarts == 1 else lax.fori_loop(0, num_restarts, attack, found)
    return lax.stop_gradient(found.x)


def _look(logits_fn: LogitsFn, y: jax.Array, loss: str, early_stop: bool) -> Look:
    def objective(x: jax.Array, y: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        logits = check_logits(logits_fn(x), len(x), at_least=3 if loss == "dlr" else 2)
        f = LABEL_LOSSES[loss](logits, y).astype(x.dtype)
        return f.sum(), (f, (logits.argmax(-1) != y) & ~jnp.isnan(f))

    gradient_fn = jax.grad(objective, has_aux=True)

    def look(_: Any, x: jax.Array, found: Found) -> Any:
        # With early_stop, a misclassified example is finished.
        return of_active(gradient_fn, ~found.fooled, x, y) if early_stop else gradient_fn(x, y)

    return look
