"""Runs one attempt of one job, on any machine that sees the sweep's folder.

    python -m mcjax.sweeps.worker SWEEP_DIR/jobs/JOB_ID

Creates the attempt's folder, copies the newest earlier attempt's files into it, runs
`python -m mcjax.train` there, and publishes the result. If several attempts finish, only the first
one's result is published.

Exit codes: 0 the result is published; 3 it is published, but the run found no acceptable answer; 1 or 2 the
run failed (see log.txt); 128 + signal: the worker was told to stop, and the job should run again.
"""

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mcjax.sweeps import attempts, store

PUBLISHED = (0, 3)
POLL_SECONDS = 0.5
TERM_SECONDS = 10.0
TRAIN = (sys.executable, "-m", "mcjax.train")
HERE = Path(__file__).parent
TETHER, JOB_CONFIG = HERE / "tether.py", HERE / "job_config.py"


def run_attempt(job_dir: Path, *, parent: int | None = None, command: Sequence[str] = TRAIN) -> int:
    """Runs an attempt and publishes its result.

    Args:
        job_dir: The job's folder, with its job.json.
        parent: The process that started this one; the attempt stops when that process ends.
        command: The training command; gets --config and --workdir.

    Returns:
        The exit code.
    """
    job = attempts.read_json(job_dir / "job.json")
    if job is None or not isinstance(job.get("config_hash"), str):
        print(f"{job_dir} has no job.json; python -m launch.sweep writes it", file=sys.stderr)
        return 2
    # Another launcher's worker may be at this job: two would compute the same.
    while any(attempts.alive_here(folder) for folder in attempts.folders(job_dir)):
        if parent is not None and os.getppid() != parent:
            return 128 + signal.SIGTERM
        time.sleep(POLL_SECONDS)
    if store.has_result(job_dir, job["config_hash"]):
        return 0
    folder = attempts.begin(job_dir)
    with attempts.hold(folder) as heartbeat:
        resumed = attempts.take_over(folder, job["config_hash"])
        record: dict[str, Any] = {
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "resumed_from": resumed,
            "resumed": attempts.progress(folder),
        }
        attempts.write(folder, record)
        argv = [*command, f"--config={JOB_CONFIG}:{job_dir / 'job.json'}", f"--workdir={folder}"]
        began = time.monotonic()
        code = _run(argv, folder / "log.txt", heartbeat, parent)
        if code in PUBLISHED:
            code = _publish(job_dir, job["config_hash"], folder, code)
        record |= {"exit_code": code, "seconds": round(time.monotonic() - began, 3)}
        attempts.write(folder, record)
    return code


def _run(argv: Sequence[str], log: Path, heartbeat: Path, parent: int | None) -> int:
    """Runs a command to its end; stops it on SIGTERM, on SIGINT, or when the parent is gone."""
    asked: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _: asked.append(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        with log.open("ab") as file:
            child = subprocess.Popen(
                [sys.executable, str(TETHER), str(os.getpid()), *argv],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # this process passes Ctrl-C on
            )
        beat = time.monotonic()
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = child.wait(POLL_SECONDS)
                return 128 - code if code < 0 else code
            if parent is not None and os.getppid() != parent:
                asked.append(signal.SIGTERM)
            if asked:
                _end(child)
                return 128 + asked[0]
            if time.monotonic() - beat > attempts.HEARTBEAT_SECONDS:
                beat = time.monotonic()
                with contextlib.suppress(OSError):
                    os.utime(heartbeat)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _end(child: subprocess.Popen) -> None:
    child.terminate()
    try:
        child.wait(TERM_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _publish(job_dir: Path, config_hash: str, folder: Path, code: int) -> int:
    """Publishes an attempt's result, unless another attempt was faster; returns the exit code."""

    def log(message: str) -> None:
        with (folder / "log.txt").open("a") as file:
            file.write(f"mcjax.sweeps.worker: {message}\n")

    result = attempts.read_json(folder / "result.json")
    if result is None or result.get("config_hash") != config_hash:
        log("the run left no result.json of this job's config")
        return 1
    if not store.publish(job_dir, result, attempt=folder.name, exit_code=code):
        log("another attempt has published its result; this one is not used")
    return code


def main() -> None:
    """Reads the arguments and runs the attempt."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("job_dir", type=Path)
    parser.add_argument("--parent", type=int, help="stop when this process is no longer the parent")
    arguments = parser.parse_args()
    sys.exit(run_attempt(arguments.job_dir.absolute(), parent=arguments.parent))


if __name__ == "__main__":
    main()
