"""The training of a curve as a stage: its bends are found once, and read from then on."""

import jax
from ml_collections import ConfigDict

from mcjax.core.tree import PyTree
from mcjax.curves import Curve
from mcjax.data import augmentation
from mcjax.data.batches import Batch
from mcjax.experiments.stages.training import fit
from mcjax.runs.run import Run
from mcjax.runs.stage import Found, stage
from mcjax.training import LossFn
from mcjax.training.objectives import split_curve


def train_curve(
    run: Run,
    name: str,
    key: jax.Array,
    curve: Curve,
    batch_stats: PyTree,
    images: Batch,
    *,
    loss_fn: LossFn,
    options: ConfigDict,
    fix_start: bool = True,
    fix_end: bool = True,
) -> Curve:
    """Trains a curve's bends and freed ends, or reads them.

    Args:
        run: The run, or a seed's part of it.
        name: The stage's, `run.part` included.
        key: Of the draws of t and of the batches.
        curve: Where to start.
        batch_stats: Of the first end.
        images: What it is trained on, on the devices.
        loss_fn: Of the curve; the weight decay is in it.
        options: Epochs, batch size, learning rate, momentum: `config.curve` say.
        fix_start: Keep the first end as it is.
        fix_end: Likewise the second.

    Returns:
        The trained curve. Its checkpoint holds all its control points.

    Raises:
        UserError: The checkpoint is damaged or another run's; the loss is not finite.
    """
    points = {"start": curve.start, "bends": curve.bends, "end": curve.end}
    trained, fixed = split_curve(curve, fix_start=fix_start, fix_end=fix_end)

    def compute() -> Found:
        if not jax.tree.leaves(trained):
            return points, {}
        state = fit(
            run,
            name,
            key,
            trained,
            batch_stats,
            fixed,
            images,
            loss_fn=loss_fn,
            options=options,
            decay_in_optimizer=False,
            augment_fn=augmentation.get(run.config.data.augmentation),
        )
        return {**fixed, **state.params}, {}

    return type(curve)(**stage(run, name, points, compute)[0])
