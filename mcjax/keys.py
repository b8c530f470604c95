"""Named random streams: each use of a key has its own stream, independent of the others."""

import contextlib
import numbers
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mcjax.errors import UserError, shown

NUM_SEEDS = 2**32
"""JAX takes seeds modulo 2^32, so larger seeds would repeat smaller ones."""


def check_seed(seed: Any, name: str = "seed") -> int:
    """Checks that a seed is an integer in [0, 2^32).

    Args:
        seed: The user's value.
        name: Its name in the message.

    Returns:
        The seed as an int.

    Raises:
        UserError: It is not an integer in [0, 2^32).

    Example:
        >>> check_seed(3)
        3
    """
    whole = isinstance(seed, numbers.Integral) and not isinstance(seed, bool)
    if not whole or not 0 <= seed < NUM_SEEDS:
        raise UserError(f"{name} is {shown(seed)}; give an integer from 0 to {NUM_SEEDS - 1}")
    return int(seed)


def check_key(key: Any, name: str = "key") -> jax.Array:
    """Checks that a value is a single random key.

    Args:
        key: The user's value: `jax.random.key(0)` or `jax.random.PRNGKey(0)`.
        name: Its name in the message.

    Returns:
        The key as a typed key, as made by `jax.random.key`.

    Raises:
        UserError: It is not a single key, e.g. a seed or several keys.

    Example:
        >>> bool(check_key(jax.random.PRNGKey(3)) == jax.random.key(3))
        True
    """
    is_array = isinstance(key, jax.Array | np.ndarray)
    if is_array and not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        with contextlib.suppress(TypeError):  # not key data
            key = jax.random.wrap_key_data(key)
    if is_array and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ():
        return key
    raise UserError(f"{name} is {shown(key)}; it must be a single key, e.g. jax.random.key(0)")


def stream(key: jax.Array, name: str, *indices: jax.typing.ArrayLike) -> jax.Array:
    """Derives the key for one use ("dropout") and, optionally, for one epoch, step or example of it.

    Args:
        key: A key made by `jax.random.key`.
        name: The purpose: "dropout", "t", ...
        *indices: Integers, traced or not.

    Returns:
        A key that is different for each name and each list of indices.

    Example:
        >>> key = jax.random.key(0)
        >>> bool(stream(key, "t", 1) == stream(key, "t", 2))
        False
    """
    key = jax.random.fold_in(key, zlib.crc32(name.encode()))
    for index in indices:
        key = jax.random.fold_in(key, index)
    return key
