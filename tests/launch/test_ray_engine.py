"""Ray with two nodes: an interrupted launcher, a lost node, and nothing that is done twice."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from launch import attempts

ROOT = Path(__file__).parents[2]
# Ray listens on every address: a network of its own, and all processes end with the first.
APART = [
    "unshare",
    "--user",
    "--map-root-user",
    "--net",
    "--pid",
    "--fork",
    "--mount-proc",
    "--kill-child",
]
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
    return Sweep(base, grid({{"seed": range(12)}}))
"""


def namespaces_are_allowed():
    try:
        done = subprocess.run([*APART, "ip", "link", "set", "lo", "up"], capture_output=True)
    except FileNotFoundError:
        return False
    return done.returncode == 0


@pytest.mark.skipif(not namespaces_are_allowed(), reason="no namespaces for a network of its own")
def test_twelve_jobs_on_two_nodes_of_which_one_is_lost(tmp_path):
    pytest.importorskip("ray")
    rng = np.random.default_rng(0)
    image, label = rng.random((80, 4, 4), np.float32), np.arange(80) % 2
    np.savez(tmp_path / "tiny.npz", image=image, label=label)
    (tmp_path / "tiny.py").write_text(SWEEP.format(data=tmp_path / "tiny.npz"))
    sweep_dir = tmp_path / "sweep"
    script = Path(__file__).with_name("ray_nodes.py")
    done = subprocess.run(
        [*APART, sys.executable, script, tmp_path / "tiny.py", sweep_dir],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "RAY_AUTH_MODE": "disabled",  # its token would be left in the home directory
            "RAY_USAGE_STATS_ENABLED": "0",
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["codes"] == [130, 0, 0]
    assert "12 jobs, 12 done; 0 to run" in told["again"]

    jobs = sorted((sweep_dir / "jobs").iterdir())
    assert len(jobs) == 12
    for job in jobs:
        published = json.loads((job / "result.json").read_text())
        ended = [f.name for f in attempts.folders(job) if attempts.read(f).get("exit_code") == 0]
        assert ended == [published["attempt"]]  # computed once, published once

    lost = Path(told["lost"])
    assert attempts.read(lost).get("exit_code") is None
    *_, before, last = attempts.folders(lost.parents[1])
    assert before == lost
    went_on = attempts.read(last)
    assert went_on["resumed_from"] == lost.name
    resumed = went_on["resumed"]
    assert resumed["finished"] or any(step > 0 for step in resumed["partial"].values())
