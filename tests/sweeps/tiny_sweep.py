"""Helpers for tests of the engines: a sweep of tiny jobs, and how far they are."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from mcjax.sweeps import attempts

ROOT = Path(__file__).parents[2]
# Ray and Slurm listen on every address, so they get their own network. All processes end with the first.
APART = ("unshare", "--net", "--pid", "--fork", "--mount-proc", "--kill-child")
NODE_APART = (
    "unshare",
    "--pid",
    "--fork",
    "--mount-proc",
    "--kill-child",
)  # all its processes end at once
SWEEP = """
from mcjax.sweeps.declare import Sweep, grid
from mcjax import config

def get_sweep():
    base = config.quick(config.connect())
    base.data.name = "npz:{data}"
    base.model.name = "mlp"
    base.endpoint.num_epochs = 10.0
    base.endpoint.batch_size = 8
    base.run.checkpoint_seconds = 0.001
    base.run.log_every_steps = 8
    return Sweep(base, grid({{"seed": range({num_jobs})}}))
"""


def declare(folder, num_jobs):
    """A sweep file of tiny jobs, which take a second of training and seconds to start."""
    rng = np.random.default_rng(0)
    image, label = rng.random((80, 4, 4), np.float32), np.arange(80) % 2
    np.savez(folder / "tiny.npz", image=image, label=label)
    path = folder / "tiny.py"
    path.write_text(SWEEP.format(data=folder / "tiny.npz", num_jobs=num_jobs))
    return path


def allowed(*command):
    """Whether this machine allows such a namespace."""
    try:
        done = subprocess.run([*command, "ip", "link", "set", "lo", "up"], capture_output=True)
    except FileNotFoundError:
        return False
    return done.returncode == 0


def launcher(*arguments, stderr=None):
    """Starts a launcher."""
    return subprocess.Popen(
        [sys.executable, "-m", "launch.sweep", *arguments],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdout=sys.stderr,
        stderr=stderr,
        text=True,
    )


def until(ready, seconds=120.0):
    """Waits until ready() is true, and returns its value."""
    end = time.monotonic() + seconds
    while not (value := ready()):
        assert time.monotonic() < end, "timed out"
        time.sleep(0.02)
    return value


def has_begun(attempt):
    """Whether an attempt has saved an unfinished stage."""
    return any(step > 0 for step in attempts.progress(attempt)["partial"].values())


def check(sweep_dir, lost, num_jobs):
    """Checks that every job was published once, and that the lost attempt was resumed by the next."""
    jobs = sorted((sweep_dir / "jobs").iterdir())
    assert len(jobs) == num_jobs
    for job in jobs:
        published = json.loads((job / "result.json").read_text())
        ended = [f.name for f in attempts.folders(job) if attempts.read(f).get("exit_code") == 0]
        assert ended == [published["attempt"]]
    assert attempts.read(lost).get("exit_code") is None
    *_, before, last = attempts.folders(lost.parents[1])
    assert before == lost
    went_on = attempts.read(last)
    assert went_on["resumed_from"] == lost.name
    resumed = went_on["resumed"]
    assert resumed["finished"] or any(step > 0 for step in resumed["partial"].values())
