"""Imports of optional packages, which extras of mcjax install."""

import importlib
from typing import Any

from mcjax.errors import UserError


def need(package: str, extra: str, what: str) -> Any:
    """Imports an optional package.

    Args:
        package: Module name, such as "pyarrow.parquet"; the top-level package is returned.
        extra: The extra that installs it.
        what: The feature that needs it, for the message.

    Returns:
        The top-level package.

    Raises:
        UserError: The package is not installed.

    Example:
        >>> need("no_such_package", "report", "a report of many runs")
        Traceback (most recent call last):
        mcjax.errors.UserError: a report of many runs needs no_such_package; pip install "mcjax[report]"
    """
    top = package.partition(".")[0]
    try:
        importlib.import_module(package)
        return importlib.import_module(top)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != top:
            raise  # a dependency is missing: a broken installation
        raise UserError(f'{what} needs {top}; pip install "mcjax[{extra}]"') from None
