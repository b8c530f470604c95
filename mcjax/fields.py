"""Every field of every experiment's config, and the values that it can have."""

import dataclasses
import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any

from mcjax.curves import MOST_BENDS
from mcjax.errors import UserError, shown
from mcjax.keys import NUM_SEEDS


@dataclasses.dataclass(frozen=True)
class Field:
    """What a field's value must be.

    Args:
        wanted: In words, behind "it must be".
        holds: Whether a value is one; never raises.
    """

    wanted: str
    holds: Callable[[Any], bool]


def whole(low: int, high: int = 10**9) -> Field:
    """A whole number in [low, high]; neither True nor 1.0 counts as one."""

    def holds(v: Any) -> bool:
        is_whole = isinstance(v, numbers.Integral) and not isinstance(v, bool)
        return is_whole and low <= int(v) <= high

    return Field(f"a whole number, at least {low} and at most {high}", holds)


def number(low: float, high: float = 1e9, *, above: bool = False, below: bool = False) -> Field:
    """A finite number in [low, high]; `above` excludes low, `below` excludes high."""

    def holds(v: Any) -> bool:
        if not isinstance(v, numbers.Real) or isinstance(v, bool) or not math.isfinite(v):
            return False
        x = float(v)
        return (low < x if above else low <= x) and (x < high if below else x <= high)

    least = f"more than {low:g}" if above else f"at least {low:g}"
    most = f"less than {high:g}" if below else f"at most {high:g}"
    return Field(f"a number, {least} and {most}", _never_raises(holds))


def choice(*names: str) -> Field:
    """One of some words."""
    return Field(f"one of {', '.join(names)}", lambda v: isinstance(v, str) and v in names)


def text(*, empty: bool = False) -> Field:
    """A line of text."""
    return Field(
        "text" if empty else "text that is not empty",
        lambda v: isinstance(v, str) and (empty or bool(v)) and "\0" not in v and "\n" not in v,
    )


def flag() -> Field:
    """True or False."""
    return Field("True or False", lambda v: isinstance(v, bool))


def several(item: Field, *, least: int = 0, most: int = 1000) -> Field:
    """A tuple without duplicates: a value given twice would count twice."""

    def holds(v: Any) -> bool:
        return (
            isinstance(v, list | tuple)
            and least <= len(v) <= most
            and all(item.holds(x) for x in v)
            and len(set(v)) == len(v)
        )

    number = f"{least}" if least == most else f"{least} to {most}"
    return Field(f"a tuple of {number} values without duplicates, each {item.wanted}", holds)


def check(name: str, value: Any, field: Field) -> None:
    """Refuses a value that a field can't have.

    Args:
        name: What to call it in the message.
        value: What a user gave.
        field: What it must be.

    Raises:
        UserError: It is something else.

    Example:
        >>> check("num_steps", 1.5, whole(1, 9))
        Traceback (most recent call last):
        mcjax.errors.UserError: num_steps is 1.5; it must be a whole number, at least 1 and at most 9
    """
    if not field.holds(value):
        raise UserError(f"{name} is {shown(value)}; it must be {field.wanted}")


