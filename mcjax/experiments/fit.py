"""The training loop of a stage: dispatches, progress, checkpoints, and a stop at NaN."""

import shutil
import time

import jax
import numpy as np
from ml_collections import ConfigDict

from mcjax.checkpoint import restore_partial, save_partial
from mcjax.errors import UserError
from mcjax.experiments.run import Run
from mcjax.logs import progress, say
from mcjax.losses import Batch
from mcjax.training import Augmentation, LossFn, TrainState, init_state, sgd, train
from mcjax.tree import PyTree


def num_training_steps(num_epochs: float, num_examples: int, batch_size: int) -> int:
    """Steps in a number of epochs, at least one.

    Example:
        >>> num_training_steps(2, 1000, 128)
        16
    """
    return max(1, round(num_epochs * num_examples / batch_size))


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

    Returns:
        The state after the last step.

    Raises:
        UserError: The loss is not finite; a checkpoint can't be read or written.
    """
    o = options
    num_steps = o.get("num_steps") or num_training_steps(
        o.num_epochs, len(examples["label"]), o.batch_size
    )
    optimizer = sgd(
        o.learning_rate,
        num_steps,
        momentum=o.momentum,
        nesterov=o.nesterov,
        weight_decay=o.weight_decay if decay_in_optimizer else 0.0,
    )
    state = init_state(params, batch_stats, optimizer)
    state = restore_partial(run.partial(name), state) or state
    step = int(state.step)
    run.log.rewind(name, step)
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
    )
    with progress(name, num_steps, step, unit="step") as bar:
        for state, means in dispatches:
            n, step = int(state.step) - step, int(state.step)
            if not np.isfinite(means["loss"]):
                raise UserError(
                    f"{name}: the loss became {means['loss']} between steps {step - n} and {step}; "
                    f"lower the learning rate (it is {o.learning_rate})"
                )
            run.log.append(stage=name, step=step, **means)
            bar.advance(n, images=n * o.batch_size, loss=means["loss"], accuracy=means["accuracy"])
            due = time.monotonic() - saved_at >= run.config.run.checkpoint_seconds
            if due and step < num_steps:
                save_partial(run.partial(name), state, step=step, config_hash=run.config_hash)
                saved_at = time.monotonic()
    return state


def forget_partial(run: Run, name: str) -> None:
    """Deletes what a finished stage no longer needs."""
    shutil.rmtree(run.partial(name), ignore_errors=True)
