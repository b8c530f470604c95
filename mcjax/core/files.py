"""Files written whole or not at all, in folders and in buckets (gs://BUCKET/PLACE).

Where several processes run, the first writes, and the others hear how it went.
"""

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any, cast

from mcjax.core.bucket import in_bucket, local
from mcjax.core.errors import UserError
from mcjax.core.processes import once


def as_path(path: str | os.PathLike) -> Path:
    """An absolute path of a folder, or of a place in a bucket; both are used as a `pathlib.Path`.

    Raises:
        UserError: A bucket of a kind that can't be read, or its package is not installed.

    Example:
        >>> as_path("/runs/digits").name
        'digits'
    """
    text = os.fspath(path)
    if "://" not in text:
        return local(path).absolute()
    from etils import epath  # a local run needs none of it

    try:
        place = epath.Path(text)
        place.exists()
    except ImportError:
        raise UserError(f"{text} needs one more package: pip install 'mcjax[gcs]'") from None
    except Exception as error:  # every bucket's package has errors of its own
        raise UserError(f"{text} can't be reached ({first_line(error)})") from None
    return cast(Path, place)


def write(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all: to a temporary name, then renamed.

    Raises:
        UserError: The directory can't be written to, or the disk is full.
    """
    once(lambda: _put(path, content, replace=True))


def publish(path: Path, content: str | bytes) -> bool:
    """Writes a file as `write` does, but only if it is not there: of two writers one wins.

    Returns:
        Whether it was this call that wrote it.

    Raises:
        UserError: As `write`.
    """
    return once(lambda: _put(path, content, replace=False))


def _put(path: Path, content: str | bytes, *, replace: bool) -> bool:
    data = content.encode() if isinstance(content, str) else content
    try:
        return (_put_object if in_bucket(path) else _put_file)(path, data, replace=replace)
    except OSError as error:
        raise cannot_write(path, error) from None


def _put_file(path: Path, data: bytes, *, replace: bool) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            temporary.replace(path)
            return True
        try:
            os.link(temporary, path)  # unlike a rename it fails where the name is taken
        except FileExistsError:
            return False
        except OSError:  # a file system without links, such as a mounted bucket
            return _create(path, data)
        return True
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _create(path: Path, data: bytes) -> bool:
    try:
        file = path.open("xb")
    except FileExistsError:
        return False
    try:
        with file:
            file.write(data)
    except OSError:
        path.unlink(missing_ok=True)  # half a result is none
        raise
    return True


def _put_object(path: Path, data: bytes, *, replace: bool) -> bool:
    """An object appears when all of it is there; "create" leaves alone one that is there."""
    import fsspec

    try:
        filesystem, name = fsspec.url_to_fs(os.fspath(path))
        filesystem.pipe_file(name, data, mode="overwrite" if replace else "create")
        return True
    except FileExistsError:
        return False
    except Exception as error:  # every bucket's package has errors of its own
        raise OSError(first_line(error)) from None


def delete(path: Path) -> None:
    """Deletes a folder and all in it; none is no error."""

    def remove() -> None:
        if in_bucket(path):
            with contextlib.suppress(Exception):
                cast(Any, path).rmtree(missing_ok=True)
        else:
            shutil.rmtree(path, ignore_errors=True)

    once(remove)


def first_line(error: Exception) -> str:
    """What an error says, in one line of at most 200 characters; its kind where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def cannot_write(path: Path, error: OSError | str) -> UserError:
    """The error of a failed write, with what to do about it."""
    reason = error.strerror or str(error) if isinstance(error, OSError) else error
    return UserError(
        f"can't write {path}: {reason}; make room or give another --workdir, "
        "and run the same command again: what is computed stays"
    )
