"""The re-learning test of a study: how quickly repaired networks take the backdoor up again."""

from typing import Any

import numpy as np

from mcjax.attacks.poisoning import backdoor
from mcjax.attacks.poisoning.triggers import Trigger
from mcjax.core.errors import UserError
from mcjax.core.keys import stream
from mcjax.core.tree import PyTree
from mcjax.data import stratify
from mcjax.data.splits import Examples
from mcjax.evaluation.networks_as_path import Stacked
from mcjax.evaluation.relearning import FineTuned
from mcjax.experiments.repair_study.rows import network_of
from mcjax.experiments.repair_study.study import Study
from mcjax.experiments.stages.path import Table, path_stage
from mcjax.runs.run import Run
from mcjax.runs.workdir import write_csv

TWIN = "clean twin"


def check_relearning(run: Run, stamp: Trigger) -> None:
    """Refuses a re-learning test that asks for more images than the attacker poisoned.

    Args:
        run: A seed's part of the run.
        stamp: The trigger.

    Raises:
        UserError: There are too few poisoned images.
    """
    if run.config.explain.relearn_images:
        poisoned_images(run, stamp, 0)


def poisoned_images(run: Run, stamp: Trigger, draw: int) -> Examples:
    """The poisoned images of the re-learning test: some of those that the attacker trained on.

    They come from the training set, are stamped, and have the attacker's labels. The first m of them
    are those of a smaller test.

    Args:
        run: A seed's part of the run.
        stamp: The trigger.
        draw: Number of the repetition.

    Returns:
        "image" and "label", as many as the largest number of `config.explain.relearn_images`.

    Raises:
        UserError: The attacker poisoned fewer images.
    """
    attack, number = run.config.attack, max(run.config.explain.relearn_images)
    poisoned = backdoor.poison(
        run.splits.train,
        stamp,
        seed=run.config.seed,
        fraction=attack.fraction,
        label_map=attack.label_map,
        target=attack.target,
        num_classes=run.dataset.num_classes,
    )
    if number > len(poisoned.indices):
        raise UserError(
            f"config.explain.relearn_images asks for {number} poisoned images, but the attacker has "
            f"{len(poisoned.indices)}; use fewer, or raise config.attack.fraction"
        )
    rng = stratify.stream(run.config.seed, f"relearning draw {draw}")
    drawn = rng.permutation(poisoned.indices)[:number]
    return {name: poisoned.examples[name][drawn] for name in ("image", "label")}


def write_relearning(study: Study, stamp: Trigger) -> None:
    """Writes figures/relearning.csv and figures/relearning_methods.csv, if the config asks for them.

    The first is of the path of the largest bonafide size, the second of the suspect, the second
    network, the clean twin, and the network that each method gives.

    Args:
        study: The study of a backdoor.
        stamp: The trigger.
    """
    options, folder = study.run.config.explain, study.run.workdir / "figures"
    if not options.relearn_images:
        return
    ts = np.linspace(0, 1, options.relearn_points)
    networks = single_networks(study)
    path = relearned(study, stamp, "path", path_points(study), ts)
    single = relearned(
        study, stamp, "networks", Stacked.of(list(networks.values())), np.arange(len(networks))
    )
    twin = list(networks).index(TWIN)
    control = [after["success_accuracy"][twin] for after in single[1]]
    rows = [
        {"t": float(t), **row}
        for t, row in zip(list(ts) * len(control), rows_of(study, *path, control), strict=True)
    ]
    write_csv(folder / "relearning.csv", rows[0], rows)
    rows = [
        {"method": name, **row}
        for name, row in zip(
            list(networks) * len(control), rows_of(study, *single, control), strict=True
        )
    ]
    write_csv(folder / "relearning_methods.csv", rows[0], rows)


def path_points(study: Study) -> PyTree:
    """The path of the largest bonafide size, as whole networks."""
    size = max(study.sizes)
    curve, _ = study.repaired(study.shown_path, size)
    return study.points(study.shown_path, curve, size)


