"""Fine-pruning: prunes the channels that are dormant on clean images and may serve a trigger."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mcjax.core.errors import UserError
from mcjax.core.tree import PyTree, by_name, path_name
from mcjax.data.batches import Batch, stack_batches, to_unit
from mcjax.models.network import Network
from mcjax.repair.methods.method import Case, Method, Plan, Work, trained
from mcjax.repair.methods.pruning import apply_masks, channel_masks, fine_tune_masked
from mcjax.repair.methods.tuning import by_length
from mcjax.training.losses import accuracy


def prune_dormant(
    network: Network,
    variables: PyTree,
    bonafide: dict[str, Any],
    selection: dict[str, Any],
    *,
    tolerance: float = 0.02,
    step: int | None = None,
    batch_size: int = 250,
) -> PyTree:
    """Makes masks that prune the most dormant channels of the last convolution.

    Channels are ranked by mean ReLU(output) over the bonafide images and pruned in that order as long
    as the accuracy on the selection images is at least the unpruned network's minus the tolerance.
    The second half of the method fine-tunes the rest, with `pruning.masked`.

    "Last convolution" means the last layer whose outputs are feature maps, i.e. the channels that the
    classifier sees: the BatchNorm after it, if there is one; in a residual network the BatchNorm after
    the last block, or else the last block itself, whose channels are removed from the inputs of the
    following dense layer (inside the block the shortcut would restore them). A network without
    convolutions is pruned at its last hidden layer. BatchNorm's running statistics do not change.

    Args:
        network: The network, made by `from_linen`.
        variables: Its {"params", "batch_stats"}.
        bonafide: Clean images, {"image" [N, H, W, C], "label" [N]}.
        selection: Images that decide when to stop.
        tolerance: Accuracy that pruning may lose, a fraction.
        step: Channels pruned per accuracy evaluation; None for at most 64 evaluations.
        batch_size: Images per batch.

    Returns:
        Masks for `pruning.apply_masks`, a tree like the parameters.

    Raises:
        UserError: The network's layers are not accessible, or there are no images.

    Source: Liu, Dolan-Gavitt and Garg 2018, section 4; the tolerance is theirs (the defender's
        threshold), pruning several channels per step is not.
    """
    if network.layer_outputs is None:
        raise UserError("fine-pruning needs the layers of a network; make it with from_linen")
    clean, judged = (
        jax.tree.map(jnp.asarray, stack_batches(examples, min(batch_size, len(examples["label"]))))
        for examples in (bonafide, selection)
    )
    place, num_channels = _last_layer(network, variables, clean["image"][0])
    activity = mean_activation(variables, clean, network=network, layer=place.layer)
    num_pruned = _num_prunable(
        variables,
        jnp.argsort(activity, stable=True),
        judged,
        jnp.float32(tolerance),
        network=network,
        place=place,
        step=step or -(-num_channels // 64),
    )
    rank = np.argsort(np.argsort(np.asarray(activity), kind="stable"))
    return _masks(variables["params"], place, jnp.asarray(rank >= int(num_pruned)))


class _Place(NamedTuple):
    """Where channels are pruned: at the layer, or at the inputs of the dense layer after it."""

    layer: str
    behind: str = ""


def _masks(params: PyTree, place: _Place, kept: jax.Array) -> PyTree:
    if not place.behind:
        return channel_masks(params, {place.layer: kept})

    def mask(path: jax.tree_util.KeyPath, leaf: jax.Array) -> jax.Array:
        if path_name(path) != f"{place.behind}/kernel":
            return jnp.ones_like(leaf)
        # Rows of a flattened map [H, W, C] have channels last; those of a mean are the C channels.
        rows = jnp.tile(kept.astype(leaf.dtype), len(leaf) // len(kept))
        return jnp.broadcast_to(rows[:, None], leaf.shape)

    return jax.tree.map_with_path(mask, params)


def _last_layer(network: Network, variables: PyTree, x: jax.Array) -> tuple[_Place, int]:
    """Where to prune, and the number of channels there."""
    shapes: dict[str, tuple[int, ...]] = {}

    def trace(variables: PyTree, x: jax.Array) -> None:
        outputs = network.layer_outputs(variables, to_unit(x))  # type: ignore[misc]
        shapes.update({path: output.shape for path, output in outputs.items()})

    jax.eval_shape(trace, variables, x)
    own = {name.rpartition("/")[0] for name in by_name(variables["params"])}
    layers = [path for path in shapes if path in own]
    maps = [path for path in layers if len(shapes[path]) == 4]
    hidden = maps or layers[:-1]
    if not hidden:
        raise UserError("the network has no hidden layer to prune; do not use fine-pruning")
    last = hidden[-1]
    block = next((path for path in list(shapes)[::-1] if len(shapes[path]) == 4), last)
    if last.startswith(f"{block}/"):  # the last layer is inside a block
        return _Place(block, layers[layers.index(last) + 1]), shapes[block][-1]
    return _Place(last), shapes[last][-1]


@functools.partial(jax.jit, static_argnames=("network", "layer"))
def mean_activation(
    variables: PyTree, batches: Batch, *, network: Network, layer: str
) -> jax.Array:
    """Mean of ReLU(output) of a layer over images and positions, [channels].

    Args:
        variables: The network's variables.
        batches: Leaves [num_batches, B, ...] with a "mask", from `stack_batches`.
        network: The network.
        layer: Path of the layer.

    Returns:
        One value per channel.
    """

    def total(batch: Batch) -> jax.Array:
        outputs = network.layer_outputs(variables, to_unit(batch["image"]))  # type: ignore[misc]
        active = jax.nn.relu(outputs[layer])
        active = active.reshape(len(active), -1, active.shape[-1]).mean(1)
        return (active * batch["mask"][:, None]).sum(0)

    return lax.map(total, batches).sum(0) / batches["mask"].sum()


@functools.partial(jax.jit, static_argnames=("network", "place", "step"))
def _num_prunable(
    variables: PyTree,
    order: jax.Array,
    batches: Batch,
    tolerance: jax.Array,
    *,
    network: Network,
    place: _Place,
    step: int,
) -> jax.Array:
    """The number of channels, from the front of `order`, that can be pruned within the tolerance."""
    params = variables["params"]
    rank = jnp.argsort(order)

    def num_right(num_pruned: jax.Array) -> jax.Array:
        masks = _masks(params, place, rank >= num_pruned)
        pruned = {**variables, "params": apply_masks(params, masks)}

        def count(batch: Batch) -> jax.Array:
            logits = network.apply(pruned, to_unit(batch["image"]))
            return (accuracy(logits, batch["label"]) * batch["mask"]).sum()

        return lax.map(count, batches).sum()

    # In counts of images, which are exact; 0.01 image allows for rounding.
    floor = num_right(jnp.int32(0)) - tolerance * batches["mask"].sum() - 0.01

    def goes_on(carry: tuple[jax.Array, jax.Array]) -> jax.Array:
        num_pruned, right = carry
        return (right >= floor) & (num_pruned < len(order))

    def prune(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        num_pruned = carry[0] + step
        return num_pruned, num_right(num_pruned)

    num_pruned, right = lax.while_loop(goes_on, prune, (jnp.int32(0), jnp.float32(jnp.inf)))
    return jnp.minimum(jnp.where(right >= floor, num_pruned, num_pruned - step), len(order) - 1)


def run(case: Case) -> dict[str, PyTree]:
    """Prunes the dormant channels of a case's suspect, then fine-tunes what is left."""
    masks = prune_dormant(
        case.network,
        case.suspect,
        case.bonafide,
        case.selection,
        tolerance=case.options["tolerance"],
    )
    return fine_tune_masked(case, "fine_prune", masks)


def work(plan: Plan) -> Iterator[Work]:
    """The training, and at most 64 looks at the accuracy, one step of channels after another."""
    yield from trained("fine_prune")(plan)
    images = sum(n + 65 * plan.num_selection for n in plan.sizes)
    yield Work("search of fine_prune", images / plan.batch_size, plan.batch_size, 1, 1, "")


METHOD = Method(
    run=run,
    learning_rate=0.02,
    work=work,
    tuning=by_length("fine_prune"),
)
