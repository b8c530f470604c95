"""python -m launch.sweep: mistakes, dry runs, and the local engine with a fake training."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import in_process
import pytest
from rich.console import Console

from mcjax.cli import sweep as launcher
from mcjax.cli.command import Failed, NoAnswer
from mcjax.core.errors import UserError
from mcjax.sweeps import attempts, declare, engines, store
from mcjax.sweeps.engines import Options, local
from mcjax.sweeps.progress_board import Board, duration, failures
from mcjax.sweeps.store import JobState

ROOT = Path(__file__).parents[2]
QUICK = "--sweep configs/sweeps/quick_digits.py"

MISTAKES = {
    "": "no sweep was given; add --sweep",
    "--sweep configs/sweeps/nope.py": "there is no file ",
    f"{QUICK} --engine party": "unknown engine 'party'; use one of local, ray, slurm",
    f"{QUICK} --keep --rerun": "exclude each other",
    f"{QUICK} --retries=-1": "--retries is -1",
    f"{QUICK} --engine slurm --workdir TMP": "needs sbatch, which is not installed here",
    f"{QUICK} --engine slurm --tpus 4 --workdir TMP": "does not know TPUs",
    f"{QUICK} --workdir /proc/mcjax": "can't write",
    f"{QUICK} --workdir gs://bucket/sweep": "must be on a file system that all workers share",
    f"{QUICK} surplus": "unexpected argument 'surplus'",
}


def command(arguments, tmp_path, **env):
    return subprocess.run(
        [sys.executable, "-m", "launch.sweep", *arguments.replace("TMP", str(tmp_path)).split()],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", **env},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("arguments", MISTAKES)
def test_mistakes_end_in_one_line(arguments, tmp_path):
    words = arguments.replace("TMP", str(tmp_path)).split()
    done = in_process.run("launch.sweep", *words, env={"PATH": "/nowhere"})
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("python -m launch.sweep: error: ")
    assert MISTAKES[arguments] in last
    assert "Traceback" not in done.stderr


def test_a_dry_run_lists_the_jobs_and_leaves_nothing(tmp_path):
    done = command(f"{QUICK} --dry_run --workdir TMP/sweep", tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    declared = declare.load(ROOT / "configs" / "sweeps" / "quick_digits.py")
    assert lines[:4] == [f"missing  {job.id}" for job in declared]
    assert lines[4] == "4 jobs: 4 missing; 4 to run"
    assert list(tmp_path.iterdir()) == []


def test_an_engine_that_is_not_installed_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'mcjax\[ray\]'"):
        engines.get("ray", Options())


def test_a_cluster_that_cannot_be_reached_is_one_line(tmp_path):
    pytest.importorskip("ray")
    done = command(f"{QUICK} --engine ray --address 127.0.0.1:1 --workdir TMP/sweep", tmp_path)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert "error: the Ray cluster at 127.0.0.1:1 can't be reached" in last
    assert "Traceback" not in done.stderr


TRAIN = """
import json, os, pathlib, sys, time
job = json.loads((pathlib.Path(sys.argv[1]) / 'job.json').read_text())
from mcjax.sweeps import worker
script = pathlib.Path(sys.argv[1]).parents[1] / 'act.py'
sys.exit(worker.run_attempt(pathlib.Path(sys.argv[1]), command=(sys.executable, str(script)), parent=int(sys.argv[3])))
"""
ACT = """
import json, os, pathlib, sys, time
job = json.loads(pathlib.Path(sys.argv[1].split(':', 1)[1]).read_text())
workdir = pathlib.Path(sys.argv[2].removeprefix('--workdir='))
seed = job['overrides']['seed']
first = workdir.name == '0001'
if seed == 1:
    print('seed 1 never works', flush=True)
    sys.exit(1)
if seed == 2 and first:
    os.kill(os.getpid(), 9)
if seed == 3:
    time.sleep(60)
