"""Training a network away from its own last layer, at low loss on clean images: D3.

What ties a trigger to its class sits in the last layer as much as what ties the images to theirs;
only the second is learned again from clean images.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mcjax.core.bound_functions import Bound
from mcjax.core.errors import Unsuitable
from mcjax.core.keys import stream
from mcjax.core.tree import PyTree, by_name, path_name
from mcjax.data.batches import Batch, to_unit
from mcjax.models.network import Network
from mcjax.training import LossFn, StepMetrics
from mcjax.training.loop import ProjectFn
from mcjax.training.losses import accuracy, cross_entropy

LEARNING_RATE = 0.01
LOSS_WEIGHT = 0.5
"""Of the cross-entropy, beside the distance."""
LOSS_FLOOR = 0.1
"""Cross-entropy of an image, in nats, that is small enough."""


class Away(NamedTuple):
    """What a training away from a network needs, beside its budget.

    Attributes:
        params: The parameters before the first step.
        loss_fn: The objective.
        kernel: The network's own last kernel, `fixed` of the objective.
        project_fn: Applied after each step.
    """

    params: PyTree
    loss_fn: LossFn
    kernel: jax.Array
    project_fn: ProjectFn


def away(
    key: jax.Array,
    network: Network,
    variables: PyTree,
    images: Batch,
    *,
    weight: float = LOSS_WEIGHT,
    eps: float = LOSS_FLOOR,
) -> Away:
    """The training of a network away from its last layer.

    The last kernel starts at random, with the network's norm, and is rescaled to that norm after each
    step. All other parameters start at the network's; all are trained.

    Args:
        key: Random key of the start.
        network: The network.
        variables: Its variables.
        images: "image" [N, H, W, C]; only the shape counts.
        weight: Weight of the cross-entropy.
        eps: Cross-entropy of an image, in nats, that is small enough.

    Raises:
        Unsuitable: See `last_kernel`.

    Source: D3 (ICCV 2025, arXiv 2411.09585).
    """
    params = variables["params"]
    name = last_kernel(network, variables, images["image"])
    kernel = by_name(params)[name]
    start = _with_leaf(params, name, distant_start(key, kernel))
    loss_fn = distance_loss(network, name, weight=weight, eps=eps)
    return Away(start, loss_fn, kernel, Bound(_keep_norm, name))


def kernels(params: PyTree) -> list[str]:
    """Names of the parameters that are matrices, such as those of dense layers.

    Raises:
        Unsuitable: There are none.

    Example:
        >>> kernels({"conv": {"kernel": jnp.ones((3, 3, 1, 2))}, "fc": {"kernel": jnp.eye(2)}})
        ['fc/kernel']
    """
    names = [name for name, leaf in by_name(params).items() if jnp.ndim(leaf) == 2]
    if not names:
        raise Unsuitable(
            "the network has no dense layer, whose kernel is a matrix; do not use the method d3"
        )
    return names


def last_kernel(network: Network, variables: PyTree, images: jax.Array) -> str:
    """The name of the matrix that makes the logits.

    It is that of the dense layer that is called last; where the layers are not accessible, the only
    matrix with an axis of as many entries as there are classes.

    Args:
        network: The network.
        variables: Its variables.
        images: Images of the network's shape, [B, H, W, C].

    Raises:
        Unsuitable: No matrix could be it, or several.
    """
    found = kernels(variables["params"])
    x = jax.eval_shape(to_unit, images[:1])
    if network.layer_outputs is not None:
        called: list[str] = []

        def trace(variables: PyTree, x: jax.Array) -> None:
            called.extend(network.layer_outputs(variables, x))  # type: ignore[misc]

        jax.eval_shape(trace, variables, x)  # a result would come back in sorted order
        # Flax calls a dense layer's matrix kernel, PyTorch weight.
        names = [f"{layer}/{kind}" for layer in called for kind in ("kernel", "weight")]
        found = [name for name in names if name in found][-1:]
    else:
        num_classes = jax.eval_shape(network.apply, variables, x).shape[-1]
        shapes = {name: jnp.shape(leaf) for name, leaf in by_name(variables["params"]).items()}
        found = [name for name in found if num_classes in shapes[name]]
    if len(found) != 1:
        what = f"{', '.join(found)} could be it" if found else "no matrix has its shape"
        raise Unsuitable(
            f"the network's last dense layer is not known: {what}; make it with from_linen"
        )
    return found[0]


def distant_start(key: jax.Array, kernel: jax.Array) -> jax.Array:
    """A random kernel with the norm of another: uniform in [-0.5, 0.5], then rescaled.

    Args:
        key: Random key.
        kernel: The network's kernel, of any shape.

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


def distance_loss(network: Network, name: str, *, weight: float, eps: float) -> LossFn:
    """Cross-entropy above a floor, minus the distance of one kernel from the network's own.

        weight mean_i relu(CE_i - eps) - ||w - w0||_2,    w the kernel

    Args:
        network: The network.
        name: The kernel's name.
        weight: Weight of the cross-entropy, lambda in the paper.
        eps: Cross-entropy of an image, in nats, that is small enough.

    Returns:
        A loss_fn for `train_steps`; its `fixed` is the network's own kernel w0.

    Source: D3 (ICCV 2025, arXiv 2411.09585).
    """
    return Bound(_distance_loss, network, name, weight, eps)


def _distance_loss(
    network: Network,
    name: str,
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
    distance = jnp.linalg.norm((by_name(params)[name] - fixed).ravel())
    loss = weight * jax.nn.relu(losses - eps).mean() - distance
    right = accuracy(logits, batch["label"]).mean()
    return loss, (stats, StepMetrics(loss, losses.mean(), right))


def _keep_norm(name: str, params: PyTree, fixed: jax.Array) -> PyTree:
    """Rescales the kernel to the norm of the network's own."""
    return _with_leaf(params, name, rescaled(by_name(params)[name], fixed))


def _with_leaf(params: PyTree, name: str, new: jax.Array) -> PyTree:
    return jax.tree.map_with_path(lambda path, w: new if path_name(path) == name else w, params)
