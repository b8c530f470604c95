"""A curve between two networks as a stage: trained once, then restored."""

import functools

import jax
from ml_collections import ConfigDict

from mcjax.core.tree import PyTree
from mcjax.curves import Curve
from mcjax.data.batches import Batch
from mcjax.experiments.stages.training import budget, train_stage
from mcjax.runs.run import Run
from mcjax.runs.stage import Found, stage
from mcjax.training import LossFn
from mcjax.training.curve import CurveOptions, train_curve


def curve_options(options: ConfigDict) -> CurveOptions:
    """The curve that `config.curve` describes."""
    return CurveOptions(options.kind, options.num_bends, options.init, options.num_strata)


def curve_stage(
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
    """Trains a curve, or restores it.

    Args:
        run: The run, or a seed's part of it.
        name: The stage, `run.part` included.
        key: Random key of t and of the batches.
        curve: The curve before training.
        batch_stats: Running statistics of the first end.
        images: Training images, on the devices.
        loss_fn: Objective of the curve, including the weight decay.
        options: Epochs, batch size, learning rate, momentum, such as `config.curve`.
        fix_start: Keep the first end as it is.
        fix_end: Keep the second end as it is.

    Returns:
        The trained curve. Its checkpoint holds all its control points.

    Raises:
        UserError: The checkpoint is damaged or belongs to another run; the loss is not finite.
    """

    def compute() -> Found:
        trained = train_curve(
            curve,
            batch_stats,
            images,
            loss_fn=loss_fn,
            learning_rate=options.learning_rate,
            budget=budget(run, options, len(images["label"])),
            fit_fn=functools.partial(train_stage, run, name, key, checkpoint=False),
            fix_start=fix_start,
            fix_end=fix_end,
        )
        return control_points(trained), {}

    return type(curve)(**stage(run, name, control_points(curve), compute)[0])


def control_points(curve: Curve) -> dict[str, PyTree]:
    """A curve's checkpoint: {"start", "bends", "end"}."""
    return {"start": curve.start, "bends": curve.bends, "end": curve.end}