(workdir / 'config.json').write_text(json.dumps({'git_revision': REVISION, 'packages': {'mcjax': VERSION}}))
(workdir / 'result.json').write_text(json.dumps({'config_hash': job['config_hash']}))
sys.exit(3 if seed == 4 else 0)
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A sweep whose jobs do what `ACT` defines for their seed, in a second."""
    now = launcher.code()
    act = ACT.replace("REVISION", repr(now["git_revision"])).replace(
        "VERSION", repr(now["version"])
    )
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "act.py").write_text(act)
    (tmp_path / "worker.py").write_text(TRAIN)
    monkeypatch.setattr(
        engines,
        "worker_command",
        lambda job_dir: [sys.executable, str(tmp_path / "worker.py"), str(job_dir)],
    )
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(launcher, "POLL_SECONDS", 0.05)

    def run(seeds, **options):
        file = tmp_path / "some.py"
        file.write_text(
            "from mcjax.sweeps.declare import Sweep, grid\nfrom mcjax import config as base\n"
            f"def get_sweep():\n    return Sweep(base.connect(), grid({{'seed': {seeds}}}))\n"
        )
        declared = declare.load(file)
        work = tmp_path / "work"
        states = launcher.look(work, "some", declared, keep=False, rerun=False)
        todo = launcher.missing(states, set())
        launcher.write_sweep(work, "some", declared)
        engine = local.open_engine(Options(**options))
        states = launcher.run(engine, work, declared, states, todo)
        return todo, {job.overrides["seed"]: states[job.id] for job in declared}

    return run


def test_a_job_whose_worker_could_not_begin_says_why():
    states = {"a": JobState("missing", line="No space left on device"), "b": JobState("missing")}
    assert failures(states) == ["missing a: No space left on device"]


def test_a_log_line_with_brackets_is_shown_as_it_is():
    console = Console(width=100)
    with console.capture() as shown:
        console.print(
            Board({"a": JobState("failed", 1, line=r"regex \[/a] [red]")}, 1, None).table()
        )
    assert r"regex \[/a] [red]" in shown.get()


def test_failed_jobs_are_listed_and_stop_no_other(stand_in, capsys):
    todo, states = stand_in((0, 1, 2), parallel=2)
    assert len(todo) == 3
    assert {seed: s.status for seed, s in states.items()} == {0: "done", 1: "failed", 2: "done"}
    assert states[1].num_attempts == 1  # it failed by itself, and would fail again
    assert states[2].num_attempts == 2  # it was killed, so it runs again
    (line,) = failures(states)
    assert line.startswith("failed 1: seed 1 never works (")
    assert line.endswith("attempts/0001/log.txt)")
    with pytest.raises(Failed, match="1 of 3 jobs have no result"):
        launcher.conclude("local", states)
    told = capsys.readouterr().err
    assert "failed   seed_1" in told
    assert "3 jobs: 2 done, 1 failed" in told

    todo, states = stand_in((0, 1, 2))
    assert [name.split("-")[0] for name in todo] == ["seed_1"]
    assert {s.num_attempts for s in states.values()} == {1, 2}

    todo, states = stand_in((0, 2))
    assert todo == []
    launcher.conclude("local", states)


def test_a_result_without_an_acceptable_answer_is_a_result(stand_in, capsys):
    _, states = stand_in((0, 4))
    assert states[4].status == "done"
    with pytest.raises(NoAnswer, match="1 of 2 jobs have a result but no acceptable"):
        launcher.conclude("local", states)
    assert stand_in((0, 4))[0] == []


def test_retries_have_an_end(stand_in):
    _, states = stand_in((2,), retries=0)
    assert (states[2].status, states[2].exit_code) == ("stopped", 137)


def test_an_interrupt_leaves_no_process_and_a_state_to_go_on_from(stand_in, tmp_path, monkeypatch):
    pause, asked = time.sleep, []

    def interrupted(seconds):
        pause(seconds)
        if not asked and list((tmp_path / "work" / "jobs").glob("*/attempts/0001/log.txt")):
            asked.append(True)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(launcher.time, "sleep", interrupted)
    # A shell lets what it starts in the background ignore the signal: not so here.
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            stand_in((3,))
    finally:
        signal.signal(signal.SIGINT, former)
    (folder,) = (tmp_path / "work" / "jobs").iterdir()
    assert not attempts.alive(folder / "attempts" / "0001")
    now = store.job_state(folder, json.loads((folder / "job.json").read_text())["config_hash"])
    assert (now.status, now.exit_code) == ("stopped", 128 + signal.SIGTERM)
    with contextlib.suppress(FileNotFoundError):  # no process runs there
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                assert str(folder) not in Path(f"/proc/{pid}/cmdline").read_text()


def test_results_of_another_version_are_asked_about(stand_in, tmp_path, monkeypatch):
    stand_in((0,))
    other = {"version": "9.9", "git_revision": "f" * 40}
    monkeypatch.setattr(launcher, "code", lambda: other)
    with pytest.raises(
        UserError,
        match=r"1 jobs of .* ran with another version .*\(.*; this is 9.9 ffffffffff\); add --keep .* or --rerun",
    ):
        stand_in((0,))
    declared = declare.load(tmp_path / "some.py")
    work = tmp_path / "work"
    kept = launcher.look(work, "some", declared, keep=True, rerun=False)
    assert launcher.missing(kept, set()) == []
    again = launcher.look(work, "some", declared, keep=False, rerun=True)
    before = (work / "jobs" / declared[0].id / "result.json").read_bytes()
    again = launcher.set_aside(work, declared, again)
    assert launcher.missing(again, set()) == [declared[0].id]
    assert (work / "replaced" / f"{declared[0].id}.1" / "result.json").read_bytes() == before


def test_a_directory_of_another_sweep(stand_in, tmp_path):
    stand_in((0,))
    with pytest.raises(UserError, match="holds the sweep some; give another --workdir"):
        launcher.look(tmp_path / "work", "other", [], keep=False, rerun=False)


def test_what_sweep_json_says(stand_in, tmp_path):
    stand_in((0, 4))
    work = tmp_path / "work"
    written = json.loads((work / "sweep.json").read_text())
    assert written["name"] == "some"
    assert written["code"] == launcher.code()
    assert [row["overrides"] for row in written["jobs"]] == [{"seed": 0}, {"seed": 4}]
    for row in written["jobs"]:
        assert json.loads((work / "jobs" / row["id"] / "job.json").read_text()) == row
        assert row["config"]["seed"] == row["overrides"]["seed"]


def test_the_time_left_is_the_rest_at_the_rate_so_far(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("mcjax.sweeps.progress_board.time.monotonic", lambda: now[0])
    names = [f"job{i}" for i in range(5)]
    view = Board({**dict.fromkeys(names, JobState("missing")), "old": JobState("done")}, 5, None)
    assert view.seconds_left() is None
    now[0] = 160.0
    view.update({"job0": JobState("done"), "job1": JobState("done"), "job2": JobState("running")})
    assert view.seconds_left() == 90.0
    assert view.summary() == "6 jobs: 3 done, 1 running, 2 missing; about 2 min left"
    assert duration(30) == "30 s"
    rows = view.table().row_count
    assert rows == 1
