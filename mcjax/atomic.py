"""Atomic file writes: a file appears whole, or not at all. Imports no JAX, so that workers start fast."""

import contextlib
import json
import os
import socket
from pathlib import Path
from typing import Any


def put_file(path: Path, content: bytes, *, replace: bool = True) -> bool:
    """Writes a file under a temporary name, then gives it its own name.

    Args:
        path: The file; its folder is created.
        content: What it will contain.
        replace: Whether to replace an existing file. If False, the first of several writers wins,
            also across hosts that share the folder.

    Returns:
        Whether the file was written.

    Raises:
        OSError: The file cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "result.json"
        >>> put_file(path, b"first", replace=False), put_file(path, b"second", replace=False)
        (True, False)
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Hosts that share a folder may have processes of the same number.
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            temporary.replace(path)
            return True
        try:
            os.link(temporary, path)  # unlike a rename, this fails if the name is taken
        except FileExistsError:
            return False
        except OSError:  # a file system without links, such as a mounted bucket
            return _create(path, content)
        return True
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def put_json(path: Path, value: dict[str, Any], *, replace: bool = True) -> bool:
    """Writes a JSON file as `put_file` does."""
    return put_file(path, (json.dumps(value, indent=2) + "\n").encode(), replace=replace)


def _create(path: Path, content: bytes) -> bool:
    try:
        file = path.open("xb")
    except FileExistsError:
        return False
    try:
        with file:
            file.write(content)
    except OSError:
        path.unlink(missing_ok=True)  # never leave half a file
        raise
    return True
