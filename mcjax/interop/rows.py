"""Tables that map tensors of a PyTorch state dict to leaves of mcjax's variables.

    Row("layer1.0.conv1.weight", "params/layer1_0/conv1/kernel", CONV)

A custom architecture needs only such a table; those of published code are made by
`mcjax.interop.layouts`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mcjax.core.errors import UserError, listed
from mcjax.core.tree import PyTree, by_name
from mcjax.models.network import Network


class Transform(NamedTuple):
    """Converts an array from PyTorch's to mcjax's axes and back; values do not change.

    Args:
        name: Name in messages.
        to_mcjax: Converts from PyTorch's axes.
        to_torch: The inverse.
    """

    name: str
    to_mcjax: Callable[[np.ndarray], np.ndarray]
    to_torch: Callable[[np.ndarray], np.ndarray]


class Row(NamedTuple):
    """One tensor of a table.

    Args:
        torch: Its name in the state dict.
        path: The leaf's path in the variables, keys joined by slashes.
        transform: `SAME`, `CONV`, `DENSE` or `flat(h, w, c)`.
    """

    torch: str
    path: str
    transform: Transform


def _permute(name: str, axes: tuple[int, ...]) -> Transform:
    back = tuple(np.argsort(axes))
    return Transform(name, lambda w: _whole(w.transpose(axes)), lambda w: _whole(w.transpose(back)))


def _whole(w: np.ndarray) -> np.ndarray:
    return np.array(w, order="C")


SAME = _permute("same", ())._replace(to_mcjax=_whole, to_torch=_whole)
"""Biases, scales and statistics."""
CONV = _permute("conv", (2, 3, 1, 0))
"""Kernels of convolutions: PyTorch's [out, in, height, width], mcjax's [height, width, in, out]."""
DENSE = _permute("dense", (1, 0))
"""Weights of dense layers: PyTorch's [out, in], mcjax's [in, out]."""


def flat(height: int, width: int, channels: int) -> Transform:
    """Weights of the dense layer after a flattened feature map.

    PyTorch flattens [C, H, W], mcjax [H, W, C], so the layer's inputs are in a different order. For
    one pixel or one channel this is `DENSE`.

    Args:
        height: Height of the feature map, in pixels.
        width: Its width.
        channels: Its channels.

    Returns:
        A transform from [out, C * H * W] to [H * W * C, out].

    Example:
        >>> flat(1, 2, 2).to_mcjax(np.array([[0, 1, 2, 3]])).ravel()  # c0w0 c0w1 c1w0 c1w1
        array([0, 2, 1, 3])
    """

    def to_mcjax(w: np.ndarray) -> np.ndarray:
        image = w.reshape(len(w), channels, height, width)
        return _whole(image.transpose(2, 3, 1, 0).reshape(-1, len(w)))

    def to_torch(w: np.ndarray) -> np.ndarray:
        image = w.reshape(height, width, channels, w.shape[1])
        return _whole(image.transpose(3, 2, 0, 1).reshape(w.shape[1], -1))

    return Transform(f"flat {height}x{width}x{channels}", to_mcjax, to_torch)


def is_counter(name: str) -> bool:
    """Whether a tensor is BatchNorm's batch count, which is not used in the forward pass."""
    return name.rpartition(".")[2] == "num_batches_tracked"


def to_variables(
    tensors: Mapping[str, np.ndarray],
    rows: Sequence[Row],
    *,
    like: Network | PyTree | None = None,
    unused: Iterable[str] = (),
    source: str = "the state dict",
) -> dict[str, Any]:
    """Converts a state dict to variables by a table.

    Args:
        tensors: The state dict's arrays, by name.
        rows: The table.
        like: The network, or a tree of its variables: each row is compared with its leaf.
        unused: Other names that the state dict may have, which are ignored; batch counts
            (num_batches_tracked) are always ignored.
        source: Name of the state dict in messages.

    Returns:
        Nested dicts of arrays.

    Raises:
        UserError: Tensors are missing or unknown, two rows have one name or leaf, or a tensor has a
            wrong number of axes, contains bools, complex numbers or text, or does not fit `like`.

    Example:
        >>> rows = [Row("fc.weight", "params/fc/kernel", DENSE), Row("fc.bias", "params/fc/bias", SAME)]
        >>> tensors = {"fc.weight": np.zeros((10, 4)), "fc.bias": np.zeros(10)}
        >>> to_variables(tensors, rows)["params"]["fc"]["kernel"].shape
        (4, 10)
    """
    _check_names(tensors, rows, unused, source)
    if like is not None:
        check_rows(tensors, rows, like)
    variables: dict[str, Any] = {}
    for row in rows:
        *above, last = row.path.split("/")
        inner = variables
        for key in above:
            inner = inner.setdefault(key, {})
        w = np.asarray(tensors[row.torch])
        if not any(jnp.issubdtype(w.dtype, kind) for kind in (jnp.floating, jnp.integer)):
            raise UserError(f"{source}: {row.torch} is {w.dtype}, not a weight; save it as float32")
        try:
            inner[last] = row.transform.to_mcjax(w)
        except (ValueError, IndexError):
            raise UserError(
                f"{source}: {row.torch} has shape {list(w.shape)}, which does not fit {row.transform.name}; "
                "give the file's architecture and its images' shape"
            ) from None
    return variables


