"""Drafts the table of names between a state dict and a network: guesses by shapes, names and order.

    for line in draft(tensors, network, (32, 32, 3)).lines():
        print(line)

A layer of the state dict (the tensors with one prefix) is matched to a layer of the network whose
leaves have the same shapes. If several have, equal names decide, then the order, provided that both
sides have equally many. What is left stays open.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mcjax.core.jaxprs import inside
from mcjax.core.tree import by_name
from mcjax.interop.rows import CONV, DENSE, SAME, Row, Transform, flat, is_counter
from mcjax.models.network import Network

Shape = tuple[int, ...]
_CODE = {"same": "SAME", "conv": "CONV", "dense": "DENSE"}


class Draft(NamedTuple):
    """A drafted table.

    Attributes:
        rows: The rows that were found.
        reasons: Why, per row: "shape", "name", or "order, 1 of 3".
        open: Tensors without a row, and the leaves that they may belong to.
        leaves: Leaves of the network without a row, with their shapes.
        shapes: The shapes of all tensors.
    """

    rows: tuple[Row, ...]
    reasons: tuple[str, ...]
    open: Mapping[str, tuple[str, ...]]
    leaves: Mapping[str, Shape]
    shapes: Mapping[str, Shape]

    @property
    def complete(self) -> bool:
        """Whether every tensor and every leaf has a row."""
        return not self.open and not self.leaves

    def lines(self) -> list[str]:
        """The table as Python, with what is open as comments."""
        found = ["TABLE = ["]
        for row, reason in zip(self.rows, self.reasons, strict=True):
            found.append(
                f'    Row("{row.torch}", "{row.path}", {code_of(row.transform)}),'
                f"  # {list(self.shapes[row.torch])}, by {reason}"
            )
        for name, paths in self.open.items():
            may = " or ".join(paths[:4]) + (f" or {len(paths) - 4} more" if len(paths) > 4 else "")
            found.append(
                f"    # open: {name} {list(self.shapes[name])}: {may or 'no layer of the network has these shapes'}"
            )
        for path, shape in self.leaves.items():
            found.append(f"    # open: {path} {list(shape)} has no tensor")
        return [*found, "]"]


def code_of(transform: Transform) -> str:
    """A transform as Python.

    Example:
        >>> code_of(CONV), code_of(flat(2, 2, 16))
        ('CONV', 'flat(2, 2, 16)')
    """
    if transform.name in _CODE:
        return _CODE[transform.name]
    return f"flat({', '.join(transform.name.removeprefix('flat ').split('x'))})"


class _Layer(NamedTuple):
    """A layer's name and its leaves: the kind as Flax calls it, the shape there, and the row's parts."""

    name: str
    shapes: tuple[tuple[str, Shape], ...]
    members: Mapping[str, str]


def draft(
    tensors: Mapping[str, np.ndarray], network: Network, image_shape: tuple[int, int, int]
) -> Draft:
    """Drafts the table of a state dict for a network.

    Args:
        tensors: The state dict's arrays, by name.
        network: The network, with an `init`; layers are called in the order of its forward pass.
        image_shape: (height, width, channels) of its images.

    Returns:
        The draft; compare the network with PyTorch (`mcjax.interop.parity`) before you trust it.

    Example:
        >>> from mcjax import models
        >>> from mcjax.models.network import from_linen
        >>> network = from_linen(models.create("mlp", num_classes=3, hidden=()), (2, 2, 1))
        >>> found = draft({"head.weight": np.zeros((3, 4)), "head.bias": np.zeros(3)}, network, (2, 2, 1))
        >>> print(*found.lines(), sep=chr(10))
        TABLE = [
            Row("head.weight", "params/fc1/kernel", flat(2, 2, 1)),  # [3, 4], by shape
            Row("head.bias", "params/fc1/bias", SAME),  # [3], by shape
        ]
    """
    shapes = {name: tuple(np.shape(w)) for name, w in tensors.items() if not is_counter(name)}
    variables = jax.eval_shape(network.init, jax.random.key(0))
    leaves = {path: tuple(leaf.shape) for path, leaf in by_name(variables).items()}
    x = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    ours = _in_call_order(_layers_here(leaves), network, variables, x)
    pairs, candidates = _match(_layers_there(shapes), ours)
    flattened = _flattened(network, variables, x)
    rows, reasons = [], []
    for (there, here), reason in pairs:
        for kind, name in there.members.items():
            transform = _transform(shapes[name], kind, flattened)
            if transform is not None:
                rows.append(Row(name, here.members[kind], transform))
                reasons.append(reason)
            else:
                candidates[there.name] = [here]
    named = {row.torch: i for i, row in enumerate(rows)}
    order = sorted(range(len(rows)), key=lambda i: list(shapes).index(rows[i].torch))
    taken = {row.path for row in rows}
    open_ = {
        name: tuple(
            path
            for here in candidates.get(name.rpartition(".")[0], [])
            if (path := here.members.get(_kind(name, shape), "")) and path not in taken
        )
        for name, shape in shapes.items()
        if name not in named
    }
    return Draft(
        tuple(rows[i] for i in order),
        tuple(reasons[i] for i in order),
        open_,
        {path: shape for path, shape in leaves.items() if path not in taken},
        shapes,
    )


def draft_alone(tensors: Mapping[str, np.ndarray]) -> list[str]:
    """The table of a state dict without a network: transforms by shape, leaves open.

    Example:
        >>> print(*draft_alone({"conv.weight": np.zeros((8, 3, 3, 3))}), sep=chr(10))
        TABLE = [
            Row("conv.weight", "params/?/kernel", CONV),  # [8, 3, 3, 3]
        ]
    """
    found = ["TABLE = ["]
    for name, w in tensors.items():
        if is_counter(name):
            continue
        kind, shape = _kind(name, w.shape), list(w.shape)
        collection = "batch_stats" if kind in ("mean", "var") else "params"
        transform, note = {4: "CONV", 2: "DENSE"}.get(w.ndim, "SAME"), ""
        if w.ndim == 2:
            note = "; flat(height, width, channels) if its input is a flattened image"
        found.append(f'    Row("{name}", "{collection}/?/{kind}", {transform}),  # {shape}{note}')
    return [*found, "]"]


def _kind(name: str, shape: Sequence[int]) -> str:
    """The name that Flax gives to the leaf of a tensor."""
    last = name.rpartition(".")[2]
    if last == "weight":
        return "scale" if len(shape) == 1 else "kernel"
    return {"running_mean": "mean", "running_var": "var"}.get(last, last)


def _layers_there(shapes: Mapping[str, Shape]) -> list[_Layer]:
    """The layers of a state dict, in its order, with their shapes in mcjax's axes."""
    members: dict[str, dict[str, str]] = defaultdict(dict)
    for name, shape in shapes.items():
        members[name.rpartition(".")[0]][_kind(name, shape)] = name
    return [
        _Layer(
            layer,
            tuple(sorted((kind, _in_axes_here(shapes[name])) for kind, name in inner.items())),
            inner,
        )
        for layer, inner in members.items()
    ]


