"""The subject of a study of repairs: the tampered networks, the images of every part, and the repairs.

It is the same for backdoors and for injected errors.
"""

import dataclasses
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mcjax.core.processes import once
from mcjax.core.progress import say
from mcjax.core.sharding import keep
from mcjax.core.tree import PyTree
from mcjax.curves import KINDS, Curve
from mcjax.curves.batch_stats import CurveWithStats
from mcjax.data.batches import Batch, stack_batches
from mcjax.experiments.repair_study.searches import control_stage, search_stage
from mcjax.experiments.repair_study.tampered import Tampered
from mcjax.experiments.stages.alignment import aligned, unaligned
from mcjax.experiments.stages.curve import control_points, curve_options
from mcjax.experiments.stages.training import train_stage
from mcjax.repair.evidence.invert import Inverted
from mcjax.repair.evidence.verdict import targets
from mcjax.repair.methods import METHODS, taught
from mcjax.repair.methods.method import Case, Family, Method, num_repeats
from mcjax.repair.paths import shown_path
from mcjax.runs.config import flat
from mcjax.runs.run import Run, first
from mcjax.runs.stage import Found, stage
from mcjax.training.fit import Budget, Training


@dataclasses.dataclass(frozen=True)
class Study:
    """A run, or one seed and fold of it, with its tampered networks.

    Args:
        run: The run; its `part` names the seed and the fold.
        tampered: The networks and the measure of success.
        fold: The fold; None without cross-validation.
    """

    run: Run
    tampered: Tampered
    fold: int | None = None

    @property
    def name(self) -> str:
        """Prefix of the names of this part's stages."""
        return self.run.part if self.fold is None else f"{self.run.part}fold_{self.fold}/"

    @property
    def options(self) -> ConfigDict:
        """The config's `repair` part."""
        return self.run.config.repair

    @property
    def shown_path(self) -> str:
        """The method whose path the figures are about."""
        return str(shown_path(self.options.methods))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bonafide sizes, largest first."""
        return tuple(sorted(self.options.sizes, reverse=True))

    def bonafide(self, size: int) -> Batch:
        """The bonafide images of one size, on the device, repeated to one length for all sizes.

        See `mcjax.repair.methods.method.num_repeats`.
        """
        examples, times = self.run.splits.bonafide_subset(size), num_repeats(size, self.sizes)
        return {k: jnp.asarray(np.concatenate([v] * times)) for k, v in examples.items()}

    @functools.cached_property
    def memory(self) -> dict[str, Any]:
        """What is computed once for all rows of this part, by name."""
        return {}

    @functools.cached_property
    def judged_by(self) -> dict[str, Batch]:
        """The images that every network of the study is evaluated on, on the devices."""
        run = self.run
        test = first(run.splits.test, run.num_evaluated["test"])
        success = first(self.tampered.success, run.config.evaluation.test_images)
        sets = {"selection": run.splits.selection, "test": test, "success": success}
        stacks = {k: stack_batches(v, self._batch_size(len(v["label"]))) for k, v in sets.items()}
        return keep(stacks, run.mesh)

    def sets(self, size: int) -> dict[str, Any]:
        """`judged_by`, and the bonafide images of a size as "train", padded to the largest."""
        examples, largest = self.run.splits.bonafide_subset(size), max(self.sizes)
        padded = {
            k: np.concatenate([v, np.zeros((largest - size, *v.shape[1:]), v.dtype)])
            for k, v in examples.items()
        }
        stack = stack_batches(padded, self._batch_size(largest))
        mask = (np.arange(stack["mask"].size) < size).astype(np.float32)
        return {**self.judged_by, "train": {**stack, "mask": mask.reshape(stack["mask"].shape)}}

    def _batch_size(self, number: int) -> int:
        return min(number, self.run.config.evaluation.batch_size)

    def normalised_by(self, size: int) -> jax.Array | None:
        """The images to recompute BatchNorm statistics from; None without BatchNorm."""
        which = self.run.config.evaluation.batch_stats
        if which == "none" or not self.run.network.has_batch_stats:
            return None
        if which == "train":
            return self.run.normalised_by
        number = self.run.config.evaluation.batch_stats_images or None
        return keep(self.run.splits.bonafide_subset(size)["image"][:number], self.run.mesh)

    def with_stats(
        self,
        points: PyTree,
        start: PyTree,
        end: PyTree | None,
        size: int,
        *,
        keep_ends: bool = True,
    ) -> CurveWithStats:
        """Parameters as whole networks, BatchNorm recomputed from a size's images.

        Args:
            points: A function of t that gives parameters.
            start: The variables of the network at t = 0.
            end: The variables of the network at t = 1; None if it was trained with the points.
            size: Number of bonafide images.
            keep_ends: Leave the statistics of the two ends as they are.
        """
        return CurveWithStats(
            points,
            start["batch_stats"],
            None if end is None else end["batch_stats"],
            self.normalised_by(size),
            self.run.network.apply_train,
            self.run.config.evaluation.batch_stats_batch_size,
            keep_ends=keep_ends,
        )

    def second(self, size: int) -> PyTree:
        """The network at t = 1: given, or the suspect's copy, un-aligned or fine-tuned.

        A free end begins at the suspect itself.
        """
        tampered = self.tampered
        if self.options.pair == "suspect_alone":
            return tampered.start
        if tampered.end is not None:
            return aligned(self.run, f"{self.run.part}alignment", tampered.start, tampered.end)
        if self.options.pair == "suspect_and_unaligned":
            return unaligned(self.run, f"{self.run.part}unaligned", tampered.start)
        # A fine-tuned copy has its channels in the suspect's order.
        return self.repaired("fine_tune", size)[0]

    def end(self, name: str, size: int) -> PyTree:
        """The network that a method's path leads to."""
        made_by = METHODS[name].end
        return self.repaired(made_by, size)[0] if made_by else self.second(size)

    def suspects(self, name: str) -> tuple[int, ...]:
        """The ends of a method's path that may be tampered with, without an end that is repaired."""
        return (0,) if METHODS[name].end or self.end_is_free(name) else self.tampered.suspects

    def end_is_free(self, name: str) -> bool:
        """Whether the far end of a method's path is trained with it."""
        return self.options.pair == "suspect_alone" and not METHODS[name].end

    def points(self, name: str, curve: Curve, size: int) -> CurveWithStats:
        """The points of a method's path as whole networks."""
        end = None if self.end_is_free(name) else self.end(name, size)
        return self.with_stats(curve, self.tampered.start, end, size)

    def case(self, name: str, size: int, value: float | None = None) -> Case:
        """All that a method sees of the study: no trigger and no test image.

        Args:
            name: The method.
            size: Number of bonafide images.
            value: Of what is tuned of the method; None for the config's own.
        """
        run, options, stage_name = self.run, self.options, self.place(name, size, value)
        # Draws that depend on no images are the same at every size.
        suffix = f"_{size}" if METHODS[name].uses_images else ""
        case = Case(
            network=run.network,
            suspect=self.tampered.start,
            second_fn=functools.partial(self.end, name, size),
            images=self.bonafide(size),
            bonafide=run.splits.bonafide_subset(size),
            selection=run.splits.selection,
            budget=Budget(
                num_steps=num_repair_steps(options, size),
                batch_size=options.batch_size,
                momentum=options.momentum,
                nesterov=options.nesterov,
                weight_decay=options.weight_decay,
                augmentation=options.augmentation,
            ),
            curve=curve_options(run.config.curve),
            options=flat(options),
            key_fn=lambda draw: run.key(f"{self.name}{draw}{suffix}"),
            fit_fn=functools.partial(self._fit, stage_name),
            model_name=run.config.model.name,
            evidence_fn=functools.partial(self.evidence, size),
            invert_fn=functools.partial(self._inverted_again, size),
            end_is_free=self.end_is_free(name),
        )
        tuning = METHODS[name].tuning
        return case if tuning is None or value is None else tuning.at(case, value)

    def place(self, name: str, size: int, value: float | None = None) -> str:
        """The name of a method's stage; at the config's own value it is the method as it is.

        Args:
            name: The method.
            size: Number of bonafide images.
            value: As in `case`.
        """
        tuning, place = METHODS[name].tuning, f"{self.name}{name}_{size}"
        if tuning is None or value in (None, tuning.own(flat(self.options))):
            return place
        return f"{place}_{tuning.setting}_{value:g}"

    def evidence(self, size: int) -> dict[str, Inverted]:
        """The triggers inverted on the suspect with a number of bonafide images, inverted once."""
        return self._judged(f"{self.name}evidence_{size}", size, self.tampered.start)

    def evidence_of_references(self, size: int) -> dict[str, dict[str, Inverted]]:
        """The triggers inverted on each clean reference: what is evident there is a false alarm."""
        return {
            name: self._judged(f"{self.name}evidence_{size}_{name.replace(' ', '_')}", size, one)
            for name, one in self.tampered.references.items()
        }

    def evidence_of(self, name: str, size: int) -> list[dict[str, Inverted]]:
        """The triggers inverted anew while a method was trained, whose result is there already."""
        made_by = METHODS[name].end or name
        if made_by not in taught.METHODS:
            return []
        rounds = taught.num_rounds(self.case(made_by, size))
        names = [taught.inversion(made_by, i) for i in range(1, rounds)]
        finished = f"{self.name}{made_by}_{size}"
        return [
            self._inverted_again(size, one, self.tampered.start, finished=finished) for one in names
        ]

    def _inverted_again(
        self, size: int, name: str, variables: PyTree, **options: Any
    ) -> dict[str, Inverted]:
        """The triggers of the suspect's classes, on a network that a method has trained so far."""
        place, found = f"{self.name}evidence_{size}_{name}", self.evidence(size)
        return self._inverted(place, size, variables, classes=targets(found), **options)

    def _judged(self, name: str, size: int, variables: PyTree) -> dict[str, Inverted]:
        """Triggers inverted on a network, and tried on its control."""
        if name in self.memory:  # asked for often, and the control is not needed again
            return self.memory[name]
        bonafide = self.run.splits.bonafide_subset(size)
        control = control_stage(
            self.run, f"{name}_control", variables, bonafide, images=self.bonafide(size)
        )
        return self._inverted(name, size, variables, control=control)

    def _inverted(
        self, name: str, size: int, variables: PyTree, **options: Any
    ) -> dict[str, Inverted]:
        if name not in self.memory:
            bonafide = self.run.splits.bonafide_subset(size)
            self.memory[name] = search_stage(self.run, name, variables, bonafide, **options)
        return self.memory[name]

    def _fit(self, place: str, key: jax.Array, training: Training) -> dict[str, PyTree]:
        """Trains within the stage `place`, which keeps the result of its last training."""
        name = f"{place}_{training.part}" if training.part else place
        return train_stage(self.run, name, key, training, checkpoint=bool(training.part))

    def repaired(self, name: str, size: int, value: float | None = None) -> tuple[Any, float]:
        """The result of a method with a number of images, computed once.

        Args:
            name: The method.
            size: Number of bonafide images.
            value: As in `case`.

        Returns:
            What `Method.run` returns, and the seconds it took when it was computed.
        """
        method, place = METHODS[name], self.place(name, size, value)
        if not method.trains:
            seconds = self.repaired(method.end, size)[1] if method.end else 0.0
            return method.run(self.case(name, size)), seconds
        if method.kind == "family":
            return self._family(method, place, self.case(name, size))

        def compute() -> Found:
            say(f"{place}: begins")
            began = time.monotonic()
            found = method.run(self.case(name, size, value))
            tree = once(lambda: control_points(found) if method.kind == "path" else found)
            return tree, {"seconds": round(time.monotonic() - began, 3)}

        tree, kept = stage(self.run, place, self._like(method), compute)
        found = KINDS[self.run.config.curve.kind](**tree) if method.kind == "path" else tree
        return found, kept["seconds"]

    def _family(self, method: Method, place: str, case: Case) -> tuple[Family, float]:
        """Keeps the training of a family alone: its networks are quickly made from that."""
        seconds = 0.0

        def fit(key: jax.Array, training: Training) -> dict[str, PyTree]:
            def compute() -> Found:
                say(f"{place}: begins")
                began = time.monotonic()
                found = case.fit_fn(key, training)
                return found, {"seconds": round(time.monotonic() - began, 3)}

            nonlocal seconds
            like = {"params": training.params, "batch_stats": training.batch_stats}
            tree, kept = stage(self.run, place, like, compute)
            seconds += kept["seconds"]
            return tree

        return method.run(dataclasses.replace(case, fit_fn=fit)), seconds

    def _like(self, method: Method) -> PyTree:
        start = self.tampered.start
        if method.kind != "path":
            return start
        bends = (start["params"],) * self.run.config.curve.num_bends
        return {"start": start["params"], "bends": bends, "end": start["params"]}


def num_repair_steps(options: ConfigDict, size: int) -> int:
    """Training steps of every repair: epochs of fixed length, or of one pass over the images.

    Example:
        >>> options = ConfigDict({"num_epochs": 100, "steps_per_epoch": 79, "batch_size": 128})
        >>> num_repair_steps(options, 50)
        7900
    """
    steps = options.steps_per_epoch or size / options.batch_size
    return max(1, round(options.num_epochs * steps))
