"""The exception for mistakes the user can fix."""

import math
from collections.abc import Sequence
from typing import Any

MOST_NUMBERS = 8
"""Messages show the numbers of arrays up to this size."""


class UserError(ValueError):
    """Raised for mistakes the user can fix; the message is one line: what is wrong, what to do."""


class Unsuitable(UserError):
    """A network lacks what a method needs of it."""


class Diverged(UserError):
    """A training's loss is not finite."""


def shown(value: Any) -> str:
    r"""A value's repr for a message, in one line of at most 80 characters.

    Of arrays, also in tuples, lists and dicts, the type and shape are shown instead of the numbers.

    Example:
        >>> import numpy as np
        >>> shown("a line" + chr(10))
        "'a line\\n'"
        >>> shown((np.zeros((64, 8, 8, 1)), [0, 1]))
        '(ndarray float64 [64, 8, 8, 1], [0, 1])'
    """
    try:
        text = repr(_brief(value))
    except Exception:  # an integer with too many digits, or a user's broken __repr__
        return f"a {type(value).__name__}"
    text = " ".join(text.split())
    return text if len(text) <= 80 else text[:77] + "..."


class _Text(str):
    """Text whose repr is itself."""

    __repr__ = str.__str__


def _brief(value: Any) -> Any:
    """The value with its larger arrays replaced by their type and shape."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is not None and dtype is not None and not isinstance(value, type):
        kind = type(value).__name__.removesuffix("Impl")  # of jax.Array
        large = math.prod(shape) > MOST_NUMBERS
        return _Text(f"{kind} {dtype} {list(shape)}") if large else value
    if type(value) in (tuple, list):  # not subclasses, which may be made otherwise
        return type(value)(map(_brief, value[:80]))  # what follows is cut off anyway
    return {k: _brief(v) for k, v in value.items()} if type(value) is dict else value


def listed(names: Sequence[str], at_most: int = 4) -> str:
    """The first few names, in one line.

    Example:
        >>> listed(["a", "b", "c"], at_most=2)
        'a, b and 1 more'
    """
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return ", ".join(names[:at_most]) + more
