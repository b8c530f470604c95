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
from mcjax.interop.exported.graph import Dtype, Graph, Node, Ref
from mcjax.interop.exported.network import Program, network_of, tensors_of
from mcjax.interop.exported.run import functional
from mcjax.models.network import Network

TOLERANCE = 1e-5
"""Relative error of logits and statistics, about the rounding error of float32 sums."""
GRADIENT_TOLERANCE = 1e-4
"""The same of gradients, where rounding may decide on which side of a ReLU's kink a value lies."""


@dataclasses.dataclass(frozen=True)
class Check:
    """Relative differences between mcjax and PyTorch, |a - b| / |b| in the maximum norm.

    Args:
        logits: In evaluation mode.
        gradient: Of the input gradient of the sum of squared logits, in evaluation mode.
        train_logits: In training mode, without dropout.
        statistics: Of updated running statistics, the largest of all layers; 0 without any.
        batch: Between the logits of images in one batch and one by one, both in mcjax.
    """

    logits: float
    gradient: float
    train_logits: float
    statistics: float
    batch: float

    @property
    def equal(self) -> bool:
        """Whether all differences are rounding errors."""
        values = dataclasses.asdict(self)
        limits = {"gradient": GRADIENT_TOLERANCE}
        return all(v <= limits.get(name, TOLERANCE) for name, v in values.items())

    def __str__(self) -> str:
        return ", ".join(
            f"{name.replace('_', ' ')} {v:.1e}" for name, v in dataclasses.asdict(self).items()
        )


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


def compare(program: Program, variables: Any, *, seed: int = 0) -> Check:
    """Measures the differences on random images in [0, 1], as many as in the exported example.

    Args:
        program: The program.
        variables: The network's variables.
        seed: Seed of the images.

    Returns:
        The differences.
    """
    graph = without_dropout(program.graph)
    number = graph.shapes[graph.images][0]
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=(number, *program.image_shape)).astype(np.float32)
    network = network_of(Program(graph, program.constants, program.shapes, program.source))
    tensors = {**program.constants, **tensors_of(variables)}
    logits, gradient, _ = in_torch(graph, tensors, x)
    train_logits, _, statistics = in_torch(graph, tensors, x, training=True)

    ours = _compiled(_values, network, variables, x)
    ours_train, updated = _compiled(_train_values, network, variables, x)
    ours_statistics = tensors_of({"batch_stats": updated})
    sound = {n: w for n, w in statistics.items() if np.isfinite(w).all()}  # one value per channel
    return Check(
        _difference(ours[0], logits),
        _difference(ours[1], gradient),
        _difference(ours_train, train_logits) if np.isfinite(train_logits).all() else 0.0,
        max((_difference(ours_statistics[n], w) for n, w in sound.items()), default=0.0),
        _of_batch(network, variables, x, ours[0]),
    )


def _of_batch(network: Network, variables: Any, x: np.ndarray, logits: np.ndarray) -> float:
    """Batches of other sizes give the same logits, if the sizes in the program are understood."""
    if any(node for node in network.apply.args[0].graph.nodes if _uses_batch(node)):  # type: ignore[attr-defined]
        return 0.0
    twice = np.concatenate([x, x[::-1], x[:1]])
    expected = np.concatenate([logits, logits[::-1], logits[:1]])
    return _difference(_compiled(_apply, network, variables, twice), expected)


def _uses_batch(node: Node) -> bool:
    given = dict(node.arguments)
    return node.operator == "aten.batch_norm" and given.get("running_mean") is None


def _apply(network: Network, variables: Any, x: jax.Array) -> jax.Array:
    return network.apply(variables, x)


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
    graph: Graph, tensors: dict[str, np.ndarray], images: np.ndarray, *, training: bool = False
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Runs a graph in PyTorch, in float32.

    Args:
        graph: The program.
        tensors: Parameters, buffers and constants by name.
        images: [B, H, W, C], as many as in the example.
        training: Whether normalisation takes the batch's statistics.

    Returns:
        Logits, the gradient of their summed squares with respect to the images [B, H, W, C], and
        the running statistics after the pass.
    """
    import torch

    state = {**graph.parameters, **graph.buffers, **graph.constants}
    known: dict[str, Any] = {n: torch.from_numpy(np.array(tensors[f])) for n, f in state.items()}
    x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).requires_grad_()
    known[graph.images] = x
    with torch.enable_grad():
        for node in graph.nodes:
            results = _torch_call(torch, node, known, training)
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


_WITHOUT_EFFECT = ("device", "layout", "memory_format", "pin_memory")
_TORCH_TYPES = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 7: "float32", 12: "bool"}


def _torch_call(torch: Any, node: Node, known: dict[str, Any], training: bool) -> Any:
    namespace, name, *overload = node.target.split(".")
    arguments = {n: _torch_value(torch, v, known) for n, v in node.arguments}
    arguments = {n: v for n, v in arguments.items() if n not in _WITHOUT_EFFECT}
    if namespace == "_operator":
        import operator

        return getattr(operator, name)(*arguments.values())
    if name == "_native_batch_norm_legit_no_training" and training:
        settings = [arguments[n] for n in ("input", "weight", "bias", "running_mean", "running_var")]
        y = torch.ops.aten.batch_norm.default(
            *settings, True, arguments["momentum"], arguments["eps"], False
        )
        return y, None, None
    if functional(node.operator) == "aten.batch_norm" and arguments.get("running_mean") is not None:
        arguments["training"] = training
        arguments["momentum"] = arguments["momentum"] or 0.1
    return getattr(getattr(torch.ops.aten, name), overload[0])(**arguments)


def _torch_value(torch: Any, value: Any, known: dict[str, Any]) -> Any:
    if isinstance(value, Ref):
        return known[value.name]
    if isinstance(value, Dtype):
        return getattr(torch, _TORCH_TYPES[value.code])
    if isinstance(value, tuple):
        return [_torch_value(torch, v, known) for v in value]
    return value
