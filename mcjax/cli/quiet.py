"""Keeps the tracebacks of Orbax's threads off a command's terminal: the command prints one line."""

import logging
import sys
import threading
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any

STORAGE = ("orbax", "tensorstore", "asyncio")  # mcjax itself has no event loop


def hide_storage_threads() -> None:
    """Drops log lines and tracebacks of storage threads, for the rest of the process.

    Where one array can't be written, threads that write the others fail too, some of them later.
    After an interruption Python would also warn of coroutines of Orbax's that it never awaited.
    All other exceptions are shown as before.
    """
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    threading.excepthook = _without_storage(threading.excepthook)
    sys.unraisablehook = _without_storage(sys.unraisablehook)


def _without_storage(hook: Callable[[Any], Any]) -> Callable[[Any], None]:
    def filtered(args: Any) -> None:
        if not from_storage(args.exc_value, args.exc_traceback):
            hook(args)

    return filtered


def from_storage(error: BaseException | None, traceback: TracebackType | None) -> bool:
    """Whether an exception comes from Orbax or TensorStore.

    Args:
        error: The exception, None if it is not known.
        traceback: Where it was raised.
    """
    modules = [type(error).__module__]
    while traceback is not None:
        modules.append(traceback.tb_frame.f_globals.get("__name__", ""))
        traceback = traceback.tb_next
    return any(name.partition(".")[0] in STORAGE for name in modules)
