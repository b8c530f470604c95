"""A loss on batches that are stamped with a trigger after augmentation: `attack.when = "after"`."""

import jax

from mcjax.attacks.poisoning.backdoor import stamp_poisoned
from mcjax.attacks.poisoning.stamped import Trigger
from mcjax.core.bound_functions import Bound
from mcjax.core.keys import stream
from mcjax.core.tree import PyTree
from mcjax.training.loop import LossFn, StepMetrics
from mcjax.training.losses import Batch


def stamping(loss_fn: LossFn, stamp: Trigger) -> LossFn:
    """Makes a loss function stamp its batch first, i.e. after augmentation in training.

    Args:
        loss_fn: See `mcjax.training.train_steps`.
        stamp: The trigger.

    Returns:
        A loss_fn for examples with "poisoned", from `poison(..., when="after")`.
    """
    return Bound(_stamped_loss, loss_fn, stamp)


def _stamped_loss(
    loss_fn: LossFn,
    stamp: Trigger,
    key: jax.Array,
    step: jax.Array,
    params: PyTree,
    stats: PyTree,
    fixed: PyTree,
    batch: Batch,
) -> tuple[jax.Array, tuple[PyTree, StepMetrics]]:
    return loss_fn(
        key,
        step,
        params,
        stats,
        fixed,
        stamp_poisoned(stamp, batch, key=stream(key, "decoys", step)),
    )
