"""Targeted Auto-PGD: one search per likely class other than the label."""

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
    count_targets,
)
from mcjax.attacks.images.active_examples import of_active
from mcjax.attacks.images.attack_losses import (
    likely_class,
    targeted_difference_of_logits_ratio,
    targeted_margin,
)
from mcjax.attacks.images.auto_pgd_found import Found, Look, nothing_found
from mcjax.attacks.images.auto_pgd_search import random_start, random_starts, search
from mcjax.attacks.images.balls import BALLS
from mcjax.attacks.images.pgd import LogitsFn
from mcjax.core.keys import stream
from mcjax.core.tree import as_partial

CLASSES_OF_THE_RATIO = 4
"""The targeted ratio needs the four largest logits."""


def apgd_targeted(
    key: jax.Array,
    logits_fn: LogitsFn,
    x: jax.Array,
    y: jax.Array,
    *,
    eps: float,
    norm: str = "linf",
    num_steps: int = 100,
    num_targets: int | None = None,
    early_stop: bool = True,
) -> jax.Array:
    """max_{|delta| <= eps} targeted DLR(logits(x + delta), y, t) by Auto-PGD, for each likely class t.

    The targets are the classes other than y with the largest logits at x, in this order. For each, Auto-PGD
    (see `apgd`) starts at a random point and maximises

        (z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2),

    with z_(k) the k-th largest logit. With two or three classes, for which this is not defined, it
    maximises z_t - z_y. An image counts as misclassified whatever its new class is.

    Args:
        key: Key of the random starts.
        logits_fn: `logits_fn(x) -> logits [b, classes]` for any number b of images; an example's
            logits must not depend on other examples (evaluation mode).
        x: Images, [B, H, W, C], in [0, 1].
        y: Labels, [B].
        eps: Radius of the ball, in units of the images.
        norm: "linf", "l2" or "l1".
        num_steps: Steps per target.
        num_targets: Number of targets. Default: 9, or all other classes if there are fewer.
        early_stop: See `apgd`.

    Returns:
        Adversarial images, [B, H, W, C], within eps of x and within [0, 1]: misclassified if one
        was found, else the iterate of highest loss.

    Raises:
        UserError: norm is unknown; eps is not a single number of at least 0; num_steps or
            num_targets is less than 1; num_targets exceeds the number of other classes; there are no images, or
            they are outside [0, 1]; labels are not valid classes; labels or logits have the wrong
            shape.

    Example:
        >>> x, y = jnp.full((1, 1, 1, 4), 0.5), jnp.array([0])
        >>> logits_fn = lambda x: x[:, 0, 0, :] + jnp.array([[0.4, 0.0, 0.0, 0.0]])
        >>> x_adv = apgd_targeted(jax.random.key(0), logits_fn, x, y, eps=0.25)
        >>> int(logits_fn(x_adv).argmax(1)[0]) != 0
        True

    Source: Croce & Hein 2020, equation 7 and section 4.3.
    """
    check_choice("norm", norm, list(BALLS))
    check_sizes(eps=eps)
    check_count("num_steps", num_steps)
    logits_fn = as_partial(logits_fn)
    num_targets = count_targets(num_targets, check_examples(logits_fn, x, y))
    check_radius(eps, norm, jnp.shape(x))
    return _apgd_targeted(
        key, logits_fn, x, y, eps,
        norm=norm, num_steps=num_steps, num_targets=num_targets, early_stop=early_stop,
    )  # fmt: skip


def targeted_round(
    keys: jax.Array,
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
    """The search of `apgd_targeted` for one target, on the active images.

    Args:
        keys: A key per image, [B].
        logits_fn: See `apgd_targeted`.
        x: Images, [B, H, W, C].
        y: Labels, [B].
        eps: Radius of the ball.
        active: The images to attack, bool [B].
        rank: 0 for the most likely other class, 1 for the next, ...
        norm: See `apgd_targeted`.
        num_steps: Likewise.

    Returns:
        The images, [B, H, W, C], and whether an active image is now misclassified, bool [B].
    """
    target = likely_class(_clean_logits(logits_fn, x, active), y, rank)
    look = _look(logits_fn, y, target, early_stop=True)
    start = random_starts(keys, x, eps, norm)
    nothing = nothing_found(x, active)
    found = search(look, x, start, eps, nothing, norm=norm, num_steps=num_steps)
    return found.x, found.fooled & active


@partial(jax.jit, static_argnames=("norm", "num_steps", "num_targets", "early_stop"))
def _apgd_targeted(
    key: jax.Array,
    logits_fn: LogitsFn,
    x: jax.Array,
    y: jax.Array,
    eps: Any,
    *,
    norm: str,
    num_steps: int,
    num_targets: int,
    early_stop: bool,
) -> jax.Array:
    logits = logits_fn(x)

    def attack(rank: jax.Array, found: Found) -> Found:
        look = _look(logits_fn, y, likely_class(logits, y, rank), early_stop)
        start = random_start(stream(key, "start", rank), x, jnp.asarray(eps, x.dtype), norm)
        # Losses of different targets do not compare: an image that withstands keeps the last one's.
        found = found._replace(loss=jnp.full_like(found.loss, -jnp.inf))
        return search(
            look, x, start, eps, found, norm=norm, num_steps=num_steps, early_stop=early_stop
        )

    return lax.stop_gradient(lax.fori_loop(0, num_targets, attack, nothing_found(x)).x)


def _clean_logits(logits_fn: LogitsFn, x: jax.Array, active: jax.Array) -> jax.Array:
    return of_active(lambda x: check_logits(logits_fn(x), len(x)), active, x)


def _look(logits_fn: LogitsFn, y: jax.Array, target: jax.Array, early_stop: bool) -> Look:
    def objective(
        x: jax.Array, y: jax.Array, target: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        logits = check_logits(logits_fn(x), len(x))
        enough = logits.shape[1] >= CLASSES_OF_THE_RATIO
        loss_fn = targeted_difference_of_logits_ratio if enough else targeted_margin
        f = loss_fn(logits, y, target).astype(x.dtype)
        return f.sum(), (f, (logits.argmax(-1) != y) & ~jnp.isnan(f))

    gradient_fn = jax.grad(objective, has_aux=True)

    def look(_: Any, x: jax.Array, found: Found) -> Any:
        if not early_stop:
            return gradient_fn(x, y, target)
        return of_active(gradient_fn, ~found.fooled, x, y, target)

    return look
