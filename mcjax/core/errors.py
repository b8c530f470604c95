"""The exception for mistakes the user can fix."""

from collections.abc import Sequence
from typing import Any


class UserError(ValueError):
    """Raised for mistakes the user can fix; the message is one line: what is wrong, what to do."""


def shown(value: Any) -> str:
    r"""A value's repr for a message, in one line of at most 80 characters.

    Example:
        >>> shown("a line" + chr(10))
        "'a line\\n'"
    """
    try:
        text = repr(value)
    except Exception:  # an integer with too many digits, or a user's broken __repr__
        return f"a {type(value).__name__}"
    text = " ".join(text.split())
    return text if len(text) <= 80 else text[:77] + "..."


def listed(names: Sequence[str], at_most: int = 4) -> str:
    """The first few names, in one line.

    Example:
        >>> listed(["a", "b", "c"], at_most=2)
        'a, b and 1 more'
    """
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return ", ".join(names[:at_most]) + more
