"""What the evasion experiment leaves: a table a path, one over all of them, figures and the page."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from mcjax.correlation import barrier, correlation
from mcjax.experiments.finish import finish
from mcjax.experiments.run import Run
from mcjax.experiments.walk import Table
from mcjax.intervals import mean_interval
from mcjax.report import evasion_figures
from mcjax.workdir import write_csv

QUANTILES = (0.1, 0.5, 0.9)
Row = dict[str, Any]


def columns(ts: np.ndarray, clean: Table, examples: Table) -> Table:
    """path.csv's columns: means, and quantiles of the eigenvalue."""
    table = {"t": ts, **clean}
    for name in ("robust_loss", "robust_accuracy", "robust_margin", "logit_scale"):
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


def write_table(path: Path, table: Table) -> None:
    """A path's table: one row a t."""
    rows = [{k: float(v[i]) for k, v in table.items()} for i in range(len(table["t"]))]
    write_csv(path, table, rows)


def report(run: Run, rows: list[Row], tables: dict[str, Table]) -> dict[str, Any]:
    """The tables, the figures, the page, and last of all result.json."""
    folder = run.workdir / "figures"
    write_csv(run.workdir / "table.csv", rows[0], rows)
    write_table(run.workdir / "path.csv", next(iter(tables.values())))
    by_path = {k: list(g) for k, g in itertools.groupby(sorted(rows, key=_path), key=_path)}
    for name, table in tables.items():
        evasion_figures.path_figure(
            folder / f"{name.replace(' ', '_')}.png", name, table, by_path[name]
        )
    matrices = {
        name: json.loads(file.read_text())
        for name in tables
        if (file := folder / f"seed_{rows[0]['seed']}" / f"{name} transfer.json").exists()
    }
    evasion_figures.transfer_figure(folder / "transfer.png", matrices)
    metrics = {}
    for name, group in by_path.items():
        for column in ("robust_loss_barrier", "robust_error_barrier", "pearson", "spearman"):
            mean, half = mean_interval([row[column] for row in group])
            metrics[f"{name} {column}"] = mean
            if len(group) > 1:
                metrics[f"{name} {column} interval"] = half
    return finish(run, metrics, answer=answer(rows))


def _path(row: Row) -> str:
    return row["path"]


def answer(rows: list[Row]) -> str:
    """The report's first words: what was asked, and what came out."""
    lines = [
        "Does a barrier of robustness stand on the path though none of the clean loss does, and does "
        "the robust loss go with the largest eigenvalue of the input Hessian?"
    ]
    for row in rows:
        lines.append(
            f"{row['path']}, seed {row['seed']}: barrier of the clean loss "
            f"{row['clean_loss_barrier']:.3f}, of the robust loss {row['robust_loss_barrier']:.3f} "
            f"[{row['robust_loss_barrier_low']:.3f}, {row['robust_loss_barrier_high']:.3f}] nats; "
            f"correlation {row['pearson']:.3f} [{row['pearson_low']:.3f}, {row['pearson_high']:.3f}]."
        )
    return " ".join(lines)
