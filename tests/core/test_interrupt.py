"""Ctrl-C while a command imports, and nothing of ours in somebody else's program."""

import gc
import os
import signal
import subprocess
import sys
import time

import pytest

from mcjax.core import interrupt

# Says when mcjax has been entered, then imports it slowly enough to be met there.
SLOW = """
import sys, time
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "mcjax.cli.command":
            print("importing", flush=True)
            time.sleep(60)
sys.meta_path.insert(0, Slow())
"""


# A shell that runs the tests in the background has them, and what they start, ignore Ctrl-C.
DEFAULT_SIGNAL = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.mark.parametrize("module", ["mcjax.train", "launch.sweep"])
def test_one_line_while_a_command_imports(module, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(SLOW)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-c", DEFAULT_SIGNAL, "-m", module, "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert error == f"python -m {module}: interrupted\n"
    assert process.returncode == 130
    assert time.monotonic() - began < 10


def test_other_programs_keep_their_handler(monkeypatch):
    def handler(*_):
        pass

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for words in (["python", "-m", "pytest"], ["python", "mine.py"], ["python", "-m"]):
            monkeypatch.setattr(sys, "orig_argv", words)
            interrupt.quiet_while_importing()
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "mcjax.train"])
        interrupt.quiet_while_importing()
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        interrupt.ready()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGINT, handler)
        interrupt.quiet_while_importing()
        interrupt.ready()
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_interrupt_that_python_drops_comes_again(monkeypatch, capfd):
    """As in JAX's callback of the garbage collector, where Python prints it and runs on."""
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupted = []

    def callback(phase, info):
        if phase == "start" and not interrupted:
            interrupted.append(phase)
            signal.raise_signal(signal.SIGINT)

    def collect_and_go_on():
        gc.collect()
        time.sleep(10)

    gc.callbacks.append(callback)
    try:
        gc.collect()  # Python's own: dropped
        assert "KeyboardInterrupt" in capfd.readouterr().err
        interrupt.repeat_where_swallowed()
        interrupted.clear()
        with pytest.raises(KeyboardInterrupt):
            collect_and_go_on()
        assert interrupted
        assert capfd.readouterr().err == ""
    finally:
        gc.callbacks.remove(callback)
        signal.signal(signal.SIGINT, before)


def test_other_errors_that_python_drops_are_shown(monkeypatch, capfd):
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    interrupt.repeat_where_swallowed()

    class Failing:
        def __del__(self):
            raise ZeroDivisionError

    Failing()
    gc.collect()
    assert "ZeroDivisionError" in capfd.readouterr().err
