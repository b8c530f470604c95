"""Backdoors: two networks trained on poisoned data, repaired by the path and by every baseline.

Stages per seed: generator (of an input-aware trigger), clean_twin, endpoint_a, endpoint_b (and
attacker_curve), then the path and the baselines for every bonafide size. The report comes last.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mcjax.attacks.poisoning import backdoor, triggers
from mcjax.attacks.poisoning.input_aware import Generated
from mcjax.attacks.poisoning.stamped import Trigger
from mcjax.core import named_options as spec
from mcjax.core.errors import UserError
from mcjax.core.processes import once
from mcjax.core.tree import PyTree
from mcjax.curves import KINDS
from mcjax.curves.batch_stats import CurveWithStats
from mcjax.data.batches import Batch
from mcjax.data.splits import Examples
from mcjax.experiments.repair_study.explain import explain
from mcjax.experiments.repair_study.relearning import check_relearning
from mcjax.experiments.repair_study.table import RepairStudy
from mcjax.experiments.repair_study.tampered import Tampered
from mcjax.experiments.stages.alignment import unaligned
from mcjax.experiments.stages.curve import curve_stage
from mcjax.experiments.stages.endpoints import train_network, train_side_by_side
from mcjax.experiments.stages.generator import train_generator
from mcjax.report.stamps import stamps_figure
from mcjax.runs.run import Run, open_run
from mcjax.training import LossFn
from mcjax.training.objectives import curve_loss, endpoint_loss
from mcjax.training.stamped_objective import stamping

MEASURE = "attack_success_rate"

ONE_SUSPECT = ("suspect_alone", "suspect_and_unaligned", "tampered_and_fine_tuned")
"""The pairs that an attacker has to release one network for."""


def run_experiment(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Runs the stages of the experiment that are not finished.

    Args:
        config: See `mcjax.runs.config.backdoor`.
        workdir: Directory of the run.

    Returns:
        The contents of result.json.
    """
    run = open_run(config, workdir, "backdoor")
    untrained = untrained_trigger(run)  # mistakes are reported before anything is trained
    study = RepairStudy(run, MEASURE)
    check_relearning(next(study.seeds()), untrained)
    stamps = []
    for part in study.seeds():
        stamps.append(trigger(part))
        study.repair(part, tamper(part, stamps[-1]))
    stamp = stamps[0]  # the figure and the explanations are about the first seed
    stamps_figure(run.workdir / "figures" / "trigger.png", run.splits.test, {stamp.name: stamp})
    explain(study.first, stamp)
    return study.report()


def trigger(run: Run) -> Trigger:
    """The config's trigger; its generator, if it has one, is trained or restored.

    Args:
        run: A seed's part of the run.

    Returns:
        The trigger.
    """
    stamp = untrained_trigger(run)
    if not isinstance(stamp, Generated):
        return stamp
    check_attacker(run)
    images = jax.tree.map(jnp.asarray, dict(poison(run, stamp, when="after")))
    return train_generator(run, stamp, images)


def untrained_trigger(run: Run) -> Trigger:
    """The config's trigger, as it is before its generator is trained."""
    name, options = spec.parse(run.config.attack.trigger)
    return triggers.create(name, run.dataset.train["image"].shape[1:], **options)


def poison(run: Run, stamp: Trigger, *, when: str) -> Examples:
    """The run's training images, poisoned as `config.attack` says.

    Args:
        run: A seed's part of the run.
        stamp: The trigger.
        when: "before" or "after" augmentation.

    Returns:
        The images and labels; see `mcjax.attacks.poisoning.backdoor.poison`.
    """
    attack = run.config.attack
    return backdoor.poison(
        run.splits.train,
        stamp,
        seed=run.config.seed,
        fraction=attack.fraction,
        label_map=attack.label_map,
        target=attack.target,
        num_classes=run.dataset.num_classes,
        when=when,
    ).examples


