"""Evasion: robustness along paths between regular and adversarially trained networks.

Stages per seed: the networks, the plain path of every pair (and the robust path), the losses on all
images, the attack and the input Hessian on some, transfer and ensembles. The report comes last.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mcjax.attacks import pgd
from mcjax.core.bound_functions import FewPrograms
from mcjax.core.errors import UserError
from mcjax.core.files import write
from mcjax.core.processes import once
from mcjax.core.progress import say
from mcjax.core.tree import PyTree
from mcjax.curves import KINDS
from mcjax.curves.batch_stats import CurveWithStats
from mcjax.data.batches import stack_batches, to_unit
from mcjax.evaluation.path import examples_along_path
from mcjax.evaluation.robust_metrics import robust_metrics, transfer
from mcjax.experiments.evasion_report import (
    Row,
    autoattack_numbers,
    columns,
    numbers,
    report,
    write_table,
)
from mcjax.experiments.stages.alignment import aligned
from mcjax.experiments.stages.autoattack import autoattack_stage, write_autoattack
from mcjax.experiments.stages.curve import curve_options, curve_stage
from mcjax.experiments.stages.endpoints import train_network, train_side_by_side
from mcjax.experiments.stages.path import Table, path_stage
from mcjax.report.stamps import adversarial_figure, one_per_class
from mcjax.runs.checkpoint import check_identity
from mcjax.runs.run import Run, first, open_run, with_seed
from mcjax.training import LossFn
from mcjax.training.curve import starting_curve
from mcjax.training.objectives import curve_loss, endpoint_loss
from mcjax.training.robust_objectives import fgsm_loss, madry_loss, robust_curve_loss, trades_loss

ENSEMBLE = ("ensemble_accuracy", "ensemble_robust_accuracy", "ensemble_transfer_accuracy")

PAIRS = {
    "regular-regular": ("regular_a", "regular_b"),
    "regular-adversarial": ("regular_a", "adversarial_a"),
    "adversarial-adversarial": ("adversarial_a", "adversarial_b"),
}


def run_experiment(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Runs the stages of the experiment that are not finished.

    Args:
        config: See `mcjax.runs.config.evasion`.
        workdir: Directory of the run.

    Returns:
        The contents of result.json.
    """
    run = open_run(config, workdir, "evasion")
    check(run)
    rows: list[Row] = []
    tables: dict[str, Table] = {}
    ensembles: dict[str, Table] = {}
    parts = [with_seed(run, seed) for seed in config.seeds or (config.seed,)]
    train_at_once(parts)
    names = [_name(*path) for path in paths_of(config)]
    shown = next((name for name in names if name.startswith("regular-adversarial")), names[0])
    for part in parts:
        seed = part.config.seed
        for pair, robust in paths_of(config):
            name = _name(pair, robust)
            points = trained_path(part, pair, robust=robust)
            ts = np.linspace(0, 1, config.evaluation.num_points)
            clean = path_stage(part, f"{part.part}{name}", points, ts, part.evaluated)
            examples = look_closer(part, name, points, ts)
            table = columns(ts, clean, examples)
            write_table(run.workdir / "paths" / f"{part.part}{name}.csv", table)
            tables.setdefault(name, table)
            shared = transfers(part, name, points)
            row = {"path": name, "seed": seed, **numbers(table, examples), **shared}
            if config.autoattack.num_points:
                means, found = under_autoattack(part, name, points)
                ensembles.setdefault(name, means)
                row |= autoattack_numbers(found)
            rows.append(row)
            if name == shown and part is parts[0]:
                adversarial_examples(part, points)
    return once(lambda: report(run, rows, tables, ensembles))


def check(run: Run) -> None:
    """Refuses configs that would fail late.

    Raises:
        UserError: Names the mistake.
    """
    config = run.config
    for pair in (*config.pairs, *config.robust_path.pairs):
        if pair not in PAIRS:
            raise UserError(f"unknown pair {pair!r} in config.pairs; use {', '.join(PAIRS)}")
    if config.evaluation.num_points < 3:
        raise UserError(
            f"config.evaluation.num_points is {config.evaluation.num_points}; correlations along a path "
            "need at least 3 points"
        )
    if config.autoattack.num_points in (1, 2):
        raise UserError(
            f"config.autoattack.num_points is {config.autoattack.num_points}; a barrier needs at least 3 "
            "points (0: no AutoAttack)"
        )
    if config.hessian.method == "exact" and not run.network.piecewise_linear:
        raise UserError(
            "config.hessian.method is exact, but this network is not piecewise linear; use lanczos"
        )


