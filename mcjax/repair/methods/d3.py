"""D3: trains the suspect away from its own last layer, at low loss on clean images."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mcjax.core.bound_functions import Bound
from mcjax.core.errors import UserError
from mcjax.core.fields import number
from mcjax.core.keys import stream
from mcjax.core.settings import Setting
from mcjax.core.tree import PyTree, by_name, path_name
from mcjax.data.batches import Batch, to_unit
from mcjax.models.network import Network
from mcjax.repair.methods.method import Case, Method, trained
from mcjax.training import LossFn, StepMetrics
from mcjax.training.losses import accuracy, cross_entropy


def dense_layers(params: PyTree) -> list[str]:
    """Paths of the layers whose kernel is a matrix.

    Raises:
        UserError: There are none.

    Example:
        >>> dense_layers({"conv": {"kernel": jnp.ones((3, 3, 1, 2))}, "fc": {"kernel": jnp.eye(2)}})
        ['fc']
    """
    names = [
        path.removesuffix("/kernel")
        for path, leaf in by_name(params).items()
        if path.endswith("/kernel") and leaf.ndim == 2
    ]
    if not names:
        raise UserError("the network has no dense layer with a kernel; do not use the method d3")
    return names


def last_layer(network: Network, variables: PyTree, images: jax.Array) -> str:
    """The path of the dense layer that is called last.

    Args:
        network: The network, made by `from_linen`.
        variables: Its variables.
        images: Images of the network's shape, [B, H, W, C].

    Raises:
        UserError: The layers are not accessible, or none is dense.
    """
    dense = set(dense_layers(variables["params"]))
    if network.layer_outputs is None:
        raise UserError("d3 needs the layers of a network; make it with from_linen")
    called: list[str] = []

    def trace(variables: PyTree, x: jax.Array) -> None:
        called.extend(network.layer_outputs(variables, to_unit(x)))  # type: ignore[misc]

    jax.eval_shape(trace, variables, images[:1])
    return [path for path in called if path in dense][-1]


def distant_start(key: jax.Array, kernel: jax.Array) -> jax.Array:
    """A random kernel with the norm of another: uniform in [-0.5, 0.5], then rescaled.

    Args:
        key: Random key.
        kernel: The suspect's kernel, of any shape.

    Returns:
        A kernel of that shape and norm.

    Example:
        >>> kernel = jnp.full((2, 3), 2.0)
        >>> new = distant_start(jax.random.key(0), kernel)
        >>> bool(jnp.isclose(jnp.linalg.norm(new), jnp.linalg.norm(kernel)))
        True
    """
    u = jax.random.uniform(key, kernel.shape, kernel.dtype, -0.5, 0.5)
    return rescaled(u, kernel)


def rescaled(kernel: jax.Array, like: jax.Array) -> jax.Array:
    """Rescales a kernel to the norm of another: kernel ||like|| / ||kernel||."""
    length = jnp.linalg.norm(kernel.ravel())
    return kernel * (jnp.linalg.norm(like.ravel()) / jnp.maximum(length, 1e-12))


def distance_loss(network: Network, layer: str, *, weight: float, eps: float) -> LossFn:
    """Cross-entropy above a floor, minus the distance of one layer from the suspect's.

        weight mean_i relu(CE_i - eps) - ||w - w0||_2,    w the layer's kernel

    Args:
        network: The network.
        layer: The layer's path.
        weight: Weight of the cross-entropy, lambda in the paper.
        eps: Cross-entropy of an image, in nats, that is small enough.

    Returns:
        A loss_fn for `train_steps`; its `fixed` is the suspect's kernel w0.

    Source: D3 (ICCV 2025, arXiv 2411.09585).
    """
    return Bound(_distance_loss, network, layer, weight, eps)


def _distance_loss(
    network: Network,
    layer: str,
    weight: float,
    eps: float,
    key: jax.Array,
    step: jax.Array,
    params: PyTree,
    stats: PyTree,
    fixed: jax.Array,
    batch: Batch,
) -> tuple[jax.Array, tuple[PyTree, StepMetrics]]:
    variables = {"params": params, "batch_stats": stats}
    logits, stats = network.apply_train(stream(key, "dropout", step), variables, batch["image"])
    losses = cross_entropy(logits, batch["label"])
    away = by_name(params)[f"{layer}/kernel"] - fixed
    loss = weight * jax.nn.relu(losses - eps).mean() - jnp.linalg.norm(away.ravel())
    right = accuracy(logits, batch["label"]).mean()
    return loss, (stats, StepMetrics(loss, losses.mean(), right))


def _keep_norm(layer: str, params: PyTree, fixed: jax.Array) -> PyTree:
    """Rescales the layer's kernel to the norm of the suspect's."""
    return _with_kernel(params, layer, lambda w: rescaled(w, fixed))


def _with_kernel(params: PyTree, layer: str, change_fn: Callable[[jax.Array], jax.Array]) -> PyTree:
    def leaf(path: jax.tree_util.KeyPath, w: jax.Array) -> jax.Array:
        return change_fn(w) if path_name(path) == f"{layer}/kernel" else w

    return jax.tree.map_with_path(leaf, params)


def run(case: Case) -> dict[str, PyTree]:
    """Trains the suspect of a case away from its last layer.

    The kernel of the last dense layer starts at random, with the suspect's norm; after each step it
    is rescaled to that norm. All other parameters start at the suspect's; all are trained.

    Source: D3 (ICCV 2025, arXiv 2411.09585).
    """
    params, options = case.suspect["params"], case.options
    layer = last_layer(case.network, case.suspect, case.images["image"])
    kernel = by_name(params)[f"{layer}/kernel"]
    new = distant_start(stream(case.key_fn("d3"), "init"), kernel)
    return case.train(
        "d3",
        _with_kernel(params, layer, lambda w: new),
        case.suspect["batch_stats"],
        distance_loss(
            case.network, layer, weight=options["d3.weight"], eps=options["d3.loss_floor"]
        ),
        kernel,
        project_fn=Bound(_keep_norm, layer),
    )


METHOD = Method(
    run=run,
    learning_rate=0.01,
    settings={
        "d3.weight": Setting(0.5, number(0, 1e6), "weight of D3's cross-entropy"),
        "d3.loss_floor": Setting(
            0.1, number(0, 1e3), "cross-entropy per image, in nats, below which D3 ignores it"
        ),
    },
    work=trained("d3"),
    check=lambda variables: dense_layers(variables["params"]),
)
