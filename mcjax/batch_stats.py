"""BatchNorm along a curve: its statistics depend on t, so they are recomputed at each t.

Interpolated statistics do not fit interpolated weights. At each t they are reset and averaged
over a set of images, and which set that is (`train`, `bonafide`, `none`) goes with every
number. The ends keep the statistics they were trained with, so t = 0 and t = 1 give the
endpoints' own logits.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mcjax.data.batches import to_unit
from mcjax.tree import PyTree

UpdateFn = Callable[[PyTree, jax.Array], PyTree]
"""`update_fn(batch_stats, x) -> batch_stats`: one training-mode pass over a batch."""


def of_batch(update_fn: UpdateFn, like: PyTree, x: jax.Array) -> PyTree:
    """The statistics of one batch, without the old ones that layers average them with.

    A layer's update is new = m old + (1 - m) batch. From old = 0 it gives (1 - m) batch, and its
    derivative with respect to old is m, whatever each layer's momentum is.

    Args:
        update_fn: One training-mode pass, affine in the old statistics.
        like: A tree of statistics, for its structure and shapes.
        x: Images, [B, H, W, C], in [0, 1].

    Returns:
        A tree like `like`: the batch's mean and variance in each layer.
    """
    zeros, ones = jax.tree.map(jnp.zeros_like, like), jax.tree.map(jnp.ones_like, like)
    new, m = jax.jvp(lambda old: update_fn(old, x), (zeros,), (ones,))
    return jax.tree.map(lambda n, m: n / (1 - m), new, m)


def recompute(update_fn: UpdateFn, like: PyTree, images: jax.Array, *, batch_size: int) -> PyTree:
    """Statistics averaged over a set of images, from nothing.

    s = sum_b |b| s_b / sum_b |b| over batches b in the given order; the last may be smaller.

    Args:
        update_fn: One training-mode pass, affine in the old statistics.
        like: A tree of statistics, for its structure and shapes.
        images: [N, H, W, C], uint8 or in [0, 1].
        batch_size: Images a batch.

    Returns:
        A tree like `like`.

    Source: Izmailov et al. 2018, section 3.2; Garipov et al. 2018, appendix A.2.
    """
    num_full, rest = divmod(len(images), batch_size)
    total = jax.tree.map(jnp.zeros_like, like)

    def add(total: PyTree, x: jax.Array) -> tuple[PyTree, None]:
        stats = of_batch(update_fn, like, to_unit(x))
        return jax.tree.map(lambda a, s: a + len(x) * s, total, stats), None

    if num_full:
        full = images[: num_full * batch_size]
        total, _ = lax.scan(add, total, full.reshape(num_full, batch_size, *images.shape[1:]))
    if rest:
        total, _ = add(total, images[-rest:])
    return jax.tree.map(lambda a: a / len(images), total)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["curve", "start_stats", "end_stats", "images"],
    meta_fields=["apply_train", "batch_size", "keep_ends"],
)
@dataclasses.dataclass(frozen=True, eq=False)
class CurveWithStats:
    """A curve whose points are whole networks: parameters and BatchNorm statistics.

    Args:
        curve: The curve of the parameters: `Bezier`, `Plane`, any pytree that is a function of t.
        start_stats: Statistics of the endpoint at t = 0; {} for a network without BatchNorm.
        end_stats: Statistics of the endpoint at t = 1.
        images: Images to recompute from, [N, H, W, C]; None interpolates the endpoints'
            statistics linearly instead (the option `none`).
        apply_train: `apply_train(key, variables, x) -> (logits, batch_stats)`.
        batch_size: Images a batch in the recomputation.
        keep_ends: Use start_stats and end_stats at t = 0 and 1; False where the ends were trained
            along with the curve.
    """

    curve: Callable[[jax.Array], PyTree]
    start_stats: PyTree
    end_stats: PyTree
    images: jax.Array | np.ndarray | None
    apply_train: Callable[..., tuple[jax.Array, PyTree]]
    batch_size: int = 128
    keep_ends: bool = True

    def __call__(self, t: jax.Array) -> dict[str, PyTree]:
        """The variables at t: {"params": ..., "batch_stats": ...}."""
        params = self.curve(t)
        if not jax.tree.leaves(self.start_stats):
            return {"params": params}
        on_curve = jnp.ndim(t) == 0  # a plane's points are pairs, and have no ends
        if self.images is None:
            s = t if on_curve else 0.5
            between = jax.tree.map(lambda a, b: a + s * (b - a), self.start_stats, self.end_stats)
        else:
            between = self._recompute(params)
        if not (on_curve and self.keep_ends):
            return {"params": params, "batch_stats": between}
        stats = jax.tree.map(
            lambda a, s, b: jnp.where(t == 0, a, jnp.where(t == 1, b, s)),
            self.start_stats,
            between,
            self.end_stats,
        )
        return {"params": params, "batch_stats": stats}

    def _recompute(self, params: PyTree) -> PyTree:
        key = jax.random.key(0)  # of the dropout in the passes; the same at every t

        def update_fn(stats: PyTree, x: jax.Array) -> PyTree:
            return self.apply_train(key, {"params": params, "batch_stats": stats}, x)[1]

        images = jnp.asarray(self.images)
        return recompute(update_fn, self.start_stats, images, batch_size=self.batch_size)
