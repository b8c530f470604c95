"""Metrics at many points of a path: one compiled program, spread over all devices.

Each device takes its share of the t's (`jax.shard_map`; what `jax.pmap` used to do) and goes
through it chunk by chunk (`lax.map`), the t's of a chunk vmapped together. Nothing is
exchanged between devices, and memory does not grow with the number of t's. Devices of several
processes (`jax.distributed`) are devices like any other; only the means are gathered in the end.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, PartitionSpec

from mcjax.core.bound_functions import FewPrograms
from mcjax.core.sharding import make_mesh, replicate
from mcjax.core.tree import PyTree
from mcjax.data.batches import Batch, to_unit
from mcjax.training.losses import MetricFn

# Points vmapped together on one device. On CPU vmapped weights cost more than they save;
# accelerators need more work a launch. See docs/performance.md.
CHUNK = {"cpu": 1, "gpu": 4, "tpu": 8}

Reduce = Callable[[MetricFn, PyTree, Batch], dict[str, jax.Array]]


def default_chunk() -> int:
    """The number of t's vmapped together on this kind of device."""
    return CHUNK.get(jax.default_backend(), 1)


def evaluate_path(
    metric_fn: MetricFn,
    curve: Callable[[jax.Array], PyTree],
    ts: jax.typing.ArrayLike,
    batches: Mapping[str, Any] | Iterable[Mapping[str, Any]],
    mesh: Mesh | None = None,
    chunk: int | None = None,
) -> dict[str, Any]:
    """Means of metrics over all examples, at every t of a path.

    mean(t) = sum_i mask_i m_i(t) / sum_i mask_i, over every example i of every batch.

    Args:
        metric_fn: `metric_fn(curve(t), batch) -> {name: vector [B]}`. Keep one function and
            pass it again: a new one is compiled anew (`mcjax.core.bound_functions.Bound` makes equal ones).
        curve: `curve(t)` gives what metric_fn takes; a callable pytree (`Bezier`, `PolyChain`,
            `Plane`, `CurveWithStats`) or any function of t.
        ts: Points, [T], or [T, ...] where the curve takes more than a number.
        batches: One batch; a list of them (the last may be smaller); batches stacked along
            a leading axis (leaves [N, B, ...], as `stack_batches` makes them); or a dict
            of named sets of stacked batches, all evaluated in the same pass. A batch is a dict
            "image" [B, H, W, C], "label" [B] and, where padded, "mask" [B].
        mesh: Devices to spread the t's over; all devices unless given.
        chunk: Number of t's vmapped together on a device; `default_chunk()` unless given.

    Returns:
        {name: means [T]}, or {set: {name: means [T]}} for named sets.

    Raises:
        ValueError: No batch, something else than batches, one t that is no vector, metrics that are
            no dict, or a metric that is not one number an example.

    Example:
        >>> from mcjax.curves import Bezier
        >>> line = Bezier.connect({"w": jnp.zeros(1)}, {"w": jnp.ones(1)})
        >>> batch = {"image": jnp.ones((2, 1, 1, 1)), "label": jnp.zeros(2, jnp.int32)}
        >>> metric_fn = lambda params, batch: {"w": params["w"] * batch["image"][:, 0, 0, 0]}
        >>> evaluate_path(metric_fn, line, jnp.array([0.0, 0.5, 1.0]), batch)["w"]
        Array([0. , 0.5, 1. ], dtype=float32)
    """
    return _along(metric_fn, curve, ts, batches, mesh, chunk, reduce=_means)


def examples_along_path(
    metric_fn: MetricFn,
    curve: Callable[[jax.Array], PyTree],
    ts: jax.typing.ArrayLike,
    batches: Mapping[str, Any] | Iterable[Mapping[str, Any]],
    mesh: Mesh | None = None,
    chunk: int | None = None,
) -> dict[str, Any]:
    """Metrics of every single example at every t: as `evaluate_path`, without the means.

    Args:
        metric_fn: See `evaluate_path`.
        curve: Likewise.
        ts: Likewise.
        batches: Likewise.
        mesh: Likewise.
        chunk: Likewise.

    Returns:
        {name: values [T, N]} in the order of the examples, or {set: {name: values}}.
    """
    if not isinstance(batches, Mapping):
        batches = list(batches)
    values = _along(metric_fn, curve, ts, batches, mesh, chunk, reduce=_values)
    named = isinstance(batches, Mapping) and "image" not in batches
    sets: Any = batches if named else {"": batches}
    for name, one in sets.items():
        counts = np.ravel(_stack(one)["mask"]) > 0
        found = values[name] if named else values
        found.update({metric: v[:, counts] for metric, v in found.items()})
    return values


def _along(
    metric_fn: MetricFn,
    curve: Callable[[jax.Array], PyTree],
    ts: jax.typing.ArrayLike,
    batches: Mapping[str, Any] | Iterable[Mapping[str, Any]],
    mesh: Mesh | None,
    chunk: int | None,
    *,
    reduce: Reduce,
) -> dict[str, Any]:
    mesh = make_mesh() if mesh is None else mesh
    chunk = default_chunk() if chunk is None else chunk
    named = isinstance(batches, Mapping) and "image" not in batches
    if named and any(hasattr(one, "shape") for one in batches.values()):  # type: ignore[union-attr]
        check_batch(batches)  # type: ignore[arg-type]  # one batch, under other names
    given: Mapping[str, Any] = batches if named else {"": batches}  # type: ignore[assignment]
    sets = {name: _stack(one) for name, one in given.items()}
    if jax.tree.leaves(curve) == [curve]:  # a plain function, not a pytree
        curve = jax.tree_util.Partial(curve)
    ts = jnp.asarray(ts, jnp.float32)
    if ts.ndim == 0 or len(ts) == 0:
        raise ValueError(f"ts has shape {ts.shape}; give a vector of points, jnp.array([0.5]) say")
    num_points = len(ts)
    # Every device gets the same number of whole chunks; what is added repeats the last t.
    block = mesh.size * chunk
    ts = jnp.concatenate([ts, jnp.repeat(ts[-1:], -num_points % block, axis=0)])
    # Whatever is there already is not sent again.
    curve, ts, sets = replicate((curve, ts, sets), mesh)
    found = _evaluate(curve, ts, sets, metric_fn=metric_fn, mesh=mesh, chunk=chunk, reduce=reduce)
    if mesh.is_multi_process:  # each process has its devices' points; all want them all
        found = multihost_utils.process_allgather(found, tiled=True)
    found = jax.tree.map(lambda v: v[:num_points], found)
    return found if named else found[""]


