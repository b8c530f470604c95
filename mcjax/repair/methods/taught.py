"""What the taught methods share: the suspect as teacher, inverted triggers, rounds, and settings.

A training that unlearns a trigger can leave others that work as well. So it goes in rounds: before
each but the first, triggers are inverted anew on what was trained so far, and unlearned as well.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from mcjax.core.fields import choice, several, whole
from mcjax.core.settings import Setting, Settings
from mcjax.core.tree import PyTree
from mcjax.curves import Curve
from mcjax.repair.evidence.estimate import chosen_triggers
from mcjax.repair.evidence.forms import FORMS
from mcjax.repair.evidence.verdict import backdoor_found, suspicious_forms, targets
from mcjax.repair.methods.method import TRAIN_PASSES, Case, Plan, Work
from mcjax.repair.objective import FITS, repair_loss
from mcjax.training import LossFn
from mcjax.training.fit import Budget

METHODS = ("taught_path", "taught_fine_tune")

NUM_GRADIENTS = 2
"""A step that unlearns has gradients on as many images again, so there are half as many steps."""


def teach(
    case: Case,
    name: str,
    trained: Any,
    *,
    train_fn: Callable[[Any, dict[str, Any], Budget, str], Any],
    network_fn: Callable[[Any], PyTree],
) -> Any:
    """Trains in rounds.

    Args:
        case: What is repaired.
        name: The method.
        trained: What is trained, before the first round: a network or a curve.
        train_fn: One round: `train_fn(trained, beside, budget, part) -> trained`, with `beside` what
            `repair_loss` needs and `part` the name of the round, "" for a single one.
        network_fn: `network_fn(trained)` is the network on which triggers are inverted anew.

    Returns:
        What was trained after the last round.
    """
    wanted, rounds = unlearned(case), num_rounds(case)
    budget = case.shortened(NUM_GRADIENTS * rounds if wanted else 1)
    pool = [chosen_triggers(case.evidence_fn(), 0)] if wanted else []
    for i in range(rounds):
        if i:
            again = case.invert_fn(inversion(name, i), network_fn(trained))
            pool.append(chosen_triggers(again, 0, targets(case.evidence_fn())))
        # As many triggers in every round, so that the rounds share a compiled program.
        filled = [pool[min(j, i)] for j in range(rounds)] if wanted else []
        triggers = {
            form: jax.tree.map(lambda *v: jnp.concatenate(v), *(one[form] for one in filled))
            for form in wanted
        }
        beside = {"suspect": case.suspect, "triggers": triggers}
        trained = train_fn(trained, beside, budget, f"round_{i}" if rounds > 1 else "")
    return trained


def num_rounds(case: Case) -> int:
    """The rounds of a case: one without triggers to unlearn, or without evidence."""
    if not unlearned(case) or not backdoor_found(case.evidence_fn()):
        return 1
    return int(case.options["taught.rounds"])


def inversion(name: str, i: int) -> str:
    """What the inversion before a method's round i is called, i from 1."""
    return f"{name}_{i}"


def unlearned(case: Case) -> tuple[str, ...]:
    """The forms whose triggers a case unlearns: `suspicious_forms`, of those that the options name."""
    wanted = tuple(case.options["taught.unlearn"])
    if not wanted:
        return ()
    inverted = case.evidence_fn()
    allowed = tuple(form for form in wanted if form in inverted)
    suspicious = suspicious_forms(inverted)
    return tuple(form for form in allowed if form in suspicious) or allowed


def taught_loss(case: Case, kind: type[Curve] | None = None) -> LossFn:
    """The objective of a case, for a path of a kind or for a single network."""
    return repair_loss(
        case.network,
        kind,
        fit=fit_of(case),
        unlearn=unlearned(case),
        weight_decay=0.0 if kind is None else case.budget.weight_decay,
        num_strata=case.curve.num_strata,
        end_is_free=case.end_is_free,
    )


def fit_of(case: Case) -> str:
    """What a case's networks learn, one of `FITS`.

    The suspect's answers teach a backdoor along unless its trigger is unlearned. So "auto" takes them
    only where a trigger was found, and those to images that are not mixed, which teach less of it.
    """
    wanted: str = case.options["taught.fit"]
    if wanted != "auto":
        return wanted
    return "answers" if backdoor_found(case.evidence_fn()) else "labels"


def work(name: str, *, curve: bool = False) -> Callable[[Plan], Iterator[Work]]:
    """Half as many steps, each on own and stamped images, with the suspect's answers.

    Without triggers to unlearn, all steps on own images.
    """

    def counted(plan: Plan) -> Iterator[Work]:
        gradients = NUM_GRADIENTS if plan.options["taught.unlearn"] else 1
        steps = sum(max(1, n // gradients) for n in plan.num_steps)
        passes = gradients * TRAIN_PASSES + 1
        yield Work(f"train {name}", steps, plan.batch_size, passes, 12 if curve else 8, "batch")

    return counted


SETTINGS: Settings = {
    "taught.fit": Setting(
        "auto",
        choice("auto", *FITS),
        "labels; answers: the suspect's; distillation: to mixed images; auto: by evidence",
    ),
    "taught.unlearn": Setting(
        tuple(FORMS),
        several(choice(*FORMS)),
        "forms of triggers to unlearn, where they are suspicious; (): none",
    ),
    "taught.rounds": Setting(
        2, whole(1, 10), "trainings; triggers are inverted anew before all but the first", 2
    ),
    "evidence.forms": Setting(
        tuple(FORMS),
        several(choice(*FORMS), least=1),
        "forms of triggers that are looked for; fewer take less time and miss more",
        ("patch",),
    ),
    "evidence.num_steps": Setting(
        200, whole(1, 10**6), "Adam steps of the inversion of triggers", 2
    ),
    "evidence.control_steps": Setting(
        1000,
        whole(0, 10**6),
        "training steps of the control that triggers are tried on; 0: none",
        2,
    ),
    "evidence.batch_size": Setting(16, whole(1, 2**20), "images per step of the inversion", 4),
}
