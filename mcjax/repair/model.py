"""Repairing one suspect network with clean images: the path, the choice of t, the result."""

import dataclasses
import functools
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mcjax import alignment
from mcjax.alignment.by_name import aligned
from mcjax.core import fields
from mcjax.core.errors import UserError, shown
from mcjax.core.keys import check_key, stream
from mcjax.core.progress import progress, say
from mcjax.core.tree import PyTree, check_same_structure, digest
from mcjax.curves import Curve
from mcjax.curves.batch_stats import CurveWithStats
from mcjax.curves.geometry import distances
from mcjax.data.batches import stack_batches, to_unit
from mcjax.evaluation.path import evaluate_path
from mcjax.models.given import as_given, as_network, check_variables
from mcjax.models.network import Network
from mcjax.repair.bonafide import check_images, check_suspect
from mcjax.repair.choose import choose_on_curve, path_ts
from mcjax.repair.evidence import judge as evidence
from mcjax.repair.evidence.invert import Inverted, invert
from mcjax.repair.evidence.pictures import pictures
from mcjax.repair.methods import METHODS
from mcjax.repair.methods.method import Case
from mcjax.repair.options import DEFAULTS, RepairOptions, changed
from mcjax.training.curve import CurveOptions
from mcjax.training.fit import Training, fit
from mcjax.training.losses import classification_metrics


class NothingRepaired(UserWarning):
    """No point of the path was accurate enough; the result is the suspect."""


