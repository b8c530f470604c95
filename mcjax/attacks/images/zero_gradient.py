"""Where a gradient attack has nothing to climb."""

from collections.abc import Callable

import jax

from mcjax.attacks.checks import check_logits
from mcjax.attacks.images.attack_losses import log_odds


def correct_and_flat(
    logits_fn: Callable[[jax.Array], jax.Array], x: jax.Array, y: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Which images are correct, and which of them have a gradient of exactly zero.

    The gradient is that of log((1 - p_y) / p_y) with respect to the image. Unlike that of the
    cross-entropy it does not underflow where softmax saturates, so a zero is the network's own: images
    at which it is flat withstand attacks by gradients for a wrong reason.

    Args:
        logits_fn: `logits_fn(x) -> logits [B, classes]`; an example's logits must not depend on other
            examples.
        x: Images, [B, H, W, C].
        y: Labels, [B].

    Returns:
        Two vectors of bools, [B]: correct; correct and flat.

    Example:
        >>> import jax.numpy as jnp
        >>> x, y = jnp.array([1.0, 2.0, -1.0]).reshape(3, 1, 1, 1), jnp.zeros(3, int)
        >>> logits_fn = lambda x: jnp.concatenate([x.clip(-2, 1.5), 0 * x], -1)[:, 0, 0]
        >>> correct, flat = correct_and_flat(logits_fn, x, y)
        >>> correct.tolist(), flat.tolist()
        ([True, True, False], [False, True, False])
    """

    def objective(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = check_logits(logits_fn(x), len(x))
        return log_odds(logits, y).sum(), logits.argmax(-1) == y

    gradient, correct = jax.grad(objective, has_aux=True)(x)
    return correct, correct & (gradient == 0).all((1, 2, 3))