def _in_axes_here(shape: Shape) -> Shape:
    if len(shape) == 4:
        return (*shape[2:], shape[1], shape[0])
    return shape[::-1] if len(shape) == 2 else shape


def _layers_here(leaves: Mapping[str, Shape]) -> list[_Layer]:
    members: dict[str, dict[str, str]] = defaultdict(dict)
    for path in leaves:
        *above, kind = path.split("/")[1:]
        members["/".join(above)][kind] = path
    return [
        _Layer(layer, tuple(sorted((kind, leaves[p]) for kind, p in inner.items())), inner)
        for layer, inner in members.items()
    ]


def _in_call_order(layers: list[_Layer], network: Network, variables: Any, x: Any) -> list[_Layer]:
    """Sorts layers as the forward pass calls them; by their numbers if that is not known."""
    called: list[str] = []
    if network.layer_outputs is not None:

        def trace(variables: Any, x: Any) -> Any:
            outputs = network.layer_outputs(variables, x)  # type: ignore[misc]
            called.extend(outputs)
            return outputs

        jax.eval_shape(trace, variables, x)
    place = {name: i for i, name in enumerate(called)}

    def by(layer: _Layer) -> Any:
        numbers = [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", layer.name)]
        return place.get(layer.name, len(place)), list(map(str, numbers[::2])), numbers[1::2]

    return sorted(layers, key=by)


def _match(
    there: list[_Layer], here: list[_Layer]
) -> tuple[list[tuple[tuple[_Layer, _Layer], str]], dict[str, list[_Layer]]]:
    """Pairs layers of equal shapes; and, per layer that stays open, the layers that it may be."""
    pairs: list[tuple[tuple[_Layer, _Layer], str]] = []
    candidates: dict[str, list[_Layer]] = {}
    for shapes in dict.fromkeys(layer.shapes for layer in there):
        ours = [layer for layer in here if layer.shapes == shapes]
        theirs = [layer for layer in there if layer.shapes == shapes]
        if len(ours) == len(theirs) == 1:
            pairs.append(((theirs[0], ours[0]), "shape"))
            continue
        by_words = {_plain(layer.name): layer for layer in ours}
        for layer in theirs:
            if _plain(layer.name) in by_words:
                pairs.append(((layer, by_words[_plain(layer.name)]), "name"))
        paired = {id(layer) for pair, _ in pairs for layer in pair}
        ours, theirs = ([v for v in side if id(v) not in paired] for side in (ours, theirs))
        if len(ours) == len(theirs):
            pairs += [
                (pair, f"order, {i} of {len(ours)}")
                for i, pair in enumerate(zip(theirs, ours, strict=True), start=1)
            ]
        else:
            candidates.update((layer.name, ours) for layer in theirs)
    return pairs, candidates


def _plain(name: str) -> str:
    """A layer's name without separators: layer1.0.conv1 and layer1_0/conv1 are one."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _transform(
    shape: Shape, kind: str, flattened: Mapping[int, set[tuple[int, int, int]]]
) -> Transform | None:
    """The transform of a tensor; None if two flattened images have the size of a layer's input."""
    if len(shape) == 4:
        return CONV
    if len(shape) != 2 or kind != "kernel":
        return SAME
    images = flattened.get(shape[1], set())
    if len(images) > 1:
        return None
    return flat(*next(iter(images))) if images else DENSE


def _flattened(network: Network, variables: Any, x: Any) -> dict[int, set[tuple[int, int, int]]]:
    """The images [h, w, c] that the forward pass flattens, by size; one pixel needs no reordering."""
    found: dict[int, set[tuple[int, int, int]]] = defaultdict(set)

    def look(jaxpr: Any) -> None:
        for equation in jaxpr.eqns:
            if equation.primitive.name == "reshape":
                before, after = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
                flattens = len(before) == 4 and len(after) == 2 and before[0] == after[0]
                if flattens and before[0] == x.shape[0] and before[1] * before[2] > 1:
                    found[after[1]].add(before[1:])
            for inner in inside(equation):
                look(inner)

    look(jax.make_jaxpr(network.apply)(variables, x).jaxpr)
    return found
