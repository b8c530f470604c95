"""Output of the evasion experiment: a table per path, one of all paths, figures and the page."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from mcjax.evaluation.correlation import barrier, correlation
from mcjax.evaluation.intervals import mean_interval
from mcjax.experiments.result import write_result
from mcjax.experiments.stages.path import Table
from mcjax.report.autoattack_figures import autoattack_panel
from mcjax.report.evasion_figures import path_panels, path_title, transfer_figure
from mcjax.report.panels import BAND, Chart
from mcjax.runs.run import Run
from mcjax.runs.workdir import write_csv

QUANTILES = (0.1, 0.5, 0.9)
Row = dict[str, Any]


def columns(ts: np.ndarray, clean: Table, examples: Table) -> Table:
    """path.csv's columns: means, and quantiles of the eigenvalue."""
    table = {"t": ts, **clean}
    for name in ("robust_loss", "robust_accuracy", "robust_margin", "logit_scale", "zero_gradient"):
        table[name] = examples[name].mean(1)
    table["input_hessian_eigenvalue"] = examples["eigenvalue"].mean(1)
    for q in QUANTILES:
        table[f"eigenvalue_quantile_{q:g}"] = np.quantile(examples["eigenvalue"], q, axis=1)
    table["eigenvalue_residual"] = examples["residual"].mean(1)
    for name in ("alignment", "gradient_term", "curvature_term", "model_error"):
        table[name] = examples[name].mean(1)
    return table


def numbers(table: Table, examples: Table) -> Row:
    """One row of table.csv: ends, middle, barriers and correlations of a path."""
    robust_barrier = barrier(examples["robust_loss"])
    error_barrier = barrier(1 - examples["robust_accuracy"])
    clean_barrier = barrier(examples["loss"])
    pearson = correlation(table["robust_loss"], table["input_hessian_eigenvalue"])
    spearman = correlation(
        table["robust_loss"], table["input_hessian_eigenvalue"], method="spearman"
    )
    middle = len(table["t"]) // 2
    row: Row = {}
    for place, i in (("start", 0), ("middle", middle), ("end", -1)):
        row[f"{place}_accuracy"] = float(table["test_accuracy"][i])
        row[f"{place}_robust_accuracy"] = float(table["robust_accuracy"][i])
    for name, interval in (
        ("clean_loss_barrier", clean_barrier),
        ("robust_loss_barrier", robust_barrier),
        ("robust_error_barrier", error_barrier),
        ("pearson", pearson),
        ("spearman", spearman),
    ):
        row |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return row


def autoattack_numbers(found: Table) -> Row:
    """The part of table.csv's row that AutoAttack adds: ends, middle and barriers on the same images."""
    row: Row = {}
    middle = len(found["accuracy"]) // 2
    for place, i in (("start", 0), ("middle", middle), ("end", -1)):
        row[f"{place}_autoattack_accuracy"] = float(found["autoattack_accuracy"][i].mean())
    for name in ("autoattack", "pgd"):
        interval = barrier(1 - found[f"{name}_accuracy"])
        column = (
            "autoattack_error_barrier" if name == "autoattack" else "same_images_pgd_error_barrier"
        )
        row |= {
            column: interval.value,
            f"{column}_low": interval.low,
            f"{column}_high": interval.high,
        }
    return row


def write_table(path: Path, table: Table) -> None:
    """Writes a path's table: one row per t."""
    rows = [{k: float(v[i]) for k, v in table.items()} for i in range(len(table["t"]))]
    write_csv(path, table, rows)


