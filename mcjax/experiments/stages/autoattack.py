"""AutoAttack at some points of a path, as a stage: resumable, with PGD on the same images."""

from pathlib import Path
from typing import Any

import numpy as np

from mcjax.attacks.images.autoattack_rounds import STANDARD
from mcjax.data.batches import stack_batches
from mcjax.evaluation.autoattack_metrics import autoattack_metrics
from mcjax.evaluation.path import examples_along_path
from mcjax.experiments.stages.path import Table, path_stage
from mcjax.runs.run import Run, first
from mcjax.runs.workdir import write_csv


def autoattack_stage(
    run: Run,
    name: str,
    curve: Any,
    ts: np.ndarray,
    *,
    num_images: int,
    batch_size: int,
    eps: float,
    norm: str,
    num_steps: int,
    num_queries: int,
    pgd_step_size: float,
    pgd_num_steps: int,
) -> Table:
    """What withstands AutoAttack and PGD at every t, per test image.

    Args:
        run: The run.
        name: The stage's name.
        curve: The path, as for `path_stage`.
        ts: Points, [T].
        num_images: Test images to attack, the first ones.
        batch_size: Images per batch.
        eps: Radius of the ball.
        norm: Its norm.
        num_steps: See `autoattack_metrics`; so are the next.
        num_queries: Likewise.
        pgd_step_size: Likewise.
        pgd_num_steps: Likewise.

    Returns:
        The columns of `autoattack_metrics`, [T, N].
    """
    images = first(run.splits.test, num_images)
    metric_fn = autoattack_metrics(
        run.network, seed=run.config.seed, eps=eps, norm=norm, num_steps=num_steps,
        num_queries=num_queries, pgd_step_size=pgd_step_size, pgd_num_steps=pgd_num_steps,
    )  # fmt: skip
    batches = stack_batches(images, min(batch_size, len(images["label"])))
    table = path_stage(
        run,
        name,
        curve,
        ts,
        {"test": batches},
        metric_fn=metric_fn,
        evaluate_fn=examples_along_path,
    )
    return {column.removeprefix("test_"): v for column, v in table.items()}


def write_autoattack(path: Path, ts: np.ndarray, table: Table) -> Table:
    """Writes the means over images, one row per t, and returns them with "t"."""
    names = ["accuracy", "pgd_accuracy", "autoattack_accuracy"]
    names += [f"after_{attack}" for attack in STANDARD] + ["zero_gradient"]
    means = {"t": ts, **{name: table[name].mean(1) for name in names}}
    rows = [{k: float(v[i]) for k, v in means.items()} for i in range(len(ts))]
    write_csv(path, means, rows)
    return means
