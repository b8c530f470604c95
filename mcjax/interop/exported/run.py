"""Runs a program as a JAX function, node by node, while JAX traces it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mcjax.interop.exported.call import Call
from mcjax.interop.exported.graph import Graph, Node, Ref
from mcjax.interop.exported.operators import OPERATORS
from mcjax.interop.exported.operators.normalisation import UPDATES
from mcjax.interop.exported.operators.shapes import RESHAPES, VIEWS
from mcjax.interop.exported.values import Value

Tensors = Mapping[str, Any]


def functional(name: str) -> str:
    """The operator without the underscore that says it changes its argument.

    Example:
        >>> functional("aten.relu_"), functional("aten._softmax")
        ('aten.relu', 'aten._softmax')
    """
    return name[:-1] if name.endswith("_") and name != "aten._" else name


def is_known(name: str) -> bool:
    """Whether there is a rule for an operator."""
    return functional(name) in OPERATORS


def run(
    graph: Graph,
    tensors: Tensors,
    images: jax.Array,
    *,
    training: bool = False,
    key: jax.Array | None = None,
    watch: Callable[[Node, Any], None] | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The logits of images.

    Args:
        graph: The program.
        tensors: All parameters, buffers and constants, by their names in the state dict.
        images: [B, H, W, C].
        training: Whether dropout drops, and normalisation takes the statistics of the batch.
        key: A random key, for dropout in training mode.
        watch: Called with each node and its first result.

    Returns:
        Logits [B, classes], and the running statistics by their names in the state dict, updated in
        training mode.

    Raises:
        ValueError: An operator can't be computed; the message has the line of the user's module.
    """
    state = {**graph.parameters, **graph.buffers, **graph.constants}
    known: dict[str, Any] = {name: Value(_array(tensors[full])) for name, full in state.items()}
    known[graph.images] = Value(images, channels_last=True)
    num_images = graph.shapes[graph.images][0], images.shape[0]
    last_use = {ref: i for i, node in enumerate(graph.nodes) for ref in node.refs}
    last_use[graph.logits] = len(graph.nodes)
    made_by: dict[str, Node] = {}

    for i, node in enumerate(graph.nodes):
        refs = node.refs
        call = Call(
            training=training,
            key=key,
            index=i,
            given=graph.shapes.get(refs[0]) if refs else None,
            result=graph.shapes.get(node.results[0]) if _one(node) else None,
            num_images=num_images,
            any_batch=graph.any_batch,
        )
        try:
            results = compute(call, node, known)
        except (TypeError, ValueError, IndexError, KeyError, ZeroDivisionError) as error:
            raise ValueError(
                f"{node.target}{f' ({node.line})' if node.line else ''}: {error}"
            ) from error
        moves = node.operator.removeprefix("aten.") in RESHAPES
        inner = max((getattr(known[ref], "inner", 1) for ref in refs), default=1)
        for name, result in zip(node.results, _as_results(node, results), strict=False):
            for one, value in _named(name, result):
                known[one] = value if moves else _with_inner(value, inner)
                if node.operator in VIEWS:
                    made_by[one] = node
        if watch is not None and _one(node):
            watch(node, known[node.results[0]])
        if node.operator in UPDATES:
            _update(node, results, known)
        if node.operator != functional(node.operator):
            _change(node, i, known, made_by, last_use)
    statistics = {full: known[name].array for name, full in graph.statistics.items()}
    return known[graph.logits].plain(), statistics


def compute(call: Call, node: Node, known: Mapping[str, Any]) -> Any:
    """The results of one node."""
    arguments = {name: _resolved(value, known) for name, value in node.arguments}
    return OPERATORS[functional(node.operator)](call, arguments)


def _array(tensor: Any) -> Any:
    return jnp.asarray(tensor)


def _one(node: Node) -> bool:
    return bool(node.results) and isinstance(node.results[0], str)


def _resolved(value: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(value, Ref):
        return known[value.name]
    if isinstance(value, tuple):
        return tuple(_resolved(v, known) for v in value)
    return value


def _as_results(node: Node, results: Any) -> Any:
    """Results in a list: an operator returns one, several, or one list."""
    if len(node.results) == 1 and isinstance(node.results[0], tuple):
        return [results]
    return results if isinstance(results, tuple) else [results]


def _named(name: Any, result: Any) -> list[tuple[str, Any]]:
    if isinstance(name, tuple):
        return list(zip(name, result, strict=True))
    return [] if name is None else [(name, result)]


def _with_inner(value: Any, inner: int) -> Any:
    if inner == 1 or not isinstance(value, Value):
        return value
    return dataclasses.replace(value, inner=inner)


def _update(node: Node, results: Any, known: dict[str, Any]) -> None:
    """A later call of the same layer sees the updated running statistics."""
    given = dict(node.arguments)
    for argument, new in zip(("running_mean", "running_var"), results[1:], strict=True):
        if isinstance(given.get(argument), Ref):
            known[given[argument].name] = Value(new) if not isinstance(new, Value) else new


def _change(
    node: Node, i: int, known: dict[str, Any], made_by: Mapping[str, Node], last_use: dict[str, int]
) -> None:
    """An operator that changes its argument: later nodes see the new value.

    If the argument is a view of another value, that changes too: the view of its elements' numbers
    says where.
    """
    first = node.arguments[0][1]
    if not isinstance(first, Ref) or not _one(node):
        return
    name, new = first.name, known[node.results[0]]
    known[name] = new
    chain = []
    while name in made_by:
        chain.append((name, made_by[name]))
        name = made_by[name].refs[0]
    while chain and last_use.get(chain[-1][1].refs[0], -1) <= i:
        chain.pop()  # nobody sees this change
    for name, view in chain:
        base = view.refs[0]
        old = known[base].plain()
        numbers = Value(jnp.asarray(np.arange(old.size).reshape(old.shape)))
        places = compute(Call(), view, {**known, base: numbers})
        if isinstance(places, tuple):
            places = places[view.results[0].index(name)]
        changed = old.reshape(-1).at[places.plain().reshape(-1)].set(new.plain().reshape(-1))
        new = Value(changed.reshape(old.shape))
        known[base] = new
