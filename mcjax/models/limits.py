"""Limits on the options of networks; larger values could not be compiled or would not fit in memory."""

from typing import Any

import flax.linen as nn

from mcjax.fields import Field, check, number, whole

CLASSES = whole(2, 10**6)
DEPTH = whole(1, 2000)
WIDTH = whole(1, 2**16)
UNITS = whole(1, 2**20)
RATE = number(0, 1, below=True)


def _all_of(values: Any, item: Field, least: int, most: int) -> bool:
    return (
        isinstance(values, list | tuple)
        and least <= len(values) <= most
        and all(item.holds(v) for v in values)
    )


HIDDEN = Field(
    f"at most 1000 sizes, each {UNITS.wanted}", lambda v: _all_of(v, UNITS, least=0, most=1000)
)
BLOCKS = Field(
    "the blocks of 1 to 10 stages, positive integers, at most 1000 in all",
    lambda v: _all_of(v, whole(1, 1000), least=1, most=10) and sum(v) <= 1000,
)


def check_options(family: str, module: nn.Module, **fields: Field) -> None:
    """Checks the options of a network.

    Args:
        family: The network's name, for the message.
        module: The network.
        **fields: The allowed values of each option.

    Raises:
        UserError: An option is invalid; the message names the first one.
    """
    for option, field in fields.items():
        check(f"{family}: {option}", getattr(module, option), field)
