"""Multi-process runs (one process per host), in which process 0 reads and writes all files.

Parameters are replicated, so process 0 can write every file and sends what it reads to the others.
Hosts need no shared disk, and all processes act on the same data. With a single process these
functions do nothing.
"""

import contextlib
import os
import pickle
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from mcjax.errors import UserError

SMALL = 4096  # bytes in the first message; longer data needs a second one

_in_once = False  # True inside `once`, so nested calls run directly


def initialize(
    coordinator: str | None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    connect_seconds: int = 300,
    heartbeat_seconds: int = 100,
) -> None:
    """Connects this process to the others (`jax.distributed.initialize`).

    Must be called before any device is used.

    Args:
        coordinator: HOST:PORT of process 0; "auto" on TPU pods, Slurm and MPI, which provide all
            three values; None for a single process, unless JAX_COORDINATOR_ADDRESS is set.
        num_processes: Number of processes.
        process_id: Index of this process, from 0.
        connect_seconds: Timeout for connecting.
        heartbeat_seconds: A process that is silent for this long counts as dead and ends all others.

    Raises:
        UserError: The arguments are inconsistent, or process 0 cannot be reached.
    """
    coordinator = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
    if coordinator is None:
        if num_processes is not None or process_id is not None:
            raise UserError("num_processes and process_id need coordinator=HOST:PORT; add it")
        return
    given: dict[str, Any] = {}
    if coordinator != "auto":
        _check(coordinator, num_processes, process_id)
        given = {
            "coordinator_address": coordinator,
            "num_processes": num_processes,
            "process_id": process_id,
        }
        if process_id:
            _reach(coordinator, process_id, connect_seconds)
    # JAX would catch SIGTERM; let it end the process.
    jax.config.update("jax_enable_preemption_service", False)
    with _watchdog(connect_seconds, coordinator):
        try:
            jax.distributed.initialize(
                **given,
                initialization_timeout=connect_seconds + 60,
                heartbeat_timeout_seconds=heartbeat_seconds,
            )
            count = jax.process_count()
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"the processes can't connect ({reason}); check coordinator={coordinator!r}"
            ) from None
    if num_processes not in (None, count):
        raise UserError(
            f"num_processes is {num_processes} here, but {count} on process 0; use the same value "
            "on all processes"
        )


def _check(coordinator: str, num_processes: int | None, process_id: int | None) -> None:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"coordinator is {coordinator!r}; give HOST:PORT or auto")
    if num_processes is None or process_id is None:
        raise UserError("coordinator=HOST:PORT needs num_processes and process_id; add them")
    if not 0 <= process_id < num_processes:
        raise UserError(
            f"process_id is {process_id}, but num_processes is {num_processes}; process ids count from 0"
        )


def _reach(coordinator: str, process_id: int, seconds: float) -> None:
    """Waits until process 0 listens; JAX's own timeout aborts without naming the address."""
    host, _, port = coordinator.rpartition(":")
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"process {process_id} can't reach the coordinator {coordinator} "
                    f"({error.strerror or error}); start process 0 there, or open the port"
                ) from None
        time.sleep(0.2)


@contextlib.contextmanager
def _watchdog(seconds: float, coordinator: str) -> Iterator[None]:
    """Ends the process with a one-line error on timeout; JAX would abort with a stack trace."""

    def end() -> None:
        print(
            f"error: {coordinator}: timed out after {seconds} s waiting for all processes to "
            "connect; start num_processes processes, each with its own process_id",
            file=sys.stderr,
            flush=True,
        )
        os._exit(2)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def several() -> bool:
    """Whether this process is one of several; does not initialise devices."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this is process 0, which reads, writes and prints."""
    return not several() or jax.process_index() == 0


def once(fn: Callable[[], Any]) -> Any:
    """Calls fn on process 0; every process gets its result, bit for bit, or its UserError.

    All processes must call this in the same order.

    Args:
        fn: The function to call once, e.g. to read or write a file.

    Returns:
        Its result; a copy on the other processes.

    Raises:
        UserError: fn raised it.

    Example:
        >>> once(lambda: {"step": 3})
        {'step': 3}
    """
    global _in_once
    if _in_once or not several():
        return fn()
    result, error, data = None, None, b""
    if is_first():
        _in_once = True
        try:
            result = fn()
        except UserError as caught:
            error = caught
        finally:
            _in_once = False
        data = pickle.dumps((result, error and (str(error), error.exit_code)))
    result_elsewhere, told = pickle.loads(_broadcast(data))
    if told:
        raise UserError(*told)
    return result if is_first() else result_elsewhere


def everywhere(fn: Callable[[], Any]) -> Any:
    """Calls fn on every process; a UserError on one is raised on all and names the process.

    Args:
        fn: The function that each process calls, e.g. to load the data.

    Returns:
        Its result.

    Raises:
        UserError: fn raised it on some process.

    Example:
        >>> everywhere(lambda: 3)
        3
    """
    if not several():
        return fn()
    result, message = None, ""
    try:
        result = fn()
    except UserError as error:
        message = str(error)
    line = np.zeros(SMALL, np.uint8)
    data = np.frombuffer(message.encode()[:SMALL], np.uint8)
    line[: len(data)] = data
    lines = multihost_utils.process_allgather(line)
    for process, row in enumerate(lines):
        if row.any():
            text = row.tobytes().rstrip(b"\0").decode(errors="replace")
            raise UserError(text if lines.any(1).all() else f"process {process}: {text}")
    return result


def end(exit_code: int) -> None:
    """Ends this process immediately, process 0 last: its exit would abort the others."""
    if several():
        time.sleep(3 if is_first() else 1)
    with contextlib.suppress(OSError, ValueError):  # stdout may be closed
        sys.stdout.flush()
    os._exit(exit_code)


def _broadcast(data: bytes) -> bytes:
    """Sends process 0's bytes to every process."""
    head = np.zeros(SMALL, np.uint8)
    head[:8] = np.frombuffer(np.int64(len(data)).tobytes(), np.uint8)
    small = data[: SMALL - 8]
    head[8 : 8 + len(small)] = np.frombuffer(small, np.uint8)
    head = np.asarray(multihost_utils.broadcast_one_to_all(head))
    length = int(np.frombuffer(head[:8].tobytes(), np.int64)[0])
    if length <= SMALL - 8:
        return head[8 : 8 + length].tobytes()
    # Padded to a power of two, so that few programs are compiled.
    body = np.zeros(1 << (length - 1).bit_length(), np.uint8)
    if is_first():
        body[:length] = np.frombuffer(data, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(body))[:length].tobytes()
