"""Files written whole or not at all, in folders and in buckets (gs://BUCKET/PLACE).

Where several processes run, the first writes, and the others hear how it went.
"""

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any, cast

from mcjax.core.atomic_files import put_file
from mcjax.core.bucket import in_bucket, local
from mcjax.core.errors import UserError
from mcjax.core.processes import once


def as_path(path: str | os.PathLike) -> Path:
    """The absolute path of a folder or a location in a bucket, with the interface of `pathlib.Path`.

    Raises:
        UserError: The kind of bucket is not supported, or its package is not installed.

    Example:
        >>> as_path("/runs/digits").name
        'digits'
    """
    text = os.fspath(path)
    if "://" not in text:
        return local(path).absolute()
    from etils import epath  # not needed for local runs

    try:
        place = epath.Path(text)
        place.exists()
    except ImportError:
        raise UserError(f"{text} needs one more package: pip install 'mcjax[gcs]'") from None
    except Exception as error:  # each bucket package raises its own types
        raise UserError(f"{text} can't be reached ({first_line(error)})") from None
    return cast(Path, place)


def write(path: Path, content: str | bytes) -> None:
    """Writes a file atomically: to a temporary name, then renamed.

    Raises:
        UserError: The directory is not writable, or the disk is full.
    """
    once(lambda: _put(path, content, replace=True))


def publish(path: Path, content: str | bytes) -> bool:
    """Like `write`, but only if the file does not exist; one of several writers succeeds.

    Returns:
        Whether this call wrote it.

    Raises:
        UserError: As `write`.
    """
    return once(lambda: _put(path, content, replace=False))


def _put(path: Path, content: str | bytes, *, replace: bool) -> bool:
    data = content.encode() if isinstance(content, str) else content
    try:
        return (_put_object if in_bucket(path) else put_file)(path, data, replace=replace)
    except OSError as error:
        raise cannot_write(path, error) from None


def _put_object(path: Path, data: bytes, *, replace: bool) -> bool:
    """Objects are written atomically; "create" fails if the object exists."""
    import fsspec

    try:
        filesystem, name = fsspec.url_to_fs(os.fspath(path))
        filesystem.pipe_file(name, data, mode="overwrite" if replace else "create")
        return True
    except FileExistsError:
        return False
    except Exception as error:  # each bucket package raises its own types
        raise OSError(first_line(error)) from None


def delete(path: Path) -> None:
    """Deletes a folder and its contents, if it exists."""

    def remove() -> None:
        if in_bucket(path):
            with contextlib.suppress(Exception):
                cast(Any, path).rmtree(missing_ok=True)
        else:
            shutil.rmtree(path, ignore_errors=True)

    once(remove)


def first_line(error: Exception) -> str:
    """The first line of an error's message, at most 200 characters; its type if that is empty."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def cannot_write(path: Path, error: OSError | str) -> UserError:
    """The error to raise for a failed write."""
    reason = error.strerror or str(error) if isinstance(error, OSError) else error
    return UserError(
        f"can't write {path}: {reason}; make room or give another folder, then run again: "
        "finished work is kept"
    )
