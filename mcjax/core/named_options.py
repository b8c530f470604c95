"""NAME:option=value,...: a thing from a registry and its options, in one word of a command line."""

import re
from collections.abc import Mapping

from mcjax.core.errors import UserError

GIVEN = ("name", "num_classes", "image_shape")


def parse(text: str) -> tuple[str, dict[str, object]]:
    """Reads a name and its options.

    Values are whole numbers, numbers, True or False, sizes joined by x (`128x64`, and `128x` for a
    single one), or else text.

    Args:
        text: As a user writes it.

    Returns:
        The name, and the options by name.

    Raises:
        UserError: An option without a value, given twice, or that the data decide on.

    Example:
        >>> parse("mlp:hidden=128x64")
        ('mlp', {'hidden': (128, 64)})
        >>> parse("blended:alpha=0.1")
        ('blended', {'alpha': 0.1})
    """
    name, _, rest = text.partition(":")
    options: dict[str, object] = {}
    for item in filter(None, rest.split(",")):
        option, equals, value = item.partition("=")
        if not equals or not value:
            raise UserError(f"{text}: option {item!r} has no value; write NAME:option=value,...")
        if option in options:
            raise UserError(f"{text}: option {option!r} is given twice; give it once")
        options[option] = _value(value)
    check_free(text, options)
    return name, options


def check_free(text: str, options: Mapping[str, object]) -> None:
    """Refuses options that are not free to choose: the data decide on them.

    Raises:
        UserError: One is among `GIVEN`.
    """
    taken = [option for option in options if option in GIVEN]
    if taken:
        raise UserError(f"{text}: {taken[0]} is no option, the data decide on it; leave it out")


def write(name: str, options: Mapping[str, object]) -> str:
    """The text that `parse` reads.

    Example:
        >>> write("mlp", {"hidden": [128]})
        'mlp:hidden=128x'
        >>> parse(write("mlp", {"hidden": ()}))
        ('mlp', {'hidden': ()})
    """
    items = ",".join(f"{option}={_text(value)}" for option, value in options.items())
    return f"{name}:{items}" if items else name


def _value(text: str) -> object:
    if re.fullmatch(r"(\d{1,18}x)+\d{0,18}|x", text):
        return tuple(int(number) for number in text.split("x") if number)
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        sizes = [str(number) for number in value]
        return "x".join(sizes) if len(sizes) > 1 else f"{''.join(sizes)}x"
    return str(value)