def _check_names(
    tensors: Mapping[str, np.ndarray], rows: Sequence[Row], unused: Iterable[str], source: str
) -> None:
    for what, used in (("name", [row.torch for row in rows]), ("leaf", [row.path for row in rows])):
        twice = [name for name, number in Counter(used).items() if number > 1]
        if twice:
            raise UserError(f"the table has two rows for the {what} {twice[0]}; remove one")
    missing, unknown = unmatched(tensors, rows, unused)
    if missing or unknown:
        said = [f"it lacks {listed(missing)}"] if missing else []
        shaped = [f"{name} {list(np.shape(tensors[name]))}" for name in unknown]
        said += [f"it has {listed(shaped)}, which the network does not know"] if unknown else []
        raise UserError(
            f"{source} does not fit: {'; '.join(said)}; give its architecture, or one row per tensor"
        )


def check_rows(
    tensors: Mapping[str, Any], rows: Sequence[Row], like: Network | PyTree, *, at_most: int = 3
) -> None:
    """Compares a table with a network: each tensor, transformed, must have its leaf's shape.

    Args:
        tensors: The state dict's arrays, by name; only shapes are used.
        rows: The table.
        like: The network, or a tree of its variables.
        at_most: How many rows the message names.

    Raises:
        UserError: A row is wrong, or a leaf has no row; the message has PyTorch's name and both
            shapes.

    Example:
        >>> rows = [Row("weight", "params/kernel", SAME)]
        >>> check_rows({"weight": np.zeros((10, 4))}, rows, {"params": {"kernel": np.zeros((4, 10))}})
        Traceback (most recent call last):
        mcjax.core.errors.UserError: ... by same, but params/kernel is [4, 10] (use DENSE); ...
    """
    tree = jax.eval_shape(like.init, jax.random.key(0)) if isinstance(like, Network) else like
    leaves = {path: tuple(leaf.shape) for path, leaf in by_name(tree).items()}
    wrong = []
    for row in rows:
        shape = tuple(tensors[row.torch].shape)
        where = f"{row.torch} {list(shape)}"
        if row.path not in leaves:
            wrong.append(f"{where} goes to {row.path}, which the network does not have")
            continue
        found = transformed(shape, row.transform)
        if found != leaves[row.path]:
            name = row.transform.name
            becomes = (
                f"does not fit {name}" if found is None else f"becomes {list(found)} by {name}"
            )
            wrong.append(
                f"{where} {becomes}, but {row.path} is {list(leaves[row.path])}"
                f"{_advice(shape, row.path, leaves)}"
            )
    taken = {row.path for row in rows}
    wrong += [
        f"no row for {path} {list(shape)}" for path, shape in leaves.items() if path not in taken
    ]
    if wrong:
        more = f"; and {len(wrong) - at_most} more" if len(wrong) > at_most else ""
        raise UserError(
            f"the table does not fit the network: {'; '.join(wrong[:at_most])}{more}; correct the rows"
        )


def transformed(shape: tuple[int, ...], transform: Transform) -> tuple[int, ...] | None:
    """The shape that a transform to mcjax makes of a shape; None if it does not fit."""
    try:
        return transform.to_mcjax(np.broadcast_to(np.int8(0), shape)).shape
    except (ValueError, IndexError):
        return None


def _advice(shape: tuple[int, ...], path: str, leaves: Mapping[str, tuple[int, ...]]) -> str:
    """The transform that would fit, else the leaves that would."""
    by = {
        name: transformed(shape, transform)
        for name, transform in (("SAME", SAME), ("CONV", CONV), ("DENSE", DENSE))
    }
    fits = [name for name, made in by.items() if made == leaves[path]]
    if fits:
        return f" (use {fits[0]})"
    kind = path.rpartition("/")[2]
    others = [
        p for p, leaf in leaves.items() if p.rpartition("/")[2] == kind and leaf in by.values()
    ]
    return f" (it fits {' or '.join(others[:3])})" if others else ""


def to_tensors(variables: PyTree, rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """Converts variables to a state dict; the inverse of `to_variables`.

    Args:
        variables: Nested dicts of arrays.
        rows: The table.

    Returns:
        Arrays by PyTorch's names, in the table's order.

    Raises:
        UserError: The variables lack a leaf of the table, or have others.

    Example:
        >>> rows = [Row("weight", "params/kernel", DENSE)]
        >>> to_tensors({"params": {"kernel": np.zeros((4, 10))}}, rows)["weight"].shape
        (10, 4)
    """
    leaves = {name: np.asarray(leaf) for name, leaf in by_name(variables).items()}
    missing = [row.path for row in rows if row.path not in leaves]
    unknown = sorted(leaves.keys() - {row.path for row in rows})
    if missing or unknown:
        what = f"no {listed(missing)}" if missing else f"unknown leaves {listed(unknown)}"
        raise UserError(f"the variables have {what}; give the table of this architecture")
    return {row.torch: row.transform.to_torch(leaves[row.path]) for row in rows}


def unmatched(
    tensors: Mapping[str, Any], rows: Sequence[Row], unused: Iterable[str] = ()
) -> tuple[list[str], list[str]]:
    """The names that a state dict lacks, and those that are not in the table."""
    known = {row.torch for row in rows}
    missing = [row.torch for row in rows if row.torch not in tensors]
    others = known.union(unused)
    return missing, [name for name in tensors if name not in others and not is_counter(name)]
