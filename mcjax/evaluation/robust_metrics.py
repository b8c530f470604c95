"""Per-image metrics for evasion attacks along a path: losses, attack, curvature, loss model."""

import functools

import jax
import jax.numpy as jnp

from mcjax.attacks.images.ensemble_logits import ensemble_logits
from mcjax.attacks.images.pgd import pgd
from mcjax.attacks.images.zero_gradient import correct_and_flat
from mcjax.core.bound_functions import Bound
from mcjax.core.foreign import refuse_torch
from mcjax.core.keys import check_seed
from mcjax.core.tree import PyTree
from mcjax.curvature import input_hessian_eigenvalue, quadratic_model
from mcjax.data.batches import Batch
from mcjax.models.network import Network
from mcjax.training.ensemble import log_mean_probabilities, member_logits
from mcjax.training.losses import MetricFn, accuracy, cross_entropy


def robust_metrics(
    network: Network,
    *,
    seed: int,
    eps: float,
    step_size: float,
    num_steps: int,
    norm: str = "linf",
    method: str = "exact",
) -> MetricFn:
    """The metric_fn of PGD and of the input Hessian at every point of a path.

    Args:
        network: The network.
        seed: Seed of the attack's random starts, which are the same at every t.
        eps: Radius of the attack's ball.
        step_size: The attack's step size.
        num_steps: The attack's number of steps.
        norm: The attack's norm.
        method: The method of `input_hessian_eigenvalue`.

    Returns:
        A metric_fn that returns per image: "loss", "accuracy"; "robust_loss", "robust_accuracy"
        under PGD; "robust_margin" (the label's logit minus the largest other, divided by the logits'
        standard deviation, hence scale-free) and that standard deviation, "logit_scale";
        "zero_gradient", 1 where the clean image is correct and the gradient at it is exactly zero;
        "eigenvalue" of the clean image's Hessian with its "residual"; "alignment",
        "gradient_term", "curvature_term", "model_error" of the attack's perturbation.
    """
    refuse_torch("network", network)
    attack = Bound(pgd, eps=eps, step_size=step_size, num_steps=num_steps, norm=norm)
    return Bound(_robust_metrics, network, attack, check_seed(seed), method)


def _robust_metrics(
    network: Network, attack: Bound, seed: int, method: str, variables: PyTree, batch: Batch
) -> dict[str, jax.Array]:
    x, y = batch["image"], batch["label"]
    logits_fn = functools.partial(network.apply, variables)
    x_adv = attack(jax.random.key(seed), logits_fn, x, y)
    _, flat = correct_and_flat(logits_fn, x, y)
    clean, robust = logits_fn(x), logits_fn(x_adv)
    top = input_hessian_eigenvalue(
        logits_fn,
        x,
        y,
        method,
        piecewise_linear=network.piecewise_linear,
        return_eigenvector=True,
    )
    assert top.eigenvector is not None
    model = quadratic_model(logits_fn, x, y, x_adv - x, top.eigenvector)
    return {
        "loss": cross_entropy(clean, y),
        "accuracy": accuracy(clean, y),
        "robust_loss": cross_entropy(robust, y),
        "robust_accuracy": accuracy(robust, y),
        "robust_margin": margin(robust, y) / jnp.maximum(robust.std(1), 1e-12),
        "logit_scale": clean.std(1),
        "zero_gradient": flat.astype(x.dtype),
        "eigenvalue": top.eigenvalue,
        "residual": top.residual,
        "alignment": model.alignment,
        "gradient_term": model.gradient_term,
        "curvature_term": model.curvature_term,
        "model_error": model.error,
    }


def margin(logits: jax.Array, y: jax.Array) -> jax.Array:
    """z_y - max_{j != y} z_j, [B]: positive where the prediction is correct.

    Example:
        >>> margin(jnp.array([[1.0, 3.0, 2.0]]), jnp.array([1]))
        Array([1.], dtype=float32)
    """
    own = jax.nn.one_hot(y, logits.shape[1], dtype=bool)
    return jnp.take_along_axis(logits, y[:, None], axis=1)[:, 0] - jnp.where(
        own, -jnp.inf, logits
    ).max(1)


def transfer(
    key: jax.Array,
    network: Network,
    members: PyTree,
    batch: Batch,
    *,
    eps: float,
    step_size: float,
    num_steps: int,
    norm: str = "linf",
) -> dict[str, jax.Array]:
    """Attacks each of several networks and evaluates the images on all of them and their ensemble.

    The ensemble predicts by the mean of its members' probabilities. It is evaluated on the images
    made against each member and on images made against the ensemble itself.

    Args:
        key: Key of the attacks' random starts.
        network: The network.
        members: Variables stacked along a leading axis, [T, ...].
        batch: Images and labels, [B].
        eps: Radius of the attack's ball.
        step_size: The attack's step size.
        num_steps: The attack's number of steps.
        norm: The attack's norm.

    Returns:
        "matrix" [T, T]: accuracy of member j on images made against member i; "ensemble_clean",
        "ensemble_robust": the ensemble's accuracy on clean images and on images made against it;
        "ensemble_transfer" [T]: its accuracy on images made against member i.
    """
    refuse_torch("network", network)
    x, y = batch["image"], batch["label"]

    log_mean = functools.partial(log_mean_probabilities, network.apply, members)

    def attacked(x: jax.Array) -> jax.Array:
        return ensemble_logits(member_logits(network.apply, members, x))

    def attack(logits_fn) -> jax.Array:
        return pgd(key, logits_fn, x, y, eps, step_size, num_steps, norm=norm)

    def against(variables: PyTree) -> tuple[jax.Array, jax.Array]:
        x_adv = attack(functools.partial(network.apply, variables))
        on_members = jax.lax.map(
            lambda other: accuracy(network.apply(other, x_adv), y).mean(), members
        )
        return on_members, accuracy(log_mean(x_adv), y).mean()

    matrix, on_ensemble = jax.lax.map(against, members)
    return {
        "matrix": matrix,
        "ensemble_clean": accuracy(log_mean(x), y).mean(),
        "ensemble_robust": accuracy(log_mean(attack(attacked)), y).mean(),
        "ensemble_transfer": on_ensemble,
    }
