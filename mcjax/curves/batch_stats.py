"""Recomputes BatchNorm statistics at each point of a curve.

Interpolated statistics do not fit interpolated weights. At each t the statistics are reset and
averaged over a set of images; results name the set (`train`, `bonafide`, `none`). The endpoints keep
the statistics they were trained with, so t = 0 and t = 1 reproduce the endpoints' logits.

Statistics that training does not update (a frozen BatchNorm) cannot be recomputed; they are
interpolated linearly. State that is neither, such as SpectralNorm's, raises an error.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mcjax.core.dependencies import dependencies
from mcjax.core.errors import UserError
from mcjax.core.tree import PyTree, path_name
from mcjax.data.batches import to_unit

UpdateFn = Callable[[PyTree, jax.Array], PyTree]
"""`update_fn(batch_stats, x) -> batch_stats`: one training-mode pass over a batch."""

ApplyTrain = Callable[..., tuple[jax.Array, PyTree]]
"""`apply_train(key, variables, x) -> (logits, batch_stats)`, a network in training mode."""


def updated_by_training(
    update_fn: Callable[[PyTree, PyTree, jax.Array], PyTree],
    params: PyTree,
    batch_stats: PyTree,
    x: jax.Array,
) -> PyTree:
    """Finds which statistics a training-mode pass updates, by tracing (nothing is computed).

    Args:
        update_fn: `update_fn(params, batch_stats, x) -> batch_stats`, one training-mode pass.
        params: The network's parameters; here and below only shapes and dtypes are used.
        batch_stats: Its statistics.
        x: Images, [B, H, W, C].

    Returns:
        A tree like batch_stats: True where new = m old + (1 - m) batch with a constant m, False
        where new = old.

    Raises:
        UserError: A leaf is neither.
    """
    leaves = jax.tree.leaves(batch_stats)
    structure: Any = jax.tree.structure(batch_stats)
    names = [path_name(path) for path, _ in jax.tree.leaves_with_path(batch_stats)]

    def new(old: list[jax.Array], params: PyTree, x: jax.Array) -> list[jax.Array]:
        return jax.tree.leaves(update_fn(params, structure.unflatten(old), x))

    inputs = dependencies(new, leaves, params, x)
    images = len(leaves) + len(jax.tree.leaves(params))
    floating = [jnp.issubdtype(jnp.result_type(s), jnp.floating) for s in leaves]
    kept = [of == {i} and floating[i] for i, of in enumerate(inputs)]

    def momenta(old: list[jax.Array], params: PyTree, x: jax.Array) -> list[jax.Array]:
        def of_updated(some: list[jax.Array]) -> list[jax.Array]:
            rest = iter(some)
            whole = [s if k else next(rest) for s, k in zip(old, kept, strict=True)]
            return new(whole, params, x)

        some = [s for s, k in zip(old, kept, strict=True) if not k]
        return jax.jvp(of_updated, (some,), ([jnp.ones_like(s) for s in some],))[1]

    slopes = dependencies(momenta, leaves, params, x) if all(floating) else inputs
    for i, name in enumerate(names):
        if not kept[i] and (slopes[i] or images not in inputs[i]):
            raise UserError(
                f"batch_stats contain {name}, which is not a running mean over batches and cannot be "
                "computed along a path; use BatchNorm, or a network without this state"
            )
    return structure.unflatten([not k for k in kept])


def of_batch(
    update_fn: UpdateFn, like: PyTree, x: jax.Array, updated: PyTree | None = None
) -> PyTree:
    """The statistics of one batch alone, without the running average.

    A layer's update is new = m old + (1 - m) batch. At old = 0 it gives (1 - m) batch, and its
    derivative with respect to old is m, so no layer's momentum has to be known.

    Args:
        update_fn: One training-mode pass, affine in the old statistics.
        like: A tree of statistics, for its structure and shapes.
        x: Images, [B, H, W, C], in [0, 1].
        updated: Tree of bools from `updated_by_training`; where False, the leaf of `like` is used
            and returned unchanged. Default: all True.

    Returns:
        A tree like `like`: the batch's mean and variance in each layer.
    """
    updated = jax.tree.map(lambda _: True, like) if updated is None else updated
    old = jax.tree.map(lambda s, u: jnp.zeros_like(s) if u else s, like, updated)
    along = jax.tree.map(lambda s, u: jnp.ones_like(s) if u else jnp.zeros_like(s), like, updated)
    new, m = jax.jvp(lambda old: update_fn(old, x), (old,), (along,))

    def own(n: jax.Array, m: jax.Array, s: jax.Array, u: bool) -> jax.Array:
        # A momentum of 1 freezes a layer, too.
        return jnp.where(m == 1, s, n / jnp.where(m == 1, 1, 1 - m)) if u else s

    return jax.tree.map(own, new, m, like, updated)


def recompute(
    update_fn: UpdateFn,
    like: PyTree,
    images: jax.Array,
    *,
    batch_size: int,
    updated: PyTree | None = None,
) -> PyTree:
    """Computes statistics from scratch, averaged over a set of images.

    s = sum_b |b| s_b / sum_b |b| over batches b in the given order; the last may be smaller.

    Args:
        update_fn: One training-mode pass, affine in the old statistics.
        like: A tree of statistics, for its structure and shapes.
        images: [N, H, W, C], uint8 or in [0, 1].
        batch_size: Images per batch.
        updated: See `of_batch`.

    Returns:
        A tree like `like`.

    Source: Izmailov et al. 2018, section 3.2; Garipov et al. 2018, appendix A.2.
    """
    updated = jax.tree.map(lambda _: True, like) if updated is None else updated
    num_full, rest = divmod(len(images), batch_size)
    total = jax.tree.map(jnp.zeros_like, like)

    def add(total: PyTree, x: jax.Array) -> tuple[PyTree, None]:
        stats = of_batch(update_fn, like, to_unit(x), updated)
        return jax.tree.map(lambda a, s: a + len(x) * s, total, stats), None

    if num_full:
        full = images[: num_full * batch_size]
        total, _ = lax.scan(add, total, full.reshape(num_full, batch_size, *images.shape[1:]))
    if rest:
        total, _ = add(total, images[-rest:])
    return jax.tree.map(lambda a, s, u: a / len(images) if u else s, total, like, updated)


def of_network(
    apply_train: ApplyTrain,
    variables: PyTree,
    images: jax.Array | np.ndarray,
    *,
    frozen: PyTree | None = None,
    batch_size: int = 128,
) -> PyTree:
    """The statistics of a network, averaged over a set of images (`recompute`).

    Args:
        apply_train: The network in training mode.
        variables: {"params", "batch_stats"}.
        images: [N, H, W, C], uint8 or in [0, 1].
        frozen: Tree of what the statistics are that training does not update; default: as they are.
        batch_size: Images per batch.

    Returns:
        A tree like the "batch_stats".

    Raises:
        UserError: The network has state that is no running mean over batches.
    """
    key = jax.random.key(0)  # for dropout; the same for every network and batch
    stats = variables["batch_stats"]

    def update_fn(params: PyTree, stats: PyTree, x: jax.Array) -> PyTree:
        return apply_train(key, {"params": params, "batch_stats": stats}, x)[1]

    images = jnp.asarray(images)
    updated = updated_by_training(update_fn, variables["params"], stats, to_unit(images[:1]))
    return recompute(
        functools.partial(update_fn, variables["params"]),
        stats if frozen is None else frozen,
        images,
        batch_size=batch_size,
        updated=updated,
    )


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["curve", "start_stats", "end_stats", "images"],
    meta_fields=["apply_train", "batch_size", "keep_ends"],
)
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class CurveWithStats:
    """A curve whose points are complete variables: parameters and BatchNorm statistics.

    Args:
        curve: The curve of the parameters: `Bezier`, `Plane` or any callable pytree.
        start_stats: Statistics of the endpoint at t = 0; {} for a network without BatchNorm.
        end_stats: Statistics of the endpoint at t = 1; None if it was trained with the curve, whose
            own are computed as at every other t.
        images: Images to recompute from, [N, H, W, C]; None interpolates the endpoints'
            statistics linearly instead (the option `none`).
        apply_train: `apply_train(key, variables, x) -> (logits, batch_stats)`.
        batch_size: Images per batch in the recomputation.
        keep_ends: Use start_stats and end_stats at t = 0 and 1. Set to False if the endpoints were
            trained with the curve.
    """

    curve: Callable[[Any], PyTree]
    start_stats: PyTree
    end_stats: PyTree | None
    images: jax.Array | np.ndarray | None
    apply_train: ApplyTrain
    batch_size: int = 128
    keep_ends: bool = True

    def __repr__(self) -> str:
        """The curve, and where its statistics come from, in one line."""
        if not jax.tree.leaves(self.start_stats):
            return f"CurveWithStats({self.curve})"
        source = "interpolated" if self.images is None else f"from {len(self.images)} images"
        return f"CurveWithStats({self.curve}, BatchNorm {source})"

    def __call__(self, t: jax.typing.ArrayLike) -> dict[str, PyTree]:
        """The variables at t: {"params": ..., "batch_stats": ...}."""
        params = self.curve(t)
        if not jax.tree.leaves(self.start_stats):
            return {"params": params}
        on_curve = jnp.ndim(t) == 0  # a plane has coordinate pairs and no endpoints
        s = t if on_curve else 0.5
        end_stats = self.start_stats if self.end_stats is None else self.end_stats
        between = jax.tree.map(lambda a, b: a + s * (b - a), self.start_stats, end_stats)
        if self.images is not None:
            between = self._recompute(params, between)
        if not (on_curve and self.keep_ends):
            return {"params": params, "batch_stats": between}

        def kept(at: int, own: PyTree, others: PyTree) -> PyTree:
            return jax.tree.map(lambda a, s: jnp.where(t == at, a, s), own, others)

        stats = kept(0, self.start_stats, between)
        if self.end_stats is not None:
            stats = kept(1, self.end_stats, stats)
        return {"params": params, "batch_stats": stats}

    def _recompute(self, params: PyTree, between: PyTree) -> PyTree:
        return of_network(
            self.apply_train,
            {"params": params, "batch_stats": self.start_stats},
            jnp.asarray(self.images),
            frozen=between,
            batch_size=self.batch_size,
        )
