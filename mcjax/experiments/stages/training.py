"""A training as a stage: restored if it is finished, resumed if it was stopped."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mcjax.core.errors import UserError
from mcjax.core.processes import once, several
from mcjax.core.progress import progress, say
from mcjax.core.sharding import make_mesh
from mcjax.core.tree import PyTree
from mcjax.runs.checkpoint import restore_partial, save_partial
from mcjax.runs.run import Run
from mcjax.runs.stage import due, finished, keep
from mcjax.training.fit import Budget, Training, check_loss
from mcjax.training.loop import train


def num_training_steps(num_epochs: float, num_examples: int, batch_size: int) -> int:
    """Steps in a number of epochs, at least one.

    Raises:
        UserError: More steps than int32 can count.

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


def budget(run: Run, options: ConfigDict, num_examples: int) -> Budget:
    """The budget of a part of the config.

    Args:
        run: The run, whose config names the augmentation.
        options: `config.endpoint` or `config.curve`: num_epochs, batch_size, momentum, ...
        num_examples: Number of training images.
    """
    return Budget(
        num_steps=num_training_steps(options.num_epochs, num_examples, options.batch_size),
        batch_size=options.batch_size,
        momentum=options.momentum,
        nesterov=options.nesterov,
        weight_decay=options.weight_decay,
        augmentation=run.config.data.augmentation,
    )


def train_stage(
    run: Run,
    name: str,
    key: jax.Array,
    training: Training,
    *,
    together: Sequence[str] = (),
    checkpoint: bool = True,
    metadata: Mapping[str, Any] | None = None,
) -> dict[str, PyTree]:
    """Trains to the end and saves a checkpoint, or restores the one of an earlier call.

    A stopped training resumes from its last partial checkpoint, bit for bit.

    Args:
        run: The run, or a seed's part of it.
        name: The stage: its checkpoint and its name in logs, `run.part` included.
        key: The stage's key.
        training: What is trained.
        together: The stages of networks trained side by side, whose keys, parameters and
            statistics are stacked along a first axis.
        checkpoint: Read and keep the finished checkpoint; False leaves that to the caller, whose
            stage holds more than this training.
        metadata: JSON values that the checkpoint keeps too.

    Returns:
        {"params", "batch_stats"} after the last step.

    Raises:
        UserError: The loss is not finite; a checkpoint can't be read or written.
    """
    like = {"params": training.params, "batch_stats": training.batch_stats}
    if checkpoint and (found := finished(run, name, like)):
        return found[0]
    mesh = batch_mesh(run, name, training.budget.batch_size)
    num_steps, identity = training.budget.num_steps, run.identity(name)
    state = training.state()
    state = restore_partial(run.partial(name), state, identity=identity) or state
    step = _step(state)
    for stage in together or (name,):
        run.log.rewind(stage, step)
    if step:
        say(f"{name}: resumes at step {step}")
    saved_at = time.monotonic()
    dispatches = train(
        key,
        state,
        training.fixed,
        training.images,
        steps_per_dispatch=run.config.run.log_every_steps,
        mesh=mesh,
        **training.options,
    )
    with progress(name, num_steps, step, unit="step") as bar:
        for state, means in dispatches:
            taken, step = _step(state) - step, _step(state)
            check_loss(name, step, means, training)
            _log(run, together or (name,), step, means)
            shown = {k: float(np.mean(means[k])) for k in ("loss", "accuracy")}
            images = taken * training.budget.batch_size * len(together or (name,))
            bar.advance(taken, images=images, **shown)
            if step < num_steps and due(saved_at, run.config.run.checkpoint_seconds):
                run.log.flush()
                save_partial(run.partial(name), state, step=step, **identity)
                saved_at = time.monotonic()
    run.log.flush()
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    if mesh is not None or several():
        # Without a mesh each process trained alone, and they need not agree bit for bit.
        here = jax.device_get(variables)
        variables = once(lambda: here)
    if checkpoint:
        keep(run, name, variables, metadata or {})
    return variables


def _step(state: Any) -> int:
    return int(np.ravel(state.step)[0])


def _log(run: Run, stages: Sequence[str], step: int, means: Mapping[str, Any]) -> None:
    for i, stage in enumerate(stages):
        run.log.append(
            stage=stage, step=step, **{k: float(np.ravel(v)[i]) for k, v in means.items()}
        )


def batch_mesh(run: Run, name: str, batch_size: int) -> Mesh | None:
    """The devices that share the batches of a training: all with `run.data_parallel`, else None.

    Raises:
        UserError: The batch can't be divided among them.
    """
    number = run.mesh.size
    if not run.config.run.data_parallel or number == 1:
        return None
    if batch_size % number:
        raise UserError(
            f"{name}: a batch of {batch_size} images can't be divided evenly among {number} devices; "
            f"use a multiple of {number}, or config.run.data_parallel=False"
        )
    return make_mesh(run.mesh.devices, "batch")
