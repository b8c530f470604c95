"""Evaluates metrics at many points of a path, in one compiled program spread over all devices.

Each device takes its share of the t's (`jax.shard_map`) and processes it chunk by chunk (`lax.map`);
the t's of a chunk are vmapped. Devices do not communicate, and memory use does not depend on the
number of t's. Devices of several processes (`jax.distributed`) are supported; the means are gathered
at the end.
"""

import functools
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, PartitionSpec

from mcjax.core.bound_functions import FewPrograms
from mcjax.core.foreign import refuse_torch
from mcjax.core.sharding import make_mesh, replicate
from mcjax.core.tree import PyTree
from mcjax.curves import Curve
from mcjax.data.batches import Batch, to_unit
from mcjax.training.losses import MetricFn

# Points vmapped together on one device. On CPU vmapping over weights is slower; accelerators need
# more work per launch. See docs/performance.md.
CHUNK = {"cpu": 1, "gpu": 4, "tpu": 8}

Reduce = Callable[[MetricFn, PyTree, Batch], dict[str, jax.Array]]


def default_chunk() -> int:
    """The default number of t's vmapped together, for the current backend."""
    return CHUNK.get(jax.default_backend(), 1)


def evaluate_path(
    metric_fn: MetricFn | Mapping[str, MetricFn],
    curve: Callable[[jax.Array], PyTree],
    ts: jax.typing.ArrayLike,
    batches: Mapping[str, Any] | Iterable[Mapping[str, Any]],
    mesh: Mesh | None = None,
    chunk: int | None = None,
    *,
    extrapolate: bool = False,
) -> dict[str, Any]:
    """Evaluates the mean of each metric over all examples, at every t of a path.

    mean(t) = sum_i mask_i m_i(t) / sum_i mask_i, over every example i of every batch.

    Args:
        metric_fn: `metric_fn(curve(t), batch) -> {name: vector [B]}`. Reuse the same function: a
            new one triggers a recompilation (`mcjax.core.bound_functions.Bound` makes functions that are equal).
            With named sets of batches also one function per set, {set: metric_fn}: curve(t), with its
            BatchNorm statistics, is computed once per t for all of them.
        curve: A callable pytree (`Bezier`, `PolyChain`, `Plane`, `CurveWithStats`) or any function
            of t; `curve(t)` is the first argument of metric_fn.
        ts: Points, [T], or [T, ...] if the curve takes an array.
        batches: One batch; a list of batches (the last may be smaller); batches stacked along
            a leading axis (leaves [N, B, ...], see `stack_batches`); or a dict of named sets of
            stacked batches, all evaluated in the same pass. A batch is a dict with "image"
            [B, H, W, C], "label" [B] and, if padded, "mask" [B].
        mesh: Devices to spread the t's over. Default: all devices.
        chunk: Number of t's vmapped together on a device. Default: `default_chunk()`.
        extrapolate: Allow a `Curve`'s t outside [0, 1], beyond its ends.

    Returns:
        {name: means [T]}, or {set: {name: means [T]}} for named sets.

    Raises:
        ValueError: There are no batches, or they are not batches; ts is a scalar, or beyond a curve's
            ends without `extrapolate`; metric_fn does not return a dict of vectors [B], or has other
            names than the sets.

    Example:
        >>> from mcjax.curves import Bezier
        >>> line = Bezier.connect({"w": jnp.zeros(1)}, {"w": jnp.ones(1)})
        >>> batch = {"image": jnp.ones((2, 1, 1, 1)), "label": jnp.zeros(2, jnp.int32)}
        >>> metric_fn = lambda params, batch: {"w": params["w"] * batch["image"][:, 0, 0, 0]}
        >>> evaluate_path(metric_fn, line, jnp.array([0.0, 0.5, 1.0]), batch)["w"]
        Array([0. , 0.5, 1. ], dtype=float32)
    """
    if not extrapolate:
        check_inside(curve, ts)
    return _along(metric_fn, curve, ts, batches, mesh, chunk, reduce=_means)


