"""A parameter of many values, of which a few are tested at every change and all by `--slow`."""

import pytest

SLOW = pytest.mark.slow(compiles=True)


def all_but(quick, values):
    """The values as pytest's parameters, slow unless they are among the quick ones."""
    unknown = set(quick) - set(values)
    if unknown:
        raise ValueError(f"{unknown} are not among the values")
    return [value if value in quick else pytest.param(value, marks=SLOW) for value in values]
