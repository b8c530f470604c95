"""The rows of a study's table: a method's networks, evaluated."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from mcjax.core.sharding import keep
from mcjax.core.tree import PyTree
from mcjax.curves import Curve
from mcjax.curves.renormalise import Renormalised
from mcjax.experiments.repair_study.judge import judge, judge_networks
from mcjax.experiments.repair_study.study import Study
from mcjax.experiments.repair_study.tuned import is_tuned, tuned
from mcjax.experiments.stages.path import Table
from mcjax.repair import methods
from mcjax.repair.choose import Choice, choose_on_curve, oracle, path_ts
from mcjax.repair.evidence.estimate import num_judged
from mcjax.repair.methods.method import Draws, Family
from mcjax.repair.rule import reaches, strongest


class Repair(NamedTuple):
    """One row of the table.

    Attributes:
        method: Its name.
        values: The study's measures, by column.
        t: The point of the path; None for other networks.
        seconds: Training time.
        path: All points of the path, for the row of the chosen point.
        choice: How t was chosen, for the same row.
        setting: The hyperparameter's value, for a network of a family.
        acceptable: Whether the accuracy on the selection images reaches the floor; None where no
            rule asks.
    """

    method: str
    values: dict[str, float]
    t: float | None = None
    seconds: float = 0.0
    path: Table | None = None
    choice: Choice | None = None
    setting: float | None = None
    acceptable: bool | None = None


def rows_of(study: Study, name: str, size: int) -> list[Repair]:
    """The rows of a method with a number of bonafide images.

    Args:
        study: The study.
        name: The method.
        size: Number of bonafide images.
    """
    if is_tuned(study, name):
        return of_family(study, name, size, *tuned(study, name, size))
    found, seconds = study.repaired(name, size)
    match methods.get(name).kind:
        case "path":
            rows = along(study, name, size, found, seconds)
            if study.options.renormalise:
                rows += along(study, name, size, found, seconds, renormalise=True)
            return rows
        case "network":
            return [one(study, name, size, found, seconds)]
        case "draws":
            return [mean_of(study, size, draws) for draws in found]
        case "family":
            return of_family(study, name, size, found, seconds)


def network_of(study: Study, name: str, size: int) -> PyTree | None:
    """The network that a method's first row is about: of a path the chosen point, of a family the chosen one.

    Args:
        study: The study.
        name: The method.
        size: Number of bonafide images.

    Returns:
        Its variables; None for a method whose rows are means over random networks.
    """
    if is_tuned(study, name):
        return chosen_of(study, name, size, tuned(study, name, size)[0])
    found, _ = study.repaired(name, size)
    match methods.get(name).kind:
        case "path":
            t = rows_of(study, name, size)[0].t
            return study.points(name, found, size)(jnp.float32(t))
        case "network":
            return found
        case "family":
            return chosen_of(study, name, size, found)
        case "draws":
            return None


def chosen_of(study: Study, name: str, size: int, family: Family) -> PyTree:
    """The network of a family that the rule chooses."""
    setting = rows_of(study, name, size)[0].setting
    chosen: PyTree = family.networks(family.values.index(setting))
    return chosen


def along(
    study: Study,
    name: str,
    size: int,
    curve: Curve,
    seconds: float,
    *,
    renormalise: bool = False,
) -> list[Repair]:
    """The rows of a curve: the chosen point, the fixed points, and the oracle's.

    With `renormalise` every point is corrected on the bonafide images, and the distances by which t
    is chosen are those of the curve itself.
    """
    ts = path_ts(study.run.config.evaluation.num_points, study.options.extrapolate)
    points: PyTree = study.points(name, curve, size)
    base, place, suspects = name, f"{name}_{size}", study.suspects(name)
    if renormalise:
        images = keep(study.run.splits.bonafide_subset(size)["image"], study.run.mesh)
        batch_size = study.run.config.evaluation.batch_stats_batch_size
        points = Renormalised.of(study.run.network, points, images, batch_size=batch_size)
        name, place = f"{name} (renormalised)", f"{name}_renormalised_{size}"
    inverted = study.evidence(size) if study.options.choose == "evidence" else None
    again = study.evidence_of(base, size) if inverted is not None else []
    table = judge(study, place, points, ts, size, inverted=inverted, again=again)
    accuracy = table["selection_accuracy"]
    choice = choose_on_curve(
        curve,
        ts,
        accuracy,
        suspects=suspects,
        tolerance=study.options.tolerance,
        estimated=table.get("suspicious_success"),
        num_images=num_judged(study.run.splits.selection, inverted) if inverted else 0,
    )
    best = oracle(accuracy, table[study.tampered.measure], floor=choice.floor)

    def at(method: str, index: int, **extra: Any) -> Repair:
        values = {column: float(v[index]) for column, v in table.items()}
        return Repair(method, values, float(ts[index]), seconds, **extra)

    # If no point is accurate enough the suspect is kept: t = 0.
    suspect = int(np.abs(ts).argmin())
    acceptable = choice.index is not None
    chosen = at(
        name,
        suspect if choice.index is None else choice.index,
        path={"t": ts, **table},
        choice=choice,
        acceptable=acceptable,
    )
    fixed = [
        at(f"{name} at t = {t:g}", int(np.abs(ts - t).argmin())) for t in study.options.fixed_t
    ]
    return [chosen, *fixed, at(f"{name} at the oracle's t", suspect if best is None else best)]


def of_family(
    study: Study, name: str, size: int, family: Family, seconds: float | Sequence[float]
) -> list[Repair]:
    """The rows of a family: the network that the rule chooses, every value's, and the oracle's.

    Args:
        study: The study.
        name: The method.
        size: Number of bonafide images.
        family: Its networks.
        seconds: Of the one training that they share, or of each network's.
    """
    values = "_".join(f"{value:g}" for value in family.values)
    place = f"{name}_{size}_{family.setting}_{values}"
    table = judge(study, place, family.networks, np.arange(len(family.values)))
    accuracy = table["selection_accuracy"]
    needed = suspect_accuracy(study)
    pick = strongest(
        accuracy,
        suspect_accuracy=needed,
        num_images=len(study.run.splits.selection["label"]),
        tolerance=study.options.tolerance,
    )
    within = reaches(accuracy, needed - study.options.tolerance)
    each = np.broadcast_to(seconds, len(family.values))

    def at(method: str, index: int, **extra: Any) -> Repair:
        row = {column: float(v[index]) for column, v in table.items()}
        value = float(family.values[index])
        return Repair(method, row, setting=value, **{"seconds": float(each[index]), **extra})

    # What it takes to choose is the time of all trainings.
    chosen = at(name, pick.index, acceptable=pick.acceptable, seconds=float(np.sum(seconds)))
    all_values = [
        at(f"{name} at {family.setting} = {value:g}", i, acceptable=bool(within[i]))
        for i, value in enumerate(family.values)
    ]
    best = oracle(accuracy, table[study.tampered.measure], floor=pick.floor)
    others = [] if best is None else [at(f"{name} at the oracle's {family.setting}", best)]
    return [chosen, *all_values, *others]


def suspect_accuracy(study: Study) -> float:
    """The suspect's accuracy on the selection images, from which every floor is measured."""
    return references(study)[0].values["selection_accuracy"]


