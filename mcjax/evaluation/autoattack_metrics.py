"""Robust accuracy by AutoAttack at every point of a path, beside PGD's on the same images."""

import functools

import jax

from mcjax.attacks.images.autoattack import autoattack
from mcjax.attacks.images.autoattack_rounds import STANDARD
from mcjax.attacks.images.pgd import pgd
from mcjax.core.bound_functions import Bound
from mcjax.core.foreign import refuse_torch
from mcjax.core.keys import check_seed
from mcjax.core.tree import PyTree
from mcjax.data.batches import Batch
from mcjax.models.network import Network
from mcjax.training.losses import MetricFn, accuracy


def autoattack_metrics(
    network: Network,
    *,
    seed: int,
    eps: float,
    norm: str = "linf",
    num_steps: int = 100,
    num_queries: int = 5000,
    pgd_step_size: float,
    pgd_num_steps: int,
) -> MetricFn:
    """The metric_fn of AutoAttack, for `examples_along_path` or `evaluate_path`.

    The whole ensemble is part of the one program that evaluates a path; at each t, an attack works on the
    images that withstand the earlier ones.

    Args:
        network: The network.
        seed: Seed of the attacks' random numbers, which are the same at every t.
        eps: Radius of the ball, of both attacks.
        norm: Its norm.
        num_steps: Steps of APGD and FAB in AutoAttack.
        num_queries: Queries of Square in AutoAttack.
        pgd_step_size: Step size of PGD.
        pgd_num_steps: Steps of PGD.

    Returns:
        A metric_fn that returns per image, 0 or 1: "accuracy"; "pgd_accuracy"; "autoattack_accuracy";
        "after_NAME", correct after the attack NAME and those before it; "zero_gradient", correct and
        without a gradient to climb.
    """
    refuse_torch("network", network)
    attack = Bound(autoattack, eps=eps, norm=norm, num_steps=num_steps, num_queries=num_queries)
    compared = Bound(
        pgd, eps=eps, step_size=pgd_step_size, num_steps=pgd_num_steps, norm=norm, early_stop=True
    )
    return Bound(_autoattack_metrics, network, attack, compared, check_seed(seed))


def _autoattack_metrics(
    network: Network, attack: Bound, compared: Bound, seed: int, variables: PyTree, batch: Batch
) -> dict[str, jax.Array]:
    x, y = batch["image"], batch["label"]
    logits_fn = functools.partial(network.apply, variables)
    key = jax.random.key(seed)
    found = attack(key, logits_fn, x, y)
    dtype = x.dtype
    after = {
        f"after_{name}": ((found.fooled_by == -1) | (found.fooled_by > i)).astype(dtype)
        for i, name in enumerate(STANDARD, 1)
    }
    return {
        "accuracy": (found.fooled_by != 0).astype(dtype),
        "pgd_accuracy": accuracy(logits_fn(compared(key, logits_fn, x, y)), y).astype(dtype),
        "autoattack_accuracy": found.robust.astype(dtype),
        **after,
        "zero_gradient": found.zero_gradient.astype(dtype),
    }
