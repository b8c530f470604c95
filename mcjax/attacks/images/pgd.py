"""Projected gradient descent (PGD) on images, jit-compiled, in l_inf, l2 and l1 balls."""

from collections.abc import Callable
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
from mcjax.attacks.images.attack_losses import LABEL_LOSSES, log_kl
from mcjax.attacks.images.balls import BALLS, ascent
from mcjax.core.errors import UserError
from mcjax.core.keys import stream
from mcjax.core.tree import as_partial

LogitsFn = Callable[[jax.Array], jax.Array]

LOSSES = (*LABEL_LOSSES, "kl")


def pgd(
    key: jax.Array,
    logits_fn: LogitsFn,
    x: jax.Array,
    y: jax.Array,
    eps: float = 8 / 255,
    step_size: float = 2 / 255,
    num_steps: int = 10,
    norm: str = "linf",
    random_start: bool = True,
    *,
    loss: str = "cross_entropy",
    num_restarts: int = 1,
    early_stop: bool = False,
    keep_best: bool = True,
) -> jax.Array:
    """max_{|delta| <= eps} loss(logits(x + delta), y) by projected gradient ascent.

    x' <- P(x' + step_size * direction(grad)), with P the projection onto the ball around x and onto
    [0, 1]. Entries whose gradient is NaN do not move. For each example, the iterate of highest loss
    over all restarts is returned. The direction is the gradient's sign in linf, the unit gradient in
    l2, and in l1 equal steps along the 5 % of entries with the largest gradient that are not blocked
    by the box.

    Args:
        key: Key of the random starts.
        logits_fn: `logits_fn(x) -> logits [b, classes]` for any number b of images; an example's
            logits must not depend on other examples (evaluation mode).
        x: Images, [B, H, W, C], in [0, 1].
        y: Labels, [B].
        eps: Radius of the ball, in units of the images.
        step_size: Length of a step, in the same units and norm.
        num_steps: Number of steps; 0 returns the start.
        norm: "linf", "l2" or "l1".
        random_start: Start at a random point of the ball; if False, start at x (the first restart
            only).
        loss: "cross_entropy", "margin", "dlr", or "kl" from the clean prediction (its gradient is
            zero at x). Steps of "margin" and "dlr" are invariant to scaling the logits;
            "cross_entropy" and "kl" are maximised in the log domain, so they do not stall where
            softmax saturates.
        num_restarts: Number of starts.
        early_stop: Stop an example once it is misclassified; later steps process the other examples
            only. Cheaper, and enough for robust accuracy, but the loss is lower.
        keep_best: If False, return the last iterate, which saves one evaluation; for adversarial
            training.

    Returns:
        Adversarial images, [B, H, W, C], within eps of x and within [0, 1].

    Raises:
        UserError: norm or loss is unknown; eps or step_size is not a single number of at least 0, or
            eps is larger than the box [0, 1] in this norm;
            num_steps is negative; num_restarts is less than 1; there are no images, or they are
            outside [0, 1]; labels are not valid classes; labels or logits have the wrong shape;
            keep_best=False is combined with restarts or early_stop.

    Example:
        >>> x, y = jnp.full((1, 1, 1, 2), 0.5), jnp.array([0])
        >>> logits_fn = lambda x: x[:, 0, 0, :]
        >>> pgd(jax.random.key(0), logits_fn, x, y, eps=0.25, step_size=0.125)[0, 0, 0]
        Array([0.25, 0.75], dtype=float32)

    Source: Madry et al. 2018, section 2.1; the l1 step: Tramer & Boneh 2019, appendix (SLIDE).
    """
    check_choice("norm", norm, list(BALLS))
    check_choice("loss", loss, LOSSES)
    check_sizes(eps=eps, step_size=step_size)
    check_count("num_steps", num_steps, 0)
    check_count("num_restarts", num_restarts)
    if not keep_best and (early_stop or num_restarts > 1):
        raise UserError(
            "keep_best=False returns the last iterate; use it without restarts and early_stop"
        )
    logits_fn = as_partial(logits_fn)
    check_examples(logits_fn, x, y, num_classes=_classes_needed(loss))
    check_radius(eps, norm, jnp.shape(x))
    return _pgd(
        key, logits_fn, x, y, eps, step_size, num_steps,
        norm=norm, random_start=random_start, loss=loss,
        num_restarts=num_restarts, early_stop=early_stop, keep_best=keep_best,
    )  # fmt: skip


