"""A real Slurm with two nodes, one of which is lost: its jobs move, and no job is done twice."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_sweep

NEEDED = ("slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "sinfo")


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(shutil.which, NEEDED)), reason="Slurm is not installed: slurmctld, slurmd, sbatch"
)
@pytest.mark.skipif(
    not tiny_sweep.allowed(*tiny_sweep.APART), reason="only root may have namespaces"
)
def test_four_jobs_on_two_nodes_of_which_one_is_lost(tmp_path):
    sweep_dir = tmp_path / "sweep"
    script = Path(__file__).with_name("slurm_nodes.py")
    sweep = tiny_sweep.declare(tmp_path, 4)
    done = subprocess.run(
        [*tiny_sweep.APART, sys.executable, script, sweep, sweep_dir, tmp_path / "slurm"],
        env={**os.environ, "PYTHONPATH": str(tiny_sweep.ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    first, meanwhile, again = told["calls"]
    assert (first[0], meanwhile[0], again[0]) == (0, 0, 0)
    assert "4 jobs, 4 missing; 4 to run" in first[1]
    assert "; 0 to run" in meanwhile[1]
    assert "4 jobs, 4 done; 0 to run" in again[1]
    tiny_sweep.check(sweep_dir, Path(told["lost"]), 4)
