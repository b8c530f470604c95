"""Attempts: one folder each, copied completely, alive until their process ends."""

import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mcjax.sweeps import attempts


def test_no_two_attempts_get_one_folder(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda _: attempts.begin(tmp_path), range(40)))
    assert sorted(f.name for f in got) == [f"{i:04d}" for i in range(1, 41)]
    assert attempts.folders(tmp_path) == sorted(got)


def checkpoint(folder, name, text):
    path = folder / "checkpoints" / name
    path.mkdir(parents=True)
    (path / "_CHECKPOINT_METADATA").write_text("{}")
    (path / "data").write_text(text)
    return path


def files(folder):
    return {
        str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def test_what_is_handed_on(tmp_path):
    old = attempts.begin(tmp_path)
    checkpoint(old, "seed_0/endpoint_a", "a")
    checkpoint(old, ".partial/seed_0/endpoint_b/120", "b")
    checkpoint(old, ".partial/seed_0/endpoint_b/140.orbax-checkpoint-tmp-1", "half")
    (old / "checkpoints" / ".walks").mkdir()
    (old / "checkpoints" / ".walks" / ".path.npz.7.tmp").write_text("half")
    (old / "metrics.jsonl").write_text("1\n")
    (old / "figures").mkdir()
    (old / "figures" / "x.csv").write_text("x")
    for name in attempts.OWN_FILES:
        (old / name).write_text("its own")
    before = files(old)
    attempts.begin(tmp_path)  # ended before it wrote anything
    new = attempts.begin(tmp_path)
    assert attempts.take_over(new) == "0001"
    assert files(new) == {
        "checkpoints/seed_0/endpoint_a/_CHECKPOINT_METADATA": "{}",
        "checkpoints/seed_0/endpoint_a/data": "a",
        "checkpoints/.partial/seed_0/endpoint_b/120/_CHECKPOINT_METADATA": "{}",
        "checkpoints/.partial/seed_0/endpoint_b/120/data": "b",
        "metrics.jsonl": "1\n",
        "figures/x.csv": "x",
    }
    assert attempts.progress(new) == {
        "finished": ["seed_0/endpoint_a"],
        "partial": {"seed_0/endpoint_b": 120},
    }
    with (new / "metrics.jsonl").open("a") as file:  # the resumed run appends to it
        file.write("2\n")
    assert files(old) == before


def test_progress_of_an_attempt_at_work(tmp_path, monkeypatch):
    """Checkpoints are renamed and deleted while another process reads the folder."""
    folder = attempts.begin(tmp_path)
    for name in ("endpoint_a", ".partial/endpoint_b/120", ".partial/endpoint_b/130"):
        (folder / "checkpoints" / name).mkdir(parents=True)
        (folder / "checkpoints" / name / "_CHECKPOINT_METADATA").write_text("{}")
    scandir = os.scandir

    def vanishes(path):
        if Path(str(path)).name == "120":  # rmtree calls it with a descriptor
            shutil.rmtree(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", vanishes)
    told = attempts.progress(folder)
    assert told == {"finished": ["endpoint_a"], "partial": {"endpoint_b": 130}}


def test_nothing_to_hand_on(tmp_path):
    attempts.begin(tmp_path)
    new = attempts.begin(tmp_path)
    assert attempts.take_over(new) is None
    assert attempts.progress(new) == {"finished": [], "partial": {}}


def test_a_checkpoint_that_vanishes_under_the_copy(tmp_path, monkeypatch):
    old = attempts.begin(tmp_path)
    gone = checkpoint(old, ".partial/curve/10", "ten")
    link, calls = attempts._link, []

    def training_goes_on(source, target):
        calls.append(source)
        if len(calls) == 1:
            checkpoint(old, ".partial/curve/20", "twenty")
            for child in gone.iterdir():
                child.unlink()
            gone.rmdir()
        link(source, target)

    monkeypatch.setattr(attempts, "_link", training_goes_on)
    new = attempts.begin(tmp_path)
    assert attempts.take_over(new) == "0001"
    assert attempts.progress(new)["partial"] == {"curve": 20}
    assert [p.name for p in new.iterdir()] == ["checkpoints"]


def test_copies_where_links_are_not_to_be_had(tmp_path, monkeypatch):
    old = attempts.begin(tmp_path)
    checkpoint(old, "curve", "c")

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    new = attempts.begin(tmp_path)
    assert attempts.take_over(new) == "0001"
    assert (new / "checkpoints" / "curve" / "data").read_text() == "c"
    assert (new / "checkpoints" / "curve" / "data").stat().st_nlink == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_alive_until_killed(tmp_path, number):
    folder = attempts.begin(tmp_path)
    assert not attempts.alive(folder)
    program = (
        "import pathlib, sys, time; from mcjax.sweeps import attempts\n"
        "with attempts.hold(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        assert attempts.alive(folder)
        assert attempts.alive(folder)  # reading does not release the lock
        holder.send_signal(number)
        holder.wait()
    assert not attempts.alive(folder)


def test_on_another_host_the_heartbeat_tells(tmp_path):
    folder = attempts.begin(tmp_path)
    (folder / "alive").write_text("some.other.host")
    assert attempts.alive(folder)
    old = time.time() - 2 * attempts.DEAD_AFTER_SECONDS
    os.utime(folder / "alive", (old, old))
    assert not attempts.alive(folder)
