"""One framework in one process: it does a piece of work when asked, and says how long it took."""

import importlib
import multiprocessing
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

MODULES = {"mcjax": "benchmarks.mcjax_work", "stock": "benchmarks.mcjax_work"}


def serve(connection: Connection, network: str, file: Path, variant: str) -> None:
    """The process: answers (work, size) with (seconds, results) until it gets None."""
    module = importlib.import_module(MODULES.get(variant, "benchmarks.torch_work"))
    works = module.prepare(network, file, variant)
    connection.send("ready")
    while (request := connection.recv()) is not None:
        work, size = request
        began = time.perf_counter()
        results = works[work](size)
        connection.send((time.perf_counter() - began, results))


class Worker:
    """A process that holds one framework ready; only one works at a time.

    Args:
        network: The network's name.
        file: The inputs.
        variant: "mcjax", "stock", or one of `torch_work.VARIANTS`.
    """

    def __init__(self, network: str, file: Path, variant: str):
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=serve, args=(theirs, network, file, variant), daemon=True
        )
        self._process.start()
        theirs.close()
        self._connection.recv()

    def time(self, work: str, size: int) -> tuple[float, dict[str, np.ndarray]]:
        """Seconds of one call, and its results."""
        self._connection.send((work, size))
        answer: Any = self._connection.recv()
        return answer

    def close(self) -> None:
        """Ends the process."""
        self._connection.send(None)
        self._process.join()
