"""Specs `NAME:option=value,...`: a registry name and its options as one string."""

import re
from collections.abc import Mapping

from mcjax.errors import UserError

GIVEN = ("name", "num_classes", "image_shape")


def parse(text: str) -> tuple[str, dict[str, object]]:
    """Parses a name and its options.

    Values are integers, floats, True or False, sizes joined by x (`128x64`; `128x` for a single
    size), or strings.

    Args:
        text: The spec.

    Returns:
        The name, and the options by name.

    Raises:
        UserError: An option has no value, is given twice, or is determined by the data.

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
    """Checks that no option is determined by the data.

    Raises:
        UserError: An option is one of `GIVEN`.
    """
    taken = [option for option in options if option in GIVEN]
    if taken:
        raise UserError(f"{text}: {taken[0]} is determined by the data; remove it")


def write(name: str, options: Mapping[str, object]) -> str:
    """Formats a spec; the inverse of `parse`.

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
