"""Batching: on the host for evaluation, inside jit for training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mcjax.errors import UserError


def to_unit(image: jax.Array | np.ndarray) -> jax.Array:
    """Converts images to float32 in [0, 1].

    Args:
        image: uint8 of any shape, divided by 255; or float in [0, 1], not rescaled.

    Returns:
        float32 of the same shape.

    Raises:
        TypeError: The image is neither uint8 nor float.

    Example:
        >>> to_unit(np.array([0, 255], np.uint8)).tolist()
        [0.0, 1.0]
    """
    if image.dtype == jnp.uint8:
        return jnp.asarray(image, jnp.float32) / 255
    if jnp.issubdtype(image.dtype, jnp.floating):
        return jnp.asarray(image, jnp.float32)
    raise TypeError(f"images are {image.dtype}; give uint8, or floats in [0, 1]")


def stack_batches(examples: dict[str, np.ndarray], batch_size: int) -> dict[str, np.ndarray]:
    """Stacks examples, in order, into batches of equal size; the last is padded with zeros.

    Args:
        examples: {"image": [M, H, W, C], "label": [M]}, M > 0.
        batch_size: Examples per batch, B.

    Returns:
        {"image": [N, B, H, W, C], "label": [N, B], "mask": float32 [N, B]} with N = ceil(M / B);
        the mask is 1 for examples and 0 for padding.

    Raises:
        UserError: There are no examples, or batch_size is less than 1.

    Example:
        >>> examples = {"image": np.ones((3, 2, 2, 1), np.uint8), "label": np.arange(3)}
        >>> stack_batches(examples, 2)["mask"].tolist()
        [[1.0, 1.0], [1.0, 0.0]]
    """
    size = len(examples["label"])
    if size == 0 or batch_size < 1:
        raise UserError(f"{size} examples in batches of {batch_size}; give at least 1 of each")
    num_batches = -(-size // batch_size)

    def stack(array: np.ndarray) -> np.ndarray:
        stacked = np.zeros((num_batches * batch_size, *array.shape[1:]), array.dtype)
        stacked[:size] = array
        return stacked.reshape(num_batches, batch_size, *array.shape[1:])

    mask = np.ones(size, np.float32)
    return {key: stack(np.asarray(array)) for key, array in {**examples, "mask": mask}.items()}


@functools.partial(jax.jit, static_argnames=("num_steps", "batch_size", "num_examples"))
def epoch_indices(
    key: jax.Array,
    *,
    first_step: jax.Array | int,
    num_steps: int,
    batch_size: int,
    num_examples: int,
) -> jax.Array:
    """The indices of each training step's examples; each epoch is a random permutation.

    The examples form an endless stream of random permutations, that of epoch e from fold_in(key, e).
    Step s takes positions s B ... s B + B - 1. So each epoch has each example once, batches are
    always full and may span two epochs, and `num_examples` may be smaller than a batch. A step's
    examples depend only on the key and the step, so an interrupted run resumes exactly.

    Args:
        key: Random key of the whole stream.
        first_step: First step, int32, may be traced.
        num_steps: Number of steps.
        batch_size: Examples per step, B.
        num_examples: Number of examples in the data set.

    Returns:
        int32 [num_steps, batch_size], indices of examples.

    Example:
        >>> key = jax.random.key(0)
        >>> index = epoch_indices(key, first_step=0, num_steps=3, batch_size=4, num_examples=6)
        >>> sorted(index.ravel()[:6].tolist()), sorted(index.ravel()[6:].tolist())
        ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5])
    """
    epoch, place = _divide_product(jnp.asarray(first_step, jnp.int32), batch_size, num_examples)
    length = num_steps * batch_size
    # The largest number of epochs that a call can touch, wherever it starts.
    num_epochs = (num_examples + length - 2) // num_examples + 1
    keys = jax.vmap(lambda e: jax.random.fold_in(key, e))(epoch + jnp.arange(num_epochs))
    orders = jax.vmap(lambda k: jax.random.permutation(k, num_examples))(keys)
    stream = lax.dynamic_slice(orders.ravel(), (place,), (length,))
    return stream.reshape(num_steps, batch_size)


def _divide_product(step: jax.Array, factor: int, divisor: int) -> tuple[jax.Array, jax.Array]:
    """(step * factor) // divisor and its remainder, without overflow of int32.

    Binary long multiplication, most significant bit of `factor` first; the remainder stays below
    3 * divisor.
    """
    high, low = step // divisor, step % divisor
    quotient, remainder = jnp.zeros_like(step), jnp.zeros_like(step)
    for bit in bin(factor)[2:]:
        remainder = 2 * remainder + (low if bit == "1" else 0)
        quotient = 2 * quotient + remainder // divisor
        remainder = remainder % divisor
    return high * factor + quotient, remainder
