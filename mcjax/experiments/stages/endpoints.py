"""Trains the networks of an experiment, or restores trained ones."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mcjax.core.keys import stream
from mcjax.core.tree import PyTree
from mcjax.data.batches import Batch
from mcjax.experiments.stages.training import budget, train_stage
from mcjax.runs.checkpoint import exists
from mcjax.runs.run import Run
from mcjax.runs.stage import forget_partial, keep
from mcjax.training import LossFn
from mcjax.training.fit import Training


def train_network(run: Run, name: str, images: Batch, loss_fn: LossFn) -> PyTree:
    """Trains a network from its own seed, as `config.endpoint` says.

    Args:
        run: The run, or a seed's part of it.
        name: Name of its key and, after `run.part`, of its checkpoint.
        images: The training images, on the devices.
        loss_fn: The objective.

    Returns:
        Its variables, {"params", "batch_stats"}.
    """
    key, options = run.key(name), run.config.endpoint
    start = run.network.init(stream(key, "init"))
    training = Training(
        start["params"],
        start.get("batch_stats", {}),
        images,
        loss_fn,
        options.learning_rate,
        budget(run, options, len(images["label"])),
    )
    return train_stage(run, run.part + name, key, training, metadata=_kept(run))


def _kept(run: Run) -> dict[str, Any]:
    return {"image_shape": run.dataset.image_shape}  # mcjax.repair reads it


def train_side_by_side(
    networks: Sequence[tuple[Run, str]], images_fn: Callable[[Run], Batch], loss_fn: LossFn
) -> None:
    """Trains networks side by side on one device, by vmap, if `config.run.side_by_side`.

    Each equals the result of `train_network` for the same run and name up to rounding, and
    `train_network` restores it. This is faster for small networks that do not fill an accelerator.

    Args:
        networks: Pairs of a run (or a seed's part of it) and a name; trained ones are left out.
        images_fn: The training images of a run, on the device.
        loss_fn: The objective of all.
    """
    if not networks or not networks[0][0].config.run.side_by_side:
        return
    missing = [(run, name) for run, name in networks if not exists(run.checkpoint(run.part + name))]
    sets = [images_fn(part) for part, _ in missing]
    if len(missing) < 2 or len({len(images["label"]) for images in sets}) > 1:
        return
    run = missing[0][0]
    options = run.config.endpoint
    stages = [part.part + name for part, name in missing]
    together = f"{stages[0]}_and_{len(stages) - 1}_more"
    keys = [part.key(name) for part, name in missing]
    starts = [run.network.init(stream(key, "init")) for key in keys]
    training = Training(
        _stack([start["params"] for start in starts]),
        _stack([start.get("batch_stats", {}) for start in starts]),
        sets[0] if all(images is sets[0] for images in sets) else _stack(sets),
        loss_fn,
        options.learning_rate,
        budget(run, options, len(sets[0]["label"])),
        stacked=True,
    )
    trained = train_stage(
        run, together, jnp.stack(keys), training, together=stages, checkpoint=False
    )
    for i, (part, _) in enumerate(missing):
        keep(part, stages[i], jax.tree.map(lambda v, i=i: v[i], trained), _kept(part))
    forget_partial(run, together)


def _stack(trees: Sequence[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
