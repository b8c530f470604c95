"""Runs the jobs of a sweep that have no result yet, on an engine.

    python -m launch.sweep --sweep configs/sweeps/backdoor_digits.py --parallel 2
    python -m launch.sweep --sweep configs/sweeps/backdoor_digits.py --dry_run
    python -m launch.sweep --sweep FILE --engine ray --address HOST:6379 --gpus 1
    python -m launch.sweep --sweep FILE --engine slurm --gpus 1 --sbatch=--time=8:00:00

A job is a run of mcjax.train. Its results are in WORKDIR/jobs/JOB_ID: one folder an attempt, and
result.json when one has come to its end. The same command again runs what is missing or failed,
each from its last checkpoint; `python -m mcjax.report WORKDIR` gathers what is there.

Exit codes: 0 every job has its result (slurm: is submitted); 1 some have none, which are listed; 2 a mistake; 3 all
have, but some of them no acceptable answer; 130 interrupted.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from launch import attempts, engines, jobs, state
from launch.board import board, count, failures
from launch.engines import Engine, Options
from launch.jobs import Job
from launch.state import State
from mcjax.cli import command
from mcjax.cli.command import Failed, NoAnswer
from mcjax.core.bucket import local
from mcjax.core.errors import UserError
from mcjax.core.files import cannot_write
from mcjax.core.progress import say
from mcjax.runs.workdir import git_revision, version

POLL_SECONDS = 1.0


def define_flags() -> None:
    """The command's flags; defined when it runs, so that the module can be imported freely."""
    flags.DEFINE_string("sweep", None, "The sweep: a file of configs/sweeps/.")
    flags.DEFINE_string("engine", "local", f"Who runs the jobs: {', '.join(engines.ENGINES)}.")
    flags.DEFINE_string("workdir", None, "Where everything is left; runs/sweeps/NAME unless given.")
    flags.DEFINE_boolean("dry_run", False, "Print the jobs and what is done; start nothing.")
    flags.DEFINE_boolean("keep", False, "Count results of another version of the code as done.")
    flags.DEFINE_boolean("rerun", False, "Compute them again; they are moved to WORKDIR/replaced.")
    flags.DEFINE_integer("parallel", 0, "Jobs at a time; local: 1 unless given. Not for ray.")
    flags.DEFINE_integer("retries", 2, "How often a job whose worker was killed begins again.")
    flags.DEFINE_integer("cpus", 1, "CPU cores a job (ray, slurm).")
    flags.DEFINE_integer("gpus", 0, "GPUs a job (ray, slurm).")
    flags.DEFINE_integer("tpus", 0, "TPU chips a job (ray).")
    flags.DEFINE_string("address", "", "A Ray cluster, HOST:PORT; RAY_ADDRESS or an own one.")
    flags.DEFINE_multi_string("sbatch", [], "Another option of sbatch; may be given often.")


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
            f"--workdir {f.workdir} is a bucket's; a sweep's directory must be on a file system "
            "that all workers share: give a folder, and copy it to the bucket afterwards"
        )
    sweep_dir = local(f.workdir or Path("runs") / "sweeps" / name).absolute()
    engine = engines.get(f.engine, options)
    declared = jobs.load(f.sweep)
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
    declare(sweep_dir, name, declared)
    say(f"{sweep_dir}: {len(declared)} jobs, {count(states)}; {len(todo)} to run")
    states = run(engine, sweep_dir, declared, states, todo)
    conclude(f.engine, states)


def look(
    sweep_dir: Path, name: str, declared: Sequence[Job], *, keep: bool, rerun: bool
) -> dict[str, State]:
    """Where the jobs stand, if the directory is this sweep's and of this code.

    Args:
        sweep_dir: The sweep's directory.
        name: The sweep's.
        declared: Its jobs.
        keep: What another version of the code has left counts.
        rerun: It is going to be computed again.

    Returns:
        The states by the jobs' ids.

    Raises:
        UserError: It is another sweep's, or what to do with another version's results is not said.
    """
    before = attempts.read_json(sweep_dir / "sweep.json")
    if before is not None and before.get("name") != name:
        raise UserError(f"{sweep_dir} holds the sweep {before.get('name')}; give another --workdir")
    states = state.scan(sweep_dir, declared)
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
    """The version of mcjax that this is."""
    return {"version": version("mcjax"), "git_revision": git_revision()}