def examples_along_path(
    metric_fn: MetricFn | Mapping[str, MetricFn],
    curve: Callable[[jax.Array], PyTree],
    ts: jax.typing.ArrayLike,
    batches: Mapping[str, Any] | Iterable[Mapping[str, Any]],
    mesh: Mesh | None = None,
    chunk: int | None = None,
    *,
    extrapolate: bool = False,
) -> dict[str, Any]:
    """Evaluates the metrics of each example at every t: like `evaluate_path`, without the mean.

    Args:
        metric_fn: See `evaluate_path`.
        curve: Likewise.
        ts: Likewise.
        batches: Likewise.
        mesh: Likewise.
        chunk: Likewise.
        extrapolate: Likewise.

    Returns:
        {name: values [T, N]} in the order of the examples, or {set: {name: values}} for named sets.
    """
    if not extrapolate:
        check_inside(curve, ts)
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


def check_inside(curve: Any, ts: jax.typing.ArrayLike) -> None:
    """Refuses points beyond the ends of a `Curve`, which are rarely meant.

    Args:
        curve: Any path; only a `Curve`, alone or with statistics, has ends.
        ts: Points, [T].

    Raises:
        ValueError: A point lies outside [0, 1].
    """
    if not isinstance(getattr(curve, "curve", curve), Curve):
        return
    found = np.asarray(ts, np.float32)
    if found.size and (found.min() < 0 or found.max() > 1):
        raise ValueError(
            f"ts go from {found.min():g} to {found.max():g}, but the curve's ends are at 0 and 1; pass "
            "extrapolate=True to go beyond them"
        )


def _along(
    metric_fn: MetricFn | Mapping[str, MetricFn],
    curve: Callable[[jax.Array], PyTree],
    ts: jax.typing.ArrayLike,
    batches: Mapping[str, Any] | Iterable[Mapping[str, Any]],
    mesh: Mesh | None,
    chunk: int | None,
    *,
    reduce: Reduce,
) -> dict[str, Any]:
    refuse_torch("metric_fn", metric_fn)
    refuse_torch("curve", curve)
    mesh = make_mesh() if mesh is None else mesh
    chunk = default_chunk() if chunk is None else chunk
    named = isinstance(batches, Mapping) and "image" not in batches
    if named and any(hasattr(one, "shape") for one in batches.values()):  # type: ignore[union-attr]
        check_batch(batches)  # type: ignore[arg-type]  # one batch, under other names
    given: Mapping[str, Any] = batches if named else {"": batches}  # type: ignore[assignment]
    sets = {name: _stack(one) for name, one in given.items()}
    for stack in sets.values():
        warn_of_bytes(stack["image"])
    metric_fns = metric_fn if isinstance(metric_fn, Mapping) else dict.fromkeys(sets, metric_fn)
    if set(metric_fns) != set(sets):
        raise ValueError(
            f"metric_fn has the names {', '.join(map(str, metric_fns))}, but the sets of batches are "
            f"{', '.join(sets) if named else 'not named'}; give one function per named set"
        )
    if jax.tree.leaves(curve) == [curve]:  # a plain function, not a pytree
        curve = jax.tree_util.Partial(curve)
    ts = jnp.asarray(ts, jnp.float32)
    if ts.ndim == 0 or len(ts) == 0:
        raise ValueError(f"ts has shape {ts.shape}; give a vector of points, e.g. jnp.array([0.5])")
    num_points = len(ts)
    # Every device gets the same number of full chunks; the padding repeats the last t.
    block = mesh.size * chunk
    ts = jnp.concatenate([ts, jnp.repeat(ts[-1:], -num_points % block, axis=0)])
    # Data already on the devices is not sent again.
    curve, ts, sets = replicate((curve, ts, sets), mesh)
    functions = tuple(sorted(metric_fns.items(), key=lambda item: item[0]))
    found = _evaluate(curve, ts, sets, metric_fns=functions, mesh=mesh, chunk=chunk, reduce=reduce)
    if mesh.is_multi_process:  # each process holds only the points of its own devices
        found = multihost_utils.process_allgather(found, tiled=True)
    found = jax.tree.map(lambda v: v[:num_points], found)
    return found if named else found[""]


