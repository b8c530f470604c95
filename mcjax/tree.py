"""Comparing parameter trees: structure, shapes, digests (norms and dot products are optax.tree's)."""

import hashlib
from typing import Any

import jax
import numpy as np

from mcjax.errors import UserError

PyTree = Any


def check_same_structure(a: PyTree, b: PyTree, names: tuple[str, str] = ("start", "end")) -> None:
    """Checks that two trees have the same keys, shapes and dtypes.

    Args:
        a: Any tree of arrays.
        b: The tree to compare with `a`.
        names: What to call the two in the message.

    Raises:
        UserError: Names the first leaf that differs.

    Example:
        >>> check_same_structure({"w": np.zeros(3)}, {"w": np.zeros(4)})
        Traceback (most recent call last):
        mcjax.errors.UserError: start and end differ at w: ... use two networks of one architecture
    """
    advice = "use two networks of one architecture"
    leaves_a, leaves_b = (dict(jax.tree.leaves_with_path(tree)) for tree in (a, b))
    for path in [*leaves_a, *(p for p in leaves_b if p not in leaves_a)]:
        where = jax.tree_util.keystr(path, simple=True, separator="/")
        for leaves, name in zip((leaves_a, leaves_b), names, strict=True):
            if path not in leaves:
                raise UserError(
                    f"{names[0]} and {names[1]} differ: {name} has no {where}; {advice}"
                )
        one, other = _type(leaves_a[path]), _type(leaves_b[path])
        if one != other:
            raise UserError(
                f"{names[0]} and {names[1]} differ at {where}: {one} and {other}; {advice}"
            )
    if len(set(map(jax.tree.structure, (a, b)))) > 1:
        raise UserError(f"{names[0]} and {names[1]} are trees of different kinds; {advice}")


def _type(leaf: Any) -> str:
    dtype = leaf.dtype if hasattr(leaf, "dtype") else np.result_type(leaf)
    return f"{dtype}[{','.join(map(str, np.shape(leaf)))}]"


def digest(tree: PyTree) -> str:
    """SHA-256 of a tree: of the path, dtype, shape and bytes of each leaf, in order.

    Args:
        tree: Any tree of arrays.

    Returns:
        64 hexadecimal digits, equal only for bit-equal trees.

    Example:
        >>> digest({"w": np.zeros(2)}) == digest({"w": np.array([0.0, -0.0])})
        False
    """
    sha = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(tree):
        leaf = np.asarray(leaf)
        sha.update(f"{jax.tree_util.keystr(path, simple=True)} {_type(leaf)}".encode())
        sha.update(np.ascontiguousarray(leaf).tobytes())
    return sha.hexdigest()
