"""Trains one network: the call for a notebook."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mcjax.core import fields
from mcjax.core.foreign import refuse_torch
from mcjax.core.keys import check_key, stream
from mcjax.core.progress import progress
from mcjax.core.tree import PyTree
from mcjax.data.batches import Batch
from mcjax.data.given import given_examples, given_labels
from mcjax.models.given import classes_of
from mcjax.models.network import Network, normalisation_of
from mcjax.training.fit import BUDGET_FIELDS, Budget, Training, fit
from mcjax.training.objectives import endpoint_loss

LEARNING_RATE = 0.05


def train_network(
    key: jax.Array,
    network: Network,
    images: Mapping[str, Any],
    *,
    learning_rate: float = LEARNING_RATE,
    verbose: bool = False,
    **budget: Any,
) -> dict[str, PyTree]:
    """Trains a network from a random start, by SGD on the mean cross-entropy.

    Args:
        key: Random key of the start, the batches, the augmentation and dropout.
        network: The network; it must have an `init`.
        images: "image" [N, H, W, C] uint8 or in [0, 1], "label" [N].
        learning_rate: Of the first half of the steps.
        verbose: Show progress on standard error.
        **budget: Fields of `mcjax.training.fit.Budget`: num_steps (2000 unless given), batch_size,
            momentum, nesterov, weight_decay, augmentation.

    Returns:
        The trained variables, {"params"} and, if it has running statistics, {"batch_stats"}.

    Raises:
        UserError: Images or labels do not fit the network, an option has no sense, or the loss is
            not finite.

    Example:
        >>> from mcjax import data, models
        >>> from mcjax.models.network import from_linen
        >>> digits = data.load("digits")
        >>> network = from_linen(models.create("mlp", num_classes=10), digits.image_shape)
        >>> variables = train_network(jax.random.key(0), network, digits.train, num_steps=200)
        >>> answers = network.apply(variables, digits.test["image"]).argmax(-1)
        >>> bool((answers == digits.test["label"]).mean() > 0.9)
        True
    """
    key = check_key(key)
    refuse_torch("network", network)
    fields.check("learning_rate", learning_rate, fields.number(0, 1e3, above=True))
    start = {"batch_stats": {}, **network.init(stream(key, "init"))}
    training = Training(
        start["params"],
        start["batch_stats"],
        on_device(network, start, images),
        endpoint_loss(network),
        learning_rate,
        budget_of(budget),
    )
    return whole(fit_with_progress(key, training, name="network", verbose=verbose))


def on_device(network: Network, variables: PyTree, images: Mapping[str, Any]) -> Batch:
    """A user's images, checked for a network and sent to the device."""
    given = given_examples("the", images, normalisation_of(network))
    num_classes = classes_of(network, variables, given["image"])
    labels = given_labels("the", given["label"], num_classes)
    return {"image": jnp.asarray(given["image"]), "label": jnp.asarray(labels)}


def budget_of(changes: Mapping[str, Any]) -> Budget:
    """A budget with some fields changed, 2,000 steps unless given.

    Raises:
        UserError: A value that no training can have.
        TypeError: There is no field of that name.
    """
    for name, value in changes.items():
        if name not in BUDGET_FIELDS:
            raise TypeError(f"there is no option {name!r}; use {', '.join(BUDGET_FIELDS)}")
        fields.check(name, value, BUDGET_FIELDS[name])
    return Budget(**{"num_steps": 2000, **changes})


def fit_with_progress(
    key: jax.Array, training: Training, *, name: str, verbose: bool
) -> dict[str, PyTree]:
    """`fit`, with a progress bar on standard error if asked for."""
    if not verbose:
        return fit(key, training, name=name)
    with progress(name, training.budget.num_steps, unit="step") as bar:
        return fit(
            key,
            training,
            name=name,
            tell=lambda step, means: bar.advance(step - bar.done, loss=means["loss"]),
        )


def whole(trained: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """Variables as a network takes them: without empty statistics."""
    return {name: tree for name, tree in trained.items() if name == "params" or tree}
