"""Parameter trees: leaf names, structure checks and digests (for norms use optax.tree)."""

import hashlib
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from mcjax.core.errors import UserError
from mcjax.core.foreign import refuse_torch

PyTree = Any


def path_name(path: jax.tree_util.KeyPath) -> str:
    """A leaf's path in its tree as a string: "layer1_0/conv1/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def by_name(tree: PyTree) -> dict[str, Any]:
    """The leaves by name, in the tree's order.

    Example:
        >>> by_name({"conv1": {"bias": 1, "kernel": 2}, "fc": 3})
        {'conv1/bias': 1, 'conv1/kernel': 2, 'fc': 3}
    """
    return {path_name(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def as_partial(fn: Callable[..., Any], name: str = "logits_fn") -> jax.tree_util.Partial:
    """Wraps a function as a pytree for jitted functions; a `Partial` is returned unchanged.

    Wrapping a Partial again would make its weights constants of the program, which would be
    recompiled for each network.

    Args:
        fn: The function.
        name: What messages call it.

    Raises:
        UserError: It is a PyTorch module.

    Example:
        >>> given = jax.tree_util.Partial(jax.numpy.dot, jax.numpy.ones(2))
        >>> as_partial(given) is given, len(jax.tree.leaves(as_partial(jax.numpy.dot)))
        (True, 0)
    """
    refuse_torch(name, fn)
    return fn if isinstance(fn, jax.tree_util.Partial) else jax.tree_util.Partial(fn)


def check_same_structure(
    a: PyTree,
    b: PyTree,
    names: tuple[str, str] = ("start", "end"),
    *,
    advice: str = "use two networks of one architecture",
) -> None:
    """Checks that two trees have the same keys, shapes and dtypes.

    Args:
        a: Any tree of arrays.
        b: The tree to compare with `a`.
        names: Their names in the message.
        advice: What the message tells the user to do.

    Raises:
        UserError: The trees differ; the message names the first leaf that does.

    Example:
        >>> check_same_structure({"w": np.zeros(3)}, {"w": np.zeros(4)})
        Traceback (most recent call last):
        mcjax.core.errors.UserError: start and end differ at w: ... use two networks of one architecture
    """
    leaves_a, leaves_b = (dict(jax.tree.leaves_with_path(tree)) for tree in (a, b))
    for path in [*leaves_a, *(p for p in leaves_b if p not in leaves_a)]:
        where = path_name(path)
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
    """SHA-256 over the path, dtype, shape and bytes of each leaf, in order.

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


def size_in_words(tree: PyTree) -> str:
    """The number of values in a tree, in words.

    Args:
        tree: Any tree; leaves that are no arrays do not count.

    Example:
        >>> size_in_words({"kernel": np.zeros((100, 20)), "bias": np.zeros(20)})
        '2,020 parameters'
    """
    shapes = [leaf.shape for leaf in jax.tree.leaves(tree) if hasattr(leaf, "shape")]
    number = sum(math.prod(shape) for shape in shapes)
    return f"{number:,} parameter{'' if number == 1 else 's'}"
