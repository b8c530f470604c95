"""A field of a config as one record: default, allowed values, quick value, meaning."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from mcjax.core.fields import Field


@dataclasses.dataclass(frozen=True)
class Setting:
    """A field of a config.

    Args:
        default: Its value in the digits run; its type is the field's.
        field: What it can be.
        help: What it means, in a line, with its unit.
        quick: Its value under `:quick`, or a function of the value it has; None leaves it.
    """

    default: Any
    field: Field
    help: str
    quick: Any = None

    def shrunk(self, value: Any) -> Any:
        """The value under `:quick` of a field that has a value."""
        if self.quick is None:
            return value
        return self.quick(value) if callable(self.quick) else self.quick


Settings = Mapping[str, Setting]
"""By dotted name."""


def at_most(most: int) -> Callable[[int], int]:
    """The quick value of a number that may be smaller already."""
    return lambda value: min(value, most)
