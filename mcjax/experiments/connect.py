"""The main job: train two networks, connect them by a curve of low loss, evaluate all of it.

Stages: endpoint_a, endpoint_b (and alignment), curve, path, plane, report. Each writes a file or a
folder; a finished stage is not run again.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mcjax.core.errors import UserError
from mcjax.core.processes import once
from mcjax.core.progress import say
from mcjax.core.tree import PyTree
from mcjax.curves import KINDS, Curve
from mcjax.curves.batch_stats import CurveWithStats
from mcjax.curves.geometry import arc_length, distances, farthest_point, path_mean, step_lengths
from mcjax.curves.plane import Plane, grid, through
from mcjax.data.batches import stack_batches
from mcjax.experiments.result import write_result
from mcjax.experiments.stages.alignment import aligned
from mcjax.experiments.stages.curve import curve_options, curve_stage
from mcjax.experiments.stages.endpoints import train_network, train_side_by_side
from mcjax.experiments.stages.path import Table, path_stage
from mcjax.report.connect_figures import PATH_CAPTION, path_panels, plane_figure
from mcjax.report.panels import Chart
from mcjax.runs.checkpoint import exists
from mcjax.runs.run import Run, first, open_run
from mcjax.runs.workdir import write_csv
from mcjax.training.curve import starting_curve
from mcjax.training.objectives import curve_loss, endpoint_loss

ENDPOINTS = ("endpoint_a", "endpoint_b")
COLUMNS = ("t", "train_loss", "train_accuracy", "test_loss", "test_accuracy")


def run_experiment(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Runs the stages of the experiment that are not finished.

    Args:
        config: See `mcjax.runs.config.connect`.
        workdir: Directory of the run.

    Returns:
        The contents of result.json.
    """
    run = open_run(config, workdir, "connect")
    train_side_by_side(
        [(run, name) for name in ENDPOINTS],
        lambda run: run.on_device["train"],
        endpoint_loss(run.network),
    )
    a, b = networks(run)
    curve = curve_between(run, a, b)
    line = straight_line(curve)
    ts = np.linspace(0, 1, config.evaluation.num_points)
    path = path_stage(run, "path", with_stats(run, curve, a, b), ts, run.evaluated)
    write_path(run.workdir / "path.csv", ts, path)
    straight = path_stage(run, "line", with_stats(run, line, a, b), ts, run.evaluated)
    write_path(run.workdir / "figures" / "line.csv", ts, straight)
    surface = look_at_plane(run, curve, a, b)
    return once(lambda: report(run, curve, ts, path, straight, surface))


def train_endpoint(run: Run, name: str) -> PyTree:
    """One of the two networks, on the clean training images."""
    return train_network(run, name, run.on_device["train"], endpoint_loss(run.network))


def networks(run: Run) -> tuple[PyTree, PyTree]:
    """The two networks that the curve connects, trained or restored."""
    a, b = (train_endpoint(run, name) for name in ENDPOINTS)
    return a, aligned(run, "alignment", a, b)


def curve_between(run: Run, a: PyTree, b: PyTree) -> Curve:
    """Trains the bends (and free ends) of the curve between two networks, or restores it."""
    options = run.config.curve
    key = run.key("curve")
    return curve_stage(
        run,
        "curve",
        key,
        starting_curve(key, run.network, curve_options(options), a, b),
        a["batch_stats"],
        run.on_device[options.images],
        loss_fn=curve_loss(
            run.network,
            KINDS[options.kind],
            weight_decay=options.weight_decay,
            num_strata=options.num_strata,
        ),
        options=options,
        fix_start=options.fix_start,
        fix_end=options.fix_end,
    )


def straight_line(curve: Curve) -> Curve:
    """The straight line between the ends, with as many bends: the curve's program evaluates it too."""
    return type(curve).connect(curve.start, curve.end, len(curve.bends))


def trained(run: Run) -> tuple[PyTree, PyTree, Curve, Curve]:
    """The networks, the curve and the straight line of a run with finished training.

    Raises:
        UserError: The training is not finished.
    """
    for name in (*ENDPOINTS, "curve"):
        if not exists(run.checkpoint(name)):
            raise UserError(f"{run.workdir} has no trained {name} yet; finish its training first")
    a, b = networks(run)
    curve = curve_between(run, a, b)
    return a, b, curve, straight_line(curve)


