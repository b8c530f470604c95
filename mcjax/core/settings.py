"""A field of a config as one record: default, allowed values, quick value, meaning."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from mcjax.core.fields import Field


@dataclasses.dataclass(frozen=True)
class Setting:
    """A field of a config.

    Args:
        default: Default value (that of the digits run), which also sets the field's type.
        field: Allowed values.
        help: Meaning in one line, with the unit.
        quick: Value with `:quick`, or a function of the current value; None keeps it.
    """

    default: Any
    field: Field
    help: str
    quick: Any = None

    def shrunk(self, value: Any) -> Any:
        """The field's value with `:quick`, given its current value."""
        if self.quick is None:
            return value
        return self.quick(value) if callable(self.quick) else self.quick


Settings = Mapping[str, Setting]
"""Settings by dotted name."""


def at_most(most: int) -> Callable[[int], int]:
    """A quick value that caps the current value."""
    return lambda value: min(value, most)
