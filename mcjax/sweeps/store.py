"""The folder of a sweep: which files it has, and the status of every job.

    SWEEP_DIR/sweep.json               the sweep's name, the code's version, every declared job
    SWEEP_DIR/jobs/ID/job.json         one declared job
    SWEEP_DIR/jobs/ID/worker.txt       what its workers print
    SWEEP_DIR/jobs/ID/attempts/0001/   one attempt, a run's working directory (`mcjax.sweeps.attempts`)
    SWEEP_DIR/jobs/ID/result.json      the result of the first attempt that finished, and its number
    SWEEP_DIR/replaced/ID.1/           a job's folder that `--rerun` replaced

The launcher, the workers and the reports read and write a sweep here and in `attempts`. Neither
imports JAX, so that a worker starts fast and stays small.
"""

import contextlib
import dataclasses
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mcjax.atomic import put_json
from mcjax.runs.records import (
    LARGEST_SWEEP,
    Damaged,
    Result,
    is_folder_name,
    last_line,
    printable,
    read_object,
    read_result,
)
from mcjax.sweeps import attempts

Status = Literal[
    "done", "running", "failed", "stopped", "unfinished", "damaged", "other config", "missing"
]

# What each status means, in the order of lists.
STATUSES: dict[Status, str] = {
    "done": "its result is published",
    "running": "an attempt is running",
    "failed": "its newest attempt ended by itself, without a result",
    "stopped": "its newest attempt was killed before it had a result",
    "unfinished": "a plain run without a result; it may be running",
    "damaged": "a file cannot be read, or has values that no run writes",
    "other config": "its result belongs to another config",
    "missing": "declared, but not started",
}


@dataclasses.dataclass(frozen=True)
class Job:
    """A declared job: one run of `mcjax.train`.

    Args:
        id: A readable slug of the overrides, and the config's hash; names the job's folder.
        overrides: The fields that differ from the base config.
        config_hash: Equal for configs that give equal results.
        config: Every field by its dotted name.
    """

    id: str
    overrides: Mapping[str, Any]
    config_hash: str
    config: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class JobState:
    """The status of a job, and what it is based on.

    Args:
        status: One of `STATUSES`.
        num_attempts: How many attempts were started.
        attempt: The folder of the published attempt, else of the newest one; None without attempts.
        exit_code: That attempt's exit code; None while it runs, or if it was killed.
        line: The last line of its log, or what is damaged.
        code: The version of mcjax that it ran with; {} if unknown.
        result: The published result of a job that is done.
    """

    status: Status
    num_attempts: int = 0
    attempt: Path | None = None
    exit_code: int | None = None
    line: str = ""
    code: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    result: Result | None = None


def count_statuses(statuses: Iterable[Status]) -> str:
    """The number of jobs with each status.

    Example:
        >>> count_statuses(["missing", "done", "done"])
        '2 done, 1 missing'
    """
    number = Counter(statuses)
    return ", ".join(f"{number[status]} {status}" for status in STATUSES if number[status])


def job_dir(sweep_dir: Path, job_id: str) -> Path:
    """The folder of a job."""
    return sweep_dir / "jobs" / job_id


def is_sweep(folder: Path) -> bool:
    """Whether a folder is a sweep's."""
    return os.path.exists(folder / "sweep.json")


def write_sweep(sweep_dir: Path, name: str, code: Mapping[str, Any], jobs: Sequence[Job]) -> None:
    """Writes sweep.json and every job.json; a job.json that is right already is left alone.

    Raises:
        OSError: They cannot be written.
    """
    rows: list[dict[str, Any]] = [
        {
            "id": job.id,
            "overrides": dict(job.overrides),
            "config_hash": job.config_hash,
            "config": dict(job.config),
        }
        for job in jobs
    ]
    for row in rows:
        file = job_dir(sweep_dir, row["id"]) / "job.json"
        if attempts.read_json(file) != json.loads(json.dumps(row)):
            put_json(file, row)
    put_json(sweep_dir / "sweep.json", {"name": name, "code": code, "jobs": rows})


def name_of(sweep_dir: Path) -> str | None:
    """The sweep's name; None for a folder without a readable sweep.json."""
    with contextlib.suppress(Damaged):
        return read_object(sweep_dir / "sweep.json", LARGEST_SWEEP).get("name")
    return None


def read_jobs(sweep_dir: Path) -> list[Job]:
    """The declared jobs of sweep.json.

    Raises:
        Damaged: It is not a list of jobs, or declares two jobs of the same id.
    """
    path = sweep_dir / "sweep.json"
    rows = read_object(path, LARGEST_SWEEP).get("jobs")
    try:
        if not isinstance(rows, list):
            raise ValueError('it has no list "jobs"')
        jobs = [_job(row) for row in rows]
    except ValueError as error:
        raise Damaged(f"{path} is not a list of jobs ({error})") from None
    twice = [name for name, number in Counter(job.id for job in jobs).items() if number > 1]
    if twice:
        raise Damaged(f"{path} declares {twice[0]} twice")
    return jobs


