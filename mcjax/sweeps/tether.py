"""Runs a command that the kernel kills when the process that started it ends.

    python mcjax/sweeps/tether.py PARENT_PID COMMAND ...

It is a program because code between fork and exec can hang in a parent with threads. Linux only: on
other systems the command runs to its end in its own folder, and its result is not published.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Asks the kernel to send the signal, then becomes the command."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent ended before the kernel was asked
            sys.exit(128 + signal.SIGKILL)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
