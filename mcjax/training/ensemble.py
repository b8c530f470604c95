"""Ensemble predictions and fast geometric ensembling (FGE)."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from mcjax.attacks.images.ensemble_logits import log_mean_softmax
from mcjax.core.errors import UserError
from mcjax.core.tree import PyTree
from mcjax.data.batches import Batch
from mcjax.training import Augmentation, LossFn, init_state, train


def member_logits(
    apply_fn: Callable[[PyTree, jax.Array], jax.Array], members: PyTree, x: jax.Array
) -> jax.Array:
    """The logits of every member.

    Args:
        apply_fn: `apply_fn(variables, x) -> logits [B, classes]`.
        members: Variables stacked along a leading axis, leaves [T, ...].
        x: Images, [B, H, W, C].

    Returns:
        [T, B, classes].

    Example:
        >>> members = jnp.array([[[0.0, 10.0]], [[10.0, 0.0]]])
        >>> member_logits(lambda w, x: x @ w, members, jnp.ones((1, 1))).tolist()
        [[[0.0, 10.0]], [[10.0, 0.0]]]
    """
    return jax.lax.map(lambda variables: apply_fn(variables, x), members)


def log_mean_probabilities(
    apply_fn: Callable[[PyTree, jax.Array], jax.Array], members: PyTree, x: jax.Array
) -> jax.Array:
    """Log of the ensemble's mean probabilities: log (1/T) sum_i softmax(f_i(x)).

    Args:
        apply_fn: `apply_fn(variables, x) -> logits [B, classes]`.
        members: Variables stacked along a leading axis, leaves [T, ...].
        x: Images, [B, H, W, C].

    Returns:
        Log-probabilities, [B, classes]. Attack `ensemble_logits` of `member_logits` instead: the gradient of
        these underflows where the members are confident.

    Example:
        >>> members = jnp.array([[[0.0, 10.0]], [[10.0, 0.0]]])
        >>> answer = log_mean_probabilities(lambda w, x: x @ w, members, jnp.ones((1, 1)))
        >>> jnp.exp(answer).round(3)
        Array([[0.5, 0.5]], dtype=float32)
    """
    return log_mean_softmax(member_logits(apply_fn, members, x))


def cyclic_schedule(high: float, low: float, cycle: int) -> optax.Schedule:
    """A triangular learning rate: it falls from high to low in half a cycle, then rises again.

        u = ((step mod cycle) + 1) / cycle;  (1 - 2u) high + 2u low for u <= 1/2, mirrored after

    Args:
        high: The rate between cycles.
        low: The rate in the middle of each cycle.
        cycle: Steps per cycle, even.

    Returns:
        The rate as a function of the step.

    Raises:
        UserError: cycle is odd or less than 2.

    Example:
        >>> rate = cyclic_schedule(1.0, 0.0, 4)
        >>> [float(rate(step)) for step in range(5)]
        [0.5, 0.0, 0.5, 1.0, 0.5]

    Source: Garipov et al. 2018, section 4.
    """
    if cycle < 2 or cycle % 2:
        raise UserError(f"cycle is {cycle}; give an even number of steps, at least 2")

    def rate(step: jax.typing.ArrayLike) -> jax.Array:
        u = (jnp.mod(step, cycle) + 1) / cycle
        down = jnp.minimum(2 * u, 2 - 2 * u)  # 0 at high, 1 at low
        return high + (low - high) * down

    return rate


@functools.lru_cache(64)  # equal arguments return the same object, hence one compiled program
def _optimizer(high: float, low: float, cycle: int, momentum: float, weight_decay: float):
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.sgd(cyclic_schedule(high, low, cycle), momentum=momentum),
    )


def fast_geometric_ensemble(
    key: jax.Array,
    variables: PyTree,
    examples: Batch,
    *,
    loss_fn: LossFn,
    num_members: int,
    cycle: int,
    high: float = 0.05,
    low: float = 5e-4,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    batch_size: int = 128,
    augment_fn: Augmentation,
) -> list[PyTree]:
    """Trains a trained network further with a cyclic rate; keeps a member in the middle of each cycle.

    Args:
        key: Random key.
        variables: A trained network, {"params", "batch_stats"}.
        examples: The training images, on the device.
        loss_fn: The objective, e.g. `endpoint_loss(network)`.
        num_members: Number of members.
        cycle: Steps per cycle, even; usually a few epochs.
        high: See `cyclic_schedule`.
        low: Likewise.
        momentum: SGD's momentum.
        weight_decay: Weight decay on every parameter.
        batch_size: Images per step.
        augment_fn: `augment_fn(key, image) -> image`.

    Returns:
        The members' variables, in the order of training.

    Raises:
        UserError: cycle is odd or less than 2; num_members is less than 1.

    Source: Garipov et al. 2018, section 4 (fast geometric ensembling).
    """
    if num_members < 1:
        raise UserError(f"num_members is {num_members}; give at least 1")
    cyclic_schedule(high, low, cycle)  # checks the cycle
    optimizer = _optimizer(high, low, cycle, momentum, weight_decay)
    state = init_state(variables["params"], variables.get("batch_stats", {}), optimizer)
    members = []
    # Dispatches of half a cycle end alternately at the low and the high rate.
    for new, _ in train(
        key,
        state,
        None,
        examples,
        num_steps=num_members * cycle - cycle // 2,
        steps_per_dispatch=cycle // 2,
        loss_fn=loss_fn,
        optimizer=optimizer,
        batch_size=batch_size,
        augment_fn=augment_fn,
    ):
        if int(new.step) % cycle:
            kept = {"params": new.params, "batch_stats": new.batch_stats}
            members.append(jax.tree.map(lambda w: jnp.array(w, copy=True), kept))
    return members