def paths_of(config: ConfigDict) -> list[tuple[str, bool]]:
    """Every pair, and whether its path is the robust one."""
    return [(pair, False) for pair in config.pairs] + [
        (pair, True) for pair in config.robust_path.pairs
    ]


def _name(pair: str, robust: bool) -> str:
    return f"{pair} (robust path)" if robust else pair


def adversarial_loss(run: Run) -> LossFn:
    """The objective of the adversarial networks."""
    a = run.config.adversarial
    if a.method == "fgsm":
        return fgsm_loss(run.network, eps=a.eps, norm=run.config.attack.norm)
    settings = {
        "eps": a.eps,
        "step_size": a.step_size,
        "num_steps": a.num_steps,
        "norm": run.config.attack.norm,
    }
    if a.method == "trades":
        return trades_loss(run.network, beta=a.beta, **settings)
    return madry_loss(run.network, **settings)


def network(run: Run, name: str) -> PyTree:
    """One of the four networks, trained or restored."""
    loss_fn = endpoint_loss(run.network) if name.startswith("regular") else adversarial_loss(run)
    return train_network(run, name, run.on_device["train"], loss_fn)


def train_at_once(parts: Sequence[Run]) -> None:
    """Trains all networks of all seeds in two trainings, if `config.run.side_by_side`."""
    run = parts[0]
    wanted = {name for pair, _ in paths_of(run.config) for name in PAIRS[pair]}
    for kind, loss_fn in (
        ("regular", endpoint_loss(run.network)),
        ("adversarial", adversarial_loss(run)),
    ):
        names = [name for name in sorted(wanted) if name.startswith(kind)]
        networks = [(part, name) for part in parts for name in names]
        train_side_by_side(networks, lambda part: part.on_device["train"], loss_fn)


def trained_path(run: Run, pair: str, *, robust: bool) -> CurveWithStats:
    """The path between a pair, trained on the plain loss or on the worst case of every image."""
    options, a = run.config.curve, run.config.adversarial
    start, end = (network(run, name) for name in PAIRS[pair])
    end = aligned(run, f"{run.part}{pair}-alignment", start, end)
    kind = KINDS[options.kind]
    name = f"{pair}-robust-path" if robust else f"{pair}-path"
    key = run.key(name)
    shared = {"weight_decay": options.weight_decay, "num_strata": options.num_strata}
    loss_fn = (
        robust_curve_loss(
            run.network,
            kind,
            eps=a.eps,
            step_size=a.step_size,
            num_steps=run.config.robust_path.num_steps,
            norm=run.config.attack.norm,
            **shared,
        )
        if robust
        else curve_loss(run.network, kind, **shared)
    )
    curve = curve_stage(
        run,
        run.part + name,
        key,
        starting_curve(key, run.network, curve_options(options), start, end),
        start["batch_stats"],
        run.on_device["train"],
        loss_fn=loss_fn,
        options=options,
    )
    return CurveWithStats(
        curve,
        start["batch_stats"],
        end["batch_stats"],
        run.normalised_by,
        run.network.apply_train,
        run.config.evaluation.batch_stats_batch_size,
    )


def look_closer(run: Run, name: str, points: CurveWithStats, ts: np.ndarray) -> Table:
    """Attack and input Hessian per test image at every t: columns [T, N]."""
    attack, evaluation = run.config.attack, run.config.evaluation
    images = first(run.splits.test, evaluation.robust_images)
    batch_size = min(evaluation.robust_batch_size, len(images["label"]))
    table = path_stage(
        run,
        f"{run.part}{name} closer",
        points,
        ts,
        {"test": stack_batches(images, batch_size)},
        metric_fn=robust_metrics(
            run.network, seed=run.config.seed, method=run.config.hessian.method, **attack.to_dict()
        ),
        evaluate_fn=examples_along_path,
    )
    table = {column.removeprefix("test_"): v for column, v in table.items()}
    for column in ("loss", "robust_loss", "eigenvalue"):
        check_finite(f"{name}: {column}", table[column], ts, batch_size)
    return table


