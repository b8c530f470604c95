"""The local engine with real training: killed launchers and workers, and what goes on after them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from launch import attempts

ROOT = Path(__file__).parents[2]
SWEEP = """
from launch.jobs import Sweep, grid
from mcjax import config

def get_sweep():
    base = config.quick(config.connect())
    base.data.name = "npz:{data}"
    base.model.name = "mlp"
    base.endpoint.num_epochs = 10.0
    base.endpoint.batch_size = 8
    base.run.checkpoint_seconds = 0.001
    base.run.log_every_steps = 8
    return Sweep(base, grid({{"seed": (0,)}}))
"""


def launch(folder):
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "launch.sweep"),
            f"--sweep={folder / 'tiny.py'}",
            f"--workdir={folder / 'sweep'}",
        ],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(folder):
    launcher = launch(folder)
    _, told = launcher.communicate(timeout=300)
    assert launcher.returncode == 0, told
    return told


def until(ready, seconds=120.0):
    end = time.monotonic() + seconds
    while not (value := ready()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)
    return value


def processes(folder):
    """The processes, by id, that name a folder on their command line."""
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
    """Whether the first attempt of the only job has saved a stage that is not at its end."""
    folders = (sweep_dir / "jobs").glob("*/attempts/0001")
    return any(step > 0 for f in folders for step in attempts.progress(f)["partial"].values())


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("victim", ["launcher", "worker"])
def test_a_kill_in_the_middle_costs_no_result(tmp_path, victim):
    rng = np.random.default_rng(0)
    image, label = rng.random((80, 4, 4), np.float32), np.arange(80) % 2
    np.savez(tmp_path / "tiny.npz", image=image, label=label)
    (tmp_path / "tiny.py").write_text(SWEEP.format(data=tmp_path / "tiny.npz"))
    sweep_dir = tmp_path / "sweep"

    launcher = launch(tmp_path)
    try:
        until(lambda: is_in_the_middle(sweep_dir))
        (job_dir,) = (sweep_dir / "jobs").iterdir()
        if victim == "launcher":
            launcher.kill()
            launcher.communicate()
            until(lambda: not processes(sweep_dir), 20)  # no orphan goes on writing
            assert not (job_dir / "result.json").exists()
            finish(tmp_path)
        else:
            os.kill(attempts.read(job_dir / "attempts" / "0001")["pid"], signal.SIGKILL)
            _, told = launcher.communicate(timeout=300)
            assert launcher.returncode == 0, told
    finally:
        launcher.kill()

    one, two = attempts.folders(job_dir)
    ended = 128 + signal.SIGTERM if victim == "launcher" else None  # by itself, left alone
    assert attempts.read(one).get("exit_code") == ended
    last = attempts.read(two)
    assert (last["exit_code"], last["resumed_from"]) == (0, "0001")
    assert last["resumed"]["finished"] or any(last["resumed"]["partial"].values())
    published = (job_dir / "result.json").read_bytes()
    assert json.loads(published)["attempt"] == "0002"
    assert "1 jobs, 1 done; 0 to run" in finish(tmp_path)
    assert attempts.folders(job_dir) == [one, two]
    assert (job_dir / "result.json").read_bytes() == published
