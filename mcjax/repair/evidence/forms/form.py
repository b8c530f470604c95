"""What a form of triggers consists of."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mcjax.attacks.poisoning.stamped import ImageShape
from mcjax.core.tree import PyTree


@dataclasses.dataclass(frozen=True)
class Form:
    """A family of triggers: maps of images with parameters q, and a size.

    The smaller a trigger that sends all images to one class, the less natural it is.

    Args:
        start: `start(key, image_shape) -> q`, the parameters before the inversion.
        stamp: `stamp(q, x) -> x'`, images [..., H, W, C] in [0, 1]; differentiable in q.
        size: `size(q, x) -> scalar`, in the form's own unit, on images x [B, H, W, C];
            differentiable in q.
        natural: `natural(image_shape) -> float`, the size at which a trigger costs one nat: about
            a third of what triggers of clean networks need.
        learning_rate: Of the inversion's Adam, before its decay.
        threshold: Anomaly (`mcjax.repair.evidence.verdict.anomalies`) from which a trigger is evidence
            of a backdoor where there is no control network: what clean networks reach by cost alone
            differs between forms.
    """

    start: Callable[[jax.Array, ImageShape], PyTree]
    stamp: Callable[[PyTree, jax.Array], jax.Array]
    size: Callable[[PyTree, jax.Array], jax.Array]
    natural: Callable[[ImageShape], float]
    learning_rate: float
    threshold: float


def noise(key: jax.Array, shape: tuple[int, ...], scale: float) -> jax.Array:
    """Gaussian noise, a start that differs between restarts."""
    return scale * jax.random.normal(key, shape)


def over(x: jax.Array, v: jax.Array) -> jax.Array:
    """An array [H, W, C] with as many axes as images x [..., H, W, C]."""
    return v.reshape((1,) * (x.ndim - 3) + v.shape)


def norm(v: jax.Array, axis: tuple[int, ...] | None = None) -> jax.Array:
    """The l2 norm, differentiable at 0."""
    return jnp.sqrt((v**2).sum(axis) + 1e-12)
