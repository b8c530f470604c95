"""Training one network of an experiment, or reading the one that is trained already."""

from mcjax.checkpoint import restore, save
from mcjax.data import augmentation
from mcjax.experiments.fit import fit, forget_partial
from mcjax.experiments.run import Run
from mcjax.keys import stream
from mcjax.losses import Batch
from mcjax.training import LossFn
from mcjax.tree import PyTree


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
    key, stage = run.key(name), run.part + name
    like = {"batch_stats": {}, **run.network.init(stream(key, "init"))}
    if run.checkpoint(stage).exists():
        return restore(run.checkpoint(stage), like)[0]
    state = fit(
        run,
        stage,
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
    image_shape = run.dataset.image_shape  # a repair wants to know what the network takes
    save(run.checkpoint(stage), variables, config_hash=run.config_hash, image_shape=image_shape)
    forget_partial(run, stage)
    return variables
