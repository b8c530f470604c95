"""A look along a path: accuracy and loss, robust accuracy and curvature, each on its own images."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mcjax.attacks import apgd, autoattack, pgd
from mcjax.attacks.checks import check_choice
from mcjax.attacks.images.zero_gradient import correct_and_flat
from mcjax.core.bound_functions import Bound
from mcjax.core.keys import check_seed
from mcjax.core.sharding import make_mesh, replicate
from mcjax.core.tree import PyTree
from mcjax.curvature import input_hessian_eigenvalue
from mcjax.data.batches import Batch, stack_batches
from mcjax.evaluation.path import default_chunk, evaluate_path
from mcjax.models.network import Network
from mcjax.training.losses import MetricFn, accuracy, cross_entropy

NUM_STEPS = {"pgd": 10, "apgd": 100, "autoattack": 100}
"""The attacks of `robust`, with their numbers of steps."""

MOST_CLASSES_EXACT = 100
"""Classes up to which the exact eigenvalue, one vector-Jacobian product per class, is the default."""


class Quantity(NamedTuple):
    """What is measured on one set of images.

    Attributes:
        metric_fn: As `evaluate_path` takes it.
        examples: {"image" [N, H, W, C], "label" [N]}.
        batch_size: Images per batch.
        prefix: Written before the metrics' names.
    """

    metric_fn: MetricFn
    examples: Mapping[str, Any]
    batch_size: int = 1000
    prefix: str = ""


def along(
    quantities: Sequence[Quantity],
    curve: Callable[[jax.Array], PyTree],
    ts: np.ndarray,
    tell: Callable[[int, dict[str, float]], None] = lambda points, values: None,
) -> dict[str, np.ndarray]:
    """Measures several quantities at every t, in one program: curve(t) is computed once per t.

    Args:
        quantities: What to measure.
        curve: As `evaluate_path` takes it.
        ts: Points, [T].
        tell: Called as `tell(points, values)` after each block of points, with their number and the
            last point's values.

    Returns:
        {name: means [T]}.

    Example:
        >>> import jax.numpy as jnp
        >>> from mcjax.curves import Bezier
        >>> line = Bezier.connect({"w": jnp.zeros(1)}, {"w": jnp.ones(1)})
        >>> images = {"image": np.ones((2, 1, 1, 1), np.float32), "label": np.zeros(2, np.int32)}
        >>> metric_fn = lambda params, batch: {"w": params["w"] * batch["image"][:, 0, 0, 0]}
        >>> along([Quantity(metric_fn, images, prefix="my_")], line, np.array([0.0, 0.5]))["my_w"]
        array([0. , 0.5], dtype=float32)
    """
    mesh = make_mesh()
    named = {str(i): q for i, q in enumerate(quantities)}
    metric_fns = {name: q.metric_fn for name, q in named.items()}
    sets = {
        name: stack_batches(dict(q.examples), min(len(q.examples["label"]), q.batch_size))
        for name, q in named.items()
    }
    sets, curve = replicate((sets, curve), mesh) if _is_tree(curve) else (sets, curve)
    block = mesh.size * default_chunk()
    found: dict[str, list[np.ndarray]] = {}
    for first in range(0, len(ts), block):
        part = ts[first : first + block]
        for i, means in evaluate_path(metric_fns, curve, part, sets, mesh).items():
            for name, values in means.items():
                found.setdefault(f"{named[i].prefix}{name}", []).append(np.asarray(values))
        tell(len(part), {name: float(values[-1][-1]) for name, values in found.items()})
    return {name: np.concatenate(values) for name, values in found.items()}


def _is_tree(curve: Any) -> bool:
    return jax.tree.leaves(curve) != [curve]


def robust(
    network: Network,
    *,
    seed: int,
    eps: float,
    attack: str = "pgd",
    num_steps: int | None = None,
    num_queries: int = 5000,
) -> MetricFn:
    """Loss and accuracy under an attack in the l_inf ball.

    Args:
        network: The network.
        seed: Seed of the attack's random numbers, which are the same at every t.
        eps: The ball's radius.
        attack: "pgd", with steps of 2.5 eps / num_steps, "apgd" on the cross-entropy, or "autoattack".
        num_steps: Number of steps; of AutoAttack, those of APGD and FAB. Default: `NUM_STEPS`.
        num_queries: Queries of AutoAttack's Square.

    Returns:
        A metric_fn of "robust_loss" (not with "autoattack", which stops at the first image that is
        misclassified), "robust_accuracy" and "zero_gradient", see
        `mcjax.attacks.images.zero_gradient.correct_and_flat`.

    Raises:
        UserError: The attack is unknown.
    """
    check_choice("attack", attack, list(NUM_STEPS))
    num_steps = num_steps or NUM_STEPS[attack]
    seed = check_seed(seed)
    if attack == "autoattack":
        ensemble = Bound(autoattack, eps=eps, num_steps=num_steps, num_queries=num_queries)
        return Bound(_under_autoattack, network, ensemble, seed)
    one = (
        Bound(pgd, eps=eps, step_size=2.5 * eps / num_steps, num_steps=num_steps)
        if attack == "pgd"
        else Bound(apgd, eps=eps, num_steps=num_steps, early_stop=False)
    )
    return Bound(_under_attack, network, one, seed)


def _under_attack(
    network: Network, attack: Bound, seed: int, variables: PyTree, batch: Batch
) -> dict[str, jax.Array]:
    x, y = batch["image"], batch["label"]
    logits_fn = functools.partial(network.apply, variables)
    logits = logits_fn(attack(jax.random.key(seed), logits_fn, x, y))
    return {
        "robust_loss": cross_entropy(logits, y),
        "robust_accuracy": accuracy(logits, y),
        "zero_gradient": correct_and_flat(logits_fn, x, y)[1].astype(x.dtype),
    }


def _under_autoattack(
    network: Network, ensemble: Bound, seed: int, variables: PyTree, batch: Batch
) -> dict[str, jax.Array]:
    x, y = batch["image"], batch["label"]
    found = ensemble(jax.random.key(seed), functools.partial(network.apply, variables), x, y)
    return {
        "robust_accuracy": found.robust.astype(x.dtype),
        "zero_gradient": found.zero_gradient.astype(x.dtype),
    }


def eigenvalue(network: Network, num_classes: int) -> MetricFn:
    """The largest eigenvalue of the loss's Hessian with respect to each image.

    Args:
        network: The network.
        num_classes: Number of its classes.

    Returns:
        A metric_fn of "eigenvalue" and "eigenvalue_residual". The eigenvalue is exact for piecewise
        linear networks of at most `MOST_CLASSES_EXACT` classes, and found by Lanczos for others.
    """
    exact = network.piecewise_linear is True and num_classes <= MOST_CLASSES_EXACT
    return Bound(_eigenvalue, network, "exact" if exact else "lanczos")


def _eigenvalue(
    network: Network, method: str, variables: PyTree, batch: Batch
) -> dict[str, jax.Array]:
    logits_fn = functools.partial(network.apply, variables)
    top = input_hessian_eigenvalue(
        logits_fn,
        batch["image"],
        batch["label"],
        method,
        piecewise_linear=network.piecewise_linear,
    )
    return {"eigenvalue": top.eigenvalue, "eigenvalue_residual": top.residual}
