"""Runs the jobs of a sweep that have no result yet, on an engine.

    python -m launch.sweep --sweep configs/sweeps/backdoor_digits.py --parallel 2
    python -m launch.sweep --sweep configs/sweeps/backdoor_digits.py --dry_run
    python -m launch.sweep --sweep FILE --engine ray --address HOST:6379 --gpus 1
    python -m launch.sweep --sweep FILE --engine slurm --gpus 1 --sbatch=--time=8:00:00

A job is a run of mcjax.train. WORKDIR/jobs/JOB_ID has one folder per attempt, and result.json once
an attempt has finished. Run the same command again to run what is missing or failed, each job from its
last checkpoint. `python -m mcjax.report WORKDIR` gathers the results.

Exit codes: 0 every job has its result (slurm: is submitted); 1 some jobs have none, and are listed; 2 a
mistake; 3 every job has a result, but some found no acceptable answer; 130 interrupted.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from mcjax.bucket import local
from mcjax.errors import UserError
from mcjax.logs import say
from mcjax.sweeps import declare, engines, store
from mcjax.sweeps.engines import Engine, Options
from mcjax.sweeps.progress_board import board, count, failures
from mcjax.sweeps.store import Job, JobState
from mcjax.workdir import cannot_write, git_revision, version

POLL_SECONDS = 1.0


def define_flags() -> None:
    """Defines the command's flags; not at import, so that the module can be imported freely."""
    flags.DEFINE_string("sweep", None, "The sweep: a file, or a name in configs/sweeps/.")
    flags.DEFINE_string("engine", "local", f"What runs the jobs: {', '.join(engines.ENGINES)}.")
    flags.DEFINE_string("workdir", None, "The sweep's folder; runs/sweeps/NAME unless given.")
    flags.DEFINE_boolean("dry_run", False, "Print the jobs and their states; start nothing.")
    flags.DEFINE_boolean("keep", False, "Count results of another version of the code as done.")
    flags.DEFINE_boolean("rerun", False, "Compute those again; they are moved to WORKDIR/replaced.")
    flags.DEFINE_integer("parallel", 0, "Jobs at a time; local: 1 unless given. Not for ray.")
    flags.DEFINE_integer("retries", 2, "How often to restart a job whose worker was killed.")
    flags.DEFINE_integer("cpus", 1, "CPU cores per job (ray, slurm).")
    flags.DEFINE_integer("gpus", 0, "GPUs per job (ray, slurm).")
    flags.DEFINE_integer("tpus", 0, "TPU chips per job (ray).")
    flags.DEFINE_string(
        "address", "", "The Ray cluster, HOST:PORT; RAY_ADDRESS or a new local one unless given."
    )
    flags.DEFINE_multi_string("sbatch", [], "One more option of sbatch; can be repeated.")


def main() -> None:
    """Reads the flags and runs the sweep."""
    f = flags.FLAGS
    if not f.sweep:
        raise UserError("no sweep was given; add --sweep configs/sweeps/NAME.py")
    if f.keep and f.rerun:
        raise UserError("--keep and --rerun exclude each other; give one")
    for name in ("parallel", "retries", "cpus", "gpus", "tpus"):
        if (value := getattr(f, name)) < 0:
            raise UserError(f"--{name} is {value}; it must be at least 0")
    options = Options(
        parallel=f.parallel,
        retries=f.retries,
        cpus=f.cpus,
        gpus=f.gpus,
        tpus=f.tpus,
        address=f.address,
        sbatch=tuple(f.sbatch),
    )
    name = Path(f.sweep).stem
    if f.workdir and "://" in f.workdir:
        raise UserError(
            f"--workdir {f.workdir} is in a bucket; a sweep's folder must be on a file system that "
            "all workers share: give a folder, and copy it to the bucket afterwards"
        )
    sweep_dir = local(f.workdir or Path("runs") / "sweeps" / name).absolute()
    engine = engines.get(f.engine, options)
    declared = declare.load(f.sweep)
    states = look(sweep_dir, name, declared, keep=f.keep or f.dry_run, rerun=f.rerun)
    todo = missing(states, engine.queued(sweep_dir))
    if f.dry_run:
        print(plan(declared, states))
        print(f"{len(declared)} jobs: {count(states)}; {len(todo)} to run")
        if others := of_other_code(states):
            print(f"{len(others)} jobs ran with another version of mcjax; add --keep or --rerun")
        print(engine.dry_run(sweep_dir, todo) if todo else "nothing to run")
        return
    if f.rerun:
        states = set_aside(sweep_dir, declared, states)
        todo = missing(states, engine.queued(sweep_dir))
    write_sweep(sweep_dir, name, declared)
    say(f"{sweep_dir}: {len(declared)} jobs, {count(states)}; {len(todo)} to run")
    states = run(engine, sweep_dir, declared, states, todo)
    conclude(f.engine, states)


