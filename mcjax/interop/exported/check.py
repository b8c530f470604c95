"""Compares an exported network with PyTorch: logits, gradients, running statistics.

PyTorch computes the same graph, operator by operator, from the numbers that mcjax read; the file is
not loaded by PyTorch, so nothing in it is executed.
"""

import dataclasses
import importlib.util
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mcjax.core.errors import UserError
from mcjax.interop.exported.call import rescaled
from mcjax.interop.exported.graph import Dtype, Graph, Node, Ref
from mcjax.interop.exported.network import Program, network_of, tensors_of
from mcjax.interop.exported.operators.shapes import RESHAPES
from mcjax.interop.exported.run import functional
from mcjax.models.network import Network

TOLERANCE = 1e-5
"""Relative error, about the rounding error of float32 sums."""

NAMES = {
    "logits": "logits",
    "gradient": "gradient",
    "train_logits": "logits in training mode",
    "statistics": "statistics",
    "rounding": "PyTorch's own rounding",
    "train_rounding": "that in training mode",
}
"""What is compared, in a message."""


@dataclasses.dataclass(frozen=True)
class Check:
    """Relative differences between mcjax and PyTorch, |a - b| / |b| in the maximum norm.

    Args:
        logits: In evaluation mode, for the number of images of the exported example.
        gradient: Of the gradient of the sum of squared logits with respect to an image, for the
            median image: rounding may put a value on the other side of a ReLU's kink in some.
        train_logits: In training mode, without dropout.
        statistics: Of the updated running statistics, the largest of all layers; 0 without any.
        rounding: PyTorch's own error of logits or gradients in evaluation mode, float32 against
            float64.
        train_rounding: The same of logits in training mode; it is large where a layer normalises by
            few values.
    """

    logits: float
    gradient: float
    train_logits: float
    statistics: float
    rounding: float
    train_rounding: float

    @property
    def equal(self) -> bool:
        """Whether all differences are at most 1e-5, or ten times PyTorch's own rounding error."""
        limit, train_limit = (max(TOLERANCE, 10 * r) for r in (self.rounding, self.train_rounding))
        return (
            max(self.logits, self.gradient) <= limit
            and max(self.train_logits, self.statistics) <= train_limit
        )

    def __str__(self) -> str:
        return ", ".join(f"{NAMES[name]} {v:.1e}" for name, v in dataclasses.asdict(self).items())


def check_against_torch(loaded: Any) -> Check | None:
    """Compares a network with PyTorch on random images, if PyTorch is installed.

    Args:
        loaded: The result of `mcjax.interop.exported.load.load_exported`.

    Returns:
        The differences; None without PyTorch.

    Raises:
        UserError: They are larger than rounding errors.
    """
    if importlib.util.find_spec("torch") is None:
        return None
    found = compare(loaded.program, loaded.variables)
    if not found.equal:
        raise UserError(
            f"{loaded.archive.path}: mcjax computes other numbers than PyTorch (relative errors: "
            f"{found}); please report the module, or pass check=False to use it anyway"
        )
    return found


def compare(program: Program, variables: Any, *, num_images: int = 8, seed: int = 0) -> Check:
    """Measures the differences on random images in [0, 1].

    Args:
        program: The program.
        variables: The network's variables.
        num_images: Number of images, at least as many as in the exported example.
        seed: Seed of the images.

    Returns:
        The differences.
    """
    graph = without_dropout(program.graph)
    example = graph.shapes[graph.images][0]
    x = np.random.default_rng(seed).uniform(size=(max(num_images, example), *program.image_shape))
    x = x.astype(np.float32)
    if any(_uses_batch(node) for node in graph.nodes):
        x = x[:example]
    network = network_of(
        Program(graph, program.constants, program.shapes, program.source, program.tied)
    )
    tensors = {**program.constants, **tensors_of(variables)}
    logits, _, _ = in_torch(graph, tensors, x[:example])
    _, gradient, _ = in_torch(graph, tensors, x)
    train_logits, _, statistics = in_torch(graph, tensors, x, training=True)
    exact_logits, exact_gradient, _ = in_torch(graph, tensors, x, double=True)
    exact_train_logits, _, _ = in_torch(graph, tensors, x, training=True, double=True)

    own_logits, own_gradient = _compiled(_values, network, variables, x)
    own_train_logits, updated = _compiled(_train_values, network, variables, x)
    own_statistics = tensors_of({"batch_stats": updated})
    # A variance of one value per channel is not a number in PyTorch.
    sound = {n: w for n, w in statistics.items() if np.isfinite(w).all()}
    finite = np.isfinite(train_logits).all()
    return Check(
        logits=_difference(own_logits[:example], logits),
        gradient=_typical(own_gradient, gradient),
        train_logits=_difference(own_train_logits, train_logits) if finite else 0.0,
        statistics=max((_difference(own_statistics[n], w) for n, w in sound.items()), default=0.0),
        rounding=max(
            _difference(logits, exact_logits[:example]), _typical(gradient, exact_gradient)
        ),
        train_rounding=_difference(train_logits, exact_train_logits) if finite else 0.0,
    )


