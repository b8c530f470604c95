"""Where the jobs of a sweep stand, read from its directory and from nothing else."""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from launch import attempts
from launch.jobs import Job
from mcjax.report.records import Damaged, last_line, printable, read_result

STATUSES = ("done", "running", "failed", "stopped", "damaged", "missing")


@dataclasses.dataclass(frozen=True)
class State:
    """Where a job stands; a record.

    Args:
        status: "done": its result is published; "running": an attempt is at work; "failed": the
            newest attempt ended by itself without a result; "stopped": it was killed; "damaged":
            what is published is not its result; "missing": there was none.
        num_attempts: Attempts begun.
        attempt: The published attempt's folder, or the newest one's; None where there is none.
        exit_code: That attempt's, None where it did not live to tell.
        line: The last line of its log, or what is damaged.
        code: The version of mcjax that it ran with, {} where that is not known.
    """

    status: str
    num_attempts: int = 0
    attempt: Path | None = None
    exit_code: int | None = None
    line: str = ""
    code: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def scan(sweep_dir: Path, jobs: Iterable[Job]) -> dict[str, State]:
    """The states of jobs by their ids."""
    return {job.id: read(sweep_dir / "jobs" / job.id, job.config_hash) for job in jobs}


def read(job_dir: Path, config_hash: str) -> State:
    """Where one job stands."""
    folders = attempts.folders(job_dir)
    newest = folders[-1] if folders else None
    damage = ""
    if os.path.lexists(job_dir / "result.json"):
        try:
            return _done(job_dir, config_hash, len(folders))
        except Damaged as error:
            damage = printable(str(error))
    code, running = None, False
    if newest is not None:
        code = attempts.read(newest).get("exit_code")
        code = code if isinstance(code, int) else None
        running = code is None and attempts.alive(newest)
    if damage and not running:
        return State("damaged", len(folders), newest, code, damage)
    if newest is None:
        return State("missing", line=last_line(job_dir / "worker.txt"))
    if running:
        status = "running"
    elif code is None or code >= 128:
        status = "stopped"
    else:
        status = "failed"
    line = last_line(newest / "log.txt") or last_line(job_dir / "worker.txt")
    return State(status, len(folders), newest, code, line, attempts.code_of(newest))


def _done(job_dir: Path, config_hash: str, num_attempts: int) -> State:
    """The state of a job whose result is published.

    Raises:
        Damaged: It is no result, or one of another config.
    """
    result = read_result(job_dir / "result.json")
    if result.config_hash != config_hash:
        raise Damaged(
            f"{job_dir / 'result.json'} is of another config ({result.config_hash}, "
            f"not {config_hash})"
        )
    folder = job_dir / "attempts" / str(result.attempt)
    line = last_line(folder / "log.txt") if result.exit_code else ""
    return State("done", num_attempts, folder, result.exit_code, line, result.code)
