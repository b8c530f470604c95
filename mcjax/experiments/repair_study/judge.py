"""Evaluates points of a path, or single networks, with every measure of a study."""

from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from mcjax.core.bound_functions import Bound
from mcjax.core.tree import PyTree
from mcjax.data.batches import Batch
from mcjax.evaluation.networks_as_path import Stacked
from mcjax.experiments.repair_study.study import Study
from mcjax.experiments.stages.path import Table, path_stage
from mcjax.repair.evidence import estimate
from mcjax.repair.evidence.invert import Inverted
from mcjax.training.losses import MetricFn, accuracy, cross_entropy


def judge(
    study: Study,
    name: str,
    curve: PyTree,
    ts: jax.typing.ArrayLike,
    size: int | None = None,
    *,
    inverted: Mapping[str, Inverted] | None = None,
    again: Sequence[Mapping[str, Inverted]] = (),
) -> Table:
    """Evaluates the points of a path with every measure of a study.

    Args:
        study: The study.
        name: The stage.
        curve: What `evaluate_path` takes.
        ts: Points.
        size: Number of bonafide images; if given, loss and accuracy on them are reported too.
        inverted: Triggers inverted on the suspect; if given, their success is reported too.
        again: Triggers that were inverted anew while the path was trained.

    Returns:
        The columns of path.csv except t, each [len(ts)].
    """
    sets = study.judged_by if size is None else study.sets(size)
    apply_fn = study.run.network.apply
    metric_fn = metrics_with_target(apply_fn, study.tampered.target)
    if inverted is not None:
        sets = {**sets, estimate.MARK: estimate.marked(study.run.splits.selection)}
        curve = estimate.held_out(curve, inverted, again)
        metric_fn = estimate.with_success(metric_fn, apply_fn)
    table = path_stage(study.run, f"{study.name}{name}", curve, ts, sets, metric_fn=metric_fn)
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
    if inverted is not None:
        hits = {
            k.removeprefix(f"{estimate.MARK}_"): v
            for k, v in table.items()
            if k.startswith(estimate.MARK)
        }
        columns["estimated_attack_success"] = estimate.estimated_success(hits, inverted)
        columns["suspicious_success"] = estimate.suspicious_success(hits, inverted)
        for form, rate in estimate.success_by_form(hits).items():
            columns[f"{form}_success"] = rate
    return columns


def judge_networks(study: Study, name: str, networks: Sequence[PyTree]) -> Table:
    """Evaluates single networks with every measure of a study."""
    return judge(study, name, Stacked.of(networks), np.arange(len(networks)))


def metrics_with_target(
    apply_fn: Callable[[PyTree, jax.Array], jax.Array], target: int | None
) -> MetricFn:
    """The metric_fn of a study: "loss", "accuracy", and "target": right and of class target."""
    return Bound(_metrics, apply_fn, target)


def _metrics(
    apply_fn: Callable[[PyTree, jax.Array], jax.Array],
    target: int | None,
    variables: PyTree,
    batch: Batch,
) -> dict[str, jax.Array]:
    logits, y = apply_fn(variables, batch["image"]), batch["label"]
    right = accuracy(logits, y)
    metrics = {"loss": cross_entropy(logits, y), "accuracy": right}
    return metrics if target is None else {**metrics, "target": right * (y == target)}