def check_attacker(run: Run) -> None:
    """Refuses an attacker who prepares for another repair than the one that is studied.

    Raises:
        UserError: It is one.
    """
    attacker, pair = run.config.attack.attacker, run.config.repair.pair
    if attacker == "path_aware" and pair != "both_tampered":
        raise UserError(
            "a path-aware attacker trains both networks; use "
            "--config.repair.pair=both_tampered or --config.attack.attacker=plain"
        )
    if attacker == "unalignment_aware" and pair not in ONE_SUSPECT:
        raise UserError(
            "an unalignment-aware attacker releases one network; use --config.repair.pair=suspect_alone or "
            "suspect_and_unaligned, or --config.attack.attacker=plain"
        )


def tamper(run: Run, stamp: Trigger) -> Tampered:
    """Trains the networks that the attacker releases, and a clean twin.

    Args:
        run: A seed's part of the run.
        stamp: The trigger.

    Returns:
        The suspects, and the images that measure whether the backdoor still works.
    """
    attack, pair = run.config.attack, run.config.repair.pair
    check_attacker(run)
    poisoned = poison(run, stamp, when=attack.when)
    clean, poisoned = (jax.tree.map(jnp.asarray, dict(x)) for x in (run.splits.train, poisoned))
    loss_fn = plain = endpoint_loss(run.network)
    if attack.when == "after":
        loss_fn = stamping(plain, stamp)
    twin = train_network(run, "clean_twin", clean, plain)
    if pair == "both_tampered":
        ends = [(run, "endpoint_a"), (run, "endpoint_b")]
        train_side_by_side(ends, lambda _: poisoned, loss_fn)
    start = train_network(run, "endpoint_a", poisoned, loss_fn)
    if pair == "both_tampered":
        end = train_network(run, "endpoint_b", poisoned, loss_fn)
    else:
        end = twin if pair == "tampered_and_clean" else None
    if attack.attacker == "path_aware":
        start, end = release(run, start, end, poisoned, attackers_curve_loss(run, stamp))
    if attack.attacker == "unalignment_aware":
        copy = unaligned(run, f"{run.part}attacker_unaligned", start)
        start, _ = release(run, start, copy, poisoned, attackers_curve_loss(run, stamp))
    return Tampered(
        measure=MEASURE,
        success=backdoor.attack_set(
            run.splits.test,
            stamp,
            label_map=attack.label_map,
            target=attack.target,
            num_classes=run.dataset.num_classes,
        ),
        start=start,
        end=end,
        # A fine-tuned copy of the suspect is suspect too.
        suspects=(0,) if pair == "tampered_and_clean" else (0, -1),
        references={"clean twin": twin},
        target=attack.target if attack.label_map != "all_to_all" else None,
    )


def attackers_curve_loss(run: Run, stamp: Trigger) -> LossFn:
    """The loss along the attacker's curve; stamps after augmentation if `attack.when` says so."""
    kind = KINDS[run.config.curve.kind]
    loss_fn = curve_loss(run.network, kind, weight_decay=run.config.endpoint.weight_decay)
    return stamping(loss_fn, stamp) if run.config.attack.when == "after" else loss_fn


def release(
    run: Run, start: PyTree, end: PyTree, poisoned: Batch, loss_fn: LossFn
) -> tuple[PyTree, PyTree]:
    """Two points of a tampered curve: what an attacker who knows the repair releases.

    The curve between two tampered networks, or one and its un-aligned copy, is trained on the poisoned
    images, so the backdoor works along all of it, and interior points are released. BatchNorm statistics come from the poisoned
    images.
    """
    name, kind = f"{run.part}attacker_curve", KINDS[run.config.curve.kind]
    options = run.config.endpoint.copy_and_resolve_references()
    options.num_epochs = run.config.attack.curve_epochs
    curve = curve_stage(
        run,
        name,
        run.key("attacker_curve"),
        kind.connect(start["params"], end["params"], run.config.curve.num_bends),
        start["batch_stats"],
        poisoned,
        loss_fn=loss_fn,
        options=options,
    )
    points = CurveWithStats(
        curve,
        start["batch_stats"],
        end["batch_stats"],
        poisoned["image"] if run.network.has_batch_stats else None,
        run.network.apply_train,
        run.config.evaluation.batch_stats_batch_size,
    )
    released = [jax.jit(points)(jnp.float32(t)) for t in run.config.attack.release]
    a, b = ({"batch_stats": {}, **jax.device_get(variables)} for variables in released)
    return once(lambda: (a, b))
