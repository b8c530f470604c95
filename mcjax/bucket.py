"""Folders and places in a bucket, told apart."""

import os
from pathlib import Path


def in_bucket(path: Path) -> bool:
    """Whether a path made by `mcjax.workdir.as_path` is a place in a bucket.

    Example:
        >>> in_bucket(Path("/runs/digits"))
        False
    """
    return "://" in os.fspath(path)
