"""Which of a study's methods are paths that are trained, and which one its figures are about."""

from collections.abc import Iterable

PATHS = ("taught_line", "taught_path", "path")
"""The paths that are made for a repair, the one that figures are about first."""


def shown_path(names: Iterable[str]) -> str | None:
    """The path that a study's figures are about: the first of `PATHS` among its methods.

    Args:
        names: Names of methods.

    Returns:
        Its name; None if there is no path among them.

    Example:
        >>> shown_path(["fine_tune", "path"])
        'path'
    """
    names = set(names)
    return next((name for name in PATHS if name in names), None)