def single_networks(study: Study) -> dict[str, PyTree]:
    """The tampered networks, the clean twin, and the network that each method gives (`network_of`)."""
    tampered, size = study.tampered, max(study.sizes)
    networks = {"suspect": tampered.start, "second network": tampered.end, **tampered.references}
    for name in study.options.methods:
        networks[name] = network_of(study, name, size)
    return {
        name: variables if variables.get("batch_stats") else {"params": variables["params"]}
        for name, variables in networks.items()
        if variables is not None
    }


def relearned(
    study: Study, stamp: Trigger, name: str, curve: PyTree, ts: np.ndarray
) -> tuple[Table, list[Table]]:
    """Evaluates points before fine-tuning, and after it with each number of poisoned images.

    Args:
        study: The study.
        stamp: The trigger.
        name: Part of the stages' names.
        curve: Points, whole networks.
        ts: Which points, [T].

    Returns:
        The columns before, and those after, means over the draws, for each number of
        `config.explain.relearn_images`.

    Raises:
        UserError: The fine-tuning diverged.
    """
    run, options = study.run, study.run.config.explain
    sets = {part: study.judged_by[part] for part in ("test", "success")}
    clean = run.splits.bonafide_subset(max(study.sizes))

    def evaluated(stage: str, points: PyTree) -> Table:
        return path_stage(run, f"{study.name}relearning_{name}_{stage}", points, ts, sets)

    def after(m: int, draw: int) -> Table:
        tuned = FineTuned.of(
            stream(run.key("relearning"), "draw", draw),
            run.network,
            curve,
            clean,
            poisoned_images(run, stamp, draw),
            num_steps=options.relearn_steps,
            learning_rate=options.relearn_learning_rate,
            batch_size=study.options.batch_size,
            num_poisoned=m,
        )
        table = evaluated(f"{m}_draw_{draw}", tuned)
        if not all(np.isfinite(column).all() for column in table.values()):
            raise UserError(
                f"re-learning with {m} poisoned images diverged; lower "
                f"config.explain.relearn_learning_rate (it is {options.relearn_learning_rate})"
            )
        return table

    def mean(tables: list[Table]) -> Table:
        return {
            column: np.mean([table[column] for table in tables], axis=0) for column in tables[0]
        }

    draws = range(options.relearn_draws)
    return evaluated("before", curve), [
        mean([after(m, draw) for draw in draws]) for m in options.relearn_images
    ]


def rows_of(
    study: Study, before: Table, after: list[Table], control: list[float]
) -> list[dict[str, Any]]:
    """The rows of a file: for each number of poisoned images, all points.

    Args:
        study: The study.
        before: Columns before the fine-tuning.
        after: Columns after it, for each number of poisoned images.
        control: Success of the clean twin after it, for each number of poisoned images.
    """
    measure = study.tampered.measure
    return [
        {
            "m": m,
            f"{measure}_before": float(before["success_accuracy"][i]),
            f"{measure}_after": float(table["success_accuracy"][i]),
            "twin_after": float(twin),
            "excess": float(table["success_accuracy"][i] - twin),
            "clean_accuracy_before": float(before["test_accuracy"][i]),
            "clean_accuracy_after": float(table["test_accuracy"][i]),
        }
        for m, table, twin in zip(
            study.run.config.explain.relearn_images, after, control, strict=True
        )
        for i in range(len(table["success_accuracy"]))
    ]


def captions(run: Run) -> dict[str, str]:
    """The captions of the test's figures."""
    options = run.config.explain
    if "relearn_images" not in options:  # injection
        return {}
    how = (
        f"{options.relearn_steps} steps of SGD at {options.relearn_learning_rate:g} on the bonafide "
        f"images of the largest size and m poisoned ones; means over {options.relearn_draws} draws"
    )
    return {
        "relearning": f"Is it gone or hidden? Every point of the path after {how}. Grey: the clean twin, "
        "which never had the backdoor, after the same steps.",
        "relearning_methods": f"The network of each method after the same re-learning: {how}.",
    }
