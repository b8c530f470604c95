"""A worker publishes once, records how it ended, and leaves no process running."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from stand_in import TRAIN
from tiny_sweep import until

from mcjax.sweeps import attempts, store, worker
from mcjax.sweeps.worker import run_attempt


@pytest.fixture
def job_dir(tmp_path):
    def make(act):
        folder = tmp_path / "jobs" / act
        folder.mkdir(parents=True)
        job = {"id": act, "config_hash": "h", "config": {"act": act}}
        (folder / "job.json").write_text(json.dumps(job))
        (tmp_path / "train.py").write_text(TRAIN)
        return folder

    return make


def train(folder):
    return run_attempt(folder, command=(sys.executable, str(folder.parents[1] / "train.py")))


def test_a_result_is_published_with_where_it_comes_from(job_dir):
    folder = job_dir("done")
    assert store.job_state(folder, "h").status == "missing"
    assert train(folder) == 0
    result = json.loads((folder / "result.json").read_text())
    assert result == {
        "config_hash": "h",
        "n": "0001",
        "attempt": "0001",
        "exit_code": 0,
        "code": {"version": "1", "git_revision": "abc"},
    }
    assert sorted(p.name for p in folder.iterdir()) == ["attempts", "job.json", "result.json"]
    assert "the last words" in (folder / "attempts" / "0001" / "log.txt").read_text()
    attempt = attempts.read(folder / "attempts" / "0001")
    assert attempt["exit_code"] == 0
    assert attempt["resumed_from"] is None
    assert store.job_state(folder, "h").status == "done"

    assert train(folder) == 0  # nothing to do
    assert len(attempts.folders(folder)) == 1


def test_a_worker_waits_for_another_launchers_attempt(job_dir, monkeypatch):
    folder = job_dir("done")
    first = attempts.begin(folder)
    with contextlib.ExitStack() as stack:
        stack.enter_context(attempts.hold(first))
        waits = []

        def sleep(seconds):
            waits.append(seconds)
            if len(waits) == 2:  # the first attempt ends, with a result
                stack.close()
                store.publish(folder, {"config_hash": "h"}, attempt=first.name, exit_code=0)

        monkeypatch.setattr(worker.time, "sleep", sleep)
        assert train(folder) == 0
    assert len(waits) == 2
    assert attempts.folders(folder) == [first]


def test_the_first_result_stays(job_dir):
    folder = job_dir("done")
    # Another attempt, on a node that was thought lost, publishes while this one trains.
    racing = TRAIN.replace(
        "print('the last words'",
        "(workdir.parents[1] / 'result.json').write_text('{\"first\": 1}'); print('the last words'",
    )
    (folder.parents[1] / "train.py").write_text(racing)
    assert train(folder) == 0
    assert json.loads((folder / "result.json").read_text()) == {"first": 1}
    assert "another attempt has published" in (folder / "attempts/0001/log.txt").read_text()


@pytest.mark.parametrize(
    ("act", "code", "status", "line"),
    [
        ("failed", 1, "failed", "the last words"),
        ("mistake", 2, "failed", "the last words"),
        ("killed", 137, "stopped", "training"),
        ("nothing", 1, "failed", "left no result.json"),
        ("other", 1, "failed", "left no result.json of this job's config"),
        ("unacceptable", 3, "done", "the last words"),
    ],
)
def test_how_it_ended(job_dir, act, code, status, line):
    folder = job_dir(act)
    assert train(folder) == code
    now = store.job_state(folder, "h")
    assert (now.status, now.exit_code, now.num_attempts) == (status, code, 1)
    assert line in now.line
    assert (folder / "result.json").exists() == (status == "done")


def test_a_failed_job_goes_on_from_what_it_had(job_dir):
    folder = job_dir("failed")
    train(folder)
    (folder / "attempts/0001/checkpoints/failed/_CHECKPOINT_METADATA").write_text("{}")
    train(folder)
    attempt = attempts.read(folder / "attempts" / "0002")
    assert attempt["resumed_from"] == "0001"
    assert attempt["resumed"] == {"finished": ["failed"], "partial": {}}


def test_a_result_of_another_config_is_not_counted(job_dir):
    folder = job_dir("done")
    train(folder)
    now = store.job_state(folder, "k")
    assert now.status == "other config"
    assert now.line.endswith("result.json is of another config (h, not k)")


def started(folder, *, parent=None):
    program = (
        "import sys, pathlib; from mcjax.sweeps.worker import run_attempt\n"
        "job = pathlib.Path(sys.argv[1]); parent = int(sys.argv[2]) or None\n"
        "sys.exit(run_attempt(job, parent=parent, command=(sys.executable, str(job.parents[1] / 'train.py'))))"
    )
    argv = [sys.executable, "-c", program, str(folder), str(parent or 0)]
    worker = subprocess.Popen(argv)
    # Under load a worker may end its run before that has said its process.
    return worker, until(lambda: said(folder) or (worker.poll() is not None and ["none"]))[0]


def said(folder):
    """The process of the run, once it has said it."""
    log = folder / "attempts" / "0001" / "log.txt"
    return log.exists() and log.read_text().split()[1:2]


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, and Linux's death signal")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_worker_that_is_ended_takes_its_run_along(job_dir, number):
    folder = job_dir("sleep")
    worker, pid = started(folder)
    try:
        assert store.job_state(folder, "h").status == "running"
        worker.send_signal(number)
        code = worker.wait(30)
        assert code == (-9 if number == signal.SIGKILL else 128 + number)
        until(lambda: not is_running(pid))
    finally:
        worker.kill()
        worker.wait()
    assert store.job_state(folder, "h").status == "stopped"


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_worker_ends_when_its_parent_is_another_process(job_dir):
    folder = job_dir("sleep")
    worker, pid = started(folder, parent=os.getppid())  # as if the launcher had ended
    assert worker.wait(30) == 128 + signal.SIGTERM
    assert not is_running(pid)


def test_a_directory_without_a_job(tmp_path, capsys):
    assert run_attempt(tmp_path) == 2
    assert "has no job.json" in capsys.readouterr().err


def test_a_worker_needs_no_jax():
    program = (
        "import sys, mcjax.sweeps.worker; sys.exit('jax' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_half_a_result_of_somebody_killed_is_computed_again(job_dir):
    folder = job_dir("done")
    (folder / "result.json").touch()
    assert train(folder) == 0
    assert json.loads((folder / "result.json").read_text())["n"] == "0001"
