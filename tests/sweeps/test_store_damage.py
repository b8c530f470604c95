"""Damaged or foreign files in a sweep: nothing stops, and only a job's own results count."""

import json
import math
import os
import shutil
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_in import TRAIN

from mcjax.cli import sweep as launcher
from mcjax.sweeps import attempts, store
from mcjax.sweeps.engines import Options, slurm
from mcjax.sweeps.progress_board import Board, failures
from mcjax.sweeps.store import Job
from mcjax.sweeps.worker import run_attempt

GOOD = {
    "config_hash": "h",
    "seconds": 1.5,
    "metrics": {"a": 0.5},
    "attempt": "0001",
    "exit_code": 0,
    "code": {"version": "1", "git_revision": "abc"},
}
CONFIG = {"hash": "h", "git_revision": "abc", "packages": {"mcjax": "1"}}


@pytest.fixture
def job_dir(tmp_path):
    """A job whose only attempt has published its result."""
    folder = tmp_path / "jobs" / "j"
    attempt = folder / "attempts" / "0001"
    attempt.mkdir(parents=True)
    write(folder, "job.json", {"id": "j", "config_hash": "h", "config": {"act": "done"}})
    write(folder, "result.json", GOOD)
    write(attempt, "attempt.json", {"exit_code": 0})
    write(attempt, "config.json", CONFIG)
    (attempt / "log.txt").write_text("the last words\n")
    return folder


def write(folder, name, content):
    data = content if isinstance(content, bytes | str) else json.dumps(content)
    (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)


DAMAGES = {
    "of another config (k, not h)": {**GOOD, "config_hash": "k"},
    "config_hash is None": {"metrics": {}},
    "config_hash is ['h']": {**GOOD, "config_hash": ["h"]},
    "metrics['a'] is nan": {**GOOD, "metrics": {"a": math.nan}},
    "metrics['a'] is 1000": json.dumps(GOOD).replace("0.5", "1" + "0" * 400),
    "seconds is 'abc'": {**GOOD, "seconds": "abc"},
    "exit_code is '0'": {**GOOD, "exit_code": "0"},
    "attempt is '../0001'": {**GOOD, "attempt": "../0001"},
    "code is [1]": {**GOOD, "code": [1]},
    "it holds no object": [GOOD],
    "can't decode byte": b"{\xff}",
    "Expecting value": "",
    "nested too deep": "[" * 100_000,
}


def test_what_is_no_result_of_the_job_is_not_taken_for_one(job_dir):
    assert store.job_state(job_dir, "h").status == "done"
    for reason, content in DAMAGES.items():
        write(job_dir, "result.json", content)
        now = store.job_state(job_dir, "h")
        status = "other config" if "another config" in reason else "damaged"
        assert (now.status, reason in now.line) == (status, True), (reason, now)
        assert now.line.isprintable()
        (line,) = failures({"j": now})
        assert line == f"{status} j: {now.line}"
        assert Board({"j": now}, 1, None).table().row_count == 1


def test_damage_in_an_attempts_files_is_no_traceback(job_dir):
    (job_dir / "result.json").unlink()
    attempt = job_dir / "attempts" / "0001"
    for name in ("attempt.json", "config.json", "log.txt", "alive"):
        before = (attempt / name).read_bytes() if (attempt / name).exists() else None
        for content in (b"\xff", "", "[1]", {"exit_code": "9", "packages": [1]}, {"packages": 3}):
            write(attempt, name, content)
            now = store.job_state(job_dir, "h")
            assert now.status in ("failed", "stopped", "running")
            assert launcher.of_other_code({"j": now}) or not now.code
        (attempt / name).unlink()
        os.mkfifo(attempt / name)  # does not block
        assert store.job_state(job_dir, "h").status in ("failed", "stopped")
        (attempt / name).unlink()
        if before is not None:
            (attempt / name).write_bytes(before)


def test_names_that_are_no_attempts_and_no_steps(job_dir):
    for name in ("²", "old", "0001.copy", "9" * 50):
        (job_dir / "attempts" / name).mkdir()
    assert [f.name for f in attempts.folders(job_dir)] == ["0001"]
    assert attempts.begin(job_dir).name == "0002"
    folder = job_dir / "attempts" / "0001"
    for name in ("curve", ".partial", ".partial/curve/10", ".partial/curve/ten"):
        (folder / "checkpoints" / name).mkdir(parents=True, exist_ok=True)
    for name in ("curve", ".partial/curve/10", ".partial/curve/ten"):
        (folder / "checkpoints" / name / "_CHECKPOINT_METADATA").touch()
    assert attempts.progress(folder) == {"finished": ["curve"], "partial": {"curve": 10}}
    shutil.rmtree(job_dir / "attempts")
    (job_dir / "attempts").touch()
    assert attempts.folders(job_dir) == []