def under_autoattack(run: Run, name: str, points: CurveWithStats) -> tuple[Table, Table]:
    """AutoAttack on some test images at some t's: the means, which it writes, and columns [T, N]."""
    attack, settings = run.config.attack, run.config.autoattack
    ts = np.linspace(0, 1, settings.num_points)
    table = autoattack_stage(
        run,
        f"{run.part}{name} autoattack",
        points,
        ts,
        num_images=settings.num_images,
        batch_size=run.config.evaluation.robust_batch_size,
        eps=attack.eps,
        norm=attack.norm,
        num_steps=settings.num_steps,
        num_queries=settings.num_queries,
        pgd_step_size=attack.step_size,
        pgd_num_steps=attack.num_steps,
    )
    file = run.workdir / "paths" / f"{run.part}{name} autoattack.csv"
    return write_autoattack(file, ts, table), table


def adversarial_examples(run: Run, points: CurveWithStats) -> None:
    """Draws one attacked test image per class at both ends and the middle of a path."""
    examples = one_per_class(run.splits.test)
    clean, y = to_unit(jnp.asarray(examples["image"])), jnp.asarray(examples["label"])
    attacked = {}
    for t in (0.0, 0.5, 1.0):
        logits_fn = jax.tree_util.Partial(run.network.apply, points(jnp.float32(t)))
        images = pgd(run.key("examples"), logits_fn, clean, y, **run.config.attack.to_dict())
        wrong = logits_fn(images).argmax(-1) != y
        attacked[t] = (np.asarray(images), np.asarray(wrong))
    file = run.workdir / "figures" / "adversarial.png"
    once(lambda: adversarial_figure(file, np.asarray(clean), attacked))


def check_finite(what: str, values: np.ndarray, ts: np.ndarray, batch_size: int) -> None:
    """Refuses values that are not finite.

    Args:
        what: Their name.
        values: [T, N].
        ts: [T].
        batch_size: Images per batch.

    Raises:
        UserError: Names the first t and batch with a value that is not finite.
    """
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        point, image = bad[0]
        raise UserError(
            f"{what} is not finite at t = {ts[point]:g}, test image {image} (batch "
            f"{image // batch_size} of {batch_size} images), and for {len(bad)} of {values.size} "
            "numbers in all; look at the networks' losses in metrics.jsonl"
        )


def transfers(run: Run, name: str, points: CurveWithStats) -> Row:
    """Transfer of attacks between points of the path, and their ensemble."""
    evaluation = run.config.evaluation
    ts = np.linspace(0, 1, evaluation.transfer_points)
    folder = run.workdir / "figures" / run.part
    file = folder / f"{name} transfer.json"
    identity = run.identity(f"{run.part}{name} transfer")
    kept = once(lambda: _read_transfers(file, identity))
    if kept is not None:
        return kept
    say(f"{run.part}{name}: transfer between {len(ts)} points")
    images = first(run.splits.test, evaluation.transfer_images)
    batch = {"image": to_unit(images["image"]), "label": jnp.asarray(images["label"])}
    members = jax.lax.map(points, jnp.asarray(ts, jnp.float32))
    attack = run.config.attack.to_dict()
    found = _transfer(
        run.key("transfer"),
        members=members,
        batch=batch,
        eps=attack["eps"],
        step_size=attack["step_size"],
        network=run.network,
        norm=attack["norm"],
        num_steps=attack["num_steps"],
    )
    found = {k: np.asarray(v, np.float64) for k, v in found.items()}
    ensemble = {
        "ensemble_accuracy": float(found["ensemble_clean"]),
        "ensemble_robust_accuracy": float(found["ensemble_robust"]),
        "ensemble_transfer_accuracy": float(found["ensemble_transfer"].mean()),
    }
    result = {"t": ts.tolist(), "matrix": found["matrix"].tolist(), "ensemble": ensemble}
    result["identity"] = identity
    write(file, json.dumps(result, indent=2) + "\n")
    return ensemble


def _read_transfers(file: Path, identity: Mapping[str, str]) -> Row | None:
    """The result of an earlier call; None if there is none that can be read."""
    if not file.exists():
        return None
    try:
        kept = json.loads(file.read_text())
        ensemble = {name: float(kept["ensemble"][name]) for name in ENSEMBLE}
        whose = dict(kept["identity"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        say(f"{file} is damaged: computed again")
        return None
    check_identity(file, whose, identity)
    return ensemble


_transfer = FewPrograms(transfer, static=("network", "norm", "num_steps"))
