"""Fault sneaking: the smallest weight change that misclassifies chosen images but no others."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from mcjax.attacks.attack_losses import margin
from mcjax.attacks.checks import check_choice, check_sizes
from mcjax.attacks.injection import ApplyFn, Faults, Injected, describe, select_layers
from mcjax.data.batches import to_unit
from mcjax.errors import UserError
from mcjax.tree import PyTree

METHODS = ("l0", "l2", "gradient")


def fault_sneaking(
    apply_fn: ApplyFn,
    variables: PyTree,
    faults: Faults,
    *,
    method: str = "l0",
    layers: Sequence[str] = (),
    strength: float = 1e-3,
    rho: float = 1.0,
    step_size: float = 0.1,
    fault_weight: float | None = None,
    confidence: float = 1.0,
    num_steps: int = 500,
) -> Injected:
    """Changes weights so that S images are classified as their targets and the others as before.

        min_delta  strength * D(delta) + sum_i c_i g_i(theta + delta) / sum_i c_i
        g_i = max(max_{j != t_i} z_j - z_{t_i} + confidence, 0)

    D is the number of changed weights (l0) or their Euclidean norm (l2). ADMM on delta = z: z is a
    proximal step of D (hard thresholding, or shrinkage of the whole vector), delta a gradient step on
    the augmented Lagrangian, u the scaled multiplier. The best z of all steps is returned: most
    faults succeed, then most other images are kept, then smallest D. Method "gradient" is gradient
    descent without D, as in the official code of Zhao et al. 2020.

    Args:
        apply_fn: `apply_fn(variables, x) -> logits`.
        variables: The network's variables; not modified.
        faults: The images, see `mcjax.attacks.injection.choose_faults`.
        method: "l0", "l2" or "gradient".
        layers: Layers to change; () for all.
        strength: Weight of D, in units of the loss. A smaller strength changes more weights and
            keeps more of the other images; many faults need a small one.
        rho: Weight of the ADMM penalty on delta - z.
        step_size: Size of the gradient steps on delta.
        fault_weight: c for the first S images; c is 1 for the others. Default: (T - S) / S, but at
            least 1.
        confidence: Margin, in logits, by which a target must win.
        num_steps: Number of steps.

    Returns:
        The tampered network and a report; "converged" is True if every fault succeeds.

    Raises:
        UserError: The method or a layer is unknown; a size is negative.

    Source: Zhao et al. 2019 (Fault Sneaking Attack), section 4; as gradient descent Zhao et al. 2020.
    """
    check_choice("method", method, METHODS)
    check_sizes(strength=strength, rho=rho, step_size=step_size, confidence=confidence)
    if rho == 0:
        raise UserError("rho is 0; it must be positive")
    before = select_layers(variables, layers)
    x = to_unit(jnp.asarray(faults.examples["image"]))
    y = jnp.asarray(faults.examples["label"])
    weight = importance(faults, fault_weight)

    @jax.jit
    def search(theta: jax.Array, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        def logits_fn(delta: jax.Array) -> jax.Array:
            return apply_fn(before.with_weights(theta + delta), x)

        def loss(delta: jax.Array) -> jax.Array:
            return injection_loss(logits_fn(delta), y, weight, confidence=confidence)

        def score(z: jax.Array) -> jax.Array:
            return _score(logits_fn(z), y, faults.num_faults, _size(z, method))

        def step(_: int, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            delta, u, best, best_score = state
            gradient = jax.grad(loss)(delta)
            if method == "gradient":
                z = delta = delta - step_size * gradient
            else:
                z = PROXIMAL[method](delta + u, strength / rho)
                delta = delta - step_size * (gradient + rho * (delta - z + u))
                u = u + delta - z
            new = score(z)
            better = _greater(new, best_score)
            return delta, u, jnp.where(better, z, best), jnp.where(better, new, best_score)

        zero = jnp.zeros_like(theta)
        best = lax.fori_loop(0, num_steps, step, (zero, zero, zero, score(zero)))[2]
        return theta + best, logits_fn(best)

    theta, logits = search(before.theta, x, y)
    return describe(before, theta, logits, faults)


def hinge(logits: jax.Array, target: jax.Array, *, confidence: float = 0.0) -> jax.Array:
    """max(max_{j != t} z_j - z_t + confidence, 0), [B]: zero if the target wins by `confidence`.

    Example:
        >>> hinge(jnp.array([[1.0, 3.0, 2.0]]), jnp.array([2]), confidence=0.5)
        Array([1.5], dtype=float32)
    """
    return jax.nn.relu(margin(logits, target) + confidence)


def injection_loss(
    logits: jax.Array, y: jax.Array, weight: jax.Array, *, confidence: float
) -> jax.Array:
    """sum_i c_i g_i / sum_i c_i, with g the hinge loss."""
    return (weight * hinge(logits, y, confidence=confidence)).sum() / weight.sum()


def importance(faults: Faults, fault_weight: float | None = None) -> jax.Array:
    """The weights c: fault_weight (default: max((T - S) / S, 1)) for the first S images, else 1."""
    num_images = len(faults.examples["label"])
    if fault_weight is None:
        fault_weight = max(1.0, (num_images - faults.num_faults) / faults.num_faults)
    return jnp.where(jnp.arange(num_images) < faults.num_faults, fault_weight, 1.0)


def hard_threshold(v: jax.Array, strength: float) -> jax.Array:
    """argmin_z strength * ||z||_0 + ||z - v||^2 / 2: zeroes entries up to sqrt(2 strength).

    Example:
        >>> hard_threshold(jnp.array([0.5, -3.0]), 2.0)
        Array([ 0., -3.], dtype=float32)
    """
    return jnp.where(v**2 > 2 * strength, v, 0.0)


def shrink(v: jax.Array, strength: float) -> jax.Array:
    """argmin_z strength * ||z||_2 + ||z - v||^2 / 2: shortens the vector by `strength`.

    Example:
        >>> shrink(jnp.array([3.0, 4.0]), 2.5)
        Array([1.5, 2. ], dtype=float32)
    """
    norm = jnp.linalg.norm(v)
    return v * jnp.where(norm > strength, 1 - strength / jnp.maximum(norm, 1e-30), 0.0)


PROXIMAL = {"l0": hard_threshold, "l2": shrink}


def _size(z: jax.Array, method: str) -> jax.Array:
    return (z != 0).sum().astype(jnp.float32) if method == "l0" else jnp.linalg.norm(z)


def _score(logits: jax.Array, y: jax.Array, num_faults: int, size: jax.Array) -> jax.Array:
    """The score, compared lexicographically: successful faults, kept images, minus the norm."""
    right = (logits.argmax(-1) == y).astype(jnp.float32)
    return jnp.stack([right[:num_faults].sum(), right[num_faults:].sum(), -size])


def _greater(a: jax.Array, b: jax.Array) -> jax.Array:
    """Whether a > b in lexicographic order."""
    return functools.reduce(
        lambda later, i: (a[i] > b[i]) | ((a[i] == b[i]) & later), (2, 1, 0), jnp.array(False)
    )
