"""The jobs of a sweep, and plain runs: what each was to be, how far it came, what it has left.

SWEEP_DIR/sweep.json                    every declared job
SWEEP_DIR/jobs/ID/attempts/0001/        an attempt: the working directory of a run
SWEEP_DIR/jobs/ID/result.json           the result, and which attempt it is of
"""

import dataclasses
import functools
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mcjax.core.errors import UserError
from mcjax.report import records
from mcjax.report.records import Damaged, Result, Row
from mcjax.runs.config import deciding

STATES = {
    "done": "has its result",
    "failed": "its last attempt ended by itself, without a result",
    "unfinished": "begun and without a result: it was stopped, or is running",
    "missing": "declared, and not begun",
    "damaged": "one of its files can't be read, or has values that no run leaves",
    "other config": "its result is of another config than the declared one",
}


@dataclasses.dataclass(frozen=True)
class Job:
    """A declared job, or a plain run; a record.

    Args:
        id: Its name, no other job's.
        state: One of STATES.
        folder: Where its report.html is, if it came so far: a run's working directory.
        config: Its fields, by dotted name.
        declared: Names of the fields that the sweep sets; none of a plain run.
        result: Of a job that is done.
        rows: table.csv of a job that is done; [] otherwise.
        where: What it ran on and with: "git_revision", "device_kind", "num_devices".
        note: Why it is not done: what is damaged, or the last line of its log.
    """

    id: str
    state: str
    folder: Path
    config: Mapping[str, Any]
    declared: tuple[str, ...] = ()
    result: Result | None = None
    rows: Sequence[Row] = ()
    where: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    note: str = ""

    @property
    def experiment(self) -> str:
        """What kind of run it is; "unknown" where its config can't be read."""
        return self.config.get("experiment", "unknown")

    @property
    def seconds(self) -> float | None:
        """How long it took, if it is done and says so."""
        return self.result.seconds if self.result else None

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The numbers of a job that is done."""
        return (self.result.metrics if self.result else None) or {}

    @functools.cached_property
    def deciding(self) -> dict[str, Any]:
        """The fields that decide its result."""
        return deciding(self.config)


def find(folders: Sequence[Path]) -> tuple[list[Job], list[str]]:
    """Every job of sweeps, runs, and folders of them.

    Args:
        folders: Sweep directories, working directories of runs, or folders that hold such.

    Returns:
        The jobs, in the order in which they were declared or, in a folder, of their names; and
        what a reader should know about what was left out.

    Raises:
        UserError: A folder isn't there or holds no run, or a sweep.json can't be read.
    """
    jobs, notes, seen = [], [], set()
    for folder in folders:
        for place in _places(folder):
            if place.resolve() in seen:
                notes.append(records.printable(f"{place} was given twice; it counts once"))
                continue
            seen.add(place.resolve())
            if os.path.exists(place / "sweep.json"):
                declared, undeclared = _sweep(place)
                jobs += declared
                notes += undeclared
            else:
                jobs.append(_run(place))
    return _with_own_ids(jobs), notes


def _places(folder: Path) -> list[Path]:
    """The sweeps and runs of a folder that is one, or holds them."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; give a sweep's directory, or runs")
    if _is_place(folder):
        return [folder]
    try:
        places = [child for child in sorted(folder.iterdir()) if _is_place(child)]
    except OSError as error:
        raise UserError(f"{folder} can't be looked into: {error.strerror}") from None
    if not places:
        raise UserError(
            f"{folder} holds no run and no sweep (no config.json or sweep.json in it, nor one "
            "folder below); give a directory that mcjax.train or launch.sweep has written"
        )
    return places


def _is_place(folder: Path) -> bool:
    return any(os.path.exists(folder / name) for name in ("sweep.json", "config.json"))


def _sweep(folder: Path) -> tuple[list[Job], list[str]]:
    path = folder / "sweep.json"
    try:
        declared = [_declaration(job) for job in _listed(path)]
    except ValueError as error:
        what = error if isinstance(error, Damaged) else f"{path} is not a list of jobs ({error})"
        raise UserError(f"{what}; the same launch.sweep command writes it again") from None
    names = [name for name, _ in declared]
    twice = [name for name, number in Counter(names).items() if number > 1]
    if twice:
        raise UserError(f"{path} declares {twice[0]} twice; give the jobs different overrides")
    jobs = [_declared_job(folder / "jobs" / name, *rest) for name, rest in declared]
    try:
        others = sorted({p.name for p in (folder / "jobs").iterdir() if p.is_dir()} - set(names))
    except OSError:
        others = []
    if not others:
        return jobs, []
    some = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
    note = f"{len(others)} in {folder / 'jobs'} not declared by sweep.json, left out: {some}"
    return jobs, [records.printable(note)]


def _listed(path: Path) -> list[Any]:
    jobs = records.read_object(path, records.LARGEST_SWEEP).get("jobs")
    if not isinstance(jobs, list):
        raise ValueError('it has no list "jobs"')
    return jobs


