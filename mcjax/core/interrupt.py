"""Ctrl-C in a command: one line while it imports, and never swallowed while it runs."""

import _thread
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

PACKAGES = ("mcjax", "launch")
INTERRUPTED = 130
SECONDS_TO_RETRY = 0.05


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


def repeat_where_swallowed() -> None:
    """Interrupts again where Python drops a KeyboardInterrupt, for the rest of the process.

    Python only prints what is raised in a callback of the garbage collector, of which JAX has one,
    and in a finaliser; the program would run on.
    """
    sys.unraisablehook = _repeating(sys.unraisablehook)


def _repeating(hook: Callable[[Any], Any]) -> Callable[[Any], None]:
    def repeat(args: Any) -> None:
        if issubclass(args.exc_type, KeyboardInterrupt):
            # Later, outside of the callback.
            threading.Timer(SECONDS_TO_RETRY, _thread.interrupt_main).start()
        else:
            hook(args)

    return repeat


def _end(*_: Any) -> None:
    print(f"python -m {command_name()}: interrupted", file=sys.stderr, flush=True)
    os._exit(INTERRUPTED)
