"""Where the jobs of a sweep stand, read from its directory and from nothing else."""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from launch import attempts
from launch.jobs import Job
from mcjax.errors import UserError

STATUSES = ("done", "running", "failed", "stopped", "missing")


@dataclasses.dataclass(frozen=True)
class State:
    """Where a job stands; a record.

    Args:
        status: "done": its result is published; "running": an attempt is at work; "failed": the
            newest attempt ended by itself without a result; "stopped": it was killed; "missing":
            there was none.
        num_attempts: Attempts begun.
        attempt: The published attempt's folder, or the newest one's; None where there is none.
        exit_code: That attempt's, None where it did not live to tell.
        line: The last line of its log.
        code: The version of mcjax that it ran with, {} where that is not known.
    """

    status: str
    num_attempts: int = 0
    attempt: Path | None = None
    exit_code: int | None = None
    line: str = ""
    code: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def scan(sweep_dir: Path, jobs: Iterable[Job]) -> dict[str, State]:
    """The states of jobs by their ids.

    Raises:
        UserError: A published result is of another config.
    """
    return {job.id: read(sweep_dir / "jobs" / job.id, job.config_hash) for job in jobs}


def read(job_dir: Path, config_hash: str) -> State:
    """Where one job stands.

    Raises:
        UserError: Its published result is of another config.
    """
    folders = attempts.folders(job_dir)
    result = attempts.read_json(job_dir / "result.json")
    if result is not None:
        if result.get("config_hash") != config_hash:
            raise UserError(
                f"{job_dir / 'result.json'} is of another config ({result.get('config_hash')}, "
                f"not {config_hash}); move {job_dir} away and run again"
            )
        folder = job_dir / "attempts" / str(result.get("attempt"))
        code = result.get("exit_code", 0)
        line = last_line(folder / "log.txt") if code else ""
        return State("done", len(folders), folder, code, line, result.get("code") or {})
    if not folders:
        return State("missing", line=last_line(job_dir / "worker.txt"))
    newest = folders[-1]
    code = attempts.read(newest).get("exit_code")
    line = last_line(newest / "log.txt") or last_line(job_dir / "worker.txt")
    if code is None and attempts.alive(newest):
        status = "running"
    elif code is None or code >= 128:
        status = "stopped"
    else:
        status = "failed"
    return State(status, len(folders), newest, code, line, _code(newest))


def _code(folder: Path) -> dict[str, Any]:
    run = attempts.read_json(folder / "config.json")
    if run is None:
        return {}
    return {
        "version": run.get("packages", {}).get("mcjax"),
        "git_revision": run.get("git_revision"),
    }


def last_line(path: Path) -> str:
    """The last line of a text file that is not empty; "" where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.path.getsize(path) - 4096))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
