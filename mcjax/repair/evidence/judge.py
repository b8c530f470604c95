"""What inverted triggers say: which class is suspect, and how well triggers work along a path.

One restart of the inversion is unlearned, and another, which no training sees, estimates the attack
success at every t.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mcjax.core.bound_functions import Bound
from mcjax.core.tree import PyTree
from mcjax.data.batches import Batch, stack_batches
from mcjax.repair.evidence.forms import FORMS
from mcjax.repair.evidence.invert import Inverted
from mcjax.training.losses import MetricFn

CLEAN_ALARMS = (1, 39)
"""Of so many clean networks so many had a trigger that counts as evidence (benchmarks/verdict.json)."""

TAMPERED_ALARMS = (69, 82)
"""The same of tampered networks, with five triggers."""

FASHION_ALARMS = (5, 6)
"""The same of clean networks of Fashion-MNIST (benchmarks/verdict_fashion.json)."""


class Finding(NamedTuple):
    """The most suspicious class of one form.

    Attributes:
        form: Name of the form.
        target: The class that is cheapest to reach.
        anomaly: See `anomalies`.
        cost: Mean cost over the restarts, in nats.
        success: Mean success over the restarts, a fraction.
    """

    form: str
    target: int
    anomaly: float
    cost: float
    success: float

    @property
    def threshold(self) -> float:
        """The anomaly from which a trigger of this form is evidence of a backdoor."""
        return threshold(self.form)

    @property
    def evident(self) -> bool:
        """Whether the trigger is evidence of a backdoor."""
        return self.anomaly >= self.threshold


def threshold(form: str) -> float:
    """The anomaly from which a trigger of a form is evidence of a backdoor.

    Example:
        >>> threshold("warp") > threshold("patch")  # clean networks differ more in warps
        True
    """
    return FORMS[form].threshold


def anomalies(cost: np.typing.ArrayLike) -> np.ndarray:
    """How much cheaper each class is to reach than the others.

        a_k = median_{j != k}(log cost_j) - log cost_k, over the spread of the other classes
        spread = max(1.4826 median_{j != k} |log cost_j - median|, 0.1)

    Args:
        cost: In nats, one per class, [K], K >= 2.

    Returns:
        [K]; 0 is ordinary.

    Example:
        >>> anomalies([0.5, 3.0, 3.0, 3.0]).round(1).tolist()
        [17.9, 0.0, 0.0, 0.0]

    Source: after Wang et al. 2019, section 4.2, without the class itself, in logarithms, and with a
        least spread, so that few classes do not make it vanish.
    """
    logs = np.log(np.maximum(np.asarray(cost, np.float64), 1e-6))
    found = []
    for k in range(len(logs)):
        others = np.delete(logs, k)
        middle = np.median(others)
        spread = max(1.4826 * float(np.median(np.abs(others - middle))), 0.1)
        found.append((middle - logs[k]) / spread)
    return np.array(found)


def findings(inverted: Mapping[str, Inverted]) -> list[Finding]:
    """The most suspicious class of each form, by how far its anomaly is above the form's threshold."""
    found = []
    for form, one in inverted.items():
        cost = np.asarray(one.cost, np.float64).mean(0)
        anomaly = anomalies(cost)
        k = int(anomaly.argmax())
        success = float(np.asarray(one.success).mean(0)[k])
        found.append(Finding(form, k, float(anomaly[k]), float(cost[k]), success))
    return sorted(found, key=lambda one: -one.anomaly / one.threshold)


def targets(inverted: Mapping[str, Inverted]) -> dict[str, int]:
    """The most suspicious class of each form."""
    return {one.form: one.target for one in findings(inverted)}


def evident_forms(inverted: Mapping[str, Inverted]) -> tuple[str, ...]:
    """The forms whose trigger counts as evidence, in the order of `inverted`."""
    found = {one.form for one in findings(inverted) if one.evident}
    return tuple(form for form in inverted if form in found)


def backdoor_found(inverted: Mapping[str, Inverted]) -> bool:
    """Whether a trigger of any form counts as evidence of a backdoor."""
    return bool(evident_forms(inverted))