@dataclasses.dataclass(frozen=True, repr=False)
class Repaired:
    """What `repair_model` returns.

    Args:
        variables: The repaired network, of the suspect's structure; the suspect itself where no
            point of the path was accurate enough.
        t: The chosen point; None where none was accurate enough.
        curve: The trained path.
        report: What was measured: "ts", "selection_accuracy" and "bonafide_accuracy" along the
            path, "distance" to the nearest suspect, "estimated_attack_success" of inverted
            triggers and "success_by_form"; of the evidence "findings", one
            `mcjax.repair.evidence.judge.Finding` per form, "backdoor_found" and "target" (the
            class, or None), "pictures", images with those triggers
            (`mcjax.repair.evidence.pictures`); and of the choice "suspect_accuracy", "repaired_accuracy",
            "suspect_success" and "repaired_success" (the estimates), "floor",
            "moved" and "moved_relative" (distance to the suspect, and over the suspect's norm),
            "num_bonafide", "num_selection", "seconds".
    """

    variables: PyTree
    t: float | None
    curve: Curve
    report: dict[str, Any]

    @property
    def ok(self) -> bool:
        """Whether a point was accurate enough; if not, `variables` is the suspect."""
        return self.t is not None

    @property
    def reason(self) -> str:
        """Why nothing was repaired, and what to do; "" where a point was found."""
        if self.ok:
            return ""
        inside = self.report["selection_accuracy"][self.report["distance"] > 0]
        best = (
            f"the best has {inside.max():.4f}" if len(inside) else "no point lies between the ends"
        )
        return (
            f"no point of the path has accuracy {self.report['floor']:.4f} on the selection images "
            f"({best}); try more num_steps, more images, or a larger tolerance"
        )

    def save(self, folder: str | os.PathLike) -> Path:
        """Writes the network and what was measured, as `python -m mcjax.repair` does.

        Args:
            folder: A new folder: `repaired` (a checkpoint), path.csv, path.png, triggers.png,
                report.html and result.json.

        Returns:
            The folder.

        Raises:
            UserError: The folder exists and is not empty, or can't be written.
        """
        import mcjax  # the report is written above this room

        return mcjax.save_repaired(self, folder)

    def __repr__(self) -> str:
        """What was chosen, in one line."""
        r = self.report
        found = f"evidence of a backdoor: {'yes' if r['backdoor_found'] else 'no'}"
        if not self.ok:
            return f"Repaired(ok=False, {found}, floor={r['floor']:.4f})"
        return (
            f"Repaired(t={self.t:.4f}, accuracy={r['repaired_accuracy']:.4f}, suspect's "
            f"{r['suspect_accuracy']:.4f}, estimated attack success={r['repaired_success']:.4f}, {found})"
        )


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
    """Joins a suspect network to a second one by a path of low loss, and takes a point of it.

    1. Triggers that send clean images to one class are inverted on the suspect
       (`mcjax.repair.evidence`); a class that is unusually cheap to reach is evidence of a backdoor.
    2. The suspect is joined to the second network, or to its own un-aligned copy: the same function
       with its channels permuted to be least alike (`mcjax.alignment`).
    3. The path learns the suspect's answers to mixed clean images, and unlearns the inverted triggers
       (`mcjax.repair.objective`).
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
        second: Variables of a second network of the same structure, suspect too; None takes the
            suspect's un-aligned copy, which counts as suspect. A network without channels that can
            be permuted gets a fine-tuned copy instead, and the report says so.
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
    if not callable(apply_fn) and not isinstance(apply_fn, Network):
        raise UserError(
            f"apply_fn is {shown(apply_fn)}; it must be a function apply_fn(variables, x) or a "
            "mcjax.models.network.Network"
        )
    network, start = as_network(apply_fn, suspect)
    if second is None and second_is_clean:
        raise UserError(
            "second_is_clean needs second: a copy of the suspect is suspect too; give "
            "second, or leave second_is_clean out"
        )
    check_variables("suspect", suspect, apply_fn)
    if second is not None:
        check_variables("second", second, apply_fn)
        check_same_structure(suspect, second, ("the suspect", "the second network"))
    parts = check_images(network, start, bonafide, selection)
    check_suspect(network, start, parts)
    if second is not None and digest(suspect) == digest(second):
        raise UserError("the second network is the suspect itself; give another, or none")

    def spec() -> alignment.PermutationSpec:
        shape = parts["bonafide"]["image"].shape[1:]
        return alignment.permutation_spec(network.apply, start, shape)

    def some_images() -> Iterator[jax.Array]:
        for i in range(0, len(parts["bonafide"]["image"]), 250):
            yield to_unit(parts["bonafide"]["image"][i : i + 250])

    def second_network() -> tuple[str, PyTree]:
        if second is not None:
            end = as_network(apply_fn, second)[1]
            return "given", aligned(
                stream(key, "alignment"), o.align, spec, network, start, end, some_images
            )
        if o.unalign == "none":
            return "a fine-tuned copy of the suspect", METHODS["fine_tune"].run(case("fine_tune"))
        try:
            found = spec()
        except UserError as error:
            name = f"a fine-tuned copy of the suspect, because {error}"
            return name, METHODS["fine_tune"].run(case("fine_tune"))
        copy = alignment.unaligned_copy(
            stream(key, "unaligned"),
            found,
            network.apply,
            start,
            by=o.unalign,
            images=some_images(),
        )
        return "the un-aligned copy of the suspect", copy

    again: list[dict[str, Inverted]] = []

    def invert_again(name: str, variables: PyTree) -> dict[str, Inverted]:
        mine = stream(key, f"evidence of {name}")
        again.append(_evidence(mine, network, variables, images, o, verbose))
        return again[-1]

    def case(name: str) -> Case:
        return Case(
            network=network,
            suspect=start,
            second_fn=lambda: second_fn()[1],
            images=images,
            bonafide=parts["bonafide"],
            selection=parts["selection"],
            budget=o.budget,
            curve=CurveOptions(o.kind, o.num_bends),
            options={
                "learning_rate.path": o.learning_rate,
                "learning_rate.taught_path": o.learning_rate,
                "learning_rate.fine_tune": o.fine_tune_learning_rate,
                "tolerance": tolerance,
                "taught.fit": o.fit,
                "taught.unlearn": o.unlearn,
                "taught.rounds": o.rounds,
            },
            key_fn=functools.partial(stream, key),
            fit_fn=functools.partial(_fit, name=name, verbose=verbose),
            evidence_fn=lambda: inverted,
            invert_fn=invert_again,
        )

    images = jax.tree.map(jnp.asarray, parts["bonafide"])
    second_fn = functools.cache(second_network)
    inverted = _evidence(stream(key, "evidence"), network, start, images, o, verbose)
    name = "path" if o.fit == "labels" and not o.unlearn else "taught_path"
    joined = case(name)
    curve = METHODS[name].run(joined)
    points = CurveWithStats(
        curve,
        start["batch_stats"],
        joined.second_fn()["batch_stats"],
        images["image"] if network.has_batch_stats else None,
        network.apply_train,
    )
    ts = path_ts(o.num_points, o.extrapolate)
    sets = {
        name: stack_batches(part, min(len(part["label"]), 1000)) for name, part in parts.items()
    }
    sets[evidence.MARK] = evidence.marked(parts["selection"])
    metric_fn = evidence.with_success(classification_metrics(network.apply), network.apply)
    if verbose:
        say(
            f"path: {len(ts)} points, each on {sum(len(p['label']) for p in parts.values())} images"
        )
    table = evaluate_path(metric_fn, evidence.held_out(points, inverted, again), ts, sets)
    accuracy = {name: np.asarray(table[name]["accuracy"]) for name in parts}
    estimated = evidence.estimated_success(table[evidence.MARK], inverted)
    suspicious = evidence.suspicious_success(table[evidence.MARK], inverted)
    findings = evidence.findings(inverted)
    found = evidence.backdoor_found(inverted)
    suspects = (0,) if second_is_clean else (0, -1)
    choice = choose_on_curve(
        curve,
        ts,
        accuracy["selection"],
        suspects=suspects,
        tolerance=tolerance,
        estimated=suspicious if o.choose == "evidence" else None,
        num_images=min(len(parts["selection"]["label"]), evidence.NUM_IMAGES),
    )
    chosen = choice.index
    t = None if chosen is None else float(ts[chosen])
    moved = 0.0 if chosen is None else float(distances(curve, ts, 0)[chosen])
    norm = float(optax.tree.norm(start["params"]))
    report = {
        "ts": ts,
        "selection_accuracy": accuracy["selection"],
        "bonafide_accuracy": accuracy["bonafide"],
        "distance": np.min([np.asarray(distances(curve, ts, s)) for s in suspects], axis=0),
        "estimated_attack_success": estimated,
        "success_by_form": evidence.success_by_form(table[evidence.MARK]),
        "findings": findings,
        "backdoor_found": found,
        "target": findings[0].target if found else None,
        "pictures": pictures(inverted, parts["selection"]),
        "suspect_success": float(estimated[np.abs(ts).argmin()]),
        "repaired_success": float(estimated[np.abs(ts).argmin() if t is None else chosen]),
        "suspect_accuracy": choice.suspect_accuracy,
        "repaired_accuracy": float(
            accuracy["selection"][np.abs(ts).argmin() if t is None else chosen]
        ),
        "floor": choice.floor,
        "num_acceptable": choice.num_acceptable,
        "moved": moved,
        "moved_relative": moved / norm if norm else float("nan"),
        "second": second_fn()[0],
        "num_bonafide": len(parts["bonafide"]["label"]),
        "num_selection": len(parts["selection"]["label"]),
        "seconds": time.monotonic() - began,
    }
    repaired = suspect if t is None else as_given(points(jnp.float32(t)), suspect, apply_fn)
    result = Repaired(repaired, t, curve, report)
    if not result.ok:
        warnings.warn(f"nothing was repaired: {result.reason}", NothingRepaired, stacklevel=2)
    return result


def _evidence(
    key: jax.Array,
    network: Network,
    suspect: dict[str, PyTree],
    images: Mapping[str, Any],
    options: RepairOptions,
    verbose: bool,
) -> dict[str, Inverted]:
    """Inverts triggers form by form, which takes a while."""
    inverted: dict[str, Inverted] = {}

    def invert_one(form: str) -> Inverted:
        found = invert(
            key,
            network,
            suspect,
            images,
            forms=(form,),
            num_steps=options.inversion_steps,
            num_restarts=2,  # one to unlearn, one to judge by
        )
        return jax.block_until_ready(found[form])

    if not verbose:
        return {form: invert_one(form) for form in options.forms}
    with progress("evidence", len(options.forms), unit="form") as bar:
        for form in options.forms:
            inverted[form] = invert_one(form)
            (best,) = evidence.findings({form: inverted[form]})
            bar.advance(1, anomaly=best.anomaly)
    return inverted


def _fit(key: jax.Array, training: Training, *, name: str, verbose: bool) -> dict[str, PyTree]:
    if not verbose:
        return fit(key, training, name=name)
    with progress(name, training.budget.num_steps, unit="step") as bar:
        return fit(
            key,
            training,
            name=name,
            tell=lambda step, means: bar.advance(step - bar.done, loss=means["loss"]),
        )
