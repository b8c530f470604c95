"""Evaluates a path as a stage: in blocks, with progress, resumable."""

import io
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mcjax.core.files import write
from mcjax.core.processes import once
from mcjax.core.progress import progress, say
from mcjax.core.sharding import replicate
from mcjax.core.tree import PyTree, digest
from mcjax.evaluation.path import evaluate_path
from mcjax.runs.checkpoint import check_identity
from mcjax.runs.run import Run
from mcjax.runs.stage import due
from mcjax.training.losses import MetricFn

Table = dict[str, np.ndarray]
"""{"train_loss": [T], ...}: a column by set and metric."""


def path_stage(
    run: Run,
    name: str,
    curve: PyTree,
    ts: jax.typing.ArrayLike,
    sets: Mapping[str, Mapping[str, Any]],
    *,
    metric_fn: MetricFn | None = None,
    evaluate_fn: Callable[..., dict[str, Any]] = evaluate_path,
) -> Table:
    """Means of metrics over sets of images at every t.

    A block has as many t's as all devices evaluate at once, so every block runs the same program and
    its numbers do not depend on where a run was stopped.

    Args:
        run: The run.
        name: The stage's name; finished blocks are kept under checkpoints/.walks.
        curve: What `evaluate_path` takes.
        ts: Points, [T, ...].
        sets: Stacked batches by name, as `stack_batches` makes them.
        metric_fn: The metrics; loss and accuracy if None.
        evaluate_fn: `evaluate_path`, or `examples_along_path` for values per example.

    Returns:
        The columns `SET_METRIC`: `train_loss`, `test_accuracy`, ...

    Raises:
        UserError: Finished blocks can't be written.
    """
    sets, curve = replicate((dict(sets), curve), run.mesh)
    metric_fn = metric_fn or run.metric_fn
    ts = np.asarray(ts, np.float32)
    block = run.mesh.size * run.chunk
    kept = run.workdir / "checkpoints" / ".walks" / f"{name}.npz"
    identity = run.identity(name)
    table = once(lambda: _read(kept, ts, identity))
    done = saved = len(next(iter(table.values()), ()))
    if 0 < done < len(ts):
        say(f"{name}: resumes at point {done}")
    saved_at = time.monotonic()
    with progress(name, len(ts), done, unit="point") as bar:
        while done < len(ts):
            part = ts[done : done + block]
            size = len(part)
            part = np.concatenate([part, np.repeat(part[-1:], block - size, axis=0)])
            means = evaluate_fn(
                metric_fn, curve, part, sets, mesh=run.mesh, chunk=run.chunk, extrapolate=True
            )
            for set_name, metrics in means.items():
                for metric, values in metrics.items():
                    column = f"{set_name}_{metric}"
                    values = np.asarray(values)[:size]
                    table[column] = np.concatenate([table.get(column, values[:0]), values])
            done += size
            shown: Any = {
                column: float(v[-1].mean()) for column, v in table.items() if "accuracy" in column
            }
            bar.advance(size, **shown)
            if due(saved_at, run.config.run.checkpoint_seconds):
                _write(kept, ts[:done], table, identity)
                saved, saved_at = done, time.monotonic()
    if saved < done:
        _write(kept, ts, table, identity)
    return table


def _read(path: Path, ts: np.ndarray, identity: Mapping[str, str]) -> Table:
    """Finished blocks of an earlier call for the same t's; {} if there are none that can be read."""
    if not path.exists():
        return {}
    try:
        with np.load(io.BytesIO(path.read_bytes())) as file:
            table = dict(file)
        about = json.loads(str(table.pop("about")))
        kept = table.pop("ts")
        whole = about.pop("digest") == digest({"ts": kept, **table})
    except Exception as error:  # zipfile, zlib and NumPy raise many kinds for a damaged file
        whole, about, kept = False, {}, ts[:0]
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    else:
        reason = "its contents do not match their checksum"
    if not whole:
        say(f"{path} is damaged ({reason}): computed again")
        return {}
    check_identity(path, about, identity)
    return table if np.array_equal(kept, ts[: len(kept)]) else {}


def _write(path: Path, ts: np.ndarray, table: Table, identity: Mapping[str, str]) -> None:
    about = {**identity, "digest": digest({"ts": ts, **table})}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, ts=ts, about=np.array(json.dumps(about)), **table)
    write(path, buffer.getvalue())
