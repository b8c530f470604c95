"""L1 filter pruning: filters with the smallest weights are removed while the rest is trained.

A mask is a tree like the parameters, of zeros and ones. The output of a pruned filter is zero: its
weights and bias are masked, and so are the scale and bias of the BatchNorm after it.
"""

import dataclasses
import fnmatch
import functools
import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from mcjax import models
from mcjax.core.bound_functions import Bound
from mcjax.core.errors import UserError
from mcjax.core.fields import number
from mcjax.core.settings import Setting
from mcjax.core.tree import PyTree, by_name, path_name
from mcjax.data.batches import Batch
from mcjax.repair.methods.method import Case, Method, trained
from mcjax.repair.methods.tuning import by_length
from mcjax.training import LossFn, StepMetrics
from mcjax.training.objectives import endpoint_loss

VGG16_A: Mapping[str, float] = {
    f"conv{layer}": 0.5 for layer in ("1_1", "4_1", "4_2", "4_3", "5_1", "5_2", "5_3")
}
"""Fractions of Li et al.'s VGG-16-A: half of the first layer and of the six 512-channel layers."""

_WRITES_TO_SHORTCUT = ("conv1", "*/conv[23]", "*/shortcut")


def skipped(model_name: str) -> tuple[str, ...]:
    """Path patterns of the layers that `smallest_filters` does not prune.

    In residual networks only the first convolution of each block is pruned: the outputs of the others
    and of the convolutions before the blocks are added to the shortcut, whose channels all blocks
    share. In other networks no layer is skipped.

    Args:
        model_name: One of `mcjax.models.names()`.

    Returns:
        Patterns with * as a wildcard.

    Example:
        >>> skipped("vgg16")
        ()
        >>> skipped("preresnet26")
        ('conv1', '*/conv[23]', '*/shortcut')

    Source: Li et al. 2017, section 3.3.
    """
    return _WRITES_TO_SHORTCUT if "resnet" in model_name else ()


def smallest_filters(
    params: PyTree,
    *,
    fraction: float | Mapping[str, float],
    model_name: str = "",
) -> PyTree:
    """Makes masks that prune the filters with the smallest L1 norm, separately in each layer.

    Of the o filters of a convolution w [height, width, i, o], the round(fraction * o) filters with
    the smallest s_j = sum |w[:, :, :, j]| get mask 0 (ties: the first ones). At least one is kept.

    Args:
        params: Parameters, nested dicts; convolutions are the 4-D leaves named "kernel".
        fraction: Fraction of each layer's filters to prune, in [0, 1); or a dict by layer path, where
            layers that are not named are not pruned.
        model_name: One of `mcjax.models.names()`; determines the layers to skip (`skipped`) and the
            position of BatchNorm (`normalisation_after`).

    Returns:
        Masks, a tree like `params`.

    Raises:
        UserError: The network has no convolution; a fraction is out of range; a layer is unknown.

    Example:
        >>> kernel = jnp.array([3.0, -1.0, 2.0, 4.0]).reshape(1, 1, 1, 4)
        >>> smallest_filters({"conv": {"kernel": kernel}}, fraction=0.5)["conv"]["kernel"].ravel()
        Array([1., 0., 0., 1.], dtype=float32)

    Source: Li et al. 2017, section 3.1.
    """
    kernels = convolutions(params)
    skip = skipped(model_name)
    fractions = fraction if isinstance(fraction, Mapping) else dict.fromkeys(kernels, fraction)
    for layer, value in fractions.items():
        if layer not in kernels:
            raise UserError(f"no convolution {layer!r}; there are {', '.join(kernels)}")
        if not 0 <= value < 1:
            raise UserError(f"the fraction of filters to prune is {value}; give 0 <= fraction < 1")
    keep: dict[str, jax.Array] = {}
    for layer, kernel in kernels.items():
        if any(fnmatch.fnmatchcase(layer, pattern) for pattern in skip):
            continue
        num_filters = kernel.shape[-1]
        num_pruned = min(round(fractions.get(layer, 0) * num_filters), num_filters - 1)
        order = jnp.argsort(jnp.abs(kernel).sum((0, 1, 2)), stable=True)
        kept = jnp.ones(num_filters, kernel.dtype).at[order[:num_pruned]].set(0)
        keep |= {layer: kept, normalisation_after(layer, model_name): kept}
    return channel_masks(params, keep)


def convolutions(params: PyTree) -> dict[str, jax.Array]:
    """The convolutions' weights by layer path.

    Raises:
        UserError: There are no convolutions.
    """
    kernels = {
        path.removesuffix("/kernel"): leaf
        for path, leaf in by_name(params).items()
        if leaf.ndim == 4 and path.split("/")[-1] == "kernel"
    }
    if not kernels:
        raise UserError("the network has no convolution to prune; do not use the method prune")
    return kernels


def refuse_without_convolutions(method: str, variables: PyTree) -> None:
    """Refuses a network without convolutions.

    Args:
        method: The method that needs them.
        variables: The network's variables, or their shapes.

    Raises:
        UserError: There are none.
    """
    try:
        convolutions(variables["params"])
    except UserError:
        raise UserError(f"the network has no convolution; do not use the method {method}") from None


