"""The training loop of a stage: dispatches, progress, checkpoints, and a stop at NaN."""

import functools
import time
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mcjax.core.errors import UserError
from mcjax.core.files import delete
from mcjax.core.processes import once, several
from mcjax.core.progress import progress, say
from mcjax.core.sharding import make_mesh
from mcjax.core.tree import PyTree
from mcjax.data.batches import Batch
from mcjax.runs.checkpoint import restore_partial, save_partial
from mcjax.runs.run import Run
from mcjax.training import Augmentation, LossFn, TrainState, init_state, sgd, train


def num_training_steps(num_epochs: float, num_examples: int, batch_size: int) -> int:
    """Steps in a number of epochs, at least one.

    Raises:
        UserError: More than can be counted in int32.

    Example:
        >>> num_training_steps(2, 1000, 128)
        16
    """
    num_steps = max(1, round(num_epochs * num_examples / batch_size))
    if num_steps >= 2**31:
        raise UserError(
            f"{num_epochs:g} epochs of {num_examples} images are {num_steps:.3g} steps; train for "
            "fewer epochs, or with larger batches"
        )
    return num_steps


def fit(
    run: Run,
    name: str,
    key: jax.Array,
    params: PyTree,
    batch_stats: PyTree,
    fixed: PyTree,
    examples: Batch,
    *,
    loss_fn: LossFn,
    options: ConfigDict,
    decay_in_optimizer: bool,
    augment_fn: Augmentation,
    names: Sequence[str] | None = None,
) -> TrainState:
    """Trains to the end, from the last checkpoint if there is one, and leaves a checkpoint behind.

    Args:
        run: The run.
        name: The stage's name, in logs and under checkpoints/.partial.
        key: The stage's key.
        params: Where to start.
        batch_stats: The network's first running statistics.
        fixed: What the loss needs beside the parameters.
        examples: The training images, on the devices.
        loss_fn: The objective.
        options: The config's part: num_epochs or num_steps, batch_size, learning_rate, ...
        decay_in_optimizer: Whether the weight decay is the optimizer's (else the loss has it).
        augment_fn: The augmentation.
        names: The stages in the log of networks trained side by side, whose keys, parameters and
            statistics stand along a first axis; None for one network.

    Returns:
        The state after the last step.

    Raises:
        UserError: The loss is not finite; a checkpoint can't be read or written.
    """
    o = options
    mesh = batch_mesh(run, name, o.batch_size)
    num_steps = o.get("num_steps") or num_training_steps(
        o.num_epochs, examples["label"].shape[-1], o.batch_size
    )
    optimizer = sgd(
        o.learning_rate,
        num_steps,
        momentum=o.momentum,
        nesterov=o.nesterov,
        weight_decay=o.weight_decay if decay_in_optimizer else 0.0,
    )
    start = functools.partial(init_state, optimizer=optimizer)
    state = (jax.vmap(start) if names else start)(params, batch_stats)
    identity = run.identity(name)
    state = restore_partial(run.partial(name), state, identity=identity) or state
    step = _step(state)
    for one in names or (name,):
        run.log.rewind(one, step)
    if step:
        say(f"{name}: goes on from step {step}")

    saved_at = time.monotonic()
    dispatches = train(
        key,
        state,
        fixed,
        examples,
        num_steps=num_steps,
        steps_per_dispatch=run.config.run.log_every_steps,
        loss_fn=loss_fn,
        optimizer=optimizer,
        batch_size=o.batch_size,
        augment_fn=augment_fn,
        mesh=mesh,
    )
    with progress(name, num_steps, step, unit="step") as bar:
        for state, means in dispatches:
            n, step = _step(state) - step, _step(state)
            if not np.isfinite(means["loss"]).all():
                raise UserError(
                    f"{name}: the loss became {means['loss']} between steps {step - n} and {step}; "
                    f"lower the learning rate (it is {o.learning_rate})"
                )
            for i, one in enumerate(names or ()):
                run.log.append(stage=one, step=step, **{k: float(v[i]) for k, v in means.items()})
            if not names:
                run.log.append(stage=name, step=step, **means)
            shown = {k: float(np.mean(means[k])) for k in ("loss", "accuracy")}
            bar.advance(n, images=n * o.batch_size * len(names or (name,)), **shown)
            if step < num_steps and due(saved_at, run.config.run.checkpoint_seconds):
                run.log.flush()
                save_partial(run.partial(name), state, step=step, **identity)
                saved_at = time.monotonic()
    run.log.flush()
    if mesh is not None or several():
        # Without a mesh each process trained for itself: that they agree bit for bit nobody promises.
        here = jax.device_get(state)
        state = once(lambda: here)
    return state


def _step(state: TrainState) -> int:
    return int(np.ravel(state.step)[0])


def batch_mesh(run: Run, name: str, batch_size: int) -> Mesh | None:
    """The devices that share the batches of a training: all with `run.data_parallel`, else None.

    Raises:
        UserError: The batch can't be divided among them.
    """
    number = run.mesh.size
    if not run.config.run.get("data_parallel", False) or number == 1:
        return None
    if batch_size % number:
        raise UserError(
            f"{name}: a batch of {batch_size} images can't be divided evenly among {number} devices; "
            f"use a multiple of {number}, or --config.run.data_parallel=False"
        )
    return make_mesh(run.mesh.devices, "batch")


def due(since: float, seconds: float) -> bool:
    """Whether so many seconds have gone by, on the first process's clock."""
    return once(lambda: time.monotonic() - since >= seconds)


def forget_partial(run: Run, name: str) -> None:
    """Deletes what a finished stage no longer needs."""
    delete(run.partial(name))
