"""The stages of a repair: evidence, the second network, the path, the choice of t."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mcjax.core.keys import stream
from mcjax.core.progress import say
from mcjax.core.tree import PyTree
from mcjax.curves import Curve
from mcjax.curves.batch_stats import CurveWithStats
from mcjax.curves.geometry import distances
from mcjax.data.batches import Batch, stack_batches
from mcjax.data.given import Examples
from mcjax.evaluation.path import evaluate_path
from mcjax.models.network import Network
from mcjax.repair.choose import Choice, choose_on_curve, path_ts
from mcjax.repair.evidence import estimate
from mcjax.repair.evidence.control import Control
from mcjax.repair.evidence.invert import Inverted
from mcjax.repair.evidence.verdict import backdoor_found, targets
from mcjax.repair.keep import KeepFn, keep_nothing, kept_fit
from mcjax.repair.methods import METHODS, taught
from mcjax.repair.methods.method import Case
from mcjax.repair.options import RepairOptions
from mcjax.repair.search import (
    control_network,
    control_report,
    evidence_report,
    say_found,
    search,
    search_report,
    searched,
)
from mcjax.repair.second import Second, second_network
from mcjax.training.curve import CurveOptions
from mcjax.training.losses import classification_metrics

STAGES = ("evidence", "second network", "path", "choice")
"""The stages of a repair, in their order."""

MADE = {
    "taught": "the suspect itself, trained to unlearn the triggers",
    "free": "none; the far end is trained with the path",
    "unaligned": "the suspect's copy, its channels permuted",
    "fine_tuned": "a fine-tuned copy of the suspect",
}
"""The second network of one suspect, by `RepairOptions.end`."""


@dataclasses.dataclass(frozen=True)
class Stages:
    """A repair; each stage is computed once, when it is first asked for, and asks for those before it.

    Args:
        key: Random key.
        network: The network.
        suspect: The suspect's variables, {"params", "batch_stats"}.
        parts: Clean images, "bonafide" to train on and "selection" to choose t by.
        given: A second network's variables, or None.
        given_is_clean: Whether it is known to be clean.
        options: How the path is found and trained.
        tolerance: Accuracy that the repair may cost, a fraction.
        verbose: Show progress on standard error.
        keep: Keeps the results of long steps.
    """

    key: jax.Array
    network: Network
    suspect: PyTree
    parts: Mapping[str, Examples]
    given: PyTree | None
    given_is_clean: bool
    options: RepairOptions
    tolerance: float
    verbose: bool
    keep: KeepFn = keep_nothing

    @functools.cached_property
    def images(self) -> Batch:
        """The images to train on, on the device."""
        return jax.tree.map(jnp.asarray, dict(self.parts["bonafide"]))

    @functools.cached_property
    def control(self) -> Control:
        """The control network, or why there is none."""
        self._tell("evidence", searched(self.options, self.parts))
        key = stream(self.key, "control")
        return control_network(
            key,
            self.network,
            self.suspect,
            self.images,
            options=self.options,
            verbose=self.verbose,
            keep=self.keep,
        )

    @functools.cached_property
    def inverted(self) -> dict[str, Inverted]:
        """The triggers inverted on the suspect, by form."""
        control = self.control
        found = self._search("evidence", self.suspect, control=control)
        if self.verbose:  # the owner's first question, long before the path is trained
            say_found(found, control)
        return found

    @functools.cached_property
    def inverted_again(self) -> list[dict[str, Inverted]]:
        """The triggers inverted between the rounds of a training, as they are found."""
        return []

    @functools.cached_property
    def second(self) -> Second:
        """The network that the path leads to."""
        o, made = self.options, MADE[self.options.end]
        if o.end == "taught":
            made += f", on {len(self.images['label'])} images"
        self._tell("second network", made if self.given is None else "the given one")
        return second_network(
            self.key,
            self.network,
            self.suspect,
            self.given,
            self.parts["bonafide"],
            align=o.align,
            end=o.end,
            unalign=o.unalign,
            teach_fn=lambda: METHODS["taught_fine_tune"].run(self.case("taught_fine_tune")),
            fine_tune_fn=lambda: METHODS["fine_tune"].run(self.case("fine_tune")),
        )

    @property
    def method(self) -> str:
        """The repair method that makes the path."""
        return (
            "taught_line" if self.given is None and self.options.end == "taught" else "taught_path"
        )

    @functools.cached_property
    def curve(self) -> Curve:
        """The path."""
        _ = self.inverted, self.second  # in their order
        is_line = bool(METHODS[self.method].end)
        trained = f"trained on {len(self.images['label'])} images"
        self._tell("path", "the straight line there" if is_line else trained)
        curve: Curve = METHODS[self.method].run(self.case(self.method))
        return curve

    @functools.cached_property
    def points(self) -> CurveWithStats:
        """The points of the path as whole networks."""
        return CurveWithStats(
            self.curve,
            self.suspect["batch_stats"],
            None if self.second.is_free else self.second.variables["batch_stats"],
            self.images["image"] if self.network.has_batch_stats else None,
            self.network.apply_train,
        )

    @property
    def ts(self) -> np.ndarray:
        """The points that are evaluated."""
        return path_ts(self.options.num_points, self.options.extrapolate)

    @property
    def suspects(self) -> tuple[int, ...]:
        """The ends of the path that may be tampered with."""
        return (0, -1) if self.second.is_suspect and not self.given_is_clean else (0,)

    @functools.cached_property
    def along(self) -> dict[str, dict[str, np.ndarray]]:
        """Loss and accuracy on each set of images at each t, and the hits of the triggers."""
        points = self.points
        trained_on, held_out = (len(self.parts[p]["label"]) for p in ("bonafide", "selection"))
        self._tell(
            "choice",
            f"{len(self.ts)} points of the path, on {held_out} images held out and {trained_on} others",
        )
        sets: dict[str, Any] = {
            name: stack_batches(part, min(len(part["label"]), 1000))
            for name, part in self.parts.items()
        }
        sets[estimate.MARK] = estimate.marked(self.parts["selection"])
        apply_fn = self.network.apply
        table = evaluate_path(
            estimate.with_success(classification_metrics(apply_fn), apply_fn),
            estimate.held_out(points, self.inverted, self.inverted_again),
            self.ts,
            sets,
        )
        return jax.tree.map(np.asarray, table)

    @functools.cached_property
    def choice(self) -> Choice:
        """The chosen point."""
        hits = self.along[estimate.MARK]
        by_evidence = self.options.choose == "evidence"
        return choose_on_curve(
            self.curve,
            self.ts,
            self.along["selection"]["accuracy"],
            suspects=self.suspects,
            tolerance=self.tolerance,
            estimated=estimate.suspicious_success(hits, self.inverted) if by_evidence else None,
            num_images=estimate.num_judged(self.parts["selection"], self.inverted),
        )

    @property
    def t(self) -> float | None:
        """The chosen t; None where no point is accurate enough."""
        return None if self.choice.index is None else float(self.ts[self.choice.index])

    @functools.cached_property
    def report(self) -> dict[str, Any]:
        """What was measured, for `mcjax.repair.repaired.Repaired`, without the time it took."""
        ts, choice, hits = self.ts, self.choice, self.along[estimate.MARK]
        accuracy, estimated = (
            self.along["selection"]["accuracy"],
            estimate.estimated_success(hits, self.inverted),
        )
        here = int(np.abs(ts).argmin())  # the suspect
        chosen = choice.index
        moved = float(distances(self.curve, ts, 0)[here if chosen is None else chosen])
        norm = float(optax.tree.norm(self.suspect["params"]))
        away = [np.asarray(distances(self.curve, ts, s)) for s in self.suspects]
        # Without evidence there is no trigger to estimate by.
        success = estimated if backdoor_found(self.inverted) else None
        return {
            "ts": ts,
            "selection_accuracy": accuracy,
            "bonafide_accuracy": self.along["bonafide"]["accuracy"],
            "distance": np.min(away, axis=0),
            "estimated_attack_success": estimated,
            "success_by_form": estimate.success_by_form(hits),
            **evidence_report(self.inverted, self.parts),
            **control_report(self.network, self.control, self.parts),
            **search_report(self.options),
            "suspect_success": _at(success, here),
            "repaired_success": _at(success, chosen),
            "suspect_accuracy": choice.suspect_accuracy,
            "repaired_accuracy": _at(accuracy, chosen),
            "floor": choice.floor,
            "num_acceptable": choice.num_acceptable,
            "moved": moved,
            "moved_relative": moved / norm if norm else float("nan"),
            "second": self.second.name,
            **self._trained_by(METHODS[self.method].end or self.method),
            "num_bonafide": len(self.parts["bonafide"]["label"]),
            "num_selection": len(self.parts["selection"]["label"]),
        }

    def case(self, name: str) -> Case:
        """What a repair method sees."""
        o, end_is_free = self.options, self.given is None and self.options.end == "free"
        return Case(
            network=self.network,
            suspect=self.suspect,
            second_fn=lambda: self.second.variables,
            images=self.images,
            bonafide=self.parts["bonafide"],
            selection=self.parts["selection"],
            budget=o.budget,
            curve=CurveOptions(o.kind, o.num_bends),
            options=self._method_options(end_is_free),
            key_fn=functools.partial(stream, self.key),
            fit_fn=functools.partial(kept_fit, name=name, verbose=self.verbose, keep=self.keep),
            evidence_fn=lambda: self.inverted,
            invert_fn=self._invert_again,
            end_is_free=end_is_free,
        )

    def _method_options(self, end_is_free: bool) -> dict[str, Any]:
        options = self.options.of_methods(self.tolerance, end_is_free=end_is_free)
        if self.given is not None and self.options.fit == "auto":
            # A second network has answers of its own: points between would have to agree with the suspect.
            options["taught.fit"] = "labels"
        return options

    def _invert_again(self, name: str, variables: PyTree) -> dict[str, Inverted]:
        classes = targets(self.inverted)
        found = self._search(f"evidence of {name}", variables, classes=classes, name="search anew")
        self.inverted_again.append(found)
        return found

    def _search(self, draws: str, variables: PyTree, **options: Any) -> dict[str, Inverted]:
        return search(
            self.key,
            variables,
            draws=draws,
            network=self.network,
            images=self.images,
            options=self.options,
            verbose=self.verbose,
            keep=self.keep,
            **options,
        )

    def _trained_by(self, name: str) -> dict[str, Any]:
        """What a method learned, its learning rate and its rounds."""
        case = self.case(name)
        return {
            "fit": taught.fit_of(case),
            "learning_rate": case.options[f"learning_rate.{name}"],
            "rounds": taught.num_rounds(case),
        }

    def _tell(self, stage: str, what: str) -> None:
        if self.verbose:
            say(f"{1 + STAGES.index(stage)}/{len(STAGES)} {stage}: {what}")


def _at(values: np.ndarray | None, i: int | None) -> float | None:
    return None if values is None or i is None else float(values[i])
