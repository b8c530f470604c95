"""ANP: prunes the channels that make the network most sensitive to changes of its neurons."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from jax import lax

from mcjax.core.bound_functions import Bound
from mcjax.core.errors import UserError
from mcjax.core.fields import number
from mcjax.core.keys import stream
from mcjax.core.settings import Setting
from mcjax.core.tree import PyTree, by_name, path_name
from mcjax.data.batches import Batch
from mcjax.models.network import Network
from mcjax.repair.methods.method import TRAIN_PASSES, Case, Family, Method, Plan, Work
from mcjax.repair.methods.pruning import PrunedBelow, convolutions
from mcjax.training import LossFn, StepMetrics
from mcjax.training.losses import accuracy, cross_entropy

THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(19))
"""Channels with a mask below the threshold are pruned; 0 prunes none."""

NUM_GRADIENTS = 3  # of the noise, of the clean loss and of the noisy loss


def masked_layers(params: PyTree) -> dict[str, int]:
    """The layers whose channels have a mask: every BatchNorm, or else every convolution.

    Args:
        params: Parameters.

    Returns:
        Number of channels by layer path.

    Raises:
        UserError: The network has neither.

    Example:
        >>> masked_layers({"conv": {"kernel": jnp.ones((3, 3, 1, 4))}, "fc": {"kernel": jnp.eye(2)}})
        {'conv': 4}
    """
    norms = {
        path.removesuffix("/scale"): leaf.shape[0]
        for path, leaf in by_name(params).items()
        if path.endswith("/scale")
    }
    if norms:
        return norms
    try:
        kernels = convolutions(params)
    except UserError:
        raise UserError(
            "the network has neither BatchNorm nor a convolution; do not use the method anp"
        ) from None
    return {layer: kernel.shape[-1] for layer, kernel in kernels.items()}


def perturbed(params: PyTree, mask: PyTree, noise: PyTree, bias_noise: PyTree) -> PyTree:
    """Scales each masked layer: its weights by m + d, its bias by 1 + b, per output channel.

    Args:
        params: Parameters.
        mask: m [channels] at the place of each masked layer, nested like `params`.
        noise: d, a tree like the masks.
        bias_noise: b, a tree like the masks.

    Returns:
        A tree like `params`.

    Example:
        >>> params = {"bn": {"scale": jnp.array([2.0, 2.0]), "bias": jnp.array([1.0, 1.0])}}
        >>> m, d, b = ({"bn": jnp.array(v)} for v in ([1.0, 0.5], [0.0, 0.25], [0.5, 0.0]))
        >>> perturbed(params, m, d, b)["bn"]["scale"].tolist()
        [2.0, 1.5]

    Source: Wu and Wang 2021, the perturbation of neurons.
    """
    factors = jax.tree.map(jnp.add, mask, noise)
    weight, bias = by_name(factors), by_name(bias_noise)

    def leaf(path: jax.tree_util.KeyPath, w: jax.Array) -> jax.Array:
        layer, _, name = path_name(path).rpartition("/")
        if layer not in weight:
            return w
        factor = 1 + bias[layer] if name == "bias" else weight[layer]
        return w * factor.reshape((1,) * (w.ndim - 1) + (-1,))

    return jax.tree.map_with_path(leaf, params)


def mask_loss(network: Network, *, alpha: float, eps: float, num_inner: int = 1) -> LossFn:
    """The loss of the masks: clean, and with the noise that maximises it.

        alpha CE(m) + (1 - alpha) max_{|d|, |b| <= eps} CE(m + d, b)

    The noise starts uniformly in [-eps, eps] and takes num_inner steps of eps / num_inner along the
    sign of the gradient of CE(m + d, b), each projected onto [-eps, eps]; it is not differentiated.
    Passes normalise by the batch; the running statistics do not change.

    Args:
        network: The network.
        alpha: Weight of the loss without noise.
        eps: Largest relative change of a channel's weights and bias.
        num_inner: Steps of the noise.

    Returns:
        A loss_fn for `train_steps`; its params are the masks, and its `fixed` the parameters of the
        network.

    Source: Wu and Wang 2021, the objective of the masks; the projection is that of its constraint.
    """
    return Bound(_mask_loss, network, alpha, eps, num_inner)


def _mask_loss(
    network: Network,
    alpha: float,
    eps: float,
    num_inner: int,
    key: jax.Array,
    step: jax.Array,
    params: PyTree,
    stats: PyTree,
    fixed: PyTree,
    batch: Batch,
) -> tuple[jax.Array, tuple[PyTree, StepMetrics]]:
    x, y = batch["image"], batch["label"]

    def pass_by(mask: PyTree, noise: tuple[PyTree, PyTree]) -> jax.Array:
        variables = {"params": perturbed(fixed, mask, *noise), "batch_stats": stats}
        logits, _ = network.apply_train(stream(key, "dropout", step), variables, x)
        return logits

    def loss(mask: PyTree, noise: tuple[PyTree, PyTree]) -> jax.Array:
        return cross_entropy(pass_by(mask, noise), y).mean()

    here = lax.stop_gradient(params)
    noise = start_noise(stream(key, "noise", step), here, eps=eps)
    for _ in range(num_inner):
        slope = jax.grad(loss, argnums=1)(here, noise)
        noise = jax.tree.map(
            lambda v, g: jnp.clip(v + eps / num_inner * jnp.sign(g), -eps, eps), noise, slope
        )
    zeros = jax.tree.map(jnp.zeros_like, noise)
    logits = pass_by(params, zeros)
    clean = cross_entropy(logits, y).mean()
    total = alpha * clean + (1 - alpha) * loss(params, noise)
    return total, (stats, StepMetrics(total, clean, accuracy(logits, y).mean()))


def start_noise(key: jax.Array, mask: PyTree, *, eps: float) -> tuple[PyTree, PyTree]:
    """The noise (d, b) before its first step: uniform in [-eps, eps], two trees like the masks."""
    leaves, structure = jax.tree.flatten(mask)

    def draw(name: str) -> PyTree:
        noise = [
            jax.random.uniform(stream(key, name, j), leaf.shape, leaf.dtype, -eps, eps)
            for j, leaf in enumerate(leaves)
        ]
        return jax.tree.unflatten(structure, noise)

    return draw("weight"), draw("bias")


def clip_masks(mask: PyTree, fixed: Any) -> PyTree:
    """Clips masks to [0, 1]."""
    return jax.tree.map(lambda m: m.clip(0, 1), mask)


def run(case: Case) -> Family:
    """Trains the masks of a case's suspect once, then prunes at every threshold.

    A step computes three gradients (of the noise, of the clean loss, of the noisy loss), so there are
    a third of the case's steps. Masks have no weight decay. A pruned channel outputs zero: its bias
    is zeroed too, as in mcjax's other pruning methods, while the paper zeroes the weights alone.

    The published toolbox chooses the threshold by attack success on triggered test images. mcjax
    does not: `mcjax.repair.rule` takes the largest threshold within the tolerance on clean selection
    images.

    Source: Wu and Wang 2021, "Adversarial neuron pruning purifies backdoored deep models".
    """
    options, suspect = case.options, case.suspect
    layers = masked_layers(suspect["params"])
    ones = {layer: jnp.ones(channels) for layer, channels in layers.items()}
    trained = case.train(
        "anp",
        traverse_util.unflatten_dict(ones, sep="/"),
        suspect["batch_stats"],
        mask_loss(case.network, alpha=options["anp.alpha"], eps=options["anp.eps"]),
        suspect["params"],
        budget=case.shortened(NUM_GRADIENTS, weight_decay=0.0),
        project_fn=clip_masks,
    )
    masks = by_name(trained["params"])
    thresholds = jnp.asarray(THRESHOLDS, jnp.float32)
    return Family("threshold", THRESHOLDS, PrunedBelow(suspect, masks, thresholds))


def work(plan: Plan) -> Iterator[Work]:
    """A third as many steps, with three gradients each."""
    steps = sum(max(1, n // NUM_GRADIENTS) for n in plan.num_steps)
    passes = NUM_GRADIENTS * TRAIN_PASSES
    yield Work("train anp", steps, plan.batch_size, passes, 9, "batch")


METHOD = Method(
    run=run,
    kind="family",
    learning_rate=0.2,
    settings={
        "anp.eps": Setting(
            0.4, number(0, 1e3), "largest relative change of a channel by ANP's noise"
        ),
        "anp.alpha": Setting(0.2, number(0, 1), "weight of ANP's loss without noise"),
    },
    work=work,
    num_networks=lambda plan: len(THRESHOLDS),
    check=lambda variables: masked_layers(variables["params"]),
)
