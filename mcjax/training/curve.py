"""The curve between two networks, before and after its training."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax

from mcjax.core.keys import stream
from mcjax.core.tree import PyTree
from mcjax.curves import KINDS, Curve
from mcjax.data.batches import Batch
from mcjax.models.network import Network
from mcjax.training.fit import Budget, Training
from mcjax.training.loop import LossFn
from mcjax.training.objectives import split_curve


@dataclasses.dataclass(frozen=True)
class CurveOptions:
    """The curve that a path is.

    Args:
        kind: "bezier" or "polychain".
        num_bends: Bends of the curve.
        init: "line" puts them on the straight line before training, "random" at new networks.
        num_strata: See `mcjax.training.objectives.curve_loss`.
    """

    kind: str = "bezier"
    num_bends: int = 1
    init: str = "line"
    num_strata: int = 1

    @property
    def curve_type(self) -> type[Curve]:
        """`Bezier` or `PolyChain`."""
        return KINDS[self.kind]


def starting_curve(
    key: jax.Array, network: Network, options: CurveOptions, start: PyTree, end: PyTree
) -> Curve:
    """The untrained curve between two networks.

    Args:
        key: The curve's key; bends that start at random have streams of it.
        network: The network.
        options: What the curve is.
        start: The first network's variables.
        end: The second's.

    Returns:
        A curve whose bends lie on the straight line, or are new networks where `options.init` is
        "random".
    """

    def random_bend(j: int) -> PyTree:
        return network.init(stream(key, "init", j))["params"]

    return options.curve_type.connect(
        start["params"],
        end["params"],
        options.num_bends,
        init_fn=random_bend if options.init == "random" else None,
    )


def train_curve(
    curve: Curve,
    batch_stats: PyTree,
    images: Batch,
    *,
    loss_fn: LossFn,
    learning_rate: float,
    budget: Budget,
    fit_fn: Callable[[Training], dict[str, PyTree]],
    fix_start: bool = True,
    fix_end: bool = True,
    beside: Mapping[str, PyTree] | None = None,
    part: str = "",
) -> Curve:
    """Trains a curve's bends, and its freed ends.

    Args:
        curve: The curve before training.
        batch_stats: Running statistics of the first end.
        images: The training images, on the device.
        loss_fn: The objective, `curve_loss` say; the weight decay is in it.
        learning_rate: Of the first half of the steps.
        budget: Steps, batches, momentum, augmentation.
        fit_fn: Runs the training: `mcjax.training.fit.fit` with a key, or a stage of a run.
        fix_start: Keep the first end as it is.
        fix_end: Keep the second end as it is.
        beside: What else the objective needs; its `fixed` is then {"curve": ..., **beside} instead
            of the curve's fixed points alone.
        part: Name of this training, for a method that trains several curves.

    Returns:
        The trained curve; the same curve if nothing of it is free.
    """
    trained, fixed = split_curve(curve, fix_start=fix_start, fix_end=fix_end)
    if not _has_leaves(trained):
        return curve
    training = Training(
        trained,
        batch_stats,
        images,
        loss_fn,
        learning_rate,
        budget,
        fixed=fixed if beside is None else {"curve": fixed, **beside},
        decay_in_loss=True,
        part=part,
    )
    return type(curve)(**fixed, **fit_fn(training)["params"])


def _has_leaves(parts: dict[str, Any]) -> bool:
    return any(part != () for part in parts.values())
