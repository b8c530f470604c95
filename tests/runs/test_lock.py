"""A folder in use by another process, and one whose process was killed."""

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mcjax.core.errors import UserError
from mcjax.runs.lock import hold

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys, time
from pathlib import Path
from mcjax.runs.lock import hold
lock = hold(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_the_second_process_is_refused_until_the_first_is_gone_however_it_ends(tmp_path):
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"run is in use by process {process.pid} on .*; wait"):
            hold(folder)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
    assert (folder / ".lock").exists()  # the file is left, the lock is not
    lock = hold(folder)
    assert f"process {os.getpid()} on" in (folder / ".lock").read_text()
    del lock


def test_one_process_may_open_a_run_again_and_lets_go_with_the_last_use(tmp_path):
    first = hold(tmp_path)
    link = tmp_path.parent / f"{tmp_path.name}-link"
    link.symlink_to(tmp_path)
    assert hold(link) is first
    del first
    gc.collect()
    command = HOLDER.replace("time.sleep(60)", "")
    done = subprocess.run(
        [sys.executable, "-c", command, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "held\n", done.stderr


def test_a_place_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"can't write .*file; make room|can't write .*file: "):
        hold(tmp_path / "file")
