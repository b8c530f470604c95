"""Validation of user-given values: a check, and its description for messages."""

import dataclasses
import math
import numbers
from collections.abc import Callable
from typing import Any

from mcjax.errors import UserError, shown


@dataclasses.dataclass(frozen=True)
class Field:
    """The allowed values of a field.

    Args:
        wanted: Description that completes "it must be".
        holds: Whether a value is allowed; never raises.
    """

    wanted: str
    holds: Callable[[Any], bool]


def whole(low: int, high: int = 10**9) -> Field:
    """An integer in [low, high]; True and 1.0 are not accepted."""

    def holds(v: Any) -> bool:
        is_whole = isinstance(v, numbers.Integral) and not isinstance(v, bool)
        return is_whole and low <= int(v) <= high

    return Field(f"an integer from {low} to {high}", holds)


def number(low: float, high: float = 1e9, *, above: bool = False, below: bool = False) -> Field:
    """A finite number in [low, high]; `above` excludes low, `below` excludes high."""

    def holds(v: Any) -> bool:
        if not isinstance(v, numbers.Real) or isinstance(v, bool) or not math.isfinite(v):
            return False
        x = float(v)
        return (low < x if above else low <= x) and (x < high if below else x <= high)

    left, right = "(" if above else "[", ")" if below else "]"
    return Field(f"a number in {left}{low:g}, {high:g}{right}", _never_raises(holds))


def choice(*names: str) -> Field:
    """One of the given names."""
    return Field(f"one of {', '.join(names)}", lambda v: isinstance(v, str) and v in names)


def text(*, empty: bool = False) -> Field:
    """One line of text."""
    return Field(
        "text" if empty else "text that is not empty",
        lambda v: isinstance(v, str) and (empty or bool(v)) and "\0" not in v and "\n" not in v,
    )


def flag() -> Field:
    """True or False."""
    return Field("True or False", lambda v: isinstance(v, bool))


def several(item: Field, *, least: int = 0, most: int = 1000) -> Field:
    """A list or tuple without duplicates (a duplicate would count twice)."""

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
    """Checks a value against a field.

    Args:
        name: Its name in the message.
        value: The user's value.
        field: The allowed values.

    Raises:
        UserError: The value is not allowed.

    Example:
        >>> check("num_steps", 1.5, whole(1, 9))
        Traceback (most recent call last):
        mcjax.errors.UserError: num_steps is 1.5; it must be an integer from 1 to 9
    """
    if not field.holds(value):
        raise UserError(f"{name} is {shown(value)}; it must be {field.wanted}")


def _never_raises(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    def safely(v: Any) -> bool:
        try:
            return holds(v)
        except OverflowError:  # an integer too large for a float
            return False

    return safely
