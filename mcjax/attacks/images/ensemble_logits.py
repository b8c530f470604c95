"""Logits of ensembles that average probabilities, in a form that attacks can follow."""

import jax
import jax.numpy as jnp
from jax import lax

# Largest mean gap of the members' two top logits at which attacks still see their margins.
SURE = 4.0


def log_mean_softmax(logits: jax.Array) -> jax.Array:
    """Log of the mean of softmax over members: log (1/T) sum_i softmax(z_i).

    Args:
        logits: Logits of T members, [T, B, classes].

    Returns:
        Log-probabilities, [B, classes].

    Example:
        >>> jnp.exp(log_mean_softmax(jnp.array([[[0.0, 10.0]], [[10.0, 0.0]]]))).round(3)
        Array([[0.5, 0.5]], dtype=float32)
    """
    return jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=0) - jnp.log(len(logits))


def ensemble_logits(logits: jax.Array) -> jax.Array:
    """Logits with the ensemble's answers, for attacks on an ensemble that averages probabilities.

    Where its members are confident, the mean of their probabilities is nearly constant between their boundaries:
    with three members 1, 2/3, 1/3 or 0. The members' margins and the gradient underflow, attacks stall,
    and the ensemble looks robust. This function therefore divides the logits by s before they are
    averaged:

        log (1/T) sum_i softmax(z_i / s),  s = max(1, mean_i (z_i(1) - z_i(2)) / 4),

    with z_i(k) member i's k-th largest logit. s is per image and constant under differentiation, so a
    factor on confident logits does not change the result. For s = 1 the result is exact. Where its
    largest entry is not the ensemble's answer, the values (but not the derivatives) are those for s = 1:
    the answers are always the ensemble's.

    Use it to attack only; neither losses nor Hessians of it are the ensemble's.

    Args:
        logits: Logits of T members, [T, B, classes].

    Returns:
        [B, classes]; argmax is the class of the largest mean probability.

    Example:
        >>> z = jnp.array([[[9e3, 0.0]], [[6e3, 0.0]], [[0.0, 3e3]]])
        >>> for f in (log_mean_softmax, ensemble_logits):
        ...     print(f(z).argmax(-1), jax.grad(lambda z: f(z)[0, 1] - f(z)[0, 0])(z).any())
        [0] False
        [0] True
    """
    first, second = jnp.moveaxis(lax.top_k(lax.stop_gradient(logits), 2)[0], -1, 0)
    scale = jnp.maximum(1, (first - second).mean(0) / SURE)
    softened, exact = log_mean_softmax(logits / scale[None, :, None]), log_mean_softmax(logits)
    same = softened.argmax(-1, keepdims=True) == exact.argmax(-1, keepdims=True)
    value = jnp.where(same, softened, exact)
    return lax.stop_gradient(value) + (softened - lax.stop_gradient(softened))
