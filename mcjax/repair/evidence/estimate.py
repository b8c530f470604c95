"""The estimated attack success: how well inverted triggers work along a path.

One restart of the inversion is unlearned, and another, which no training sees, estimates the attack
success at every t.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mcjax.core.bound_functions import Bound
from mcjax.core.tree import PyTree
from mcjax.data.batches import Batch, stack_batches
from mcjax.repair.evidence.forms import FORMS
from mcjax.repair.evidence.invert import Inverted
from mcjax.repair.evidence.verdict import backdoor_found, evident_forms, findings, targets
from mcjax.training.losses import MetricFn


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
