"""Ray with two nodes: an interrupted launcher, a lost node, and no job done twice."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_sweep

APART = (*tiny_sweep.APART, "--user", "--map-root-user")


@pytest.mark.slow
@pytest.mark.skipif(
    not tiny_sweep.allowed(*APART), reason="no namespaces for a network of its own here"
)
def test_twelve_jobs_on_two_nodes_of_which_one_is_lost(tmp_path):
    pytest.importorskip("ray")
    sweep_dir = tmp_path / "sweep"
    script = Path(__file__).with_name("ray_nodes.py")
    done = subprocess.run(
        [*APART, sys.executable, script, tiny_sweep.declare(tmp_path, 12), sweep_dir],
        env={
            **os.environ,
            "PYTHONPATH": str(tiny_sweep.ROOT),
            "JAX_PLATFORMS": "cpu",
            "RAY_AUTH_MODE": "disabled",  # it would leave its token in the home directory
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
    tiny_sweep.check(sweep_dir, Path(told["lost"]), 12)