def fgsm(
    key: jax.Array,
    logits_fn: LogitsFn,
    x: jax.Array,
    y: jax.Array,
    eps: float = 8 / 255,
    *,
    step_size: float | None = None,
    norm: str = "linf",
    random_start: bool = False,
    loss: str = "cross_entropy",
) -> jax.Array:
    """One step of `pgd`; in linf, x + eps sign(grad), clipped to [0, 1].

    Args:
        key: Key of the random start; not used otherwise.
        logits_fn: See `pgd`.
        x: Images, [B, H, W, C], in [0, 1].
        y: Labels, [B].
        eps: Radius of the ball, in units of the images.
        step_size: Length of the step. Default: eps, or 1.25 eps with a random start.
        norm: "linf", "l2" or "l1".
        random_start: Start at a random point of the ball.
        loss: See `pgd`.

    Returns:
        Adversarial images, [B, H, W, C], within eps of x and within [0, 1].

    Raises:
        UserError: As `pgd`.

    Example:
        >>> x, y = jnp.full((1, 1, 1, 2), 0.5), jnp.array([0])
        >>> fgsm(jax.random.key(0), lambda x: x[:, 0, 0, :], x, y, eps=0.25)[0, 0, 0]
        Array([0.25, 0.75], dtype=float32)

    Source: Goodfellow et al. 2015, section 4; with a random start: Wong et al. 2020, section 4.
    """
    if step_size is None:
        step_size = 1.25 * eps if random_start else eps
    return pgd(
        key, logits_fn, x, y, eps, step_size, 1, norm, random_start, loss=loss, keep_best=False
    )


def _classes_needed(loss: str) -> int:
    return 3 if loss == "dlr" else 2


@partial(
    jax.jit,
    static_argnames=("norm", "random_start", "loss", "num_restarts", "early_stop", "keep_best"),
)
def _pgd(
    key: jax.Array,
    logits_fn: LogitsFn,
    x: jax.Array,
    y: jax.Array,
    eps: Any,
    step_size: Any,
    num_steps: Any,
    *,
    norm: str,
    random_start: bool,
    loss: str,
    num_restarts: int,
    early_stop: bool,
    keep_best: bool,
) -> jax.Array:
    ball = BALLS[norm]
    eps, step_size = jnp.asarray(eps, x.dtype), jnp.asarray(step_size, x.dtype)
    # The loss compares logits with those of the clean images or with the labels.
    aim: Any = logits_fn(x) if loss == "kl" else y

    def losses(x: jax.Array, y: jax.Array, aim: Any) -> tuple[jax.Array, jax.Array]:
        logits = check_logits(logits_fn(x), len(x), at_least=_classes_needed(loss))
        each = log_kl(aim, logits) if loss == "kl" else LABEL_LOSSES[loss](logits, aim)
        # With early_stop a success has infinite value, so the first one is kept.
        success = (logits.argmax(-1) != y) & ~jnp.isnan(each)
        value = jnp.where(success, jnp.inf, each) if early_stop else each
        return each.sum(), value.astype(
            x.dtype
        )  # examples are independent, so the sum's gradient is per example

    def look(x: jax.Array, best_value: jax.Array) -> tuple[jax.Array, jax.Array]:
        gradient_fn = jax.grad(losses, has_aux=True)
        if not early_stop:
            return gradient_fn(x, y, aim)
        return of_active(gradient_fn, best_value < jnp.inf, x, y, aim)

    def keep_better(best: jax.Array, best_value: jax.Array, x: jax.Array, value: jax.Array) -> Any:
        better = value > best_value
        return jnp.where(better[:, None, None, None], x, best), jnp.where(better, value, best_value)

    def unfinished(state: tuple[jax.Array, ...]) -> jax.Array:
        i, _, _, best_value = state
        more = i < num_steps
        return more & (best_value < jnp.inf).any() if early_stop else more

    def step(state: tuple[jax.Array, ...]) -> Any:
        i, x_adv, best, best_value = state
        gradient, value = look(x_adv, best_value)
        if keep_best:
            best, best_value = keep_better(best, best_value, x_adv, value)
        x_adv = ball.project(x, x_adv + step_size * ascent(ball, gradient, x_adv), eps)
        return i + 1, x_adv, best, best_value

    def attack(restart: Any, kept: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        delta = ball.start(stream(key, "start", restart), x, eps)
        start = (x + delta).clip(0, 1)
        if not random_start:
            start = jnp.where(jnp.asarray(restart) == 0, x, start)
        first = (jnp.asarray(0), start, *kept)
        _, x_adv, best, best_value = lax.while_loop(unfinished, step, first)
        if not keep_best:
            return x_adv, best_value
        return keep_better(best, best_value, x_adv, losses(x_adv, y, aim)[1])

    nothing = (x, jnp.full(len(x), -jnp.inf, x.dtype))
    if num_restarts == 1:
        best, _ = attack(0, nothing)
    else:
        best, _ = lax.fori_loop(0, num_restarts, attack, nothing)
    return lax.stop_gradient(best)