def look(
    sweep_dir: Path, name: str, declared: Sequence[Job], *, keep: bool, rerun: bool
) -> dict[str, JobState]:
    """The states of the jobs, if the folder belongs to this sweep and this version of the code.

    Args:
        sweep_dir: The sweep's folder.
        name: The sweep's name.
        declared: Its jobs.
        keep: Whether results of another version of the code count.
        rerun: Whether they are going to be computed again.

    Returns:
        The states, by job id.

    Raises:
        UserError: The folder holds another sweep, or results of another version of the code and
            neither `keep` nor `rerun` is set.
    """
    before = store.name_of(sweep_dir)
    if before is not None and before != name:
        raise UserError(f"{sweep_dir} holds the sweep {before}; give another --workdir")
    states = store.scan(sweep_dir, declared)
    others = of_other_code(states)
    if others and not keep and not rerun:
        theirs = next(iter(others.values())).code
        raise UserError(
            f"{len(others)} jobs of {sweep_dir} ran with another version of mcjax "
            f"({_name(theirs)}; this is {_name(code())}); add --keep to count them, or --rerun "
            "to compute them again"
        )
    return states


def code() -> dict[str, Any]:
    """The version of mcjax that is running."""
    return {"version": version("mcjax"), "git_revision": git_revision()}


def _name(code: Mapping[str, Any]) -> str:
    revision = code.get("git_revision") or ""
    dirty = "-dirty" if revision.endswith("-dirty") else ""
    return f"{code.get('version')} {revision[:10]}{dirty}".strip()


def of_other_code(states: Mapping[str, JobState]) -> dict[str, JobState]:
    """The jobs whose result, or newest attempt, is of another version of the code."""
    now = code()
    return {name: s for name, s in states.items() if s.code and dict(s.code) != now}


def missing(states: Mapping[str, JobState], queued: set[str]) -> list[str]:
    """The jobs that are not done, not running and not queued."""
    return [
        name
        for name, s in states.items()
        if s.status not in ("done", "running") and name not in queued
    ]


def set_aside(
    sweep_dir: Path, declared: Sequence[Job], states: Mapping[str, JobState]
) -> dict[str, JobState]:
    """Moves jobs of another version of the code to WORKDIR/replaced."""
    for name, old in of_other_code(states).items():
        if old.status == "running":
            raise UserError(f"job {name} is running; wait until it ends, then add --rerun")
        store.set_job_aside(sweep_dir, name)
    return store.scan(sweep_dir, declared)


def write_sweep(sweep_dir: Path, name: str, declared: Sequence[Job]) -> None:
    """Writes sweep.json and every job.json, before anything runs.

    Raises:
        UserError: They cannot be written.
    """
    try:
        store.write_sweep(sweep_dir, name, code(), declared)
    except OSError as error:
        raise cannot_write(sweep_dir, error) from None


def plan(declared: Sequence[Job], states: Mapping[str, JobState]) -> str:
    """One line per job: its status and its id."""
    return "\n".join(f"{states[job.id].status:8} {job.id}" for job in declared)


def run(
    engine: Engine,
    sweep_dir: Path,
    declared: Sequence[Job],
    states: dict[str, JobState],
    todo: Sequence[str],
) -> dict[str, JobState]:
    """Gives jobs to an engine and shows their progress until they end.

    Args:
        engine: The engine.
        sweep_dir: The sweep's folder.
        declared: Its jobs.
        states: Their states.
        todo: The ids of the jobs to run.

    Returns:
        Their states afterwards.
    """
    if not todo:
        return states
    wanted = [job for job in declared if job.id in set(todo)]
    for name in todo:
        if states[name].status in ("damaged", "other config"):
            kept = store.set_result_aside(store.job_dir(sweep_dir, name))
            say(f"{states[name].line}; it is kept as {kept.name}, and the job runs again")
    try:
        engine.submit(sweep_dir, todo)
        with board(states, len(todo)) as view:
            while engine.poll():
                open_jobs = [job for job in wanted if view.states[job.id].status != "done"]
                view.update(store.scan(sweep_dir, open_jobs))
                time.sleep(POLL_SECONDS)
            states = store.scan(sweep_dir, declared)
            view.update(states)
    finally:
        engine.stop()
    return states


def conclude(engine: str, states: Mapping[str, JobState]) -> None:
    """Prints how the sweep ended.

    Raises:
        UserError: With exit code 1 if jobs have no result, 3 if one has no acceptable answer.
    """
    for line in failures(states):
        say(line)
    without = [s for s in states.values() if s.status != "done"]
    if engine == "slurm" and without:
        say(
            f"{len(states)} jobs: {count(states)}; the same command with --dry_run shows their progress"
        )
    elif without:
        raise UserError(
            f"{len(without)} of {len(states)} jobs have no result ({count(states)}); "
            "the same command again runs them",
            exit_code=1,
        )
    elif unacceptable := [s for s in states.values() if s.exit_code]:
        raise UserError(
            f"{len(unacceptable)} of {len(states)} jobs have a result but no acceptable answer; "
            "their logs say why",
            exit_code=3,
        )
    else:
        say(f"all {len(states)} jobs have their results; python -m mcjax.report gathers them")