def report(
    run: Run, rows: list[Row], tables: dict[str, Table], ensembles: dict[str, Table]
) -> dict[str, Any]:
    """Writes the tables, the figures, the page and, last, result.json."""
    folder = run.workdir / "figures"
    write_csv(run.workdir / "table.csv", rows[0], rows)
    write_table(run.workdir / "path.csv", next(iter(tables.values())))
    by_path = {k: list(g) for k, g in itertools.groupby(sorted(rows, key=_path), key=_path)}
    caption = (
        "Loss, error and largest eigenvalue of the input Hessian (of the loss in nats, images in [0, 1]) "
        "along each path, first seed. Brackets: 95 % interval of the correlation over points of the path. "
        f"Errors: {BAND}"
    )
    num_robust = min(run.config.evaluation.robust_images, len(run.splits.test["label"]))
    num_images = run.num_evaluated | {"robust": num_robust}
    charts = [
        Chart(
            name.replace(" ", "_"),
            path_panels(table, num_images),
            "" if i else caption,
            title=path_title(name, by_path[name]),
        )
        for i, (name, table) in enumerate(tables.items())
    ]
    num_attacked = min(run.config.autoattack.num_images, len(run.splits.test["label"]))
    charts += [
        Chart(
            f"{name.replace(' ', '_')}_autoattack",
            [autoattack_panel(table, num_attacked)],
            "" if i else AUTOATTACK_CAPTION,
            title=f"{name}, AutoAttack",
        )
        for i, (name, table) in enumerate(ensembles.items())
    ]
    matrices = {
        name: json.loads(file.read_text())
        for name in tables
        if (file := folder / f"seed_{rows[0]['seed']}" / f"{name} transfer.json").exists()
    }
    transfer_figure(folder / "transfer.png", matrices)
    metrics = {}
    for name, group in by_path.items():
        columns = ["robust_loss_barrier", "robust_error_barrier", "pearson", "spearman"]
        if ensembles:
            columns.append("autoattack_error_barrier")
        for column in columns:
            mean, half = mean_interval([row[column] for row in group])
            metrics[f"{name} {column}"] = mean
            if len(group) > 1:
                metrics[f"{name} {column} interval"] = half
    return write_result(
        run,
        metrics,
        question=QUESTION,
        answer=answer(rows),
        charts=charts,
        tables=page_tables(rows),
    )


def _path(row: Row) -> str:
    return row["path"]


QUESTION = (
    "Does a barrier of robustness stand on the path though none of the clean loss does, and does "
    "the robust loss go with the largest eigenvalue of the input Hessian?"
)


AUTOATTACK_CAPTION = (
    "Error under AutoAttack beside that under PGD, on the same images, first seed. The attacks of AutoAttack "
    "find what a single gradient attack misses, so its error is higher."
)


def answer(rows: list[Row]) -> list[str]:
    """The conclusions: one line per path and seed, and one more under AutoAttack."""
    lines = [
        f"{row['path']}, seed {row['seed']}: barrier of the clean loss "
        f"{row['clean_loss_barrier']:.3f}, of the robust loss {row['robust_loss_barrier']:.3f} "
        f"[{row['robust_loss_barrier_low']:.3f}, {row['robust_loss_barrier_high']:.3f}] nats; "
        f"correlation {row['pearson']:.3f} [{row['pearson_low']:.3f}, {row['pearson_high']:.3f}]."
        for row in rows
    ]
    return lines + [
        f"{row['path']}, seed {row['seed']}: barrier of the error under AutoAttack "
        f"{_with_interval(row, 'autoattack_error_barrier')}, under PGD on the same images "
        f"{_with_interval(row, 'same_images_pgd_error_barrier')}."
        for row in rows
        if "autoattack_error_barrier" in row
    ]


def page_tables(rows: list[Row]) -> dict[str, list[Row]]:
    """table.csv in parts that fit a page; each value with its interval."""
    titles = {
        "Accuracy of ends and middle, untouched and attacked": ("start_", "middle_", "end_"),
        "Barriers, in nats and as a fraction of images": ("_barrier",),
        "Correlation of robust loss and eigenvalue over the path": ("pearson", "spearman"),
        "Ensembles of the path's points": ("ensemble_",),
    }
    tables = {}
    for title, parts in titles.items():
        names = [
            name
            for name in rows[0]
            if any(part in f"{name}_" or part in name for part in parts)
            and not name.endswith(("_low", "_high"))
        ]
        tables[title] = [
            {"path": row["path"], "seed": row["seed"], **{n: _with_interval(row, n) for n in names}}
            for row in rows
        ]
    return tables


def _with_interval(row: Row, name: str) -> Any:
    if f"{name}_low" not in row:
        return row[name]
    return f"{row[name]:.3f} [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]"
