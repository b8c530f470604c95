"""The local engine with real training: killed launchers and workers, and how jobs resume."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_sweep
from tiny_sweep import until

from mcjax.sweeps import attempts


def launch(folder):
    return tiny_sweep.launcher(
        f"--sweep={folder / 'tiny.py'}", f"--workdir={folder / 'sweep'}", stderr=subprocess.PIPE
    )


def finish(folder):
    launcher = launch(folder)
    _, told = launcher.communicate(timeout=300)
    assert launcher.returncode == 0, told
    return told


def processes(folder):
    """The processes, by id, that have a folder on their command line."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_text()
        except OSError:
            continue
        if str(folder) in line:
            found[int(pid)] = line
    return found


def is_in_the_middle(sweep_dir):
    """Whether the first attempt of the only job has saved an unfinished stage."""
    return any(map(tiny_sweep.has_begun, (sweep_dir / "jobs").glob("*/attempts/0001")))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """What the job leaves where nothing is killed."""
    folder = tmp_path_factory.mktemp("unbroken")
    tiny_sweep.declare(folder, 1)
    finish(folder)
    (attempt,) = (folder / "sweep" / "jobs").glob("*/attempts/0001")
    return attempt


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.slow(compiles=True)
@pytest.mark.parametrize("victim", ["launcher", "worker"])
def test_a_kill_in_the_middle_costs_no_result(tmp_path, victim, unbroken):
    tiny_sweep.declare(tmp_path, 1)
    sweep_dir = tmp_path / "sweep"

    launcher = launch(tmp_path)
    try:
        until(lambda: is_in_the_middle(sweep_dir))
        (job_dir,) = (sweep_dir / "jobs").iterdir()
        if victim == "launcher":
            launcher.kill()
            launcher.communicate()
            until(lambda: not processes(sweep_dir), 20)  # no orphan keeps writing
            assert not (job_dir / "result.json").exists()
            finish(tmp_path)
        else:
            os.kill(attempts.read(job_dir / "attempts" / "0001")["pid"], signal.SIGKILL)
            _, told = launcher.communicate(timeout=300)
            assert launcher.returncode == 0, told
    finally:
        launcher.kill()

    one, two = attempts.folders(job_dir)
    ended = (
        128 + signal.SIGTERM if victim == "launcher" else None
    )  # it ends by itself, without its parent
    assert attempts.read(one).get("exit_code") == ended
    last = attempts.read(two)
    assert (last["exit_code"], last["resumed_from"]) == (0, "0001")
    assert last["resumed"]["finished"] or any(last["resumed"]["partial"].values())
    published = (job_dir / "result.json").read_bytes()
    assert json.loads(published)["attempt"] == "0002"
    assert "1 jobs, 1 done; 0 to run" in finish(tmp_path)
    assert attempts.folders(job_dir) == [one, two]
    assert (job_dir / "result.json").read_bytes() == published

    for name in ("path.csv", "figures/line.csv"):
        assert (two / name).read_bytes() == (unbroken / name).read_bytes()
