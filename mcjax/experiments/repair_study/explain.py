"""Measures the paper's two explanations: noise on the weights, and input gradients.

Networks in random directions around a tampered one stay tampered until their accuracy is lost; along
the path, the gradients of the loss in clean and in stamped images differ.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mcjax.attacks.images.attack_losses import log_odds
from mcjax.attacks.poisoning.stamped import Trigger
from mcjax.core.bound_functions import Bound
from mcjax.core.keys import stream
from mcjax.core.tree import PyTree
from mcjax.data.batches import Batch, stack_batches
from mcjax.experiments.repair_study.relearning import write_relearning
from mcjax.experiments.repair_study.study import Study
from mcjax.experiments.stages.path import path_stage
from mcjax.repair.methods.noise import relative
from mcjax.runs.run import first
from mcjax.runs.workdir import write_csv
from mcjax.training.losses import MetricFn

STRENGTHS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
"""Of the noise, in units of each tensor's root mean square."""


def explain(study: Study, stamp: Trigger) -> None:
    """Writes gradients.csv, noise.csv and the re-learning test of the first seed into figures/.

    Args:
        study: The study.
        stamp: The trigger.
    """
    folder = study.run.workdir / "figures"
    ts, similarity = along_path(study, stamp)
    rows = [{"t": float(t), "cosine": float(c)} for t, c in zip(ts, similarity, strict=True)]
    write_csv(folder / "gradients.csv", ("t", "cosine"), rows)
    write_surroundings(study)
    write_relearning(study, stamp)


def write_surroundings(study: Study) -> None:
    """Writes figures/noise.csv: the study's measures around the suspect."""
    strengths, table = around_suspect(study)
    rows = [
        {"strength": s, **{column: float(v) for column, v in row.items()}}
        for s, row in zip(strengths, table, strict=True)
    ]
    write_csv(study.run.workdir / "figures" / "noise.csv", rows[0], rows)


def along_path(study: Study, stamp: Trigger) -> tuple[np.ndarray, np.ndarray]:
    """Mean cosine between the input gradients of clean and stamped images at each t."""
    size = max(study.sizes)
    curve, _ = study.repaired(study.shown_path, size)
    points = study.points(study.shown_path, curve, size)
    images = first(study.run.splits.test, study.run.config.explain.num_images)
    sets = {"test": stack_batches(images, len(images["label"]))}
    ts = np.linspace(0, 1, study.run.config.evaluation.num_points)
    table = path_stage(
        study.run,
        f"{study.name}gradients",
        points,
        ts,
        sets,
        metric_fn=gradient_similarity(study.run.network.apply, stamp),
    )
    return ts, table["test_cosine"]


def gradient_similarity(
    apply_fn: Callable[[PyTree, jax.Array], jax.Array], stamp: Trigger
) -> MetricFn:
    """The metric_fn of cos(g(x), g(stamp(x))) with g = grad_x of the cross-entropy of x's label."""
    return Bound(_similarity, apply_fn, stamp)


def _similarity(
    apply_fn: Callable[[PyTree, jax.Array], jax.Array],
    stamp: Trigger,
    variables: PyTree,
    batch: Batch,
) -> dict[str, jax.Array]:
    def total(x: jax.Array) -> jax.Array:
        # Same direction as the cross-entropy's gradient, but it does not vanish for confident networks.
        return log_odds(apply_fn(variables, x), batch["label"]).sum()

    x = batch["image"]
    a, b = _directions(jax.grad(total)(x)), _directions(jax.grad(total)(stamp(x)))
    return {"cosine": (a * b).sum(1)}


def _directions(g: jax.Array) -> jax.Array:
    """Unit vectors per example, in two steps: the squares of tiny gradients underflow."""
    g = g.reshape(len(g), -1)
    g = g / jnp.maximum(jnp.abs(g).max(1, keepdims=True), jnp.finfo(g.dtype).tiny)
    return g / jnp.maximum(jnp.linalg.norm(g, axis=1, keepdims=True), jnp.finfo(g.dtype).tiny)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["key", "params", "strengths"], meta_fields=[]
)
@dataclasses.dataclass(frozen=True, eq=False)
class Surroundings:
    """Random networks around one: point i has strength strengths[i] and its own noise."""

    key: jax.Array
    params: PyTree
    strengths: jax.Array

    def __call__(self, i: jax.Array) -> PyTree:
        """The parameters at point i."""
        place = i.astype(jnp.int32)
        return relative(stream(self.key, "around", place), self.params, sigma=self.strengths[place])


def around_suspect(study: Study) -> tuple[tuple[float, ...], list[dict[str, float]]]:
    """The study's measures around the suspect: means over the draws of each strength."""
    suspect, num_draws = study.tampered.start, study.run.config.explain.num_draws
    strengths = jnp.repeat(jnp.asarray(STRENGTHS), num_draws)
    cloud = Surroundings(study.run.key("surroundings"), suspect["params"], strengths)
    points = study.with_stats(cloud, suspect, suspect, max(study.sizes), keep_ends=False)
    number, measure = study.run.config.explain.num_images, study.tampered.measure
    sets = {
        name: stack_batches(first(part, number), min(number, len(part["label"])))
        for name, part in (("test", study.run.splits.test), ("success", study.tampered.success))
    }
    places = np.arange(len(strengths))
    table = path_stage(
        study.run,
        f"{study.name}surroundings",
        points,
        places,
        sets,
        metric_fn=study.run.metric_fn,
    )
    columns = {"test_accuracy": "test_accuracy", "success_accuracy": measure}
    means = {new: table[old].reshape(-1, num_draws).mean(1) for old, new in columns.items()}
    return STRENGTHS, [
        {column: float(v[i]) for column, v in means.items()} for i in range(len(STRENGTHS))
    ]
