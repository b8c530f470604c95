"""An exported program as a `Network`: pure functions of its variables.

The variables keep the names of the state dict: "layer1.0.conv1.weight" is
params["layer1"]["0"]["conv1"]["weight"], in PyTorch's shape. Running statistics are in "batch_stats".
Other buffers (a mean that is subtracted, indices) are part of the program and do not change.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mcjax.core.bound_functions import Bound
from mcjax.core.errors import UserError
from mcjax.core.files import first_line
from mcjax.core.keys import stream
from mcjax.core.tree import PyTree
from mcjax.interop.exported.archive import Archive, damaged
from mcjax.interop.exported.graph import Graph, Node, missing, parse
from mcjax.interop.exported.piecewise_linear import is_piecewise_linear
from mcjax.interop.exported.run import is_known, run
from mcjax.models.network import Network

_LAYERS = ("aten.conv2d", "aten.linear", "aten.conv_transpose2d", "aten.convolution", "aten.addmm")


class Program:
    """A graph with its constants; equal to any other program that computes the same.

    Args:
        graph: The graph.
        constants: Values of buffers and constants that are not running statistics, by name.
        shapes: Shape of each parameter and running statistic, by name.
        source: The file, for messages.
        tied: Parameters that are another one: {"decoder.weight": "encoder.weight"}.
    """

    def __init__(
        self,
        graph: Graph,
        constants: Mapping[str, np.ndarray],
        shapes: Mapping[str, tuple[int, ...]],
        source: str,
        tied: Mapping[str, str],
    ):
        self.tied = tied
        self.graph, self.constants, self.shapes, self.source = graph, constants, shapes, source
        self.digest = graph.digest(constants)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Program) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the example's images."""
        _, channels, height, width = self.graph.shapes[self.graph.images]
        return height, width, channels


def program_of(archive: Archive) -> Program:
    """Reads the graph of an archive, and checks that it can be run.

    Raises:
        UserError: It has operators that mcjax does not have, or is not a classifier of images in
            evaluation mode; see `mcjax.interop.exported.graph.parse`.
    """
    source = str(archive.path)
    try:
        graph = parse(archive.program, source)
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise damaged(archive.path, error) from None
    missing(graph, is_known, source)
    tied = _tied(archive)
    parameters = {name: tied.get(full, full) for name, full in graph.parameters.items()}
    graph = graph._replace(parameters=parameters)
    tensors = {**archive.constants, **archive.tensors}
    wanted = {**graph.parameters, **graph.buffers, **graph.constants}
    for name, full in wanted.items():
        if full not in tensors:
            raise damaged(archive.path, KeyError(full))
        if tensors[full].shape != graph.shapes.get(name):
            raise damaged(
                archive.path,
                ValueError(f"{full} has shape {tensors[full].shape}, not as in the graph"),
            )
    trained = [*graph.parameters.values(), *graph.statistics.values()]
    for full in trained:
        if tensors[full].dtype != np.float32:
            raise UserError(f"{source}: {full} is {tensors[full].dtype}; export module.float()")
    constants = {full: tensors[full] for full in wanted.values() if full not in trained}
    shapes = {full: tensors[full].shape for full in trained}
    return Program(graph, constants, shapes, source, tied)


def _tied(archive: Archive) -> dict[str, str]:
    """Tensors that are stored in the place of another one: name -> the other's name."""
    first: dict[Any, str] = {}
    return {
        name: first[view]
        for name, view in archive.views.items()
        if first.setdefault(view, name) != name
    }


def network_of(program: Program) -> Network:
    """The network of a program.

    Args:
        program: The program.

    Returns:
        The network, for images [B, H, W, C] in [0, 1] of the example's size.
    """
    graph = program.graph
    return Network(
        init=Bound(_init, program),
        apply=Bound(_apply, program),
        apply_train=Bound(_apply_train, program),
        has_batch_stats=bool(graph.statistics),
        num_classes=graph.shapes[graph.logits][1],
        piecewise_linear=is_piecewise_linear(graph),
        layer_outputs=Bound(_layer_outputs, program),
    )


