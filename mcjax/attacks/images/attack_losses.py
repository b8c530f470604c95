"""Per-example losses that attacks on images maximise.

In float32, softmax(z)_y rounds to 1 when the label's logit leads by about 17, and the other
probabilities underflow to 0 at about 104. Derivatives are therefore computed from differences of
logits, not from probabilities.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


@jax.custom_jvp
def _sigmoid(u: jax.Array) -> jax.Array:
    return jax.nn.sigmoid(u)


@_sigmoid.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (u,), (t,) = primals, tangents
    return _sigmoid(u), _sigmoid(u) * _sigmoid(-u) * t  # JAX's own 1 - sigmoid(u) rounds to 0


@jax.custom_jvp
def _softplus(u: jax.Array) -> jax.Array:
    return jax.nn.softplus(u)


@_softplus.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (u,), (t,) = primals, tangents
    return _softplus(u), _sigmoid(u) * t


@jax.custom_jvp
def _softmax(z: jax.Array) -> jax.Array:
    return jax.nn.softmax(z)


@_softmax.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (z,), (t,) = primals, tangents
    p = _softmax(z)
    # Relative to the most likely class, whose p may round to 1: t - sum p t would cancel there.
    t = t - jnp.take_along_axis(t, z.argmax(-1, keepdims=True), -1)
    return p, p * (t - (p * t).sum(-1, keepdims=True))


@jax.custom_jvp
def _logsumexp(z: jax.Array) -> jax.Array:
    return jax.nn.logsumexp(z, axis=-1)


@_logsumexp.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (z,), (t,) = primals, tangents
    return _logsumexp(z), (_softmax(z) * t).sum(-1)


def log_odds(logits: jax.Array, y: jax.Array) -> jax.Array:
    """log((1 - p_y) / p_y) = log sum_{j != y} exp(z_j - z_y), with p = softmax(z).

    The cross-entropy -log p_y = softplus(log odds) is an increasing function of it, so both rank
    images equally and have gradients in the same direction. Unlike the cross-entropy, it does not
    saturate.

    Args:
        logits: [B, classes], two classes or more.
        y: Integer labels, [B].

    Returns:
        One value per example, [B].

    Example:
        >>> z, y = jnp.array([[300.0, 0.0]]), jnp.array([0])
        >>> log_odds(z, y), jax.grad(lambda z: log_odds(z, y).sum())(z)
        (Array([-300.], dtype=float32), Array([[-1.,  1.]], dtype=float32))
    """
    own = y[:, None] == jnp.arange(logits.shape[-1])[None]
    gap = logits - jnp.take_along_axis(logits, y[:, None], -1)
    return _logsumexp(jnp.where(own, -jnp.inf, gap))


def confident_cross_entropy(logits: jax.Array, y: jax.Array) -> jax.Array:
    """-log softmax(z)_y as softplus(log odds).

    Equal to `mcjax.training.losses.cross_entropy`, but its first and second derivatives keep their relative
    precision for any confidence of the network, in the label or in another class.

    Args:
        logits: [B, classes], two classes or more.
        y: Integer labels, [B].

    Returns:
        One loss per example in nats, [B].

    Example:
        >>> z, y = jnp.array([[30.0, 0.0]]), jnp.array([0])
        >>> jax.grad(lambda z: confident_cross_entropy(z, y).sum())(z)
        Array([[-9.3576236e-14,  9.3576236e-14]], dtype=float32)
    """
    return _softplus(log_odds(logits, y))


def log_cross_entropy(logits: jax.Array, y: jax.Array) -> jax.Array:
    """log(-log softmax(z)_y), [B], for sums of losses whose terms may all underflow.

    Args:
        logits: [B, classes], two classes or more.
        y: Integer labels, [B].

    Returns:
        One value per example; approximately the log odds where these are far below 0.

    Example:
        >>> log_cross_entropy(jnp.array([[300.0, 0.0], [0.0, 0.0]]), jnp.array([0, 0])).round(3)
        Array([-300.   ,   -0.367], dtype=float32)
    """
    u = log_odds(logits, y)
    low = u < -10  # where log(1 + v) = v (1 - v / 2) to float32's precision, v = exp(u)
    small, others = jnp.where(low, u, 0), jnp.where(low, 0, u)
    return jnp.where(low, small - jnp.exp(small) / 2, jnp.log(_softplus(others)))


def margin(logits: jax.Array, y: jax.Array) -> jax.Array:
    """max_{j != y} z_j - z_y, [B]: positive where the example is misclassified.

    Args:
        logits: [B, classes].
        y: Integer labels, [B].

    Returns:
        One loss per example, in units of the logits.

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

    Invariant to shifts and positive scaling of the logits.

    Args:
        logits: [B, classes], three classes or more.
        y: Integer labels, [B].

    Returns:
        One loss per example, in [-1, 1] where the label is among the two largest.

    Example:
        >>> difference_of_logits_ratio(jnp.array([[1.0, 3.0, 2.0]]), jnp.array([1]))
        Array([-0.5], dtype=float32)

    Source: Croce & Hein 2020, equation 6.
    """
    largest = jax.lax.top_k(logits, 3)[0]
    return margin(logits, y) / (largest[:, 0] - largest[:, 2] + 1e-12)


def targeted_difference_of_logits_ratio(
    logits: jax.Array, y: jax.Array, target: jax.Array
) -> jax.Array:
    """(z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2), with z_(k) the k-th largest logit, [B].

    Invariant to shifts and positive scaling of the logits.

    Args:
        logits: [B, classes], four classes or more.
        y: Integer labels, [B].
        target: The class t to reach, [B].

    Returns:
        One loss per example.

    Example:
        >>> z, y, target = jnp.array([[4.0, 3.0, 2.0, 0.0]]), jnp.array([0]), jnp.array([2])
        >>> targeted_difference_of_logits_ratio(z, y, target)
        Array([-0.6666667], dtype=float32)

    Source: Croce & Hein 2020, equation 7.
    """
    largest = jax.lax.top_k(logits, 4)[0]
    spread = largest[:, 0] - (largest[:, 2] + largest[:, 3]) / 2
    return targeted_margin(logits, y, target) / (spread + 1e-12)


def targeted_margin(logits: jax.Array, y: jax.Array, target: jax.Array) -> jax.Array:
    """z_t - z_y, [B].

    Args:
        logits: [B, classes].
        y: Integer labels, [B].
        target: The class t to reach, [B].

    Returns:
        One loss per example, in units of the logits.

    Example:
        >>> targeted_margin(jnp.array([[1.0, 3.0, 2.0]]), jnp.array([1]), jnp.array([0]))
        Array([-2.], dtype=float32)
    """

    def of(k: jax.Array) -> jax.Array:
        return jnp.take_along_axis(logits, k[:, None], -1)[:, 0]

    return of(target) - of(y)


def likely_class(logits: jax.Array, y: jax.Array, rank: jax.typing.ArrayLike) -> jax.Array:
    """The class of the given rank among the classes other than the label, by decreasing logit.

    Args:
        logits: [B, classes].
        y: Integer labels, [B].
        rank: 0 for the most likely other class, up to classes - 2; may be traced.

    Returns:
        Classes, [B].

    Example:
        >>> z, y = jnp.array([[1.0, 3.0, 2.0]]), jnp.array([1])
        >>> likely_class(z, y, 0), likely_class(z, y, 1)
        (Array([2], dtype=int32), Array([0], dtype=int32))
    """
    own = y[:, None] == jnp.arange(logits.shape[-1])[None]
    order = jnp.argsort(jnp.where(own, -jnp.inf, logits), axis=-1, descending=True)
    return order[:, rank]


def kl(clean_logits: jax.Array, logits: jax.Array) -> jax.Array:
    """KL(softmax(clean) || softmax(adversarial)) in nats, [B]; does not use labels.

    Args:
        clean_logits: [B, classes], at the clean images.
        logits: [B, classes], at the perturbed images.

    Returns:
        One divergence per example.

    Example:
        >>> kl(jnp.array([[0.0, 0.0]]), jnp.array([[0.0, 0.0]]))
        Array([0.], dtype=float32)

    Source: Zhang et al. 2019 (TRADES), equation 5.
    """
    log_p, log_q = jax.nn.log_softmax(clean_logits), jax.nn.log_softmax(logits)
    return (jnp.exp(log_p) * (log_p - log_q)).sum(-1)


@jax.custom_jvp
def log_kl(clean_logits: jax.Array, logits: jax.Array) -> jax.Array:
    """Logarithm of KL(softmax(clean) || softmax(adversarial)), [B]; finite where the KL underflows.

    With r_j = log q_j - log p_j and sum_j (q_j - p_j) = 0, KL = sum_j p_j (exp(r_j) - 1 - r_j). No
    term is negative, so there is no cancellation and the sum can be computed in the log domain.

    Args:
        clean_logits: [B, classes], at the clean images; no gradient flows through them.
        logits: [B, classes], at the perturbed images.

    Returns:
        One value per example; -inf, with zero gradient, where both are equal.

    Example:
        >>> log_kl(jnp.array([[200.0, 0.0]]), jnp.array([[201.0, 0.0]])).round(1)
        Array([-201.], dtype=float32)

    Source: as `kl`; the form without cancellation is that of a Bregman divergence.
    """
    log_p, log_q = confident_log_softmax(clean_logits), confident_log_softmax(logits)
    return jax.nn.logsumexp(log_p + _log_bregman(log_q - log_p), axis=-1)


@log_kl.defjvp
def _(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (clean_logits, logits), (_, t) = primals, tangents
    value = log_kl(clean_logits, logits)
    log_p, log_q = confident_log_softmax(clean_logits), confident_log_softmax(logits)
    # (q - p) / KL. For the most likely class it is minus the sum of the others, else it rounds to 0.
    r = log_q - log_p
    apart = jnp.maximum(log_p, log_q) + jnp.log(-jnp.expm1(-jnp.abs(r))) - value[:, None]
    apart = jnp.sign(r) * jnp.exp(apart)
    top = jnp.arange(logits.shape[-1])[None] == clean_logits.argmax(-1, keepdims=True)
    rest = jnp.where(top, 0, apart)
    gradient = jnp.where(top, -rest.sum(-1, keepdims=True), rest)
    gradient = jnp.where(jnp.isfinite(value)[:, None], gradient, 0)
    return value, (gradient * t).sum(-1)


def _log_bregman(r: jax.Array) -> jax.Array:
    """log(exp(r) - 1 - r), by its series for r near 0."""
    near, far = jnp.abs(r) < 0.1, r > 1
    small, large = jnp.where(near, r, 0), jnp.where(far, r, 1)
    middle = jnp.where(near | far, 1, r)
    series = 1 + small / 3 * (1 + small / 4 * (1 + small / 5))  # of (exp(r) - 1 - r) / (r^2 / 2)
    return jnp.where(
        near,
        2 * jnp.log(jnp.abs(small)) + jnp.log(series / 2),
        jnp.where(
            far,
            large + jnp.log1p(-(1 + large) * jnp.exp(-large)),
            jnp.log(jnp.expm1(middle) - middle),
        ),
    )


def confident_log_softmax(logits: jax.Array) -> jax.Array:
    """Log-probabilities, [B, classes]; that of the most likely class keeps its relative precision.

    Example:
        >>> confident_log_softmax(jnp.array([[50.0, 0.0]]))
        Array([[-1.9287499e-22, -5.0000000e+01]], dtype=float32)
    """
    y = logits.argmax(-1)
    top = jnp.arange(logits.shape[-1])[None] == y[:, None]
    return jnp.where(top, -confident_cross_entropy(logits, y)[:, None], jax.nn.log_softmax(logits))


LABEL_LOSSES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "cross_entropy": log_odds,  # increasing in it, and its gradient does not vanish
    "margin": margin,
    "dlr": difference_of_logits_ratio,
}
"""Objectives by loss name: functions of logits [B, classes] and labels [B] that attacks maximise."""
