"""The graph of an exported program, from its JSON.

Names are those of the graph's values; a `Ref` is a value used as an argument.
"""

import dataclasses
import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from mcjax.core.errors import UserError, listed, shown

STATISTICS = ("running_mean", "running_var")
"""Arguments of a normalisation that are running statistics."""
FLOAT32 = 7
_OTHER_FLOATS = {6: "float16", 8: "float64", 9: "complex", 10: "complex", 11: "complex", 13: "bfloat16"}  # fmt: skip
_IGNORED = (
    "aten._assert_tensor_metadata",
    "aten._assert_scalar",
    "aten._assert_async",
    "aten.sym_constrain_range",
    "aten.sym_constrain_range_for_size",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Ref:
    """An argument that is another node's result, or an input of the graph.

    Args:
        name: The value's name.
    """

    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Dtype:
    """An argument that is a type of numbers.

    Args:
        code: PyTorch's number of the type.
    """

    code: int


class Node(NamedTuple):
    """One call of an operator.

    Args:
        target: The operator with its overload: "aten.conv2d.default".
        arguments: (name, value) of the arguments that are given, in the operator's order.
        results: Names of the results; a tuple of names for an operator that returns a list.
        line: Where the user's module calls it: "net.py, line 13: return self.fc(x)", or "".
    """

    target: str
    arguments: tuple[tuple[str, Any], ...]
    results: tuple[Any, ...]
    line: str

    @property
    def operator(self) -> str:
        """The operator without its overload: "aten.conv2d"."""
        return ".".join(self.target.split(".")[:2])

    @property
    def refs(self) -> tuple[str, ...]:
        """The names of all values that it uses."""
        return tuple(_refs([value for _, value in self.arguments]))


class Graph(NamedTuple):
    """A program that maps images to logits.

    Args:
        nodes: The calls, in order.
        images: Name of the input.
        logits: Name of the output.
        parameters: Name of each parameter in the state dict, by the graph's name.
        buffers: The same of buffers.
        constants: The same of other tensors.
        shapes: The shape of each tensor in the exported example, by its name.
        any_batch: Whether the program was exported for any number of images.
    """

    nodes: tuple[Node, ...]
    images: str
    logits: str
    parameters: dict[str, str]
    buffers: dict[str, str]
    constants: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    any_batch: bool

    @property
    def statistics(self) -> dict[str, str]:
        """The buffers that are running statistics, by the graph's name."""
        used = {
            value.name
            for node in self.nodes
            for name, value in node.arguments
            if name in STATISTICS and isinstance(value, Ref)
        }
        return {name: state for name, state in self.buffers.items() if name in used}

    def digest(self, constants: Mapping[str, np.ndarray]) -> str:
        """SHA-256 over what the program computes, without the lines of its source.

        Args:
            constants: Values of the tensors that are part of the program.
        """
        sha = hashlib.sha256()
        sha.update(repr([node._replace(line="") for node in self.nodes]).encode())
        sha.update(repr(self._replace(nodes=())).encode())
        for name, w in sorted(constants.items()):
            sha.update(f"{name} {w.dtype} {w.shape}".encode() + np.ascontiguousarray(w).tobytes())
        return sha.hexdigest()


def parse(program: Mapping[str, Any], source: str) -> Graph:
    """Reads a graph.

    Args:
        program: The program's JSON.
        source: The file's name in messages.

    Returns:
        The graph.

    Raises:
        UserError: It does not map one float32 tensor of images to one of logits, was exported in
            training mode, has control flow, or computes in another precision.
        KeyError, TypeError, ValueError, IndexError: The JSON has another form.
    """
    module = program["graph_module"]
    held, signature = module["graph"], module["signature"]
    specs: dict[str, dict[str, str]] = {"parameter": {}, "buffer": {}, "tensor_constant": {}}
    inputs = []
    for spec in signature["input_specs"]:
        (kind, about), *_ = spec.items()
        if kind in specs:
            specs[kind][_text(about["arg"]["name"])] = _text(about[f"{kind}_name"])
        elif kind == "user_input":
            inputs.append(about["arg"])
        elif kind != "constant_input":
            raise UserError(
                f"{source}: the program has a {kind} input; export a module of tensors only"
            )
    nodes = tuple(_node(node, source) for node in held["nodes"])
    nodes = tuple(node for node in nodes if node.operator not in _IGNORED)
    shapes = {name: _shape(meta) for name, meta in held["tensor_values"].items()}
    image = _only(inputs, source, "inputs", "one tensor of images, [B, C, H, W]")
    outputs = []
    for spec in signature["output_specs"]:
        (kind, about), *_ = spec.items()
        if kind == "buffer_mutation":
            raise _in_training_mode(source, f"it changes {shown(about['buffer_name'])}")
        if kind != "user_output":
            raise UserError(
                f"{source}: the program has a {kind} output; export the module for inference"
            )
        outputs.append(about["arg"])
    logits = _only(outputs, source, "outputs", "one tensor of logits, [B, classes]")
    _check_precision(held["tensor_values"], source)
    _check_modes(nodes, source)
    if len(shapes[image]) != 4:
        raise UserError(
            f"{source}: its example has shape {list(shapes[image])}; export the module with images "
            "[B, C, H, W]"
        )
    if len(shapes[logits]) != 2:
        raise UserError(
            f"{source}: it returns shape {list(shapes[logits])}; a classifier returns [B, classes]"
        )
    return Graph(
        nodes,
        image,
        logits,
        specs["parameter"],
        specs["buffer"],
        specs["tensor_constant"],
        shapes,
        "as_expr" in held["tensor_values"][image]["sizes"][0],
    )


def _only(arguments: list[Any], source: str, what: str, wanted: str) -> str:
    given = [_argument(a, source) for a in arguments if "as_none" not in a]
    if len(given) != 1 or not isinstance(given[0], Ref):
        raise UserError(f"{source}: the program has {len(given)} {what}; mcjax needs {wanted}")
    return given[0].name


def _check_precision(values: Mapping[str, Any], source: str) -> None:
    for name, meta in values.items():
        if meta["dtype"] in _OTHER_FLOATS:
            raise UserError(
                f"{source}: {shown(name)} is {_OTHER_FLOATS[meta['dtype']]}; mcjax computes in float32: "
                "export module.float() with a float32 example"
            )


def _check_modes(nodes: tuple[Node, ...], source: str) -> None:
    """Refuses a program that was exported in training mode."""
    for node in nodes:
        given = dict(node.arguments)
        if node.operator == "aten.batch_norm":
            training = given.get("training") and given.get("running_mean") is not None
        else:
            training = node.operator in (
                "aten.dropout",
                "aten.dropout_",
                "aten.feature_dropout",
            ) and (given.get("train") and given.get("p"))
        if training:
            raise _in_training_mode(source, node.line or node.target)


def _in_training_mode(source: str, where: str) -> UserError:
    return UserError(
        f"{source} was exported in training mode ({where}); call module.eval() before torch.export.export"
    )


def _node(held: Mapping[str, Any], source: str) -> Node:
    line = user_line(held["metadata"].get("stack_trace", ""))
    arguments = []
    for given in held["inputs"]:
        if "as_graph" in given["arg"]:
            raise UserError(
                f"{source}: control flow ({_text(held['target'])}{f' at {line}' if line else ''}) is not "
                "supported; export a module without it"
            )
        arguments.append((_text(given["name"]), _argument(given["arg"], source)))
    results: list[Any] = []
    for result in held["outputs"]:
        name = _argument(result, source)
        results.append(
            tuple(r.name for r in name) if isinstance(name, tuple) else name and name.name
        )
    target = _text(held["target"]).removeprefix("torch.ops.")
    return Node(target, tuple(arguments), tuple(results), line)


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 1000:
        raise ValueError(f"{shown(value)} where a name is expected")
    return value


_PLAIN = {"as_int": int, "as_bool": bool, "as_string": str}
_LISTS = {"as_ints": int, "as_bools": bool, "as_strings": str}
_WITHOUT_EFFECT = ("as_device", "as_layout", "as_memory_format", "as_none")


def _argument(held: Mapping[str, Any], source: str) -> Any:
    """An argument as a Python value."""
    ((kind, value),) = held.items()
    if kind in _WITHOUT_EFFECT:
        return None
    if kind in _PLAIN:
        return _PLAIN[kind](value)
    if kind in _LISTS:
        return tuple(map(_LISTS[kind], value))
    if kind == "as_float":
        return float(value)  # infinities are text
    if kind == "as_floats":
        return tuple(map(float, value))
    if kind in ("as_tensor", "as_sym_int", "as_sym_float", "as_sym_bool", "as_optional_tensor"):
        return _symbol(value)
    if kind in (
        "as_tensors",
        "as_sym_ints",
        "as_sym_floats",
        "as_sym_bools",
        "as_optional_tensors",
    ):
        return tuple(map(_symbol, value))
    if kind == "as_scalar_type":
        return Dtype(int(value))
    raise UserError(f"{source}: an argument of kind {shown(kind)} is not supported")


def _symbol(held: Mapping[str, Any]) -> Any:
    """A tensor's name, a symbol's name, or a number among symbols."""
    if "as_none" in held:
        return None
    if "as_tensor" in held:
        held = held["as_tensor"]
    for name in ("name", "as_name"):
        if name in held:
            return Ref(_text(held[name]))
    ((_, value),) = held.items()
    if not isinstance(value, int | float):
        raise ValueError(f"{shown(value)} where a number is expected")
    return value


def _shape(meta: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(
        int(n["as_int"] if "as_int" in n else (n["as_expr"]["hint"] or {"as_int": 0})["as_int"])
        for n in meta["sizes"]
    )


def _refs(value: Any) -> list[str]:
    if isinstance(value, Ref):
        return [value.name]
    if isinstance(value, tuple | list):
        return [name for one in value for name in _refs(one)]
    return []


_FRAME = re.compile(r'File "([^"]+)", line (\d+), in .*\n\s*(.*)')


def user_line(trace: Any) -> str:
    r"""The last line of a stack trace that is not PyTorch's own.

    Example:
        >>> user_line('File "/home/me/net.py", line 3, in forward\n    return x.fft()')
        'net.py, line 3: return x.fft()'
    """
    frames = _FRAME.findall(trace) if isinstance(trace, str) else []
    own = [f for f in frames if not re.search(r"site-packages[/\\]torch[/\\]", f[0])] or frames
    if not own:
        return ""
    path, number, code = own[-1]
    file = path.replace("\\", "/").rpartition("/")[2]
    return f"{file}, line {number}: {' '.join(code.split())[:80]}"


def missing(graph: Graph, is_known: Callable[[str], bool], source: str) -> None:
    """Checks that all operators are known.

    Raises:
        UserError: Some are not; the message names them and the line of the user's module.
    """
    lines: dict[str, str] = {}
    for node in graph.nodes:
        if not is_known(node.operator):
            lines.setdefault(node.target, node.line)
    if lines:
        named = [f"{target} ({line})" if line else target for target, line in lines.items()]
        raise UserError(
            f"{source} uses {'operators' if len(named) > 1 else 'an operator'} that mcjax does not "
            f"have: {listed(named)}; write the module without, or ask for them"
        )
