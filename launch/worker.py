"""One attempt of one job, on any machine that sees the sweep's directory.

    python -m launch.worker SWEEP_DIR/jobs/JOB_ID

Takes a folder of its own, begins with what the newest earlier attempt left there, runs
`python -m mcjax.train` in it, and publishes the result once, however many attempts get so far.

Exit codes: 0 the result is published; 3 it is, but the run has no acceptable answer; 1 or 2 the run
failed (log.txt says why); 128 + signal where it was ended from outside, and should begin again.
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

from launch import attempts

PUBLISHED = (0, 3)
POLL_SECONDS = 0.5
TERM_SECONDS = 10.0
TRAIN = (sys.executable, "-m", "mcjax.train")
TETHER = Path(__file__).with_name("tether.py")


def run_attempt(job_dir: Path, *, parent: int | None = None, command: Sequence[str] = TRAIN) -> int:
    """Runs an attempt and publishes its result.

    Args:
        job_dir: The job's directory, with its job.json.
        parent: The process that started this one: when it is gone, so is the attempt.
        command: What trains; gets --config and --workdir.

    Returns:
        The exit code.
    """
    job = attempts.read_json(job_dir / "job.json")
    if job is None or not isinstance(job.get("config_hash"), str):
        print(f"{job_dir} has no job.json; python -m launch.sweep writes it", file=sys.stderr)
        return 2
    if os.path.lexists(job_dir / "result.json"):
        published = attempts.read_json(job_dir / "result.json") or {}
        if published.get("config_hash") == job["config_hash"]:
            return 0
        with contextlib.suppress(FileNotFoundError):  # another worker was faster
            attempts.set_aside(job_dir / "result.json")  # half of one, or another job's
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
        attempts.write_json(folder / "attempt.json", record)
        config_file = Path(__file__).with_name("job_config.py")
        argv = [*command, f"--config={config_file}:{job_dir / 'job.json'}", f"--workdir={folder}"]
        began = time.monotonic()
        code = _run(argv, folder / "log.txt", heartbeat, parent)
        if code in PUBLISHED:
            code = _publish(job_dir, job, folder, code)
        record |= {"exit_code": code, "seconds": round(time.monotonic() - began, 3)}
        attempts.write_json(folder / "attempt.json", record)
    return code


def _run(argv: Sequence[str], log: Path, heartbeat: Path, parent: int | None) -> int:
    """Runs a command to its end, or ends it when this process is asked to end or left alone."""
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
                start_new_session=True,  # Ctrl-C is this process's to pass on
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


def _publish(job_dir: Path, job: dict[str, Any], folder: Path, code: int) -> int:
    """Puts an attempt's result where everybody looks for it, unless another one is there."""
    result = attempts.read_json(folder / "result.json")
    if result is None or result.get("config_hash") != job["config_hash"]:
        with (folder / "log.txt").open("a") as file:
            file.write("launch.worker: the run left no result.json of this job's config\n")
        return 1
    code_version = attempts.code_of(folder)
    result |= {"attempt": folder.name, "exit_code": code, "code": code_version}
    complete = job_dir / f".result.{folder.name}.json"
    attempts.write_json(complete, result)
    try:
        exclusive_link(complete, job_dir / "result.json")
    except FileExistsError:
        with (folder / "log.txt").open("a") as file:
            file.write("launch.worker: another attempt had published before; nothing changed\n")
    finally:
        complete.unlink(missing_ok=True)
    return code


def exclusive_link(complete: Path, target: Path) -> None:
    """Gives a complete file a second name, if nobody has it.

    Raises:
        FileExistsError: Somebody has.
    """
    try:
        os.link(complete, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        with target.open("x") as file:
            try:
                file.write(complete.read_text())
                file.flush()
            except OSError:
                target.unlink(missing_ok=True)
                raise


def main() -> None:
    """Reads the arguments and runs the attempt."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("job_dir", type=Path)
    parser.add_argument("--parent", type=int, help="end when this process is no longer the parent")
    arguments = parser.parse_args()
    sys.exit(run_attempt(arguments.job_dir.absolute(), parent=arguments.parent))


if __name__ == "__main__":
    main()
