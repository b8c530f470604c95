"""Becomes a command that the kernel ends when the process that started it is gone.

    python launch/tether.py PARENT_PID COMMAND ...

A program of its own: what runs between fork and exec may hang in a parent with threads.
Linux only. Elsewhere such a command goes on to its end, in its own folder, and nobody publishes what
it leaves.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Asks the kernel, then becomes the command."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # gone before the kernel was asked
            sys.exit(128 + signal.SIGKILL)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