def normalisation_after(layer: str, model_name: str = "") -> str:
    """The path of a convolution's BatchNorm in mcjax's networks, if they have one.

    Inside a block of a pre-activation network (all residual networks except `resnet`) the number
    increases by one: conv1 is followed by bn2.

    Example:
        >>> normalisation_after("conv5_3"), normalisation_after("layer1_0/conv1", "preresnet26")
        ('bn5_3', 'layer1_0/bn2')
        >>> normalisation_after("layer1_0/conv1", "resnet18")
        'layer1_0/bn1'
    """
    block, slash, name = layer.rpartition("/")
    if slash and not (model_name and models.family(model_name) == "resnet"):
        name = re.sub(r"\d+$", lambda number: str(int(number[0]) + 1), name)
    return f"{block}{slash}{name.replace('conv', 'bn')}"


def channel_masks(params: PyTree, keep: Mapping[str, jax.Array]) -> PyTree:
    """Makes masks by output channel (the last axis).

    Args:
        params: Parameters.
        keep: 0 or 1 per channel, by layer path; layers that are not named are kept.

    Returns:
        Masks, a tree like `params`.

    Example:
        >>> params = {"fc": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
        >>> channel_masks(params, {"fc": jnp.array([0, 1])})["fc"]["kernel"].tolist()
        [[0.0, 1.0], [0.0, 1.0]]
    """

    def mask(path: jax.tree_util.KeyPath, leaf: jax.Array) -> jax.Array:
        kept = keep.get(path_name(path[:-1]))
        if kept is None:
            return jnp.ones_like(leaf)
        row = kept.astype(leaf.dtype).reshape((1,) * (leaf.ndim - 1) + (-1,))
        return jnp.broadcast_to(row, leaf.shape)

    return jax.tree.map_with_path(mask, params)


def apply_masks(params: PyTree, masks: PyTree) -> PyTree:
    """Multiplies parameters by their masks.

    Example:
        >>> apply_masks({"w": jnp.array([2.0, 3.0])}, {"w": jnp.array([0.0, 1.0])})["w"].tolist()
        [0.0, 3.0]
    """
    return jax.tree.map(lambda w, mask: w * mask, params, masks)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["variables", "scores", "thresholds"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True, eq=False)
class PrunedBelow:
    """A network at several thresholds: channels with a lower score output zero.

    Args:
        variables: The network's {"params", "batch_stats"}.
        scores: One score per channel, [channels], by layer path; other layers are not pruned.
        thresholds: [V].

    Example:
        >>> params = {"bn": {"scale": jnp.array([2.0, 3.0])}}
        >>> networks = PrunedBelow({"params": params}, {"bn": jnp.array([0.1, 0.8])}, jnp.array([0.5]))
        >>> networks(0)["params"]["bn"]["scale"].tolist()
        [0.0, 3.0]
    """

    variables: PyTree
    scores: Mapping[str, jax.Array]
    thresholds: jax.Array

    def __call__(self, i: jax.typing.ArrayLike) -> PyTree:
        """The variables at threshold i; i may be traced, and an integer or a float."""
        threshold = jnp.asarray(self.thresholds)[jnp.asarray(i).astype(jnp.int32)]
        keep = {layer: score >= threshold for layer, score in self.scores.items()}
        params = self.variables["params"]
        return {**self.variables, "params": apply_masks(params, channel_masks(params, keep))}


def masked(loss_fn: LossFn) -> LossFn:
    """Evaluates a loss at the masked parameters, so pruned parameters have no gradient.

    Pruned parameters that start at zero stay exactly zero, also with weight decay and momentum.

    Args:
        loss_fn: A loss without `fixed`, e.g. `endpoint_loss`.

    Returns:
        A loss_fn for `train_steps`; its `fixed` are the masks.
    """
    return Bound(_masked_loss, loss_fn)


def _masked_loss(
    loss_fn: LossFn,
    key: jax.Array,
    step: jax.Array,
    params: PyTree,
    stats: PyTree,
    masks: PyTree,
    batch: Batch,
) -> tuple[jax.Array, tuple[PyTree, StepMetrics]]:
    return loss_fn(key, step, apply_masks(params, masks), stats, None, batch)


def run(case: Case) -> dict[str, PyTree]:
    """Prunes the suspect of a case, then fine-tunes what is left."""
    params = case.suspect["params"]
    fraction = case.options["prune_fraction"]
    masks = smallest_filters(params, fraction=fraction, model_name=case.model_name)
    return fine_tune_masked(case, "prune", masks)


def fine_tune_masked(case: Case, name: str, masks: PyTree) -> dict[str, PyTree]:
    """Fine-tunes the suspect with some channels held at zero.

    Args:
        case: The case.
        name: The method, of the learning rate and the key.
        masks: What `channel_masks` makes.
    """
    params = apply_masks(case.suspect["params"], masks)
    loss_fn = masked(endpoint_loss(case.network))
    return case.train(name, params, case.suspect["batch_stats"], loss_fn, masks)


METHOD = Method(
    run=run,
    learning_rate=0.02,
    settings={
        "prune_fraction": Setting(
            0.5, number(0, 1, below=True), "fraction of each layer's filters that prune removes"
        ),
    },
    work=trained("prune"),
    check=lambda variables: convolutions(variables["params"]),
    tuning=by_length("prune"),
)