def _job(row: Any) -> Job:
    row = row if isinstance(row, dict) else {}
    name, overrides, config_hash, config = (
        row.get(key) for key in ("id", "overrides", "config_hash", "config")
    )
    if not isinstance(name, str) or not is_folder_name(name):
        raise ValueError("a job's id is not the name of a folder")
    if not (isinstance(config, dict) and isinstance(overrides, dict)):
        raise ValueError(f"{name} lacks its config or overrides")
    if not isinstance(config_hash, str):
        raise ValueError(f"{name} lacks its config_hash")
    return Job(name, overrides, config_hash, config)


def undeclared(sweep_dir: Path, jobs: Iterable[Job]) -> list[str]:
    """Names of folders in SWEEP_DIR/jobs that belong to no declared job."""
    declared = {job.id for job in jobs}
    try:
        folders = {path.name for path in (sweep_dir / "jobs").iterdir() if path.is_dir()}
    except OSError:
        return []
    return sorted(folders - declared)


def scan(sweep_dir: Path, jobs: Iterable[Job]) -> dict[str, JobState]:
    """The states of jobs, by job id."""
    return {job.id: job_state(job_dir(sweep_dir, job.id), job.config_hash) for job in jobs}


def job_state(folder: Path, config_hash: str) -> JobState:
    """The state of one job.

    Args:
        folder: The job's folder.
        config_hash: The hash of its declared config.
    """
    folders = attempts.folders(folder)
    newest = folders[-1] if folders else None
    broken: tuple[Status, str] | None = None
    if os.path.lexists(folder / "result.json"):
        try:
            result = read_result(folder / "result.json")
        except Damaged as error:
            broken = ("damaged", printable(str(error)))
        else:
            if result.config_hash == config_hash:
                return _done(folder, result, len(folders))
            broken = ("other config", _of_other_config(folder / "result.json", result, config_hash))
    code = None if newest is None else attempts.exit_code(newest)
    running = newest is not None and code is None and attempts.alive(newest)
    if broken is not None and not running:
        status, line = broken
        return JobState(status, len(folders), newest, code, line)
    if newest is None:
        return JobState("missing", line=last_line(folder / "worker.txt"))
    if running:
        status = "running"
    elif code is None or code >= 128:  # 128 + the number of the signal that killed it
        status = "stopped"
    else:
        status = "failed"
    line = last_line(newest / "log.txt", folder / "worker.txt", newest / "metrics.jsonl")
    return JobState(status, len(folders), newest, code, line, attempts.code_of(newest))


def _done(folder: Path, result: Result, num_attempts: int) -> JobState:
    attempt = folder / "attempts" / str(result.attempt)
    line = last_line(attempt / "log.txt") if result.exit_code else ""
    return JobState("done", num_attempts, attempt, result.exit_code, line, result.code, result)


def _of_other_config(path: Path, result: Result, config_hash: str) -> str:
    return printable(f"{path} is of another config ({result.config_hash}, not {config_hash})")


def publish(folder: Path, result: Mapping[str, Any], *, attempt: str, exit_code: int) -> bool:
    """Publishes an attempt's result, unless another attempt was faster.

    Args:
        folder: The job's folder.
        result: The run's result.json.
        attempt: The attempt's name.
        exit_code: The run's exit code.

    Returns:
        Whether this result was published.
    """
    code = attempts.code_of(folder / "attempts" / attempt)
    published = {**result, "attempt": attempt, "exit_code": exit_code, "code": code}
    return put_json(folder / "result.json", published, replace=False)


def has_result(folder: Path, config_hash: str) -> bool:
    """Whether a job's result is published; a result.json of another config is set aside."""
    if not os.path.lexists(folder / "result.json"):
        return False
    result = attempts.read_json(folder / "result.json") or {}
    if result.get("config_hash") == config_hash:
        return True
    set_result_aside(folder)
    return False


def set_result_aside(folder: Path) -> Path:
    """Renames a result.json that is not the job's result to result.damaged-1.json.

    Returns:
        The new path.
    """
    target = _free(folder / f"result.damaged-{number}.json" for number in itertools.count(1))
    with contextlib.suppress(FileNotFoundError):  # another worker was faster
        (folder / "result.json").rename(target)
    return target


def set_job_aside(sweep_dir: Path, job_id: str) -> None:
    """Moves a job's folder to SWEEP_DIR/replaced, so that the job starts again."""
    replaced = sweep_dir / "replaced"
    replaced.mkdir(exist_ok=True)
    job_dir(sweep_dir, job_id).rename(
        _free(replaced / f"{job_id}.{number}" for number in itertools.count(1))
    )


def _free(paths: Iterable[Path]) -> Path:
    return next(path for path in paths if not os.path.lexists(path))
