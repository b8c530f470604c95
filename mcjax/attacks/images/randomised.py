"""Auto-PGD on randomised networks: losses and answers in expectation over draws."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mcjax.attacks.checks import check_logits
from mcjax.attacks.images.attack_losses import LABEL_LOSSES
from mcjax.attacks.images.auto_pgd_found import Found, nothing_found
from mcjax.attacks.images.auto_pgd_search import random_starts, search
from mcjax.core.keys import stream


def mean_answer(key: jax.Array, logits_fn: Any, x: jax.Array, num_draws: int) -> jax.Array:
    """Log of the mean of softmax(logits) over draws.

    Args:
        key: Key of the draws.
        logits_fn: `logits_fn(key, x) -> logits [B, classes]`.
        x: Images, [B, H, W, C].
        num_draws: Number of draws.

    Returns:
        Log-probabilities, [B, classes].

    Example:
        >>> def logits_fn(key, x):
        ...     return jnp.where(jax.random.bernoulli(key), x[:, 0, 0, :], -x[:, 0, 0, :])
        >>> x = jnp.array([1.0, 0.0]).reshape(1, 1, 1, 2)
        >>> jnp.exp(mean_answer(jax.random.key(0), logits_fn, x, 1000)).round(1)
        Array([[0.5, 0.5]], dtype=float32)
    """

    def add(i: Any, total: jax.Array) -> jax.Array:
        logits = check_logits(logits_fn(stream(key, "draw", i), x), len(x))
        return jnp.logaddexp(total, jax.nn.log_softmax(logits))

    first = jax.nn.log_softmax(check_logits(logits_fn(stream(key, "draw", 0), x), len(x)))
    return lax.fori_loop(1, num_draws, add, first) - jnp.log(num_draws)


def randomised_round(
    keys: jax.Array,
    key: jax.Array,
    logits_fn: Any,
    x: jax.Array,
    y: jax.Array,
    eps: Any,
    active: jax.Array,
    *,
    norm: str,
    num_steps: int,
    num_draws: int,
    loss: str,
) -> tuple[jax.Array, jax.Array]:
    """One start of Auto-PGD on the mean loss over draws, new ones at every step.

    An image counts as misclassified where the mean of the probabilities over the draws of a step
    has another class.

    Args:
        keys: A key per image, for its start, [B].
        key: Key of the draws, which all images share.
        logits_fn: `logits_fn(key, x) -> logits [B, classes]`.
        x: Images, [B, H, W, C].
        y: Labels, [B].
        eps: Radius of the ball.
        active: The images to attack, bool [B].
        norm: "linf", "l2" or "l1".
        num_steps: Steps.
        num_draws: Draws per step.
        loss: One of `LABEL_LOSSES`.

    Returns:
        The images, [B, H, W, C], and whether an active image is misclassified, bool [B].

    Source: Athalye et al. 2018, section 4.2 (expectation over transformation).
    """

    def objective(x: jax.Array, key: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        logits = check_logits(logits_fn(key, x), len(x))
        f = LABEL_LOSSES[loss](logits, y).astype(x.dtype)
        return f.sum(), (f, jax.nn.log_softmax(logits))

    gradient_fn = jax.grad(objective, has_aux=True)

    def look(step: Any, x: jax.Array, _: Found) -> Any:
        def add(total: Any, i: jax.Array) -> tuple[Any, Any]:
            gradient, f, log_p = total
            new_gradient, (new_f, new_log_p) = gradient_fn(x, stream(key, "draw", step, i))
            return (gradient + new_gradient, f + new_f, jnp.logaddexp(log_p, new_log_p)), None

        gradient, (f, log_p) = gradient_fn(x, stream(key, "draw", step, 0))
        begin: Any = (gradient, f, log_p)
        total, _ = lax.scan(add, begin, jnp.arange(1, num_draws))
        gradient, f, log_p = total
        fooled = (log_p.argmax(-1) != y) & ~jnp.isnan(f)
        return gradient / num_draws, (f / num_draws, fooled)

    start = random_starts(keys, x, eps, norm)
    nothing = nothing_found(x, active)
    found = search(look, x, start, eps, nothing, norm=norm, num_steps=num_steps)
    return found.x, found.fooled & active
