"""Randomness by name: every use of a key has its own stream, whatever the others draw."""

import contextlib
import numbers
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mcjax.core.errors import UserError, shown

NUM_SEEDS = 2**32
"""JAX takes seeds modulo that: larger ones would repeat smaller ones."""


def check_seed(seed: Any, name: str = "seed") -> int:
    """A seed as a whole number, if it is one of [0, 2^32).

    Args:
        seed: What a user gave.
        name: What to call it in the message.

    Returns:
        The seed.

    Raises:
        UserError: It is something else.

    Example:
        >>> check_seed(3)
        3
    """
    whole = isinstance(seed, numbers.Integral) and not isinstance(seed, bool)
    if not whole or not 0 <= seed < NUM_SEEDS:
        raise UserError(f"{name} is {shown(seed)}; give a whole number from 0 to {NUM_SEEDS - 1}")
    return int(seed)


def check_key(key: Any, name: str = "key") -> jax.Array:
    """A random key, if it is a single one.

    Args:
        key: What a user gave: `jax.random.key(0)`, or `jax.random.PRNGKey(0)`.
        name: What to call it in the message.

    Returns:
        The key as `jax.random.key` makes it.

    Raises:
        UserError: It is something else, a seed or several keys say.

    Example:
        >>> bool(check_key(jax.random.PRNGKey(3)) == jax.random.key(3))
        True
    """
    is_array = isinstance(key, jax.Array | np.ndarray)
    if is_array and not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        with contextlib.suppress(TypeError):  # other numbers than a key's
            key = jax.random.wrap_key_data(key)
    if is_array and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ():
        return key
    raise UserError(f"{name} is {shown(key)}; it must be a single key, jax.random.key(0) say")


def stream(key: jax.Array, name: str, *indices: jax.typing.ArrayLike) -> jax.Array:
    """The key of one named use, and of one place (epoch, step, example) in it.

    Args:
        key: A key made by `jax.random.key`.
        name: What the randomness is for: "dropout", "t", ...
        *indices: Integers, traced or not.

    Returns:
        A key that differs for every name and every list of indices.

    Example:
        >>> key = jax.random.key(0)
        >>> bool(stream(key, "t", 1) == stream(key, "t", 2))
        False
    """
    key = jax.random.fold_in(key, zlib.crc32(name.encode()))
    for index in indices:
        key = jax.random.fold_in(key, index)
    return key
