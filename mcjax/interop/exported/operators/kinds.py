"""How operators receive their arguments.

An operator is a function of arrays with PyTorch's argument names. It is entered in a table through
one of these wrappers, which convert `Value`s to arrays in the order of axes that it expects.
"""

from collections.abc import Callable, Mapping
from typing import Any

from mcjax.interop.exported.call import Call
from mcjax.interop.exported.values import Value, common, unwrapped, wrapped

Arguments = Mapping[str, Any]
Operator = Callable[[Call, Arguments], Any]
"""`operator(call, arguments) -> results`, of `Value`s."""


def elementwise(fn: Callable[..., Any]) -> Operator:
    """An operator whose tensors may be stored in any order of axes, if all have the same."""

    def operator(call: Call, arguments: Arguments) -> Any:
        arrays, last = common(list(arguments.values()))
        return wrapped(_called(fn, arguments, arrays), channels_last=last)

    return operator


def images(fn: Callable[..., Any]) -> Operator:
    """An operator on images: its first argument and its results are [B, H, W, C]."""

    def operator(call: Call, arguments: Arguments) -> Any:
        first, *rest = arguments.values()
        arrays = [first.images(), *map(unwrapped, rest)]
        return wrapped(_called(fn, arguments, arrays), channels_last=True)

    return operator


def plain(fn: Callable[..., Any]) -> Operator:
    """An operator on arrays in PyTorch's order of axes."""

    def operator(call: Call, arguments: Arguments) -> Any:
        return wrapped(_called(fn, arguments, [unwrapped(v) for v in arguments.values()]))

    return operator


def by_values(fn: Callable[..., Any]) -> Operator:
    """An operator that takes `Value`s, and chooses the order of axes itself."""

    def operator(call: Call, arguments: Arguments) -> Any:
        return wrapped(_called(fn, arguments, list(arguments.values())))

    return operator


def with_call(fn: Callable[..., Any]) -> Operator:
    """An operator that takes `Value`s, and a `Call` first."""

    def operator(call: Call, arguments: Arguments) -> Any:
        return wrapped(_called(fn, arguments, list(arguments.values()), call))

    return operator


def _called(fn: Callable[..., Any], arguments: Arguments, values: list[Any], *front: Any) -> Any:
    """The first argument is given by position, because it is often called `self`."""
    if not values:
        return fn(*front)
    first, *rest = values
    names = [safe(name) for name in list(arguments)[1:]]
    return fn(*front, first, **dict(zip(names, rest, strict=True)))


def safe(name: str) -> str:
    """An argument's name in Python: "from" and the like get an underscore."""
    return f"{name}_" if name in ("from", "lambda") else name


def array(value: Any) -> Any:
    """The array of a value in PyTorch's order; numbers are returned unchanged."""
    return value.plain() if isinstance(value, Value) else value
