"""Checks of the options of triggers; each raises a UserError of one line."""

import operator
from typing import Any

import numpy as np

from mcjax.core.errors import UserError, shown


def whole(name: str, value: Any, *, least: int | None = None, most: int | None = None) -> int:
    """An integer from `least` to `most`."""
    try:
        number = operator.index(value)
    except TypeError:
        raise UserError(f"{name} is {shown(value)}; give an integer") from None
    if (least is not None and number < least) or (most is not None and number > most):
        limits = f"from {least} on" if most is None else f"from {least} to {most}"
        raise UserError(f"{name} is {shown(value)}; give an integer {limits}")
    return number


def numbers(name: str, value: Any) -> np.ndarray:
    """A number or an array of them, float64."""
    try:
        return np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{name} is {shown(value)}; give numbers") from None


def positive(name: str, value: Any) -> float:
    """A number in (0, 1]."""
    number = numbers(name, value)
    if number.shape or not 0 < number <= 1:
        raise UserError(f"{name} is {shown(value)}; it must be in (0, 1]")
    return float(number)


def between(name: str, value: Any, least: float, most: float) -> float:
    """A number in [least, most]."""
    number = numbers(name, value)
    if number.shape or not least <= number <= most:
        raise UserError(f"{name} is {shown(value)}; it must be in [{least:g}, {most:g}]")
    return float(number)
