"""Handles Ctrl-C during a command's imports with a one-line message instead of a traceback."""

import os
import signal
import sys
from typing import Any

PACKAGES = ("mcjax", "launch")
INTERRUPTED = 130


def command_name() -> str | None:
    """The module that `python -m` runs if it is an mcjax command, else None."""
    words = sys.orig_argv
    module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
    return module if module.partition(".")[0] in PACKAGES else None


def quiet_while_importing() -> None:
    """Makes Ctrl-C end an mcjax command with one line, until `ready` is called."""
    if command_name() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def ready() -> None:
    """Restores Ctrl-C's default, KeyboardInterrupt, which the command handles."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(*_: Any) -> None:
    print(f"python -m {command_name()}: interrupted", file=sys.stderr, flush=True)
    os._exit(INTERRUPTED)
