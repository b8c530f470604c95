"""SGD training with many steps per dispatch, traced once.

The data set is kept on the device; each step selects its images by index, augments them and takes
one optimizer step. Images, t and noise depend only on the key and the step number, so an interrupted
run resumes bit for bit.

With a mesh, each batch is sharded and everything else is replicated. The step is written for the
whole batch and XLA partitions it: gradients and BatchNorm's batch means become sums over all devices,
and random numbers are the same as on one device.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mcjax.core.bound_functions import FewPrograms
from mcjax.core.keys import stream
from mcjax.core.sharding import replicate
from mcjax.core.tree import PyTree
from mcjax.data.batches import Batch, epoch_indices, to_unit


class TrainState(NamedTuple):
    """The state of a training run.

    Attributes:
        step: Number of steps taken, int32.
        params: The trained parameters; for a curve {"bends": ...} and any endpoint that is trained.
        batch_stats: BatchNorm's running statistics, or {}.
        opt_state: The optimizer's state.
    """

    step: jax.Array
    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree


class StepMetrics(NamedTuple):
    """Metrics of a step's batch, before the update.

    Attributes:
        loss: The objective, including regularisation.
        cross_entropy: Mean over the batch, in nats.
        accuracy: Fraction of the batch.
    """

    loss: jax.Array
    cross_entropy: jax.Array
    accuracy: jax.Array


Augmentation = Callable[[jax.Array, jax.Array], jax.Array]
"""`augment_fn(key, image) -> image`, one of `mcjax.data.augmentation`."""

LossFn = Callable[
    [jax.Array, jax.Array, PyTree, PyTree, PyTree, Batch],
    tuple[jax.Array, tuple[PyTree, StepMetrics]],
]
"""`loss_fn(key, step, params, batch_stats, fixed, batch) -> loss, (batch_stats, metrics)`."""

ProjectFn = Callable[[PyTree, PyTree], PyTree]
"""`project_fn(params, fixed) -> params`, the parameters that a step may end at."""


def schedule(learning_rate: float, num_steps: int) -> optax.Schedule:
    """Constant for half of the steps, then linear to 1 % of it at 0.9 of the steps, then constant.

    Args:
        learning_rate: The rate in the first half.
        num_steps: Total number of steps.

    Returns:
        The rate as a function of the step.

    Example:
        >>> [round(float(schedule(1.0, 100)(i)), 3) for i in (0, 50, 70, 90, 99)]
        [1.0, 1.0, 0.505, 0.01, 0.01]

    Source: Garipov et al. 2018, appendix A.1.
    """
    return optax.linear_schedule(
        learning_rate,
        0.01 * learning_rate,
        transition_steps=max(1, round(0.4 * num_steps)),
        transition_begin=round(0.5 * num_steps),
    )


@functools.lru_cache(64)  # equal arguments return the same object, hence one compiled program
def sgd(
    learning_rate: float,
    num_steps: int,
    *,
    momentum: float,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> optax.GradientTransformation:
    """SGD with momentum on the gradient plus weight_decay * w, with `schedule`.

    Args:
        learning_rate: The rate in the first half.
        num_steps: Total number of steps.
        momentum: Momentum coefficient.
        weight_decay: Weight decay on every parameter; 0 for a curve, whose loss includes the term.
        nesterov: Use Nesterov momentum.

    Returns:
        The optimizer.
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay) if weight_decay else optax.identity(),
        optax.sgd(schedule(learning_rate, num_steps), momentum=momentum, nesterov=nesterov),
    )


def init_state(
    params: PyTree, batch_stats: PyTree, optimizer: optax.GradientTransformation
) -> TrainState:
    """The state before the first step."""
    return TrainState(jnp.int32(0), params, batch_stats, optimizer.init(params))