def _means(metric_fn: MetricFn, point: PyTree, stack: Batch) -> dict[str, jax.Array]:
    def sums(batch: Batch) -> dict[str, jax.Array]:
        mask = batch["mask"]
        values = metric_fn(point, {**batch, "image": to_unit(batch["image"])})
        if not isinstance(values, Mapping):
            raise ValueError("metric_fn gave no dict; give {name: one number an example}")
        for name, value in values.items():
            if value.shape != mask.shape:
                raise ValueError(
                    f"metric {name} has shape {value.shape}; give one number an example, {mask.shape}"
                )
        return {name: jnp.where(mask > 0, mask * v, 0).sum() for name, v in values.items()}

    # Sums of batches are kept apart and added at the end: less rounding than a running sum.
    totals = lax.map(sums, stack)
    return {name: v.sum() / stack["mask"].sum() for name, v in totals.items()}


def _values(metric_fn: MetricFn, point: PyTree, stack: Batch) -> dict[str, jax.Array]:
    def of(batch: Batch) -> dict[str, jax.Array]:
        return metric_fn(point, {**batch, "image": to_unit(batch["image"])})

    return {name: v.reshape(-1) for name, v in lax.map(of, stack).items()}


@functools.partial(FewPrograms, static=("metric_fn", "mesh", "chunk", "reduce"))
def _evaluate(
    curve: Any,
    ts: jax.Array,
    sets: dict[str, Batch],
    *,
    metric_fn: MetricFn,
    mesh: Mesh,
    chunk: int,
    reduce: Reduce = _means,
) -> dict[str, dict[str, jax.Array]]:
    def on_device(curve: Any, ts: jax.Array, sets: dict[str, Batch]) -> Any:
        def at(t: jax.Array) -> Any:
            point = curve(t)
            return {name: reduce(metric_fn, point, stack) for name, stack in sets.items()}

        return lax.map(at, ts, batch_size=None if chunk == 1 else chunk)

    # With the default check_vma=True, gradients with respect to replicated images (PGD, input
    # Hessians) are summed over the devices without a warning: jax issue 36886.
    return jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec("t"), PartitionSpec()),
        out_specs=PartitionSpec("t"),
        check_vma=False,
    )(curve, ts, sets)


def _stack(batches: Mapping[str, Any] | Iterable[Mapping[str, Any]]) -> Batch:
    """Brings every form of batches to leaves [N, B, ...] with a mask."""
    if isinstance(batches, Mapping):
        check_batch(batches)
        stack = dict(batches)
        if np.ndim(stack["label"]) == 1:
            stack = {k: jnp.asarray(v)[None] for k, v in stack.items()}
        if "mask" not in stack:
            stack["mask"] = jnp.ones(stack["label"].shape, jnp.float32)
        return stack
    given = list(batches)
    if not given:
        raise ValueError("batches is empty; give at least one batch")
    if not all(isinstance(row, Mapping) for row in given):
        raise ValueError('a batch is a dict, {"image": [B, H, W, C], "label": [B]}; no tuple')
    rows = [dict(row) for row in given]
    for row in rows:
        check_batch(row, stacked=False)
    size = max(len(row["label"]) for row in rows)
    for row in rows:
        row.setdefault("mask", np.ones(len(row["label"]), np.float32))
        pad = size - len(row["label"])
        if pad:
            row.update(
                {k: np.pad(v, [(0, pad)] + [(0, 0)] * (np.ndim(v) - 1)) for k, v in row.items()}
            )
    return {k: jnp.stack([jnp.asarray(row[k]) for row in rows]) for k in rows[0]}


def check_batch(batch: Mapping[str, Any], *, stacked: bool = True) -> None:
    """Refuses batches whose arrays do not belong together; only names and shapes are looked at.

    Args:
        batch: "image" [B, H, W, C], "label" [B] and perhaps "mask" [B]; or all with one more
            leading axis.
        stacked: Whether the leading axis is allowed.

    Raises:
        ValueError: Names what is missing, or the shapes that differ.
    """
    missing = [name for name in ("image", "label") if name not in batch]
    if missing:
        raise ValueError(
            f"a batch holds {', '.join(map(str, batch)) or 'nothing'}, and no {' or '.join(missing)}; "
            "give image [B, H, W, C] and label [B]"
        )
    shape = np.shape(batch["label"])
    if len(shape) not in ((1, 2) if stacked else (1,)) or 0 in shape:
        raise ValueError(f"labels have shape {list(shape)}; give [B], one label per image")
    for name, value in batch.items():
        if np.shape(value)[: len(shape)] != shape:
            raise ValueError(
                f"{name} has shape {list(np.shape(value))}, but label {list(shape)}; give one "
                f"{name} per label"
            )
    if "mask" in batch and np.shape(batch["mask"]) != shape:
        raise ValueError(f"mask has shape {list(np.shape(batch['mask']))}; give {list(shape)}")
