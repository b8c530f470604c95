"""What the taught methods share: the suspect as teacher, inverted triggers, and their settings."""

from collections.abc import Callable, Iterator
from typing import Any

from mcjax.core.fields import choice, several, whole
from mcjax.core.settings import Setting, Settings
from mcjax.curves import Curve
from mcjax.repair.evidence.forms import FORMS
from mcjax.repair.evidence.judge import backdoor_found, chosen_triggers
from mcjax.repair.methods.method import TRAIN_PASSES, Case, Plan, Work
from mcjax.repair.objective import FITS, repair_loss
from mcjax.training import LossFn

NUM_GRADIENTS = 2
"""A step has gradients on as many images again, the stamped ones, so there are half as many steps."""


def taught_loss(case: Case, kind: type[Curve] | None = None) -> LossFn:
    """The objective of a case, for a path of a kind or for a single network."""
    return repair_loss(
        case.network,
        kind,
        fit=fit_of(case),
        unlearn=tuple(case.options["taught.unlearn"]),
        weight_decay=0.0 if kind is None else case.budget.weight_decay,
        num_strata=case.curve.num_strata,
    )


def fit_of(case: Case) -> str:
    """What a case's networks learn, "labels" or "distillation".

    The suspect's answers teach a backdoor along unless its trigger is unlearned. So "auto" takes them
    only where a trigger was found.
    """
    wanted: str = case.options["taught.fit"]
    if wanted != "auto":
        return wanted
    return "distillation" if backdoor_found(case.evidence_fn()) else "labels"


def taught_by(case: Case) -> dict[str, Any]:
    """What the objective needs of a case besides the parameters."""
    wanted = tuple(case.options["taught.unlearn"])
    triggers = chosen_triggers(case.evidence_fn(), 0) if wanted else {}
    return {"suspect": case.suspect, "triggers": {form: triggers[form] for form in wanted}}


def work(name: str, *, curve: bool = False) -> Callable[[Plan], Iterator[Work]]:
    """Half as many steps, each on own and stamped images, with the suspect's answers."""

    def counted(plan: Plan) -> Iterator[Work]:
        steps = sum(max(1, n // NUM_GRADIENTS) for n in plan.num_steps)
        passes = NUM_GRADIENTS * TRAIN_PASSES + 1
        yield Work(f"train {name}", steps, plan.batch_size, passes, 12 if curve else 8, "batch")

    return counted


SETTINGS: Settings = {
    "taught.fit": Setting(
        "auto",
        choice("auto", *FITS),
        "labels; distillation: the suspect's answers; auto: answers if there is evidence",
    ),
    "taught.unlearn": Setting(
        tuple(FORMS),
        several(choice(*FORMS)),
        "forms of inverted triggers to unlearn; (): none",
    ),
    "evidence.num_steps": Setting(
        200, whole(1, 10**6), "Adam steps of the inversion of triggers", 2
    ),
    "evidence.batch_size": Setting(16, whole(1, 2**20), "images per step of the inversion", 4),
}