@functools.partial(
    FewPrograms,
    static=(
        "capacity",
        "loss_fn",
        "optimizer",
        "batch_size",
        "augment_fn",
        "mesh",
        "project_fn",
    ),
    donate_argnames=("state",),
)
def train_steps(
    key: jax.Array,
    state: TrainState,
    fixed: PyTree,
    examples: Batch,
    num_steps: jax.Array,
    *,
    capacity: int,
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    augment_fn: Augmentation,
    mesh: Mesh | None = None,
    project_fn: ProjectFn | None = None,
) -> tuple[TrainState, StepMetrics]:
    """Takes num_steps steps in one dispatch.

    num_steps is traced, so a shorter last dispatch does not trigger a recompilation.

    Args:
        key: The key of the whole training, the same at every call. Keys [S] train S networks side by
            side (`jax.vmap`): state, fixed and the returned metrics then have a leading axis S too.
        state: The initial state; donated.
        fixed: Other inputs of the loss: a curve's fixed endpoints, or None.
        examples: The whole data set, "image" [N, H, W, C] uint8 or in [0, 1], "label" [N]. Networks
            side by side share it or have one each: "image" [S, N, H, W, C], "label" [S, N].
        num_steps: Number of steps, at most `capacity`.
        capacity: Length of the returned metrics.
        loss_fn: The objective; see `LossFn`.
        optimizer: From `sgd`.
        batch_size: Images per step.
        augment_fn: `augment_fn(key, image) -> image`.
        mesh: Devices, with an axis "batch", over which each batch is sharded; all arguments are
            replicated on them. None for one device.
        project_fn: Applied to the parameters after each update; None leaves them.

    Returns:
        The final state, and the metrics of each step, [capacity], zero beyond num_steps.
    """
    if key.ndim:
        step_together = functools.partial(
            train_steps,
            capacity=capacity,
            loss_fn=loss_fn,
            optimizer=optimizer,
            batch_size=batch_size,
            augment_fn=augment_fn,
            project_fn=project_fn,
        )
        axes = (0, 0, 0, 0 if examples["label"].ndim == 2 else None, None)
        return jax.vmap(step_together, axes)(key, state, fixed, examples, num_steps)

    def spread(tree: PyTree, *axes: str) -> PyTree:
        if mesh is None:
            return tree
        return lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec(*axes)))

    first = state.step
    indices = epoch_indices(
        stream(key, "shuffle"),
        first_step=first,
        num_steps=capacity,
        batch_size=batch_size,
        num_examples=len(examples["label"]),
    )

    def step(i: jax.Array, carry: tuple[TrainState, StepMetrics]) -> tuple[TrainState, StepMetrics]:
        state, history = carry
        batch = spread({name: value[indices[i]] for name, value in examples.items()}, "batch")
        image = augment_fn(stream(key, "augment", state.step), batch["image"])
        batch["image"] = to_unit(image)
        grads, (batch_stats, metrics) = jax.grad(loss_fn, argnums=2, has_aux=True)(
            key, state.step, state.params, state.batch_stats, fixed, batch
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        if project_fn is not None:
            params = project_fn(params, fixed)
        history = jax.tree.map(lambda h, m: h.at[i].set(m), history, metrics)
        return spread(TrainState(state.step + 1, params, batch_stats, opt_state)), spread(history)

    history = StepMetrics(*(jnp.zeros(capacity, jnp.float32) for _ in StepMetrics._fields))
    return lax.fori_loop(0, num_steps, step, (state, history))


def train(
    key: jax.Array,
    state: TrainState,
    fixed: PyTree,
    examples: Batch,
    *,
    num_steps: int,
    steps_per_dispatch: int,
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    augment_fn: Augmentation,
    mesh: Mesh | None = None,
    project_fn: ProjectFn | None = None,
) -> Iterator[tuple[TrainState, dict[str, Any]]]:
    """Trains for num_steps steps, one dispatch after another.

    Args:
        key: The key of the whole training; keys [S] for networks side by side, as in `train_steps`.
        state: The state to start or resume from; not modified.
        fixed: Other inputs of the loss.
        examples: The whole data set, as in `train_steps`.
        num_steps: Total number of steps, including those already taken.
        steps_per_dispatch: Steps between two yields; dispatches end at its multiples.
        loss_fn: The objective.
        optimizer: From `sgd`.
        batch_size: Images per step.
        augment_fn: `augment_fn(key, image) -> image`.
        mesh: Devices of all processes, with an axis "batch", over which each batch is sharded. The
            batch size must be a multiple of their number. None for one device.
        project_fn: Applied to the parameters after each update; None leaves them.

    Yields:
        The state after each dispatch (donated by the next one) and the mean metrics of its steps:
        floats, or [S] for networks side by side. Yields nothing if all steps have been taken.
    """
    # Copied because train_steps donates the state and the caller may still use it.
    state = jax.tree.map(lambda x: jnp.array(x, copy=True), state)
    if mesh is not None:
        key, state, fixed, examples = replicate((key, state, fixed, examples), mesh)
    step = int(state.step.ravel()[0])
    capacity = min(steps_per_dispatch, num_steps)
    while step < num_steps:
        n = min(capacity - step % capacity, num_steps - step)
        state, metrics = train_steps(
            key,
            state,
            fixed,
            examples,
            jnp.int32(n),
            capacity=capacity,
            loss_fn=loss_fn,
            optimizer=optimizer,
            batch_size=batch_size,
            augment_fn=augment_fn,
            mesh=mesh,
            project_fn=project_fn,
        )
        step += n
        history = jax.device_get(metrics)._asdict()
        means = {k: np.mean(v[..., :n], axis=-1, dtype=np.float64) for k, v in history.items()}
        yield state, means if key.ndim else {k: float(v) for k, v in means.items()}
