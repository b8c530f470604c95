"""The taught path: a curve that learns the suspect's answers and unlearns inverted triggers."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from mcjax.core.tree import PyTree
from mcjax.curves import Curve
from mcjax.curves.batch_stats import CurveWithStats
from mcjax.repair.methods import taught
from mcjax.repair.methods.method import Case, Method
from mcjax.training.curve import starting_curve, train_curve
from mcjax.training.fit import Budget

LEARNING_RATE = 0.05
FREE_LEARNING_RATE = 0.01
"""With a free end, which stays near the suspect."""


def run(case: Case) -> Curve:
    """Trains the curve of a case by answers and unlearning, in rounds, and its far end if that is free.

    Between rounds triggers are inverted on the middle of the curve.
    """
    options = case.curve
    loss_fn = taught.taught_loss(case, options.curve_type)

    def train(curve: Curve, beside: dict[str, Any], budget: Budget, part: str) -> Curve:
        key = case.key_fn(f"taught_path_{part}" if part else "taught_path")
        return train_curve(
            curve,
            case.suspect["batch_stats"],
            case.images,
            loss_fn=loss_fn,
            learning_rate=case.options["learning_rate.taught_path"],
            budget=budget,
            fit_fn=functools.partial(case.fit_fn, key),
            fix_end=not case.end_is_free,
            beside=beside,
            part=part,
        )

    key = case.key_fn("taught_path")
    curve = starting_curve(key, case.network, options, case.suspect, case.second_fn())
    return taught.teach(
        case, "taught_path", curve, train_fn=train, network_fn=functools.partial(middle, case)
    )


def middle(case: Case, curve: Curve) -> PyTree:
    """The network at t = 0.5, its BatchNorm statistics from the bonafide images."""
    points = CurveWithStats(
        curve,
        case.suspect["batch_stats"],
        None if case.end_is_free else case.second_fn()["batch_stats"],
        case.images["image"] if case.network.has_batch_stats else None,
        case.network.apply_train,
    )
    return {"batch_stats": {}, **jax.jit(points)(jnp.float32(0.5))}


METHOD = Method(
    run=run,
    kind="path",
    learning_rate=LEARNING_RATE,
    settings=taught.SETTINGS,
    work=taught.work("taught_path", curve=True),
)
