"""Training the networks of an experiment, or reading those that are trained already."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mcjax.core.keys import stream
from mcjax.core.tree import PyTree
from mcjax.data import augmentation
from mcjax.data.batches import Batch
from mcjax.experiments.stages.training import fit, forget_partial
from mcjax.runs.checkpoint import exists
from mcjax.runs.run import Run
from mcjax.runs.stage import Found, keep, stage
from mcjax.training import LossFn


def train_network(run: Run, name: str, examples: Batch, loss_fn: LossFn) -> PyTree:
    """Trains a network from a seed of its own, with the config's `endpoint`.

    Args:
        run: The run, or a seed's part of it.
        name: The network's: of its key and, behind the run's part, of its checkpoint.
        examples: The training images, on the devices.
        loss_fn: The objective.

    Returns:
        Its variables, {"params", "batch_stats"}.
    """
    key = run.key(name)
    like = {"batch_stats": {}, **run.network.init(stream(key, "init"))}

    def compute() -> Found:
        state = fit(
            run,
            run.part + name,
            key,
            like["params"],
            like["batch_stats"],
            None,
            examples,
            loss_fn=loss_fn,
            options=run.config.endpoint,
            decay_in_optimizer=True,
            augment_fn=augmentation.get(run.config.data.augmentation),
        )
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        return variables, _kept(run)

    return stage(run, run.part + name, like, compute)[0]


def _kept(run: Run) -> dict[str, Any]:
    return {"image_shape": run.dataset.image_shape}  # a repair asks what the network takes


def train_side_by_side(
    networks: Sequence[tuple[Run, str]], examples_fn: Callable[[Run], Batch], loss_fn: LossFn
) -> None:
    """Trains networks at once on one device, by vmap, where the config asks for it.

    Each is what `train_network` makes of the same run and name, but for rounding, and that finds it by
    its checkpoint. It serves small networks on an accelerator, which one of them does not fill.

    Args:
        networks: A run (or a seed's part of it) and a name each; those trained already are left out.
        examples_fn: The training images of a run, on the device.
        loss_fn: The objective of all.
    """
    if not networks or not networks[0][0].config.run.get("side_by_side", False):
        return
    missing = [(run, name) for run, name in networks if not exists(run.checkpoint(run.part + name))]
    sets = [examples_fn(part) for part, _ in missing]
    if len(missing) < 2 or len({len(images["label"]) for images in sets}) > 1:
        return
    run = missing[0][0]
    stages = [part.part + name for part, name in missing]
    together = f"{stages[0]}_and_{len(stages) - 1}_more"
    keys = [part.key(name) for part, name in missing]
    starts = [run.network.init(stream(key, "init")) for key in keys]
    shared = all(images is sets[0] for images in sets)
    state = fit(
        run,
        together,
        jnp.stack(keys),
        _stack([start["params"] for start in starts]),
        _stack([start.get("batch_stats", {}) for start in starts]),
        None,
        sets[0] if shared else _stack(sets),
        loss_fn=loss_fn,
        options=run.config.endpoint,
        decay_in_optimizer=True,
        augment_fn=augmentation.get(run.config.data.augmentation),
        names=stages,
    )
    trained = {"params": state.params, "batch_stats": state.batch_stats}
    for i, (part, _) in enumerate(missing):
        keep(part, stages[i], jax.tree.map(lambda v, i=i: v[i], trained), _kept(part))
    forget_partial(run, together)


def _stack(trees: Sequence[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
