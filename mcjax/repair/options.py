"""The options of `repair_model`: how it finds, trains and evaluates the path."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from mcjax.alignment.by_name import WAYS
from mcjax.core import fields
from mcjax.core.errors import UserError, shown
from mcjax.core.fields import Field
from mcjax.curves import KINDS, MOST_BENDS
from mcjax.repair.evidence import forms as forms_by_name
from mcjax.repair.evidence.forms import FORMS
from mcjax.repair.methods import fine_tune, taught_fine_tune, taught_path
from mcjax.repair.objective import FITS
from mcjax.repair.second import ENDS
from mcjax.training.fit import BUDGET_FIELDS, Budget


@dataclasses.dataclass(frozen=True)
class RepairOptions:
    """How `repair_model` finds, trains and looks along the path.

    Args:
        kind: "bezier" or "polychain", of a path that is trained.
        num_bends: Bends of a path that is trained. The line to a taught end has none.
        align: "weights" or "activations" brings a given second network's hidden channels into the
            order nearest to the suspect's before they are joined (`mcjax.alignment`), "away" and
            "activations_away" into the farthest; "none" leaves them.
        end: Without a second network, what the path leads to: "taught" trains the suspect, and takes the
            straight line to the result; the others train a path, "free" with its far end, from
            the suspect on; "unaligned" takes the suspect's own copy with permuted channels,
            "fine_tuned" a fine-tuned copy.
        unalign: How that copy's channels are permuted: "weights", "activations", "random".
        fit: "answers" learns the suspect's answers to clean images, "distillation" those to mixed ones,
            "labels" the labels; "auto" takes the answers only if there is evidence of a backdoor, whose
            trigger is then unlearned, and no second network was given: without evidence the answers could
            teach an unseen backdoor along, and a second network has answers of its own.
        forms: Forms of triggers that are looked for (`mcjax.repair.evidence.forms`); fewer take less
            time and miss more.
        unlearn: Those that are unlearned, if they are evidence or nearly as suspicious, of another class;
            without evidence all.
        rounds: The trainings of the taught suspect or the path, which share the steps; with evidence,
            triggers are inverted anew before all but the first, on the path's middle.
        choose: "evidence" takes, of the points whose estimated attack success is within one standard
            error of the lowest, the one farthest from the suspects; "distance" the farthest of all. Both
            among points with sufficient accuracy.
        inversion_steps: Adam steps of the inversion of triggers.
        control_steps: Training steps of the control network that the triggers are tried on as well; 0
            does without, and with less sure a verdict.
        num_points: Points of the path that are evaluated, equally spaced in t.
        extrapolate: How far beyond its ends the path is evaluated, with the same spacing.
        num_steps: Training steps of the taught suspect or the path (and of a fine-tuned copy); half of
            them where triggers are unlearned, because a step then has gradients on as many stamped images.
        batch_size: Images per step.
        learning_rate: Of the first half of that training; 0 takes 0.01 for the taught suspect and a path
            with a free end, and 0.05 to another network, which is farther away.
        fine_tune_learning_rate: Of the second network, where it is made.
        momentum: Of SGD.
        weight_decay: Of the path's points.
        augmentation: A name of `mcjax.data.augmentation`.

    Raises:
        UserError: A value that no repair can have.
    """

    kind: str = "bezier"
    num_bends: int = 1
    align: str = "none"
    end: str = "taught"
    unalign: str = "weights"
    fit: str = "auto"
    forms: tuple[str, ...] = tuple(FORMS)
    unlearn: tuple[str, ...] = tuple(FORMS)
    rounds: int = 2
    choose: str = "evidence"
    inversion_steps: int = 200
    control_steps: int = 1000
    num_points: int = 61
    extrapolate: float = 0.0
    num_steps: int = 4000
    batch_size: int = 128
    learning_rate: float = 0.0
    fine_tune_learning_rate: float = fine_tune.LEARNING_RATE
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augmentation: str = "none"

    def __post_init__(self) -> None:
        for forms in (self.forms, self.unlearn):
            for form in forms if isinstance(forms, list | tuple) else ():
                forms_by_name.get(form)
        for name, field in _FIELDS.items():
            value = getattr(self, name)
            fields.check(name, value, field)
            kind = type(getattr(RepairOptions, name))
            object.__setattr__(self, name, kind(value))  # NumPy's numbers as Python's own
        if self.unalign != RepairOptions.unalign and self.end != "unaligned":
            raise UserError(
                f"unalign is {self.unalign!r}, how the suspect's copy is permuted, but end is {self.end!r}; leave "
                "unalign out, or, without a second network, give end='unaligned'"
            )

    @property
    def budget(self) -> Budget:
        """The budget of every training."""
        return Budget(
            num_steps=self.num_steps,
            batch_size=self.batch_size,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            augmentation=self.augmentation,
        )

    def of_methods(self, tolerance: float, *, end_is_free: bool) -> dict[str, Any]:
        """The same as the options of repair methods, by their names in a study's config.

        Args:
            tolerance: Accuracy that the repair may cost, a fraction.
            end_is_free: Whether the path's far end is trained with it.
        """
        usual = taught_path.FREE_LEARNING_RATE if end_is_free else taught_path.LEARNING_RATE
        return {
            "learning_rate.taught_fine_tune": self.learning_rate or taught_fine_tune.LEARNING_RATE,
            "learning_rate.taught_path": self.learning_rate or usual,
            "learning_rate.fine_tune": self.fine_tune_learning_rate,
            "tolerance": tolerance,
            "taught.fit": self.fit,
            "taught.unlearn": self.unlearn,
            "taught.rounds": self.rounds,
        }


_FIELDS: Mapping[str, Field] = {
    "kind": fields.choice(*KINDS),
    "num_bends": fields.whole(0, MOST_BENDS),
    "align": fields.choice(*WAYS),
    "end": fields.choice(*ENDS),
    "unalign": fields.choice("weights", "activations", "random"),
    "fit": fields.choice("auto", *FITS),
    "forms": fields.several(fields.choice(*FORMS), least=1),
    "unlearn": fields.several(fields.choice(*FORMS)),
    "rounds": fields.whole(1, 10),
    "choose": fields.choice("evidence", "distance"),
    "inversion_steps": fields.whole(1, 10**6),
    "control_steps": fields.whole(0, 10**6),
    "num_points": fields.whole(2, 100_000),
    "extrapolate": fields.number(0, 10),
    "learning_rate": fields.number(0, 1e3),
    "fine_tune_learning_rate": fields.number(0, 1e3, above=True),
    **{name: field for name, field in BUDGET_FIELDS.items() if name != "nesterov"},
}
DEFAULTS = RepairOptions()


def check_ends(options: RepairOptions, *, has_second: bool, second_is_clean: bool) -> None:
    """Refuses options of one kind of far end beside another.

    Raises:
        UserError: Names the two.
    """
    if second_is_clean and not has_second:
        raise UserError(
            "second_is_clean needs second: a copy of the suspect is suspect too; give "
            "second, or leave second_is_clean out"
        )
    if has_second and options.end != RepairOptions.end:
        raise UserError(
            f"end is {options.end!r}, but the path leads to the second network; leave one of them out"
        )
    if options.end == "taught" and not has_second:
        for name in ("kind", "num_bends"):
            given = getattr(options, name)
            if given not in (getattr(RepairOptions, name), 0):
                raise UserError(
                    f"{name} is {given!r}, but the path is the straight line to the taught suspect; leave {name} "
                    "out, or give end='free'"
                )
    if options.align != RepairOptions.align and not has_second:
        raise UserError(
            f"align is {options.align!r}, but there is no second network to permute; give second, or leave "
            "align out"
        )


def changed(options: RepairOptions, changes: Mapping[str, Any]) -> RepairOptions:
    """Options with some fields changed.

    Raises:
        UserError: A value that no repair can have, or no options.
        TypeError: There is no field of that name.

    Example:
        >>> changed(DEFAULTS, {"num_steps": 5}).num_steps
        5
    """
    if not isinstance(options, RepairOptions):
        raise UserError(f"options is {shown(options)}; give a RepairOptions")
    for name in changes:
        if name not in _FIELDS:
            names = ("selection", "second_is_clean", "tolerance", "verbose", *_FIELDS)
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise TypeError(f"repair_model has no option {name!r}; {hint}use {', '.join(names)}")
    return dataclasses.replace(options, **changes)