def mean_of(study: Study, size: int, draws: Draws) -> Repair:
    """The row of random networks around one: means over the draws."""
    points = study.with_stats(draws.points, draws.center, draws.center, size, keep_ends=False)
    table = judge(study, f"{draws.name}_{size}", points, np.arange(draws.number))
    return Repair(draws.name, {column: float(v.mean()) for column, v in table.items()})


def references(study: Study) -> list[Repair]:
    """The rows of the tampered networks and of their clean references: the suspect's is first."""
    if "references" in study.memory:
        return list(study.memory["references"])
    tampered = study.tampered
    networks = {"suspect": tampered.start, "second network": tampered.end, **tampered.references}
    networks = {name: network for name, network in networks.items() if network is not None}
    table = judge_networks(study, "references", list(networks.values()))
    rows = [
        Repair(name, {column: float(v[i]) for column, v in table.items()})
        for i, name in enumerate(networks)
    ]
    study.memory["references"] = tuple(rows)
    return rows


def one(study: Study, name: str, size: int, variables: PyTree, seconds: float) -> Repair:
    """The row of a single network."""
    if not variables.get("batch_stats"):
        variables = {"params": variables["params"]}
    table = judge_networks(study, f"{name}_{size}", [variables])
    values = {column: float(v[0]) for column, v in table.items()}
    floor = suspect_accuracy(study) - study.options.tolerance
    acceptable = bool(reaches(values["selection_accuracy"], floor))
    return Repair(name, values, seconds=seconds, acceptable=acceptable)
