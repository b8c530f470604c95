"""The one exception that means: the user can mend this."""


class UserError(ValueError):
    """A mistake that the user can mend; commands print its one line and exit with `exit_code`.

    Args:
        message: One line: what is wrong, then what to do about it.
        exit_code: 2 for a mistake; 3 for a run that did its work but has no acceptable answer.
    """

    def __init__(self, message: str, exit_code: int = 2):
        super().__init__(message)
        self.exit_code = exit_code
