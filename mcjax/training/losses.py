"""Per-example losses and metrics of classifiers."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from mcjax.core.bound_functions import Bound
from mcjax.core.errors import UserError
from mcjax.core.foreign import refuse_torch
from mcjax.core.tree import PyTree
from mcjax.data.batches import Batch

MetricFn = Callable[[PyTree, Batch], dict[str, jax.Array]]


def cross_entropy(logits: jax.Array, y: jax.Array) -> jax.Array:
    """-log softmax(logits)_y, in nats.

    Args:
        logits: [B, classes].
        y: Integer labels, [B].

    Returns:
        One loss per example, [B].

    Raises:
        UserError: The labels are not one integer per row of logits.

    Example:
        >>> cross_entropy(jnp.zeros((1, 4)), jnp.array([2]))
        Array([1.3862944], dtype=float32)
    """
    _check_labels(logits, y)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y)


def accuracy(logits: jax.Array, y: jax.Array) -> jax.Array:
    """1 where the largest logit is the label's, else 0, [B].

    Args:
        logits: [B, classes].
        y: Integer labels, [B].

    Raises:
        UserError: The labels are not one integer per row of logits.

    Example:
        >>> accuracy(jnp.array([[1.0, 2.0], [1.0, 0.0]]), jnp.array([1, 1]))
        Array([1., 0.], dtype=float32)
    """
    _check_labels(logits, y)
    return (logits.argmax(-1) == y).astype(jnp.float32)


def _check_labels(logits: jax.Array, y: jax.Array) -> None:
    """Checks shapes and dtypes; labels [B, 1] would silently broadcast to [B, B]."""
    shape, dtype = jnp.shape(y), jnp.result_type(y)
    if shape != jnp.shape(logits)[:-1] or not jnp.issubdtype(dtype, jnp.integer):
        raise UserError(
            f"labels are {dtype} {list(shape)} for logits {list(jnp.shape(logits))}; give integers "
            f"of shape {list(jnp.shape(logits)[:-1])}"
        )


def l2(params: PyTree) -> jax.Array:
    """||w||^2 / 2 over all parameters, including biases and BatchNorm's scale and bias."""
    return optax.tree.norm(params, squared=True) / 2


def classification_metrics(apply_fn: Callable[[PyTree, jax.Array], jax.Array]) -> MetricFn:
    """The metric_fn for classification: "loss" in nats and "accuracy", each [B].

    Args:
        apply_fn: `apply_fn(variables, x) -> logits`.

    Returns:
        A metric_fn for `evaluate_path`; equal for equal apply_fn, so it is compiled once.
    """
    refuse_torch("apply_fn", apply_fn)
    return Bound(_classification, apply_fn)


def _classification(
    apply_fn: Callable[[PyTree, jax.Array], jax.Array], variables: PyTree, batch: Batch
) -> dict[str, jax.Array]:
    logits, y = apply_fn(variables, batch["image"]), batch["label"]
    return {"loss": cross_entropy(logits, y), "accuracy": accuracy(logits, y)}
