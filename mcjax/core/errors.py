"""Raised for mistakes the user can fix."""

from typing import Any


class UserError(ValueError):
    """A mistake the user can fix: one line that says what is wrong, then what to do."""


def shown(value: Any) -> str:
    r"""A value for a message: its repr in one line of at most 80 characters.

    Example:
        >>> shown("a line" + chr(10))
        "'a line\\n'"
    """
    try:
        text = repr(value)
    except Exception:  # digits beyond Python's limit, or an object of the user's
        return f"a {type(value).__name__}"
    text = " ".join(text.split())
    return text if len(text) <= 80 else text[:77] + "..."
