"""The exception for mistakes the user can fix."""

from typing import Any


class UserError(ValueError):
    """Raised for mistakes the user can fix.

    Commands print the message and exit with `exit_code`.

    Args:
        message: One line: what is wrong, then what to do.
        exit_code: 2 for a mistake; 3 for a run that finished without an acceptable result.
    """

    def __init__(self, message: str, exit_code: int = 2):
        super().__init__(message)
        self.exit_code = exit_code


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
