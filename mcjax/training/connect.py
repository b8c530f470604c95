"""Joins two networks by a trained curve: the call for a notebook."""

from collections.abc import Mapping
from typing import Any

import jax

from mcjax.core import fields
from mcjax.core.errors import UserError
from mcjax.core.foreign import refuse_torch
from mcjax.core.keys import check_key
from mcjax.core.tree import PyTree, check_same_structure
from mcjax.curves import KINDS
from mcjax.curves.batch_stats import CurveWithStats
from mcjax.models.given import as_network, check_variables
from mcjax.models.network import Network
from mcjax.training.curve import CurveOptions, starting_curve, train_curve
from mcjax.training.network import LEARNING_RATE, budget_of, fit_with_progress, on_device
from mcjax.training.objectives import curve_loss


def connect(
    key: jax.Array,
    network: Network,
    start: PyTree,
    end: PyTree,
    images: Mapping[str, Any],
    *,
    kind: str = "bezier",
    num_bends: int = 1,
    learning_rate: float = LEARNING_RATE,
    verbose: bool = False,
    **budget: Any,
) -> CurveWithStats:
    """Joins two networks by a curve of low loss.

        min over the bends of  E_{t ~ U(0,1)} [ mean cross-entropy at w(t) + decay ||w(t)||^2 / 2 ]

    The points of the result are whole networks: `network.apply(curve(t), x)`. BatchNorm's statistics
    are recomputed at each t from the images.

    Args:
        key: Random key of t, the batches, the augmentation and dropout.
        network: The network.
        start: The first network's variables.
        end: The second's.
        images: "image" [N, H, W, C] uint8 or in [0, 1], "label" [N].
        kind: "bezier" or "polychain".
        num_bends: Bends of the curve; 0 joins by the straight line, and nothing is trained.
        learning_rate: Of the first half of the steps.
        verbose: Show progress on standard error.
        **budget: Fields of `mcjax.training.fit.Budget`: num_steps (2000 unless given), batch_size,
            momentum, nesterov, weight_decay (of the curve's points), augmentation.

    Returns:
        The curve; its `.curve` is the `Bezier` or `PolyChain` of the parameters alone.

    Raises:
        UserError: The networks have different structures, images or labels do not fit them, an option
            has no sense, or the loss is not finite.

    Example:
        >>> import jax.numpy as jnp
        >>> from mcjax.models.network import from_linen
        >>> from mcjax import models
        >>> network = from_linen(models.create("mlp", num_classes=2), (2, 2, 1))
        >>> a, b = (network.init(jax.random.key(seed)) for seed in (0, 1))
        >>> images = {"image": jnp.zeros((4, 2, 2, 1)), "label": [0, 1, 0, 1]}
        >>> curve = connect(jax.random.key(2), network, a, b, images, num_steps=2)
        >>> network.apply(curve(0.5), images["image"]).shape
        (4, 2)

    Source: Garipov et al. 2018, equation 2; Zhao et al. 2020, section 3.
    """
    key = check_key(key)
    fields.check("kind", kind, fields.choice(*KINDS))
    fields.check("learning_rate", learning_rate, fields.number(0, 1e3, above=True))
    refuse_torch("network", network)
    if not isinstance(network, Network):
        raise UserError(
            "network must be a mcjax.models.network.Network; make one by from_linen or from_apply"
        )
    for name, variables in (("start", start), ("end", end)):
        check_variables(name, variables, network)
    check_same_structure(start, end)
    (_, first), (_, last) = (as_network(network, variables) for variables in (start, end))
    given, chosen = on_device(network, first, images), budget_of(budget)
    curve = train_curve(
        starting_curve(key, network, CurveOptions(kind, num_bends), first, last),
        first["batch_stats"],
        given,
        loss_fn=curve_loss(network, KINDS[kind], weight_decay=chosen.weight_decay),
        learning_rate=learning_rate,
        budget=chosen,
        fit_fn=lambda training: fit_with_progress(key, training, name="curve", verbose=verbose),
    )
    return CurveWithStats(
        curve,
        first["batch_stats"],
        last["batch_stats"],
        given["image"] if network.has_batch_stats else None,
        network.apply_train,
    )