def _typical(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The difference for the median image."""
    return float(np.median([*map(_difference, ours, theirs)]))


def _uses_batch(node: Node) -> bool:
    """Whether an image's logits depend on the other images, in evaluation mode too."""
    given = dict(node.arguments)
    return node.operator == "aten.batch_norm" and given.get("running_mean") is None


def _values(network: Network, variables: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    def objective(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = network.apply(variables, x)
        return jnp.square(logits).sum(), logits

    gradient, logits = jax.grad(objective, has_aux=True)(x)
    return logits, gradient


def _train_values(network: Network, variables: Any, x: jax.Array) -> Any:
    return network.apply_train(jax.random.key(0), variables, x)


def _compiled(fn: Any, network: Network, variables: Any, x: np.ndarray) -> Any:
    # Not optimised on CPU: it runs once, and compiling a deep network takes longer than running it.
    quick = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    jitted = jax.jit(lambda variables, x: fn(network, variables, x), compiler_options=quick)
    return jax.tree.map(np.asarray, jitted(variables, x))


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    if ours.shape != theirs.shape:
        return float("inf")
    scale = np.abs(theirs).max()
    difference = np.abs(ours - theirs).max()
    return float(difference / scale) if scale else float(difference)


def without_dropout(graph: Graph) -> Graph:
    """The same program with dropout probabilities of 0."""

    def changed(node: Node) -> Node:
        names = {"p"} if "dropout" in node.operator else {"dropout_p"}
        arguments = tuple((n, 0.0 if n in names else v) for n, v in node.arguments)
        return node._replace(arguments=arguments)

    return graph._replace(nodes=tuple(map(changed, graph.nodes)))


def in_torch(
    graph: Graph,
    tensors: dict[str, np.ndarray],
    images: np.ndarray,
    *,
    training: bool = False,
    double: bool = False,
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Runs a graph in PyTorch.

    Args:
        graph: The program.
        tensors: Parameters, buffers and constants by name.
        images: [B, H, W, C]; as many as in the example, no size of the program is changed.
        training: Whether normalisation takes the batch's statistics.
        double: Compute in float64.

    Returns:
        Logits, the gradient of their summed squares with respect to the images [B, H, W, C], and
        the running statistics after the pass.
    """
    import torch

    floats = torch.float64 if double else torch.float32

    def tensor(w: np.ndarray) -> Any:
        made = torch.from_numpy(np.array(w, order="C"))
        return made.to(floats) if made.is_floating_point() else made

    state = {**graph.parameters, **graph.buffers, **graph.constants}
    known: dict[str, Any] = {name: tensor(tensors[full]) for name, full in state.items()}
    x = tensor(images.transpose(0, 3, 1, 2)).requires_grad_()
    known[graph.images] = x
    inner: dict[str, int] = {}
    num_images = graph.shapes[graph.images][0], len(images)
    with torch.enable_grad():
        for node in graph.nodes:
            node = _for_batch(node, graph, known, inner, num_images)
            results = _torch_call(torch, node, known, training, floats)
            if len(node.results) == 1:
                results = [results]
            for name, result in zip(node.results, results, strict=True):
                if isinstance(name, tuple):
                    known.update(zip(name, result, strict=True))
                else:
                    known[name] = result
        logits = known[graph.logits]
        (gradient,) = torch.autograd.grad(logits.square().sum(), x)
    statistics = {full: known[name].numpy() for name, full in graph.statistics.items()}
    return logits.detach().numpy(), gradient.numpy().transpose(0, 2, 3, 1), statistics


def _for_batch(
    node: Node, graph: Graph, known: dict[str, Any], inner: dict[str, int], num_images: Any
) -> Node:
    """A node whose sizes are those of this batch, as in `mcjax.interop.exported.call`."""
    before, now = num_images
    if graph.any_batch or before == now or not node.refs:
        return node
    first, result = node.refs[0], node.results[0]
    name = node.operator.removeprefix("aten.")
    among = max(inner.get(ref, 1) for ref in node.refs)
    arguments = dict(node.arguments)
    if name in RESHAPES:
        shape, among = rescaled(
            tuple(known[first].shape), graph.shapes[first], graph.shapes[result], before, among
        )
        node = node._replace(
            target="aten.reshape.default", arguments=(node.arguments[0], ("shape", shape))
        )
    elif name in ("expand", "new_zeros", "new_ones", "repeat"):
        key = "repeats" if name == "repeat" else "size"
        sizes = arguments[key]
        fixed = name.startswith("new") or known[first].shape[0] == 1
        if fixed and sizes[0] == before:
            arguments[key] = (now, *sizes[1:])
            node = node._replace(arguments=tuple(arguments.items()))
    for one in node.results:
        inner.update(dict.fromkeys(one if isinstance(one, tuple) else [one], among))
    return node


_WITHOUT_EFFECT = ("device", "layout", "memory_format", "pin_memory")
_TORCH_TYPES = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 12: "bool"}


def _torch_call(torch: Any, node: Node, known: dict[str, Any], training: bool, floats: Any) -> Any:
    namespace, name, *overload = node.target.split(".")
    arguments = {n: _torch_value(torch, v, known, floats) for n, v in node.arguments}
    arguments = {n: v for n, v in arguments.items() if n not in _WITHOUT_EFFECT}
    if namespace == "_operator":
        import operator

        return getattr(operator, name)(*arguments.values())
    if name == "_native_batch_norm_legit_no_training" and training:
        settings = [
            arguments[n] for n in ("input", "weight", "bias", "running_mean", "running_var")
        ]
        y = torch.ops.aten.batch_norm.default(
            *settings, True, arguments["momentum"], arguments["eps"], False
        )
        return y, None, None
    if functional(node.operator) == "aten.batch_norm" and arguments.get("running_mean") is not None:
        arguments["training"] = training
        arguments["momentum"] = arguments["momentum"] or 0.1
    return getattr(getattr(torch.ops.aten, name), overload[0])(**arguments)


def _torch_value(torch: Any, value: Any, known: dict[str, Any], floats: Any) -> Any:
    if isinstance(value, Ref):
        return known[value.name]
    if isinstance(value, Dtype):
        return floats if value.code == 7 else getattr(torch, _TORCH_TYPES[value.code])
    if isinstance(value, tuple):
        return [_torch_value(torch, v, known, floats) for v in value]
    return value
