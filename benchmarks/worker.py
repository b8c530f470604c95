"""One framework in one process: it does a piece of work when asked, and says how long it took."""

import contextlib
import importlib
import multiprocessing
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any


def serve(connection: Connection, module: str, args: tuple) -> None:
    """The process: answers (work, args) with (seconds, results, error) until it gets None."""
    works: dict[str, Any] = importlib.import_module(module).prepare(*args)
    connection.send("ready")
    while (request := connection.recv()) is not None:
        work, args = request
        began = time.perf_counter()
        try:
            results, error = works[work](*args), None
        except Exception as caught:
            traceback.print_exc()  # for the log; the message goes to who asked
            results, error = None, f"{type(caught).__name__}: {caught}"
        connection.send((time.perf_counter() - began, results, error))


class Worker:
    """A process that holds one framework ready; only one works at a time.

    Args:
        module: A module with `prepare(*args) -> {work: function}`.
        *args: What prepare gets.
    """

    def __init__(self, module: str, *args: Any):
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, module, args), daemon=True)
        self._process.start()
        theirs.close()
        self._ready = False

    def time(self, work: str, *args: Any) -> tuple[float, Any]:
        """Seconds of one call, and its results.

        Raises:
            RuntimeError: The work failed, with its message, and the process can be asked again; or the
            process has ended.
        """
        try:
            if not self._ready:  # what it imports and prepares, others may meanwhile do too
                self._connection.recv()
                self._ready = True
            self._connection.send((work, args))
            seconds, results, error = self._connection.recv()
        except (EOFError, OSError):
            raise RuntimeError("its process has ended; the log says why") from None
        if error:
            raise RuntimeError(error)
        return seconds, results

    def call(self, work: str, *args: Any) -> Any:
        """The results of one call."""
        return self.time(work, *args)[1]

    def close(self) -> None:
        """Ends the process."""
        with contextlib.suppress(OSError):  # it may have ended by itself
            self._connection.send(None)
        self._process.join(10)
        self._process.kill()