def chosen_triggers(
    inverted: Mapping[str, Inverted], restart: int, target: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """Of one restart, the trigger of each form's most suspicious class.

    Args:
        inverted: The result of `invert`.
        restart: Which restart; the last one if there are fewer.
        target: The class of each form instead.

    Returns:
        {form: parameters with leaves [1, ...]}, in the order of `inverted`.
    """
    target = target or targets(inverted)

    def pick(form: str, leaf: Any) -> Any:
        return leaf[min(restart, len(leaf) - 1)][target[form]][None]

    return {
        form: jax.tree.map(functools.partial(pick, form), one.triggers)
        for form, one in inverted.items()
    }


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class WithTriggers:
    """A path whose points carry triggers: curve(t) becomes (curve(t), triggers).

    As part of the path, triggers are data of the compiled program; other triggers do not recompile it.

    Args:
        curve: The path, a callable pytree.
        triggers: {form: parameters with leaves [n, ...]}.
        targets: {form: class}, int32 scalars.
    """

    curve: Any
    triggers: dict[str, PyTree]
    targets: dict[str, jax.Array]

    def __call__(self, t: jax.Array) -> tuple[PyTree, dict[str, PyTree], dict[str, jax.Array]]:
        """The point at t and the triggers."""
        return self.curve(t), self.triggers, self.targets


def held_out(
    curve: Any,
    inverted: Mapping[str, Inverted],
    again: Sequence[Mapping[str, Inverted]] = (),
) -> WithTriggers:
    """A path with the triggers of the restart that no training sees, the second.

    Args:
        curve: The path.
        inverted: The triggers inverted on the suspect.
        again: Those that were inverted anew while the path was trained. A network that has unlearned
            the first ones is judged too kindly by their like alone.
    """
    target = targets(inverted)
    sets = [chosen_triggers(one, 1, target) for one in (inverted, *again)]
    triggers = {
        form: jax.tree.map(lambda *v: np.concatenate(v), *(one[form] for one in sets))
        for form in inverted
    }
    return WithTriggers(curve, triggers, {form: jnp.int32(k) for form, k in target.items()})


MARK = "stamped"
"""Name of an array that marks a set of images as one that triggers are applied to."""


NUM_IMAGES = 500
"""Images that triggers are judged on, at most."""


def marked(examples: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Clean images, stacked as one marked batch for `with_success`; the first `NUM_IMAGES`."""
    some = {name: np.asarray(examples[name])[:NUM_IMAGES] for name in ("image", "label")}
    number = len(some["label"])
    return {**stack_batches(some, number), MARK: np.ones((1, number), np.float32)}


def num_judged(examples: Mapping[str, Any], inverted: Mapping[str, Inverted]) -> int:
    """How many images the estimate is a mean over: the marked ones of other classes than the target.

    Args:
        examples: As for `marked`.
        inverted: The result of `invert`.
    """
    label = np.asarray(examples["label"])[:NUM_IMAGES]
    return int((label != findings(inverted)[0].target).sum())


def with_success(metric_fn: MetricFn, apply_fn: Callable[..., jax.Array]) -> MetricFn:
    """A metric_fn for a path of `WithTriggers`.

    On ordinary sets it is `metric_fn` of the network. On sets that have the array `MARK` it is the
    success of each form's trigger on each image; images of the target class do not count.

    Args:
        metric_fn: `metric_fn(variables, batch)`.
        apply_fn: `apply_fn(variables, x) -> logits`.
    """
    return Bound(_with_success, metric_fn, apply_fn)


def _with_success(
    metric_fn: MetricFn, apply_fn: Callable[..., jax.Array], point: Any, batch: Batch
) -> dict[str, jax.Array]:
    variables, triggers, targets = point
    if MARK not in batch:
        return metric_fn(variables, batch)
    found = {}
    for form, q in triggers.items():
        others = (batch["label"] != targets[form]).astype(jnp.float32)
        for j in range(len(jax.tree.leaves(q)[0])):
            one = jax.tree.map(lambda v, j=j: v[j], q)
            answers = apply_fn(variables, FORMS[form].stamp(one, batch["image"])).argmax(-1)
            found[f"{form}_hits_{j}"] = (answers == targets[form]) * others
        found[f"{form}_others"] = others
    return found


def estimated_success(table: Mapping[str, Any], inverted: Mapping[str, Inverted]) -> np.ndarray:
    """The estimated attack success at each t: that of the trigger that works best there.

    Only triggers that are evidence count, and of these only those of the most
    suspicious class: the cheapest triggers of a clean network succeed as well. Without any the
    estimate is 0.

    Args:
        table: The metrics of the marked set, "FORM_hits_0", ... and "FORM_others", each [T].
        inverted: The result of `invert`.

    Returns:
        Fractions of the images of other classes, [T].
    """
    best, *_ = findings(inverted)
    evident, target = evident_forms(inverted), targets(inverted)
    counted = [form for form in evident if target[form] == best.target]
    rates = success_by_form(table)
    if not counted:
        return np.zeros_like(next(iter(rates.values())))
    return np.max([rates[form] for form in counted], axis=0)


def suspicious_success(table: Mapping[str, Any], inverted: Mapping[str, Inverted]) -> np.ndarray:
    """What t is chosen by: the estimate, or without evidence the success of the most suspicious form.

    Without evidence that trigger may be a natural one; a point where it fails is no worse a choice.

    Args:
        table: As in `estimated_success`.
        inverted: The result of `invert`.

    Returns:
        Fractions of the images of other classes, [T].
    """
    if backdoor_found(inverted):
        return estimated_success(table, inverted)
    return success_by_form(table)[findings(inverted)[0].form]


def success_by_form(table: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The success of each form's best held-out trigger at each t."""
    found = {}
    for form in [name.removesuffix("_others") for name in table if name.endswith("_others")]:
        others = np.maximum(np.asarray(table[f"{form}_others"], np.float64), 1e-9)
        hits = [v for name, v in table.items() if name.startswith(f"{form}_hits_")]
        found[form] = np.max(np.asarray(hits, np.float64), axis=0) / others
    return found
