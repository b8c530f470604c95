"""The Slurm engine: its script with shellcheck and bash, its commands with fakes on PATH."""

import os
import shutil
import subprocess
import sys

import pytest

from mcjax.errors import UserError
from mcjax.sweeps.engines import Options, slurm

IDS = ["seed_0-aa", "seed_1-bb", "seed_2-cc"]


def test_the_script_is_what_sbatch_takes(tmp_path):
    options = Options(parallel=4, cpus=8, gpus=1, sbatch=("--time=8:00:00", "--partition=big"))
    text = slurm.open_engine(options).script(tmp_path / "my sweep", IDS, tmp_path / "0001.jobs")
    head = [line.removeprefix("#SBATCH ") for line in text.splitlines() if "#SBATCH" in line]
    for line in (
        "--array=0-2%4",
        "--cpus-per-task=8",
        "--gres=gpu:1",
        "--requeue",
        "--time=8:00:00",
        "--partition=big",
    ):
        assert line in head
    assert text.startswith("#!/bin/bash\n#SBATCH ")
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed: the script's head alone was checked")
    (tmp_path / "script.sh").write_text(text)
    done = subprocess.run(["shellcheck", tmp_path / "script.sh"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("index", range(3))
def test_each_task_of_the_array_runs_its_own_job(tmp_path, index):
    folder = tmp_path / "a sweep's"
    folder.mkdir()
    list_file = folder / "0001.jobs"
    list_file.write_text("\n".join(IDS) + "\n")
    text = slurm.open_engine(Options()).script(folder, IDS, list_file)
    text = text.replace(f"exec {sys.executable}", "exec printf '%s\\n'")
    done = subprocess.run(
        ["bash", "-c", text],
        env={**os.environ, "SLURM_ARRAY_TASK_ID": str(index)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == ["-m", "mcjax.sweeps.worker", f"{folder}/jobs/{IDS[index]}"]


def test_large_sweeps_are_several_arrays():
    parts = slurm.split([str(i) for i in range(2500)])
    assert [len(part) for part in parts] == [1000, 1000, 500]
    assert [name for part in parts for name in part] == [str(i) for i in range(2500)]


@pytest.fixture
def fake_slurm(tmp_path, monkeypatch):
    """An sbatch that numbers its scripts, and an squeue that prints a file."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "sbatch").write_text(
        f'#!/bin/bash\necho "$@" >> {tmp_path}/calls\n[ ! -e {tmp_path}/broken ] || {{ echo "no such partition" >&2; exit 1; }}\n'
        f'echo "$(wc -l < {tmp_path}/calls);cluster"\n'
    )
    (folder / "squeue").write_text(
        f'#!/bin/bash\necho "$@" >> {tmp_path}/asked\ncat {tmp_path}/queue\n'
    )
    for name in ("sbatch", "squeue"):
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return tmp_path


def test_what_waits_in_the_queue_is_not_submitted_again(fake_slurm):
    folder = fake_slurm / "sweep"
    folder.mkdir()
    engine = slurm.open_engine(Options())
    assert engine.queued(folder) == set()
    engine.submit(folder, IDS)
    assert (fake_slurm / "calls").read_text() == f"--parsable {folder}/slurm/0001.sh\n"
    assert (folder / "slurm" / "0001.jobs").read_text().split() == IDS
    assert not engine.poll()
    (fake_slurm / "queue").write_text("0 RUNNING\n1 PENDING\n2 COMPLETED\n")
    assert engine.queued(folder) == set(IDS[:2])
    assert "--jobs=1 " in (fake_slurm / "asked").read_text()
    (fake_slurm / "queue").unlink()  # squeue fails because Slurm has forgotten the array
    assert engine.queued(folder) == set()
    engine.submit(folder, IDS[2:])
    assert (folder / "slurm" / "0002.jobs").read_text().split() == IDS[2:]


def test_two_launchers_at_once_take_two_numbers(fake_slurm, monkeypatch):
    folder = fake_slurm / "sweep" / "slurm"
    folder.mkdir(parents=True)
    engine = slurm.open_engine(Options())
    # Each listed the folder while it was empty.
    monkeypatch.setattr(
        type(engine), "_list_file", lambda self, sweep_dir, n: folder / f"{n + 1:04d}.jobs"
    )
    taken = {engine._claimed(fake_slurm / "sweep").name for _ in range(3)}
    assert taken == {"0001.jobs", "0002.jobs", "0003.jobs"}


def test_sbatch_says_no(fake_slurm):
    (fake_slurm / "broken").touch()
    (fake_slurm / "sweep").mkdir()
    with pytest.raises(UserError, match="failed: no such partition; fix that"):
        slurm.open_engine(Options()).submit(fake_slurm / "sweep", IDS)
    assert slurm.open_engine(Options()).queued(fake_slurm / "sweep") == set()
