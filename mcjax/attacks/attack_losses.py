"""What attacks on images make large, one number an example."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def confident_cross_entropy(logits: jax.Array, y: jax.Array) -> jax.Array:
    """-log softmax(z)_y as softplus(log sum_{j != y} exp(z_j - z_y)).

    The same number as `mcjax.losses.cross_entropy`, but its derivatives stay exact where the network
    is so sure that softmax(z)_y rounds to 1 and softmax(z)_y - 1 to 0.

    Args:
        logits: [B, classes], two classes or more.
        y: Integer labels, [B].

    Returns:
        One loss an example in nats, [B].

    Example:
        >>> z, y = jnp.array([[30.0, 0.0]]), jnp.array([0])
        >>> jax.grad(lambda z: confident_cross_entropy(z, y).sum())(z)
        Array([[-9.357623e-14,  9.357623e-14]], dtype=float32)
    """
    own = y[:, None] == jnp.arange(logits.shape[-1])[None]
    gap = logits - jnp.take_along_axis(logits, y[:, None], -1)
    return jax.nn.softplus(jax.nn.logsumexp(gap, axis=-1, where=~own))


def margin(logits: jax.Array, y: jax.Array) -> jax.Array:
    """max_{j != y} z_j - z_y: positive where the label is not the answer, [B].

    Args:
        logits: [B, classes].
        y: Integer labels, [B].

    Returns:
        One loss an example, in units of the logits.

    Example:
        >>> margin(jnp.array([[1.0, 3.0, 2.0]]), jnp.array([1]))
        Array([-1.], dtype=float32)

    Source: Carlini & Wagner 2017, section IV-A (f_6 without the clamp).
    """
    own = y[:, None] == jnp.arange(logits.shape[-1])[None]
    z_y = jnp.take_along_axis(logits, y[:, None], -1)[:, 0]
    return jnp.where(own, -jnp.inf, logits).max(-1) - z_y


def difference_of_logits_ratio(logits: jax.Array, y: jax.Array) -> jax.Array:
    """(max_{j != y} z_j - z_y) / (z_(1) - z_(3)), with z_(k) the k-th largest logit, [B].

    Neither a shift nor a positive scale of the logits changes it.

    Args:
        logits: [B, classes], three classes or more.
        y: Integer labels, [B].

    Returns:
        One loss an example, in [-1, 1] where the label is among the two largest.

    Example:
        >>> difference_of_logits_ratio(jnp.array([[1.0, 3.0, 2.0]]), jnp.array([1]))
        Array([-0.5], dtype=float32)

    Source: Croce & Hein 2020, equation 6.
    """
    largest = jax.lax.top_k(logits, 3)[0]
    return margin(logits, y) / (largest[:, 0] - largest[:, 2] + 1e-12)


def kl(clean_logits: jax.Array, logits: jax.Array) -> jax.Array:
    """KL(softmax(clean) || softmax(adversarial)) in nats, [B]; needs no label.

    Args:
        clean_logits: [B, classes], at the clean images.
        logits: [B, classes], at the perturbed ones.

    Returns:
        One divergence an example.

    Example:
        >>> kl(jnp.array([[0.0, 0.0]]), jnp.array([[0.0, 0.0]]))
        Array([0.], dtype=float32)

    Source: Zhang et al. 2019 (TRADES), equation 5.
    """
    log_p, log_q = jax.nn.log_softmax(clean_logits), jax.nn.log_softmax(logits)
    return (jnp.exp(log_p) * (log_p - log_q)).sum(-1)


LABEL_LOSSES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "cross_entropy": confident_cross_entropy,
    "margin": margin,
    "dlr": difference_of_logits_ratio,
}
"""Losses of logits [B, classes] and labels [B]."""
