"""launch/skypilot: the structure of the task files, and SkyPilot's own loader if it is installed."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")

ROOT = Path(__file__).parents[2]
FILES = ("tpu", "gpu")
LOAD = """
import json, sys, sky
task = sky.Task.from_yaml(sys.argv[1])
rows = [{
    "accelerators": r.accelerators, "args": r.accelerator_args, "spot": r.use_spot,
    "cloud": str(r.cloud), "recovery": r.job_recovery, "down": r.autostop_config.down,
} for r in task.resources]
print("TASK" + json.dumps({
    "name": task.name, "workdir": task.workdir, "envs": task.envs, "resources": rows,
    "mounts": sorted(task.storage_mounts),
}))
"""


@pytest.fixture(params=FILES)
def file(request):
    return ROOT / "launch" / "skypilot" / f"{request.param}.yaml"


def test_structure(file):
    text = file.read_text()
    task = yaml.safe_load(text)
    assert set(task) == {"name", "workdir", "resources", "envs", "file_mounts", "setup", "run"}
    assert "NOT RUN" in text
    resources = task["resources"]
    assert resources["use_spot"] is True
    assert resources["autostop"]["down"] is True  # a TPU slice can't be stopped, only deleted
    assert resources["job_recovery"]["max_restarts_on_errors"] > 0
    assert task["file_mounts"]["/sweeps"] == {"source": "gs://${BUCKET}", "mode": "MOUNT"}
    used = set(
        re.findall(r"\$\{?([A-Z]+)\}?", task["setup"] + task["run"] + str(task["file_mounts"]))
    )
    assert used - set(task["envs"]) == {"HOME", "PATH"}


def test_what_the_tasks_run_is_there(file):
    task = yaml.safe_load(file.read_text())
    script = re.search(r"bash (\S+\.sh)", task["setup"])[1]
    assert (ROOT / script).is_file()
    module = re.search(r"python -m (\S+)", task["run"])[1]
    assert module == "launch.sweep"
    for part in ("setup", "run"):
        done = subprocess.run(["bash", "-n", "-c", task[part]], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_skypilots_own_loader(file, tmp_path):
    python = os.environ.get("MCJAX_SKYPILOT_PYTHON", sys.executable)
    if python == sys.executable and find_spec("sky") is None:
        pytest.skip(
            "SkyPilot is not installed; or name a python that has it: MCJAX_SKYPILOT_PYTHON"
        )
    done = subprocess.run(
        [python, "-c", LOAD, str(file)],
        env={**os.environ, "HOME": str(tmp_path), "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=180,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    task = json.loads(done.stdout.split("TASK")[1])
    assert task["workdir"] == "."
    assert task["mounts"] == ["/sweeps"]
    assert all(r["spot"] and r["down"] for r in task["resources"])
    assert {r["recovery"]["strategy"] for r in task["resources"]} == {"EAGER_NEXT_REGION"}
    if file.stem == "tpu":
        (r,) = task["resources"]
        assert r["accelerators"] == {"tpu-v4-8": 1}
        assert r["args"]["runtime_version"] == "tpu-ubuntu2204-base"
        assert r["cloud"] == "GCP"
    else:
        kinds = {name for r in task["resources"] for name in r["accelerators"]}
        assert kinds == {"L4", "A100", "H100"}
