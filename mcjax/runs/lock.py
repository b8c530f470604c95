"""One run at a time in a working directory."""

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
    """A folder held by this process; the kernel takes it back when the process ends, or is killed.

    Args:
        file: The open file with the kernel's lock; closed with the last use of this object.
    """

    def __init__(self, file: IO[str]):
        weakref.finalize(self, file.close)


# A process may open a run again, in a notebook say: it has the folder already.
_held: weakref.WeakValueDictionary[str, Lock] = weakref.WeakValueDictionary()


def hold(folder: Path) -> Lock:
    """Holds a folder for as long as the returned object lives. The file left behind locks nothing.

    Where the file system has no locks (some network ones) nothing is held.

    Args:
        folder: The folder; made with its parents.

    Returns:
        What holds it.

    Raises:
        UserError: Another process holds it; it can't be made.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> first = hold(folder)
        >>> hold(folder) is first  # it may be opened again by the process that holds it
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
            f"can't write {folder}: {error.strerror or error}; make room or give another --workdir"
        ) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read(200).strip() or "another process"
        file.close()
        raise UserError(
            f"{folder} is in use by {holder}; wait until that run ends, or give another --workdir"
        ) from None
    except OSError:
        pass
    lock = _held[place] = Lock(file)
    now = datetime.datetime.now().isoformat(" ", "seconds")
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}, since {now}\n")
    file.flush()
    return lock