def _means(metric_fn: MetricFn, point: PyTree, stack: Batch) -> dict[str, jax.Array]:
    def sums(batch: Batch) -> dict[str, jax.Array]:
        mask = batch["mask"]
        values = metric_fn(point, {**batch, "image": to_unit(batch["image"])})
        if not isinstance(values, Mapping):
            raise ValueError(
                "metric_fn must return a dict {name: vector with one value per example}"
            )
        for name, value in values.items():
            if value.shape != mask.shape:
                raise ValueError(
                    f"metric {name} has shape {value.shape}; return one value per example, {mask.shape}"
                )
        return {name: jnp.where(mask > 0, mask * v, 0).sum() for name, v in values.items()}

    # Batch sums are added at the end, which rounds less than a running sum.
    totals = lax.map(sums, stack)
    return {name: v.sum() / stack["mask"].sum() for name, v in totals.items()}


def _values(metric_fn: MetricFn, point: PyTree, stack: Batch) -> dict[str, jax.Array]:
    def of(batch: Batch) -> dict[str, jax.Array]:
        return metric_fn(point, {**batch, "image": to_unit(batch["image"])})

    return {name: v.reshape(-1) for name, v in lax.map(of, stack).items()}


@functools.partial(FewPrograms, static=("metric_fns", "mesh", "chunk", "reduce"))
def _evaluate(
    curve: Any,
    ts: jax.Array,
    sets: dict[str, Batch],
    *,
    metric_fns: tuple[tuple[str, MetricFn], ...],
    mesh: Mesh,
    chunk: int,
    reduce: Reduce = _means,
) -> dict[str, dict[str, jax.Array]]:
    def on_device(curve: Any, ts: jax.Array, sets: dict[str, Batch]) -> Any:
        def at(t: jax.Array) -> Any:
            point = curve(t)
            return {name: reduce(metric_fn, point, sets[name]) for name, metric_fn in metric_fns}

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
    """Converts any accepted form of batches to leaves [N, B, ...] with a mask."""
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
        raise ValueError('a batch must be a dict {"image": [B, H, W, C], "label": [B]}')
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


def warn_of_bytes(image: Any) -> None:
    """Warns of floating-point images that look like bytes: whole numbers from 0 to 255.

    It is no error, because a network may scale its own images.

    Args:
        image: Stacked batches, [N, B, ...]; only the first 8 images are looked at.
    """
    dtype = getattr(image, "dtype", None)
    if (
        isinstance(image, jax.core.Tracer)
        or dtype is None
        or not jnp.issubdtype(dtype, jnp.floating)
    ):
        return
    if isinstance(image, jax.Array) and not image.is_fully_addressable:
        return
    some = np.asarray(image[0][:8], np.float32)
    if 1 < some.max(initial=0) <= 255 and some.min() >= 0 and (some == np.round(some)).all():
        warnings.warn(
            f"images are whole numbers up to {some.max():g} as floats, which are not scaled; if the network "
            "expects [0, 1], divide them by 255, or give uint8, which is divided",
            stacklevel=4,
        )


def check_batch(batch: Mapping[str, Any], *, stacked: bool = True) -> None:
    """Checks the names and shapes of a batch's arrays.

    Args:
        batch: "image" [B, H, W, C], "label" [B] and optionally "mask" [B]; all may have one more
            leading axis.
        stacked: Whether the leading axis is allowed.

    Raises:
        ValueError: An array is missing, or shapes do not match.
    """
    missing = [name for name in ("image", "label") if name not in batch]
    if missing:
        raise ValueError(
            f"batch has no {' or '.join(missing)} (it has {', '.join(map(str, batch)) or 'nothing'}); "
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