def with_stats(run: Run, curve: Curve | Plane, a: PyTree, b: PyTree) -> CurveWithStats:
    """The curve with BatchNorm statistics, so that each point is a whole network."""
    free = not (run.config.curve.fix_start and run.config.curve.fix_end)
    if free and run.network.has_batch_stats:
        say("the ends were trained with the curve: their BatchNorm statistics are recomputed too")
    return CurveWithStats(
        curve,
        a["batch_stats"],
        b["batch_stats"],
        run.normalised_by,
        run.network.apply_train,
        run.config.evaluation.batch_stats_batch_size,
        keep_ends=not free,
    )


def write_path(path: Path, ts: np.ndarray, table: Table) -> None:
    """Writes path.csv: one row per t."""
    rows = [
        {"t": float(t), **{column: float(table[column][i]) for column in COLUMNS[1:]}}
        for i, t in enumerate(ts)
    ]
    write_csv(path, COLUMNS, rows)


def look_at_plane(run: Run, curve: Curve, a: PyTree, b: PyTree) -> dict[str, np.ndarray] | None:
    """Test loss and error on a grid of the plane through start, bend and end."""
    num_points = run.config.evaluation.plane_points
    if not num_points or not curve.bends:
        return None
    plane = through(curve)
    points = grid(plane, curve, num_points=num_points)
    few = first(run.splits.test, run.config.evaluation.plane_images)
    batch_size = min(len(few["label"]), run.config.evaluation.batch_size)
    sets = {"test": stack_batches(few, batch_size)}
    table = path_stage(run, "plane", with_stats(run, plane, a, b), points.xy, sets)
    ts = jnp.linspace(0, 1, 200)
    trace = jax.vmap(lambda t: plane.coordinates(curve(t)))(ts)
    rows = [
        {
            "x": float(x),
            "y": float(y),
            "test_loss": float(table["test_loss"][i]),
            "test_accuracy": float(table["test_accuracy"][i]),
        }
        for i, (x, y) in enumerate(np.asarray(points.xy))
    ]
    write_csv(run.workdir / "figures" / "plane.csv", rows[0].keys(), rows)
    return {
        "x": np.asarray(points.x),
        "y": np.asarray(points.y),
        "test_loss": table["test_loss"].reshape(num_points, num_points),
        "trace": np.asarray(trace),
        "points": np.asarray([plane.coordinates(w) for w in curve.points]),
    }


def summary(
    curve: Curve, ts: np.ndarray, path: Table, straight: Table
) -> dict[str, float | dict[str, float]]:
    """Summary metrics of a curve, compared with the straight line.

    Returns:
        Accuracies of the ends, of the worst and mean point of curve and line; barriers in loss;
        lengths.
    """
    lengths = step_lengths(curve, ts)
    farthest = farthest_point(curve)
    worst_end = min(path["test_accuracy"][0], path["test_accuracy"][-1])
    metrics = {
        "start_test_accuracy": path["test_accuracy"][0],
        "end_test_accuracy": path["test_accuracy"][-1],
        "curve_worst_test_accuracy": path["test_accuracy"].min(),
        "curve_worst_t": ts[path["test_accuracy"].argmin()],
        "curve_mean_test_accuracy": path_mean(path["test_accuracy"], lengths),
        "curve_drop_below_worse_end": worst_end - path["test_accuracy"].min(),
        "line_worst_test_accuracy": straight["test_accuracy"].min(),
        "curve_train_loss_barrier": barrier(path["train_loss"]),
        "line_train_loss_barrier": barrier(straight["train_loss"]),
        "curve_test_loss_barrier": barrier(path["test_loss"]),
        "line_test_loss_barrier": barrier(straight["test_loss"]),
        "arc_length": arc_length(curve),
        "distance_of_ends": distances(curve, np.ones(1))[0],
        "farthest_from_start_t": farthest.t,
        "farthest_from_start_distance": farthest.distance,
    }
    return {name: float(value) for name, value in metrics.items()}


def barrier(losses: np.ndarray) -> float:
    """Height of a path's loss over its higher end: max_t L(t) - max(L(0), L(1)), in nats.

    Example:
        >>> barrier(np.array([0.25, 1.0, 0.5]))
        0.5
    """
    return float(losses.max() - max(losses[0], losses[-1]))