def variables_of(program: Program, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The variables of a state dict.

    Args:
        program: The program.
        tensors: Arrays by the names of the state dict.

    Returns:
        {"params", and "batch_stats" if there are running statistics}, nested by the parts of the
        names.
    """
    graph = program.graph
    variables = {"params": nested({n: tensors[n] for n in graph.parameters.values()})}
    if graph.statistics:
        variables["batch_stats"] = nested({n: tensors[n] for n in graph.statistics.values()})
    return variables


def tensors_of(variables: PyTree) -> dict[str, np.ndarray]:
    """The arrays of variables by the names of the state dict; the inverse of `variables_of`.

    Example:
        >>> tensors_of({"params": {"fc": {"bias": np.zeros(2)}}})
        {'fc.bias': array([0., 0.])}
    """
    return {n: np.asarray(w) for part in variables.values() for n, w in flat(part).items()}


def nested(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """A tree of dicts from names with dots.

    Example:
        >>> nested({"fc.weight": 1, "fc.bias": 2})
        {'fc': {'weight': 1, 'bias': 2}}
    """
    tree: dict[str, Any] = {}
    for name, w in tensors.items():
        *above, last = name.split(".")
        inner = tree
        for key in above:
            inner = inner.setdefault(key, {})
        inner[last] = w
    return tree


def flat(tree: PyTree, prefix: str = "") -> dict[str, Any]:
    """The inverse of `nested`."""
    if not isinstance(tree, Mapping):
        return {prefix[:-1]: tree}
    return {n: w for key, part in tree.items() for n, w in flat(part, f"{prefix}{key}.").items()}


def _tensors(program: Program, variables: PyTree, x: jax.Array) -> dict[str, Any]:
    floating = jnp.issubdtype(x.dtype, jnp.floating)
    constants = {
        name: jnp.asarray(w, x.dtype) if floating and w.dtype == np.float32 else jnp.asarray(w)
        for name, w in program.constants.items()
    }
    return {**constants, **flat(variables["params"]), **flat(variables.get("batch_stats", {}))}


def _run(program: Program, variables: PyTree, x: jax.Array, **options: Any) -> Any:
    if x.ndim != 4 or x.shape[1:] != program.image_shape:
        height, width, channels = program.image_shape
        swapped = x.shape[1:] == (channels, height, width)
        raise UserError(
            f"{program.source} takes images of {height}x{width} pixels and {channels} channels, "
            f"[B, {height}, {width}, {channels}], but these have shape {list(x.shape)}; "
            + (
                "give them channels last: np.moveaxis(image, 1, -1)"
                if swapped
                else "give images of that shape, or export the module with an example of this one"
            )
        )
    try:
        return run(program.graph, _tensors(program, variables, x), x, **options)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{program.source}: {first_line(error)}") from error


def _apply(program: Program, variables: PyTree, x: jax.Array) -> jax.Array:
    return _run(program, variables, x)[0]


def _apply_train(
    program: Program, key: jax.Array, variables: PyTree, x: jax.Array
) -> tuple[jax.Array, PyTree]:
    logits, statistics = _run(program, variables, x, training=True, key=key)
    return logits, nested(statistics)


def _layer_outputs(program: Program, variables: PyTree, x: jax.Array) -> dict[str, jax.Array]:
    """The outputs of convolutions and dense layers, images with the channels last."""
    outputs: dict[str, jax.Array] = {}

    def watch(node: Node, result: Any) -> None:
        weight = next(
            (
                program.graph.parameters.get(ref)
                for ref in node.refs
                if ref in program.graph.parameters
            ),
            None,
        )
        if node.operator in _LAYERS and weight:
            outputs[weight.rpartition(".")[0].replace(".", "/")] = result.array

    _run(program, variables, x, watch=watch)
    return outputs


def _init(program: Program, key: jax.Array) -> PyTree:
    """Random parameters, as PyTorch's layers start: uniform in +- 1 / sqrt(inputs), scales of 1."""

    def start(name: str) -> jax.Array:
        shape, last = program.shapes[name], name.rpartition(".")[2]
        if len(shape) >= 2:
            bound = 1 / math.sqrt(math.prod(shape[1:]))
            return jax.random.uniform(stream(key, name), shape, minval=-bound, maxval=bound)
        return jnp.ones(shape) if "weight" in last or "var" in last else jnp.zeros(shape)

    return variables_of(program, {name: start(name) for name in program.shapes})
