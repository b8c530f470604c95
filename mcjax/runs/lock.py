"""Locks a working directory, so that only one run uses it at a time."""

import datetime
import fcntl
import os
import socket
import weakref
from pathlib import Path
from typing import IO

from mcjax.core.errors import UserError

NAME = ".lock"


class Lock:
    """A folder locked by this process; the kernel releases the lock when the process ends.

    Args:
        file: The open, locked file; closed when this object is garbage-collected.
    """

    def __init__(self, file: IO[str]):
        weakref.finalize(self, file.close)


# A process may open the same run again, e.g. in a notebook.
_held: weakref.WeakValueDictionary[str, Lock] = weakref.WeakValueDictionary()


def hold(folder: Path) -> Lock:
    """Locks a folder for the lifetime of the returned object; the remaining file locks nothing.

    On file systems without locks (some network file systems) this has no effect.

    Args:
        folder: The folder; created with its parents.

    Returns:
        The lock.

    Raises:
        UserError: Another process holds the lock, or the folder can't be created.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> first = hold(folder)
        >>> hold(folder) is first  # the same process can open it again
        True
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        place = os.path.realpath(folder)
        if place in _held:
            return _held[place]
        file = (folder / NAME).open("a+")
    except OSError as error:
        raise UserError(
            f"can't write {folder}: {error.strerror or error}; make room or give another folder"
        ) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read(200).strip() or "another process"
        file.close()
        raise UserError(
            f"{folder} is in use by {holder}; wait until that run ends, or give another workdir"
        ) from None
    except OSError:
        pass
    lock = _held[place] = Lock(file)
    now = datetime.datetime.now().isoformat(" ", "seconds")
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}, since {now}\n")
    file.flush()
    return lock
