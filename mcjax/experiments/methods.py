"""The repairs that a study compares, by name: a new one is one function and one line below.

Each is `method(study, size) -> [Repair, ...]`, with networks trained and judged and nothing
else; those of ANY_SIZE use no bonafide images (but for BatchNorm, where a network has it) and run once.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mcjax.core.errors import UserError
from mcjax.core.processes import once
from mcjax.core.progress import say
from mcjax.core.tree import PyTree
from mcjax.curves import KINDS, Curve
from mcjax.curves.batch_stats import CurveWithStats
from mcjax.curves.geometry import distances
from mcjax.experiments.stages.alignment import aligned
from mcjax.experiments.stages.path import Table
from mcjax.experiments.stages.starting_curve import joined
from mcjax.experiments.study import (
    Study,
    judge,
    judge_networks,
    train_method,
    with_stats,
)
from mcjax.repair.choose import Choice, choose, oracle
from mcjax.repair.methods import fine_pruning, i_bau, noise, pruning
from mcjax.runs.stage import Found, stage
from mcjax.training.objectives import curve_loss, endpoint_loss, split_curve


class Repair(NamedTuple):
    """One row of the table.

    Attributes:
        method: Its name.
        values: The study's measures, by column.
        t: The point of the path, None off it.
        seconds: Of the training.
        path: All points of the path, for the row that stands for it.
        choice: How t was chosen, for that row.
    """

    method: str
    values: dict[str, float]
    t: float | None = None
    seconds: float = 0.0
    path: Table | None = None
    choice: Choice | None = None


def path(study: Study, size: int) -> list[Repair]:
    """The curve trained on bonafide images: at the chosen t, at fixed ones, and at the oracle's."""
    return along(study, "path", size, *trained_path(study, size))


def trained_path(study: Study, size: int) -> tuple[Curve, PyTree, PyTree, float]:
    """The curve trained on a size's images, the networks that it joins, and the seconds it took."""
    start, end = study.tampered.start, second_end(study, size)
    kind, options = KINDS[study.run.config.curve.kind], study.run.config.curve
    key = study.run.key(f"{study.name}path_{size}")
    trained, fixed = split_curve(joined(study.run, key, start, end))
    variables, seconds = train_method(
        study,
        "path",
        size,
        trained,
        start["batch_stats"],
        fixed=fixed,
        loss_fn=curve_loss(
            study.run.network,
            kind,
            weight_decay=study.options.weight_decay,
            num_strata=options.num_strata,
        ),
        learning_rate=study.options.learning_rate.path,
        decay_in_optimizer=False,
    )
    return kind(**fixed, **variables["params"]), start, end, seconds


def line(study: Study, size: int) -> list[Repair]:
    """The straight line between the ends: the same choice of t, and plain averaging (t = 0.5)."""
    start, end = study.tampered.start, second_end(study, size)
    straight = KINDS[study.run.config.curve.kind].connect(start["params"], end["params"])
    return along(study, "line", size, straight, start, end, 0.0)


def along(
    study: Study,
    name: str,
    size: int,
    curve: Curve,
    start: PyTree,
    end: PyTree,
    seconds: float,
) -> list[Repair]:
    """The rows of a curve: its chosen point, the fixed ones, and the best that there was."""
    ts = np.linspace(0, 1, study.run.config.evaluation.num_points)
    table = judge(study, f"{name}_{size}", with_stats(study, curve, start, end, size), ts, size)
    suspects = study.tampered.suspects
    accuracy = table["selection_accuracy"]
    choice = choose(
        accuracy,
        [distances(curve, ts, s) for s in suspects],
        suspect_accuracy=float(max(accuracy[s] for s in suspects)),
        tolerance=study.options.tolerance,
    )
    best = oracle(accuracy, table[study.tampered.measure], floor=choice.floor)

    def at(method: str, index: int, **extra: Any) -> Repair:
        values = {column: float(v[index]) for column, v in table.items()}
        return Repair(method, values, float(ts[index]), seconds, **extra)

    # Where no point is accurate enough the suspect stays as it is, and the table says so by t = 0.
    chosen = at(name, choice.index or 0, path={"t": ts, **table}, choice=choice)
    fixed = [
        at(f"{name} at t = {t:g}", int(np.abs(ts - t).argmin())) for t in study.options.fixed_t
    ]
    return [chosen, *fixed, at(f"{name} at the oracle's t", best if best is not None else 0)]


def second_end(study: Study, size: int) -> PyTree:
    """The network at t = 1: given, or the suspect's copy fine-tuned on the same images."""
    tampered = study.tampered
    if tampered.end is not None:
        return aligned(study.run, f"{study.run.part}alignment", tampered.start, tampered.end)
    # A copy trained on has its channels in the suspect's order.
    return _fine_tuned(study, size)[0]


def _fine_tuned(study: Study, size: int) -> tuple[PyTree, float]:
    start = study.tampered.start
    return train_method(
        study,
        "fine_tune",
        size,
        start["params"],
        start["batch_stats"],
        loss_fn=endpoint_loss(study.run.network),
        learning_rate=study.options.learning_rate.fine_tune,
    )


def fine_tune(study: Study, size: int) -> list[Repair]:
    """The suspect, trained on."""
    variables, seconds = _fine_tuned(study, size)
    return [one(study, "fine_tune", size, variables, seconds)]