def _never_raises(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    def safely(v: Any) -> bool:
        try:
            return holds(v)
        except OverflowError:  # a whole number beyond every float
            return False

    return safely


def _training(part: str, rates: tuple[str, ...] = ("learning_rate",)) -> dict[str, Field]:
    return {
        f"{part}.num_epochs": number(0, 1e6, above=True),
        f"{part}.batch_size": whole(1, 2**20),
        **{f"{part}.{rate}": number(0, 1e3, above=True) for rate in rates},
        f"{part}.momentum": number(0, 1, below=True),
        f"{part}.nesterov": flag(),
        f"{part}.weight_decay": number(0, 1e3),
    }


METHODS = ("path", "fine_tune", "scratch", "prune", "fine_prune")

FIELDS: Mapping[str, Field] = {
    "experiment": text(),  # `mcjax.config.DEFAULTS` has the names
    "seed": whole(0, NUM_SEEDS - 1),
    "seeds": several(whole(0, NUM_SEEDS - 1)),
    "data.name": text(),
    "data.dir": text(empty=True),
    "data.verify": flag(),
    "data.num_bonafide": whole(0),
    "data.num_selection": whole(0),
    "data.protocol": choice("disjoint", "legacy"),
    "data.augmentation": text(),
    "model.name": text(),
    "model.bfloat16": flag(),
    **_training("endpoint"),
    "curve.kind": choice("bezier", "polychain"),
    "curve.num_bends": whole(0, MOST_BENDS),
    "curve.init": choice("line", "random"),
    "curve.align": choice("none", "weights"),
    "curve.fix_start": flag(),
    "curve.fix_end": flag(),
    "curve.images": choice("train", "bonafide"),
    "curve.num_strata": whole(1, 10**6),
    **_training("curve"),
    "evaluation.num_points": whole(2, 100_000),
    "evaluation.batch_size": whole(1, 2**20),
    "evaluation.train_images": whole(0),
    "evaluation.test_images": whole(0),
    "evaluation.batch_stats": choice("train", "bonafide", "none"),
    "evaluation.batch_stats_images": whole(0),
    "evaluation.batch_stats_batch_size": whole(1, 2**20),
    "evaluation.plane_points": Field(
        "0, or a whole number from 2 to 1000",
        lambda v: whole(0, 1000).holds(v) and v != 1,
    ),
    "evaluation.plane_images": whole(1),
    "evaluation.robust_images": whole(1),
    "evaluation.robust_batch_size": whole(1, 2**20),
    "evaluation.transfer_points": whole(2, 10_000),
    "evaluation.transfer_images": whole(1),
    "run.log_every_steps": whole(1, 10**6),
    "run.checkpoint_seconds": number(0, above=True),
    "run.tensorboard": flag(),
    "run.chunk": whole(0, 10_000),
    "run.data_parallel": flag(),
    "run.side_by_side": flag(),
    "run.cpu_convolution": flag(),
    "repair.pair": choice("both_tampered", "tampered_and_clean", "tampered_and_fine_tuned"),
    "repair.sizes": several(whole(1), least=1),
    "repair.folds": Field(
        "0, or a whole number from 2 to 1000", lambda v: whole(0, 1000).holds(v) and v != 1
    ),
    "repair.methods": several(text(), least=1),
    "repair.steps_per_epoch": whole(0, 10**6),
    **_training("repair", tuple(f"learning_rate.{name}" for name in METHODS)),
    "repair.augmentation": text(),
    "repair.tolerance": number(0, 1),  # 0.02 is two points of 100
    "repair.fixed_t": several(number(0, 1)),
    "repair.num_draws": whole(1, 100_000),
    "repair.prune_fraction": number(0, 1, below=True),
    "repair.i_bau.num_rounds": whole(1, 10**6),
    "repair.i_bau.learning_rate": number(0, 1e3, above=True),
    "repair.i_bau.eps": number(0, above=True),
    "repair.i_bau.perturbed": number(0, 1),
    "repair.i_bau.num_fixed_point": whole(0, 10_000),
    "explain.num_images": whole(1),
    "explain.num_draws": whole(1, 100_000),
    "attack.trigger": text(),
    "attack.label_map": choice("single_target", "all_to_all", "clean_label"),
    "attack.target": whole(0),
    "attack.fraction": number(0, 1, above=True),
    "attack.when": choice("before", "after"),
    "attack.attacker": choice("plain", "path_aware"),
    "attack.release": several(number(0, 1), least=2, most=2),
    "attack.curve_epochs": number(0, 1e6, above=True),
    "attack.method": choice("l0", "l2", "gradient", "bit_flips"),
    "attack.num_faults": whole(1),
    "attack.num_images": whole(1),
    "attack.layers": several(text()),
    "attack.confidence": number(0),
    "attack.strength": number(0),
    "attack.rho": number(0, above=True),
    "attack.num_flips": whole(0, 10**6),
    "attack.stored_as": choice("int8", "float32"),
    "attack.norm": choice("linf", "l2", "l1"),
    "attack.eps": number(0),
    "attack.step_size": number(0),
    "attack.num_steps": whole(0, 10**6),
    "adversarial.method": choice("madry", "fgsm", "trades"),
    "adversarial.eps": number(0),
    "adversarial.step_size": number(0),
    "adversarial.num_steps": whole(0, 10**6),
    "adversarial.beta": number(0),
    "pairs": several(text(), least=1),
    "robust_path.pairs": several(text()),
    "robust_path.num_steps": whole(0, 10**6),
    "hessian.method": choice("exact", "lanczos", "power"),
}
"""By dotted name. `model.options` are free: each network says what it takes."""
