"""Repairing one suspect network with clean images: evidence, the path, the choice of t."""

import functools
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mcjax.core import fields
from mcjax.core.keys import check_key, stream
from mcjax.core.progress import say
from mcjax.core.tree import PyTree
from mcjax.curves.batch_stats import CurveWithStats
from mcjax.curves.geometry import distances
from mcjax.data.batches import stack_batches
from mcjax.evaluation.path import evaluate_path
from mcjax.models.given import as_given, as_network
from mcjax.models.network import Network
from mcjax.repair.bonafide import check_suspect, doubts
from mcjax.repair.choose import choose_on_curve, path_ts
from mcjax.repair.evidence import estimate
from mcjax.repair.evidence.invert import Inverted
from mcjax.repair.evidence.verdict import backdoor_found, targets
from mcjax.repair.inputs import check_inputs
from mcjax.repair.methods import METHODS, taught
from mcjax.repair.methods.method import Case
from mcjax.repair.options import DEFAULTS, RepairOptions, changed, check_ends
from mcjax.repair.repaired import NothingRepaired, Repaired
from mcjax.repair.search import (
    control_network,
    control_report,
    evidence_report,
    say_found,
    search,
    searched,
)
from mcjax.repair.second import Second, second_network
from mcjax.training.curve import CurveOptions
from mcjax.training.losses import classification_metrics
from mcjax.training.network import fit_with_progress

STAGES = ("evidence", "second network", "path", "choice")
"""The stages of a repair, in their order."""

MADE = {
    "taught": "the suspect, trained until it has unlearned the triggers",
    "free": "none; the far end is trained with the path",
    "unaligned": "the suspect's copy, its channels permuted",
    "fine_tuned": "a fine-tuned copy of the suspect",
}
"""The second network of one suspect, by `RepairOptions.end`."""