def scratch(study: Study, size: int) -> list[Repair]:
    """A new network, trained on the bonafide images alone."""
    start = {
        "batch_stats": {},
        **study.run.network.init(study.run.key(f"{study.name}scratch_{size}")),
    }
    variables, seconds = train_method(
        study,
        "scratch",
        size,
        start["params"],
        start["batch_stats"],
        loss_fn=endpoint_loss(study.run.network),
        learning_rate=study.options.learning_rate.scratch,
    )
    return [one(study, "scratch", size, variables, seconds)]


def prune(study: Study, size: int) -> list[Repair]:
    """L1 filter pruning of the suspect, then fine-tuning of what is left."""
    params = study.tampered.start["params"]
    fraction = study.options.prune_fraction
    name = study.run.config.model.name
    masks = pruning.smallest_filters(params, fraction=fraction, model_name=name)
    return [_masked_fine_tune(study, "prune", size, masks)]


def fine_prune(study: Study, size: int) -> list[Repair]:
    """Fine-pruning: the last convolution's dormant channels go, then fine-tuning."""
    bonafide, selection = study.run.splits.bonafide_subset(size), study.run.splits.selection
    masks = fine_pruning.prune_dormant(
        study.run.network,
        study.tampered.start,
        bonafide,
        selection,
        tolerance=study.options.tolerance,
    )
    return [_masked_fine_tune(study, "fine_prune", size, masks)]


def _masked_fine_tune(study: Study, name: str, size: int, masks: PyTree) -> Repair:
    start = study.tampered.start
    variables, seconds = train_method(
        study,
        name,
        size,
        pruning.apply_masks(start["params"], masks),
        start["batch_stats"],
        fixed=masks,
        loss_fn=pruning.masked(endpoint_loss(study.run.network)),
        learning_rate=study.options.learning_rate[name],
    )
    return one(study, name, size, variables, seconds)


def unlearn(study: Study, size: int) -> list[Repair]:
    """I-BAU: what a universal perturbation can do is trained away.

    A round goes once through the images as `Study.bonafide` repeats them, so that every size of a run
    gets as many steps: another list of sizes is another budget.
    """
    run, start, options = study.run, study.tampered.start, study.options
    place = f"{study.name}i_bau_{size}"

    def compute() -> Found:
        say(f"{place}: {options.i_bau.num_rounds} rounds")
        began = time.monotonic()
        unlearned = i_bau.unlearn(
            run.key(place),
            run.network,
            start,
            study.bonafide(size),
            batch_size=options.batch_size,
            **options.i_bau.to_dict(),
        )
        variables = once(lambda: unlearned)
        return variables, {"seconds": round(time.monotonic() - began, 3)}

    variables, kept = stage(run, place, start, compute)
    return [one(study, "i_bau", size, variables, kept["seconds"])]


def noise_on_weights(study: Study, size: int) -> list[Repair]:
    """Random networks around either end, sigma = |w_a - w_b|: means over the draws."""
    start, end = study.tampered.start, second_end(study, size)
    repairs = []
    for name, center, other in (("noise at t = 0", start, end), ("noise at t = 1", end, start)):
        key = study.run.key(f"{study.name}{name}")
        cloud = noise.Cloud(key, center["params"], other["params"], 1.0)
        points = CurveWithStats(
            cloud,
            center["batch_stats"],
            center["batch_stats"],
            study.normalised_by(size),
            study.run.network.apply_train,
            study.run.config.evaluation.batch_stats_batch_size,
            keep_ends=False,
        )
        table = judge(study, f"{name}_{size}", points, np.arange(study.options.num_draws))
        repairs.append(Repair(name, {column: float(v.mean()) for column, v in table.items()}))
    return repairs


def references(study: Study) -> list[Repair]:
    """The networks as they were found, and those that they are compared with."""
    tampered = study.tampered
    networks = {"suspect": tampered.start, "second network": tampered.end, **tampered.references}
    networks = {name: network for name, network in networks.items() if network is not None}
    table = judge_networks(study, "references", list(networks.values()))
    return [
        Repair(name, {column: float(v[i]) for column, v in table.items()})
        for i, name in enumerate(networks)
    ]


def one(study: Study, name: str, size: int, variables: PyTree, seconds: float) -> Repair:
    """The row of a single network."""
    if not variables.get("batch_stats"):
        variables = {"params": variables["params"]}
    table = judge_networks(study, f"{name}_{size}", [variables])
    return Repair(name, {column: float(v[0]) for column, v in table.items()}, seconds=seconds)


METHODS: dict[str, Callable[[Study, int], list[Repair]]] = {
    "path": path,
    "line": line,
    "fine_tune": fine_tune,
    "scratch": scratch,
    "prune": prune,
    "fine_prune": fine_prune,
    "i_bau": unlearn,
    "noise": noise_on_weights,
}
ANY_SIZE = ("line", "noise")


def get(name: str) -> Callable[[Study, int], list[Repair]]:
    """A method by name.

    Raises:
        UserError: There is none of that name.
    """
    if name not in METHODS:
        raise UserError(f"unknown method {name!r} in config.repair; use {', '.join(METHODS)}")
    return METHODS[name]
