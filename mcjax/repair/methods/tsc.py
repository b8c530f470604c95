"""TSC: from the suspect to its un-aligned copy and back to the suspect, aligned, several rounds.

A round un-aligns a copy of the network and takes the point t of a path to it; then it aligns the
network with that point, and takes the point t of a path from the one to the other.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from mcjax import alignment
from mcjax.core.fields import number, whole
from mcjax.core.settings import Setting
from mcjax.core.tree import PyTree
from mcjax.curves.batch_stats import CurveWithStats
from mcjax.data.batches import to_unit
from mcjax.repair.methods.method import Case, Method, trained
from mcjax.training.curve import starting_curve, train_curve
from mcjax.training.objectives import curve_loss

BATCH = 250
"""Images whose activations are compared at a time."""


def run(case: Case) -> dict[str, PyTree]:
    """Repairs the suspect of a case by rounds of un-aligned and aligned paths.

    The budget's steps are divided among all paths. BatchNorm is recomputed at each point taken. There
    is no fine-tuning between rounds.

    Raises:
        UserError: The network has no channels that can be permuted.

    Source: TSC, 2025 (arXiv 2506.07467), stages 1 and 2.
    """
    rounds, t = case.options["tsc.num_rounds"], case.options["tsc.t"]
    network, here = case.network, case.suspect
    spec = alignment.permutation_spec(network.apply, here, case.bonafide["image"].shape[1:])
    match = functools.partial(alignment.activation_matching, spec, network.apply)
    for i in range(rounds):
        away = match(here, here, images(case), away=True)
        copy = alignment.permute(spec, away, here)
        middle = point(case, here, copy, t, f"away_{i}")
        nearest = match(middle, here, images(case))
        here = point(case, alignment.permute(spec, nearest, here), middle, t, f"back_{i}")
    return here


def images(case: Case) -> Iterator[jax.Array]:
    """The bonafide images in [0, 1], in batches."""
    whole_set = case.bonafide["image"]
    for i in range(0, len(whole_set), BATCH):
        yield to_unit(whole_set[i : i + BATCH])


def point(case: Case, start: PyTree, end: PyTree, t: float, part: str) -> dict[str, PyTree]:
    """The point t of a path that is trained between two networks."""
    key, options = case.key_fn(f"tsc_{part}"), case.curve
    curve = train_curve(
        starting_curve(key, case.network, options, start, end),
        start["batch_stats"],
        case.images,
        loss_fn=curve_loss(
            case.network,
            options.curve_type,
            weight_decay=case.budget.weight_decay,
            num_strata=options.num_strata,
        ),
        learning_rate=case.options["learning_rate.tsc"],
        budget=case.shortened(2 * case.options["tsc.num_rounds"]),
        fit_fn=functools.partial(case.fit_fn, key),
        part=part,
    )
    recomputed = case.images["image"] if case.network.has_batch_stats else None
    points = CurveWithStats(
        curve, start["batch_stats"], end["batch_stats"], recomputed, case.network.apply_train
    )
    return {"batch_stats": {}, **jax.device_get(jax.jit(points)(jnp.float32(t)))}


METHOD = Method(
    run=run,
    learning_rate=0.02,
    settings={
        "tsc.num_rounds": Setting(3, whole(1, 1000), "rounds of TSC, of two paths each", 1),
        "tsc.t": Setting(0.4, number(0, 1), "the point that TSC takes of each path"),
    },
    work=trained("tsc", curve=True),
)
