"""FT-SAM: fine-tuning with sharpness-aware minimisation."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import optax
from jax import lax

from mcjax.core.bound_functions import Bound
from mcjax.core.fields import number
from mcjax.core.settings import Setting
from mcjax.core.tree import PyTree
from mcjax.data.batches import Batch
from mcjax.repair.methods.method import TRAIN_PASSES, Case, Method, Plan, Work
from mcjax.repair.methods.tuning import by_setting
from mcjax.training import LossFn, StepMetrics
from mcjax.training.objectives import endpoint_loss

NUM_GRADIENTS = 2


def sharpness_aware(loss_fn: LossFn, *, rho: float) -> LossFn:
    """A loss whose gradient is that of another at the worst nearby parameters.

        e = rho w^2 g / (|| |w| g ||_2 + 1e-12),    g = grad L(w),    gradient = grad L(w + e)

    elementwise, with one norm over all parameters; e is not differentiated. The running statistics
    and the metrics are those of the pass at w.

    Args:
        loss_fn: The loss L of `train_steps`, e.g. `endpoint_loss`.
        rho: Radius of the neighbourhood, relative to the parameters; 0 gives L's own gradient.

    Returns:
        A loss_fn for `train_steps`.

    Source: Kwon et al. 2021, "ASAM"; Zhu et al. 2023 use it for repairs.
    """
    return Bound(_sharpness_aware, loss_fn, rho)


def _sharpness_aware(
    loss_fn: LossFn,
    rho: float,
    key: jax.Array,
    step: jax.Array,
    params: PyTree,
    stats: PyTree,
    fixed: PyTree,
    batch: Batch,
) -> tuple[jax.Array, tuple[PyTree, StepMetrics]]:
    here = lax.stop_gradient(params)
    g, (new_stats, metrics) = jax.grad(loss_fn, argnums=2, has_aux=True)(
        key, step, here, stats, fixed, batch
    )
    moved = ascent(here, g, rho=rho)
    there = jax.tree.map(jnp.add, params, moved)
    loss, _ = loss_fn(key, step, there, stats, fixed, batch)
    return loss, (new_stats, metrics)


def ascent(params: PyTree, gradient: PyTree, *, rho: float) -> PyTree:
    """The step e = rho w^2 g / (|| |w| g ||_2 + 1e-12) to the worst nearby parameters.

    Args:
        params: w.
        gradient: g, a tree like w.
        rho: Length of e / |w|.

    Returns:
        A tree like w.

    Example:
        >>> ascent({"w": jnp.array([3.0, 1.0])}, {"w": jnp.array([1.0, 4.0])}, rho=5.0)["w"]
        Array([9., 4.], dtype=float32)
    """
    scaled = jax.tree.map(lambda w, g: jnp.abs(w) * g, params, gradient)
    norm = optax.tree.norm(scaled) + 1e-12
    return jax.tree.map(lambda w, s: rho * jnp.abs(w) * s / norm, params, scaled)


def run(case: Case) -> dict[str, PyTree]:
    """Fine-tunes the suspect of a case with sharpness-aware minimisation.

    A step computes two gradients, so there are half as many steps as in fine-tuning. There is no
    label smoothing: with rho = 0 each step is one of fine-tuning.

    Source: Zhu et al. 2023, "Enhancing fine-tuning based backdoor defense with sharpness-aware
        minimization".
    """
    start = case.suspect
    loss_fn = sharpness_aware(endpoint_loss(case.network), rho=case.options["ft_sam.rho"])
    budget = case.shortened(NUM_GRADIENTS)
    return case.train("ft_sam", start["params"], start["batch_stats"], loss_fn, budget=budget)


def work(plan: Plan) -> Iterator[Work]:
    """Half as many steps, with two gradients each."""
    steps = sum(max(1, n // NUM_GRADIENTS) for n in plan.num_steps)
    passes = NUM_GRADIENTS * TRAIN_PASSES
    yield Work("train ft_sam", steps, plan.batch_size, passes, 14, "batch")


METHOD = Method(
    run=run,
    learning_rate=0.01,
    settings={
        "ft_sam.rho": Setting(
            2.0, number(0, 1e3), "radius of FT-SAM's neighbourhood, relative to the weights"
        ),
    },
    work=work,
    tuning=by_setting("ft_sam.rho", (0.5, 1.0, 2.0, 4.0)),
)
