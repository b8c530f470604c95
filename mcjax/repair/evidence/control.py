"""The control: the suspect without the backdoor, made without knowing a trigger.

A class can be cheap to reach by nature. A natural trigger draws what the class looks like, so it works
on the control as well; a planted one does nothing there.

The control is the middle of a path from the suspect to its un-aligned copy, trained on clean images: it
is nearly as accurate, and far from the weights of both. Where there is no such path, it is the suspect trained
away from its own last layer (`mcjax.repair.away`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mcjax import alignment
from mcjax.core.errors import Diverged, Unsuitable
from mcjax.core.keys import stream
from mcjax.core.tree import PyTree
from mcjax.curves.batch_stats import CurveWithStats
from mcjax.data.batches import Batch
from mcjax.data.splits import Examples
from mcjax.models.network import Network
from mcjax.repair import away
from mcjax.repair.bonafide import num_right
from mcjax.training.curve import CurveOptions, starting_curve, train_curve
from mcjax.training.fit import Budget, Training
from mcjax.training.objectives import curve_loss

BATCH_SIZE = 64
LEARNING_RATE = 0.05
"""Of the path."""

CURVE = CurveOptions()

THRESHOLDS = {"path": 2.4, "away": 3.3}
"""The anomaly from which a trigger is evidence of a backdoor, by the kind of the control.

Path: one clean network in 100 would reach it, if the largest anomalies of networks were normal: their
mean and spread are those of 20 networks of digits, the clean ones of odd seeds, with two paths each
(benchmarks/verdict.md and benchmarks/signature.md). Away: set by hand, so that none of these and none of
eight clean networks of Fashion-MNIST reaches it (benchmarks/verdict_away.md and verdict_fashion_away.md).
"""

_at = jax.jit(lambda points, t: points(t))  # here, so that all controls share the program

FitFn = Callable[[Training], dict[str, PyTree]]


class Control(NamedTuple):
    """A suspect's control, or why no control could be made.

    Attributes:
        variables: Its variables, of the suspect's structure; None without a control.
        kind: Name of `CONTROLS`; "" without a control.
        why_not: Why no control could be made; else "".
    """

    variables: PyTree | None
    kind: str = ""
    why_not: str = ""


def make_control(
    key: jax.Array,
    network: Network,
    suspect: PyTree,
    images: Batch,
    bonafide: Examples,
    *,
    num_steps: int,
    fit_fn: FitFn,
    kinds: Sequence[str] = ("path", "away"),
) -> Control:
    """A suspect's control, trained on clean images.

    Args:
        key: Random key of its start.
        network: The network.
        suspect: The suspect's variables, {"params", "batch_stats"}.
        images: The clean images, on the device.
        bonafide: The same on the host.
        num_steps: Steps of `BATCH_SIZE` images.
        fit_fn: Runs a training: `mcjax.training.fit.fit` with a key, or a stage of a run. The
            training's `part` is the kind of the control.
        kinds: Names of `CONTROLS`, tried in order; the first `usable` one is returned.

    Returns:
        The control. None can be made, for example, if the network has no channels to permute and its last
        layer is not known (`mcjax.repair.away.last_kernel`), or if the trainings diverged.
    """
    reasons = []
    budget = Budget(num_steps=num_steps, batch_size=BATCH_SIZE)
    for kind in kinds:
        try:
            control = CONTROLS[kind](key, network, suspect, images, budget, fit_fn)
        except (Unsuitable, Diverged) as error:
            reasons.append(str(error).partition(";")[0])
            continue
        if usable(network, control, suspect, bonafide):
            return Control(control, kind)
        reasons.append(f"after {num_steps} steps it had less than half of the suspect's accuracy")
    return Control(None, why_not=" and ".join(dict.fromkeys(reasons)))


def middle_of_path(
    key: jax.Array,
    network: Network,
    suspect: PyTree,
    images: Batch,
    budget: Budget,
    fit_fn: FitFn,
) -> PyTree:
    """The middle, t = 1/2, of a path from a suspect to its un-aligned copy.

    Args:
        key: Random key.
        network: The network.
        suspect: The suspect's variables.
        images: The clean images, on the device.
        budget: Of the training.
        fit_fn: Runs it.

    Returns:
        The variables at t = 1/2.

    Raises:
        Unsuitable: No channels can be permuted.
        Diverged: The loss is not finite.

    Source: the path, Zhao et al. 2020; its use as a control is mcjax's own.
    """
    points = path_to_unaligned_copy(key, network, suspect, images, budget, fit_fn)
    return {"batch_stats": {}, **_at(points, jnp.float32(0.5))}


def path_to_unaligned_copy(
    key: jax.Array,
    network: Network,
    suspect: PyTree,
    images: Batch,
    budget: Budget,
    fit_fn: FitFn,
) -> CurveWithStats:
    """The points of a path with one bend from a suspect to its un-aligned copy, trained on clean images.

    Args:
        key: Random key.
        network: The network.
        suspect: The suspect's variables.
        images: The clean images, on the device; BatchNorm's statistics come from them.
        budget: Of the training.
        fit_fn: Runs it.

    Returns:
        A callable pytree: `points(t)` gives the variables of a whole network.

    Raises:
        Unsuitable: No channels can be permuted.
        Diverged: The loss is not finite.
    """
    spec = alignment.permutation_spec(network.apply, suspect, images["image"].shape[1:])
    copy = alignment.unaligned_copy(stream(key, "unaligned"), spec, network.apply, suspect)
    curve = train_curve(
        starting_curve(key, network, CURVE, suspect, copy),
        suspect["batch_stats"],
        images,
        loss_fn=curve_loss(network, CURVE.curve_type, weight_decay=budget.weight_decay),
        learning_rate=LEARNING_RATE,
        budget=budget,
        fit_fn=fit_fn,
        part="path",
    )
    stats_from = images["image"] if network.has_batch_stats else None
    return CurveWithStats(
        curve, suspect["batch_stats"], copy["batch_stats"], stats_from, network.apply_train
    )


def trained_away(
    key: jax.Array,
    network: Network,
    suspect: PyTree,
    images: Batch,
    budget: Budget,
    fit_fn: FitFn,
) -> PyTree:
    """A suspect trained away from its own last layer.

    Args:
        key: Random key of the start.
        network: The network.
        suspect: The suspect's variables.
        images: The clean images, on the device.
        budget: Of the training.
        fit_fn: Runs it.

    Returns:
        The variables after the training.

    Raises:
        Unsuitable: The network's last layer is not known.
        Diverged: The loss is not finite.

    Source: D3 (ICCV 2025, arXiv 2411.09585); its use as a control is mcjax's own.
    """
    training = away.away(stream(key, "init"), network, suspect, images)
    return fit_fn(
        Training(
            training.params,
            suspect["batch_stats"],
            images,
            training.loss_fn,
            away.LEARNING_RATE,
            budget,
            training.kernel,
            project_fn=training.project_fn,
            part="away",
        )
    )


CONTROLS: Mapping[str, Callable[..., PyTree]] = {"path": middle_of_path, "away": trained_away}
"""How a control is made, by kind."""


def usable(network: Network, control: PyTree, suspect: PyTree, images: Examples) -> bool:
    """Whether a control still knows its task: half of the suspect's accuracy, or more.

    A network of one layer, say, is trained away from all that it knew.

    Args:
        network: The network.
        control: The control's variables.
        suspect: The suspect's variables.
        images: Clean images.
    """
    kept, had = (num_right(network, v, {"clean": images})[0] for v in (control, suspect))
    return 2 * kept >= had
