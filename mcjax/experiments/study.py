"""A repair study: tampered networks, a path and every baseline, judged by the same images.

What was tampered with, and how success is measured, comes from the experiment (`Tampered`); all
that follows is the same for backdoors and for injected errors.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mcjax.core.sharding import keep
from mcjax.core.tree import PyTree
from mcjax.curves import Curve
from mcjax.curves.batch_stats import CurveWithStats
from mcjax.data import augmentation
from mcjax.data.batches import Batch, stack_batches
from mcjax.data.splits import Examples
from mcjax.evaluation.networks_as_path import Stacked
from mcjax.experiments.stages.path import Table, walk
from mcjax.experiments.stages.training import fit
from mcjax.runs.run import Run, first
from mcjax.runs.stage import Found, stage
from mcjax.training import LossFn
from mcjax.training.losses import accuracy, cross_entropy


@dataclasses.dataclass(frozen=True)
class Tampered:
    """What an attacker has left, and how to tell whether it still works.

    Args:
        measure: The name of the success rate, a column: "attack_success_rate".
        success: Examples on which the tampered network does as the attacker wants where it
            gives their "label"; every one of them counts.
        start: The suspect network, {"params", "batch_stats"}.
        end: The second network; None if it is to be a fine-tuned copy of the first.
        suspects: The control points that may be tampered with: 0 the start, -1 the end.
        references: Other networks to report beside them, by name: an untampered twin.
        target: The class whose own images count in the official code's success rate, untouched and
            trivially right; None where that rate is no other.
    """

    measure: str
    success: Examples
    start: PyTree
    end: PyTree | None
    suspects: tuple[int, ...]
    references: Mapping[str, PyTree]
    target: int | None = None


@dataclasses.dataclass(frozen=True)
class Study:
    """A run, or one seed and fold of it, and what it is about; a record.

    Args:
        run: The run; its `part` names the seed and the fold.
        tampered: The networks and the measure of success.
        fold: The fold, None without cross-validation.
    """

    run: Run
    tampered: Tampered
    fold: int | None = None

    @property
    def name(self) -> str:
        """Put before the names of this part's stages."""
        return self.run.part if self.fold is None else f"{self.run.part}fold_{self.fold}/"

    @property
    def options(self) -> ConfigDict:
        """The config's part about repairs."""
        return self.run.config.repair

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bonafide sizes, largest first."""
        return tuple(sorted(self.options.sizes, reverse=True))

    def bonafide(self, size: int) -> Batch:
        """The bonafide images of one size, on the device, repeated to the length of all sizes.

        Every size then runs the same compiled program: the official code's repetition, kept for
        another reason. Where no common multiple is in reach they stand once.
        """
        examples = self.run.splits.bonafide_subset(size)
        length = math.lcm(*self.sizes)
        times = length // size if length <= 10 * max(self.sizes) else 1
        return {k: jnp.asarray(np.concatenate([v] * times)) for k, v in examples.items()}

    @functools.cached_property
    def judged_by(self) -> dict[str, Batch]:
        """The images that every network of the study is judged by, on the devices."""
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
        """The images that BatchNorm is recomputed from at a size; None without BatchNorm."""
        which = self.run.config.evaluation.batch_stats
        if which == "none" or not self.run.network.has_batch_stats:
            return None
        if which == "train":
            return self.run.normalised_by
        number = self.run.config.evaluation.batch_stats_images or None
        return keep(self.run.splits.bonafide_subset(size)["image"][:number], self.run.mesh)

    @functools.cached_property
    def metric_fn(self) -> Callable[[PyTree, Batch], dict[str, jax.Array]]:
        """Loss, accuracy, and the share of images that are of the target class and right."""
        return metrics_with_target(self.run.network.apply, self.tampered.target)


@functools.cache  # one function a network, so one compiled program for all seeds
def metrics_with_target(
    apply_fn: Callable[[PyTree, jax.Array], jax.Array], target: int | None
) -> Callable[[PyTree, Batch], dict[str, jax.Array]]:
    """The metric_fn of a study: "loss", "accuracy", and "target": right and of class target."""

    def metric_fn(variables: PyTree, batch: Batch) -> dict[str, jax.Array]:
        logits, y = apply_fn(variables, batch["image"]), batch["label"]
        right = accuracy(logits, y)
        metrics = {"loss": cross_entropy(logits, y), "accuracy": right}
        return metrics if target is None else {**metrics, "target": right * (y == target)}

    return metric_fn


def judge(
    study: Study, name: str, curve: PyTree, ts: jax.typing.ArrayLike, size: int | None = None
) -> Table:
    """Every measure of a study at the points of a path.

    Args:
        study: The study.
        name: The stage.
        curve: What `evaluate_path` takes.
        ts: Points.
        size: Bonafide size; with it, loss and accuracy on those images are reported too.

    Returns:
        path.csv's columns but t, each [len(ts)].
    """
    sets = study.judged_by if size is None else study.sets(size)
    table = walk(study.run, f"{study.name}{name}", curve, ts, sets, metric_fn=study.metric_fn)
    measure = study.tampered.measure
    columns = {} if size is None else {k: table[k] for k in ("train_loss", "train_accuracy")}
    columns |= {k: table[k] for k in ("selection_accuracy", "test_loss", "test_accuracy")}
    columns[measure] = table["success_accuracy"]
    if study.tampered.target is not None:
        num_test, num_success = (study.judged_by[k]["mask"].sum() for k in ("test", "success"))
        right = table["test_target"] * num_test + table["success_accuracy"] * num_success
        label = study.judged_by["test"]
        num_target = ((label["label"] == study.tampered.target) * label["mask"]).sum()
        columns[f"{measure}_official_denominator"] = np.asarray(right / (num_target + num_success))
    return columns


def judge_networks(study: Study, name: str, networks: Sequence[PyTree]) -> Table:
    """Every measure of a study for networks given one by one."""
    return judge(study, name, Stacked.of(networks), np.arange(len(networks)))


def train_method(
    study: Study,
    name: str,
    size: int,
    params: PyTree,
    batch_stats: PyTree,
    *,
    loss_fn: LossFn,
    learning_rate: float,
    fixed: PyTree = None,
    decay_in_optimizer: bool = True,
) -> tuple[PyTree, float]:
    """Trains on the bonafide images of a size, with the budget that all methods share.

    Args:
        study: The study.
        name: The method.
        size: Number of bonafide images.
        params: Where to start.
        batch_stats: Likewise.
        loss_fn: The objective.
        learning_rate: Of the first half.
        fixed: What the loss needs beside the parameters.
        decay_in_optimizer: Whether the weight decay is the optimizer's.

    Returns:
        {"params", "batch_stats"} and the seconds it took.
    """
    run, options = study.run, study.options
    place = f"{study.name}{name}_{size}"

    def compute() -> Found:
        training = ConfigDict(
            {
                "learning_rate": learning_rate,
                **{k: options[k] for k in ("batch_size", "momentum", "nesterov", "weight_decay")},
                "num_steps": num_repair_steps(options, size),
            }
        )
        began = time.monotonic()
        state = fit(
            run,
            place,
            run.key(place),
            params,
            batch_stats,
            fixed,
            study.bonafide(size),
            loss_fn=loss_fn,
            options=training,
            decay_in_optimizer=decay_in_optimizer,
            augment_fn=augmentation.get(options.augmentation),
        )
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        return variables, {"seconds": round(time.monotonic() - began, 3)}

    variables, kept = stage(run, place, {"params": params, "batch_stats": batch_stats}, compute)
    return variables, kept["seconds"]


def num_repair_steps(options: ConfigDict, size: int) -> int:
    """Steps of every repair: epochs of a fixed length, or of as many batches as the images make.

    Example:
        >>> options = ConfigDict({"num_epochs": 100, "steps_per_epoch": 79, "batch_size": 128})
        >>> num_repair_steps(options, 50)
        7900
    """
    steps = options.steps_per_epoch or size / options.batch_size
    return max(1, round(options.num_epochs * steps))


def with_stats(study: Study, curve: Curve, start: PyTree, end: PyTree, size: int) -> CurveWithStats:
    """A curve whose points are whole networks, BatchNorm recomputed from a size's images."""
    return CurveWithStats(
        curve,
        start["batch_stats"],
        end["batch_stats"],
        study.normalised_by(size),
        study.run.network.apply_train,
        study.run.config.evaluation.batch_stats_batch_size,
    )