QUESTION = "Are the two networks joined by a path of low loss?"

MOST_LOST = 0.02
"""Test accuracy that a point of a path may lose against the worse network, for the answer yes."""


LEARNED = 0.1
"""A network counts as trained from this share of the way between guessing and no error."""


def answer(metrics: Mapping[str, Any], *, guessing: float) -> list[str]:
    """The conclusions, in sentences; the first says yes or no, or that the networks are not trained.

    Args:
        metrics: The result of `summary`.
        guessing: Accuracy of always giving the commonest label (`guessing`), a fraction.

    Example:
        >>> names = ("curve_test_loss_barrier", "line_test_loss_barrier")
        >>> metrics = dict.fromkeys(names, 0.0) | {"curve_worst_test_accuracy": 0.9375}
        >>> metrics |= {"start_test_accuracy": 0.95, "end_test_accuracy": 0.9375 + 2**-8}
        >>> print(answer({**metrics, "line_worst_test_accuracy": 0.5}, guessing=0.1)[0])
        Yes: the curve loses at most 0.0039 of test accuracy against the worse network (up to 0.02 is a yes). The straight line loses 0.4414.
    """
    worse = min(metrics["start_test_accuracy"], metrics["end_test_accuracy"])
    curve, line = (worse - metrics[f"{name}_worst_test_accuracy"] for name in ("curve", "line"))
    untrained = worse < guessing + LEARNED * (1 - guessing)
    return [
        "Unclear: the worse network is hardly better than guessing; train the networks for longer."
        if untrained
        else f"{'Yes' if curve <= MOST_LOST else 'No'}: the curve loses at most {curve:.4f} of test accuracy "
        f"against the worse network (up to {MOST_LOST} is a yes). The straight line loses {line:.4f}.",
        "The worst point of the curve has "
        f"test accuracy {metrics['curve_worst_test_accuracy']:.4f}, the worst of the "
        f"straight line {metrics['line_worst_test_accuracy']:.4f}; the networks "
        f"themselves have {metrics['start_test_accuracy']:.4f} and "
        f"{metrics['end_test_accuracy']:.4f}.",
        "Barrier of the test loss: "
        f"{metrics['curve_test_loss_barrier']:.4f} nats on the curve, "
        f"{metrics['line_test_loss_barrier']:.4f} on the straight line.",
    ]


def guessing(run: Run) -> float:
    """Accuracy on the test images of always giving the commonest label."""
    label = run.splits.test["label"]
    return float(np.bincount(label).max() / len(label))


def table_rows(run: Run, ts: np.ndarray, path: Table, straight: Table) -> list[dict[str, Any]]:
    """Rows of table.csv: the ends, and the worst point of the curve and of the straight line."""
    images = run.config.curve.images
    bonafide = run.config.data.num_bonafide if images == "bonafide" else ""
    accuracy = {"curve": path["test_accuracy"], "line": straight["test_accuracy"]}
    places = [("start", "curve", 0), ("end", "curve", len(ts) - 1)]
    places += [(f"{name}_worst", name, int(v.argmin())) for name, v in accuracy.items()]
    return [
        {
            "method": method,
            "bonafide": bonafide,
            "seed": run.config.seed,
            "t": float(ts[i]),
            "clean_accuracy": float(accuracy[name][i]),
        }
        for method, name, i in places
    ]


def report(
    run: Run,
    curve: Curve,
    ts: np.ndarray,
    path: Table,
    straight: Table,
    surface: dict[str, np.ndarray] | None,
) -> dict[str, Any]:
    """Writes the table, the figures, the page and, last, result.json."""
    metrics = summary(curve, ts, path, straight)
    rows = table_rows(run, ts, path, straight)
    write_csv(run.workdir / "table.csv", rows[0], rows)
    panels = path_panels(ts, path, straight, run.num_evaluated)
    if surface is not None:
        plane_figure(run.workdir / "figures" / "plane.png", surface)
    return write_result(
        run,
        metrics,
        question=QUESTION,
        answer=answer(metrics, guessing=guessing(run)),
        charts=[Chart("path", panels, PATH_CAPTION)],
        tables={"The networks, and the worst points between them": rows},
    )
