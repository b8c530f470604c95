"""Two real processes on this machine's loopback, two devices each, against one process."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from slow import SLOW

from mcjax.core import processes
from mcjax.core.errors import UserError
from mcjax.core.sharding import make_mesh
from mcjax.experiments import connect
from mcjax.runs.checkpoint import restore
from mcjax.runs.config import connect as defaults
from mcjax.runs.config import quick
from mcjax.runs.workdir import read_csv

ROOT = Path(__file__).parents[2]
SECONDS = 600  # of a run's processes, on a busy machine; a quiet one needs 15

CONFIG = """
from mcjax.runs import config as base

def get_config():
    return base.quick(base.connect())
"""

SETTINGS = {
    "model.name": "mlp",
    "endpoint.num_epochs": 0.2,
    "evaluation.num_points": 9,
    "evaluation.plane_points": 0,
    "run.data_parallel": True,
}


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def start(workdir, *options):
    """Starts the two processes of one run; each logs into a file of its own."""
    port, running = free_port(), []
    (workdir.parent / "tiny.py").write_text(CONFIG)
    config = ["--config", str(workdir.parent / "tiny.py")]
    config += [f"--config.{field}={value}" for field, value in SETTINGS.items()]
    for i in range(2):
        command = [sys.executable, "-m", "mcjax.train", *config]
        command += ["--workdir", str(workdir), "--coordinator", f"127.0.0.1:{port}"]
        command += ["--num_processes", "2", "--process_id", str(i)]
        command += ["--heartbeat_seconds", "10", "--connect_seconds", "120", *options]
        with (workdir.parent / f"process_{i}.log").open("wb") as file:
            running.append(
                subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"},
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            )
    return running


def wait(running, seconds=SECONDS):
    """Exit codes; what still runs then is ended."""
    deadline = time.monotonic() + seconds
    try:
        return [one.wait(max(0.1, deadline - time.monotonic())) for one in running]
    finally:
        for one in running:
            one.kill()
            one.wait()


def logs(folder):
    return [path.read_text() for path in sorted(folder.glob("process_*.log"))]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    codes = wait(start(folder / "run"))
    assert codes == [0, 0], "\n".join(logs(folder))
    return folder


def alone(workdir, num_devices, monkeypatch, **changes):
    mesh = make_mesh(jax.devices()[:num_devices])
    monkeypatch.setattr("mcjax.runs.run.make_mesh", lambda: mesh)
    config = quick(defaults())
    config.update_from_flattened_dict(SETTINGS | changes)
    connect.run_experiment(config, workdir)


@pytest.mark.slow(compiles=True)
@pytest.mark.parametrize("num_devices", [1, 4])
def test_two_processes_leave_what_one_leaves(two, num_devices, tmp_path, monkeypatch):
    """Training shared by all devices of both, and the path over them: equal but for rounding."""
    alone(tmp_path, num_devices, monkeypatch)
    for name in ("path.csv", "figures/line.csv"):
        ours, theirs = (read_csv(workdir / name) for workdir in (two / "run", tmp_path))
        assert ours["t"] == theirs["t"]
        for column, values in theirs.items():
            np.testing.assert_allclose(ours[column], values, rtol=1e-5, err_msg=column)
    names = {p.relative_to(tmp_path) for p in tmp_path.rglob("*") if "checkpoints" not in p.parts}
    found = (p.relative_to(two / "run") for p in (two / "run").rglob("*"))
    assert {p for p in found if "checkpoints" not in p.parts} == names


@pytest.mark.slow(compiles=True)
def test_only_the_first_writes_and_speaks(two):
    record = json.loads((two / "run" / "config.json").read_text())
    assert (record["num_processes"], record["num_devices"]) == (2, 4)
    lines = (two / "run" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == len(set(lines)) > 4
    first, second = logs(two)
    assert "done in" in first
    assert "workdir" not in second
    assert "done in" not in second


@pytest.mark.slow(compiles=True)
def test_killed_and_started_again_goes_on(tmp_path, monkeypatch):
    """One of the two is killed in the middle: the other ends, and the same two commands go on."""
    often = ("--config.run.checkpoint_seconds=0.001", "--config.curve.num_epochs=4")
    running = start(tmp_path / "run", *often)
    partial = tmp_path / "run" / "checkpoints" / ".partial" / "curve"
    deadline = time.monotonic() + SECONDS
    while not any(partial.glob("[0-9]*")) and time.monotonic() < deadline:
        assert [one.poll() for one in running] == [None, None], "\n".join(logs(tmp_path))
        time.sleep(0.01)
    running[1].send_signal(signal.SIGKILL)
    codes = wait(running, 60)
    assert codes[1] == -signal.SIGKILL
    assert codes[0] not in (0, None)
    assert not (tmp_path / "run" / "result.json").exists()
    codes = wait(start(tmp_path / "run", *often))
    assert codes == [0, 0], "\n".join(logs(tmp_path))
    assert "curve: resumes at step" in logs(tmp_path)[0]
    alone(tmp_path / "alone", 4, monkeypatch, **{"curve.num_epochs": 4.0})
    ours, theirs = (restore(tmp_path / d / "checkpoints" / "curve")[0] for d in ("run", "alone"))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.slow(compiles=True)
def test_a_mistake_ends_all_of_them_with_one_line(tmp_path):
    (tmp_path / "run").write_text("a file in the way")
    assert wait(start(tmp_path / "run")) == [2, 2], "\n".join(logs(tmp_path))
    for text in logs(tmp_path):
        assert "python -m mcjax.train: error: can't write" in text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--num_processes 2", "need coordinator=HOST:PORT"),
        *(
            pytest.param(*case, marks=SLOW)
            for case in (
                ("--coordinator here", "give HOST:PORT or auto"),
                ("--coordinator a:1 --num_processes 2", "needs num_processes and process_id"),
                ("--coordinator a:1 --num_processes 2 --process_id 2", "process ids count from 0"),
            )
        ),
        (
            "--coordinator 127.0.0.1:{port} --num_processes 2 --process_id 1 --connect_seconds 1",
            "process 1 can't reach the coordinator 127.0.0.1:",
        ),
        (
            "--coordinator 127.0.0.1:{port} --num_processes 2 --process_id 0 --connect_seconds 1",
            "timed out after 1 s waiting for all processes to connect",
        ),
    ],
)
def test_processes_that_can_not_be_joined(flags, message):
    command = [sys.executable, "-c", START, *flags.format(port=free_port()).split()]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


START = """
from mcjax.cli import command
command.run(lambda: None, command.define_process_flags, "")
"""

ONE_FAILS = """
from mcjax.cli import command
from mcjax.core import processes

def main():
    processes.once(lambda: None)
    if not processes.is_first():
        raise RuntimeError("a bug")
    processes.once(lambda: None)

command.run(main, command.define_process_flags, "")
"""


@pytest.mark.slow(compiles=True)
def test_a_bug_in_one_process_ends_the_other(tmp_path):
    flags = ["--coordinator", f"127.0.0.1:{free_port()}", "--num_processes", "2"]
    running = []
    for i in range(2):
        with (tmp_path / f"process_{i}.log").open("wb") as file:
            command = [sys.executable, "-c", ONE_FAILS, *flags, "--process_id", str(i)]
            environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
            running.append(
                subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)
            )
    codes = wait(running, 120)
    assert codes[1] == 1
    assert codes[0] not in (0, -signal.SIGKILL)  # it ended by itself
    assert "RuntimeError: a bug" in logs(tmp_path)[1]


def test_alone_nothing_is_exchanged():
    assert not processes.several()
    assert processes.is_first()
    value = object()
    assert processes.once(lambda: value) is value
    with pytest.raises(UserError, match="mine"):
        processes.everywhere(lambda: (_ for _ in ()).throw(UserError("mine")))