def _name(code: Mapping[str, Any]) -> str:
    revision = code.get("git_revision") or ""
    dirty = "-dirty" if revision.endswith("-dirty") else ""
    return f"{code.get('version')} {revision[:10]}{dirty}".strip()


def of_other_code(states: Mapping[str, State]) -> dict[str, State]:
    """The jobs whose newest attempt, or result, is of another version of the code."""
    now = code()
    return {name: s for name, s in states.items() if s.code and dict(s.code) != now}


def missing(states: Mapping[str, State], queued: set[str]) -> list[str]:
    """The jobs that nobody has done, runs or is about to run."""
    return [
        name
        for name, s in states.items()
        if s.status not in ("done", "running") and name not in queued
    ]


def set_aside(
    sweep_dir: Path, declared: Sequence[Job], states: Mapping[str, State]
) -> dict[str, State]:
    """Moves what another version of the code has left to WORKDIR/replaced."""
    for name, old in of_other_code(states).items():
        if old.status == "running":
            raise UserError(f"job {name} is running; wait for its end, then add --rerun")
        target = sweep_dir / "replaced"
        target.mkdir(exist_ok=True)
        number = 1
        while (target / f"{name}.{number}").exists():
            number += 1
        (sweep_dir / "jobs" / name).rename(target / f"{name}.{number}")
    return state.scan(sweep_dir, declared)


def declare(sweep_dir: Path, name: str, declared: Sequence[Job]) -> None:
    """Writes sweep.json and a job.json each, before anything runs.

    Raises:
        UserError: They can't be written.
    """
    rows: list[dict[str, Any]] = [
        {
            "id": job.id,
            "overrides": dict(job.overrides),
            "config_hash": job.config_hash,
            "config": dict(job.config),
        }
        for job in declared
    ]
    try:
        for row in rows:
            file = sweep_dir / "jobs" / row["id"] / "job.json"
            if attempts.read_json(file) != json.loads(json.dumps(row)):
                file.parent.mkdir(parents=True, exist_ok=True)
                attempts.write_json(file, row)
        attempts.write_json(sweep_dir / "sweep.json", {"name": name, "code": code(), "jobs": rows})
    except OSError as error:
        raise cannot_write(sweep_dir, error) from None


def plan(declared: Sequence[Job], states: Mapping[str, State]) -> str:
    """A line a job: its state and its id."""
    return "\n".join(f"{states[job.id].status:8} {job.id}" for job in declared)


def run(
    engine: Engine,
    sweep_dir: Path,
    declared: Sequence[Job],
    states: dict[str, State],
    todo: Sequence[str],
) -> dict[str, State]:
    """Hands jobs to an engine and shows how they do, to the end.

    Args:
        engine: The engine.
        sweep_dir: The sweep's directory.
        declared: Its jobs.
        states: Where they stand.
        todo: Those to run.

    Returns:
        Where they stand then.
    """
    if not todo:
        return states
    wanted = [job for job in declared if job.id in set(todo)]
    for name in todo:
        if states[name].status == "damaged":
            kept = attempts.set_aside(sweep_dir / "jobs" / name / "result.json")
            say(f"{states[name].line}; it is kept as {kept.name}, and the job runs again")
    try:
        engine.submit(sweep_dir, todo)
        with board(states, len(todo)) as view:
            while engine.poll():
                open_jobs = [job for job in wanted if view.states[job.id].status != "done"]
                view.update(state.scan(sweep_dir, open_jobs))
                time.sleep(POLL_SECONDS)
            states = state.scan(sweep_dir, declared)
            view.update(states)
    finally:
        engine.stop()
    return states


def conclude(engine: str, states: Mapping[str, State]) -> None:
    """Says what came of the sweep.

    Raises:
        Failed: Jobs have no result.
        NoAnswer: A job has no acceptable answer.
    """
    for line in failures(states):
        say(line)
    without = [s for s in states.values() if s.status != "done"]
    if engine == "slurm" and without:
        say(
            f"{len(states)} jobs: {count(states)}; the same command with --dry_run tells how they do"
        )
    elif without:
        raise Failed(
            f"{len(without)} of {len(states)} jobs have no result ({count(states)}); "
            "the same command again runs them"
        )
    elif unacceptable := [s for s in states.values() if s.exit_code]:
        raise NoAnswer(
            f"{len(unacceptable)} of {len(states)} jobs have a result but no acceptable answer; "
            "their logs say why"
        )
    else:
        say(f"all {len(states)} jobs have their results; python -m mcjax.report gathers them")


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
