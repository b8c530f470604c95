"""Randomness by name: every use of a key has its own stream, whatever the others draw."""

import zlib

import jax


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
