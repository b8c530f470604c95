"""Several processes that run the same program, one a host: the first reads and writes every file.

Every process has the whole of every tree that is ever written (parameters are replicated), so one of
them is enough to write it, and what it has read it hands to the others: they need no common disk, and
they all do the same though a file may show itself to some of them a moment later. With one process
all of this does nothing.
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

from mcjax.core.errors import UserError

SMALL = 4096  # bytes that a first message carries; what is larger needs a second one

_in_once = False  # what is done once may itself ask for things to be done once


def initialize(
    coordinator: str | None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    connect_seconds: int = 300,
    heartbeat_seconds: int = 100,
) -> None:
    """Joins this process to the others (`jax.distributed.initialize`); before any use of a device.

    Args:
        coordinator: HOST:PORT of the first process; "auto" on TPU pods, Slurm and MPI, which know all
            three; None for one process alone, unless JAX_COORDINATOR_ADDRESS says otherwise.
        num_processes: How many there are.
        process_id: Which of them this is, from 0.
        connect_seconds: How long the first waits for the others and these for the first.
        heartbeat_seconds: After how long a silent process counts as dead, which ends all others.

    Raises:
        UserError: The numbers do not fit, or the first process can't be reached.
    """
    coordinator = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
    if coordinator is None:
        if num_processes is not None or process_id is not None:
            raise UserError("--num_processes and --process_id need --coordinator HOST:PORT")
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
    # JAX would catch SIGTERM and leave it to the program to end: let it end the process.
    jax.config.update("jax_enable_preemption_service", False)
    with _watchdog(connect_seconds, f"{coordinator}: not all processes came"):
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
                f"the processes can't be joined ({reason}); see --coordinator"
            ) from None
    if num_processes not in (None, count):
        raise UserError(
            f"--num_processes is {num_processes} here, but the first process has {count}; "
            "give all of them the same"
        )


def _check(coordinator: str, num_processes: int | None, process_id: int | None) -> None:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"--coordinator is {coordinator!r}; give HOST:PORT, or auto")
    if num_processes is None or process_id is None:
        raise UserError("--coordinator HOST:PORT needs --num_processes and --process_id too")
    if not 0 <= process_id < num_processes:
        raise UserError(
            f"--process_id is {process_id} of --num_processes={num_processes}; they count from 0"
        )


def _reach(coordinator: str, process_id: int, seconds: float) -> None:
    """Waits until the first process listens; JAX itself aborts without a word of where."""
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
def _watchdog(seconds: float, what: str) -> Iterator[None]:
    """Ends the process with one line after so long: JAX's own way is to abort with a stack trace."""

    def end() -> None:
        print(
            f"error: {what} within {seconds} s; start as many as --num_processes says, "
            "each with its own --process_id",
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
    """Whether this process is one of several; asks no device."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this process is the one that reads, writes and speaks."""
    return not several() or jax.process_index() == 0


def once(fn: Callable[[], Any]) -> Any:
    """The first process calls fn; every process gets its result, bit for bit, or its UserError.

    All processes must come here, in the same order.

    Args:
        fn: What is to be done once: a file read or written, a clock looked at.

    Returns:
        Its result; where it was not called, a copy.

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
        data = pickle.dumps((result, None if error is None else str(error)))
    result_elsewhere, told = pickle.loads(_broadcast(data))
    if told is not None:
        raise UserError(told)
    return result if is_first() else result_elsewhere


def everywhere(fn: Callable[[], Any]) -> Any:
    """Every process calls fn; if one has a UserError, all end with it, and it says which had it.

    Args:
        fn: What each does for itself, such as loading the data.

    Returns:
        Its result.

    Raises:
        UserError: fn raised it, here or elsewhere.

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
    """Ends this process at once, the first one last: its end would abort the others in mid-word."""
    if several():
        time.sleep(3 if is_first() else 1)
    with contextlib.suppress(OSError, ValueError):  # nobody may be there to read it
        sys.stdout.flush()
    os._exit(exit_code)


def _broadcast(data: bytes) -> bytes:
    """The first process's bytes, in every process."""
    head = np.zeros(SMALL, np.uint8)
    head[:8] = np.frombuffer(np.int64(len(data)).tobytes(), np.uint8)
    small = data[: SMALL - 8]
    head[8 : 8 + len(small)] = np.frombuffer(small, np.uint8)
    head = np.asarray(multihost_utils.broadcast_one_to_all(head))
    length = int(np.frombuffer(head[:8].tobytes(), np.int64)[0])
    if length <= SMALL - 8:
        return head[8 : 8 + length].tobytes()
    # Lengths in powers of two: few programs to compile.
    body = np.zeros(1 << (length - 1).bit_length(), np.uint8)
    if is_first():
        body[:length] = np.frombuffer(data, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(body))[:length].tobytes()
