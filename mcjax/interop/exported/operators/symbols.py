"""Arithmetic with sizes, in programs that were exported for any size."""

import operator
from typing import Any

from mcjax.interop.exported.call import Call
from mcjax.interop.exported.operators.kinds import Arguments, Operator


def _of_numbers(fn: Any) -> Operator:
    return lambda call, arguments: fn(*arguments.values())


def _getitem(call: Call, arguments: Arguments) -> Any:
    values, index = arguments.values()
    return values[index]


OPERATORS = {
    **{
        f"_operator.{name}": _of_numbers(getattr(operator, name))
        for name in ("add", "sub", "mul", "floordiv", "mod", "neg", "truediv", "pow")
    },
    "_operator.getitem": _getitem,
}
