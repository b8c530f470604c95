"""The jobs of sweeps, and plain runs: what each was to compute, its status, and its results."""

import dataclasses
import functools
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mcjax.config import deciding
from mcjax.errors import UserError
from mcjax.runs import records
from mcjax.runs.records import Damaged, Result, Row
from mcjax.sweeps import store
from mcjax.sweeps.store import Status


@dataclasses.dataclass(frozen=True)
class GatheredJob:
    """A declared job of a sweep, or a plain run, with its results.

    Args:
        id: Its name; unique among the gathered jobs.
        status: One of `store.STATUSES`.
        folder: The working directory of the run; has report.html if the run finished.
        config: Its fields, by dotted name.
        declared: Names of the fields that the sweep sets; empty for a plain run.
        result: The result of a job that is done.
        rows: The rows of table.csv of a job that is done.
        where: "git_revision", "device_kind" and "num_devices" of the run.
        note: Why the job is not done: what is damaged, or the last line of its log.
    """

    id: str
    status: Status
    folder: Path
    config: Mapping[str, Any]
    declared: tuple[str, ...] = ()
    result: Result | None = None
    rows: Sequence[Row] = ()
    where: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    note: str = ""

    @property
    def experiment(self) -> str:
        """The kind of run; "unknown" if its config cannot be read."""
        return self.config.get("experiment", "unknown")

    @property
    def seconds(self) -> float | None:
        """How long it took, if it is done and its result says so."""
        return self.result.seconds if self.result else None

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The metrics of a job that is done."""
        return (self.result.metrics if self.result else None) or {}

    @functools.cached_property
    def deciding(self) -> dict[str, Any]:
        """The fields that decide its result."""
        return deciding(self.config)


def find(folders: Sequence[Path]) -> tuple[list[GatheredJob], list[str]]:
    """Finds every job in sweeps, runs, and folders of them.

    Args:
        folders: Sweep folders, working directories of runs, or folders that contain some.

    Returns:
        The jobs, in the order of their declaration, or of their names in a folder of runs; and notes
        about what was left out.

    Raises:
        UserError: A folder does not exist or contains no run, or a sweep.json cannot be read.
    """
    jobs, notes, seen = [], [], set()
    for folder in folders:
        for place in _places(folder):
            if place.resolve() in seen:
                notes.append(records.printable(f"{place} was given twice; it counts once"))
                continue
            seen.add(place.resolve())
            if store.is_sweep(place):
                declared, undeclared = _sweep(place)
                jobs += declared
                notes += undeclared
            else:
                jobs.append(_run(place))
    return _with_own_ids(jobs), notes


def _places(folder: Path) -> list[Path]:
    """The folder itself if it is a sweep or a run, else those directly in it."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; give the folder of a sweep, or runs")
    if _is_place(folder):
        return [folder]
    try:
        places = [child for child in sorted(folder.iterdir()) if _is_place(child)]
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}") from None
    if not places:
        raise UserError(
            f"{folder} contains no run and no sweep (no config.json or sweep.json in it or in its "
            "folders); give a folder that mcjax.train or launch.sweep has written"
        )
    return places


def _is_place(folder: Path) -> bool:
    return store.is_sweep(folder) or os.path.exists(folder / "config.json")


def _sweep(folder: Path) -> tuple[list[GatheredJob], list[str]]:
    """The jobs of a sweep, and a note about folders that it does not declare."""
    try:
        declared = store.read_jobs(folder)
    except Damaged as error:
        raise UserError(f"{error}; the same launch.sweep command writes it again") from None
    jobs = [_declared_job(folder, job) for job in declared]
    others = store.undeclared(folder, declared)
    if not others:
        return jobs, []
    some = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
    note = f"{len(others)} in {folder / 'jobs'} not declared by sweep.json, left out: {some}"
    return jobs, [records.printable(note)]


def _declared_job(sweep_dir: Path, declared: store.Job) -> GatheredJob:
    folder = store.job_dir(sweep_dir, declared.id)
    state = store.job_state(folder, declared.config_hash)
    job = GatheredJob(
        declared.id,
        state.status,
        state.attempt or folder,
        {},
        tuple(declared.overrides),
        note=state.line,
    )
    try:
        config = records.checked_fields(declared.config, "sweep.json")
        job = dataclasses.replace(job, config=config)
        if state.result is None:
            return job
        if not job.folder.is_dir():
            raise Damaged(
                f"{folder / 'result.json'} names an attempt that does not exist: {job.folder}"
            )
        return _complete(job, state.result, declared.config_hash)
    except Damaged as error:
        return dataclasses.replace(job, status="damaged", note=str(error))


def _run(folder: Path) -> GatheredJob:
    """A plain run; its config.json says what it was to compute."""
    job = GatheredJob(folder.name, "damaged", folder, {})
    try:
        config = records.read_config(folder / "config.json")
        job = dataclasses.replace(job, config=config.fields)
        if not os.path.lexists(folder / "result.json"):
            line = records.last_line(folder / "log.txt", folder / "metrics.jsonl")
            return dataclasses.replace(job, status="unfinished", note=line)
        return _complete(job, records.read_result(folder / "result.json"), config.config_hash)
    except Damaged as error:
        return dataclasses.replace(job, note=str(error))


def _complete(job: GatheredJob, result: Result, config_hash: str) -> GatheredJob:
    """Adds the result and the table to a job, if both belong to its config.

    Raises:
        Damaged: They are not what a run writes.
    """
    config = records.read_config(job.folder / "config.json")
    for file, found in (("result", result.config_hash), ("folder", config.config_hash)):
        if found != config_hash:
            note = f"the {file} is of config {found}, the job of {config_hash}"
            return dataclasses.replace(job, status="other config", note=note)
    if result.metrics is None:
        raise Damaged(f"{job.folder}: its result.json has no metrics")
    if result.experiment not in (None, job.experiment):
        raise Damaged(
            f"{job.folder}: its result.json is of experiment {result.experiment}, "
            f"its config.json of {job.experiment}"
        )
    rows = records.read_table(job.folder / "table.csv", job.experiment)
    return dataclasses.replace(
        job, status="done", note="", result=result, rows=rows, where=config.where
    )


def _with_own_ids(jobs: list[GatheredJob]) -> list[GatheredJob]:
    """Uses the folder as the id of jobs with equal names; makes ids and notes single lines of text."""
    number = Counter(job.id for job in jobs)
    return [
        dataclasses.replace(
            job,
            id=records.printable(str(job.folder) if number[job.id] > 1 else job.id),
            note=records.printable(job.note),
        )
        for job in jobs
    ]


def differing(jobs: Sequence[GatheredJob]) -> list[str]:
    """The names of fields that a sweep sets, or in which jobs of one experiment differ.

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