def repair_model(
    key: jax.Array,
    apply_fn: Network | Callable[[PyTree, jax.Array], jax.Array],
    suspect: PyTree,
    bonafide: Mapping[str, Any],
    second: PyTree | None = None,
    *,
    selection: Mapping[str, Any] | None = None,
    second_is_clean: bool = False,
    tolerance: float = 0.02,
    options: RepairOptions = DEFAULTS,
    verbose: bool = False,
    **changes: Any,
) -> Repaired:
    """Finds a path of low loss from a suspect network on, and takes a point of it.

    1. Triggers that send clean images to one class are inverted on the suspect
       (`mcjax.repair.evidence`), and tried on a control, the suspect without what clean images do not
       teach; a class that is unusually cheap to reach on the suspect alone is evidence of a backdoor.
    2. The suspect is taught: it learns its own answers to clean images, and unlearns the inverted
       triggers (`mcjax.repair.objective`). The path is the straight line to the result, on which t is
       the strength of the repair.
    3. Or the path is a curve that is taught so, to a far end that is trained with it, a second network,
       or the suspect's own un-aligned copy: the same function with its channels permuted to be least
       alike (`mcjax.alignment`).
    4. Among the points that lose at most `tolerance` on images held out for that, one with the lowest
       estimated attack success is chosen (`mcjax.repair.choose`).

    All of it uses clean images alone. The true trigger is never looked at, and nothing here proves
    that it is gone.

    Args:
        key: Random key.
        apply_fn: The forward pass `apply_fn(variables, x) -> logits`, x [B, H, W, C] in [0, 1]; or
            a `Network`, which a network with BatchNorm or dropout needs.
        suspect: The variables of the network to repair.
        bonafide: Clean images: "image" [N, H, W, C] uint8 or in [0, 1], "label" [N].
        second: Variables of a second network of the same structure, suspect too; None takes what
            `options.end` says, the taught suspect. An un-aligned copy counts as suspect; a network without
            channels that can be permuted gets a fine-tuned copy instead, and the report says so.
        selection: More clean images, to choose t by; a fifth of `bonafide` is held out if None.
        second_is_clean: The second network is known to be clean: only the first is to be far from.
        tolerance: Accuracy on the selection images that the repair may cost, a fraction.
        options: How the path is found and trained.
        verbose: Show progress on standard error.
        **changes: Single fields of `options`, such as num_steps=500.

    Returns:
        The repaired variables, t, the curve and a report. Where no point was accurate enough, the
        suspect, with `ok` False, `reason` and a warning.

    Raises:
        UserError: An option that no repair can have, which is found before anything is computed;
            images or labels that do not fit the network, a class without images, networks of
            different structure, parameters or a loss that are not finite.

    Example:
        >>> from mcjax.models.network import from_apply
        >>> x = np.eye(4, dtype=np.float32).reshape(4, 2, 2, 1)
        >>> bonafide = {"image": np.tile(x, (5, 1, 1, 1)), "label": np.tile(np.arange(4), 5)}
        >>> apply_fn = lambda w, x: x.reshape(len(x), -1) @ w
        >>> a, b = 2 * jnp.eye(4), 3 * jnp.eye(4)
        >>> quick = {"num_steps": 4, "forms": ("patch",)}
        >>> fixed = repair_model(jax.random.key(0), apply_fn, a, bonafide, b, **quick)
        >>> round(fixed.t, 2), fixed.variables.shape
        (0.5, (4, 4))

    Source: Zhao et al. 2020, section 4.
    """
    began = time.monotonic()
    o = changed(options, changes)
    fields.check("second_is_clean", second_is_clean, fields.flag())
    fields.check("tolerance", tolerance, fields.number(0, 1))
    fields.check("verbose", verbose, fields.flag())
    key = check_key(key)
    check_ends(o, has_second=second is not None, second_is_clean=second_is_clean)
    network, start, parts = check_inputs(apply_fn, suspect, bonafide, second, selection)
    suspect_accuracy = check_suspect(network, start, parts)
    for doubt in doubts(suspect_accuracy) if verbose else ():
        say(doubt)

    def tell(stage: str, what: str) -> None:
        if verbose:
            say(f"{1 + STAGES.index(stage)}/{len(STAGES)} {stage}: {what}")

    images = jax.tree.map(jnp.asarray, parts["bonafide"])
    search_on = functools.partial(
        search, network=network, images=images, options=o, verbose=verbose
    )
    tell("evidence", searched(o, parts))
    control = control_network(
        stream(key, "control"), network, start, images, options=o, verbose=verbose
    )
    inverted = search_on(stream(key, "evidence"), start, control=control.variables)
    if verbose:  # the owner's first question, long before the path is trained
        say_found(inverted, control)
    end_is_free = second is None and o.end == "free"
    again: list[dict[str, Inverted]] = []

    def invert_again(name: str, variables: PyTree) -> dict[str, Inverted]:
        inverted_again = search_on(
            stream(key, f"evidence of {name}"),
            variables,
            classes=targets(inverted),
            name="search anew",
        )
        again.append(inverted_again)
        return again[-1]

    @functools.cache
    def end() -> Second:
        given = None if second is None else as_network(apply_fn, second)[1]
        return second_network(
            key,
            network,
            start,
            given,
            parts["bonafide"],
            align=o.align,
            end=o.end,
            unalign=o.unalign,
            teach_fn=lambda: METHODS["taught_fine_tune"].run(case("taught_fine_tune")),
            fine_tune_fn=lambda: METHODS["fine_tune"].run(case("fine_tune")),
        )

    def case(name: str) -> Case:
        return Case(
            network=network,
            suspect=start,
            second_fn=lambda: end().variables,
            images=images,
            bonafide=parts["bonafide"],
            selection=parts["selection"],
            budget=o.budget,
            curve=CurveOptions(o.kind, o.num_bends),
            options=o.of_methods(tolerance, end_is_free=end_is_free),
            key_fn=functools.partial(stream, key),
            fit_fn=functools.partial(fit_with_progress, name=name, verbose=verbose),
            evidence_fn=lambda: inverted,
            invert_fn=invert_again,
            end_is_free=end_is_free,
        )

    number = len(parts["bonafide"]["label"])
    made = MADE[o.end] + (f", on {number} images" if o.end == "taught" else "")
    tell("second network", "the given one" if second is not None else made)
    other = end()
    is_line = second is None and o.end == "taught"
    tell("path", "the straight line there" if is_line else f"trained on {number} images")
    name = "taught_line" if is_line else "taught_path"
    curve = METHODS[name].run(case(name))
    points = CurveWithStats(
        curve,
        start["batch_stats"],
        None if other.is_free else other.variables["batch_stats"],
        images["image"] if network.has_batch_stats else None,
        network.apply_train,
    )
    ts = path_ts(o.num_points, o.extrapolate)
    trained_on, held_out = (len(parts[name]["label"]) for name in ("bonafide", "selection"))
    tell(
        "choice",
        f"{len(ts)} points of the path, on {held_out} images held out and {trained_on} others",
    )
    table = _along(network, estimate.held_out(points, inverted, again), ts, parts)
    selection_accuracy, hits = table["selection"]["accuracy"], table[estimate.MARK]
    found, estimated = backdoor_found(inverted), estimate.estimated_success(hits, inverted)
    choosing = estimate.suspicious_success(hits, inverted) if o.choose == "evidence" else None
    suspects = (0, -1) if other.is_suspect and not second_is_clean else (0,)
    choice = choose_on_curve(
        curve,
        ts,
        selection_accuracy,
        suspects=suspects,
        tolerance=tolerance,
        estimated=choosing,
        num_images=estimate.num_judged(parts["selection"], inverted),
    )
    chosen = choice.index
    t = None if chosen is None else float(ts[chosen])
    here = int(np.abs(ts).argmin())  # the suspect
    there = here if chosen is None else chosen
    moved = float(distances(curve, ts, 0)[there])
    norm = float(optax.tree.norm(start["params"]))
    report = {
        "ts": ts,
        "selection_accuracy": selection_accuracy,
        "bonafide_accuracy": table["bonafide"]["accuracy"],
        "distance": np.min([np.asarray(distances(curve, ts, s)) for s in suspects], axis=0),
        "estimated_attack_success": estimated,
        "success_by_form": estimate.success_by_form(hits),
        **evidence_report(inverted, parts),
        **control_report(network, control, parts),
        # Without evidence there is no trigger to estimate by.
        "suspect_success": float(estimated[here]) if found else None,
        "repaired_success": float(estimated[there]) if found and t is not None else None,
        "suspect_accuracy": choice.suspect_accuracy,
        "repaired_accuracy": None if t is None else float(selection_accuracy[there]),
        "floor": choice.floor,
        "num_acceptable": choice.num_acceptable,
        "moved": moved,
        "moved_relative": moved / norm if norm else float("nan"),
        "second": other.name,
        **trained_by(METHODS[name].end or name, case(name)),
        "num_bonafide": len(parts["bonafide"]["label"]),
        "num_selection": len(parts["selection"]["label"]),
        "seconds": time.monotonic() - began,
    }
    repaired = suspect if t is None else as_given(points(jnp.float32(t)), suspect, apply_fn)
    result = Repaired(repaired, t, curve, report)
    if not result.ok:
        warnings.warn(f"nothing was repaired: {result.reason}", NothingRepaired, stacklevel=2)
    return result


def trained_by(name: str, case: Case) -> dict[str, Any]:
    """What a method learned, its learning rate and its rounds, for the report."""
    return {
        "fit": taught.fit_of(case),
        "learning_rate": case.options[f"learning_rate.{name}"],
        "rounds": taught.num_rounds(case),
    }


def _along(
    network: Network, curve: estimate.WithTriggers, ts: np.ndarray, parts: Mapping[str, Any]
) -> dict[str, dict[str, np.ndarray]]:
    """Loss and accuracy on each set of images at each t, and the hits of the triggers."""
    sets = {
        name: stack_batches(part, min(len(part["label"]), 1000)) for name, part in parts.items()
    }
    sets[estimate.MARK] = estimate.marked(parts["selection"])
    metric_fn = estimate.with_success(classification_metrics(network.apply), network.apply)
    table = evaluate_path(metric_fn, curve, ts, sets)
    return jax.tree.map(np.asarray, table)
