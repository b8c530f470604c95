"""The one exception that means: the user can mend this."""

from typing import Any


class UserError(ValueError):
    """A mistake that the user can mend; commands print its one line and exit with `exit_code`.

    Args:
        message: One line: what is wrong, then what to do about it.
        exit_code: 2 for a mistake; 3 for a run that did its work but has no acceptable answer.
    """

    def __init__(self, message: str, exit_code: int = 2):
        super().__init__(message)
        self.exit_code = exit_code


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
