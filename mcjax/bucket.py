"""User-given paths: folders, and locations in a bucket."""

import os
from pathlib import Path

from mcjax.errors import UserError


def in_bucket(path: Path) -> bool:
    """Whether a path made by `mcjax.workdir.as_path` is in a bucket.

    Example:
        >>> in_bucket(Path("/runs/digits"))
        False
    """
    return "://" in os.fspath(path)


def local(path: str | os.PathLike) -> Path:
    """A local path, with ~ expanded.

    Raises:
        UserError: The user of ~NAME does not exist.

    Example:
        >>> local("runs/digits").name
        'digits'
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"{os.fspath(path)}: there is no such user; give another path") from None