def test_only_an_attempt_of_the_jobs_config_is_handed_on_and_never_its_result(job_dir):
    own, foreign = job_dir / "attempts" / "0001", attempts.begin(job_dir)
    for folder, config_hash in ((own, "h"), (foreign, "k")):
        (folder / "checkpoints" / "curve").mkdir(parents=True)
        write(folder, "config.json", {**CONFIG, "hash": config_hash})
        write(folder, "result.json", GOOD)
        write(folder, "path.csv", config_hash)
    os.mkfifo(own / "a pipe")
    new = attempts.begin(job_dir)
    assert attempts.take_over(new, "h") == "0001"
    assert (new / "path.csv").read_text() == "h"
    assert sorted(p.name for p in new.iterdir()) == ["checkpoints", "config.json", "path.csv"]
    assert json.loads((new / "config.json").read_text())["hash"] == "h"


@pytest.mark.parametrize(
    "content",
    [
        "",
        pytest.param(
            json.dumps({**GOOD, "config_hash": "k"}), marks=pytest.mark.slow(compiles=True)
        ),
    ],
)
def test_a_worker_keeps_a_foreign_result_and_computes_its_own(job_dir, content):
    write(job_dir, "result.json", content)
    write(job_dir.parents[1], "train.py", TRAIN)
    assert run_attempt(job_dir, command=(sys.executable, str(job_dir.parents[1] / "train.py"))) == 0
    assert store.job_state(job_dir, "h").status == "done"
    assert (job_dir / "result.damaged-1.json").read_text() == content


def test_a_worker_needs_a_whole_job_file(job_dir, capsys):
    for content in ([], {}, {"config_hash": 3}, b"\xff"):
        write(job_dir, "job.json", content)
        assert run_attempt(job_dir) == 2
        assert "has no job.json" in capsys.readouterr().err


class Engine:
    """Publishes results immediately."""

    def submit(self, sweep_dir, ids):
        for name in ids:
            write(sweep_dir / "jobs" / name, "result.json", GOOD)

    def poll(self):
        return False

    def stop(self):
        pass


def test_a_sweep_runs_damaged_jobs_again_and_keeps_what_it_found(job_dir, capsys):
    sweep_dir, jobs = job_dir.parents[1], [Job("j", {}, "h", {})]
    for number, content in enumerate((DAMAGES["seconds is 'abc'"], b"{"), start=1):
        write(job_dir, "result.json", content)
        states = launcher.look(sweep_dir, "s", jobs, keep=False, rerun=False)
        assert launcher.plan(jobs, states) == "damaged  j"
        todo = launcher.missing(states, set())
        assert todo == ["j"]
        assert launcher.run(Engine(), sweep_dir, jobs, states, todo)["j"].status == "done"
        assert f"it is kept as result.damaged-{number}.json" in capsys.readouterr().err
        assert (job_dir / f"result.damaged-{number}.json").exists()


def test_a_list_of_jobs_whose_number_is_lost(tmp_path, monkeypatch):
    """A launcher was killed between writing its files; squeue is asked about the other arrays."""
    (tmp_path / "slurm").mkdir()
    for name, text in (("0001.jobs", "a\nb\n"), ("0002.jobs", "c\nd\n"), ("0002.submitted", "7")):
        (tmp_path / "slurm" / name).write_text(text)
    (tmp_path / "slurm" / "notes.sh").touch()
    told = "0 RUNNING\n7 PENDING\nslurm: no words\n\n"
    done = subprocess.CompletedProcess([], 0, stdout=told)
    monkeypatch.setattr(slurm.shutil, "which", lambda _: "squeue")
    monkeypatch.setattr(slurm.subprocess, "run", lambda *_, **__: done)
    engine = slurm.open_engine(Options())
    assert engine.queued(tmp_path) == {"c"}
    assert engine._list_file(tmp_path, 0).name == "0001.jobs"


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["result.json", "attempts/0001/attempt.json", "attempts/0001/config.json"]),
    st.integers(0, 500),
    st.one_of(st.none(), st.binary(max_size=3)),
)
def test_damaged_bytes(tmp_path_factory, file, at, added):
    folder = tmp_path_factory.getbasetemp() / "damaged_bytes" / "jobs" / "j"
    attempt = folder / "attempts" / "0001"
    attempt.mkdir(parents=True, exist_ok=True)
    write(folder, "result.json", GOOD)
    write(attempt, "attempt.json", {"exit_code": 1})
    write(attempt, "config.json", CONFIG)
    content = (folder / file).read_bytes()
    at %= len(content)
    write(folder, file, content[:at] if added is None else content[:at] + added + content[at + 1 :])
    now = store.job_state(folder, "h")
    if now.status == "done":
        assert attempts.read_json(folder / "result.json")["config_hash"] == "h"
    else:
        assert (file, now.status) == ("result.json", "damaged")
    (folder / "result.json").unlink()
    now = store.job_state(folder, "h")
    assert now.status in ("failed", "stopped")
    assert launcher.of_other_code({"j": now}) or not now.code
