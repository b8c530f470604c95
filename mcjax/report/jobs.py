"""The jobs of a sweep, and plain runs: what each was to be, how far it came, what it has left.

SWEEP_DIR/sweep.json                    every declared job
SWEEP_DIR/jobs/ID/attempts/0001/        an attempt: the working directory of a run
SWEEP_DIR/jobs/ID/result.json           the result, and which attempt it is of
"""

import dataclasses
import functools
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from mcjax.config import deciding
from mcjax.errors import UserError
from mcjax.report.means import Row

STATES = {
    "done": "has its result",
    "failed": "its last attempt ended by itself, without a result",
    "unfinished": "begun and without a result: it was stopped, or is running",
    "missing": "declared, and not begun",
    "damaged": "one of its files can't be read",
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
        result: result.json of a job that is done.
        rows: table.csv of a job that is done.
        where: What it ran on and with: "git_revision", "device_kind", "num_devices".
        note: Why it is not done: what is damaged, or the last line of its log.
    """

    id: str
    state: str
    folder: Path
    config: Mapping[str, Any]
    declared: tuple[str, ...] = ()
    result: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    rows: Sequence[Row] = ()
    where: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    note: str = ""

    @property
    def experiment(self) -> str:
        """What kind of run it is; "unknown" where its config can't be read."""
        return str(self.config.get("experiment", "unknown"))

    @functools.cached_property
    def deciding(self) -> dict[str, Any]:
        """The fields that decide its result."""
        return deciding(self.config)


class Damaged(Exception):
    """A file of a job that can't be read; the job is listed with this message."""


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
                notes.append(f"{place} was given twice; it counts once")
                continue
            seen.add(place.resolve())
            if (place / "sweep.json").exists():
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
    return any((folder / name).exists() for name in ("sweep.json", "config.json"))


def _sweep(folder: Path) -> tuple[list[Job], list[str]]:
    path = folder / "sweep.json"
    try:
        declared = [
            (str(job["id"]), dict(job["config"]), tuple(job["overrides"]), job["config_hash"])
            for job in _json(path)["jobs"]
        ]
    except (Damaged, KeyError, TypeError, ValueError) as error:
        what = error if isinstance(error, Damaged) else f"{path} is not a list of jobs ({error!r})"
        raise UserError(f"{what}; the same launch.sweep command writes it again") from None
    names = [name for name, *_ in declared]
    twice = [name for name, number in Counter(names).items() if number > 1]
    if twice:
        raise UserError(f"{path} declares {twice[0]} twice; give the jobs different overrides")
    jobs = [_declared_job(folder / "jobs" / name, *rest) for name, *rest in declared]
    here = folder / "jobs"
    others = (
        sorted({p.name for p in here.iterdir() if p.is_dir()} - set(names)) if here.exists() else []
    )
    if not others:
        return jobs, []
    some = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
    return jobs, [f"{len(others)} in {here} not declared by sweep.json, left out: {some}"]


def _declared_job(
    folder: Path, config: Mapping[str, Any], declared: tuple[str, ...], config_hash: str
) -> Job:
    attempts = sorted(p for p in (folder / "attempts").glob("*") if p.is_dir())
    last = attempts[-1] if attempts else folder
    job = Job(folder.name, "missing", last, config, declared)
    if not (folder / "result.json").exists():
        if not attempts:
            return job
        return dataclasses.replace(job, state=_unfinished(last), note=_last_line(last))
    try:
        result = _result(folder / "result.json")
        attempt = folder / "attempts" / str(result.get("attempt"))
        if not attempt.is_dir():
            raise Damaged(f"{folder / 'result.json'} names an attempt that is not there: {attempt}")
    except Damaged as error:
        return dataclasses.replace(job, state="damaged", note=str(error))
    if result["config_hash"] != config_hash:
        note = f"the result is of config {result['config_hash']}, declared is {config_hash}"
        return dataclasses.replace(job, state="other config", note=note)
    return _complete(dataclasses.replace(job, folder=attempt), result)


def _unfinished(attempt: Path) -> str:
    """Whether an attempt without a result failed by itself; 128 and more: a signal ended it."""
    try:
        code = json.loads((attempt / "attempt.json").read_text()).get("exit_code")
    except (OSError, ValueError, AttributeError):
        code = None
    return "failed" if isinstance(code, int) and code < 128 else "unfinished"


def _run(folder: Path) -> Job:
    """A plain run; config.json says what it was to be."""
    job = Job(folder.name, "damaged", folder, {})
    try:
        record = _json(folder / "config.json")
        if not isinstance(record.get("hashed"), dict):
            raise Damaged(f"{folder / 'config.json'} lacks the run's fields")
        job = dataclasses.replace(job, config=record["hashed"])
        if not (folder / "result.json").exists():
            return dataclasses.replace(job, state="unfinished", note=_last_line(folder))
        result = _result(folder / "result.json")
    except Damaged as error:
        return dataclasses.replace(job, note=str(error))
    if result["config_hash"] != record.get("hash"):
        note = (
            f"result.json is of config {result['config_hash']}, config.json of {record.get('hash')}"
        )
        return dataclasses.replace(job, state="other config", note=note)
    return _complete(job, result)


def _complete(job: Job, result: Mapping[str, Any]) -> Job:
    try:
        record = _json(job.folder / "config.json")
        where = {key: record.get(key) for key in ("git_revision", "device_kind", "num_devices")}
        rows = read_table(job.folder / "table.csv")
    except Damaged as error:
        return dataclasses.replace(job, state="damaged", note=str(error))
    return dataclasses.replace(job, state="done", result=result, rows=rows, where=where)


def _result(path: Path) -> dict[str, Any]:
    result = _json(path)
    good = isinstance(result.get("metrics"), dict) and "config_hash" in result
    if not good or not all(isinstance(v, int | float) for v in result["metrics"].values()):
        raise Damaged(f"{path} is no result: it lacks metrics or config_hash")
    return result


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Damaged(f"{path} can't be read ({error})") from None
    if not isinstance(content, dict):
        raise Damaged(f"{path} can't be read (it holds no object)")
    return content


def read_table(path: Path) -> list[Row]:
    """table.csv's rows; numbers as numbers, None where a cell is empty.

    Raises:
        Damaged: It isn't there, or has no rows, or a row of another length.
    """
    try:
        table = pyarrow.csv.read_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(use_threads=False),
            convert_options=pyarrow.csv.ConvertOptions(null_values=[""], strings_can_be_null=True),
        )
    except (OSError, pa.ArrowException) as error:
        raise Damaged(f"{path} can't be read ({' '.join(str(error).split())})") from None
    names = table.column_names
    if len(set(names)) < len(names) or not table.num_rows:
        raise Damaged(f"{path} can't be read (no rows, or two columns of one name)")
    return table.to_pylist()


def _last_line(folder: Path) -> str:
    """The last line of an attempt's log; of its metrics where there is none."""
    for name in ("log.txt", "metrics.jsonl"):
        try:
            with (folder / name).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
                lines = file.read().decode(errors="replace").split("\n")
        except OSError:
            continue
        lines = [line.strip() for line in "\n".join(lines).splitlines() if line.strip()]
        if lines:
            return lines[-1]
    return ""


def _with_own_ids(jobs: list[Job]) -> list[Job]:
    """Jobs of equal names are called by their folders."""
    number = Counter(job.id for job in jobs)
    return [
        dataclasses.replace(job, id=str(job.folder)) if number[job.id] > 1 else job for job in jobs
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
