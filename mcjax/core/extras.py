"""Packages that only some commands need, and that an extra of mcjax installs."""

import importlib
from typing import Any

from mcjax.core.errors import UserError


def need(package: str, extra: str, what: str) -> Any:
    """Imports a package of an extra.

    Args:
        package: Its module's name, such as "pyarrow.parquet"; the package itself is returned.
        extra: The extra that has it.
        what: What needs it, for the message.

    Returns:
        The top-level package.

    Raises:
        UserError: It is not installed.

    Example:
        >>> need("no_such_package", "report", "a report of many runs")
        Traceback (most recent call last):
        mcjax.core.errors.UserError: a report of many runs needs no_such_package; pip install "mcjax[report]"
    """
    top = package.partition(".")[0]
    try:
        importlib.import_module(package)
        return importlib.import_module(top)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != top:
            raise  # something below it is missing: a damaged installation
        raise UserError(f'{what} needs {top}; pip install "mcjax[{extra}]"') from None