def _declaration(job: Any) -> tuple[str, tuple[dict[str, Any], tuple[str, ...], str]]:
    """A row of sweep.json: the job's id; its config, names of overrides, hash.

    Raises:
        ValueError: It is none.
    """
    job = job if isinstance(job, dict) else {}
    name, config, overrides, config_hash = (
        job.get(key) for key in ("id", "config", "overrides", "config_hash")
    )
    if not records.is_folder_name(name):
        raise ValueError("a job's id is not the name of a folder")
    if not (isinstance(config, dict) and isinstance(overrides, dict)):
        raise ValueError(f"{name} lacks its config or overrides")
    if not isinstance(config_hash, str):
        raise ValueError(f"{name} lacks its config_hash")
    return name, (config, tuple(overrides), config_hash)


def _declared_job(
    folder: Path, config: Mapping[str, Any], declared: tuple[str, ...], config_hash: str
) -> Job:
    begun = _attempts(folder)
    job = Job(folder.name, "missing", begun[-1] if begun else folder, {}, declared)
    try:
        job = dataclasses.replace(job, config=records.checked_fields(config, "sweep.json"))
        if not os.path.lexists(folder / "result.json"):
            if not begun:
                return job
            state, note = _unfinished(job.folder), _last_line(job.folder)
            return dataclasses.replace(job, state=state, note=note)
        result = records.read_result(folder / "result.json")
        attempt = folder / "attempts" / str(result.attempt)
        if not attempt.is_dir():
            raise Damaged(f"{folder / 'result.json'} names an attempt that is not there: {attempt}")
        return _complete(dataclasses.replace(job, folder=attempt), result, config_hash)
    except Damaged as error:
        return dataclasses.replace(job, state="damaged", note=str(error))


def _attempts(job_dir: Path) -> list[Path]:
    """The folders of a job's attempts, oldest first."""
    try:
        names = [name for name in os.listdir(job_dir / "attempts") if records.is_attempt(name)]
    except OSError:
        return []
    folders = [job_dir / "attempts" / name for name in sorted(names, key=int)]
    return [folder for folder in folders if folder.is_dir()]


def _unfinished(attempt: Path) -> str:
    """Whether an attempt without a result failed by itself; 128 and more: a signal ended it."""
    try:
        code = records.read_object(attempt / "attempt.json").get("exit_code")
    except Damaged:
        code = None
    return "failed" if isinstance(code, int) and code < 128 else "unfinished"


def _run(folder: Path) -> Job:
    """A plain run; config.json says what it was to be."""
    job = Job(folder.name, "damaged", folder, {})
    try:
        config = records.read_config(folder / "config.json")
        job = dataclasses.replace(job, config=config.fields)
        if not os.path.lexists(folder / "result.json"):
            return dataclasses.replace(job, state="unfinished", note=_last_line(folder))
        return _complete(job, records.read_result(folder / "result.json"), config.config_hash)
    except Damaged as error:
        return dataclasses.replace(job, note=str(error))


def _complete(job: Job, result: Result, config_hash: str) -> Job:
    """A job with its result and the table that belongs to it, if both are of its own config.

    Raises:
        Damaged: They are not what a run leaves.
    """
    config = records.read_config(job.folder / "config.json")
    for file, found in (("result", result.config_hash), ("folder", config.config_hash)):
        if found != config_hash:
            note = f"the {file} is of config {found}, the job of {config_hash}"
            return dataclasses.replace(job, state="other config", note=note)
    if result.metrics is None:
        raise Damaged(f"{job.folder}: its result.json has no metrics")
    if result.experiment not in (None, job.experiment):
        raise Damaged(
            f"{job.folder}: its result.json is of experiment {result.experiment}, "
            f"its config.json of {job.experiment}"
        )
    rows = records.read_table(job.folder / "table.csv", job.experiment)
    return dataclasses.replace(job, state="done", result=result, rows=rows, where=config.where)


def _last_line(folder: Path) -> str:
    """The last line of an attempt's log; of its metrics where there is none."""
    return records.last_line(folder / "log.txt") or records.last_line(folder / "metrics.jsonl")


def _with_own_ids(jobs: list[Job]) -> list[Job]:
    """Jobs of equal names are called by their folders; all names and notes are one line of text."""
    number = Counter(job.id for job in jobs)
    return [
        dataclasses.replace(
            job,
            id=records.printable(str(job.folder) if number[job.id] > 1 else job.id),
            note=records.printable(job.note),
        )
        for job in jobs
    ]


def differing(jobs: Sequence[Job]) -> list[str]:
    """Names of the fields in which jobs of one experiment differ, or that a sweep sets.

    Args:
        jobs: Any jobs.

    Returns:
        The names, in the order of the configs.
    """
    names: dict[str, None] = {}
    for experiment in dict.fromkeys(job.experiment for job in jobs):
        same = [job for job in jobs if job.experiment == experiment and job.config]
        declared = {name for job in same for name in job.declared}
        configs = [job.deciding for job in same]
        for name in dict.fromkeys(n for config in configs for n in config):
            first = configs[0].get(name)
            if any(config.get(name) != first for config in configs):
                declared.add(name)
        names |= dict.fromkeys(n for job in same for n in job.config if n in declared)
    return list(names)
